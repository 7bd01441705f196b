"""Lets go of what waited until an exam was taken for a visit."""

from collections.abc import Sequence

from sqlalchemy import Connection

from config.trial_plans import TrialPlan


def let_go(connection: Connection, job_id: int, warnings: Sequence[str], plan: TrialPlan) -> None:
    """The result of a job counts for a visit: what of it may leave the node goes, as the plan has it."""
