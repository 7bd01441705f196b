"""The record of what arrives: each object durable, counted once, and its exam told that there is news."""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import OperationalError

from dicom_io.inbox import content_address
from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.received import BrokenObject, Ledger, ReceivedInstance, Recorded
from dicom_io.same_data_set import is_same_data_set
from dicom_io.spool import Spooled
from processing.refusal import Reason, ReasonCode
from service import database as db
from service.audit import note_received
from service.database import Database, move
from service.exam_studies import reopen
from service.quarantine import hold_bytes, hold_instance
from service.states import GONE, ExamState, InstanceState

# Made once: to build a statement costs more than to run it.
#: What is recorded under a SOP Instance UID.
KNOWN = select(db.instance.c.sha256, db.instance.c.state, db.instance.c.path, db.instance.c.id).where(
    db.instance.c.sop_uid == bindparam("uid")
)
_SENT = select(db.delivery.c.id).where(db.delivery.c.sop_uid == bindparam("uid")).limit(1)
_EXAM = select(db.exam.c.id, db.exam.c.state).where(db.exam.c.study_uid == bindparam("uid"))
_MORE = (
    update(db.exam)
    .where(db.exam.c.id == bindparam("exam_id"))
    .values(has_news=bindparam("has_news"), last_arrival_at=bindparam("last_arrival_at"))
)
_INSERT = insert(db.instance)


def open_ledger(database: Database) -> Ledger:
    """A record kept in the database at once, for objects that do not come by the receiver processes."""
    return Ledger(partial(_record, database), partial(record_broken, database))


def _record(database: Database, received: ReceivedInstance) -> Recorded:
    """Write an object down; durable on return.

    Raises:
        OSError: the database cannot be written now.
    """
    try:
        with database.write() as connection:
            return write_down(connection, database.inbox_dir, received)
    except OperationalError as error:
        raise OSError("the database cannot be written") from error


class _Finding(StrEnum):
    """What an object is beside those of the same SOP Instance UID."""

    NEW = "new"
    SAME = "same"  # the same bytes
    BACK = "back"  # the same bytes, whose file retention has deleted
    AGAIN = "again"  # the same data set, or one of our own results, in other bytes
    OTHER = "other"


_TOLD = {
    _Finding.NEW: Recorded.NEW,
    _Finding.SAME: Recorded.KNOWN,
    _Finding.BACK: Recorded.NEW,
    _Finding.AGAIN: Recorded.KNOWN,
    _Finding.OTHER: Recorded.CONFLICT,
}


def judge(
    connection: Connection, folder: Path, received: ReceivedInstance, waiting: Sequence[Spooled] = ()
) -> Recorded:
    """What the record will say of an object, without writing it down.

    Args:
        connection: to the record.
        folder: the inbox, where objects lie.
        received: the object.
        waiting: those of the same SOP Instance UID that are not yet recorded.
    """
    return _TOLD[_find(connection, folder, received, waiting, is_told_only=True)]


def _find(
    connection: Connection,
    folder: Path,
    received: ReceivedInstance,
    waiting: Sequence[Spooled] = (),
    *,
    is_told_only: bool = False,
) -> _Finding:
    """``is_told_only``: for the answer to a sender, to whom one of our results that comes back is as good as new."""
    known = connection.execute(KNOWN, {"uid": received.sop_instance_uid}).all()
    if is_told_only and not known and not waiting:
        return _Finding.NEW
    if any(row.sha256 == received.sha256 and row.state in GONE for row in known):
        return _Finding.BACK
    if received.sha256 in {*(row.sha256 for row in known), *(one.sha256 for one in waiting)}:
        return _Finding.SAME
    # What the node itself has sent, and a PACS sends on, is no news. A segmentation may have been changed.
    if received.sop_class_uid not in SEGMENTATION_CLASSES and _was_sent(connection, received.sop_instance_uid):
        return _Finding.AGAIN
    used = [folder / row.path for row in known if row.state not in (InstanceState.SET_ASIDE, *GONE)]
    for one in waiting:
        spooled, placed = folder / one.name, folder / content_address(one.sha256)
        used.append(spooled if spooled.is_file() else placed)
    if not used:
        return _Finding.NEW
    return _Finding.AGAIN if _is_again(folder / received.name, used) else _Finding.OTHER


def write_down(connection: Connection, folder: Path, received: ReceivedInstance) -> Recorded:
    """Write an object down, within the caller's transaction. An exam that gets a new image is collecting again.

    Raises:
        OSError: its file is no longer there; whoever has it puts it there once more.
    """
    finding = _find(connection, folder, received)
    if finding is _Finding.SAME:
        return Recorded.KNOWN
    if finding is _Finding.BACK:
        return _take_up(connection, folder, received)
    states = {_Finding.AGAIN: InstanceState.SET_ASIDE, _Finding.OTHER: InstanceState.HELD}
    result = connection.execute(
        _INSERT,
        {
            "sop_uid": received.sop_instance_uid,
            "sop_class_uid": received.sop_class_uid,
            "study_uid": received.study_uid,
            "series_uid": received.series_uid,
            "transfer_syntax": received.transfer_syntax,
            "path": received.name,
            "sha256": received.sha256,
            "size_bytes": received.size_bytes,
            "calling_ae": received.calling_ae,
            "received_at": received.received_at,
            "state": str(states.get(finding, InstanceState.RECEIVED)),
        },
    )
    if finding is _Finding.OTHER:
        assert result.inserted_primary_key is not None
        reason = Reason(ReasonCode.INSTANCE_CONFLICT, f"{received.sop_instance_uid} came before with other content")
        hold_instance(connection, result.inserted_primary_key[0], reason, received.received_at)
    # A segmentation says nothing of whether the images are all here.
    if finding is not _Finding.AGAIN and received.sop_class_uid not in SEGMENTATION_CLASSES:
        _note_arrival(connection, received)
    return _TOLD[finding]


def _take_up(connection: Connection, folder: Path, received: ReceivedInstance) -> Recorded:
    """An object whose file retention has deleted has come again.

    Raises:
        OSError: its file was deleted a moment ago, after it was put there.
    """
    known = connection.execute(KNOWN, {"uid": received.sop_instance_uid}).all()
    (instance_id,) = [row.id for row in known if row.sha256 == received.sha256]
    values = {"path": received.name, "calling_ae": received.calling_ae, "received_at": received.received_at}
    move(connection, db.instance, instance_id, InstanceState.RECEIVED, **values)
    if not (folder / received.name).is_file():  # from here on the row is ours: retention does not touch the file
        raise OSError("the file was deleted by retention in this moment")
    note_received(connection, received.calling_ae, received.study_uid, received.sop_class_uid, received.received_at)
    if received.sop_class_uid not in SEGMENTATION_CLASSES:
        _note_arrival(connection, received)
    return Recorded.NEW


def _is_again(path: Path, known: Sequence[Path]) -> bool:
    """Whether a file holds a data set that is known in another encoding: peers choose the transfer syntax anew."""
    return any(other.is_file() and is_same_data_set(path, other) for other in known)


def _was_sent(connection: Connection, sop_uid: str) -> bool:
    """Whether an object is one of the node's own results, on its way to a destination or there."""
    return connection.execute(_SENT, {"uid": sop_uid}).first() is not None


def _note_arrival(connection: Connection, received: ReceivedInstance) -> None:
    table = db.exam
    row = connection.execute(_EXAM, {"uid": received.study_uid}).one_or_none()
    if row is not None and row.state == ExamState.COLLECTING:  # nothing is joined to it then
        connection.execute(_MORE, {"exam_id": row.id, "has_news": True, "last_arrival_at": received.received_at})
        return
    if row is not None:
        reopen(connection, row.id, received.received_at)
        return
    connection.execute(
        insert(table).values(
            study_uid=received.study_uid,
            state=str(ExamState.COLLECTING),
            has_news=True,
            detail="",
            version=0,
            first_arrival_at=received.received_at,
            last_arrival_at=received.received_at,
        )
    )


def record_broken(database: Database, broken: BrokenObject) -> None:
    """Hold bytes that are no usable object.

    Raises:
        OSError: the database cannot be written now.
    """
    try:
        with database.write() as connection:
            hold_bytes(
                connection,
                Reason(broken.code, broken.detail),
                broken.received_at,
                sop_uid=broken.sop_instance_uid,
                path=broken.name,
                sha256=broken.sha256,
                calling_ae=broken.calling_ae,
            )
    except OperationalError as error:
        raise OSError("the database cannot be written") from error
