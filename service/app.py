"""The node: builds every part from the settings, starts and stops them in order, replaces what dies."""

import fcntl
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from config.protocol_cards import load_cards
from config.settings import Settings
from dicom_io.sender import AssociationRejected, Peer, PeerUnavailable, abort_associations, echo
from service import jobs
from service.children import EXIT_CANNOT_START
from service.commitments import report_due
from service.confirmation import confirm_due
from service.database import Database, open_database
from service.delivery import deliver_due, warn_of_strays
from service.doors import check_doors
from service.executors import KeptProcesses
from service.failure_text import describe_exit
from service.health import Probe
from service.intake import Intake
from service.logs import log_to_stderr
from service.migration import migrate
from service.migrations import DatabaseRefused
from service.observation import Observation
from service.reconciliation import is_due, reconcile
from service.retention import apply_retention, unasked_destinations
from service.schedule import Lateness, build_schedule
from service.service_manager import READY, STOPPING, tell_service_manager
from service.sources import SourceDesk
from service.trials.desk import TrialDesk
from service.trials.report_demands import count_stuck, forgive_attempts

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

    from service.metrics import Running
    from service.web import WebServer

_log = logging.getLogger(__name__)

CHECK_S = 0.2
ECHO_TIMEOUT_S = 5.0
SILENT_S = 5.0  # a receiver that has not answered for so long is not ready
LATE_S = 300.0  # so much behind, a task of the schedule does not work
DEAF_S = 60.0  # a receiver that has not answered for so long is replaced
STOP_RECEIVER_S = 45.0
STOP_WORKERS_S = 1.0  # an analysis is repeatable; it is not waited for
STOP_SCHEDULE_S = 15.0  # for the objects that are going out
ABORTED_S = 10.0  # until what has been aborted notices

_VITAL_TASKS = ("intake", "leases")


class NodeRunning(Exception):
    """Another node works in this storage folder, or it cannot be worked in."""


def run_node(settings: Settings, *, analysis: str = "service.pipeline:analyse_job") -> int:
    """Run the node until SIGTERM or SIGINT; returns the exit status. Call it from the main thread.

    It then takes no more work, finishes the objects that are coming in and going out, and gives its jobs back: within
    about half a minute. A second signal ends the waiting.

    Args:
        settings: the node's settings.
        analysis: ``package.module:function`` that a worker calls for each job (:data:`service.worker.Analysis`).

    Raises:
        SettingsError: a certificate, key or secret of the settings cannot be used.
    """
    log_to_stderr("node", settings.logs)
    os.umask(os.umask(0o077) | 0o027)  # images of patients are nobody else's, whoever starts the node
    for note in check_doors(settings):
        _log.warning(note)
    stop, hurry = threading.Event(), threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        (hurry if stop.is_set() else stop).set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _only_node(settings):
            migrate(settings)
            return _Node(settings, analysis, stop, hurry).run()
    except (NodeRunning, DatabaseRefused) as error:
        _log.error(str(error), extra={"storage_dir": settings.storage_dir})
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ends(thread: threading.Thread, wait_s: float, hurry: threading.Event | None = None) -> bool:
    """Whether a thread ends within a time, or before there is hurry."""
    deadline_s = time.monotonic() + wait_s
    while thread.is_alive() and time.monotonic() < deadline_s and not (hurry is not None and hurry.is_set()):
        thread.join(CHECK_S)
    return not thread.is_alive()


@contextmanager
def _only_node(settings: Settings) -> Iterator[None]:
    """Hold the storage folder: the kernel lets go of it when the process ends, however it ends."""
    try:
        settings.storage_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(settings.storage_dir / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise NodeRunning(f"the storage folder cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NodeRunning("another node uses the storage folder") from error
        yield
    finally:
        os.close(descriptor)


class _Node:
    """The open parts of a running node."""

    def __init__(
        self, settings: Settings, analysis: str, stop: threading.Event, hurry: threading.Event | None = None
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._hurry = threading.Event() if hurry is None else hurry
        self._database: Database = open_database(settings)
        self._intake = Intake(self._database, settings)
        self._receiver = KeptProcesses("service.reception", "receiver", 1, settings)
        self._workers = KeptProcesses("service.worker", "worker", settings.jobs.workers, settings, analysis)
        self._n_reporters = 0 if settings.trials_dir is None else 1
        self._reporter = KeptProcesses("service.trials.reporter", "reporter", self._n_reporters, settings)
        self._destinations = {one.name: one for one in settings.destinations}
        self._sources = {
            one.name: SourceDesk(self._database, settings, one, judge=self._sweep_intake, stopping=stop.is_set)
            for one in settings.sources
        }
        self._trials = None if settings.trials_dir is None else TrialDesk(self._database, settings)
        self._receiver_answered_at_s = time.monotonic()
        self._hearing_since_s = 0.0  # all times of this node itself are of the monotonic clock: the other may be set
        self._has_answered = False
        self._has_told = False
        self._receiver_died_before = False
        self._deaf = threading.Event()
        self._silent_workers: queue.SimpleQueue[str] = queue.SimpleQueue()  # from the schedule to the main thread
        self._exit_status = 0
        self._lateness = Lateness()
        self._web: WebServer | None = None
        probes = [
            Probe("receiver", self._check_receiver),
            Probe("workers", self._check_workers),
            Probe("schedule", self._check_schedule),
            *([Probe("reports", self._check_reports, vital=False)] if self._n_reporters else []),
            *([Probe("web", self._check_web, vital=False)] if settings.web.port else []),
            *([] if self._trials is None else [Probe("trials", self._trials.check(), vital=False)]),
        ]
        self._observation = Observation(self._database, settings, probes)

    def run(self) -> int:
        """Start everything, keep it running, stop it in order."""
        now = datetime.now(UTC)
        for job in jobs.release_lost(self._database, now, self._settings.jobs.attempts, everyone=True):
            _log.warning("job was interrupted", extra={"job": job.id, "state": job.state})
        warn_of_strays(self._database, self._settings)
        forgive_attempts(self._database, now)
        if self._trials is not None:
            self._trials.register(now)  # before the first result: a worker asks which trial an exam is of
        schedule = build_schedule(
            self._settings,
            sweep_intake=self._sweep_intake,
            sweep_leases=self._sweep_leases,
            echo_receiver=self._echo_receiver,
            deliver=self._deliver,
            confirm=self._confirm,
            reconcile=self._reconcile,
            report_commitments=self._report_commitments,
            apply_retention=self._apply_retention,
            ask_source=lambda name: self._sources[name].look(datetime.now(UTC)),
            others=[*self._observation.tasks(), *([] if self._trials is None else self._trials.tasks())],
            lateness=self._lateness,
        )
        self._observation.start()
        self._web = self._open_web()
        schedule.start()
        try:
            while not self._stop.wait(CHECK_S):
                self._keep_processes()
        finally:
            self._shut_down(schedule)
        return self._exit_status

    def _shut_down(self, schedule: "BackgroundScheduler") -> None:
        """Everything at once is told to end; then each is waited for, as long as it deserves."""
        _log.info("stopping")
        tell_service_manager(STOPPING)
        self._stop.set()
        self._receiver.ask_to_stop()
        if self._web is not None:
            self._web.close()
        self._reporter.kill()  # a report is made whole or not at all
        stopped = self._workers.stop(STOP_WORKERS_S, self._hurry.is_set)
        for name in stopped:
            jobs.release_lost(
                self._database, datetime.now(UTC), self._settings.jobs.attempts, worker=name, forgive=True
            )
        tasks = threading.Thread(target=schedule.shutdown, name="stop", daemon=True)
        tasks.start()
        self._receiver.stop(STOP_RECEIVER_S, self._hurry.is_set)
        ended = _ends(tasks, STOP_SCHEDULE_S, self._hurry)
        if not ended:
            abort_associations()  # a PACS that has been asked for images may take minutes to say anything
            ended = _ends(tasks, ABORTED_S)
        self._observation.close()
        self._database.close()
        _log.info("stopped", extra={"hurried": self._hurry.is_set(), "in_order": ended})
        if not ended:  # the interpreter would wait for its thread; every change of the record is whole or undone
            os._exit(self._exit_status)

    def _keep_processes(self) -> None:
        if self._has_answered and not self._has_told:
            self._has_told = True
            tell_service_manager(READY)
        if self._deaf.is_set():
            _log.error("the receiver does not answer and is replaced")
            self._receiver.kill()
            self._deaf.clear()
        self._receiver.keep(self._on_receiver_death)
        while not self._silent_workers.empty():
            self._workers.kill([self._silent_workers.get()])
        if not self._stop.is_set():
            self._workers.keep(self._on_worker_death)
            self._reporter.keep(lambda name, status: self._observation.died("reporter"))

    def _on_receiver_death(self, name: str, status: int) -> None:
        self._has_answered = False
        self._observation.died("receiver")
        # Only the first one tells that the settings are wrong. An echo would not: who holds the port may answer it.
        if status == EXIT_CANNOT_START and not self._receiver_died_before:
            self._exit_status = 1
            self._stop.set()
        self._receiver_died_before = True

    def _on_worker_death(self, name: str, status: int) -> None:
        self._observation.died("worker")
        try:
            limits, cause = self._settings.jobs, describe_exit(status)
            lost = jobs.release_lost(
                self._database,
                datetime.now(UTC),
                limits.attempts,
                worker=name,
                cause=cause,
                retry_s=limits.retry_s,
            )
        except SQLAlchemyError as error:  # locked by another program, or the disk is full: its lease will run out
            _log.error("job of the dead worker not released yet", extra={"error": type(error).__name__})
            return
        for job in lost:
            what = {"job": job.id, "state": job.state, "attempt": job.attempts, "cause": cause, "stage": job.stage}
            _log.error("job lost its worker", extra=what)

    def _hears_since(self, now: datetime) -> datetime:
        """From when on objects can come, and what was acknowledged before that is recorded; ``now``: not yet."""
        return now - timedelta(seconds=time.monotonic() - self._hearing_since_s) if self._has_answered else now

    def _sweep_intake(self) -> None:
        now = datetime.now(UTC)
        self._intake.sweep(now, self._hears_since(now))

    def _report_commitments(self) -> None:
        now, stopping = datetime.now(UTC), self._stop.is_set
        report_due(self._database, self._settings, now, stopping=stopping, hearing_since=self._hears_since(now))

    def _apply_retention(self) -> None:
        kept = self._settings.retention
        if kept.images_days is not None or kept.results_days is not None:
            unasked = unasked_destinations(self._settings)
            apply_retention(self._database, kept, datetime.now(UTC), unasked=unasked)

    def _sweep_leases(self) -> None:
        for name in jobs.silent_workers(self._database, datetime.now(UTC)):
            _log.error("worker is silent and is replaced", extra={"child": name})
            self._silent_workers.put(name)  # one that hangs would never take another job
        limits = self._settings.jobs
        for job in jobs.release_lost(self._database, datetime.now(UTC), limits.attempts, retry_s=limits.retry_s):
            _log.error("job's lease ran out", extra={"job": job.id, "state": job.state})

    def _deliver(self, name: str) -> None:
        deliver_due(self._database, self._destinations[name], self._settings, stopping=self._stop.is_set)

    def _confirm(self, name: str) -> None:
        confirm_due(self._database, self._destinations[name], self._settings, stopping=self._stop.is_set)

    def _reconcile(self, name: str) -> None:
        destination = self._destinations[name]
        if is_due(self._database, destination, self._settings, datetime.now(UTC)):
            reconcile(self._database, destination, self._settings, stopping=self._stop.is_set)

    def _echo_receiver(self) -> None:
        """Ask our own receiver for life, as a peer would."""
        settings = self._settings
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.bind, settings.bind)
        try:
            echo(Peer(host, settings.port, settings.ae_title, settings.ae_title, ECHO_TIMEOUT_S))
        except AssociationRejected:
            pass  # we are not among its peers, or it is full; but it answers
        except PeerUnavailable:
            if time.monotonic() - self._receiver_answered_at_s > DEAF_S:
                self._receiver_answered_at_s = time.monotonic()
                self._deaf.set()
            return
        if not self._has_answered:
            self._hearing_since_s = time.monotonic()
        self._has_answered = True
        self._receiver_answered_at_s = time.monotonic()

    def _check_receiver(self) -> str:
        if self._receiver.alive < 1:
            return "the receiver does not run"
        silent_s = time.monotonic() - self._receiver_answered_at_s
        if not self._has_answered or silent_s > SILENT_S:
            return f"the receiver has not answered C-ECHO for {silent_s:.0f} s"
        return ""

    def _check_workers(self) -> str:
        n_steady, n_wanted = self._workers.steady, self._settings.jobs.workers
        return "" if n_steady == n_wanted else f"{n_steady} of {n_wanted} workers run"

    def _check_reports(self) -> str:
        if self._reporter.steady < self._n_reporters:
            return "the process that makes the subjects' reports does not run"
        n_stuck = count_stuck(self._database, self._settings.jobs.attempts)
        return f"the reports of {n_stuck} subjects cannot be made" if n_stuck else ""

    def _check_web(self) -> str:
        serves = self._web is None or self._web.is_alive
        return "" if serves else f"the HTTP server does not run: port {self._settings.web.port} may be taken"

    def _check_schedule(self) -> str:
        late = [name for name, seconds in self._lateness.late_s().items() if seconds > LATE_S and name in _VITAL_TASKS]
        return f"not done for more than {LATE_S:.0f} s: {', '.join(late)}" if late else ""

    def _open_web(self) -> "WebServer | None":
        if self._settings.web.port == 0:
            return None
        from service.metrics import Metrics
        from service.release_api import build_release_api
        from service.review_pages import build_review_pages
        from service.web import WebServer
        from service.web_api import build_api

        api = build_api(self._database, load_cards(self._settings.protocols_dir), self._settings)
        metrics = Metrics(self._database, self._settings, self._observation.health.look, self._running)
        return WebServer(
            self._settings.web,
            self._observation.health.look,
            api,
            build_release_api(self._database, self._settings),
            build_review_pages(self._database, self._settings),
            metrics=metrics.text,
            on_refused=self._observation.refusals.add_login,
        )

    def _running(self) -> "Running":
        from service.metrics import Running

        wanted = {"receiver": 1, "worker": self._settings.jobs.workers, "reporter": self._n_reporters}
        alive = {"receiver": self._receiver.alive, "worker": self._workers.alive, "reporter": self._reporter.alive}
        return Running(wanted, alive, self._lateness.late_s())
