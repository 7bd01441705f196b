"""Finds what people should be told of: changes of health, parked jobs, held exams, destinations that take nothing."""

from collections.abc import Callable
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
from service.trials.watch import last_of_trials, news_of_trials

SETTLED_S = 5.0  # what is wrong for less long is not told: a process that is replaced, a short lock
LASTING_S = 300.0  # what is wrong again for so long is told, even if it was told not long ago


class Incidents:
    """The look-out. Called every few seconds by one thread."""

    def __init__(
        self, database: Database, settings: Settings, health: Callable[[], Health], desk: NotificationDesk
    ) -> None:
        self._database, self._settings = database, settings
        self._health, self._desk = health, desk
        self._troubles: dict[str, datetime] = {}  # check -> since when it says that something is wrong
        self._told_wrong: set[str] = set()

    def look(self, now: datetime) -> None:
        """Find what is new and hand it to the desk."""
        changes = self._of_health(now)
        marks: dict[str, int] = {}
        found: list[Occurrence] = []
        try:
            with self._database.read() as connection:
                found = self._of_rows(connection, now, marks)
        except SQLAlchemyError:
            marks = {}  # health says that the database is away; the rows are looked at when it is back
        told = self._desk.add([*changes, *found], now, marks)
        for name in [name for name in self._troubles if told & {f"health {name}", f"health {name} lasts"}]:
            self._told_wrong.add(name)
        self._told_wrong -= {name for name in self._told_wrong if f"recovered {name}" in told}

    # --- health -------------------------------------------------------------------------------------------------------

    def _of_health(self, now: datetime) -> list[Occurrence]:
        """What differs from what was last told, as long as it does; and from time to time, what is wrong still."""
        health = self._health()
        wrong = {one.name: one for one in health.checks if one.wrong and one.wrong != "not yet checked"}
        self._troubles = {name: self._troubles.get(name, now) for name in wrong}
        found = []
        for name, check in wrong.items():
            lasted_s = (now - self._troubles[name]).total_seconds()
            event = _EVENTS.get(name, Event.NOT_READY if check.vital else Event.DEGRADED)
            text = f"{name}: {check.wrong}"[:300]
            if lasted_s >= SETTLED_S:
                found.append(Occurrence(event, f"health {name}", text, keep=False))
            if lasted_s >= LASTING_S and name not in self._told_wrong:  # told to be well, and broken again since
                found.append(Occurrence(event, f"health {name} lasts", text, keep=False))
        state = "the node is ready" if health.is_ready else "the node is still not ready"
        for name in sorted(self._told_wrong - wrong.keys()):
            text = f"{name} works again; {state}"
            found.append(Occurrence(Event.RECOVERED, f"recovered {name}", text, keep=False))
        return found

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _of_rows(self, connection: Connection, now: datetime, marks: dict[str, int]) -> list[Occurrence]:
        found = self._of_parked_jobs(connection, marks)
        found += self._of_cases(connection, marks)
        if self._settings.trials_dir is not None:
            found += self._of_trials(connection, marks)
            found += self._of_phantoms(connection, marks)
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
        return [Occurrence(Event.JOB_PARKED, "parked jobs", text)]

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

    def _of_trials(self, connection: Connection, marks: dict[str, int]) -> list[Occurrence]:
        """Exams that a trial holds, and visits that did not come."""
        last = last_of_trials(connection)
        after = [
            number if known is None else known  # the first look of a new node: what is there already is no news
            for number, known in zip(last, map(self._desk.mark, ("held visits", "missed visits")), strict=True)
        ]
        news = news_of_trials(connection, *after)
        looked = {"held visits": news.last_held, "missed visits": news.last_missed}
        marks |= {name: number for name, number in looked.items() if self._desk.mark(name) != number}
        held = [
            Occurrence(
                Event.VISIT_HELD,
                f"visit held {trial} {code}",
                f"trial {trial}: {number} exams are held with {code} (discnode trial status)",
            )
            for (trial, code), number in sorted(news.held.items())
        ]
        missed = [
            Occurrence(
                Event.VISIT_MISSED,
                f"visit missed {trial} {visit}",
                f"trial {trial}: {number} subjects did not come to {visit} (discnode trial status)",
            )
            for (trial, visit), number in sorted(news.missed.items())
        ]
        return held + missed

    def _of_phantoms(self, connection: Connection, marks: dict[str, int]) -> list[Occurrence]:
        """Of QC phantoms that hold the reports of a scanner, and of those that were not scanned in time."""
        scan = db.trial_tables.phantom_scan
        since = self._after("phantoms", connection, scan, marks)
        query = select(scan.c.device_serial, scan.c.scan_date).where(
            scan.c.id > since, scan.c.verdict == "hold", scan.c.accepted_by.is_(None)
        )
        found = [
            Occurrence(
                Event.PHANTOM,
                f"phantom {serial} hold",
                f"the QC phantom of scanner {serial} of {day.isoformat()} says hold: new subject reports wait",
            )
            for serial, day in connection.execute(query)
        ]
        late_since = self._desk.mark("phantoms late")
        newest = connection.execute(select(func.max(scan.c.told_at))).scalar()
        newest_ms = 0 if newest is None else int(newest.timestamp() * 1000)
        if newest_ms != late_since:
            marks["phantoms late"] = newest_ms
        if late_since is None:
            return found
        told = select(scan.c.device_serial, scan.c.scan_date, scan.c.told_at).where(scan.c.told_at.is_not(None))
        for serial, day, told_at in connection.execute(told):
            if int(told_at.timestamp() * 1000) > late_since:
                text = f"the QC phantom of scanner {serial} is overdue: last scanned on {day.isoformat()}"
                found.append(Occurrence(Event.PHANTOM, f"phantom {serial} overdue", text))
        return found

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


def _duration(passed: timedelta) -> str:
    minutes = int(passed.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
