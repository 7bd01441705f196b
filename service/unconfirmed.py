"""Destinations whose word cannot be checked, or does not hold.

What is asked here again and again touches only what is open, however much is on record.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select, update

from service import database as db
from service.database import Database
from service.states import DeliveryState
from service.tables import DENIED

NO_WAY = "it offers no way to confirm"


def can_never_confirm(connection: Connection, destination: str) -> bool:
    """Whether the destination, when last asked about something that it has taken, offered no way to confirm."""
    table = db.delivery
    of_it = (table.c.destination == destination, table.c.state == str(DeliveryState.SENT))
    return (
        connection.execute(select(table.c.id).where(*of_it, table.c.last_error == NO_WAY).limit(1)).first() is not None
    )


def no_way_until(connection: Connection, destination: str, now: datetime) -> datetime | None:
    """Until when the destination is not to be asked again, because it offers no way to confirm; None: it may be."""
    table = db.delivery
    query = select(table.c.ask_not_before).where(
        table.c.destination == destination,
        table.c.state == str(DeliveryState.SENT),
        table.c.last_error == NO_WAY,
        table.c.ask_not_before > now,
    )
    found: datetime | None = connection.execute(query.order_by(table.c.ask_not_before.desc()).limit(1)).scalar()
    return found


def leave_unconfirmed(connection: Connection, destination: str, until: datetime, now: datetime) -> None:
    """Nothing that is due and was never part of a commitment request can be confirmed now: ask again at a time."""
    table = db.delivery
    due = (
        table.c.destination == destination,
        table.c.state == str(DeliveryState.SENT),
        table.c.ask_not_before <= now,
        func.coalesce(table.c.asks, 0) == 0,
    )
    connection.execute(update(table).where(*due).values(ask_not_before=until, last_error=NO_WAY))


def was_denied_before(connection: Connection, destination: str) -> bool:
    """Whether the destination is known to say that it stored what it has not."""
    table = db.delivery
    query = select(table.c.id).where(table.c.destination == destination, DENIED)
    return connection.execute(query.limit(1)).first() is not None


def count_denied(database: Database) -> dict[str, int]:
    """Destination -> how many objects it took, by its word, and has not; they wait, or were sent again."""
    table, counts = db.delivery, Counter[str]()
    # Of all states, or the planner takes the index of states: what is sent and never confirmed may be all there is.
    query = select(table.c.destination, table.c.state, func.count()).where(DENIED)
    with database.read() as connection:
        for name, state, number in connection.execute(query.group_by(table.c.destination, table.c.state)):
            if state in (DeliveryState.WAITING, DeliveryState.SENT):
                counts[name] += number
    return dict(counts)


def unconfirmable(database: Database, destinations: Sequence[str]) -> tuple[str, ...]:
    """Those of the destinations that have taken something and offer no way to confirm it."""
    with database.read() as connection:
        return tuple(name for name in destinations if can_never_confirm(connection, name))
