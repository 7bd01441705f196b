"""Decides when an exam can be analysed: evidence first, silence last."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy import Connection, or_, select, update

from config.protocol_cards import asked_elements, load_cards
from config.settings import Settings
from dicom_io.headers import NO_PATIENT_KEY, ImageFacts
from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.series import AssemblyState, ExamAssembly, assemble_exam
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from service import database as db
from service import jobs
from service.corrections import Corrections, take_up_waiting
from service.database import Database, move
from service.evidence import Evidence, evidence_of
from service.exam_studies import Fragment, fragments_beside, join
from service.header_index import has_unread, index_new, kept_facts
from service.nameless import quoted_files, without_names
from service.quarantine import has_open_case, hold_exam, resolve_exam
from service.refusal_file import write_exam_refusal
from service.states import ExamState, InstanceState, JobState, QuarantineState

_log = logging.getLogger(__name__)

_CONFLICTS = (ReasonCode.IDENTITY_CONFLICT, ReasonCode.INSTANCE_CONFLICT)


# --- when an exam is complete -----------------------------------------------------------------------------------------


class Step(Enum):
    """What to do with an exam now."""

    WAIT = auto()
    ENQUEUE = auto()
    MARK_INCOMPLETE = auto()
    HOLD = auto()
    REFUSE = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """A step and its reasons."""

    step: Step
    reasons: tuple[Reason, ...] = ()


def decide(assembly: ExamAssembly, held: Sequence[Reason], *, silent: bool, awaited: Reason | None = None) -> Decision:
    """What to do with an exam.

    Args:
        assembly: what its readable images make up.
        held: reasons of its objects that are in quarantine.
        silent: nothing has arrived for ``completion.idle_s``, or, where anatomy is all there is, ``anatomy_idle_s``.
        awaited: its sender has listed objects that have not come; of which series is not known.
    """
    conflicts = tuple(reason for reason in (*assembly.reasons, *held) if reason.code in _CONFLICTS)
    if conflicts:
        return Decision(Step.HOLD, conflicts)
    if assembly.state is AssemblyState.COMPLETE or (assembly.is_complete and silent and awaited is None):
        return Decision(Step.ENQUEUE)
    if not silent:
        return Decision(Step.WAIT)
    if assembly.is_complete and awaited is not None:
        return Decision(Step.MARK_INCOMPLETE, (awaited, *held))
    reasons = (*assembly.reasons, *held)
    return Decision(Step.MARK_INCOMPLETE if assembly.state is AssemblyState.INCOMPLETE else Step.REFUSE, reasons)


@dataclass(frozen=True, slots=True)
class _Exam:
    """One exam, or several that are judged together, as one look finds them. The first one is to have the job."""

    ids: tuple[int, ...]
    study_uids: tuple[str, ...]
    facts: tuple[ImageFacts, ...]
    held: tuple[Reason, ...]
    evidence: Evidence

    @property
    def id(self) -> int:
        return self.ids[0]


class _Arrived(Exception):
    """Something arrived while the exam was judged; the next sweep sees it."""


class Intake:
    """The sweep over what has arrived. ``assemble`` is replaceable for tests of time and faults."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        assemble: Callable[..., ExamAssembly] = assemble_exam,
    ) -> None:
        self._database = database
        self._settings = settings
        self._assemble = assemble
        self._corrections = Corrections(database, settings)
        self._cards = load_cards(settings.protocols_dir)
        self._elements = asked_elements(self._cards)
        self._sweeping = threading.Lock()  # a source's answer is judged at once, in its own thread
        with database.write() as connection:  # a look that a crash interrupted is taken again
            table = db.exam
            connection.execute(update(table).where(table.c.state == str(ExamState.COLLECTING)).values(has_news=True))

    def sweep(self, now: datetime, hearing_since: datetime | None = None) -> None:
        """Read new headers, then judge every exam with news and every exam that has been silent long enough.

        ``hearing_since``: from when on all that was received is recorded and more can come; before that, silence says
        nothing of a sender.
        """
        with self._sweeping:
            self._sweep(now, hearing_since)

    def _sweep(self, now: datetime, hearing_since: datetime | None) -> None:
        index_new(self._database, self._elements)
        idle_since = now - timedelta(seconds=self._settings.completion.idle_s)
        table = db.exam
        query = (
            select(table.c.id, table.c.study_uid, table.c.last_arrival_at, table.c.has_news)
            .where(
                table.c.state == str(ExamState.COLLECTING), or_(table.c.has_news, table.c.last_arrival_at <= idle_since)
            )
            .order_by(table.c.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            silent_since = max(row.last_arrival_at, hearing_since or row.last_arrival_at)
            if row.has_news or silent_since <= idle_since:
                self._judge(row.id, row.study_uid, now, silent_since)
        self._corrections.sweep(now)

    def _judge(self, exam_id: int, study_uid: str, now: datetime, silent_since: datetime) -> None:
        completion = self._settings.completion
        idle_since = now - timedelta(seconds=completion.idle_s)
        silent = silent_since <= idle_since
        with self._database.write() as connection:
            if has_unread(connection, study_uid):
                return  # it came after the headers were read; the news stay for the next sweep
            # News that come from here on are seen by the next sweep.
            connection.execute(update(db.exam).where(db.exam.c.id == exam_id).values(has_news=False))
        exam = alone = _Exam((exam_id,), (study_uid,), (), (), Evidence({}))
        correction: str | None = None
        try:
            exam = alone = self._look((exam_id,), (study_uid,))
            assembly = self._assembly_of(exam)
            if not assembly.is_complete:
                exam, assembly, silent = self._with_fragments(exam, assembly, idle_since, silent)
            if assembly.is_complete and not assembly.relaxometry:
                silent = silent_since <= now - timedelta(seconds=completion.resolved_anatomy_idle_s)
            awaited = exam.evidence.awaited_reason(len({one.sop_instance_uid for one in exam.facts}))
            decision = decide(assembly, exam.held, silent=silent, awaited=awaited)
            if decision.step not in (Step.ENQUEUE, Step.WAIT):
                exam = alone  # the other parts are told the same when they are judged
            if decision.step is Step.ENQUEUE:
                correction = self._corrections.fitting(exam.study_uids, assembly)
        except _Arrived:
            return
        except UnsuitableInput as refusal:  # a file that an earlier version took, read anew
            assembly, awaited = ExamAssembly(AssemblyState.REFUSED), None
            decision = Decision(Step.HOLD, (refusal.reason,))
        except Exception as error:  # noqa: BLE001 - a bug met by one exam must not keep all others waiting
            _log.error("exam not judged", extra={"study_uid": study_uid, "error": type(error).__name__}, exc_info=True)
            text = f"judging the exam failed ({type(error).__name__}); see the log"
            assembly, awaited = ExamAssembly(AssemblyState.REFUSED), None
            decision = Decision(Step.HOLD, (Reason(ReasonCode.INTERNAL, text),))
        decision, awaiting = _nameless(decision, _awaiting(assembly, awaited), exam)
        with self._database.write() as connection:
            if _has_changed(connection, exam):
                return
            awaiting = awaiting if decision.step is Step.WAIT else None
            connection.execute(update(db.exam).where(db.exam.c.id.in_(exam.ids)).values(awaiting=awaiting))
            if decision.step is Step.WAIT:
                return
            if decision.step is Step.ENQUEUE:
                self._enqueue(connection, exam, assembly, now, correction)
            else:
                self._hold(connection, exam, decision, now)

    def _assembly_of(self, exam: _Exam) -> ExamAssembly:
        if exam.held and not exam.facts:
            return ExamAssembly(AssemblyState.REFUSED)  # why is told by what is held
        return self._assemble(
            exam.facts,
            self._cards,
            repeats=self._settings.completion.repeats,
            known_counts=exam.evidence.known_counts,
        )

    def _with_fragments(
        self, exam: _Exam, assembly: ExamAssembly, idle_since: datetime, silent: bool
    ) -> tuple[_Exam, ExamAssembly, bool]:
        """The exam together with other fragments of the subject's day, where they are whole together; else itself."""
        subject = _subject_of(exam.facts)
        if subject is None:
            return exam, assembly, silent
        with self._database.read() as connection:
            beside = fragments_beside(connection, exam.id, *subject)
            if any(has_unread(connection, one.study_uid) for one in beside):
                raise _Arrived
        places = {one.frame_of_reference_uid for one in exam.facts}
        parts = [one for one in beside if self._is_fragment(one, places)]
        for some in ([one for one in parts if not one.is_refused], parts):  # what was refused may spoil the whole
            if not some:
                continue
            joined = self._joined(exam, some)
            if joined is not None:
                is_over = silent and all(one.last_arrival_at <= idle_since for one in some)
                return *joined, is_over
        return exam, assembly, silent

    def _is_fragment(self, other: Fragment, places: set[str]) -> bool:
        """Whether an exam has images that are not whole, and lie in one of these frames of reference.

        Those of another session of the day would only spoil the whole. Of lost files it is told when it is judged.
        """
        try:
            look = self._look((other.exam_id,), (other.study_uid,))
        except (UnsuitableInput, OSError) as error:
            _log.warning("exam not read", extra={"study_uid": other.study_uid, "error": type(error).__name__})
            return False
        if places.isdisjoint(one.frame_of_reference_uid for one in look.facts):
            return False
        return not self._assembly_of(look).is_complete

    def _joined(self, exam: _Exam, parts: Sequence[Fragment]) -> tuple[_Exam, ExamAssembly] | None:
        """The exam with others, if they are whole together, and none without the others."""
        studies = dict(sorted([(exam.id, exam.study_uids[0]), *((one.exam_id, one.study_uid) for one in parts)]))
        union = self._look(tuple(studies), tuple(studies.values()))
        assembly = self._assembly_of(union)
        measured = {one.study_uid for one in assembly.images}
        if not assembly.is_complete or exam.study_uids[0] not in measured or len(measured) == 1:
            return None
        return replace(union, ids=tuple(one for one, uid in studies.items() if uid in measured)), assembly

    def _look(self, ids: tuple[int, ...], study_uids: tuple[str, ...]) -> _Exam:
        """The readable images of exams, the open reasons of the others, and what others say of them."""
        table = db.instance
        indexed = select(table.c.facts, table.c.path).where(
            table.c.study_uid.in_(study_uids), table.c.state == str(InstanceState.INDEXED)
        )
        held = (
            select(db.quarantine.c.code, db.quarantine.c.detail)
            .join(table, table.c.id == db.quarantine.c.instance_id)
            .where(
                table.c.study_uid.in_(study_uids),
                table.c.sop_class_uid.not_in(SEGMENTATION_CLASSES),  # they come after the exam and do not spoil it
                db.quarantine.c.state == str(QuarantineState.HELD),
            )
            .order_by(db.quarantine.c.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(indexed).all()
            reasons = tuple(dict.fromkeys(Reason(ReasonCode(row.code), row.detail) for row in connection.execute(held)))
            evidence = evidence_of(connection, study_uids)
        facts = tuple(one for row in rows for one in kept_facts(self._database, row.facts, row.path, self._elements))
        return _Exam(ids, study_uids, facts, reasons, evidence)

    def _enqueue(
        self, connection: Connection, exam: _Exam, assembly: ExamAssembly, now: datetime, correction: str | None
    ) -> None:
        """Queue the images that are measured, unless just these were queued before; with a person's discs, if any."""
        used = {one.sop_instance_uid for one in assembly.images}
        protocol = " + ".join(assembly.protocols)
        table = db.instance
        # With what is set aside of the same series: the scanner's announced count holds for all of it together.
        query = select(table.c.sop_uid, table.c.path, table.c.sha256, table.c.calling_ae, table.c.id).where(
            table.c.study_uid.in_(exam.study_uids),
            table.c.state == str(InstanceState.INDEXED),
            table.c.series_uid.in_(assembly.series_uids),
        )
        rows = connection.execute(query.order_by(table.c.sop_uid)).all()
        digest = jobs.digest_of(row.sha256 for row in rows if row.sop_uid in used)
        sender = min(rows, key=lambda row: row.id).calling_ae  # not the source that the last images were fetched from
        for other in exam.ids[1:]:
            resolve_exam(connection, other, f"measured with exam {exam.id}", now)
            join(connection, other, exam.id)
        if exam.ids[1:]:
            _collect(connection, exam.id)
        take_up_waiting(connection, exam.study_uids, now)
        latest = jobs.latest_job(connection, exam.id)
        is_known = latest is not None and latest.inputs_digest == digest and latest.state is not JobState.SUPERSEDED
        its_own = latest.finished_at if is_known and latest is not None else None
        resolve_exam(connection, exam.id, "the exam is complete", now, but_those_of=its_own)
        if is_known and latest is not None:
            if _state_after(latest) is not ExamState.REFUSED:
                move(connection, db.exam, exam.id, _state_after(latest), detail="")
                return
            if has_open_case(connection, exam.id):
                move(connection, db.exam, exam.id, ExamState.REFUSED)
                return
            # A person has released it: it is tried again.
        inputs = tuple(row.path for row in rows)
        request = jobs.JobRequest(exam.id, inputs, digest, sender, protocol, correction=correction)
        job_id = jobs.enqueue(connection, request, now)
        move(connection, db.exam, exam.id, ExamState.QUEUED, detail="")
        _log.info(
            "exam complete",
            extra={"study_uid": exam.study_uids[0], "job": job_id, "protocol": protocol, "images": len(used)},
        )

    def _hold(self, connection: Connection, exam: _Exam, decision: Decision, now: datetime) -> None:
        """Mark the exam, open its cases, write its refusal and say so in the log."""
        states = {Step.MARK_INCOMPLETE: ExamState.INCOMPLETE, Step.HOLD: ExamState.HELD, Step.REFUSE: ExamState.REFUSED}
        resolve_exam(connection, exam.id, "judged again", now)
        if any(reason.code in _CONFLICTS for reason in decision.reasons):  # nothing may go out before it is settled
            jobs.supersede(connection, exam.id, (JobState.QUEUED, JobState.RUNNING))
        for reason in decision.reasons:
            if reason not in exam.held:  # those have a case of their own
                hold_exam(connection, exam.id, reason, now)
            _log.warning(
                "exam not analysed",
                extra={"study_uid": exam.study_uids[0], "code": reason.code, "detail": reason.detail},
            )
        detail = "; ".join(f"{reason.code}: {reason.detail}" for reason in decision.reasons)
        move(connection, db.exam, exam.id, states[decision.step], detail=detail)
        latest = jobs.latest_job(connection, exam.id)
        if latest is None or latest.state is not JobState.DONE:  # an earlier result stays the newest
            folder = self._settings.storage_dir / jobs.exam_folder(exam.id)
            write_exam_refusal(folder, decision.reasons, sorted({one.series_uid for one in exam.facts}))


def _state_after(latest: jobs.LatestJob) -> ExamState:
    if latest.state in (JobState.QUEUED, JobState.RUNNING):
        return ExamState.QUEUED
    if latest.state is JobState.FAILED:
        return ExamState.FAILED
    return ExamState.REFUSED if latest.verdict == "refused" else ExamState.ANALYSED


def _collect(connection: Connection, exam_id: int) -> None:
    """An incomplete exam that other studies make whole goes on from where it stopped."""
    state = connection.execute(select(db.exam.c.state).where(db.exam.c.id == exam_id)).scalar_one()
    if state != ExamState.COLLECTING:
        move(connection, db.exam, exam_id, ExamState.COLLECTING)


def _awaiting(assembly: ExamAssembly, awaited: Reason | None) -> str:
    """What a waiting exam waits for, in words."""
    if assembly.is_complete:
        return awaited.detail if awaited is not None else "looks whole; nothing tells yet that no more will come"
    return "; ".join(reason.detail for reason in assembly.reasons)


def _nameless(decision: Decision, awaiting: str, exam: _Exam) -> tuple[Decision, str | None]:
    """Decision and waiting as they may be told."""
    details = (awaiting, *(reason.detail for reason in decision.reasons))
    told_awaiting, *told = without_names(details, quoted_files(details, exam.facts))
    reasons = (replace(one, detail=detail) for one, detail in zip(decision.reasons, told, strict=True))
    return replace(decision, reasons=tuple(reasons)), told_awaiting


def _has_changed(connection: Connection, exam: _Exam) -> bool:
    """Whether something arrived meanwhile, or the exam is no longer to be judged."""
    table = db.exam
    rows = connection.execute(select(table.c.id, table.c.state, table.c.has_news).where(table.c.id.in_(exam.ids))).all()
    parts = (ExamState.COLLECTING, ExamState.INCOMPLETE, ExamState.REFUSED)
    waiting = parts if len(exam.ids) > 1 else (ExamState.COLLECTING,)
    is_unread = any(has_unread(connection, uid) for uid in exam.study_uids)
    return is_unread or any(row.state not in waiting for row in rows) or (len(rows) == 1 and rows[0].has_news)


def _subject_of(facts: Sequence[ImageFacts]) -> tuple[str, str] | None:
    """Whose images they are, and of which day; None where they do not say, or not with one voice."""
    found = {(one.patient_key, one.study_date) for one in facts}
    patient_key, study_date = found.pop() if len(found) == 1 else ("", "")
    return (patient_key, study_date) if study_date and patient_key not in ("", NO_PATIENT_KEY) else None
