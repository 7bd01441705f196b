"""Lets go of a result that waited for its exam to be taken for a visit, and takes it back when that is in doubt."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from config.trial_plans import TrialPlan
from service import database as node
from service.holds import settle, unsettle
from service.states import JobState, VisitState
from service.trials.decisions import VisitDecision


def settle_release(connection: Connection, visits: Sequence[VisitDecision], plan: TrialPlan) -> None:
    """Of each exam the result that counts goes as the plan has it; whatever else was measured of it waits."""
    for one in visits:
        counts = one.result.job_id if one.state is VisitState.MEASURED and one.result is not None else None
        why = f"trial {plan.protocol_id}: {one.code or one.state}"
        for job_id in _jobs_of(connection, one.exam_id):
            if job_id == counts:
                settle(connection, job_id, one.warnings, plan)
            else:
                unsettle(connection, job_id, why)


def hold_at_the_door(connection: Connection, exam_id: int, plan: TrialPlan, code: str) -> None:
    """An exam of a trial is of no known subject: its results wait."""
    for job_id in _jobs_of(connection, exam_id):
        unsettle(connection, job_id, f"trial {plan.protocol_id}: {code}")


def hold_what_is_none(connection: Connection, exam_id: int, why: str) -> None:
    """An exam is no visit any more, of no trial: what was made for the trial's destinations waits."""
    for job_id in _jobs_of(connection, exam_id):
        unsettle(connection, job_id, why)


def _jobs_of(connection: Connection, exam_id: int) -> Sequence[int]:
    job = node.job
    query = select(job.c.id).where(job.c.exam_id == exam_id, job.c.state == str(JobState.DONE)).order_by(job.c.id)
    return connection.execute(query).scalars().all()
