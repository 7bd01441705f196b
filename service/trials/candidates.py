"""The exams of one subject as the record has them: what they say, what people said of them, and how they were measured.

Nothing is decided here; :mod:`service.trials.decisions` does that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from service import database as node
from service import trial_tables as db
from service.states import ExamState
from service.trials.exam_facts import ExamFacts
from service.trials.words import Words, as_words


@dataclass(frozen=True, slots=True)
class Result:
    """What counts of a finished analysis. ``discs``: level name -> shape, from below."""

    job_id: int
    version: int
    verdict: str
    finished_at: datetime
    protocol: str
    reasons: tuple[tuple[str, str], ...]  # code, detail
    versions: Mapping[str, str]
    discs: Mapping[str, Mapping[str, Any]]
    acquisition: Mapping[str, Any] | None

    @property
    def codes(self) -> frozenset[str]:
        """Its reason codes."""
        return frozenset(code for code, _ in self.reasons)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An exam that was taken for a subject. ``results``: of its finished analyses, newest first.

    ``claimed_by``, ``visit``, ``code``, ``detail``: as of :class:`service.trials.matching.Claim`.
    """

    exam_id: int
    study_uid: str
    state: ExamState
    detail: str
    claimed_by: str
    visit: str
    claim_code: str
    claim_detail: str
    facts: ExamFacts
    words: Words
    results: tuple[Result, ...]

    @property
    def is_anchored(self) -> bool:
        """Whether something other than the PatientID alone says whose it is."""
        return self.claimed_by not in ("", "date") and not self.claim_code and not self.words.set_aside


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of who a subject is: by the subjects' table, else by the scan that others are held against."""

    patient_digest: str | None = None
    birth_year: int | None = None
    sex: str = ""
    site_id: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject's own row."""

    id: int
    trial_id: int
    subject_id: str
    site_id: str
    is_active: bool
    withdrawn_on: date | None
    day_zero: date | None  # given by a person; None: it follows from the baseline
    lowest_disc: str
    levels: tuple[str, ...]
    listed: Identity
    without_value: frozenset[str] = frozenset()  # discs that are not evaluable from some visit on: they may be missing


def facts_of_row(row: Row[Any]) -> ExamFacts:
    """What a row of ``trial_exam`` keeps of an exam's headers."""
    return ExamFacts(
        protocol_id=row.protocol_id,
        site_id=row.site_label,
        subject_id=row.subject_label,
        time_point_id=row.time_point,
        patient_digest=row.patient_digest,
        birth_year=row.birth_year,
        sex=row.sex,
        study_date=row.study_date,
        acquired_at=None if row.acquired_at is None else datetime.fromisoformat(row.acquired_at),
        has_time=row.has_time,
        is_phantom=row.is_phantom,
        disagreement=row.disagreement,
    )


def facts_as_columns(facts: ExamFacts) -> dict[str, Any]:
    """The columns of ``trial_exam`` for an exam's headers."""
    return {
        "protocol_id": facts.protocol_id,
        "site_label": facts.site_id,
        "subject_label": facts.subject_id,
        "time_point": facts.time_point_id,
        "patient_digest": facts.patient_digest,
        "birth_year": facts.birth_year,
        "sex": facts.sex,
        "study_date": facts.study_date,
        "acquired_at": None if facts.acquired_at is None else facts.acquired_at.isoformat(),
        "has_time": facts.has_time,
        "is_phantom": facts.is_phantom,
        "disagreement": facts.disagreement,
    }


def discs_without_value(connection: Connection, subject_id: int) -> frozenset[str]:
    """The discs that a person has said are not evaluable from some visit on."""
    table = db.non_evaluable
    query = select(table.c.level).where(table.c.subject_id == subject_id, table.c.withdrawn_at.is_(None))
    return frozenset(connection.execute(query).scalars())


def subject_of_row(row: Row[Any], *, day_zero_is_given: bool, without_value: frozenset[str] = frozenset()) -> Subject:
    """A subject's row. ``day_zero_is_given``: by the subjects' table, as the plan has it."""
    listed = row.imported or {}
    return Subject(
        id=row.id,
        trial_id=row.trial_id,
        subject_id=row.subject_id,
        site_id=row.site_id,
        is_active=row.state == "active",
        day_zero=row.day_zero if day_zero_is_given else None,
        lowest_disc=row.lowest_disc or "",
        levels=tuple(row.levels or ()),
        listed=Identity(
            listed.get("patient_digest"),
            listed.get("birth_year"),
            listed.get("sex") or "",
            row.site_id if row.is_listed else "",
        ),
        withdrawn_on=row.withdrawn_on,
        without_value=without_value,
    )


def read_candidates(connection: Connection, subject_id: int) -> tuple[Candidate, ...]:
    """The exams that were taken for a subject, in the order of their numbers."""
    table, exam = db.trial_exam, node.exam
    query = (
        select(table, exam.c.study_uid, exam.c.state, exam.c.detail.label("exam_detail"))
        .join(exam, exam.c.id == table.c.exam_id)
        .where(table.c.subject_id == subject_id)
        .order_by(table.c.exam_id)
    )
    rows = connection.execute(query).all()
    results = read_results(connection, [row.exam_id for row in rows])
    return tuple(
        Candidate(
            exam_id=row.exam_id,
            study_uid=row.study_uid,
            state=ExamState(row.state),
            detail=row.exam_detail or "",
            claimed_by=row.claimed_by or "",
            visit=row.visit_label or "",
            claim_code=row.code or "",
            claim_detail=row.detail or "",
            facts=facts_of_row(row),
            words=as_words(row),
            results=results.get(row.exam_id, ()),
        )
        for row in rows
    )


def read_results(connection: Connection, exam_ids: Sequence[int]) -> dict[int, tuple[Result, ...]]:
    """Exam -> its finished analyses, newest first."""
    table = db.trial_result
    query = select(table).where(table.c.exam_id.in_(exam_ids)).order_by(table.c.exam_id, table.c.version.desc())
    found: dict[int, tuple[Result, ...]] = {}
    for row in connection.execute(query):
        one = Result(
            job_id=row.job_id,
            version=row.version,
            verdict=row.verdict,
            finished_at=row.finished_at,
            protocol=row.protocol,
            reasons=tuple((entry["code"], entry["detail"]) for entry in row.reasons),
            versions=row.versions,
            discs=row.discs,
            acquisition=row.acquisition,
        )
        found[row.exam_id] = (*found.get(row.exam_id, ()), one)
    return found
