"""Storage commitment requests: recorded as an inventory of the exam, and answered with what is truly kept."""

import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import OperationalError

from config.settings import Settings
from config.tls import called_back
from dicom_io.commitment import (
    CommitmentDesk,
    CommitmentReport,
    CommitmentRequest,
    FailureReason,
    ListedObject,
    send_report,
)
from dicom_io.sender import Peer, PeerUnavailable
from service import database as db
from service.addresses import peer_of
from service.database import Database, move
from service.delivery import retry_delay_s
from service.exam_studies import reopen
from service.states import CommitmentState

_log = logging.getLogger(__name__)

_UIDS_PER_QUERY = 500
_LOOK_AGAIN_S = 2.0
_GIVE_UP_DAYS = 7


def open_commitment_desk(database: Database, settings: Settings) -> CommitmentDesk:
    """What the receiver does with commitment requests."""
    return CommitmentDesk(
        partial(_note, database), partial(_report_at_once, database, settings), partial(_reported, database)
    )


def _note(database: Database, request: CommitmentRequest) -> None:
    """Write a request down; durable on return. The exams it lists are judged again: it may be what they waited for.

    Raises:
        OSError: the database cannot be written now.
    """
    table, items = db.commitment, db.commitment_item
    try:
        with database.write() as connection:
            found = _find(connection, request)
            if found is None:
                values = {"transaction_uid": request.transaction_uid, "calling_ae": request.calling_ae, "attempts": 0}
                times = {"received_at": request.received_at, "not_before": request.received_at}
                result = connection.execute(insert(table).values(state=str(CommitmentState.WAITING), **values, **times))
                assert result.inserted_primary_key is not None
                number = result.inserted_primary_key[0]
            else:
                number = found.id
                if found.state != CommitmentState.WAITING:
                    move(connection, table, number, CommitmentState.WAITING)
                times = {"received_at": request.received_at, "not_before": request.received_at}
                connection.execute(
                    update(table).where(table.c.id == number).values(attempts=0, found_whole=None, **times)
                )
                connection.execute(delete(items).where(items.c.commitment_id == number))
            rows = [
                {"commitment_id": number, "sop_class_uid": one.sop_class_uid, "sop_uid": one.sop_instance_uid}
                for one in request.objects
            ]
            connection.execute(insert(items), rows)
            for exam_id in _exams_of(connection, [one.sop_instance_uid for one in request.objects]):
                reopen(connection, exam_id)
    except OperationalError as error:
        raise OSError("the database cannot be written") from error
    _log.info("commitment requested", extra={"calling_ae": request.calling_ae, "objects": len(request.objects)})


def _find(connection: Connection, request: CommitmentRequest) -> Any:
    table = db.commitment
    query = select(table.c.id, table.c.state, table.c.found_whole).where(
        table.c.transaction_uid == request.transaction_uid, table.c.calling_ae == request.calling_ae
    )
    return connection.execute(query).one_or_none()


def _exams_of(connection: Connection, sop_uids: list[str]) -> list[int]:
    exams: set[int] = set()
    for first in range(0, len(sop_uids), _UIDS_PER_QUERY):
        some = sop_uids[first : first + _UIDS_PER_QUERY]
        query = (
            select(db.exam.c.id)
            .join(db.instance, db.instance.c.study_uid == db.exam.c.study_uid)
            .where(db.instance.c.sop_uid.in_(some))
        )
        exams.update(connection.execute(query.distinct()).scalars())
    return sorted(exams)


# --- the answer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Due:
    id: int
    request: CommitmentRequest
    attempts: int
    is_judged: bool


def _report_at_once(database: Database, settings: Settings, request: CommitmentRequest) -> CommitmentReport | None:
    """The report for the sender's own association: only if all is kept, and the sender has no address of its own.

    Called in the receiver, which reads no files: whether all is kept, the reporter has found out (:func:`report_due`).
    """
    if _address(settings, request.calling_ae) is not None:
        return None
    with database.read() as connection:
        found = _find(connection, request)
    is_whole = found is not None and found.state == CommitmentState.WAITING and found.found_whole
    return CommitmentReport(request.transaction_uid, request.objects, ()) if is_whole else None


def _reported(database: Database, request: CommitmentRequest) -> None:
    with database.write() as connection:
        found = _find(connection, request)
        if found is not None and found.state == CommitmentState.WAITING:
            move(connection, db.commitment, found.id, CommitmentState.REPORTED)


def report_due(
    database: Database,
    settings: Settings,
    now: datetime,
    *,
    stopping: Callable[[], bool] = lambda: False,
    hearing_since: datetime | None = None,
) -> None:
    """Report to each sender that is due. What has not come is waited for as long as for an exam (``idle_s``).

    ``hearing_since``: from when on all that was received is recorded; what is missing before that may be here.
    """
    for due in _due(database, now):
        if stopping():
            return
        asked_at = due.request.received_at
        waits_since = max(asked_at, hearing_since or asked_at)
        is_over = now >= waits_since + timedelta(seconds=settings.completion.idle_s)
        address = _address(settings, due.request.calling_ae)
        if not is_over and not _is_all_here(database, due.request):
            _wait(database, due, now + timedelta(seconds=_LOOK_AGAIN_S))
        elif address is not None:
            _send(database, settings, due, report_on(database, due.request), address, now)
        elif is_over:
            with database.write() as connection:
                why = "its association has ended, and no peer of that AE title has a port"
                move(connection, db.commitment, due.id, CommitmentState.UNREPORTABLE, last_error=why)
            _log.warning("commitment not reported", extra={"calling_ae": due.request.calling_ae, "why": why})
        else:
            if not due.is_judged:
                _judge(database, due)
            _wait(database, due, now + timedelta(seconds=_LOOK_AGAIN_S))


def _judge(database: Database, due: _Due) -> None:
    """Read all that a request lists, for the receiver to report over the sender's own association."""
    is_whole = not report_on(database, due.request).failed
    table = db.commitment
    with database.write() as connection:
        waits = (table.c.id == due.id, table.c.received_at == due.request.received_at)
        connection.execute(update(table).where(*waits).values(found_whole=is_whole))


def report_on(database: Database, request: CommitmentRequest) -> CommitmentReport:
    """Which of the listed objects are kept: recorded, and their files read and found unchanged."""
    rows = _recorded(database, request)
    kept, failed = [], []
    for one in request.objects:
        of_class = [row for row in rows.get(one.sop_instance_uid, ()) if row.sop_class_uid == one.sop_class_uid]
        if any(_is_kept(database, row.path, row.sha256) for row in of_class):
            kept.append(one)
        else:
            is_other = bool(rows.get(one.sop_instance_uid)) and not of_class
            failed.append(
                (one, FailureReason.CLASS_INSTANCE_CONFLICT if is_other else FailureReason.NO_SUCH_OBJECT_INSTANCE)
            )
    return CommitmentReport(request.transaction_uid, tuple(kept), tuple(failed))


def _is_all_here(database: Database, request: CommitmentRequest) -> bool:
    recorded = _recorded(database, request)
    return all(one.sop_instance_uid in recorded for one in request.objects)


def _recorded(database: Database, request: CommitmentRequest) -> dict[str, list[Any]]:
    """SOP Instance UID -> rows of what is recorded under it."""
    listed = [one.sop_instance_uid for one in request.objects]
    rows: dict[str, list[Any]] = {}
    table = db.instance
    with database.read() as connection:
        for first in range(0, len(listed), _UIDS_PER_QUERY):
            some = listed[first : first + _UIDS_PER_QUERY]
            query = select(table.c.sop_uid, table.c.sop_class_uid, table.c.path, table.c.sha256)
            for row in connection.execute(query.where(table.c.sop_uid.in_(some))):
                rows.setdefault(row.sop_uid, []).append(row)
    return rows


def _is_kept(database: Database, path: str, sha256: str) -> bool:
    try:
        with (database.inbox_dir / path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _due(database: Database, now: datetime) -> list[_Due]:
    table, items = db.commitment, db.commitment_item
    query = select(table).where(table.c.state == str(CommitmentState.WAITING), table.c.not_before <= now)
    with database.read() as connection:
        found = []
        for row in connection.execute(query.order_by(table.c.id)).all():
            listed = connection.execute(select(items).where(items.c.commitment_id == row.id).order_by(items.c.id)).all()
            objects = tuple(ListedObject(one.sop_class_uid, one.sop_uid) for one in listed)
            request = CommitmentRequest(row.transaction_uid, row.calling_ae, objects, row.received_at)
            found.append(_Due(row.id, request, row.attempts, row.found_whole is not None))
        return found


def _address(settings: Settings, ae_title: str) -> Peer | None:
    """Where a sender takes reports, if it is known."""
    timeout_s = settings.delivery.timeout_s
    for peer in settings.peers:
        if peer.ae_title == ae_title and peer.host is not None and peer.port is not None:
            tls = called_back(settings.tls) if peer.needs_tls and settings.tls is not None else None
            return Peer(peer.host, peer.port, ae_title, settings.ae_title, timeout_s, tls)
    for source in settings.sources:
        if source.ae_title == ae_title:
            return Peer(source.host, source.port, ae_title, settings.ae_title, timeout_s, source.tls)
    for one in settings.destinations:
        if one.ae_title == ae_title:
            return peer_of(one, settings)
    return None


def _send(
    database: Database, settings: Settings, due: _Due, report: CommitmentReport, address: Peer, now: datetime
) -> None:
    calling_ae = due.request.calling_ae
    try:
        send_report(report, address)
    except PeerUnavailable as error:
        delay_s = retry_delay_s(due.attempts + 1, settings.delivery, random.random())
        _log.warning(
            "commitment not reported", extra={"calling_ae": calling_ae, "why": str(error), "attempt": due.attempts + 1}
        )
        if now > due.request.received_at + timedelta(days=_GIVE_UP_DAYS):
            with database.write() as connection:
                move(connection, db.commitment, due.id, CommitmentState.UNREPORTABLE, last_error=str(error)[:255])
        else:
            _wait(database, due, now + timedelta(seconds=delay_s), error=str(error)[:255], attempts=due.attempts + 1)
        return
    _reported(database, due.request)
    _log.info(
        "commitment reported",
        extra={"calling_ae": calling_ae, "kept": len(report.kept), "failed": len(report.failed)},
    )


def _wait(
    database: Database, due: _Due, not_before: datetime, *, error: str | None = None, attempts: int | None = None
) -> None:
    table = db.commitment
    values = {} if attempts is None else {"attempts": attempts, "last_error": error}
    with database.write() as connection:
        connection.execute(update(table).where(table.c.id == due.id).values(not_before=not_before, **values))
