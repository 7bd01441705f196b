"""Writes down what lies in the spool: many objects in one transaction, after they were acknowledged.

An object is in its place before its row is there, and leaves the spool after that; so whenever this ends, the next
start does what is left to do, and nothing twice.
"""

import json
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from dicom_io.element_walk import BrokenDataSet
from dicom_io.inbox import Inbox
from dicom_io.received import BrokenObject, Ledger, ReceivedInstance, Recorded
from dicom_io.spool import Spooled, list_spool, of_object, read_spooled
from processing.refusal import ReasonCode
from service.arrivals import KNOWN, judge, record_broken, write_down
from service.database import Database, Lookup
from service.pulse import Pulse

_log = logging.getLogger(__name__)

_BATCH = 200
_BATCH_BYTES = 512 << 20  # that are read before they are written down
_GATHER_S = 0.4
_WAIT_S = 0.5
_LOOK_S = 5.0  # between two looks for objects whose notice got lost
_SEND_S = 0.05
_NOTICE_BYTES = 4096


def notices() -> tuple[socket.socket, socket.socket]:
    """Where receivers tell the recorder of new objects: one end to read, one to write, for any number of processes."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return reader, writer


def open_spool_ledger(database: Database, inbox: Inbox, writer: socket.socket) -> Ledger:
    """The record of a receiver process: durable with the spool, written down by the recorder soon after."""
    writer.settimeout(_SEND_S)
    return Ledger(
        partial(_outcome, database, database.lookup(KNOWN), inbox),
        partial(record_broken, database),
        is_spooled=True,
        answered=partial(_tell, writer),
    )


def _outcome(database: Database, known: Lookup, inbox: Inbox, received: ReceivedInstance) -> Recorded:
    """What is to be answered for an object in the spool.

    Raises:
        OSError: the record cannot be read now.
    """
    # First the spool, then the rows: what leaves the one in between is in the others.
    waiting = [one for one in of_object(inbox, received.sop_instance_uid) if one.name != received.name]
    try:
        if not waiting and not known.ask(received.sop_instance_uid):
            return Recorded.NEW
        with database.read() as connection:
            return judge(connection, inbox.folder, received, waiting)
    except (DBAPIError, database.driver_error) as error:
        raise OSError("the database cannot be read") from error


def _tell(writer: socket.socket, received: ReceivedInstance) -> None:
    """Tell the recorder of an object. Where it is behind, it will find the object by itself."""
    facts = {name: getattr(received, name) for name in ReceivedInstance.__slots__}
    notice = json.dumps(facts | {"received_at": received.received_at.isoformat()})
    try:
        writer.send(notice.encode())
    except (TimeoutError, BlockingIOError):
        _log.info("the recorder is behind")


class Recorder:
    """Writes down what receivers tell of, and what it finds."""

    def __init__(self, database: Database, inbox: Inbox, reader: socket.socket, pulse: Pulse) -> None:
        self._database = database
        self._inbox = inbox
        self._reader = reader
        self._pulse = pulse
        self._looked_at_s = time.monotonic()
        self._unreadable: set[str] = set()  # names of files that were told of in the log

    def replay(self) -> int:
        """Write down all that lies in the spool; returns how much that was.

        Raises:
            OSError: it cannot be written down now.
        """
        n_written = 0
        found = list_spool(self._inbox)
        for first in range(0, len(found), _BATCH):
            n_written += self._write_found(found[first : first + _BATCH])
        return n_written

    def turn(self) -> None:
        """Wait for objects, and write down those that came.

        Raises:
            OSError: they cannot be written down now; they stay in the spool.
        """
        self._pulse.beat_of_recorder()
        told = self._told()
        if told:
            self._write(told)
        if time.monotonic() - self._looked_at_s > _LOOK_S:  # also while ever more comes
            self._look()

    def _look(self) -> None:
        """Write down objects whose notice got lost: any that lie longer, or bear a time that is still to come.

        The latter by a clock that has been set back.
        """
        now = datetime.now(UTC)
        lost = [one for one in list_spool(self._inbox) if not 0 <= (now - one.received_at).total_seconds() < _LOOK_S]
        if len(lost) <= _BATCH:  # else the next turn goes on with them
            self._looked_at_s = time.monotonic()
        self._write_found(lost[:_BATCH])

    def _told(self) -> list[ReceivedInstance]:
        """What receivers tell of within a moment."""
        told: list[ReceivedInstance] = []
        self._reader.settimeout(_WAIT_S)
        until_s = None
        while len(told) < _BATCH:
            try:
                told.append(_received_of(self._reader.recv(_NOTICE_BYTES)))
            except (TimeoutError, BlockingIOError):
                break
            if until_s is None:
                until_s = time.monotonic() + _GATHER_S
            left_s = until_s - time.monotonic()
            self._reader.settimeout(max(left_s, 0.0))  # 0: only what is there already
        return told

    def _write_found(self, found: Sequence[Spooled]) -> int:
        """Write down spooled files of which only the name is known, after reading them."""
        whole: list[ReceivedInstance] = []
        n_written = n_bytes = 0
        for one in found:
            self._pulse.beat_of_recorder()
            received = self._read(one)
            if received is None:
                continue
            whole.append(received)
            n_bytes += received.size_bytes
            if n_bytes >= _BATCH_BYTES:  # whatever ends this soon, something is done
                self._write(whole)
                n_written += len(whole)
                whole, n_bytes = [], 0
        if whole:
            self._write(whole)
        return n_written + len(whole)

    def _read(self, one: Spooled) -> ReceivedInstance | None:
        """The record of a spooled file, which is durable then; None if there is none to write down."""
        try:
            received = read_spooled(self._inbox, one)
            if received is not None:
                self._inbox.flush(one.name)  # perhaps its receiver died before it did so itself
                return received
            self._inbox.path(one.name).unlink()
            _log.warning("a torn file was removed; it was never acknowledged", extra={"sha256": one.sha256})
        except FileNotFoundError:
            pass  # it was refused after all, or is written down already
        except BrokenDataSet as fault:
            self._hold(one, fault)
        except OSError as error:  # the others shall not wait for it
            if one.name not in self._unreadable:
                self._unreadable.add(one.name)
                extra = {"sha256": one.sha256, "error": error.strerror}
                _log.error("a received file cannot be read; it stays in the spool", extra=extra)
        return None

    def _hold(self, one: Spooled, fault: BrokenDataSet) -> None:
        """Every byte is there, and this program cannot read what another acknowledged: for a person to look at."""
        name = self._inbox.publish(one.name, one.sha256)
        detail = str(fault)
        _log.error("quarantined", extra={"code": ReasonCode.UNREADABLE, "detail": detail, "calling_ae": one.calling_ae})
        record_broken(
            self._database,
            BrokenObject("", name, one.sha256, ReasonCode.UNREADABLE, detail, one.calling_ae, one.received_at),
        )
        self._inbox.leave_spool([one.name], [name])

    def _write(self, batch: Sequence[ReceivedInstance]) -> None:
        placed: list[ReceivedInstance] = []
        spooled: list[str] = []
        for one in batch:
            try:
                placed.append(replace(one, name=self._inbox.publish(one.name, one.sha256)))
            except FileNotFoundError:
                continue  # it is written down already
            spooled.append(one.name)
        try:
            self._write_rows(placed)
        except OperationalError as error:
            raise OSError("the database cannot be written") from error
        self._inbox.leave_spool(spooled, [one.name for one in placed])

    def _write_rows(self, placed: Sequence[ReceivedInstance], *, is_last_try: bool = False) -> None:
        try:
            with self._database.write() as connection:
                for one in placed:
                    write_down(connection, self._inbox.folder, one)
        except (IntegrityError, DataError) as error:
            if not is_last_try:  # the others shall not suffer for one of them, nor one for who wrote at the same time
                for one in placed:
                    self._write_rows([one], is_last_try=True)
                return
            (one,) = placed
            detail = f"cannot be recorded ({type(error).__name__})"
            _log.error("quarantined", extra={"code": ReasonCode.INTERNAL, "sop_uid": one.sop_instance_uid})
            record_broken(
                self._database,
                BrokenObject(
                    one.sop_instance_uid,
                    one.name,
                    one.sha256,
                    ReasonCode.INTERNAL,
                    detail,
                    one.calling_ae,
                    one.received_at,
                ),
            )


def _received_of(notice: bytes) -> ReceivedInstance:
    content = json.loads(notice)
    return ReceivedInstance(**(content | {"received_at": datetime.fromisoformat(content["received_at"])}))
