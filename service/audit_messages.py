"""The DICOM audit messages (PS3.15 A.5.3) that events become."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dicom_io import audit_message as dicom
from dicom_io.audit_message import AuditMessage, Code, Participant, ParticipantObject
from service.audit import AuditEvent, AuditKind


@dataclass(frozen=True, slots=True)
class AuditSite:
    """Who writes the trail."""

    ae_title: str
    host: str
    source_id: str
    site_id: str


def messages_of(event: AuditEvent, site: AuditSite) -> tuple[AuditMessage, ...]:
    """The messages an event becomes: two for a transfer (begin, end), else one."""
    if event.kind in (AuditKind.RECEIVED, AuditKind.SENT):
        begin = _message(event, site, dicom.BEGIN_TRANSFERRING, "E", _transfer(event, site))
        ended = replace(event, at=event.until or event.at)
        end = _message(ended, site, dicom.INSTANCES_TRANSFERRED, "C", _transfer(event, site))
        return begin, end
    if event.kind in (AuditKind.STARTED, AuditKind.STOPPED):
        kind = dicom.APPLICATION_START if event.kind is AuditKind.STARTED else dicom.APPLICATION_STOP
        application = _node(site, role=dicom.APPLICATION)
        return (_message(event, site, dicom.APPLICATION_ACTIVITY, "E", (application,), (kind,), has_objects=False),)
    if event.kind is AuditKind.QUERIED:
        asked = tuple(dicom.query_object("SERIES", study) for study in event.studies or ("",))
        message = _message(event, site, dicom.QUERY, "E", _transfer(event, site), has_objects=False)
        return (replace(message, objects=asked),)
    if event.kind in _LOGINS:
        person = Participant(event.by, is_requestor=True, address=event.address)
        sides = (person, _node(site))
        kinds = (_LOGINS[event.kind],)
        return (_message(event, site, dicom.USER_AUTHENTICATION, "E", sides, kinds, has_objects=False),)
    if event.kind is AuditKind.TRAIL_READ:
        reader = Participant(event.by, is_requestor=True, address=event.address)
        message = _message(event, site, dicom.AUDIT_LOG_USED, "R", (reader,), has_objects=False)
        return (replace(message, objects=(dicom.audit_log_object(f"discnode:audit/{site.source_id}"),)),)
    if event.kind in (AuditKind.CALL_REFUSED, AuditKind.ALERT):
        return (_alert(event, site),)
    what, action = _PERSONS[event.kind]
    person = Participant(event.by, is_requestor=True, address=event.address)
    participants = (person, _node(site)) if event.by else (_node(site, is_requestor=True),)
    return (_message(event, site, what, action, participants, (Code(event.kind, event.kind, "99DISCNODE"),)),)


_LOGINS: Mapping[AuditKind, Code] = {
    AuditKind.LOGIN: dicom.LOGIN,
    AuditKind.LOGIN_FAILED: dicom.LOGIN,
    AuditKind.LOGOUT: dicom.LOGOUT,
}
_PERSONS: Mapping[AuditKind, tuple[Code, str]] = {
    AuditKind.RELEASED: (dicom.INSTANCES_ACCESSED, "U"),
    AuditKind.DISCARDED: (dicom.INSTANCES_ACCESSED, "D"),
    AuditKind.DECIDED: (dicom.INSTANCES_ACCESSED, "U"),
    AuditKind.EXPORTED: (dicom.INSTANCES_ACCESSED, "R"),
    AuditKind.REPROCESSED: (dicom.INSTANCES_ACCESSED, "U"),
    AuditKind.CORRECTED: (dicom.INSTANCES_ACCESSED, "U"),
    AuditKind.VIEWED: (dicom.INSTANCES_ACCESSED, "R"),
    AuditKind.TRIAL: (dicom.INSTANCES_ACCESSED, "U"),
    AuditKind.REIDENTIFIED: (dicom.INSTANCES_ACCESSED, "R"),
    AuditKind.DELETED: (dicom.STUDY_DELETED, "D"),
}


def _message(
    event: AuditEvent,
    site: AuditSite,
    what: Code,
    action: str,
    participants: tuple[Participant, ...],
    types: tuple[Code, ...] = (),
    *,
    has_objects: bool = True,
) -> AuditMessage:
    return AuditMessage(
        event=what,
        action=action,
        at=event.at,
        participants=participants,
        source_id=site.source_id,
        site_id=site.site_id,
        outcome=4 if event.failed else 0,
        description=event.detail,
        types=types,
        objects=_objects(event) if has_objects else (),
    )


def _objects(event: AuditEvent) -> tuple[ParticipantObject, ...]:
    studies = tuple(dicom.study_object(study, event.sop_classes) for study in event.studies or ("unknown",))
    return (*studies, dicom.patient_object(event.patient or "unknown"))


def _transfer(event: AuditEvent, site: AuditSite) -> tuple[Participant, ...]:
    """The sending and the receiving side. The requestor is who opened the association."""
    is_web = "://" in event.peer
    peer = Participant(event.peer, ae_title="" if is_web else event.peer, address=event.address)
    if event.kind is AuditKind.RECEIVED:
        return replace(peer, is_requestor=True, role=dicom.SOURCE_ROLE), _node(site, role=dicom.DESTINATION_ROLE)
    return _node(site, role=dicom.SOURCE_ROLE, is_requestor=True), replace(peer, role=dicom.DESTINATION_ROLE)


def _node(site: AuditSite, *, role: Code | None = None, is_requestor: bool = False) -> Participant:
    return Participant(site.source_id, is_requestor, role, site.ae_title, site.host)


def _alert(event: AuditEvent, site: AuditSite) -> AuditMessage:
    is_call = event.kind is AuditKind.CALL_REFUSED
    caller = event.peer or event.by or "unknown"
    performing = Participant(caller, ae_title=event.peer, address=event.address)
    types = (dicom.NODE_AUTHENTICATION,) if is_call else (Code("alert", "Other alert", "99DISCNODE"),)
    message = _message(event, site, dicom.SECURITY_ALERT, "E", (_node(site), performing), types, has_objects=False)
    return replace(message, objects=(dicom.node_object(event.address or caller, event.detail or event.kind),))
