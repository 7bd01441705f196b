"""The rows of the outbox: one result object for one destination each, and the steps of its life."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update

from config.settings import Delivery as DeliverySettings
from dicom_io.presence import SentObject
from service import audit
from service import database as db
from service.database import Database
from service.states import DeliveryState, predecessors

BATCH = 200  # objects for one connection
LONGEST_DENIED_S = 86_400.0  # between two tries of what the destination says it stored, and has not
BY_COMMITMENT, BY_QUERY = "commitment", "query"


class NotReleased(Exception):
    """It is held, or a person has rejected it: it is not sent because somebody asks for it to be sent again."""

    def __init__(self, one: "Delivery") -> None:
        super().__init__(f"delivery {one.id} is {one.state}: {one.held_for}; see 'discnode release'")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One object on its way to one destination. ``path`` is relative to the storage folder."""

    id: int
    job_id: int
    sop_uid: str
    kind: str
    path: str
    destination: str
    state: DeliveryState
    attempts: int
    not_before: datetime
    last_status: int | None
    last_error: str | None
    sent_at: datetime | None
    sop_class_uid: str | None
    study_uid: str | None
    series_uid: str | None
    confirmed_at: datetime | None
    confirmed_by: str | None
    asks: int
    denials: int
    given_up_reason: str | None = None
    release: str | None = None  # config.release.Release
    holds: dict[str, str] | None = None  # what holds it: service.holds.Hold -> words
    approved_sha256: str | None = None  # of its file, when a person approved it
    report_id: int | None = None  # of the subject's report that it is of; None: of its job

    @property
    def held_for(self) -> str:
        """Why it is held, or does not go at all, in words; empty where nothing holds it."""
        return "; ".join((self.holds or {}).values())

    @property
    def sent_object(self) -> SentObject | None:
        """What was sent; None where it was sent by a version that did not write it down."""
        if self.sop_class_uid is None or self.study_uid is None or self.series_uid is None:
            return None
        return SentObject(self.sop_class_uid, self.sop_uid, self.study_uid, self.series_uid)

    def as_dict(self) -> dict[str, Any]:
        """For the API: no path."""
        times = {"not_before": self.not_before, "sent_at": self.sent_at, "confirmed_at": self.confirmed_at}
        names = ("id", "job_id", "sop_uid", "kind", "destination", "attempts", "last_status", "last_error")
        return {
            **{name: getattr(self, name) for name in names},
            "state": str(self.state),
            "confirmed_by": self.confirmed_by,
            "denials": self.denials,
            "held_for": self.held_for,
            "given_up_reason": self.given_up_reason,
            **{name: time and time.isoformat() for name, time in times.items()},
        }


def list_deliveries(
    database: Database, *, state: DeliveryState | None = None, destination: str | None = None
) -> list[Delivery]:
    """Deliveries, oldest first; all of them, or those in a state, to a destination."""
    table = db.delivery
    conditions = [] if state is None else [table.c.state == str(state)]
    conditions += [] if destination is None else [table.c.destination == destination]
    return _select(database, *conditions, limit=None)


def due(database: Database, destination: str, now: datetime, limit: int = BATCH) -> list[Delivery]:
    """The objects that should be tried now: first what was tried least, so that none holds up the others for ever."""
    table = db.delivery
    conditions = (
        table.c.destination == destination,
        table.c.state == str(DeliveryState.WAITING),
        table.c.not_before <= now,
    )
    return _select(database, *conditions, limit=limit, order=(table.c.attempts, table.c.id))


def sent_due(database: Database, destination: str, now: datetime, limit: int = BATCH) -> list[Delivery]:
    """The objects about which the destination should be asked now."""
    table = db.delivery
    of_it = (table.c.destination == destination, table.c.state == str(DeliveryState.SENT))
    order = (table.c.ask_not_before, table.c.id)
    # Two questions that an index answers; as one, all that was ever sent and not confirmed would be looked at.
    unknown = _select(database, *of_it, table.c.ask_not_before.is_(None), limit=limit, order=(table.c.id,))
    due = _select(database, *of_it, table.c.ask_not_before <= now, limit=limit - len(unknown), order=order)
    return [*unknown, *due]


def sent_since(database: Database, destination: str, since: datetime) -> list[Delivery]:
    """The objects that the destination took since a time, whether confirmed or not."""
    table = db.delivery
    taken = [str(DeliveryState.SENT), str(DeliveryState.CONFIRMED)]
    conditions = (table.c.destination == destination, table.c.state.in_(taken), table.c.sent_at >= since)
    return _select(database, *conditions, limit=None)


def _select(database: Database, *conditions: Any, limit: int | None, order: Sequence[Any] = ()) -> list[Delivery]:
    query = select(db.delivery).where(*conditions).order_by(*(order or (db.delivery.c.id,))).limit(limit)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [record_of(row) for row in rows]


def record_of(row: Any) -> Delivery:
    """The record of a row."""
    values = {name: row._mapping[name] for name in Delivery.__slots__}
    counts = {"asks": row.asks or 0, "denials": row.denials or 0}  # empty in rows of an earlier version
    return Delivery(**{**values, **counts, "state": DeliveryState(row.state)})


def count_by_state(database: Database) -> dict[tuple[str, DeliveryState], int]:
    """How many objects are in each state, per destination."""
    table = db.delivery
    query = select(table.c.destination, table.c.state, func.count()).group_by(table.c.destination, table.c.state)
    with database.read() as connection:
        return {(str(name), DeliveryState(state)): int(n) for name, state, n in connection.execute(query)}


def count_waiting(database: Database) -> dict[str, int]:
    """How many objects wait, per destination."""
    found = count_by_state(database)
    return {name: n for (name, state), n in found.items() if state is DeliveryState.WAITING}


# --- the steps --------------------------------------------------------------------------------------------------------


def retry_delay_s(attempts: int, settings: DeliverySettings, chance: float, *, longest_s: float | None = None) -> float:
    """Seconds to wait after a failed attempt: doubling, capped, and spread by ``chance`` (0..1) over 80-120 %."""
    doubled = settings.first_retry_s * 2.0 ** min(attempts - 1, 30)
    return min(doubled, settings.longest_retry_s if longest_s is None else longest_s) * (0.8 + 0.4 * chance)


def note_sent(
    database: Database, one: Delivery, status: int | None, sent: SentObject | None, ask_at: datetime, now: datetime
) -> None:
    """The destination has taken it, so it says."""
    values: dict[str, Any] = {"last_status": status, "last_error": None, "sent_at": now, "confirmed_at": None}
    values |= {"confirmed_by": None, "asks": 0, "ask_not_before": ask_at, "attempts": one.attempts + 1}
    if sent is not None:
        values |= {"sop_class_uid": sent.sop_class_uid, "study_uid": sent.study_uid, "series_uid": sent.series_uid}
    with database.write() as connection:
        if _change(connection, one, DeliveryState.SENT, **values) or _left_too_late(connection, one, values):
            audit.note_sent(connection, one.job_id, one.destination, now)


def _left_too_late(connection: Connection, one: Delivery, values: dict[str, Any]) -> bool:
    """It was on its way when a person stopped it: that it is there is written down, so that a recall lists it."""
    table = db.delivery
    states = (DeliveryState.HELD, DeliveryState.REJECTED, DeliveryState.GIVEN_UP)
    stopped = table.c.state.in_([str(state) for state in states])
    changed = connection.execute(update(table).where(table.c.id == one.id, stopped).values(**values))
    return changed.rowcount == 1


def postpone(
    database: Database,
    deliveries: Sequence[Delivery],
    status: int | None,
    why: str,
    settings: DeliverySettings,
    now: datetime,
) -> None:
    """Let objects that wait do so, each as long as its failed attempts say."""
    chance = random.random()  # jitter
    table = db.delivery
    with database.write() as connection:
        for one in deliveries:
            delay_s = retry_delay_s(one.attempts + 1, settings, chance)
            values = {"attempts": one.attempts + 1, "not_before": now + timedelta(seconds=delay_s)}
            waits = (table.c.id == one.id, table.c.state == str(DeliveryState.WAITING))
            connection.execute(update(table).where(*waits).values(last_status=status, last_error=why[:255], **values))


def still_waiting(database: Database, deliveries: Iterable[Delivery]) -> set[int]:
    """Numbers of those that no person has stopped since they were looked at."""
    table = db.delivery
    numbers = [one.id for one in deliveries]
    query = select(table.c.id).where(table.c.id.in_(numbers), table.c.state == str(DeliveryState.WAITING))
    with database.read() as connection:
        return set(connection.execute(query).scalars())


def take_up(database: Database, deliveries: Sequence[Delivery], settings: DeliverySettings, now: datetime) -> None:
    """Before objects are tried: let them wait a while, so that what cannot be written down later is not sent at once
    again and again.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database takes nothing now; then nothing should be sent.
    """
    table = db.delivery
    until = now + timedelta(seconds=settings.first_retry_s)
    waits = table.c.state == str(DeliveryState.WAITING)
    with database.write() as connection:
        numbers = [one.id for one in deliveries]
        connection.execute(update(table).where(table.c.id.in_(numbers), waits).values(not_before=until))


def set_back(
    database: Database, deliveries: Sequence[Delivery], why: str, settings: DeliverySettings, now: datetime
) -> None:
    """Let objects wait that were not tried, because others failed; it does not count as an attempt of theirs."""
    table = db.delivery
    until = now + timedelta(seconds=settings.first_retry_s)
    with database.write() as connection:
        for one in deliveries:
            waits = (table.c.id == one.id, table.c.state == str(DeliveryState.WAITING))
            connection.execute(update(table).where(*waits).values(not_before=until, last_error=why[:255]))


def confirm(connection: Connection, one: Delivery, by: str, now: datetime) -> bool:
    """The destination has it; False where it has moved on meanwhile."""
    return _change(connection, one, DeliveryState.CONFIRMED, confirmed_at=now, confirmed_by=by, last_error=None)


def deny(connection: Connection, one: Delivery, why: str, settings: DeliverySettings, now: datetime) -> bool:
    """The destination took it and does not have it: it is sent again; False where it has moved on meanwhile.

    Ever more rarely, at last once a day: it would go on saying so, and much may have come together.
    """
    delay_s = retry_delay_s(max(one.attempts, 1), settings, random.random(), longest_s=LONGEST_DENIED_S)
    values = {"not_before": now + timedelta(seconds=delay_s), "denials": one.denials + 1, "last_error": why[:255]}
    return _change(connection, one, DeliveryState.WAITING, confirmed_at=None, confirmed_by=None, **values)


def ask_later(connection: Connection, one: Delivery, until: datetime, why: str | None, asks: int | None = None) -> None:
    """It stays sent and unconfirmed, and the destination is asked again at a time."""
    table = db.delivery
    values: dict[str, Any] = {} if why is None else {"last_error": why[:255]}
    values |= {} if asks is None else {"asks": asks}
    connection.execute(
        update(table)
        .where(table.c.id == one.id, table.c.state == str(DeliveryState.SENT), table.c.sent_at == one.sent_at)
        .values(ask_not_before=until, **values)
    )


def _change(connection: Connection, one: Delivery, new: DeliveryState, **values: Any) -> bool:
    """Move a row that is as it was seen: another process may have taken a commitment's result meanwhile."""
    table = db.delivery
    as_seen = (table.c.id == one.id, table.c.state == str(one.state), table.c.sent_at.is_not_distinct_from(one.sent_at))
    allowed = table.c.state.in_([str(state) for state in predecessors(new)])
    changed = connection.execute(update(table).where(*as_seen, allowed).values(state=str(new), **values))
    return changed.rowcount == 1


# --- what a person decides --------------------------------------------------------------------------------------------


def send_now(database: Database, destination: str, now: datetime, *, by: str = "") -> int:
    """Let all that waits for a destination be tried, and all that is unconfirmed be asked about, at once; how many."""
    table = db.delivery
    to_it = table.c.destination == destination
    waits, is_sent = (table.c.state == str(state) for state in (DeliveryState.WAITING, DeliveryState.SENT))
    with database.write() as connection:
        n_waiting = connection.execute(update(table).where(to_it, waits).values(not_before=now)).rowcount
        n_sent = connection.execute(update(table).where(to_it, is_sent).values(ask_not_before=now)).rowcount
        if n_waiting:  # the others only answer a question
            audit.note_decided(
                connection, audit.AuditKind.SENT_AGAIN, [to_it, waits], "{number} at once to " + destination, by, now
            )
    return int(n_waiting + n_sent)


def send_again(database: Database, delivery_id: int, now: datetime, *, by: str = "") -> bool:
    """Let one object be sent at once, though it may be confirmed or given up; False where there is none of that number.

    What was given up while something held it is held again.

    Raises:
        FileNotFoundError: its file is no longer there.
        NotReleased: it is held, or rejected.
    """
    table = db.delivery
    found = _select(database, table.c.id == delivery_id, limit=1)
    if not found:
        return False
    (one,) = found
    with database.write() as connection:
        state = connection.execute(select(table.c.state).where(table.c.id == one.id).with_for_update()).scalar_one()
        if state in (DeliveryState.HELD, DeliveryState.REJECTED):
            raise NotReleased(one)
        removed = connection.execute(select(db.job.c.files).where(db.job.c.id == one.job_id)).scalar()  # by retention
        if removed is not None or not (database.storage_dir / one.path).is_file():
            raise FileNotFoundError(one.path)
        if one.state is not DeliveryState.WAITING:
            gone = {"confirmed_at": None, "confirmed_by": None, "given_up_at": None, "given_up_by": None}
            # What was given up while it was held is held again: giving up is no way around a decision.
            new = DeliveryState.HELD if one.state is DeliveryState.GIVEN_UP and one.holds else DeliveryState.WAITING
            _change(connection, one, new, not_before=now, given_up_reason=None, **gone)
        else:
            connection.execute(update(table).where(table.c.id == delivery_id).values(not_before=now))
        what = "{number} again to " + one.destination
        audit.note_decided(connection, audit.AuditKind.SENT_AGAIN, [table.c.id == delivery_id], what, by, now)
    return True
