"""Finds what people should be told of: changes of health, parked jobs, held exams, destinations that take nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.exc import SQLAlchemyError

from config.notifications import Event
from config.settings import Settings
from service import database as db
from service.database import Database
from service.health import Health
from service.notify import NotificationDesk, Occurrence
from service.states import DeliveryState, JobState, QuarantineState

SETTLED_S = 5.0  # what is wrong for less long is not told: a process that is replaced, a short lock


@dataclass(slots=True)
class _Trouble:
    since: datetime
    is_told: bool = False


class Incidents:
    """The look-out. Called every few seconds by one thread."""

    def __init__(
        self, database: Database, settings: Settings, health: Callable[[], Health], desk: NotificationDesk
    ) -> None:
        self._database, self._settings = database, settings
        self._health, self._desk = health, desk
        self._troubles: dict[str, _Trouble] = {}

    def look(self, now: datetime) -> None:
        """Find what is new and hand it to the desk."""
        found = self._of_health(now)
        marks: dict[str, int] = {}
        try:
            with self._database.read() as connection:
                found += self._of_rows(connection, now, marks)
        except SQLAlchemyError:
            pass  # health says that the database is away; the rows are looked at when it is back
        self._desk.add(found, now, marks)

    # --- health -------------------------------------------------------------------------------------------------------

    def _of_health(self, now: datetime) -> list[Occurrence]:
        health = self._health()
        found = []
        wrong = {one.name: one for one in health.checks if one.wrong and one.wrong != "not yet checked"}
        for name, check in wrong.items():
            trouble = self._troubles.setdefault(name, _Trouble(now))
            if now - trouble.since >= timedelta(seconds=SETTLED_S):
                trouble.is_told = True
                event = _EVENTS.get(name, Event.NOT_READY if check.vital else Event.DEGRADED)
                found.append(Occurrence(event, f"health {name}", _plain(name, check.wrong)))
        for name in [name for name in self._troubles if name not in wrong]:
            if self._troubles.pop(name).is_told:
                state = "the node is ready" if health.is_ready else "the node is still not ready"
                found.append(Occurrence(Event.RECOVERED, f"recovered {name}", f"{name} works again; {state}"))
        return found

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _of_rows(self, connection: Connection, now: datetime, marks: dict[str, int]) -> list[Occurrence]:
        found = self._of_parked_jobs(connection, marks)
        found += self._of_cases(connection, marks)
        return found + self._of_destinations(connection, now)

    def _of_parked_jobs(self, connection: Connection, marks: dict[str, int]) -> list[Occurrence]:
        """Of jobs that have come to their end since the last look; one that was tried again may end again."""
        table = db.job
        since_s = self._desk.mark("parked jobs")
        parked = select(table.c.id, table.c.finished_at).where(table.c.state == str(JobState.FAILED))
        newest = connection.execute(select(func.max(table.c.finished_at))).scalar()
        newest_s = 0 if newest is None else int(newest.timestamp() * 1000)
        if newest_s != since_s:
            marks["parked jobs"] = newest_s
        if since_s is None:  # the first look of a new node: what lies there already is no news
            return []
        rows = connection.execute(parked.where(table.c.finished_at.is_not(None)).order_by(table.c.finished_at)).all()
        new = [row.id for row in rows if int(row.finished_at.timestamp() * 1000) > since_s]
        if not new:
            return []
        text = f"{len(new)} analyses are parked after their last try, the newest is job {new[-1]}"
        return [Occurrence(Event.JOB_PARKED, f"parked job {new[-1]}", text)]

    def _of_cases(self, connection: Connection, marks: dict[str, int]) -> list[Occurrence]:
        table = db.quarantine
        first = self._after("cases", connection, table, marks)
        query = (
            select(table.c.code, func.count(), func.max(table.c.id))
            .where(table.c.id > first, table.c.state == str(QuarantineState.HELD))
            .group_by(table.c.code)
        )
        return [
            Occurrence(
                Event.EXAM_HELD, f"held {code}", f"{number} new cases {code} in quarantine, the newest is {newest}"
            )
            for code, number, newest in connection.execute(query)
        ]

    def _after(self, name: str, connection: Connection, table: Table, marks: dict[str, int]) -> int:
        """The last row that was looked at; on the first look of a new node, the last there is."""
        newest = connection.execute(select(func.max(table.c.id))).scalar() or 0
        known = self._desk.mark(name)
        if known != newest:
            marks[name] = newest
        return newest if known is None else known

    def _of_destinations(self, connection: Connection, now: datetime) -> list[Occurrence]:
        table, limit_s = db.delivery, self._settings.notifications.destination_failing_s
        waiting = (
            select(table.c.destination, func.count(), func.min(db.job.c.finished_at).label("oldest"))
            .join(db.job, db.job.c.id == table.c.job_id)
            .where(table.c.state == str(DeliveryState.WAITING), table.c.attempts > 0)
            .group_by(table.c.destination)
        )
        last = select(func.max(table.c.sent_at))
        found = []
        for name, number, oldest in connection.execute(waiting).all():
            taken_at = connection.execute(last.where(table.c.destination == name)).scalar()
            since = max(one for one in (oldest, taken_at) if one is not None)
            if now - since >= timedelta(seconds=limit_s):
                text = f"destination {name} has taken nothing for {_duration(now - since)}; {number} objects wait"
                found.append(Occurrence(Event.DESTINATION_FAILING, f"destination {name}", text))
        return found


_EVENTS = {"disk": Event.DISK_LOW, "audit": Event.AUDIT_BROKEN}


def _plain(name: str, wrong: str) -> str:
    """What a check says, cut to a length that fits a message."""
    return f"{name}: {wrong}"[:300]


def _duration(passed: timedelta) -> str:
    minutes = int(passed.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
