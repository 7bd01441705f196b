"""Which running jobs have been left by their workers: judged by a clock that nobody sets.

A worker prolongs the lease of its job again and again. The times in the record are of the wall clock, which may be set
while a job runs; so the one supervisor of a node watches how long each lease has stood still.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from service import database as db
from service.database import Database
from service.states import JobState


@dataclass(frozen=True, slots=True)
class Lease:
    """Of one attempt at one job, as it was last prolonged."""

    job_id: int
    attempts: int
    worker: str | None
    until: datetime | None


def running_leases(database: Database) -> list[Lease]:
    """Of all jobs that run."""
    table = db.job
    query = select(table.c.id, table.c.attempts, table.c.worker, table.c.lease_until)
    with database.read() as connection:
        rows = connection.execute(query.where(table.c.state == str(JobState.RUNNING))).all()
    return [Lease(*row) for row in rows]


class LeaseWatch:
    """Remembers since when each lease stands still. One in a node; one thread asks it."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._since_s: dict[Lease, float] = {}

    def overdue(self, leases: Iterable[Lease], now_s: float) -> list[Lease]:
        """Those that were not prolonged for as long as they hold.

        Args:
            leases: all there are now.
            now_s: of a monotonic clock.
        """
        self._since_s = {one: self._since_s.get(one, now_s) for one in leases}
        return [one for one, since_s in self._since_s.items() if now_s - since_s > self._lease_s]

    def forget(self) -> None:
        """Begin anew: what stood still was not the workers' fault."""
        self._since_s.clear()
