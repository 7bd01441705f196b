"""The outbox: results wait in the database until their destination has taken them. Nothing is ever dropped."""

import logging
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select, update

from config.destinations import http_headers
from config.settings import Delivery as DeliverySettings
from config.settings import Destination, Settings, SettingsError
from dicom_io.sender import Peer, PeerUnavailable, SendOutcome, send_each
from dicom_io.stow import WebService, store_each
from service import database as db
from service.database import Database, move
from service.states import DeliveryState

_log = logging.getLogger(__name__)

BATCH = 200  # objects for one connection


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


def list_deliveries(database: Database) -> list[Delivery]:
    """All deliveries, oldest first."""
    return _select(database, limit=None)


def due(database: Database, destination: str, now: datetime, limit: int = BATCH) -> list[Delivery]:
    """The objects that should be tried now, oldest first."""
    table = db.delivery
    conditions = (
        table.c.destination == destination,
        table.c.state == str(DeliveryState.WAITING),
        table.c.not_before <= now,
    )
    return _select(database, *conditions, limit=limit)


def _select(database: Database, *conditions: object, limit: int | None) -> list[Delivery]:
    query = select(db.delivery).where(*conditions).order_by(db.delivery.c.id).limit(limit)  # type: ignore[arg-type]
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [
        Delivery(
            **{name: row._mapping[name] for name in Delivery.__slots__ if name != "state"},
            state=DeliveryState(row.state),
        )
        for row in rows
    ]


def count_waiting(database: Database) -> dict[str, int]:
    """How many objects wait, per destination."""
    table = db.delivery
    query = (
        select(table.c.destination, func.count())
        .where(table.c.state == str(DeliveryState.WAITING))
        .group_by(table.c.destination)
    )
    with database.read() as connection:
        return {str(name): int(n) for name, n in connection.execute(query)}


def retry_delay_s(attempts: int, settings: DeliverySettings, chance: float) -> float:
    """Seconds to wait after a failed attempt: doubling, capped, and spread by ``chance`` (0..1) over 80-120 %."""
    doubled = settings.first_retry_s * 2.0 ** min(attempts - 1, 30)
    return min(doubled, settings.longest_retry_s) * (0.8 + 0.4 * chance)


def deliver_due(
    database: Database,
    destination: Destination,
    settings: Settings,
    *,
    stopping: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Try everything that is due for one destination, over one connection; returns how many objects it took.

    Every answer is recorded as it comes, so a crash re-sends at most the object in flight.
    """
    waiting = due(database, destination.name, now())
    if not waiting:
        return 0
    by_path: dict[Path, Delivery] = {}
    for one in waiting:
        path = settings.storage_dir / one.path
        if path.is_file():
            by_path[path] = one
        else:
            _postpone(database, [one], None, "its file is missing", settings.delivery, now())
    n_sent = 0
    try:
        with closing(_sending(list(by_path), destination, settings)) as outcomes:
            for outcome in outcomes:
                n_sent += _note(database, by_path.pop(outcome.path), outcome, settings.delivery, now())
                if stopping():
                    break
    except PeerUnavailable as error:
        _postpone(database, list(by_path.values()), None, str(error), settings.delivery, now())
    except Exception as error:  # noqa: BLE001 - the delivery loop: whatever it is, the objects stay and are tried again
        _log.error(
            "delivery failed", extra={"destination": destination.name, "error": type(error).__name__}, exc_info=True
        )
        _postpone(database, list(by_path.values()), None, type(error).__name__, settings.delivery, now())
    return n_sent


def _sending(paths: Sequence[Path], destination: Destination, settings: Settings) -> Generator[SendOutcome, None, None]:
    """The outcomes of sending files, by C-STORE or STOW-RS, as they come.

    Raises:
        PeerUnavailable: nothing more can be sent now.
    """
    timeout_s = settings.delivery.timeout_s
    if destination.dicomweb_url is not None:
        try:
            headers = http_headers(destination)
        except SettingsError as error:
            raise PeerUnavailable(str(error)) from error
        return store_each(paths, WebService(destination.dicomweb_url, timeout_s, headers, destination.ca_file))
    host, port, title = destination.host, destination.port, destination.ae_title
    assert host is not None  # a Destination has the one or the other
    assert port is not None
    assert title is not None
    return send_each(paths, Peer(host, port, title, settings.ae_title, timeout_s, destination.tls))


def _note(
    database: Database, delivery: Delivery, outcome: SendOutcome, settings: DeliverySettings, now: datetime
) -> bool:
    """Record what became of one object; True if it was taken."""
    if not outcome.stored:
        _postpone(database, [delivery], outcome.status, outcome.detail, settings, now)
        return False
    with database.write() as connection:
        move(
            connection,
            db.delivery,
            delivery.id,
            DeliveryState.SENT,
            attempts=delivery.attempts + 1,
            last_status=outcome.status,
            last_error=None,
            sent_at=now,
        )
    _log.info(
        "sent",
        extra={
            "destination": delivery.destination,
            "sop_uid": delivery.sop_uid,
            "kind": delivery.kind,
            "job": delivery.job_id,
        },
    )
    return True


def _postpone(
    database: Database,
    deliveries: Sequence[Delivery],
    status: int | None,
    why: str,
    settings: DeliverySettings,
    now: datetime,
) -> None:
    """Let objects wait, all of them equally long."""
    if not deliveries:
        return
    chance = random.random()  # jitter
    table = db.delivery
    with database.write() as connection:
        for one in deliveries:
            delay_s = retry_delay_s(one.attempts + 1, settings, chance)
            connection.execute(
                update(table)
                .where(table.c.id == one.id, table.c.state == str(DeliveryState.WAITING))
                .values(
                    attempts=one.attempts + 1,
                    not_before=now + timedelta(seconds=delay_s),
                    last_status=status,
                    last_error=why[:255],
                )
            )
    first = deliveries[0]
    _log.warning(
        "not sent",
        extra={"destination": first.destination, "objects": len(deliveries), "why": why, "attempt": first.attempts + 1},
    )


def send_now(database: Database, destination: str, now: datetime) -> None:
    """Let everything that waits for a destination be tried at once."""
    table = db.delivery
    with database.write() as connection:
        connection.execute(
            update(table)
            .where(table.c.destination == destination, table.c.state == str(DeliveryState.WAITING))
            .values(not_before=now)
        )
