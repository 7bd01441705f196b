"""What goes where: results chosen by the routes and written to the outbox with the job that made them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from config.release import Release
from config.settings import Destination, Route, Settings
from service import database as db
from service.states import DeliveryState

#: The hold of what was not sent because something newer took its place; made again, it may go.
SUPERSEDED = "superseded"
#: Kind of a delivery that tells a destination what it must not use: nothing holds it, whatever becomes of its exam.
REJECTION_NOTE = "rejection"


@dataclass(frozen=True, slots=True)
class Parcel:
    """One object for one destination. ``path`` is relative to the storage folder.

    ``holds``: what must be settled before it may go (:class:`service.holds.Hold` -> words); ``release``: the rule.
    """

    sop_uid: str
    kind: str
    path: str
    destination: str
    holds: Mapping[str, str] = field(default_factory=dict)
    release: Release = Release.AUTOMATIC


def destinations_for(settings: Settings, *, calling_ae: str, protocol: str) -> tuple[Destination, ...]:
    """The destinations that the routes choose for a result; without any route, all of them.

    ``protocol``: as a job has it, the names of one card or more, joined by " + ". A route that asks for one of them is
    taken: the result of T1rho and T2 as two scans is of both.
    """
    if not settings.routes:
        return settings.destinations
    chosen = {
        name for route in routes_for(settings, calling_ae=calling_ae, protocol=protocol) for name in route.send_to
    }
    return tuple(destination for destination in settings.destinations if destination.name in chosen)


def routes_for(settings: Settings, *, calling_ae: str, protocol: str) -> tuple[Route, ...]:
    """The routes whose conditions a result meets."""
    facts = {"calling_ae_title": {calling_ae}, "protocol": {protocol, *protocol.split(" + ")}}
    return tuple(route for route in settings.routes if all(value in facts[key] for key, value in route.when.items()))


def put_in_outbox(
    connection: Connection, job_id: int, parcels: Sequence[Parcel], now: datetime, *, report_id: int | None = None
) -> None:
    """Add what is not there yet, inside the caller's transaction. An object goes to a destination once.

    ``report_id``: of the subject's report that they are of. What was made before and is held goes on as of this job.
    """
    table = db.delivery
    for parcel in parcels:
        known = (table.c.sop_uid == parcel.sop_uid, table.c.destination == parcel.destination)
        columns = (table.c.id, table.c.state, table.c.approved_sha256, table.c.holds)
        found = connection.execute(select(*columns).where(*known)).first()
        own: dict[str, Any] = {"job_id": job_id, "report_id": report_id, "path": parcel.path}
        own |= {"holds": dict(parcel.holds) or None, "release": str(parcel.release)}
        if found is not None:
            is_free = found.state == DeliveryState.WAITING and found.approved_sha256 is None and not parcel.holds
            is_over = found.state == DeliveryState.REJECTED and set(found.holds or {}) == {SUPERSEDED}
            is_open = found.state in (DeliveryState.HELD, DeliveryState.WAITING)
            if is_over or (is_open and not is_free):  # what was said of it is void
                own |= {"state": str(_first_state(parcel)), "approved_sha256": None, "not_before": now}
                connection.execute(update(table).where(table.c.id == found.id).values(**own))
            continue
        connection.execute(
            insert(table).values(
                **own,
                sop_uid=parcel.sop_uid,
                kind=parcel.kind,
                destination=parcel.destination,
                state=str(_first_state(parcel)),
                attempts=0,
                not_before=now,
            )
        )


def _first_state(parcel: Parcel) -> DeliveryState:
    return DeliveryState.HELD if parcel.holds else DeliveryState.WAITING
