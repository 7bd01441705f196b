"""DICOM audit messages (PS3.15 A.5): frozen records in, XML out."""

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from xml.etree import ElementTree

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

# What XML 1.0 cannot hold; an AE title from the wire may.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value."""

    value: str
    meaning: str
    scheme: str = "DCM"


# PS3.16 CID 400 (event), 401 (type), 402 (role of a participant), 404 (kind of identifier).
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED = Code("110105", "DICOM Study Deleted")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
APPLICATION = Code("110150", "Application")
DESTINATION_ROLE = Code("110152", "Destination Role ID")
SOURCE_ROLE = Code("110153", "Source Role ID")
_STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
_SOP_CLASS_UID = Code("110181", "SOP Class UID")
_NODE_ID = Code("110182", "Node ID")
_URI = Code("12", "URI", "RFC-3881")
_PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")


@dataclass(frozen=True, slots=True)
class Participant:
    """Who took part: a person, a process or an application entity. ``address``: IP address or host name."""

    user_id: str
    is_requestor: bool = False
    role: Code | None = None
    ae_title: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class ParticipantObject:
    """What it was about. ``name`` or ``query`` is written, whichever is there; one must be (A.5.1)."""

    id: str
    id_type: Code
    type_code: int  # 1 person, 2 system object
    role: int | None  # 1 patient, 3 report, 13 security resource
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, bytes], ...] = ()
    sop_classes: tuple[tuple[str, int], ...] = ()  # UID, number of instances


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """One message. ``outcome``: 0 success, 4 minor, 8 serious, 12 major failure; ``at``: aware UTC."""

    event: Code
    action: str  # C, R, U, D or E
    at: datetime
    participants: tuple[Participant, ...]
    source_id: str
    site_id: str = ""
    outcome: int = 0
    description: str = ""
    types: tuple[Code, ...] = ()
    objects: tuple[ParticipantObject, ...] = field(default=())

    def to_xml(self) -> str:
        """The message as the schema of A.5.1 wants it, on one line, without XML declaration."""
        root = ElementTree.Element("AuditMessage")
        when = self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = _add(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=when,
            EventOutcomeIndicator=str(self.outcome),
        )
        _add_code(event, "EventID", self.event)
        for one in self.types:
            _add_code(event, "EventTypeCode", one)
        if self.description:
            _add(event, "EventOutcomeDescription").text = _clean(self.description)
        for participant in self.participants:
            _add_participant(root, participant)
        source = _add(
            root, "AuditSourceIdentification", AuditEnterpriseSiteID=self.site_id, AuditSourceID=self.source_id
        )
        _add(source, "AuditSourceTypeCode", **{"csd-code": "4"})  # application server process
        for thing in self.objects:
            _add_object(root, thing)
        return ElementTree.tostring(root, encoding="unicode")


def study_object(study_uid: str, sop_classes: tuple[tuple[str, int], ...] = ()) -> ParticipantObject:
    """A study, with how many instances of which SOP classes the event was about."""
    return ParticipantObject(study_uid, _STUDY_INSTANCE_UID, 2, 3, "Study", sop_classes=sop_classes)


def patient_object(pseudonym: str) -> ParticipantObject:
    """A patient, by whatever stands for the patient number. The name is not told."""
    return ParticipantObject(pseudonym, _PATIENT_NUMBER, 1, 1, "not told")


def query_object(level: str, study_uid: str) -> ParticipantObject:
    """A C-FIND request of the Study Root model for what a PACS has of a study."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = study_uid
    buffer = BytesIO()
    stream = DicomIO(buffer)
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, query)
    details = (("TransferSyntax", str(ImplicitVRLittleEndian).encode()),)
    return ParticipantObject(STUDY_ROOT_FIND, _SOP_CLASS_UID, 2, 3, query=buffer.getvalue(), details=details)


def audit_log_object(uri: str) -> ParticipantObject:
    """The audit trail itself."""
    return ParticipantObject(uri, _URI, 2, 13, "Security Audit Log")


def node_object(node: str, alert: str) -> ParticipantObject:
    """A node that a security alert is about, with the alert in words."""
    return ParticipantObject(node, _NODE_ID, 2, None, "Node", details=(("Alert Description", alert.encode()),))


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    """A child with those attributes that are not empty."""
    given = {key: _clean(value) for key, value in attributes.items() if value}
    return ElementTree.SubElement(parent, tag, given)


def _add_code(parent: ElementTree.Element, tag: str, code: Code) -> None:
    _add(parent, tag, **{"csd-code": code.value}, codeSystemName=code.scheme, originalText=code.meaning)


def _add_participant(root: ElementTree.Element, one: Participant) -> None:
    kind = "" if not one.address else "2" if _is_ip_address(one.address) else "1"
    element = _add(
        root,
        "ActiveParticipant",
        UserID=one.user_id or "unknown",
        AlternativeUserID=f"AETITLES={one.ae_title}" if one.ae_title else "",
        UserIsRequestor=str(one.is_requestor).lower(),
        NetworkAccessPointID=one.address,
        NetworkAccessPointTypeCode=kind,
    )
    if one.role is not None:
        _add_code(element, "RoleIDCode", one.role)


def _add_object(root: ElementTree.Element, one: ParticipantObject) -> None:
    element = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=one.id or "unknown",
        ParticipantObjectTypeCode=str(one.type_code),
        ParticipantObjectTypeCodeRole="" if one.role is None else str(one.role),
    )
    _add_code(element, "ParticipantObjectIDTypeCode", one.id_type)
    if one.query is None:
        _add(element, "ParticipantObjectName").text = _clean(one.name)
    else:
        _add(element, "ParticipantObjectQuery").text = base64.b64encode(one.query).decode()
    for kind, value in one.details:
        _add(element, "ParticipantObjectDetail", type=kind, value=base64.b64encode(value).decode())
    if one.sop_classes:
        description = _add(element, "ParticipantObjectDescription")
        for uid, number in one.sop_classes:
            _add(description, "SOPClass", UID=uid, NumberOfInstances=str(number))


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
