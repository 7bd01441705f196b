"""Takes new and changed plans over, and decides anew on whoever they concern."""

from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, select, update

from service import database as node
from service import trial_tables as db
from service.holds import settle_destinations_of_reports
from service.trials.registry import Registration, register_plans, trials_of
from service.trials.takeover import update_subjects


def take_plans(connection: Connection, trials_dir: Path | None, now: datetime) -> Registration:
    """As :func:`service.trials.registry.register_plans`; the subjects of changed trials are settled by the new text."""
    outcome = register_plans(connection, trials_dir, now)
    if outcome.changed:
        subject = db.subject
        of_them = select(subject.c.id).where(subject.c.trial_id.in_(outcome.changed))
        for one in trials_of(connection):
            if one.id in outcome.changed:
                settle_destinations_of_reports(connection, one.id, one.plan)
        update_subjects(connection, trials_of(connection), connection.execute(of_them).scalars().all(), now)
        # What no trial claimed, or one claimed in vain, may be a subject's by the new text.
        loose = select(db.trial_exam.c.exam_id).where(db.trial_exam.c.subject_id.is_(None))
        connection.execute(update(node.exam).where(node.exam.c.id.in_(loose)).values(trial_seen=None))
    return outcome
