"""What goes where: results chosen by the routes and written to the outbox with the job that made them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from config.settings import Destination, Settings
from service import database as db
from service.states import DeliveryState


@dataclass(frozen=True, slots=True)
class Parcel:
    """One object for one destination. ``path`` is relative to the storage folder."""

    sop_uid: str
    kind: str
    path: str
    destination: str


def destinations_for(settings: Settings, *, calling_ae: str, protocol: str) -> tuple[Destination, ...]:
    """The destinations that the routes choose for a result; without any route, all of them.

    ``protocol``: as a job has it, the names of one card or more, joined by " + ". A route that asks for one of them is
    taken: the result of T1rho and T2 as two scans is of both.
    """
    if not settings.routes:
        return settings.destinations
    facts = {"calling_ae_title": {calling_ae}, "protocol": {protocol, *protocol.split(" + ")}}
    chosen = {
        name
        for route in settings.routes
        if all(value in facts[key] for key, value in route.when.items())
        for name in route.send_to
    }
    return tuple(destination for destination in settings.destinations if destination.name in chosen)


def put_in_outbox(connection: Connection, job_id: int, parcels: Sequence[Parcel], now: datetime) -> None:
    """Add what is not there yet, inside the caller's transaction. An object goes to a destination once."""
    for parcel in parcels:
        known = select(db.delivery.c.id).where(
            db.delivery.c.sop_uid == parcel.sop_uid, db.delivery.c.destination == parcel.destination
        )
        if connection.execute(known).first() is not None:
            continue
        connection.execute(
            insert(db.delivery).values(
                job_id=job_id,
                sop_uid=parcel.sop_uid,
                kind=parcel.kind,
                path=parcel.path,
                destination=parcel.destination,
                state=str(DeliveryState.WAITING),
                attempts=0,
                not_before=now,
            )
        )
