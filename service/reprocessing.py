"""What a person decides about an analysis: try it again, name the lowest disc, have it made anew."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from processing.results import Level
from service import database as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.jobs import Job, JobRequest, enqueue, read_job
from service.quarantine import resolve_exam
from service.states import ExamState, JobState


class CannotReprocess(Exception):
    """The analysis cannot be made anew; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants an analysis made anew, and why."""

    reason: str
    by: str


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
            return _name_lowest_disc(connection, job, lowest_disc, by)
        if job.state is not JobState.FAILED:
            return False
        named = {} if lowest_disc is None else {"lowest_disc": lowest_disc.name}
        move(connection, db.job, job_id, JobState.QUEUED, attempts=0, finished_at=None, not_before=None, **named)
        state = connection.execute(select(db.exam.c.state).where(db.exam.c.id == job.exam_id)).scalar_one()
        if state == ExamState.FAILED:
            move(connection, db.exam, job.exam_id, ExamState.QUEUED, detail="")
        note(connection, _event(job, by))
        return True


def reprocess(database: Database, job_id: int, request: Request) -> int:
    """Have the newest analysis of an exam made anew, whatever came of it, with the images and the word it had.

    A new version that names its predecessor: nothing of the earlier ones is changed. Who asked for it and why is kept
    with the job. Returns the new job's number.

    Raises:
        CannotReprocess: there is no such job, it is not its exam's newest or not finished, its images are gone, or no
            reason is given.
    """
    reason = request.reason.strip()
    if not reason:
        raise CannotReprocess("a reason is needed")
    now = datetime.now(UTC)
    with database.write() as connection:
        job = read_job(connection, job_id)
        if job is None:
            raise CannotReprocess(f"no job with number {job_id}")
        exam = connection.execute(select(db.exam.c.state, db.exam.c.version).where(db.exam.c.id == job.exam_id)).one()
        if job.state not in (JobState.DONE, JobState.FAILED) or exam.version != job.version:
            raise CannotReprocess(f"job {job_id} is {job.state}, or not the newest of its exam")
        if exam.state not in (ExamState.ANALYSED, ExamState.REFUSED, ExamState.FAILED):
            raise CannotReprocess(f"the exam of job {job_id} is {exam.state}: its images are judged again first")
        used = (*job.inputs, *([job.correction] if job.correction else []))
        n_gone = sum(not (database.inbox_dir / path).is_file() for path in used)
        if n_gone:
            raise CannotReprocess(f"{n_gone} of the {len(used)} files of job {job_id} are no longer there")
        return _again(connection, job, now, lowest_disc=job.lowest_disc, reason=reason, by=request.by)


def _name_lowest_disc(connection: Connection, job: Job, lowest_disc: Level, by: str) -> bool:
    """Queue the images of a finished job again with the names counted from ``lowest_disc``.

    False if more images came, if the exam waits for something, if just this was done before, or if the discs are
    already a person's.
    """
    exam = connection.execute(select(db.exam.c.state, db.exam.c.version).where(db.exam.c.id == job.exam_id)).one()
    settled = exam.state in (ExamState.ANALYSED, ExamState.REFUSED) and exam.version == job.version
    if not settled or job.lowest_disc is lowest_disc or job.correction is not None:
        return False
    _again(
        connection,
        job,
        datetime.now(UTC),
        lowest_disc=lowest_disc,
        reason=f"a person named the lowest disc: {lowest_disc.name}",
        by=by or None,
    )
    return True


def _again(
    connection: Connection, job: Job, now: datetime, *, lowest_disc: Level | None, reason: str, by: str | None
) -> int:
    """Queue the images of a job as its exam's next version; an open refusal is closed."""
    digest = connection.execute(select(db.job.c.inputs_digest).where(db.job.c.id == job.id)).scalar_one()
    request = JobRequest(
        job.exam_id,
        job.inputs,
        digest,
        job.calling_ae,
        job.protocol,
        lowest_disc=lowest_disc,
        correction=job.correction,
        reason=reason,
        requested_by=by,
    )
    new = enqueue(connection, request, now)
    resolve_exam(connection, job.exam_id, f"analysed again as job {new}", now)
    move(connection, db.exam, job.exam_id, ExamState.QUEUED, detail="")
    note(connection, _event(job, by or ""))
    return new


def _event(job: Job, by: str) -> AuditEvent:
    now = datetime.now(UTC)
    return AuditEvent(AuditKind.REPROCESSED, now, by=by, studies=(job.study_uid,), detail=f"job {job.id}")
