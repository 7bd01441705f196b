"""Storage commitment requests of ours: which deliveries each is about, and what the destination answered."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import OperationalError

from config.settings import Confirm, Destination, Settings
from dicom_io.commitment_scu import CommitmentResult, TakeResult
from service import database as db
from service.database import Database, move
from service.deliveries import BY_COMMITMENT, Delivery, ask_later, confirm, deny, record_of
from service.states import AskedState, DeliveryState
from service.unconfirmed import was_denied_before

_log = logging.getLogger(__name__)

_FORGET_DAYS = 30
#: PS3.3 C.14.1.1: the object is not there. Other reasons do not say so.
_NO_SUCH_OBJECT = 0x0112


def open_request(
    database: Database,
    destination: str,
    transaction_uid: str,
    deliveries: Sequence[Delivery],
    now: datetime,
    expires_at: datetime,
) -> None:
    """Write a request down before it is made: its result may come faster than the answer to it."""
    with database.write() as connection:
        values = {"transaction_uid": transaction_uid, "destination": destination, "state": str(AskedState.OPEN)}
        result = connection.execute(insert(db.asked_commitment).values(asked_at=now, expires_at=expires_at, **values))
        assert result.inserted_primary_key is not None
        number = result.inserted_primary_key[0]
        connection.execute(insert(db.asked_item), [{"asked_id": number, "delivery_id": one.id} for one in deliveries])
        for one in deliveries:
            ask_later(connection, one, expires_at, None, one.asks + 1)


def lose(
    database: Database,
    transaction_uid: str,
    deliveries: Sequence[Delivery],
    why: str,
    now: datetime,
    *,
    was_made: bool = True,
) -> None:
    """The destination did not take the request: it may be asked at once in another way.

    One that was never made (``was_made``) is forgotten; to another a result may still come.
    """
    table, items = db.asked_commitment, db.asked_item
    with database.write() as connection:
        row = connection.execute(select(table).where(table.c.transaction_uid == transaction_uid)).one()
        if not was_made:
            connection.execute(delete(items).where(items.c.asked_id == row.id))
            connection.execute(delete(table).where(table.c.id == row.id))
        elif row.state == AskedState.OPEN:
            move(connection, table, row.id, AskedState.LOST)
        for one in deliveries:
            ask_later(connection, one, now, why if was_made else None, one.asks)


def expire(database: Database, destination: str, now: datetime) -> None:
    """Requests without a result in time are lost: their deliveries come due again by themselves."""
    table, items = db.asked_commitment, db.asked_item
    late = select(table.c.id).where(
        table.c.destination == destination, table.c.state == str(AskedState.OPEN), table.c.expires_at <= now
    )
    settled = [str(one) for one in AskedState if one is not AskedState.OPEN]
    old = select(table.c.id).where(
        table.c.destination == destination,
        table.c.state.in_(settled),
        table.c.expires_at <= now - timedelta(days=_FORGET_DAYS),
    )
    with database.read() as connection:
        n_late, n_old = (len(connection.execute(query).all()) for query in (late, old))
    if n_late or n_old:
        with database.write() as connection:
            for (number,) in connection.execute(late).all():
                move(connection, table, number, AskedState.LOST)
            connection.execute(delete(items).where(items.c.asked_id.in_(old)))
            connection.execute(delete(table).where(table.c.id.in_(old)))
    if n_late:
        _log.warning("no result of a commitment request", extra={"destination": destination, "requests": n_late})


def open_results(
    database: Database, settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> TakeResult:
    """What is done with a result, whichever way it comes."""

    def take(result: CommitmentResult, sender: str) -> bool:
        try:
            with database.write() as connection:
                return _take(connection, settings, result, sender, now())
        except OperationalError as error:
            raise OSError("the database cannot be written") from error

    return take


def _take(connection: Connection, settings: Settings, result: CommitmentResult, sender: str, now: datetime) -> bool:
    table = db.asked_commitment
    row = connection.execute(select(table).where(table.c.transaction_uid == result.transaction_uid)).one_or_none()
    destination = None if row is None else _destination(settings, row.destination)
    if row is None or destination is None or sender not in (destination.ae_title, destination.reports_as):
        _log.warning("a commitment result that was not asked for", extra={"calling_ae": sender})
        return False
    if row.state == AskedState.ANSWERED:
        return True  # the same once more: our answer to it was lost
    move(connection, table, row.id, AskedState.ANSWERED)
    counts = {"confirmed": 0, "denied": 0, "open": 0}
    known_liar = was_denied_before(connection, destination.name)
    for one in _deliveries_of(connection, row.id, row.asked_at):
        counts[_settle(connection, destination, settings, result, one, now)] += 1
    facts = {"destination": destination.name, **counts}
    _log.log(logging.WARNING if counts["denied"] and not known_liar else logging.INFO, "commitment result", extra=facts)
    return True


def _settle(
    connection: Connection,
    destination: Destination,
    settings: Settings,
    result: CommitmentResult,
    one: Delivery,
    now: datetime,
) -> str:
    if one.sop_uid in result.kept:
        confirm(connection, one, BY_COMMITMENT, now)
        return "confirmed"
    reason = result.failed.get(one.sop_uid)
    is_lacking = reason == _NO_SUCH_OBJECT or destination.confirm is Confirm.COMMITMENT
    if reason is not None and is_lacking:
        deny(connection, one, f"not committed: 0x{reason:04X}", settings.delivery, now)
        return "denied"
    why = "the commitment result does not name it" if reason is None else f"not committed: 0x{reason:04X}"
    ask_later(connection, one, now + timedelta(seconds=settings.delivery.first_retry_s), why)
    return "open"


def _deliveries_of(connection: Connection, number: int, asked_at: datetime) -> list[Delivery]:
    """What a request was about and is still as it was then: not confirmed, and not sent again meanwhile."""
    table, items = db.delivery, db.asked_item
    query = (
        select(table)
        .join(items, items.c.delivery_id == table.c.id)
        .where(items.c.asked_id == number, table.c.state == str(DeliveryState.SENT), table.c.sent_at <= asked_at)
    )
    return [record_of(row) for row in connection.execute(query.order_by(table.c.id)).all()]


def _destination(settings: Settings, name: str) -> Destination | None:
    return next((one for one in settings.destinations if one.name == name), None)
