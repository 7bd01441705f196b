"""Visits that are expected, and those that did not come: each is told once."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from config.trial_plans import TrialPlan, Visit
from service import trial_tables as db
from service.states import VisitState
from service.trials.candidates import Subject
from service.trials.decisions import SubjectDecision
from service.trials.registry import Trial
from service.trials.windows import missed_on


@dataclass(frozen=True, slots=True)
class Expected:
    """A planned visit of which no scan came: until when one counts, and from when on it is told to be missed."""

    visit: Visit
    first: date
    last: date
    told_on: date


def expected_visits(plan: TrialPlan, day_zero: date | None, came: frozenset[str]) -> tuple[Expected, ...]:
    """The visits of which no scan came, in the plan's order; none while day zero is not known."""
    if day_zero is None:
        return ()
    return tuple(
        Expected(
            visit=one,
            first=day_zero + timedelta(days=one.first_day),
            last=day_zero + timedelta(days=one.last_day),
            told_on=missed_on(one, day_zero, plan.alert_after_days),
        )
        for one in plan.visits
        if one.name not in came
    )


def note_expected(
    connection: Connection, trial: Trial, subject: Subject, decision: SubjectDecision, now: datetime
) -> None:
    """Write down when a subject is to be looked at next for a visit that does not come; what came is missed no more."""
    came = frozenset(one.name for one in decision.visits if one.state is not VisitState.SET_ASIDE)
    expected = expected_visits(trial.plan, decision.day_zero, came) if subject.is_active else ()
    table = db.missed_visit
    open_rows = select(table).where(table.c.subject_id == subject.id)
    told = {row.visit: row for row in connection.execute(open_rows)}
    for name, row in told.items():
        is_expected = name in [one.visit.name for one in expected]
        if is_expected != (row.resolved_at is None):
            values = {"resolved_at": None if is_expected else now}
            connection.execute(update(table).where(table.c.id == row.id).values(**values))
    look_on = min((one.told_on for one in expected if one.visit.name not in told), default=None)
    connection.execute(update(db.subject).where(db.subject.c.id == subject.id).values(look_on=look_on))


def tell_missed(connection: Connection, trials: dict[int, Trial], today: date, now: datetime) -> int:
    """Write down the visits that are missed from today on; returns how many. Only subjects that are due are read."""
    table, subject = db.missed_visit, db.subject
    due = connection.execute(
        select(subject).where(subject.c.state == "active", subject.c.look_on <= today).order_by(subject.c.id)
    ).all()
    number = 0
    for row in due:
        names = select(db.visit.c.name).where(
            db.visit.c.subject_id == row.id, db.visit.c.state != str(VisitState.SET_ASIDE)
        )
        came = frozenset(connection.execute(names).scalars())
        told = set(connection.execute(select(table.c.visit).where(table.c.subject_id == row.id)).scalars())
        expected = [
            one for one in expected_visits(trials[row.trial_id].plan, row.day_zero, came) if one.visit.name not in told
        ]
        for one in expected:
            if one.told_on <= today:
                values = {"subject_id": row.id, "visit": one.visit.name, "due_until": one.last, "told_at": now}
                connection.execute(insert(table).values(**values))
                number += 1
        look_on = min((one.told_on for one in expected if one.told_on > today), default=None)
        connection.execute(update(subject).where(subject.c.id == row.id).values(look_on=look_on))
    return number
