"""A person gives deliveries up: they do not go where they were to go. It is never counted as delivered."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from service import database as db
from service.audit import AuditKind, note_decided
from service.database import Database
from service.states import DeliveryState, predecessors


class CannotGiveUp(Exception):
    """It is not given up; the message says why."""


def give_up_destination(
    database: Database, destination: str, known: Collection[str], reason: str, by: str, now: datetime
) -> int:
    """Give up all that waits for a destination, or is not confirmed by it; returns how many objects that were.

    ``known``: the destinations of the settings; what is on its way to one of them is given up by number only.

    Raises:
        CannotGiveUp: no reason is given, or the destination is in the settings.
    """
    if destination in known:
        raise CannotGiveUp(f"{destination} is in the settings: name single deliveries by their numbers")
    return _give_up(database, [db.delivery.c.destination == destination], reason, by, now)


def give_up(database: Database, delivery_id: int, reason: str, by: str, now: datetime) -> None:
    """Give up one delivery.

    Raises:
        CannotGiveUp: no reason is given, there is no such delivery, or it is confirmed or given up already.
    """
    if _give_up(database, [db.delivery.c.id == delivery_id], reason, by, now):
        return
    with database.read() as connection:
        state = connection.execute(select(db.delivery.c.state).where(db.delivery.c.id == delivery_id)).scalar()
    raise CannotGiveUp(
        f"no delivery with number {delivery_id}" if state is None else f"delivery {delivery_id} is {state}"
    )


def _give_up(database: Database, which: Sequence[Any], reason: str, by: str, now: datetime) -> int:
    if not reason.strip():
        raise CannotGiveUp("a reason is needed")
    table = db.delivery
    is_open = table.c.state.in_([str(state) for state in predecessors(DeliveryState.GIVEN_UP)])
    values = {"state": str(DeliveryState.GIVEN_UP), "given_up_at": now, "given_up_by": by[:64]}
    with database.write() as connection:
        names = connection.execute(select(table.c.destination).where(*which, is_open).distinct()).scalars().all()
        for name in names:
            chosen = [*which, is_open, table.c.destination == name]
            note_decided(connection, AuditKind.GIVEN_UP, chosen, "{number} given up for " + name, by, now)
        done = connection.execute(update(table).where(*which, is_open).values(given_up_reason=reason.strip(), **values))
    return int(done.rowcount)
