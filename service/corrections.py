"""Segmentations that come back: matched to their exam, checked, and measured as its next version; or held, and why.

A segmentation belongs to the exam whose study it is in. It waits while that exam is collecting; then it is one of:

* a correction: its discs are measured in place of the networks', with the images of the newest analysis. Of several the
  last one counts; each is a version. When other images come, it is used on with them if it fits them.
* nothing new: the node's own object, or the discs of the newest result under another UID. Set aside, so that an archive
  that sends results on starts no loop. (An older result's discs, saved as a new object, undo a correction.)
* held, and the exam goes on as if it had not come:

  ========================  ==========================================================================================
  SERIES_INCOMPLETE         no image of its study is here, or the exam is not whole; taken up when it is
  PROTOCOL_UNKNOWN          the images of its study cannot be measured; taken up when they can
  IDENTITY_CONFLICT         another patient, or it refers to images that are not of its study
  GEOMETRY_INCONSISTENT     another frame of reference, or voxels that are not those of the images
  LEVELS_AMBIGUOUS          a segment is no disc of known name, two are one disc, or they do not lie in order
  SEGMENTATION_UNCERTAIN    it is empty
  UNSUPPORTED_OBJECT        fractional, or segments overlap
  UNREADABLE                broken or cut short
  INSTANCE_CONFLICT         its UID is that of another segmentation, also of one that the node made
  REVIEW_REQUIRED           it fits, but its sender is none of ``corrections.accepted_from``; measured when released
  ========================  ==========================================================================================
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, select

from config.protocol_cards import asked_elements, load_cards
from config.settings import ObjectKind, Settings
from dicom_io.headers import ImageFacts
from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.series import ExamAssembly, assemble_exam
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import GivenMask
from service import database as db
from service import jobs
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.exam_groups import facts_of, studies_of
from service.own_results import own_objects
from service.quarantine import hold_instance, resolve_exam, was_released
from service.states import ExamState, InstanceState, JobState, QuarantineState

_log = logging.getLogger(__name__)

#: Why a segmentation is held whose exam was not there: when the exam is, it is judged again.
_EXAM_AWAITED = (ReasonCode.SERIES_INCOMPLETE, ReasonCode.PROTOCOL_UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Exam:
    """The exam that a segmentation is in the study of, and its newest analysis."""

    id: int
    state: ExamState
    version: int
    job: jobs.Job | None
    digest: str


@dataclass(frozen=True, slots=True)
class _Ignored:
    """It changes nothing; the text says why."""

    why: str


class Corrections:
    """The sweep over segmentations that came back; part of the intake, after the exams have been judged."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._cards = load_cards(settings.protocols_dir)
        self._elements = asked_elements(self._cards)

    def sweep(self, now: datetime) -> None:
        """Judge every segmentation whose exam is settled, oldest first: of several, the last one counts."""
        table = db.instance
        query = select(table).where(table.c.state == str(InstanceState.PENDING)).order_by(table.c.id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            self._judge(row, now)

    def fitting(self, study_uids: Sequence[str], assembly: ExamAssembly) -> str | None:
        """The newest correction of an exam whose images have changed, if it fits them still; else it is held."""
        table = db.instance
        newest = (
            select(table)
            .where(table.c.study_uid.in_(study_uids), table.c.state == str(InstanceState.CORRECTION))
            .order_by(table.c.id.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(newest).one_or_none()
        if row is None:
            return None
        try:
            self._read(self._database.inbox_dir / row.path, assembly)
        except UnsuitableInput as refusal:
            self._hold(row, refusal.reason)
            return None
        return str(row.path)

    def _judge(self, row: Row[Any], now: datetime) -> None:
        with self._database.read() as connection:
            exam = _exam_of(connection, row.study_uid)
        is_silent = row.received_at <= now - timedelta(seconds=self._settings.completion.idle_s)
        try:
            if exam is None or exam.job is None or exam.state in (ExamState.INCOMPLETE, ExamState.HELD):
                if is_silent and (exam is None or exam.state is not ExamState.COLLECTING):
                    self._hold(row, _awaited(exam))
                return
            if exam.state is ExamState.COLLECTING:
                return
            ignored = self._match(row, exam, exam.job)
        except UnsuitableInput as refusal:
            self._hold(row, refusal.reason)
        except Exception as error:  # noqa: BLE001 - a bug met by one object must not keep all others waiting
            _log.error("segmentation not judged", extra={"error": type(error).__name__}, exc_info=True)
            text = f"reading the segmentation failed ({type(error).__name__}); see the log"
            self._hold(row, Reason(ReasonCode.INTERNAL, text))
        else:
            if ignored is None:
                self._enqueue(row, exam, exam.job, now)
            else:
                self._ignore(row, ignored)

    def _match(self, row: Row[Any], exam: _Exam, job: jobs.Job) -> _Ignored | None:
        """None if its discs are to be measured.

        Raises:
            UnsuitableInput: it does not fit its exam.
        """
        assembly = assemble_exam(self._facts(job), self._cards, repeats=self._settings.completion.repeats)
        own = own_objects(self._settings.storage_dir / jobs.exam_folder(exam.id))
        known_series = {one.series_uid for one in own} | self._series(exam.id, row.id)
        given = self._read(self._database.inbox_dir / row.path, assembly, known_series)
        for one in own:
            if one.sop_instance_uid == row.sop_uid and not one.path.is_file():
                return _Ignored("it is the node's own, whose file retention has deleted")
            if one.sop_instance_uid == row.sop_uid:
                if self._is_same(given, one.path, assembly):
                    return _Ignored("it is the node's own")
                text = "it has the UID of a segmentation of the node, but other discs; what is changed needs a new UID"
                raise UnsuitableInput(ReasonCode.INSTANCE_CONFLICT, text)
        current = self._current(job, [one.path for one in own if one.kind is ObjectKind.SEG])
        if current is not None and self._is_same(given, current, assembly):
            return _Ignored("its discs are those of the newest result")
        self._check_sender(row)
        return None

    def _check_sender(self, row: Row[Any]) -> None:
        """What others than the accepted ones send is measured when a person has released it."""
        if self._settings.corrections.accepts(row.calling_ae):
            return
        with self._database.read() as connection:
            if was_released(connection, row.id, ReasonCode.REVIEW_REQUIRED):
                return
        text = (
            "corrections from its sender are measured only when a person has released them (corrections.accepted_from)"
        )
        raise UnsuitableInput(ReasonCode.REVIEW_REQUIRED, text)

    def _current(self, job: jobs.Job, results: Sequence[Path]) -> Path | None:
        """The segmentation that the newest analysis measures, or has made; None while that is not known."""
        if job.correction is not None:
            return self._database.inbox_dir / job.correction
        made = [path for path in results if path.parent.parent.name == job.result_folder.name and path.is_file()]
        return made[0] if made else None

    def _facts(self, job: jobs.Job) -> tuple[ImageFacts, ...]:
        """Of the images that the job measures."""
        table = db.instance
        query = select(table).where(table.c.path.in_(job.inputs), table.c.state == str(InstanceState.INDEXED))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return tuple(one for row in rows for one in facts_of(row, self._database, self._elements))

    def _series(self, exam_id: int, but_instance: int) -> set[str]:
        """The series of all other objects that came for the exam."""
        table = db.instance
        query = (
            select(table.c.series_uid)
            .distinct()
            .where(table.c.study_uid.in_(studies_of(exam_id)), table.c.id != but_instance)
        )
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def _read(self, path: Path, assembly: ExamAssembly, known_series: Collection[str] = ()) -> GivenMask:
        from dicom_io.corrected_segmentation import exam_grid, read_corrected  # highdicom is loaded when it is needed

        if not assembly.is_complete:
            text = (
                f"the images of its exam are no longer whole: {assembly.reasons[0].detail if assembly.reasons else ''}"
            )
            raise UnsuitableInput(ReasonCode.SERIES_INCOMPLETE, text)
        return read_corrected(path, exam_grid(assembly), known_series)

    def _is_same(self, given: GivenMask, other: Path, assembly: ExamAssembly) -> bool:
        """Whether another segmentation holds the same discs; one that cannot be read does not."""
        try:
            return bool(np.array_equal(given.levels, self._read(other, assembly).levels))
        except UnsuitableInput:
            return False

    def _enqueue(self, row: Row[Any], exam: _Exam, job: jobs.Job, now: datetime) -> None:
        request = jobs.JobRequest(
            exam.id, job.inputs, exam.digest, job.calling_ae, job.protocol, job.lowest_disc, row.path
        )
        with self._database.write() as connection:
            if _exam_of(connection, row.study_uid) != exam:
                return  # it has moved on; the next sweep sees it
            job_id = jobs.enqueue(connection, request, now)
            resolve_exam(connection, exam.id, "a person has drawn the discs", now)
            move(connection, db.instance, row.id, InstanceState.CORRECTION)
            if exam.state is not ExamState.QUEUED:
                move(connection, db.exam, exam.id, ExamState.QUEUED, detail="")
            what, of_class = f"job {job_id}", ((row.sop_class_uid, 1),)
            event = AuditEvent(AuditKind.CORRECTED, now, by=row.calling_ae, studies=(job.study_uid,), detail=what)
            note(connection, replace(event, sop_classes=of_class))
        _log.info("correction accepted", extra={"study_uid": job.study_uid, "job": job_id, "sop_uid": row.sop_uid})

    def _ignore(self, row: Row[Any], ignored: _Ignored) -> None:
        with self._database.write() as connection:
            move(connection, db.instance, row.id, InstanceState.SET_ASIDE)
        _log.info("segmentation ignored", extra={"sop_uid": row.sop_uid, "why": ignored.why})

    def _hold(self, row: Row[Any], reason: Reason) -> None:
        with self._database.write() as connection:
            move(connection, db.instance, row.id, InstanceState.HELD)
            hold_instance(connection, row.id, reason, row.received_at)
        _log.warning("quarantined", extra={"instance": row.id, "code": reason.code, "detail": reason.detail})


def take_up_waiting(connection: Connection, study_uids: Sequence[str], now: datetime) -> None:
    """Judge segmentations anew that were held for want of their exam, inside the caller's transaction."""
    table, instance = db.quarantine, db.instance
    query = (
        select(table.c.id, table.c.instance_id)
        .join(instance, instance.c.id == table.c.instance_id)
        .where(
            instance.c.study_uid.in_(study_uids),
            instance.c.sop_class_uid.in_(SEGMENTATION_CLASSES),
            table.c.state == str(QuarantineState.HELD),
            table.c.code.in_([str(one) for one in _EXAM_AWAITED]),
        )
    )
    for row in connection.execute(query).all():
        done = {"resolved_reason": "the exam is complete", "resolved_at": now}
        move(connection, table, row.id, QuarantineState.RESOLVED, **done)
        move(connection, instance, row.instance_id, InstanceState.RECEIVED)


def _awaited(exam: _Exam | None) -> Reason:
    if exam is None:
        text = "no image of its study is here, so there is no exam that it could correct"
        return Reason(ReasonCode.SERIES_INCOMPLETE, text)
    if exam.state in (ExamState.INCOMPLETE, ExamState.HELD):
        return Reason(ReasonCode.SERIES_INCOMPLETE, f"the exam of its study is {exam.state}, and not yet measured")
    return Reason(ReasonCode.PROTOCOL_UNKNOWN, "its study holds no images that can be measured")


def _exam_of(connection: Connection, study_uid: str) -> _Exam | None:
    table = db.exam
    found = connection.execute(
        select(table.c.id, table.c.joined_to).where(table.c.study_uid == study_uid)
    ).one_or_none()
    if found is None:
        return None
    exam_id = found.joined_to or found.id
    row = connection.execute(select(table.c.state, table.c.version).where(table.c.id == exam_id)).one()
    latest = jobs.latest_job(connection, exam_id)
    usable = latest is not None and latest.state is not JobState.SUPERSEDED
    job = jobs.read_job(connection, latest.id) if latest is not None and usable else None
    return _Exam(exam_id, ExamState(row.state), row.version, job, "" if latest is None else latest.inputs_digest)
