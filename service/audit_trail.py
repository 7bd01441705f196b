"""Writes the audit trail: events that wait in the database become lines of the chain, each once.

Receptions are not queued but read from the rows of received objects. Each line of the trail says how far both have been
read, so nothing is lost or doubled wherever the node is killed.
"""

import hmac
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from config.settings import Settings
from service import audit_chain as chain
from service import database as db
from service.audit import AuditEvent, AuditKind
from service.audit_chain import Head, NewLine, Position
from service.audit_messages import AuditSite, messages_of
from service.database import Database

_log = logging.getLogger(__name__)

QUIET_S = 15.0  # a reception has ended when nothing has come for so long
LONGEST_S = 300.0  # and is written in parts when it does not end
_QUEUE, _RECEIVED = "queue", "received"
_QUIET_S = {_QUEUE: 5.0, _RECEIVED: QUIET_S}
_MOST_ROWS = 500


def audit_folder(settings: Settings) -> Path:
    """Where the trail lies."""
    return settings.storage_dir / "audit"


class AuditTrail:
    """Writes the trail. One in a node, in the supervisor; its methods may be called from any thread."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self.folder = audit_folder(settings)
        self.host = socket.gethostname()
        audit = settings.audit
        self._site = AuditSite(settings.ae_title, self.host, audit.source_id or settings.ae_title, audit.site_id or "")
        self._peers = _peers(settings)
        self._seen: dict[str, tuple[int, datetime]] = {}
        self._writing = threading.Lock()

    def write_now(self, event: AuditEvent) -> None:
        """Write an event of the node itself, past the queue: it needs no database.

        Raises:
            OSError: it cannot be written.
        """
        with self._writing:
            chain.append(self.folder, self._lines([event]), event.at)

    def reconcile(self, now: datetime) -> None:
        """At the node's start, before anything arrives: agree with a database that an older one may have replaced.

        Numbers of rows that the trail says are read would be given again, and what has them then be passed over. So the
        queue goes on above them, and receptions from where the database is.

        Raises:
            OSError, sqlalchemy.exc.SQLAlchemyError: not now.
        """
        position, last_at = chain.read_end(self.folder)
        if position.unfinished is not None:
            return  # the lot comes first; the next start agrees
        queue, read = db.audit_queue, position.read.get(_QUEUE, 0)
        with self._database.write() as connection:
            old = connection.execute(select(queue).where(queue.c.id <= read).order_by(queue.c.id)).all()
            connection.execute(delete(queue).where(queue.c.id <= read))
            _go_on_above(connection, read)
            for row in old:  # written to the trail, and the node died before it noted that; or a person acted since
                if last_at is not None and row.created_at > last_at:
                    connection.execute(insert(queue).values(created_at=row.created_at, event=row.event))
            newest = connection.execute(select(func.max(db.instance.c.id))).scalar() or 0
        if newest < position.read.get(_RECEIVED, 0):
            _log.warning("the database is older than the audit trail", extra={"rows": newest})
            event = AuditEvent(AuditKind.ALERT, now, detail="the database was replaced by an older one")
            moved = Position({**position.read, _RECEIVED: newest})
            with self._writing:
                lines = [replace(line, position=moved) for line in self._lines([event])]
                chain.append(self.folder, lines, now)

    def write_due(self, now: datetime, *, is_last: bool = False) -> int:
        """Write what has settled, or, at the end, all there is; returns how many lines.

        Raises:
            OSError: the trail cannot be written; it all stays, and is written later.
            sqlalchemy.exc.SQLAlchemyError: the same, for the database.
        """
        with self._writing:
            return sum(self._write(source, now, is_last) for source in (_QUEUE, _RECEIVED))

    def _write(self, source: str, now: datetime, is_last: bool) -> int:
        n_lines = 0
        position = chain.read_position(self.folder)
        if position.unfinished == source:  # the node died in the middle of this lot
            n_lines += self._write_lot(source, position, now)
            position = chain.read_position(self.folder)
        upto = self._settled(source, position, now, is_last)
        while position.read.get(source, 0) < upto:
            lot = Position(position.read, upto=self._end_of_lot(source, position.read.get(source, 0), upto))
            n_written = self._write_lot(source, lot, now)
            if not n_written:
                break
            n_lines += n_written
            position = chain.read_position(self.folder)
        return n_lines

    def _end_of_lot(self, source: str, before: int, upto: int) -> int:
        """The last row that is written in one go: all of a long outage together would need much memory."""
        table = db.audit_queue if source == _QUEUE else db.instance
        lot = select(table.c.id).where(table.c.id > before, table.c.id <= upto).order_by(table.c.id)
        with self._database.read() as connection:
            return connection.execute(lot.offset(_MOST_ROWS - 1).limit(1)).scalar() or upto

    def _write_lot(self, source: str, position: Position, now: datetime) -> int:
        """Write the rows up to ``position.upto``, but for the lines of them that are there already."""
        is_cut, upto = position.unfinished == source, position.upto
        events = self._read(source, position.read.get(source, 0), upto)
        lines = self._with_positions(self._lines(events), position, source, upto)[position.written :]
        if not lines and not is_cut:
            return 0
        if not lines:  # the rest of the lot is gone
            event = AuditEvent(AuditKind.ALERT, now, detail="events were lost: the database was replaced")
            lines = self._with_positions(self._lines([event]), position, source, upto)
        head = chain.append(self.folder, lines, now)
        with self._database.write() as connection:
            if source == _QUEUE:
                connection.execute(delete(db.audit_queue).where(db.audit_queue.c.id <= upto))
            _note_head(connection, head)
        return len(lines)

    def _settled(self, source: str, position: Position, now: datetime, is_last: bool) -> int:
        """The last row of a source that can be written: nothing has come after it for a while."""
        table = db.audit_queue if source == _QUEUE else db.instance
        with self._database.read() as connection:
            newest = connection.execute(select(func.max(table.c.id))).scalar() or 0
            before = position.read.get(source, 0)
            if is_last or newest <= before:
                return newest
            first = select(_time_of(table)).where(table.c.id > before).order_by(table.c.id).limit(1)
            oldest = connection.execute(first).scalar()
        seen, since = self._seen.get(source, (-1, now))
        if seen != newest:
            self._seen[source] = (newest, now)
            is_late = oldest is not None and oldest < now - timedelta(seconds=LONGEST_S)
            return seen if is_late else 0
        return newest if now - since >= timedelta(seconds=_QUIET_S[source]) else 0

    def _read(self, source: str, before: int, upto: int) -> list[AuditEvent]:
        """The events of the rows after ``before`` up to ``upto``; always the same ones."""
        with self._database.read() as connection:
            events = _joined((_queued if source == _QUEUE else _receptions)(connection, before, upto))
            patients = _patients(connection, {study for event in events for study in event.studies})
        return [replace(event, patient=self._pseudonym(patients, event.studies)) for event in events]

    def _pseudonym(self, patients: dict[str, str], studies: Iterable[str]) -> str:
        """What stands for the patient number: equal for equal patients, of no use without the key beside the trail."""
        key = next((patients[study] for study in studies if study in patients), "")
        return hmac.digest(patient_key(self.folder), key.encode(), "sha256").hex()[:32] if key else ""

    def _lines(self, events: Iterable[AuditEvent]) -> list[NewLine]:
        lines = []
        for event in events:
            peer, address = self._peers.get(event.peer, (event.peer, event.address))
            if event.kind in (AuditKind.SENT, AuditKind.QUERIED):
                event = replace(event, peer=peer, address=address)
            lines += [NewLine(event.kind, message.to_xml()) for message in messages_of(event, self._site)]
        return lines

    def _with_positions(self, lines: list[NewLine], position: Position, source: str, upto: int) -> list[NewLine]:
        halfway = [
            replace(line, position=Position(position.read, source, upto, number))
            for number, line in enumerate(lines[:-1], 1)
        ]
        done = Position({**position.read, source: upto})
        return [*halfway, *(replace(line, position=done) for line in lines[-1:])]


def _peers(settings: Settings) -> dict[str, tuple[str, str]]:
    """Name of a destination or source -> its AE title or address, and where it is."""
    found = {one.name: (one.ae_title, one.host) for one in settings.sources}
    for one in settings.destinations:
        found[one.name] = (one.dicomweb_url or one.ae_title or one.name, one.host or "")
    return found


def _go_on_above(connection: Connection, number: int) -> None:
    """Let the next row of the queue have a number above this one."""
    table = db.audit_queue
    if connection.dialect.name == "postgresql":
        sequence = "pg_get_serial_sequence('audit_queue', 'id')"
        connection.exec_driver_sql(f"SELECT setval({sequence}, GREATEST(nextval({sequence}), {number + 1:d}))")
        return
    if (connection.execute(select(func.max(table.c.id))).scalar() or 0) <= number:
        connection.execute(insert(table).values(id=number + 1, created_at=datetime.now(UTC), event=""))
        connection.execute(delete(table).where(table.c.id == number + 1))


def _time_of(table: Any) -> Any:
    return table.c.created_at if table is db.audit_queue else table.c.received_at


def _queued(connection: Connection, before: int, upto: int) -> list[AuditEvent]:
    table = db.audit_queue
    query = select(table.c.event).where(table.c.id > before, table.c.id <= upto).order_by(table.c.id)
    return [AuditEvent.from_json(event) for event in connection.execute(query).scalars()]


def _receptions(connection: Connection, before: int, upto: int) -> list[AuditEvent]:
    """What came, summed up by the database: the rows hold whole headers."""
    table = db.instance
    kind = (table.c.study_uid, table.c.calling_ae, table.c.sop_class_uid)
    times = (func.min(table.c.received_at).label("since"), func.max(table.c.received_at).label("until"))
    query = select(*kind, *times, func.count().label("number")).where(table.c.id > before, table.c.id <= upto)
    rows = connection.execute(query.group_by(*kind).order_by(func.min(table.c.id)))
    return [
        AuditEvent(
            AuditKind.RECEIVED,
            row.since,
            until=row.until,
            peer=row.calling_ae,
            studies=(row.study_uid,),
            sop_classes=((row.sop_class_uid, row.number),),
        )
        for row in rows
    ]


def _joined(events: Iterable[AuditEvent]) -> list[AuditEvent]:
    """Objects of one study from or to the same peer are one transfer; each other event stays one."""
    transfers: dict[tuple[Any, ...], AuditEvent] = {}
    others: list[AuditEvent] = []
    for one in events:
        if one.kind not in (AuditKind.RECEIVED, AuditKind.SENT):
            others.append(one)
            continue
        key = (one.kind, one.peer, one.address, one.studies, one.failed, one.detail)
        known = transfers.get(key)
        transfers[key] = one if known is None else _sum(known, one)
    return sorted([*transfers.values(), *others], key=lambda one: one.at)


def _sum(first: AuditEvent, second: AuditEvent) -> AuditEvent:
    counts = dict(first.sop_classes)
    for uid, number in second.sop_classes:
        counts[uid] = counts.get(uid, 0) + number
    return replace(
        first,
        at=min(first.at, second.at),
        until=max(first.until or first.at, second.until or second.at),
        sop_classes=tuple(counts.items()),
    )


def _patients(connection: Connection, studies: set[str]) -> dict[str, str]:
    """Study -> digest of its patient, as far as it is known."""
    found: dict[str, str] = {}
    table, ordered = db.exam, sorted(studies)
    for first in range(0, len(ordered), 500):
        query = select(table.c.study_uid, table.c.patient_key).where(
            table.c.study_uid.in_(ordered[first : first + 500]), table.c.patient_key.is_not(None)
        )
        found |= {row.study_uid: row.patient_key for row in connection.execute(query)}
    return found


def _note_head(connection: Connection, head: Head) -> None:
    table = db.audit_head
    values = {"number": head.number, "hash": head.hash}
    if connection.execute(update(table).values(**values)).rowcount == 0:
        connection.execute(insert(table).values(id=1, **values))


def noted_head(database: Database) -> Head:
    """The end of the trail as the database has it; it may lag behind."""
    with database.read() as connection:
        row = connection.execute(select(db.audit_head)).one_or_none()
    return Head() if row is None else Head(row.number, row.hash)


def patient_key(folder: Path) -> bytes:
    """The node's own key for pseudonyms of patients in the trail; made at first use, and never sent anywhere."""
    path = folder / "patient.key"
    try:
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / f".patient.key.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)  # whoever comes first
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return bytes.fromhex(path.read_text(encoding="ascii").strip())


def last_stop_was_clean(folder: Path) -> bool:
    """Whether the node, when it last ran, said that it stopped."""
    return chain.last_of(folder, (AuditKind.STARTED, AuditKind.STOPPED)) != AuditKind.STARTED
