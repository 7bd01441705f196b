"""Reports that are due: who takes one up, when it is tried again, and which ones cannot be made."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select, update

from service import jobs
from service import trial_tables as tables
from service.database import Database

_HEAL_S = 60.0  # at least so long after an attempt that died without a word


@dataclass(frozen=True, slots=True)
class Demand:
    """A report that is due. ``attempts``: with the one that begins now."""

    id: int
    subject_id: int
    asked_at: datetime
    attempts: int


def claim_due(database: Database, now: datetime, retry_s: float) -> Demand | None:
    """The demand that has waited longest, or None. It is put off before anything is done, in case the attempt dies."""
    table = tables.report_due
    query = select(table).where(table.c.not_before <= now).order_by(table.c.asked_at, table.c.id).limit(1)
    with database.read() as connection:
        if connection.execute(query).first() is None:
            return None
    with database.write() as connection:
        due = connection.execute(query.with_for_update()).first()
        if due is None:
            return None
        wait_s = max(_HEAL_S, jobs.retry_wait_s(due.attempts + 1, retry_s))
        later = {"attempts": due.attempts + 1, "not_before": now + timedelta(seconds=wait_s)}
        connection.execute(update(table).where(table.c.id == due.id).values(**later))
        return Demand(due.id, due.subject_id, due.asked_at, due.attempts + 1)


def note_error(database: Database, demand: Demand, error: str) -> None:
    """Write down why an attempt failed, unless the report has been asked for anew."""
    table = tables.report_due
    with database.write() as connection:
        found = update(table).where(table.c.id == demand.id, table.c.asked_at == demand.asked_at)
        connection.execute(found.values(error=error))


def end_demand(connection: Connection, subject_id: int, asked_at: datetime) -> bool:
    """The demand is met, unless there is a newer one; whether none is left."""
    table = tables.report_due
    connection.execute(delete(table).where(table.c.subject_id == subject_id, table.c.asked_at <= asked_at))
    return connection.execute(select(table.c.id).where(table.c.subject_id == subject_id)).first() is None


def forgive_attempts(database: Database, now: datetime) -> None:
    """The node starts: what an attempt of its last life has put off is due now."""
    table = tables.report_due
    with database.write() as connection:
        connection.execute(update(table).where(table.c.error.is_(None)).values(not_before=now, attempts=0))


def count_stuck(database: Database, attempts: int) -> int:
    """Reports that so many attempts have not made."""
    table = tables.report_due
    with database.read() as connection:
        found = connection.execute(select(func.count()).where(table.c.attempts >= attempts)).scalar_one()
    return int(found)
