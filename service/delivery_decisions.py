"""What a person decides about deliveries: try at once, send again, give up. Each stands in the audit trail."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from service import database as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.deliveries import change, find
from service.states import DeliveryState, predecessors


class CannotGiveUp(Exception):
    """It is not given up; the message says why."""


def send_now(database: Database, destination: str, now: datetime, *, by: str = "") -> int:
    """Let all that waits for a destination be tried, and all that is unconfirmed be asked about, at once; how many."""
    table = db.delivery
    to_it = table.c.destination == destination
    waits, is_sent = (table.c.state == str(state) for state in (DeliveryState.WAITING, DeliveryState.SENT))
    with database.write() as connection:
        n_waiting = connection.execute(update(table).where(to_it, waits).values(not_before=now)).rowcount
        n_sent = connection.execute(update(table).where(to_it, is_sent).values(ask_not_before=now)).rowcount
        if n_waiting:  # the others only answer a question
            _note(connection, AuditKind.SENT_AGAIN, [to_it, waits], "{number} at once to " + destination, by, now)
    return int(n_waiting + n_sent)


def send_again(database: Database, delivery_id: int, now: datetime, *, by: str = "") -> bool:
    """Let one object be sent at once, though it may be confirmed or given up; False where there is none of that number.

    Raises:
        FileNotFoundError: its file is no longer there.
    """
    table = db.delivery
    found = find(database, table.c.id == delivery_id, limit=1)
    if not found:
        return False
    (one,) = found
    with database.write() as connection:
        removed = connection.execute(select(db.job.c.files).where(db.job.c.id == one.job_id)).scalar()  # by retention
        if removed is not None or not (database.storage_dir / one.path).is_file():
            raise FileNotFoundError(one.path)
        if one.state is not DeliveryState.WAITING:
            gone = {"confirmed_at": None, "confirmed_by": None, "given_up_at": None, "given_up_by": None}
            change(connection, one, DeliveryState.WAITING, not_before=now, given_up_reason=None, **gone)
        else:
            connection.execute(update(table).where(table.c.id == delivery_id).values(not_before=now))
        what = "{number} again to " + one.destination
        _note(connection, AuditKind.SENT_AGAIN, [table.c.id == delivery_id], what, by, now)
    return True


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
    found = find(database, db.delivery.c.id == delivery_id, limit=1)
    raise CannotGiveUp(
        f"delivery {delivery_id} is {found[0].state}" if found else f"no delivery with number {delivery_id}"
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
            _note(connection, AuditKind.GIVEN_UP, chosen, "{number} given up for " + name, by, now)
        done = connection.execute(update(table).where(*which, is_open).values(given_up_reason=reason.strip(), **values))
    return int(done.rowcount)


def _note(connection: Connection, kind: AuditKind, which: Sequence[Any], what: str, by: str, now: datetime) -> None:
    """Have it in the trail, of each study by itself; a person's free text is not."""
    job, exam, table = db.job, db.exam, db.delivery
    query = select(exam.c.study_uid, func.count()).join(job, job.c.exam_id == exam.c.id)
    query = query.join(table, table.c.job_id == job.c.id).where(*which).group_by(exam.c.study_uid)
    for study, number in connection.execute(query.order_by(exam.c.study_uid)).all():
        detail = what.format(number=f"{number} object" if number == 1 else f"{number} objects")
        note(connection, AuditEvent(kind, now, by=by, studies=(study,), detail=detail))
