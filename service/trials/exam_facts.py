"""What an exam says of trials: read from a header of each of its series, and kept without identity."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import Connection, select

from config.trial_plans import TrialPlan
from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.trial_header import TrialHeader, read_trial_header
from service import database as db
from service.database import Database
from service.exam_groups import studies_of
from service.job_records import PHANTOM
from service.states import InstanceState, JobState
from service.trials.identity import patient_digest

_MOST_SERIES = 40  # of one exam that are looked at


@dataclass(frozen=True, slots=True)
class ExamFacts:
    """What an exam's headers say; "" or None where they are silent. No identity: ``patient_digest`` is keyed.

    ``acquired_at``: of its first image; aware where the header tells the offset from UTC, else on the scanner's clock.
    ``disagreement``: in what its series contradict each other, in words.
    """

    protocol_id: str = ""
    site_id: str = ""
    subject_id: str = ""
    time_point_id: str = ""
    patient_digest: str | None = None
    birth_year: int | None = None
    sex: str = ""
    study_date: date | None = None
    acquired_at: datetime | None = None
    has_time: bool = False
    is_phantom: bool = False
    disagreement: str = ""


def read_exam_facts(database: Database, exam_id: int, plans: Sequence[TrialPlan]) -> ExamFacts | None:
    """The facts of an exam from its files; None where none of them can be read.

    ``plans``: of which any tells what the PatientID of a phantom is like.
    """
    with database.read() as connection:
        paths = _one_of_each_series(connection, exam_id)
        is_phantom = _was_phantom(connection, exam_id)
    headers = [header for path in paths if (header := read_trial_header(database.inbox_dir / path)) is not None]
    if not headers:
        return None
    patterns = [re.compile(plan.phantom.patient_id_pattern) for plan in plans]
    headers = [replace(one, subject_id=_as_kept(one.subject_id, plans)) for one in headers]
    facts = _together(headers, database.storage_dir, patterns)
    return replace(facts, is_phantom=True) if is_phantom else facts


def _was_phantom(connection: Connection, exam_id: int) -> bool:
    """Whether its newest analysis found a QC phantom in its picture."""
    job = db.job
    newest = select(job.c.kind).where(job.c.exam_id == exam_id, job.c.state == str(JobState.DONE))
    return connection.execute(newest.order_by(job.c.version.desc()).limit(1)).scalar() == PHANTOM


def _as_kept(subject_id: str, plans: Sequence[TrialPlan]) -> str:
    """A subject's ID; of one that no plan allows, which may be anyone's name, what tells it from others."""
    if not subject_id or any(plan.is_subject(subject_id) for plan in plans):
        return subject_id
    return f"?{hashlib.sha256(subject_id.encode()).hexdigest()[:16]}"


def _one_of_each_series(connection: Connection, exam_id: int) -> list[str]:
    """One image of each series that is measured; of an exam without an analysis, of each that came."""
    job, table = db.job, db.instance
    newest = select(job.c.inputs).where(job.c.exam_id == exam_id).order_by(job.c.version.desc()).limit(1)
    measured = set(connection.execute(newest).scalar() or ())
    query = select(table.c.series_uid, table.c.path).where(
        table.c.study_uid.in_(studies_of(exam_id)),
        table.c.state.in_([str(InstanceState.INDEXED), str(InstanceState.HELD)]),
        table.c.sop_class_uid.not_in(SEGMENTATION_CLASSES),
    )
    first: dict[str, str] = {}
    for row in connection.execute(query.order_by(table.c.series_uid, table.c.sop_uid)):
        if not measured or row.path in measured:
            first.setdefault(row.series_uid, row.path)
    return list(first.values())[:_MOST_SERIES]


def _together(headers: Sequence[TrialHeader], storage_dir: Path, phantoms: Sequence["re.Pattern[str]"]) -> ExamFacts:
    def only(name: str, words: str) -> str:
        found = sorted({getattr(one, name) for one in headers} - {""})
        if len(found) > 1:
            doubts.append(f"{words} {' and '.join(found)}")
        return found[0] if found else ""

    doubts: list[str] = []
    protocol_id = only("protocol_id", "its series name the trials")
    site_id = only("site_id", "its series name the sites")
    subject_id = only("subject_id", "its series name the subjects")
    time_point_id = only("time_point_id", "its series name the visits")
    digests = {patient_digest(storage_dir, one.patient_id) for one in headers}
    if len(digests) > 1:
        doubts.append("its series have different PatientIDs")
    births = {one.birth_year for one in headers} - {None}
    moments = [one for one in headers if one.acquired_at is not None]
    first = min(moments, key=_wall_clock, default=None)
    return ExamFacts(
        protocol_id=protocol_id,
        site_id=site_id,
        subject_id=subject_id,
        time_point_id=time_point_id,
        patient_digest=sorted(digests, key=str)[0] if len(digests) == 1 else None,
        birth_year=births.pop() if len(births) == 1 else None,
        sex=only("sex", "its series name the sexes"),
        study_date=min((one.study_date for one in headers if one.study_date is not None), default=None),
        acquired_at=None if first is None else first.acquired_at,
        has_time=first is not None and first.has_time,
        is_phantom=any(pattern.search(one.patient_id) for pattern in phantoms for one in headers),
        disagreement="; ".join(doubts),
    )


def _wall_clock(header: TrialHeader) -> datetime:
    assert header.acquired_at is not None
    return header.acquired_at.replace(tzinfo=None)
