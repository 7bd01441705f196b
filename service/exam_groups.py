"""The images of a held exam in groups of one series and one patient, and what a person may do with a group.

Two patients in one study, or two scans that could both be measured: the node holds the exam, and only a person can say
which group does not belong. That group is set aside; its files stay.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from string import ascii_uppercase
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from config.protocol_cards import ElementAddress
from dicom_io.headers import ImageFacts, facts_from_json, read_facts
from processing.refusal import UnsuitableInput
from service import database as db
from service import jobs
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.quarantine import QuarantineItem, reopen_exam
from service.states import SEGMENTATION_STATES, InstanceState, JobState, QuarantineState

_KEPT = (InstanceState.INDEXED, InstanceState.HELD, *SEGMENTATION_STATES)


class CannotDiscard(Exception):
    """There is no such group, or it cannot be set aside now; the text says why."""


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """Objects of one series and one patient. ``patient``: a letter that tells patients of the exam apart, no identity.

    ``kept``: how many of them are not set aside. Times are aware UTC.
    """

    series_uid: str
    patient: str
    n_objects: int
    n_kept: int
    calling_aes: tuple[str, ...]
    first_received_at: datetime
    last_received_at: datetime
    paths: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For printing as JSON."""
        values = asdict(self)
        del values["paths"]
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class _Member:
    """One object of the exam, and the letter of its patient ("?" while its header could not be read)."""

    id: int
    patient: str
    row: Row[Any]


def list_groups(database: Database, exam_id: int, elements: Sequence[ElementAddress]) -> list[ImageGroup]:
    """All objects of an exam, also of studies measured with it, group by group, in the order in which they came.

    ``elements``: what the protocol cards in use want to be read.
    """
    with database.read() as connection:
        members = _members(connection, database, exam_id, elements)
    groups: dict[tuple[str, str], list[_Member]] = {}
    for one in members:
        groups.setdefault((one.row.series_uid, one.patient), []).append(one)
    return [_group(series_uid, patient, members) for (series_uid, patient), members in groups.items()]


def _group(series_uid: str, patient: str, members: Sequence[_Member]) -> ImageGroup:
    received = [one.row.received_at for one in members]
    return ImageGroup(
        series_uid=series_uid,
        patient=patient,
        n_objects=len(members),
        n_kept=sum(one.row.state != InstanceState.SET_ASIDE for one in members),
        calling_aes=tuple(sorted({one.row.calling_ae for one in members})),
        first_received_at=min(received),
        last_received_at=max(received),
        paths=tuple(one.row.path for one in members),
    )


def studies_of(exam_id: int) -> Select[tuple[str]]:
    """The Study UIDs of an exam and of those that are measured with it."""
    table = db.exam
    return select(table.c.study_uid).where((table.c.id == exam_id) | (table.c.joined_to == exam_id))


def _members(
    connection: Connection, database: Database, exam_id: int, elements: Sequence[ElementAddress]
) -> list[_Member]:
    table = db.instance
    query = select(table).where(table.c.study_uid.in_(studies_of(exam_id))).order_by(table.c.id)
    letters: dict[str, str] = {}
    members = []
    for row in connection.execute(query):
        facts = facts_of(row, database, elements)
        key = facts[0].patient_key if facts else None
        if key is not None and key not in letters:
            letters[key] = ascii_uppercase[len(letters)] if len(letters) < len(ascii_uppercase) else str(len(letters))
        members.append(_Member(row.id, "?" if key is None else letters[key], row))
    return members


def facts_of(row: Row[Any], database: Database, elements: Sequence[ElementAddress]) -> tuple[ImageFacts, ...]:
    """The facts of an object's images, as the intake kept them or read anew; () where they cannot be read."""
    path = database.inbox_dir / row.path
    kept = None if row.facts is None else facts_from_json(row.facts, path, elements)
    if kept is not None:
        return kept
    try:
        return read_facts(path, elements)
    except (UnsuitableInput, OSError):  # a broken object, or one whose file was discarded, is listed all the same
        return ()


def discard_group(
    database: Database,
    item: QuarantineItem,
    elements: Sequence[ElementAddress],
    *,
    reason: str,
    by: str = "",
    series_uid: str = "",
    patient: str = "",
) -> int:
    """Set the images of a series, of a patient, or of both, of a held exam aside; returns how many.

    Their own cases are closed, an analysis that would use them is given up, and the exam is judged again. The files
    stay in the inbox.

    Raises:
        CannotDiscard: the case is not a held exam, there is no such group, or it is just being read.
        ValueError: no reason, or no group is named.
    """
    if not reason.strip():
        raise ValueError("a reason is needed")
    if not series_uid and not patient:
        raise ValueError("a series or a patient must be named")
    now = datetime.now(UTC)
    with database.write() as connection:
        state = connection.execute(select(db.quarantine.c.state).where(db.quarantine.c.id == item.id)).scalar()
        if state != QuarantineState.HELD or item.exam_id is None:
            raise CannotDiscard(f"item {item.id} is no held exam")
        chosen = [
            one
            for one in _members(connection, database, item.exam_id, elements)
            if (not series_uid or one.row.series_uid == series_uid)
            and (not patient or one.patient == patient.upper())
            and one.row.state != InstanceState.SET_ASIDE
        ]
        if not chosen:
            raise CannotDiscard(f"the exam of item {item.id} holds no such images that are not set aside already")
        if any(one.row.state not in _KEPT for one in chosen):
            raise CannotDiscard("some of these images are just being read; try again in a moment")
        _set_aside(connection, chosen, reason, by, now)
        _give_up_jobs(connection, item.exam_id, {one.row.path for one in chosen})
        text = f"{len(chosen)} objects set aside: {reason}"
        done = {"resolved_at": now, "resolved_reason": text, "resolved_by": by or None}
        move(connection, db.quarantine, item.id, QuarantineState.DISCARDED, **done)
        reopen_exam(connection, item)
        studies = tuple(sorted({one.row.study_uid for one in chosen}))
        counts = tuple(sorted(Counter(one.row.sop_class_uid for one in chosen).items()))
        what = f"{len(chosen)} objects of quarantined item {item.id} set aside"
        note(connection, AuditEvent(AuditKind.DISCARDED, now, by=by, studies=studies, sop_classes=counts, detail=what))
    return len(chosen)


def _set_aside(connection: Connection, chosen: Sequence[_Member], reason: str, by: str, now: datetime) -> None:
    table = db.quarantine
    for one in chosen:
        move(connection, db.instance, one.id, InstanceState.SET_ASIDE)
        own = select(table.c.id).where(table.c.instance_id == one.id, table.c.state == str(QuarantineState.HELD))
        for case_id in connection.execute(own).scalars().all():
            done = {"resolved_at": now, "resolved_reason": reason, "resolved_by": by or None}
            move(connection, table, case_id, QuarantineState.DISCARDED, **done)


def _give_up_jobs(connection: Connection, exam_id: int, paths: set[str]) -> None:
    """A queued or running analysis of images that do not belong must not end in a result."""
    active = (str(JobState.QUEUED), str(JobState.RUNNING))
    query = select(db.job.c.inputs, db.job.c.correction).where(db.job.c.exam_id == exam_id, db.job.c.state.in_(active))
    rows = connection.execute(query).all()
    if any(not paths.isdisjoint((*row.inputs, row.correction)) for row in rows):
        jobs.supersede(connection, exam_id, (JobState.QUEUED, JobState.RUNNING))
