"""What the node holds back, why, and what a person may do with it. Data stay until they are discarded."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, insert, or_, select

from processing.refusal import Reason, ReasonCode
from service import database as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.exam_studies import reopen
from service.states import SEGMENTATION_STATES, InstanceState, JobState, QuarantineState


class CannotRelease(Exception):
    """The held thing has no way back into the intake."""


@dataclass(frozen=True, slots=True)
class QuarantineItem:
    """Something held: an object (``sop_uid``, ``path`` relative to the inbox folder) or the exam of a study."""

    id: int
    state: QuarantineState
    code: str
    detail: str
    what: str  # "object" or "exam"
    study_uid: str
    sop_uid: str
    path: str
    sha256: str
    calling_ae: str
    created_at: datetime
    resolved_at: datetime | None
    resolved_reason: str | None
    resolved_by: str | None
    instance_id: int | None
    exam_id: int | None

    def as_dict(self) -> dict[str, Any]:
        """For printing as JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def hold_instance(connection: Connection, instance_id: int, reason: Reason, now: datetime) -> None:
    """Open a case for a recorded object, inside the caller's transaction; the caller changes the object's state."""
    row = connection.execute(select(db.instance).where(db.instance.c.id == instance_id)).one()
    _open(
        connection,
        reason,
        now,
        instance_id=instance_id,
        sop_uid=row.sop_uid,
        path=row.path,
        sha256=row.sha256,
        calling_ae=row.calling_ae,
    )


def hold_exam(connection: Connection, exam_id: int, reason: Reason, now: datetime) -> None:
    """Open a case for an exam, inside the caller's transaction; the same open case is not opened twice."""
    table = db.quarantine
    known = select(table.c.id).where(
        table.c.exam_id == exam_id,
        table.c.code == str(reason.code),
        table.c.detail == reason.detail,
        table.c.state == str(QuarantineState.HELD),
    )
    if connection.execute(known).first() is None:
        _open(connection, reason, now, exam_id=exam_id)


def hold_bytes(
    connection: Connection, reason: Reason, now: datetime, *, sop_uid: str, path: str, sha256: str, calling_ae: str
) -> None:
    """Open a case for bytes that are no DICOM object; the same bytes, sent again, keep their one case."""
    table = db.quarantine
    known = select(table.c.id).where(table.c.sha256 == sha256, table.c.instance_id.is_(None))
    if connection.execute(known).first() is None:
        _open(connection, reason, now, sop_uid=sop_uid, path=path, sha256=sha256, calling_ae=calling_ae)


def _open(connection: Connection, reason: Reason, now: datetime, **values: Any) -> None:
    connection.execute(
        insert(db.quarantine).values(
            code=str(reason.code), detail=reason.detail, created_at=now, state=str(QuarantineState.HELD), **values
        )
    )


def has_open_case(connection: Connection, exam_id: int) -> bool:
    """Whether the exam itself (not an object of it) is held for some reason, inside the caller's transaction."""
    table = db.quarantine
    held = select(table.c.id).where(table.c.exam_id == exam_id, table.c.state == str(QuarantineState.HELD))
    return connection.execute(held).first() is not None


def was_released(connection: Connection, instance_id: int, code: ReasonCode) -> bool:
    """Whether a person has released an object that was held for this reason, inside the caller's transaction."""
    table = db.quarantine
    query = select(table.c.id).where(
        table.c.instance_id == instance_id,
        table.c.code == str(code),
        table.c.state == str(QuarantineState.RELEASED),
    )
    return connection.execute(query).first() is not None


def resolve_exam(
    connection: Connection, exam_id: int, why: str, now: datetime, *, but_those_of: datetime | None = None
) -> None:
    """Close an exam's open cases because what they named is settled, inside the caller's transaction.

    Cases opened at the moment ``but_those_of`` stay: those of a job that ended then.
    """
    table = db.quarantine
    held = select(table.c.id).where(table.c.exam_id == exam_id, table.c.state == str(QuarantineState.HELD))
    if but_those_of is not None:
        held = held.where(table.c.created_at != but_those_of)
    for item_id in connection.execute(held).scalars().all():
        move(connection, table, item_id, QuarantineState.RESOLVED, resolved_reason=why, resolved_at=now)


_COLUMNS = (db.quarantine, db.exam.c.study_uid.label("exam_study"), db.instance.c.study_uid.label("instance_study"))
_SOURCE = db.quarantine.outerjoin(db.exam).outerjoin(db.instance)


def _as_item(row: Row[Any]) -> QuarantineItem:
    values = row._mapping
    derived = ("state", "what", "study_uid")
    return QuarantineItem(
        **{name: values[name] for name in QuarantineItem.__slots__ if name not in derived},
        state=QuarantineState(values["state"]),
        what="exam" if values["exam_id"] is not None else "object",
        study_uid=values["exam_study"] or values["instance_study"] or "",
    )


def list_items(
    database: Database,
    *,
    only_held: bool = False,
    state: QuarantineState | None = None,
    code: ReasonCode | None = None,
) -> list[QuarantineItem]:
    """All cases, or those in one state or with one reason code, oldest first."""
    query = select(*_COLUMNS).select_from(_SOURCE).order_by(db.quarantine.c.id)
    wanted_state = QuarantineState.HELD if only_held else state
    if wanted_state is not None:
        query = query.where(db.quarantine.c.state == str(wanted_state))
    if code is not None:
        query = query.where(db.quarantine.c.code == str(code))
    with database.read() as connection:
        return [_as_item(row) for row in connection.execute(query)]


def get_item(database: Database, item_id: int) -> QuarantineItem | None:
    """One case, or None."""
    with database.read() as connection:
        return _read(connection, item_id)


def _read(connection: Connection, item_id: int) -> QuarantineItem | None:
    row = connection.execute(select(*_COLUMNS).select_from(_SOURCE).where(db.quarantine.c.id == item_id)).one_or_none()
    return None if row is None else _as_item(row)


def release(database: Database, item_id: int, *, by: str = "") -> bool:
    """Put a held thing back into the intake, to be judged again; False if there is no such held case.

    Of two objects with one SOP Instance UID the released one is used, and the other is set aside. ``by``: who does it.

    Raises:
        CannotRelease: the bytes are no DICOM object; they can only be discarded.
    """
    now = datetime.now(UTC)
    with database.write() as connection:
        item = _read(connection, item_id)
        if item is None or item.state is not QuarantineState.HELD:
            return False
        if item.what == "object" and item.instance_id is None:
            raise CannotRelease(f"item {item_id} is not a whole DICOM object; it can only be discarded")
        done = {"resolved_at": now, "resolved_reason": "released", "resolved_by": by or None}
        move(connection, db.quarantine, item_id, QuarantineState.RELEASED, **done)
        if item.instance_id is not None:
            if item.code == ReasonCode.INSTANCE_CONFLICT:
                _set_aside_others(connection, item)
            move(connection, db.instance, item.instance_id, InstanceState.RECEIVED)
        reopen_exam(connection, item)
        note(connection, _decision(AuditKind.RELEASED, item, by, now))
        return True


def _decision(kind: AuditKind, item: QuarantineItem, by: str, now: datetime) -> AuditEvent:
    studies = (item.study_uid,) if item.study_uid else ()
    return AuditEvent(kind, now, by=by, studies=studies, detail=f"quarantined item {item.id} ({item.code})")


def _set_aside_others(connection: Connection, item: QuarantineItem) -> None:
    table = db.instance
    states = (InstanceState.RECEIVED, InstanceState.INDEXED, *SEGMENTATION_STATES)  # received: released a moment ago
    used = [str(one) for one in states]
    others = select(table.c.id).where(
        table.c.sop_uid == item.sop_uid, table.c.id != item.instance_id, table.c.state.in_(used)
    )
    for other in connection.execute(others).scalars().all():
        move(connection, table, other, InstanceState.SET_ASIDE)


def discard(database: Database, item_id: int, *, reason: str, by: str = "") -> bool:
    """Close a case for good, with a person's reason; False if there is no such held case.

    A held object is set aside and its file deleted, unless an analysis uses it. The images of a held exam stay.

    Raises:
        ValueError: no reason is given.
    """
    now = datetime.now(UTC)
    if not reason.strip():
        raise ValueError("a reason is needed")
    with database.write() as connection:
        item = _read(connection, item_id)
        if item is None or item.state is not QuarantineState.HELD:
            return False
        done = {"resolved_at": now, "resolved_reason": reason, "resolved_by": by or None}
        move(connection, db.quarantine, item_id, QuarantineState.DISCARDED, **done)
        if item.instance_id is not None:
            move(connection, db.instance, item.instance_id, InstanceState.SET_ASIDE)
            reopen_exam(connection, item)
        note(connection, _decision(AuditKind.DISCARDED, item, by, now))
        is_shared = item.path and _is_used(connection, item)
    if item.path and not is_shared:
        with contextlib.suppress(FileNotFoundError):
            (database.inbox_dir / item.path).unlink()
    return True


def _is_used(connection: Connection, item: QuarantineItem) -> bool:
    """True if another recorded object lies in the same file, or an analysis that may run (again) reads it."""
    condition = db.instance.c.path == item.path
    if item.instance_id is not None:
        condition &= db.instance.c.id != item.instance_id
    if connection.execute(select(db.instance.c.id).where(condition)).first() is not None:
        return True
    reads_it = select(db.job.c.id).where(
        or_(cast(db.job.c.inputs, Text).contains(item.path), db.job.c.correction == item.path),
        db.job.c.state != str(JobState.SUPERSEDED),
    )
    return connection.execute(reads_it).first() is not None


def reopen_exam(connection: Connection, item: QuarantineItem) -> None:
    """Let the intake judge the exam of a case again, inside the caller's transaction."""
    table = db.exam
    query = select(table.c.id).where(or_(table.c.id == item.exam_id, table.c.study_uid == item.study_uid))
    exam_id = connection.execute(query).scalar_one_or_none()
    if exam_id is not None:
        reopen(connection, exam_id)
