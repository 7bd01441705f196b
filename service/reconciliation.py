"""What was sent is compared with what the destinations have: once a night, and when a person asks for it.

What is not there any more is sent again; what is there after all is confirmed; what the node did not send is told.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import insert, select

from config.settings import Confirm, Destination, Settings
from dicom_io.presence import SentObject, read_sent_object
from dicom_io.sender import PeerUnavailable
from service import database as db
from service.confirmation import shown_by
from service.database import Database
from service.deliveries import BY_QUERY, Delivery, confirm, count_by_state, deny, sent_since
from service.states import DeliveryState

_log = logging.getLogger(__name__)

_BATCH = 500  # objects asked about over one connection; those of a series stay together
_UIDS_PER_QUERY = 500
_TRY_AGAIN = timedelta(hours=1)
_MOST_UIDS = 1000  # of a kind that are written down by name
_MOST_ROWS = 200  # comparisons that are looked back at
_MANY = 20  # if so many, and more than half, are missing, the destination may only not show them: a person decides


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a comparison has found; lists hold SOP Instance UIDs."""

    destination: str
    started_at: datetime
    finished_at: datetime
    n_compared: int = 0
    n_there: int = 0
    missing: tuple[str, ...] = ()  # taken once, and not there: they are sent again, unless held back
    n_confirmed: int = 0  # there, and not known to be
    strangers: tuple[str, ...] = ()  # there, in a series of ours, and not sent by this node
    without_file: tuple[str, ...] = ()  # the node lost its file, or retention has removed it and the destination too
    n_waiting: int = 0
    is_held_back: bool = False  # so many are missing that they are not sent again without a person's word
    error: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both sides were compared, and nothing is missing or unknown."""
        return self.error is None and not (self.missing or self.strangers or self.without_file)

    def as_dict(self) -> dict[str, Any]:
        """For the record, the API and people."""
        lists = {"missing": self.missing, "strangers": self.strangers, "without_file": self.without_file}
        return {
            "destination": self.destination,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "compared": self.n_compared,
            "there": self.n_there,
            "confirmed": self.n_confirmed,
            "waiting": self.n_waiting,
            "held_back": self.is_held_back,
            **{name: list(uids[:_MOST_UIDS]) for name, uids in lists.items()},
            **{f"n_{name}": len(uids) for name, uids in lists.items()},
            "error": self.error,
        }


@dataclass(slots=True)
class _Findings:
    there: list[Delivery] = field(default_factory=list)
    missing: list[Delivery] = field(default_factory=list)
    strangers: set[str] = field(default_factory=set)


def reconcile(
    database: Database,
    destination: Destination,
    settings: Settings,
    *,
    days: int | None = None,
    send_many: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Reconciliation | None:
    """Compare what was sent with what a destination has, repair what can be, and write it down; None when stopped.

    Args:
        database: the node's record.
        destination: whom to ask; by C-FIND or QIDO-RS.
        settings: of the node.
        days: objects that were sent in so many days; None: as the settings say.
        send_many: send what is missing again even if that is more than half of it.
        stopping: whether to give up.
        now: the time.
    """
    started_at = now()
    # What was sent a moment ago may not show yet.
    latest = started_at - timedelta(seconds=settings.delivery.unseen_after_s)
    since = started_at - timedelta(days=settings.reconciliation.days if days is None else days)
    sent = [one for one in sent_since(database, destination.name, since) if one.sent_at and one.sent_at <= latest]
    findings = _Findings()
    error = None
    try:
        if destination.confirm is Confirm.NONE:
            raise PeerUnavailable("it is not to be asked (confirm: none)")
        for batch in _batches(_with_uids(settings, sent)):
            if stopping():
                return None
            _compare(destination, settings, batch, findings)
    except PeerUnavailable as fault:
        error = str(fault)
    result = _settle(database, destination.name, settings, findings, started_at, now(), error, send_many=send_many)
    _write_down(database, result)
    return result


def _with_uids(settings: Settings, sent: Sequence[Delivery]) -> list[tuple[Delivery, SentObject]]:
    found = [(one, one.sent_object or read_sent_object(settings.storage_dir / one.path)) for one in sent]
    return [(one, sent_object) for one, sent_object in found if sent_object is not None]


def _batches(
    sent: Sequence[tuple[Delivery, SentObject]],
) -> Iterator[dict[Delivery, SentObject]]:
    """Batches in which each series is whole."""
    by_series: dict[tuple[str, str], dict[Delivery, SentObject]] = {}
    for one, sent_object in sent:
        by_series.setdefault((sent_object.study_uid, sent_object.series_uid), {})[one] = sent_object
    batch: dict[Delivery, SentObject] = {}
    for series in by_series.values():
        if batch and len(batch) + len(series) > _BATCH:
            yield batch
            batch = {}
        batch = {**batch, **series}
    if batch:
        yield batch


def _compare(
    destination: Destination, settings: Settings, batch: dict[Delivery, SentObject], findings: _Findings
) -> None:
    shown = shown_by(destination, settings, batch.values())
    for one in batch:
        (findings.there if one.sop_uid in shown.asked else findings.missing).append(one)
    findings.strangers |= shown.others


def _settle(
    database: Database,
    name: str,
    settings: Settings,
    findings: _Findings,
    started_at: datetime,
    now: datetime,
    error: str | None,
    *,
    send_many: bool,
) -> Reconciliation:
    """Let what is missing be sent again, and confirm what is there."""
    n_missing = len(findings.missing)
    is_held_back = n_missing >= _MANY and n_missing > len(findings.there) and not send_many
    with database.write() as connection:
        found_now = [one for one in findings.there if one.state is DeliveryState.SENT]
        n_confirmed = sum(confirm(connection, one, BY_QUERY, now) for one in found_now)
        missing = [
            one
            for one in findings.missing
            if is_held_back or deny(connection, one, "it is not there any more", settings.delivery, now)
        ]
    counts = count_by_state(database)
    return Reconciliation(
        name,
        started_at,
        now,
        n_compared=len(findings.there) + len(findings.missing),
        n_there=len(findings.there),
        missing=tuple(one.sop_uid for one in missing),
        n_confirmed=n_confirmed,
        strangers=tuple(sorted(findings.strangers - _known(database, name, findings.strangers))),
        without_file=_without_file(database, settings, findings),
        n_waiting=counts.get((name, DeliveryState.WAITING), 0),
        is_held_back=is_held_back,
        error=error,
    )


def _without_file(database: Database, settings: Settings, findings: _Findings) -> tuple[str, ...]:
    """What is not in the storage folder any more; of what is there, not what retention has removed on purpose."""
    table = db.job
    with database.read() as connection:
        removed = set(connection.execute(select(table.c.id).where(table.c.files.is_not(None))).scalars())
    expected = [*(one for one in findings.there if one.job_id not in removed), *findings.missing]
    return tuple(one.sop_uid for one in expected if not (settings.storage_dir / one.path).is_file())


def _known(database: Database, name: str, uids: set[str]) -> set[str]:
    """Those of some UIDs that the node has sent, or is to send."""
    listed, table = sorted(uids), db.delivery
    known: set[str] = set()
    with database.read() as connection:
        for first in range(0, len(listed), _UIDS_PER_QUERY):
            some = table.c.sop_uid.in_(listed[first : first + _UIDS_PER_QUERY])
            query = select(table.c.sop_uid).where(table.c.destination == name, some)
            known |= set(connection.execute(query).scalars())
    return known


def _write_down(database: Database, result: Reconciliation) -> None:
    values = {"destination": result.destination, "started_at": result.started_at, "finished_at": result.finished_at}
    values |= {"n_compared": result.n_compared, "n_there": result.n_there, "error": (result.error or "")[:255] or None}
    with database.write() as connection:
        connection.execute(insert(db.reconciliation).values(details=result.as_dict(), **values))
    facts = {key: value for key, value in result.as_dict().items() if isinstance(value, int | str) and "_at" not in key}
    level = logging.INFO if result.agrees else logging.WARNING
    _log.log(level, "compared with a destination", extra=facts)


def destinations_in_doubt(database: Database) -> frozenset[str]:
    """Destinations in which so much was missing that a person is to decide: what is confirmed there may be gone.

    Until a comparison of at least half as many objects comes out otherwise.
    """
    table = db.reconciliation
    query = select(table.c.destination, table.c.n_compared, table.c.details).where(table.c.error.is_(None))
    most: dict[str, int] = {}  # compared since
    doubt: dict[str, bool] = {}
    with database.read() as connection:
        for name, n_compared, details in connection.execute(query.order_by(table.c.id.desc()).limit(_MOST_ROWS)):
            if details and details["held_back"]:
                doubt.setdefault(name, 2 * most.get(name, 0) < n_compared)
            most[name] = max(most.get(name, 0), n_compared)
    return frozenset(name for name, is_in_doubt in doubt.items() if is_in_doubt)


def list_reconciliations(database: Database, limit: int) -> list[dict[str, Any]]:
    """What comparisons have found, oldest first; at most so many, the newest."""
    table = db.reconciliation
    query = select(table.c.details).order_by(table.c.id.desc()).limit(limit)
    with database.read() as connection:
        return [dict(details) for details in connection.execute(query).scalars()][::-1]


def is_due(database: Database, destination: Destination, settings: Settings, now: datetime) -> bool:
    """Whether the night's comparison is to be made: also later, if the node or the destination was down then."""
    at = settings.reconciliation.at
    if at is None or destination.confirm is Confirm.NONE:
        return False
    local = now.astimezone()
    planned = datetime.combine(local.date(), time.fromisoformat(at)).astimezone()
    if planned > local:
        planned = datetime.combine(local.date() - timedelta(days=1), time.fromisoformat(at)).astimezone()
    table, sent = db.reconciliation, db.delivery
    last_query = select(table.c.started_at, table.c.error).where(table.c.destination == destination.name)
    sent_query = select(sent.c.id).where(sent.c.destination == destination.name, sent.c.sent_at < planned)
    with database.read() as connection:
        last = connection.execute(last_query.order_by(table.c.id.desc()).limit(1)).one_or_none()
        has_sent = connection.execute(sent_query.limit(1)).first() is not None
    if last is None or last.started_at < planned:
        return has_sent
    return last.error is not None and now - last.started_at >= _TRY_AGAIN
