"""The node: builds every part from the settings, starts and stops them in order, replaces what dies."""

import fcntl
import logging
import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from config.protocol_cards import load_cards
from config.settings import Settings
from dicom_io.sender import AssociationRejected, Peer, PeerUnavailable, abort_associations, echo
from service import jobs
from service.children import EXIT_CANNOT_START
from service.commitments import report_due
from service.database import Database, open_database
from service.delivery import deliver_due
from service.doors import check_doors
from service.executors import KeptProcesses
from service.health import Health
from service.intake import Intake
from service.logs import log_to_stderr
from service.schedule import ECHO_S, build_schedule
from service.sources import SourceDesk

if TYPE_CHECKING:
    from service.web import WebServer

_log = logging.getLogger(__name__)

CHECK_S = 0.2
ECHO_TIMEOUT_S = 5.0
DEAF_S = 60.0  # a receiver that has not answered for so long is replaced
STOP_RECEIVER_S = 45.0
STOP_WORKERS_S = 1.0  # an analysis is repeatable; it is not waited for


class NodeRunning(Exception):
    """Another node works in this storage folder."""


def run_node(settings: Settings, *, analysis: str = "service.pipeline:analyse_job") -> int:
    """Run the node until SIGTERM or SIGINT; returns the exit status. Call it from the main thread.

    Args:
        settings: the node's settings.
        analysis: ``package.module:function`` that a worker calls for each job (:data:`service.worker.Analysis`).

    Raises:
        SettingsError: a certificate, key or secret of the settings cannot be used.
    """
    log_to_stderr("node")
    for note in check_doors(settings):
        _log.warning(note)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _only_node(settings):
            return _Node(settings, analysis, stop).run()
    except NodeRunning as error:
        _log.error(str(error), extra={"storage_dir": settings.storage_dir})
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _only_node(settings: Settings) -> Iterator[None]:
    """Hold the storage folder: the kernel lets go of it when the process ends, however it ends."""
    settings.storage_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.storage_dir / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
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

    def __init__(self, settings: Settings, analysis: str, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._database: Database = open_database(settings)
        self._intake = Intake(self._database, settings)
        self._receiver = KeptProcesses("service.reception", "receiver", 1, settings)
        self._workers = KeptProcesses("service.worker", "worker", settings.jobs.workers, settings, analysis)
        self._destinations = {one.name: one for one in settings.destinations}
        self._sources = {
            one.name: SourceDesk(self._database, settings, one, judge=self._sweep_intake, stopping=stop.is_set)
            for one in settings.sources
        }
        self._receiver_answered_at = datetime.now(UTC)
        self._has_answered = False
        self._receiver_died_before = False
        self._deaf = threading.Event()
        self._silent_workers: queue.SimpleQueue[str] = queue.SimpleQueue()  # from the schedule to the main thread
        self._exit_status = 0

    def run(self) -> int:
        """Start everything, keep it running, stop it in order."""
        now = datetime.now(UTC)
        for job in jobs.release_lost(self._database, now, self._settings.jobs.attempts, everyone=True):
            _log.warning("job was interrupted", extra={"job": job.id, "state": job.state})
        schedule = build_schedule(
            self._settings,
            sweep_intake=self._sweep_intake,
            sweep_leases=self._sweep_leases,
            echo_receiver=self._echo_receiver,
            deliver=self._deliver,
            report_commitments=lambda: report_due(
                self._database, self._settings, datetime.now(UTC), stopping=self._stop.is_set
            ),
            ask_source=lambda name: self._sources[name].look(datetime.now(UTC)),
        )
        web = self._open_web()
        schedule.start()
        try:
            while not self._stop.wait(CHECK_S):
                self._keep_processes()
        finally:
            _log.info("stopping")
            self._stop.set()
            if web is not None:
                web.close()
            self._receiver.stop(STOP_RECEIVER_S)
            stopped = self._workers.stop(STOP_WORKERS_S)
            abort_associations()  # a PACS that has been asked for images may take minutes to say anything
            schedule.shutdown(wait=True)
            for name in stopped:
                jobs.release_lost(
                    self._database, datetime.now(UTC), self._settings.jobs.attempts, worker=name, forgive=True
                )
            self._database.close()
            _log.info("stopped")
        return self._exit_status

    def _keep_processes(self) -> None:
        if self._deaf.is_set():
            _log.error("the receiver does not answer and is replaced")
            self._receiver.kill()
            self._deaf.clear()
        self._receiver.keep(self._on_receiver_death)
        while not self._silent_workers.empty():
            self._workers.kill([self._silent_workers.get()])
        if not self._stop.is_set():
            self._workers.keep(self._on_worker_death)

    def _on_receiver_death(self, name: str, status: int) -> None:
        # Only the first one tells that the settings are wrong. An echo would not: who holds the port may answer it.
        if status == EXIT_CANNOT_START and not self._receiver_died_before:
            self._exit_status = 1
            self._stop.set()
        self._receiver_died_before = True

    def _on_worker_death(self, name: str, status: int) -> None:
        try:
            lost = jobs.release_lost(self._database, datetime.now(UTC), self._settings.jobs.attempts, worker=name)
        except SQLAlchemyError as error:  # locked by another program, or the disk is full: its lease will run out
            _log.error("job of the dead worker not released yet", extra={"error": type(error).__name__})
            return
        for job in lost:
            _log.error("job lost its worker", extra={"job": job.id, "state": job.state, "attempt": job.attempts})

    def _sweep_intake(self) -> None:
        self._intake.sweep(datetime.now(UTC))

    def _sweep_leases(self) -> None:
        for name in jobs.silent_workers(self._database, datetime.now(UTC)):
            _log.error("worker is silent and is replaced", extra={"child": name})
            self._silent_workers.put(name)  # one that hangs would never take another job
        for job in jobs.release_lost(self._database, datetime.now(UTC), self._settings.jobs.attempts):
            _log.error("job's lease ran out", extra={"job": job.id, "state": job.state})

    def _deliver(self, name: str) -> None:
        deliver_due(self._database, self._destinations[name], self._settings, stopping=self._stop.is_set)

    def _echo_receiver(self) -> None:
        """Ask our own receiver for life, as a peer would."""
        settings = self._settings
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.bind, settings.bind)
        try:
            echo(Peer(host, settings.port, settings.ae_title, settings.ae_title, ECHO_TIMEOUT_S))
        except AssociationRejected:
            pass  # we are not among its peers, or it is full; but it answers
        except PeerUnavailable:
            silent_s = (datetime.now(UTC) - self._receiver_answered_at).total_seconds()
            if silent_s > DEAF_S:
                self._receiver_answered_at = datetime.now(UTC)
                self._deaf.set()
            return
        self._has_answered = True
        self._receiver_answered_at = datetime.now(UTC)

    def health(self) -> Health:
        """What works, found out now."""
        silent_s = (datetime.now(UTC) - self._receiver_answered_at).total_seconds()
        return Health(
            receiver=self._receiver.alive == 1 and self._has_answered and silent_s < 3 * ECHO_S,
            workers=self._workers.alive == self._settings.jobs.workers,
            database=self._database_is_writable(),
        )

    def _database_is_writable(self) -> bool:
        try:
            with self._database.write() as connection:
                connection.execute(text("UPDATE exam SET version = version WHERE id = -1"))
        except SQLAlchemyError:
            return False
        return True

    def _open_web(self) -> "WebServer | None":
        if self._settings.web.port == 0:
            return None
        from service.web import WebServer
        from service.web_api import build_api

        api = build_api(self._database, load_cards(self._settings.protocols_dir), self._settings)
        return WebServer(self._settings.web, self.health, api)
