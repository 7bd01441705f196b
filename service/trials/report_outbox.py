"""A report on its way out: to its trial's destinations, held as the rules say, in place of the version before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from config.settings import Settings
from config.trial_plans import TrialPlan
from service import database as db
from service import trial_tables as trials
from service.holds import holds_by_rule, release_for, take_place_of_report, withheld
from service.outbox import Parcel, put_in_outbox


@dataclass(frozen=True, slots=True)
class ReportObject:
    """A DICOM object of a report. ``kind``: of :class:`config.settings.ObjectKind`; ``path``: relative to the storage
    folder."""

    sop_uid: str
    kind: str
    path: str


def put_report_in_outbox(
    connection: Connection,
    settings: Settings,
    plan: TrialPlan,
    report_id: int,
    objects: Sequence[ReportObject],
    now: datetime,
    *,
    warnings: Sequence[str] = (),
    held_by: Mapping[str, str] | None = None,
) -> int:
    """Put a report's objects on their way, inside the transaction that puts down its row in ``trial_report``.

    Of the versions before it nothing that is held, or approved and not sent yet, goes any more. ``warnings`` are what
    is to be checked about it, in words; ``held_by``: what else holds it. Returns how many deliveries there are of it.
    """
    report, subject, trial = trials.subject_report, trials.subject, trials.trial
    about = select(report.c.job_id, db.job.c.calling_ae, db.job.c.protocol, trial.c.unblinded_at)
    about = about.join(subject, subject.c.id == report.c.subject_id).join(trial, trial.c.id == subject.c.trial_id)
    about = about.join(db.job, db.job.c.id == report.c.job_id).where(report.c.id == report_id)
    row = connection.execute(about).one()
    parcels = []
    for destination in settings.destinations:
        if destination.name not in plan.destinations or destination.deidentify:  # it takes no real dates
            continue
        facts = {"calling_ae": row.calling_ae, "protocol": row.protocol, "destination": destination.name}
        rule = release_for(settings, **facts, trial=plan)
        holds = holds_by_rule(rule, warnings) | withheld(plan, is_unblinded=row.unblinded_at is not None)
        holds |= held_by or {}
        parcels += [
            Parcel(one.sop_uid, one.kind, one.path, destination.name, holds, rule)
            for one in objects
            if one.kind in destination.objects
        ]
    put_in_outbox(connection, row.job_id, parcels, now, report_id=report_id)
    take_place_of_report(connection, report_id)
    return len(parcels)
