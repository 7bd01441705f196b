"""What of the trials people should be told: in health, in the metrics, and by notification."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from config.sections import SettingsError
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
        except SettingsError as error:  # of an earlier program, which allowed what this one does not
            return f"the plan on record cannot be used: {str(error).splitlines()[0]}"
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
    """What is new. ``held``: (trial, reason code) -> exams; ``missed``: (trial, visit) -> subjects.

    ``last_held`` and ``last_missed``: how far was looked.
    """

    held: dict[tuple[str, str], int]
    missed: dict[tuple[str, str], int]
    last_held: int
    last_missed: int


def last_of_trials(connection: Connection) -> tuple[int, int]:
    """How far there is to look: of what is held, and of what was missed."""
    tables = (db.visit.c.held_number, db.trial_exam.c.held_number, db.missed_visit.c.id)
    visits, doors, missed = (connection.execute(select(func.max(column))).scalar() or 0 for column in tables)
    return max(visits, doors), missed


def news_of_trials(connection: Connection, held_after: int, missed_after: int) -> TrialNews:
    """What was held and what was missed after these numbers. Cheap where there is nothing."""
    last_held, last_missed = last_of_trials(connection)
    visit, subject, missed, exam, trial = db.visit, db.subject, db.missed_visit, db.trial_exam, db.trial
    of_visits = (
        select(trial.c.protocol_id, visit.c.code, func.count())
        .join(subject, subject.c.id == visit.c.subject_id)
        .join(trial, trial.c.id == subject.c.trial_id)
        .where(visit.c.held_number > held_after, visit.c.state == str(VisitState.HELD))
        .group_by(trial.c.protocol_id, visit.c.code)
    )
    of_doors = (
        select(trial.c.protocol_id, exam.c.code, func.count())
        .join(trial, trial.c.id == exam.c.trial_id)
        .where(exam.c.held_number > held_after, exam.c.subject_id.is_(None))
        .group_by(trial.c.protocol_id, exam.c.code)
    )
    of_missed = (
        select(trial.c.protocol_id, missed.c.visit, func.count())
        .join(subject, subject.c.id == missed.c.subject_id)
        .join(trial, trial.c.id == subject.c.trial_id)
        .where(missed.c.id > missed_after, missed.c.resolved_at.is_(None))
        .group_by(trial.c.protocol_id, missed.c.visit)
    )
    held: dict[tuple[str, str], int] = {}
    for protocol_id, code, number in [*connection.execute(of_visits), *connection.execute(of_doors)]:
        held[protocol_id, code or ""] = held.get((protocol_id, code or ""), 0) + number
    found = {(protocol_id, name): number for protocol_id, name, number in connection.execute(of_missed)}
    return TrialNews(held, found, last_held, last_missed)
