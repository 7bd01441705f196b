"""What is known of an analysis: the record of a job, and how it is read."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from processing.results import Level
from service import database as db
from service.database import Database
from service.states import JobState

#: ``Job.kind`` of a QC phantom's scan.
PHANTOM = "phantom"


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
    stage: str | None = None  # what the newest attempt did last
    not_before: datetime | None = None  # after failures: when it is tried again
    reason: str | None = None  # why a person had it made
    requested_by: str | None = None  # who that was
    files: str | None = None  # of its results: None: there; a value of service.states.FilesState
    kind: str | None = None  # of what was measured: phantom; None: a subject

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
    reason: str | None = None
    requested_by: str | None = None


def exam_folder(exam_id: int) -> Path:
    """Where the results of an exam lie, relative to the storage folder. Never named from the wire."""
    return Path("results") / f"exam-{exam_id:06d}"


def digest_of(sha256s: Iterable[str]) -> str:
    """One digest over the set of input files, in whatever order they came."""
    return hashlib.sha256("\n".join(sorted(sha256s)).encode()).hexdigest()


#: Of a job joined with its exam.
JOB_COLUMNS = (db.job, db.exam.c.study_uid)


def as_job(row: Row[Any]) -> Job:
    """A job from a row of :data:`JOB_COLUMNS`."""
    values = row._mapping
    return Job(
        **{name: values[name] for name in Job.__slots__ if name not in ("state", "inputs", "lowest_disc")},
        state=JobState(values["state"]),
        inputs=tuple(values["inputs"]),
        lowest_disc=None if values["lowest_disc"] is None else Level[values["lowest_disc"]],
    )


def read_job(connection: Connection, job_id: int) -> Job | None:
    """One job, or None, inside the caller's transaction."""
    row = connection.execute(select(*JOB_COLUMNS).join(db.exam).where(db.job.c.id == job_id)).one_or_none()
    return None if row is None else as_job(row)


def list_jobs(database: Database) -> list[Job]:
    """All jobs, oldest first."""
    with database.read() as connection:
        return [as_job(row) for row in connection.execute(select(*JOB_COLUMNS).join(db.exam).order_by(db.job.c.id))]


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
