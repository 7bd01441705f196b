"""A worker process: claims a job, runs the analysis, publishes its results. It may be killed at any moment."""

import errno
import importlib
import inspect
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from config.settings import ObjectKind, Settings
from processing.refusal import Reason, UnsuitableInput
from processing.results import Level, Verdict
from service import jobs
from service.children import receive_message
from service.database import Database, open_database
from service.durable import flush, flush_tree
from service.failure_text import describe_failure
from service.holds import Hold, awaits_visit, holds_for, release_for
from service.job_records import PHANTOM
from service.jobs import Job, LeaseLost
from service.logs import log_to_stderr
from service.outbox import Parcel, destinations_for
from service.progress import Progress, log_progress
from service.refusal_file import remove_exam_refusal
from service.result_versions import Edition, mark_version
from service.trials.deidentified import make_next_copies
from service.trials.matching import claiming_plan, unread_plan

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

POLL_S = 0.5
PATIENCE_S, AGAIN_S = 1800.0, 2.0  # for so long, and so often, an outcome is tried to be written down


class ObjectFile(Protocol):
    """A result object on disk; a relative path is relative to the folder the analysis was given."""

    @property
    def kind(self) -> str:
        """A value of :class:`config.settings.ObjectKind`."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def sop_instance_uid(self) -> str:
        """Its UID."""

    def goes_with(self, kinds: Collection[ObjectKind], /) -> bool:
        """Whether a destination that receives these kinds of objects receives this one."""


class ResultSummary(Protocol):
    """What an analysis says of itself."""

    @property
    def status(self) -> str:
        """A value of :class:`processing.results.Verdict`."""

    @property
    def reasons(self) -> Sequence[Reason]:
        """Why it is not plainly ok."""

    @property
    def objects(self) -> Sequence[ObjectFile]:
        """The DICOM objects made."""


class Analysis(Protocol):
    """(files, folder that appears whole, settings, production time) -> summary.

    ``lowest_disc`` is given only where a person has named the lowest disc in view, ``mask`` only where a person has
    sent discs: a DICOM Segmentation; ``edition`` only where there is an earlier result; ``progress`` only to a function
    that has such a parameter.
    """

    def __call__(
        self,
        paths: Sequence[Path],
        out: Path,
        settings: Settings,
        produced_at: datetime,
        *,
        lowest_disc: Level = ...,
        mask: Path = ...,
        edition: Edition = ...,
        progress: Progress = ...,
    ) -> ResultSummary:
        """Analyse one exam."""


def load_analysis(import_path: str) -> Analysis:
    """The function named ``package.module:function``."""
    module, _, function = import_path.partition(":")
    loaded: Analysis = getattr(importlib.import_module(module), function)
    return loaded


def prepare(import_path: str, settings: Settings) -> None:
    """Open what the analysis needs before the first exam comes: its module may have a ``warm_up(settings)``.

    A worker that cannot (weights missing, say) ends here: its jobs stay queued, and the node is not ready.
    """
    module = importlib.import_module(import_path.partition(":")[0])
    warm_up: Callable[[Settings], None] | None = getattr(module, "warm_up", None)
    if warm_up is not None:
        warm_up(settings)


def run_worker(database: Database, settings: Settings, name: str, analysis: Analysis) -> None:
    """Work until killed."""
    while True:
        try:
            job = jobs.claim(database, name, datetime.now(UTC), settings.jobs.lease_s)
            has_copied = job is None and make_next_copies(database, settings, datetime.now(UTC))
        except OperationalError as error:  # locked, or its disk is full, for now
            _log.warning("no job can be taken now", extra={"error": type(error).__name__})
            job, has_copied = None, False
        if job is not None:
            run_job(database, settings, job, analysis)
        elif not has_copied:
            time.sleep(POLL_S)


def run_job(database: Database, settings: Settings, job: Job, analysis: Analysis) -> None:
    """One attempt at one job; its outcome is in the database when this returns, and nothing else of it is left."""
    try:
        _attempt(database, settings, job, analysis)
    finally:
        folder = _attempts_folder(settings, job)
        shutil.rmtree(folder / str(job.attempts), ignore_errors=True)
        with suppress(OSError):  # another attempt works there
            folder.rmdir()


def _attempt(database: Database, settings: Settings, job: Job, analysis: Analysis) -> None:
    _log.info(
        "job started",
        extra={"job": job.id, "study_uid": job.study_uid, "attempt": job.attempts, "images": len(job.inputs)},
    )
    started_s = time.monotonic()
    try:
        with _leased(database, job, settings.jobs.lease_s):
            outcome = _analyse(database, settings, job, analysis)
            _note_stage(database, job, "publish")
            flush_tree(outcome.out)
            place = partial(publish, outcome.out, settings.storage_dir / job.result_folder)
            _patiently(job, lambda: _finish(database, job, outcome, place))
    except LeaseLost:
        _log.warning("job is no longer this worker's", extra={"job": job.id})
        return
    except Exception as error:  # noqa: BLE001 - the worker loop: a bug in one analysis must not stop the others
        text = describe_failure(error)
        try:
            limits = settings.jobs
            # A full disk is not the job's fault: it waits much longer for room before a person is asked.
            is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            most = limits.attempts + (jobs.MORE_FOR_NODES if is_full else 0)
            state = _patiently(
                job, lambda: jobs.fail(database, job, text, datetime.now(UTC), most, retry_s=limits.retry_s)
            )
        except LeaseLost:
            state = "no longer this worker's"  # type: ignore[assignment]
        # `discnode jobs show` has the traceback.
        _log.error(
            "job attempt failed",
            extra={"job": job.id, "error": type(error).__name__, "attempt": job.attempts, "state": state},
        )
        return
    codes = ",".join(reason.code for reason in outcome.reasons)
    seconds = round(time.monotonic() - started_s, 1)
    _log.info(
        "job finished",
        extra={
            "job": job.id,
            "verdict": outcome.verdict,
            "codes": codes,
            "objects": len(outcome.parcels),
            "wall_s": seconds,
        },
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an attempt found. ``out``: the folder with the results. ``kind``: as of a job."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    parcels: list[Parcel]
    out: Path
    kind: str | None


def _patiently(job: Job, step: Callable[[], _Answer]) -> _Answer:
    """Write an outcome down. An analysis is not thrown away because the database takes nothing for some minutes.

    Raises:
        LeaseLost: the job was given to another worker.
        sqlalchemy.exc.OperationalError: the database takes nothing, or its disk is full, for too long.
    """
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return step()
        except OperationalError as error:
            if time.monotonic() > end_s:
                raise
            _log.warning("outcome not written down yet", extra={"job": job.id, "error": type(error).__name__})
            time.sleep(AGAIN_S)


def _finish(database: Database, job: Job, outcome: _Outcome, place: Callable[[], None]) -> None:
    said = outcome.verdict, outcome.reasons, outcome.parcels
    jobs.finish(database, job, *said, datetime.now(UTC), kind=outcome.kind, publish=place)


def _note_stage(database: Database, job: Job, stage: str) -> None:
    """Write down what the attempt does now; it goes on where that cannot be written."""
    try:
        jobs.note_stage(database, job, stage)
    except OperationalError as error:
        _log.warning("stage not noted", extra={"job": job.id, "error": type(error).__name__})


def _analyse(database: Database, settings: Settings, job: Job, analysis: Analysis) -> _Outcome:
    """Run the analysis in a folder of its own."""
    exam_folder = settings.storage_dir / jobs.exam_folder(job.exam_id)
    attempts_folder = _attempts_folder(settings, job)
    shutil.rmtree(attempts_folder, ignore_errors=True)  # what a killed attempt left
    attempt = attempts_folder / str(job.attempts)
    attempt.mkdir(parents=True)
    out = attempt / "out"
    paths = [database.inbox_dir / name for name in job.inputs]
    try:
        said = _said(database, job)
        if "progress" in inspect.signature(analysis).parameters:
            said["progress"] = _stages(database, job)
        summary = analysis(paths, out, settings, job.created_at, **said)
        verdict, reasons, objects = Verdict(summary.status), tuple(summary.reasons), tuple(summary.objects)
        kind = PHANTOM if getattr(summary, "is_phantom", False) else None
    except UnsuitableInput as refusal:
        verdict, reasons, objects, kind = Verdict.REFUSED, (refusal.reason,), (), None
        _write_refusal(reasons, out)
    earlier = None if job.predecessor is None else exam_folder / f"v{job.predecessor}"
    mark_version(out, objects, job.version, job.predecessor, earlier)
    parcels = _parcels(database, settings, job, verdict, objects, out)
    return _Outcome(verdict, reasons, parcels, out, kind)


def _parcels(
    database: Database, settings: Settings, job: Job, verdict: Verdict, objects: Sequence[ObjectFile], out: Path
) -> list[Parcel]:
    """What goes where, and what holds it back. What a trial claims goes to the trial's destinations alone."""
    trial = claiming_plan(database, settings, job.exam_id)
    facts = {"calling_ae": job.calling_ae, "protocol": job.protocol}
    destinations = destinations_for(settings, **facts)
    if trial is not None:
        destinations = tuple(one for one in settings.destinations if one.name in trial.destinations)
    doubt = unread_plan(database, settings, job.exam_id) if trial is None else ""
    parcels = []
    for destination in destinations:
        if destination.deidentify:  # gets copies, when it is known whose the exam is
            continue
        name = destination.name
        rule = release_for(settings, **facts, trial=trial, destination=name)
        holds = holds_for(settings, **facts, trial=trial, destination=name, verdict=verdict)
        holds |= {} if trial is None else awaits_visit(trial)
        holds |= {Hold.POLICY: doubt} if doubt else {}
        for one in objects:
            if one.goes_with(destination.objects):
                path = job.result_folder / _relative(one.path, out)
                parcels.append(Parcel(one.sop_instance_uid, str(one.kind), str(path), name, holds, rule))
    return parcels


def _attempts_folder(settings: Settings, job: Job) -> Path:
    """Where the attempts at a job work, beside the results, so that a rename publishes them."""
    return settings.storage_dir / jobs.exam_folder(job.exam_id) / f".attempts-v{job.version}"


def _stages(database: Database, job: Job) -> Progress:
    """Tells the log and the record which stage the analysis has come to."""

    def note(step: str, share: float) -> None:
        log_progress(step, share)
        _note_stage(database, job, step)

    return note


def _said(database: Database, job: Job) -> dict[str, Any]:
    """What a person has said of the exam, and what came before, as arguments of the analysis."""
    said: dict[str, Any] = {}
    if job.lowest_disc is not None:
        said["lowest_disc"] = job.lowest_disc
    if job.correction is not None:
        said["mask"] = database.inbox_dir / job.correction
    if job.predecessor is not None:
        said["edition"] = Edition(job.version, job.predecessor, jobs.was_done_before(database, job))
    return said


def _relative(path: Path, out: Path) -> Path:
    return path.relative_to(out) if path.is_absolute() else path


def _write_refusal(reasons: Sequence[Reason], out: Path) -> None:
    from service.result_files import write_refusal

    write_refusal(tuple(reasons), (), out)


def publish(out: Path, final: Path) -> None:
    """Make a finished, durable folder visible under its final name, and its result.json as the exam's newest.

    Call it where the version is known not to be recorded: a folder of its name, left by an attempt that died before
    that, is moved aside.
    """
    if out.exists() or not final.exists():  # else it is there already, and only its record was undone
        if final.exists():
            os.replace(final, out.with_name("left-by-an-earlier-attempt"))
        os.replace(out, final)
    source = final / "result.json"
    if source.is_file():
        content = json.loads(source.read_text(encoding="utf-8"))
        for one in content.get("objects", ()):
            one["path"] = f"{final.name}/{one['path']}"
        newest = final.parent / "result.json"
        temporary = newest.with_name(".result.json.new")
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        flush(temporary)
        os.replace(temporary, newest)
        remove_exam_refusal(final.parent)
    flush(final.parent)


@contextmanager
def _leased(database: Database, job: Job, lease_s: float) -> Iterator[None]:
    """Prolong the job's lease from a thread while the block runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(lease_s / 4):
            try:
                if not jobs.heartbeat(database, job, datetime.now(UTC), lease_s):
                    return  # publishing will notice
            except SQLAlchemyError as error:  # locked, or its disk is full, for now; the next beat may come through
                _log.warning("lease not prolonged", extra={"job": job.id, "error": type(error).__name__})

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """The process: told its name, the settings and the analysis on stdin."""
    message = receive_message()
    log_to_stderr(message.name, message.settings.logs)
    database = open_database(message.settings)
    analysis = load_analysis(message.analysis)
    prepare(message.analysis, message.settings)
    _log.info("worker waits for jobs", extra={"pid": os.getpid()})
    run_worker(database, message.settings, message.name, analysis)


if __name__ == "__main__":
    main()
