"""The queue of analyses. Each change is one transaction; a job is a frozen record."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, true, update

from processing.refusal import Reason
from processing.results import Level, Verdict
from service import database as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.outbox import Parcel, put_in_outbox
from service.quarantine import hold_exam, resolve_exam
from service.states import ExamState, JobState


class LeaseLost(Exception):
    """The job was given to another worker; this worker's outcome no longer counts."""


@dataclass(frozen=True, slots=True)
class Job:
    """One analysis of one set of images. Times are aware UTC; ``inputs`` are relative to the inbox folder."""

    id: int
    exam_id: int
    study_uid: str
    version: int
    state: JobState
    inputs: tuple[str, ...]
    calling_ae: str
    protocol: str
    attempts: int
    created_at: datetime
    worker: str | None
    lease_until: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    verdict: str | None
    error: str | None
    lowest_disc: Level | None = None  # a person's word on the lowest disc in view
    predecessor: int | None = None  # the version whose result this one supersedes
    correction: str | None = None  # a person's discs: a segmentation, relative to the inbox folder

    @property
    def error_summary(self) -> str:
        """The last line of the traceback, or nothing."""
        return self.error.strip().splitlines()[-1] if self.error else ""

    @property
    def result_folder(self) -> Path:
        """Where its results lie, relative to the storage folder."""
        return exam_folder(self.exam_id) / f"v{self.version}"

    def as_dict(self) -> dict[str, Any]:
        """For printing as JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["lowest_disc"] = None if self.lowest_disc is None else self.lowest_disc.name
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The images to analyse in a fixed order, and a person's word. Paths are relative to the inbox folder."""

    exam_id: int
    inputs: tuple[str, ...]
    inputs_digest: str
    calling_ae: str
    protocol: str
    lowest_disc: Level | None = None
    correction: str | None = None


def exam_folder(exam_id: int) -> Path:
    """Where the results of an exam lie, relative to the storage folder. Never named from the wire."""
    return Path("results") / f"exam-{exam_id:06d}"


def digest_of(sha256s: Iterable[str]) -> str:
    """One digest over the set of input files, in whatever order they came."""
    return hashlib.sha256("\n".join(sorted(sha256s)).encode()).hexdigest()


_COLUMNS = (db.job, db.exam.c.study_uid)


def _as_job(row: Row[Any]) -> Job:
    values = row._mapping
    return Job(
        **{name: values[name] for name in Job.__slots__ if name not in ("state", "inputs", "lowest_disc")},
        state=JobState(values["state"]),
        inputs=tuple(values["inputs"]),
        lowest_disc=None if values["lowest_disc"] is None else Level[values["lowest_disc"]],
    )


def read_job(connection: Connection, job_id: int) -> Job | None:
    """One job, or None, inside the caller's transaction."""
    row = connection.execute(select(*_COLUMNS).join(db.exam).where(db.job.c.id == job_id)).one_or_none()
    return None if row is None else _as_job(row)


def list_jobs(database: Database) -> list[Job]:
    """All jobs, oldest first."""
    with database.read() as connection:
        return [_as_job(row) for row in connection.execute(select(*_COLUMNS).join(db.exam).order_by(db.job.c.id))]


def get_job(database: Database, job_id: int) -> Job | None:
    """One job, or None."""
    with database.read() as connection:
        return read_job(connection, job_id)


@dataclass(frozen=True, slots=True)
class LatestJob:
    """What the intake asks about an exam's newest job."""

    id: int
    inputs_digest: str
    state: JobState
    verdict: str | None
    finished_at: datetime | None


def latest_job(connection: Connection, exam_id: int) -> LatestJob | None:
    """An exam's newest job, or None, inside the caller's transaction."""
    query = (
        select(db.job.c.id, db.job.c.inputs_digest, db.job.c.state, db.job.c.verdict, db.job.c.finished_at)
        .where(db.job.c.exam_id == exam_id)
        .order_by(db.job.c.version.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return (
        None if row is None else LatestJob(row.id, row.inputs_digest, JobState(row.state), row.verdict, row.finished_at)
    )


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
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def claim(database: Database, worker: str, now: datetime, lease_s: float) -> Job | None:
    """Take the oldest queued job for a worker, or None. One exam is analysed once at a time.

    So it is known whether there is an earlier result, which this one then supersedes.
    """
    other = db.job.alias()
    is_busy = select(other.c.id).where(other.c.exam_id == db.job.c.exam_id, other.c.state == str(JobState.RUNNING))
    oldest = (
        select(db.job.c.id)
        .where(db.job.c.state == str(JobState.QUEUED), ~is_busy.exists())
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
    database: Database, job: Job, verdict: Verdict, reasons: Sequence[Reason], parcels: Sequence[Parcel], now: datetime
) -> None:
    """The job is done: its objects go to the outbox and its exam is settled, all in one transaction.

    Raises:
        LeaseLost: the job was given to another worker; nothing is changed.
    """
    with database.write() as connection:
        if connection.execute(_held_by(job).values(lease_until=None)).rowcount != 1:
            raise LeaseLost(f"job {job.id}")
        move(connection, db.job, job.id, JobState.DONE, finished_at=now, verdict=str(verdict), error=None)
        put_in_outbox(connection, job.id, parcels, now)
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


def fail(database: Database, job: Job, error: str, now: datetime, attempts: int) -> JobState:
    """An attempt ended with an error: back to the queue, or parked after ``attempts`` tries. Returns the new state.

    Raises:
        LeaseLost: the job was given to another worker; nothing is changed.
    """
    with database.write() as connection:
        if connection.execute(_held_by(job).values(lease_until=None)).rowcount != 1:
            raise LeaseLost(f"job {job.id}")
        return _give_back(connection, job, error, now, attempts)


def release_lost(
    database: Database,
    now: datetime,
    attempts: int,
    *,
    worker: str | None = None,
    everyone: bool = False,
    forgive: bool = False,
) -> list[Job]:
    """Give back running jobs: a dead worker's, everyone's (at the node's start), or those whose lease has run out.

    Args:
        database: the node's record.
        now: aware time.
        attempts: tries after which a job is parked.
        worker: name of the dead worker.
        everyone: no worker of an earlier node lives.
        forgive: the attempt does not count, because the node itself ended it.

    Returns:
        The jobs as they are now.
    """
    condition: ColumnElement[bool]
    if everyone:
        condition, why = true(), "the node died"
    elif worker is not None:
        condition, why = db.job.c.worker == worker, "its worker was stopped" if forgive else "its worker died"
    else:
        condition, why = db.job.c.lease_until < now, "its worker was silent longer than the lease"
    lost = select(*_COLUMNS).join(db.exam).where(db.job.c.state == str(JobState.RUNNING), condition)
    with database.read() as connection:
        if connection.execute(lost).first() is None:
            return []
    with database.write() as connection:
        found = [_as_job(row) for row in connection.execute(lost).all()]
        for job in found:
            counted = job if not forgive else replace(job, attempts=job.attempts - 1)
            _give_back(connection, counted, f"attempt {job.attempts}: {why}", now, attempts)
        return [job for job in (read_job(connection, job.id) for job in found) if job is not None]


def _give_back(connection: Connection, job: Job, error: str, now: datetime, attempts: int) -> JobState:
    values = {"worker": None, "lease_until": None, "error": error, "attempts": job.attempts}
    if job.attempts < attempts:
        move(connection, db.job, job.id, JobState.QUEUED, **values)
        return JobState.QUEUED
    move(connection, db.job, job.id, JobState.FAILED, finished_at=now, **values)
    _settle_exam(connection, job, ExamState.FAILED, f"job {job.id} failed {job.attempts} times")
    return JobState.FAILED


def _settle_exam(connection: Connection, job: Job, state: ExamState, detail: str) -> None:
    """Tell the exam, unless it has moved on because more images came."""
    current = connection.execute(select(db.exam.c.state, db.exam.c.version).where(db.exam.c.id == job.exam_id)).one()
    if current.state == ExamState.QUEUED and current.version == job.version:
        move(connection, db.exam, job.exam_id, state, detail=detail)


def retry(database: Database, job_id: int, *, lowest_disc: Level | None = None, by: str = "") -> bool:
    """Queue a parked job again, with a fresh count of attempts; False if there is no job of that number to retry.

    With ``lowest_disc``, a person's word on the lowest disc in view, the newest analysis of an exam that is done or
    refused is made again with it, as the exam's next version; a refusal's open cases are closed. ``by``: who does it.
    """
    with database.write() as connection:
        job = read_job(connection, job_id)
        if job is None:
            return False
        if job.state is JobState.DONE and lowest_disc is not None:
            done = _analyse_again(connection, job, lowest_disc)
            if done:
                note(connection, _again(job, by))
            return done
        if job.state is not JobState.FAILED:
            return False
        named = {} if lowest_disc is None else {"lowest_disc": lowest_disc.name}
        move(connection, db.job, job_id, JobState.QUEUED, attempts=0, finished_at=None, **named)
        state = connection.execute(select(db.exam.c.state).where(db.exam.c.id == job.exam_id)).scalar_one()
        if state == ExamState.FAILED:
            move(connection, db.exam, job.exam_id, ExamState.QUEUED, detail="")
        note(connection, _again(job, by))
        return True


def _again(job: Job, by: str) -> AuditEvent:
    now = datetime.now(UTC)
    return AuditEvent(AuditKind.REPROCESSED, now, by=by, studies=(job.study_uid,), detail=f"job {job.id}")


def _analyse_again(connection: Connection, job: Job, lowest_disc: Level) -> bool:
    """Queue the images of a finished job again with the names counted from ``lowest_disc``.

    False if more images came, if the exam waits for something, if just this was done before, or if the discs are
    already a person's.
    """
    exam = connection.execute(select(db.exam.c.state, db.exam.c.version).where(db.exam.c.id == job.exam_id)).one()
    settled = exam.state in (ExamState.ANALYSED, ExamState.REFUSED) and exam.version == job.version
    if not settled or job.lowest_disc is lowest_disc or job.correction is not None:
        return False
    digest = connection.execute(select(db.job.c.inputs_digest).where(db.job.c.id == job.id)).scalar_one()
    request = JobRequest(job.exam_id, job.inputs, digest, job.calling_ae, job.protocol, lowest_disc)
    now = datetime.now(UTC)
    enqueue(connection, request, now)
    resolve_exam(connection, job.exam_id, f"a person named the lowest disc: {lowest_disc.name}", now)
    move(connection, db.exam, job.exam_id, ExamState.QUEUED, detail="")
    return True
