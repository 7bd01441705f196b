"""The record of what arrives: each object durable, counted once, and its exam told that there is news."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import OperationalError

from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.raw_header import is_same_data_set
from dicom_io.receiver import BrokenObject, Ledger, ReceivedInstance, Recorded
from processing.refusal import Reason, ReasonCode
from service import database as db
from service.database import Database, move
from service.exam_studies import reopen
from service.quarantine import hold_bytes, hold_instance
from service.states import ExamState, InstanceState

#: Files deleted by retention.
_GONE = (InstanceState.DELETING, InstanceState.DELETED)


def open_ledger(database: Database) -> Ledger:
    """The receiver's record, kept in the database."""
    return Ledger(partial(_record, database), partial(_record_broken, database))


def _record(database: Database, received: ReceivedInstance) -> Recorded:
    """Write an object down; durable on return. An exam that gets a new image is collecting again.

    Raises:
        OSError: the database cannot be written now.
    """
    table = db.instance
    try:
        with database.write() as connection:
            query = select(table.c.id, table.c.sha256, table.c.state, table.c.path).where(
                table.c.sop_uid == received.sop_instance_uid
            )
            known = connection.execute(query).all()
            for row in known:
                if row.sha256 == received.sha256:
                    return _take_up(connection, database, row.id, received) if row.state in _GONE else Recorded.KNOWN
            unused = (InstanceState.SET_ASIDE, *_GONE)
            used = [database.inbox_dir / row.path for row in known if row.state not in unused]
            is_segmentation = received.sop_class_uid in SEGMENTATION_CLASSES
            is_again = _is_again(database.inbox_dir / received.name, used)
            # What the node itself has sent, and a PACS sends on, is no news. A segmentation may have been changed.
            is_again = is_again or (not is_segmentation and _was_sent(connection, received.sop_instance_uid))
            conflict = bool(used) and not is_again
            state = InstanceState.SET_ASIDE if is_again else InstanceState.RECEIVED
            result = connection.execute(
                insert(table).values(
                    sop_uid=received.sop_instance_uid,
                    sop_class_uid=received.sop_class_uid,
                    study_uid=received.study_uid,
                    series_uid=received.series_uid,
                    transfer_syntax=received.transfer_syntax,
                    path=received.name,
                    sha256=received.sha256,
                    size_bytes=received.size_bytes,
                    calling_ae=received.calling_ae,
                    received_at=received.received_at,
                    state=str(InstanceState.HELD if conflict else state),
                )
            )
            if is_again:
                return Recorded.KNOWN
            if conflict:
                assert result.inserted_primary_key is not None
                reason = Reason(
                    ReasonCode.INSTANCE_CONFLICT, f"{received.sop_instance_uid} came before with other content"
                )
                hold_instance(connection, result.inserted_primary_key[0], reason, received.received_at)
            if not is_segmentation:  # which says nothing of whether the images are all here
                _note_arrival(connection, received)
            return Recorded.CONFLICT if conflict else Recorded.NEW
    except OperationalError as error:
        raise OSError("the database cannot be written") from error


def _take_up(connection: Connection, database: Database, instance_id: int, received: ReceivedInstance) -> Recorded:
    """An object whose file retention has deleted comes again.

    Raises:
        OSError: its file was deleted a moment ago, after it was found to be there; the sender sends it once more.
    """
    if not (database.inbox_dir / received.name).is_file():
        raise OSError("the file was deleted by retention in this moment")
    values = {"path": received.name, "calling_ae": received.calling_ae, "received_at": received.received_at}
    move(connection, db.instance, instance_id, InstanceState.RECEIVED, **values)
    if received.sop_class_uid not in SEGMENTATION_CLASSES:
        _note_arrival(connection, received)
    return Recorded.NEW


def _is_again(path: Path, known: Sequence[Path]) -> bool:
    """Whether a file holds a data set that is known in another encoding: peers choose the transfer syntax anew."""
    return any(other.is_file() and is_same_data_set(path.read_bytes(), other.read_bytes()) for other in known)


def _was_sent(connection: Connection, sop_uid: str) -> bool:
    """Whether an object is one of the node's own results, on its way to a destination or there."""
    own = select(db.delivery.c.id).where(db.delivery.c.sop_uid == sop_uid)
    return connection.execute(own.limit(1)).first() is not None


def _note_arrival(connection: Connection, received: ReceivedInstance) -> None:
    table = db.exam
    query = select(table.c.id, table.c.state).where(table.c.study_uid == received.study_uid)
    row = connection.execute(query).one_or_none()
    if row is not None and row.state == ExamState.COLLECTING:  # nothing is joined to it then
        values = {"has_news": True, "last_arrival_at": received.received_at}
        connection.execute(update(table).where(table.c.id == row.id).values(**values))
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


def _record_broken(database: Database, broken: BrokenObject) -> None:
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
