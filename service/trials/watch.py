"""What of the trials people should be told: in health, in the metrics, and by notification."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from processing.refusal import ReasonCode
from service import trial_tables as db
from service.database import Database
from service.states import VisitState
from service.trials.registry import trials_of


def trials_check(database: Database, problems: Callable[[], tuple[str, ...]]) -> Callable[[], str]:
    """A check of health: plans that cannot be used, were edited after their freeze, or are gone.

    ``problems``: what the desk found wrong with files that are of no trial.
    """

    def check() -> str:
        try:
            with database.read() as connection:
                wrong = [*problems(), *_deviations(connection)]
        except SQLAlchemyError as error:
            return f"the trials cannot be looked at ({type(error).__name__})"
        return "; ".join(wrong)

    return check


def _deviations(connection: Connection) -> Iterator[str]:
    for trial in trials_of(connection):
        if trial.deviation:
            code = f"{ReasonCode.PROTOCOL_DEVIATION}: " if trial.deviates_since is not None else ""
            yield f"{code}{trial.deviation} (trial {trial.protocol_id})"


@dataclass(frozen=True, slots=True)
class TrialCounts:
    """Numbers of one trial. ``visits``: state -> exams; ``held``: reason code -> exams; ``missed``: visits."""

    protocol_id: str
    visits: dict[str, int]
    held: dict[str, int]
    missed: int
    is_edited: bool


def count_trials(connection: Connection) -> list[TrialCounts]:
    """The numbers of each trial."""
    visit, subject, missed, exam = db.visit, db.subject, db.missed_visit, db.trial_exam
    states = select(subject.c.trial_id, visit.c.state, visit.c.code, func.count()).join(
        subject, subject.c.id == visit.c.subject_id
    )
    rows = connection.execute(states.group_by(subject.c.trial_id, visit.c.state, visit.c.code)).all()
    doors = select(exam.c.trial_id, exam.c.code, func.count()).where(
        exam.c.trial_id.is_not(None), exam.c.subject_id.is_(None), exam.c.set_aside.is_(False)
    )
    at_the_door = connection.execute(doors.group_by(exam.c.trial_id, exam.c.code)).all()
    open_ones = select(subject.c.trial_id, func.count()).join(missed, missed.c.subject_id == subject.c.id)
    n_missed = {
        row[0]: row[1]
        for row in connection.execute(open_ones.where(missed.c.resolved_at.is_(None)).group_by(subject.c.trial_id))
    }
    counts = []
    for trial in trials_of(connection):
        visits = {str(state): 0 for state in VisitState}
        held: dict[str, int] = {}
        for trial_id, state, code, number in rows:
            if trial_id == trial.id:
                visits[state] += number
                if state == VisitState.HELD:
                    held[code or ""] = held.get(code or "", 0) + number
        for trial_id, code, number in at_the_door:
            if trial_id == trial.id:
                held[code or ""] = held.get(code or "", 0) + number
        edited = trial.deviates_since is not None
        counts.append(TrialCounts(trial.protocol_id, visits, held, n_missed.get(trial.id, 0), edited))
    return counts


@dataclass(frozen=True, slots=True)
class TrialNews:
    """What is new. ``held``: (trial, reason code) -> exams; ``missed``: (trial, visit) -> subjects."""

    held: dict[tuple[str, str], int]
    missed: dict[tuple[str, str], int]
    newest_held: datetime | None
    newest_missed: int


def news_of_trials(connection: Connection, held_since: datetime, missed_after: int) -> TrialNews:
    """What was held after a moment, and what was missed after a row. Cheap where there is none."""
    visit, subject, missed, exam, trial = db.visit, db.subject, db.missed_visit, db.trial_exam, db.trial
    of_visits = (
        select(trial.c.protocol_id, visit.c.code, visit.c.changed_at.label("at"))
        .join(subject, subject.c.id == visit.c.subject_id)
        .join(trial, trial.c.id == subject.c.trial_id)
        .where(visit.c.state == str(VisitState.HELD), visit.c.changed_at > held_since)
    )
    of_doors = (
        select(trial.c.protocol_id, exam.c.code, exam.c.held_at.label("at"))
        .join(trial, trial.c.id == exam.c.trial_id)
        .where(exam.c.subject_id.is_(None), exam.c.held_at > held_since)
    )
    rows = [*connection.execute(of_visits), *connection.execute(of_doors)]
    held: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row.protocol_id, row.code or "")
        held[key] = held.get(key, 0) + 1
    of_missed = (
        select(missed.c.id, missed.c.visit, trial.c.protocol_id)
        .join(subject, subject.c.id == missed.c.subject_id)
        .join(trial, trial.c.id == subject.c.trial_id)
        .where(missed.c.id > missed_after, missed.c.resolved_at.is_(None))
    )
    found: dict[tuple[str, str], int] = {}
    newest = missed_after
    for row in connection.execute(of_missed):
        found[row.protocol_id, row.visit] = found.get((row.protocol_id, row.visit), 0) + 1
        newest = max(newest, row.id)
    return TrialNews(held, found, max((row.at for row in rows), default=None), newest)
