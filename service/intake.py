"""Notes what arrives and decides when an exam can be analysed: evidence first, silence last."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.exc import OperationalError

from config.protocol_cards import ProtocolCard, asked_elements, load_cards
from config.settings import Settings
from dicom_io.headers import ImageFacts, facts_from_json, facts_to_json, read_facts
from dicom_io.raw_header import is_same_data_set
from dicom_io.receiver import BrokenObject, Ledger, ReceivedInstance, Recorded
from dicom_io.series import AssemblyState, ExamAssembly, assemble_exam
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from service import database as db
from service import jobs
from service.database import Database, move
from service.quarantine import has_open_case, hold_bytes, hold_exam, hold_instance, resolve_exam
from service.refusal_file import write_exam_refusal
from service.states import ExamState, InstanceState, JobState, QuarantineState

_log = logging.getLogger(__name__)

_INDEX_BATCH = 200
_CONFLICTS = (ReasonCode.IDENTITY_CONFLICT, ReasonCode.INSTANCE_CONFLICT)


# --- what arrives -----------------------------------------------------------------------------------------------------


def open_ledger(database: Database) -> Ledger:
    """The receiver's record, kept in the database."""
    return Ledger(partial(_record, database), partial(_record_broken, database))


def _record(database: Database, received: ReceivedInstance) -> Recorded:
    """Write an object down; durable on return. An exam that gets a new image is collecting again.

    Raises:
        OSError: the database cannot be written now.
    """
    table = db.instance
    try:
        with database.write() as connection:
            query = select(table.c.sha256, table.c.state, table.c.path).where(
                table.c.sop_uid == received.sop_instance_uid
            )
            known = connection.execute(query).all()
            if any(row.sha256 == received.sha256 for row in known):
                return Recorded.KNOWN
            used = [database.inbox_dir / row.path for row in known if row.state != InstanceState.SET_ASIDE]
            is_again = _is_again(database.inbox_dir / received.name, used)
            conflict = bool(used) and not is_again
            state = InstanceState.SET_ASIDE if is_again else InstanceState.RECEIVED
            result = connection.execute(
                insert(table).values(
                    sop_uid=received.sop_instance_uid,
                    sop_class_uid=received.sop_class_uid,
                    study_uid=received.study_uid,
                    series_uid=received.series_uid,
                    transfer_syntax=received.transfer_syntax,
                    path=received.name,
                    sha256=received.sha256,
                    size_bytes=received.size_bytes,
                    calling_ae=received.calling_ae,
                    received_at=received.received_at,
                    state=str(InstanceState.HELD if conflict else state),
                )
            )
            if is_again:
                return Recorded.KNOWN
            if conflict:
                assert result.inserted_primary_key is not None
                reason = Reason(
                    ReasonCode.INSTANCE_CONFLICT, f"{received.sop_instance_uid} came before with other content"
                )
                hold_instance(connection, result.inserted_primary_key[0], reason, received.received_at)
            _note_arrival(connection, received)
            return Recorded.CONFLICT if conflict else Recorded.NEW
    except OperationalError as error:
        raise OSError("the database cannot be written") from error


def _is_again(path: Path, known: Sequence[Path]) -> bool:
    """Whether a file holds a data set that is known in another encoding: peers choose the transfer syntax anew."""
    return any(other.is_file() and is_same_data_set(path.read_bytes(), other.read_bytes()) for other in known)


def _note_arrival(connection: Connection, received: ReceivedInstance) -> None:
    table = db.exam
    row = connection.execute(
        select(table.c.id, table.c.state).where(table.c.study_uid == received.study_uid)
    ).one_or_none()
    if row is None:
        connection.execute(
            insert(table).values(
                study_uid=received.study_uid,
                state=str(ExamState.COLLECTING),
                has_news=True,
                detail="",
                version=0,
                first_arrival_at=received.received_at,
                last_arrival_at=received.received_at,
            )
        )
        return
    if row.state != ExamState.COLLECTING:
        move(connection, table, row.id, ExamState.COLLECTING)
    connection.execute(
        update(table).where(table.c.id == row.id).values(has_news=True, last_arrival_at=received.received_at)
    )


def _record_broken(database: Database, broken: BrokenObject) -> None:
    try:
        with database.write() as connection:
            hold_bytes(
                connection,
                Reason(broken.code, broken.detail),
                broken.received_at,
                sop_uid=broken.sop_instance_uid,
                path=broken.name,
                sha256=broken.sha256,
                calling_ae=broken.calling_ae,
            )
    except OperationalError as error:
        raise OSError("the database cannot be written") from error


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


def decide(assembly: ExamAssembly, held: Sequence[Reason], *, silent: bool) -> Decision:
    """What to do with an exam.

    Args:
        assembly: what its readable images make up.
        held: reasons of its objects that are in quarantine.
        silent: nothing has arrived for ``completion.idle_s``.
    """
    conflicts = tuple(reason for reason in (*assembly.reasons, *held) if reason.code in _CONFLICTS)
    if conflicts:
        return Decision(Step.HOLD, conflicts)
    if assembly.state is AssemblyState.COMPLETE or (assembly.is_complete and silent):
        return Decision(Step.ENQUEUE)
    if not silent:
        return Decision(Step.WAIT)
    reasons = (*assembly.reasons, *held)
    return Decision(Step.MARK_INCOMPLETE if assembly.state is AssemblyState.INCOMPLETE else Step.REFUSE, reasons)


@dataclass(frozen=True, slots=True)
class _Exam:
    """An exam as one look finds it."""

    id: int
    study_uid: str
    facts: tuple[ImageFacts, ...]
    held: tuple[Reason, ...]


class Intake:
    """The sweep over what has arrived. ``assemble`` and ``read`` are replaceable for tests of time and faults."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        assemble: Callable[[Sequence[ImageFacts], Sequence[ProtocolCard]], ExamAssembly] = assemble_exam,
    ) -> None:
        self._database = database
        self._settings = settings
        self._assemble = assemble
        self._cards = load_cards(settings.protocols_dir)
        self._elements = asked_elements(self._cards)
        with database.write() as connection:  # a look that a crash interrupted is taken again
            table = db.exam
            connection.execute(update(table).where(table.c.state == str(ExamState.COLLECTING)).values(has_news=True))

    def sweep(self, now: datetime) -> None:
        """Read new headers, then judge every exam with news and every exam that has been silent long enough."""
        self._index()
        idle_since = now - timedelta(seconds=self._settings.completion.idle_s)
        table = db.exam
        query = (
            select(table.c.id, table.c.study_uid, table.c.last_arrival_at)
            .where(
                table.c.state == str(ExamState.COLLECTING), or_(table.c.has_news, table.c.last_arrival_at <= idle_since)
            )
            .order_by(table.c.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            self._judge(row.id, row.study_uid, now, silent=row.last_arrival_at <= idle_since)

    def _index(self) -> None:
        """Read the headers of new objects; what is no readable MR image goes to quarantine."""
        table = db.instance
        query = (
            select(table.c.id, table.c.path)
            .where(table.c.state == str(InstanceState.RECEIVED))
            .order_by(table.c.id)
            .limit(_INDEX_BATCH)
        )
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            outcomes = [(row.id, self._read(row.path)) for row in rows]
            with self._database.write() as connection:
                for instance_id, outcome in outcomes:
                    self._file(connection, instance_id, outcome)

    def _read(self, path: str) -> tuple[ImageFacts, ...] | Reason:
        try:
            return read_facts(self._database.inbox_dir / path, self._elements)
        except UnsuitableInput as refusal:
            return refusal.reason
        except OSError as error:
            return Reason(ReasonCode.INTERNAL, f"its file cannot be read: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - a bug met by one object must not keep all others waiting
            _log.error("header not read", extra={"error": type(error).__name__}, exc_info=True)
            return Reason(ReasonCode.INTERNAL, f"reading its header failed ({type(error).__name__}); see the log")

    def _file(self, connection: Connection, instance_id: int, outcome: tuple[ImageFacts, ...] | Reason) -> None:
        if not isinstance(outcome, Reason):
            kept = facts_to_json(outcome, self._elements)
            move(connection, db.instance, instance_id, InstanceState.INDEXED, facts=kept)
            return
        move(connection, db.instance, instance_id, InstanceState.HELD)
        hold_instance(connection, instance_id, outcome, _now_of(connection, instance_id))
        _log.warning("quarantined", extra={"instance": instance_id, "code": outcome.code, "detail": outcome.detail})

    def _judge(self, exam_id: int, study_uid: str, now: datetime, *, silent: bool) -> None:
        with self._database.write() as connection:
            if _has_unread(connection, study_uid):
                return  # it came after the headers were read; the news stay for the next sweep
            # News that come from here on are seen by the next sweep.
            connection.execute(update(db.exam).where(db.exam.c.id == exam_id).values(has_news=False))
        exam = self._look(exam_id, study_uid)
        try:
            if exam.held and not exam.facts:
                assembly = ExamAssembly(AssemblyState.REFUSED)  # why is told by what is held
            else:
                assembly = self._assemble(exam.facts, self._cards)
            decision = decide(assembly, exam.held, silent=silent)
        except Exception as error:  # noqa: BLE001 - a bug met by one exam must not keep all others waiting
            _log.error("exam not judged", extra={"study_uid": study_uid, "error": type(error).__name__}, exc_info=True)
            text = f"judging the exam failed ({type(error).__name__}); see the log"
            assembly = ExamAssembly(AssemblyState.REFUSED)
            decision = Decision(Step.HOLD, (Reason(ReasonCode.INTERNAL, text),))
        if decision.step is Step.WAIT:
            return
        with self._database.write() as connection:
            row = connection.execute(select(db.exam.c.state, db.exam.c.has_news).where(db.exam.c.id == exam_id)).one()
            if row.has_news or row.state != ExamState.COLLECTING:
                return  # something arrived meanwhile
            if decision.step is Step.ENQUEUE:
                self._enqueue(connection, exam, assembly, now)
            else:
                self._hold(connection, exam, decision, now)

    def _look(self, exam_id: int, study_uid: str) -> _Exam:
        """The exam's readable images, and the open reasons of the others."""
        table = db.instance
        indexed = select(table.c.facts, table.c.path).where(
            table.c.study_uid == study_uid, table.c.state == str(InstanceState.INDEXED)
        )
        held = (
            select(db.quarantine.c.code, db.quarantine.c.detail)
            .join(table, table.c.id == db.quarantine.c.instance_id)
            .where(table.c.study_uid == study_uid, db.quarantine.c.state == str(QuarantineState.HELD))
            .order_by(db.quarantine.c.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(indexed).all()
            reasons = tuple(dict.fromkeys(Reason(ReasonCode(row.code), row.detail) for row in connection.execute(held)))
        facts = tuple(one for row in rows for one in self._kept_facts(row.facts, row.path))
        return _Exam(exam_id, study_uid, facts, reasons)

    def _kept_facts(self, kept: str, path: str) -> tuple[ImageFacts, ...]:
        """The facts in the record; read anew where an earlier version, or one with other cards, has written them."""
        file = self._database.inbox_dir / path
        return facts_from_json(kept, file, self._elements) or read_facts(file, self._elements)

    def _enqueue(self, connection: Connection, exam: _Exam, assembly: ExamAssembly, now: datetime) -> None:
        """Queue the images that are measured, unless just these were queued before."""
        used = {one.sop_instance_uid for one in assembly.images}
        protocol = " + ".join(assembly.protocols)
        table = db.instance
        # With what is set aside of the same series: the scanner's announced count holds for all of it together.
        query = select(table.c.sop_uid, table.c.path, table.c.sha256, table.c.calling_ae).where(
            table.c.study_uid == exam.study_uid,
            table.c.state == str(InstanceState.INDEXED),
            table.c.series_uid.in_(assembly.series_uids),
        )
        rows = connection.execute(query.order_by(table.c.sop_uid)).all()
        digest = jobs.digest_of(row.sha256 for row in rows if row.sop_uid in used)
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
        request = jobs.JobRequest(exam.id, tuple(row.path for row in rows), digest, rows[0].calling_ae, protocol)
        job_id = jobs.enqueue(connection, request, now)
        move(connection, db.exam, exam.id, ExamState.QUEUED, detail="")
        _log.info(
            "exam complete",
            extra={"study_uid": exam.study_uid, "job": job_id, "protocol": protocol, "images": len(used)},
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
                "exam not analysed", extra={"study_uid": exam.study_uid, "code": reason.code, "detail": reason.detail}
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


def _has_unread(connection: Connection, study_uid: str) -> bool:
    table = db.instance
    unread = select(table.c.id).where(table.c.study_uid == study_uid, table.c.state == str(InstanceState.RECEIVED))
    return connection.execute(unread.limit(1)).first() is not None


def _now_of(connection: Connection, instance_id: int) -> datetime:
    """When the object came: the time of its case, so that a case tells when the fault was sent."""
    received: datetime = connection.execute(
        select(db.instance.c.received_at).where(db.instance.c.id == instance_id)
    ).scalar_one()
    return received
