"""The desk that takes exams for visits: registers plans, looks at each exam that has news, tells what did not come."""

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from sqlalchemy import select, update

from config.settings import Settings
from service import database as node
from service import trial_tables as db
from service.database import Database
from service.states import ExamState
from service.trials.exam_facts import read_exam_facts
from service.trials.missing import tell_missed
from service.trials.phantom_scans import take_scans
from service.trials.phantoms import free_reports, tell_overdue
from service.trials.plans import take_plans
from service.trials.priors import PRIORS_S, PriorsDesk
from service.trials.registry import trials_of
from service.trials.results import keep_results, new_results
from service.trials.takeover import leave_exam, take_exam
from service.trials.watch import trials_check

_log = logging.getLogger(__name__)

SWEEP_S = 2.0
_MOST_EXAMS = 200  # of one look


class TrialDesk:
    """The sweep over what is new. One in a node, in the supervisor; what people do by command is decided at once."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self.problems: tuple[str, ...] = ()  # plans that cannot be used
        self._phantoms_on: date | None = None  # when it was last looked whether one is overdue
        self._plans: object = None  # what the plans' folder looked like when it was last read
        table = node.exam
        with database.write() as connection:  # a look that a crash interrupted is taken again
            connection.execute(update(table).where(table.c.trial_seen.is_(False)).values(trial_seen=None))

    def tasks(self) -> list[tuple[str, Callable[[], None], float]]:
        """For the schedule."""

        def sweep() -> None:
            self.sweep(datetime.now(UTC))

        def priors() -> None:
            desk.look(datetime.now(UTC))

        desk = PriorsDesk(self._database, self._settings)
        can_fetch = any(one.retrieve for one in self._settings.sources)
        return [("trials", sweep, SWEEP_S), *([("priors", priors, PRIORS_S)] if can_fetch else [])]

    def check(self) -> Callable[[], str]:
        """For health: what is wrong with the plans."""
        return trials_check(self._database, lambda: self.problems)

    def sweep(self, now: datetime) -> int:
        """Take what is new; returns how many exams were looked at. What it costs grows with what is new alone."""
        self.register(now)
        with self._database.read() as connection:
            trials = trials_of(connection)
        if not trials:
            return 0
        if take_scans(self._database, now):
            with self._database.write() as connection:
                free_reports(connection)
        if self._phantoms_on != now.date():
            tell_overdue(self._database, now)
            self._phantoms_on = now.date()
        exams = self._with_news()
        for exam_id in exams:
            self._look(exam_id, now)
        with self._database.read() as connection:
            subject = db.subject
            is_due = select(subject.c.id).where(subject.c.state == "active", subject.c.look_on <= now.date()).limit(1)
            has_missed = connection.execute(is_due).first() is not None
        if has_missed:
            with self._database.write() as connection:
                number = tell_missed(connection, {one.id: one for one in trials}, now.date(), now)
            if number:
                _log.warning("expected visits did not come", extra={"visits": number})
        return len(exams)

    def register(self, now: datetime) -> None:
        """Take new and changed plans over."""
        seen = _stamps(self._settings.trials_dir)
        if seen == self._plans:
            return
        self._plans = seen
        with self._database.write() as connection:
            outcome = take_plans(connection, self._settings.trials_dir, now)
        if outcome.problems != self.problems:
            for problem in outcome.problems:
                _log.error("a trial's plan cannot be used", extra={"why": problem})
            self.problems = outcome.problems

    def _with_news(self) -> list[int]:
        table = node.exam
        query = (
            select(table.c.id)
            .where(table.c.trial_seen.is_(None), table.c.state != str(ExamState.COLLECTING))  # that still comes
            .order_by(table.c.id)
            .limit(_MOST_EXAMS)
        )
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def _look(self, exam_id: int, now: datetime) -> None:
        """Look at one exam. What comes while its files are read makes it news again."""
        table = node.exam
        with self._database.write() as connection:
            connection.execute(update(table).where(table.c.id == exam_id).values(trial_seen=False))
            trials = trials_of(connection)
            state = connection.execute(select(table.c.state).where(table.c.id == exam_id)).scalar_one()
            if state == ExamState.JOINED:
                leave_exam(connection, trials, exam_id, now)
                connection.execute(update(table).where(table.c.id == exam_id).values(trial_seen=True))
                return
        facts = read_exam_facts(self._database, exam_id, [one.plan for one in trials])
        results = new_results(self._database, exam_id)
        with self._database.write() as connection:
            seen = update(table).where(table.c.id == exam_id, table.c.trial_seen.is_(False)).values(trial_seen=True)
            connection.execute(seen)
            keep_results(connection, results)
            take_exam(connection, trials_of(connection), exam_id, facts, now)


def _stamps(folder: Path | None) -> object:
    """What changes when a plan does."""
    if folder is None or not folder.is_dir():
        return ()
    found = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            stat = path.stat()
            found.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            found.append((path.name, 0, 0, 0))
    return tuple(found)
