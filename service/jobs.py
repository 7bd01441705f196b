"""The queue of analyses. Each change is one transaction; a job is a frozen record."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, true, update

from processing.refusal import Reason
from processing.results import Verdict
from service import database as db
from service.database import Database, move
from service.holds import take_place
from service.job_records import JOB_COLUMNS as JOB_COLUMNS
from service.job_records import Job as Job
from service.job_records import JobRequest as JobRequest
from service.job_records import LatestJob as LatestJob
from service.job_records import as_job as as_job
from service.job_records import digest_of as digest_of
from service.job_records import exam_folder as exam_folder
from service.job_records import get_job as get_job
from service.job_records import latest_job as latest_job
from service.job_records import list_jobs as list_jobs
from service.job_records import read_job as read_job
from service.outbox import Parcel, put_in_outbox
from service.quarantine import hold_exam
from service.states import ExamState, JobState

LONGEST_WAIT_S = 3600.0  # before a job is tried again
MORE_FOR_NODES = 20  # tries, before a job is parked whose node died each time


class LeaseLost(Exception):
    """The job was given to another worker; this worker's outcome no longer counts."""


def supersede(connection: Connection, exam_id: int, states: Sequence[JobState]) -> None:
    """Give up an exam's jobs that are in one of ``states``, inside the caller's transaction.

    The worker of a running one notices before it publishes.
    """
    found = select(db.job.c.id).where(db.job.c.exam_id == exam_id, db.job.c.state.in_([str(one) for one in states]))
    for job_id in connection.execute(found).scalars().all():
        move(connection, db.job, job_id, JobState.SUPERSEDED)


def enqueue(connection: Connection, request: JobRequest, now: datetime) -> int:
    """Queue an analysis as the exam's next version, inside the caller's transaction; returns the job's number.

    A queued or parked job of the same exam is superseded: more images came before it ran.
    """
    supersede(connection, request.exam_id, (JobState.QUEUED, JobState.FAILED))
    newest = connection.execute(select(func.max(db.job.c.version)).where(db.job.c.exam_id == request.exam_id)).scalar()
    version = (newest or 0) + 1
    connection.execute(update(db.exam).where(db.exam.c.id == request.exam_id).values(version=version))
    result = connection.execute(
        insert(db.job).values(
            exam_id=request.exam_id,
            version=version,
            state=str(JobState.QUEUED),
            inputs=list(request.inputs),
            inputs_digest=request.inputs_digest,
            calling_ae=request.calling_ae,
            protocol=request.protocol,
            attempts=0,
            created_at=now,
            lowest_disc=None if request.lowest_disc is None else request.lowest_disc.name,
            correction=request.correction,
            reason=request.reason,
            requested_by=request.requested_by,
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def claim(database: Database, worker: str, now: datetime, lease_s: float) -> Job | None:
    """Take the oldest queued job that may be tried now, or None. One exam is analysed once at a time.

    So it is known whether there is an earlier result, which this one then supersedes.
    """
    other = db.job.alias()
    is_busy = select(other.c.id).where(other.c.exam_id == db.job.c.exam_id, other.c.state == str(JobState.RUNNING))
    oldest = (
        select(db.job.c.id)
        .where(
            db.job.c.state == str(JobState.QUEUED),
            ~is_busy.exists(),
            or_(db.job.c.not_before.is_(None), db.job.c.not_before <= now),
        )
        .order_by(db.job.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    with database.read() as connection:  # an idle worker must not take the write lock several times a second
        if connection.execute(oldest).scalar() is None:
            return None
    with database.write() as connection:
        job_id = connection.execute(oldest).scalar()
        if job_id is None:
            return None
        lease = now + timedelta(seconds=lease_s)
        mine = select(db.job.c.exam_id, db.job.c.version).where(db.job.c.id == job_id).subquery()
        earlier = select(func.max(other.c.version)).where(
            other.c.exam_id == mine.c.exam_id,
            other.c.version < mine.c.version,
            other.c.state == str(JobState.DONE),
        )
        move(
            connection,
            db.job,
            job_id,
            JobState.RUNNING,
            worker=worker,
            lease_until=lease,
            started_at=now,
            attempts=db.job.c.attempts + 1,
            error=None,
            stage=None,
            not_before=None,
            predecessor=connection.execute(earlier).scalar(),
        )
        return read_job(connection, job_id)


def was_done_before(database: Database, job: Job) -> bool:
    """Whether an earlier result of the exam is of the same images, with the same word or discs of a person."""
    own, other = db.job, db.job.alias()
    query = select(other.c.id).where(
        own.c.id == job.id,
        other.c.exam_id == own.c.exam_id,
        other.c.version < own.c.version,
        other.c.state == str(JobState.DONE),
        other.c.verdict != str(Verdict.REFUSED),
        other.c.inputs_digest == own.c.inputs_digest,
        other.c.lowest_disc.is_not_distinct_from(own.c.lowest_disc),
        other.c.correction.is_not_distinct_from(own.c.correction),
    )
    with database.read() as connection:
        return connection.execute(query.limit(1)).first() is not None


def heartbeat(database: Database, job: Job, now: datetime, lease_s: float) -> bool:
    """Prolong the lease; False if the job is no longer this worker's."""
    with database.write() as connection:
        result = connection.execute(_held_by(job).values(lease_until=now + timedelta(seconds=lease_s)))
        return result.rowcount == 1


def note_stage(database: Database, job: Job, stage: str) -> None:
    """Write down what the attempt does now, so that it is known of one that ends without a word."""
    with database.write() as connection:
        connection.execute(_held_by(job).values(stage=stage[:32]))


def silent_workers(database: Database, now: datetime) -> list[str]:
    """Names of the workers that have let the lease of their job run out."""
    query = select(db.job.c.worker).where(db.job.c.state == str(JobState.RUNNING), db.job.c.lease_until < now)
    with database.read() as connection:
        return [str(name) for name in connection.execute(query).scalars() if name is not None]


def _held_by(job: Job) -> Any:
    return update(db.job).where(
        db.job.c.id == job.id,
        db.job.c.state == str(JobState.RUNNING),
        db.job.c.worker == job.worker,
        db.job.c.attempts == job.attempts,
    )


def finish(
    database: Database,
    job: Job,
    verdict: Verdict,
    reasons: Sequence[Reason],
    parcels: Sequence[Parcel],
    now: datetime,
    *,
    kind: str | None = None,
    publish: Callable[[], None] = lambda: None,
) -> None:
    """The job is done: its objects go to the outbox and its exam is settled, all in one transaction.

    ``kind``: of what was measured, where it was no subject. ``publish`` puts the results in their place. It is called
    while the job is surely this worker's, so that a worker that lost its job cannot replace what another has published.

    Raises:
        LeaseLost: the job was given to another worker; nothing is changed.
    """
    with database.write() as connection:
        if connection.execute(_held_by(job).values(lease_until=None)).rowcount != 1:
            raise LeaseLost(f"job {job.id}")
        move(connection, db.job, job.id, JobState.DONE, finished_at=now, verdict=str(verdict), error=None, kind=kind)
        put_in_outbox(connection, job.id, parcels, now)
        take_place(connection, job.id, now)
        refused = verdict is Verdict.REFUSED
        if refused:
            for reason in reasons:
                hold_exam(connection, job.exam_id, reason, now)
        _settle_exam(
            connection,
            job,
            ExamState.REFUSED if refused else ExamState.ANALYSED,
            "; ".join(f"{r.code}: {r.detail}" for r in reasons),
        )
        publish()


def fail(database: Database, job: Job, error: str, now: datetime, attempts: int, *, retry_s: float = 0.0) -> JobState:
    """An attempt ended with an error: back to the queue, or parked after ``attempts`` tries. Returns the new state.

    ``retry_s``: as :func:`retry_wait_s`.

    Raises:
        LeaseLost: the job was given to another worker; nothing is changed.
    """
    with database.write() as connection:
        if connection.execute(_held_by(job).values(lease_until=None)).rowcount != 1:
            raise LeaseLost(f"job {job.id}")
        return _give_back(connection, job, error, now, attempts, retry_s)


def release_lost(
    database: Database,
    now: datetime,
    attempts: int,
    *,
    worker: str | None = None,
    everyone: bool = False,
    forgive: bool = False,
    cause: str = "died",
    retry_s: float = 0.0,
) -> list[Job]:
    """Give back running jobs: a dead worker's, everyone's (at the node's start), or those whose lease has run out.

    Args:
        database: the node's record.
        now: aware time.
        attempts: tries after which a job is parked.
        worker: name of the dead worker.
        everyone: no worker of an earlier node lives. For that alone a job is parked only after many more tries: power
            cuts are not its fault.
        forgive: the attempt does not count, because the node itself ended it.
        cause: how the worker ended.
        retry_s: as :func:`retry_wait_s`.

    Returns:
        The jobs as they are now.
    """
    condition: ColumnElement[bool]
    if everyone:
        condition, why = true(), "the node died"
    elif worker is not None:
        condition, why = db.job.c.worker == worker, "its worker was stopped" if forgive else f"its worker {cause}"
    else:
        condition, why = db.job.c.lease_until < now, "its worker was silent longer than the lease"
    lost = select(*JOB_COLUMNS).join(db.exam).where(db.job.c.state == str(JobState.RUNNING), condition)
    with database.read() as connection:
        if connection.execute(lost).first() is None:
            return []
    with database.write() as connection:
        found = [as_job(row) for row in connection.execute(lost).all()]
        for job in found:
            counted = job if not forgive else replace(job, attempts=job.attempts - 1)
            at = f", at stage {job.stage!r}" if job.stage else ""
            limit = attempts + MORE_FOR_NODES if everyone else attempts
            wait_s = 0.0 if forgive else retry_s
            _give_back(connection, counted, f"attempt {job.attempts}: {why}{at}", now, limit, wait_s)
        return [job for job in (read_job(connection, job.id) for job in found) if job is not None]


def retry_wait_s(attempts: int, retry_s: float) -> float:
    """Seconds before the next try after ``attempts`` of them: none after the first, then ``retry_s``, doubling."""
    return 0.0 if attempts < 2 else min(LONGEST_WAIT_S, retry_s * 2.0 ** (attempts - 2))


def _give_back(connection: Connection, job: Job, error: str, now: datetime, attempts: int, retry_s: float) -> JobState:
    values = {"worker": None, "lease_until": None, "error": error, "attempts": job.attempts}
    if job.attempts < attempts:
        wait_s = retry_wait_s(job.attempts, retry_s)
        not_before = now + timedelta(seconds=wait_s) if wait_s else None
        move(connection, db.job, job.id, JobState.QUEUED, not_before=not_before, **values)
        return JobState.QUEUED
    move(connection, db.job, job.id, JobState.FAILED, finished_at=now, **values)
    _settle_exam(connection, job, ExamState.FAILED, f"job {job.id} failed {job.attempts} times")
    return JobState.FAILED


def _settle_exam(connection: Connection, job: Job, state: ExamState, detail: str) -> None:
    """Tell the exam, unless it has moved on because more images came."""
    current = connection.execute(select(db.exam.c.state, db.exam.c.version).where(db.exam.c.id == job.exam_id)).one()
    if current.state == ExamState.QUEUED and current.version == job.version:
        move(connection, db.exam, job.exam_id, state, detail=detail)
