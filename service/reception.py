"""The reception: receiver processes on one port, a recorder beside them, and nothing heavy. This process keeps them."""

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings, SettingsError
from dicom_io.inbox import Inbox
from dicom_io.places import Places
from dicom_io.receiver import Listener, Receiver, limits_of, listen_by, open_house
from service.asked_commitments import open_results
from service.children import EXIT_CANNOT_START, receive_message
from service.commitments import open_commitment_desk
from service.database import open_database
from service.executors import restart_pause_s
from service.logs import log_to_stderr
from service.pulse import Pulse
from service.recorder import Recorder, notices, open_spool_ledger
from service.refused_calls import RefusedCalls

_log = logging.getLogger(__name__)

DRAIN_S = 30.0  # for objects that are under way when the node stops
_CHECK_S = 0.2
_COUNT_S = 1.0
_ORPHANED_S = 2.0  # a reception that is silent so long replaces nobody: nothing more is accepted
_STUCK_S = 120.0
_RECORDER_STOP_S = 8.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the processes have in common, made before they are forked."""

    settings: Settings
    name: str
    listeners: tuple[Listener, ...]
    places: Places
    pulse: Pulse
    reader: socket.socket
    writer: socket.socket


@dataclass(slots=True)
class _Seat:
    """A place for one child process."""

    work: Callable[[int], None]  # told where to say that it is ready
    title: str
    process: int = -1  # its number among the receivers; -1: it is none
    pid: int = 0
    ready: int = -1  # where it says so
    is_ready: bool = False
    born_at_s: float = 0.0
    deaths: int = 0
    not_before_s: float = 0.0


def main() -> None:
    """The process: told the settings on stdin; logs "ready" when it listens; ends at SIGTERM."""
    message = receive_message()
    settings = message.settings
    log_to_stderr(message.name, settings.logs)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    inbox = Inbox(settings.storage_dir / "inbox")
    n_leftovers = inbox.sweep_incoming()
    try:
        listeners = listen_by(settings)
    except SettingsError as error:
        _log.error("cannot listen", extra={"error": str(error)})
        sys.exit(EXIT_CANNOT_START)
    except OSError as error:
        _log.error("cannot listen", extra={"bind": settings.bind, "port": settings.port, "error": error.strerror})
        sys.exit(EXIT_CANNOT_START)
    places = Places(limits_of(settings), settings.reception.processes)
    shared = _Shared(settings, message.name, listeners, places, Pulse(), *notices())
    reception = _Reception(shared, inbox, {"unfinished_removed": n_leftovers})
    reception.run(stop)


class _Reception:
    """Keeps the processes. It has no thread and no database of its own, so that it can fork at any time."""

    def __init__(self, shared: _Shared, inbox: Inbox, facts: dict[str, int]) -> None:
        self._shared = shared
        self._inbox = inbox
        self._facts = facts
        self._recorder = _Seat(lambda ready: _record(shared, ready), "recorder")
        self._receivers = [_receiver_seat(shared, number) for number in range(shared.settings.reception.processes)]
        self._counted_at_s = 0.0
        self._has_said_ready = False

    def run(self, stop: threading.Event) -> None:
        """Keep them running until told to stop."""
        while not stop.wait(_CHECK_S):
            self._keep()
        for seat in self._receivers:
            _signal(seat, signal.SIGTERM)
        self._await(self._receivers, DRAIN_S + 3.0)
        _signal(self._recorder, signal.SIGTERM)
        self._await([self._recorder], _RECORDER_STOP_S)

    def _keep(self) -> None:
        now_s = time.monotonic()
        if now_s - self._counted_at_s > _COUNT_S:
            self._counted_at_s = now_s
            self._shared.pulse.beat(self._inbox.count_spool())
        if self._recorder.is_ready and self._shared.pulse.recorder_silent_s > _STUCK_S:
            _log.error("the recorder is stuck and is replaced")
            _signal(self._recorder, signal.SIGKILL)
        self._keep_one(self._recorder)
        if self._recorder.is_ready:  # what was acknowledged before a restart is recorded first
            for seat in self._receivers:
                self._keep_one(seat)
        if not self._has_said_ready and all(seat.is_ready for seat in self._receivers):
            self._has_said_ready = True
            settings = self._shared.settings
            facts = {"ae_title": settings.ae_title, "bind": settings.bind, "port": self._shared.listeners[0].port}
            _log.info("ready", extra={**facts, "processes": len(self._receivers), **self._facts})

    def _keep_one(self, seat: _Seat) -> None:
        """Take note of its death, start it when it is due, hear whether it is ready."""
        if seat.pid and (status := _ended(seat)) is not None:
            lived_s = time.monotonic() - seat.born_at_s
            seat.deaths = 1 if lived_s > 60.0 else seat.deaths + 1
            seat.not_before_s = time.monotonic() + restart_pause_s(lived_s, seat.deaths)
            _log.error("process died", extra={"child": seat.title, "exit_status": status})
            self._clear(seat)
        if not seat.pid and time.monotonic() >= seat.not_before_s:
            _start(seat, self._shared)
        if seat.pid and not seat.is_ready:
            seat.is_ready = _has_spoken(seat)

    def _clear(self, seat: _Seat) -> None:
        """Its connections are gone, and what it was writing was never acknowledged."""
        os.close(seat.ready)
        seat.pid, seat.ready = 0, -1
        if seat.process >= 0:
            self._shared.places.free_all_of(seat.process)
            self._inbox.sweep_incoming()

    def _await(self, seats: list[_Seat], wait_s: float) -> None:
        """Let them end, and kill what does not."""
        until_s = time.monotonic() + wait_s
        running = [seat for seat in seats if seat.pid]
        while running and time.monotonic() < until_s:
            self._shared.pulse.beat(0)
            time.sleep(0.05)
            running = [seat for seat in running if _ended(seat) is None]
        for seat in running:
            _signal(seat, signal.SIGKILL)


def _receiver_seat(shared: _Shared, number: int) -> _Seat:
    return _Seat(lambda ready: _receive(shared, number, ready), f"receiver {number + 1}", number)


# --- the children -----------------------------------------------------------------------------------------------------


def _start(seat: _Seat, shared: _Shared) -> None:
    seat.ready, speak = os.pipe()
    os.set_blocking(seat.ready, False)
    seat.born_at_s = time.monotonic()
    parent = os.getpid()
    seat.pid = os.fork()
    if seat.pid == 0:
        os.close(seat.ready)
        _live(lambda: seat.work(speak), seat.title, shared, parent)
    os.close(speak)


def _live(work: Callable[[], None], title: str, shared: _Shared, parent: int) -> NoReturn:
    """The life of a child: it ends with its parent, and never returns into the parent's code."""
    status = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()  # the kernel shares time out among sessions: recording does not slow receiving down
        log_to_stderr(f"{shared.name}/{title.replace(' ', '-')}", shared.settings.logs)
        threading.excepthook = _log_thread_fault
        if os.getppid() == parent:
            work()
            status = 0
    except (OSError, SQLAlchemyError) as error:
        _log.error("cannot work", extra={"child": title, "error": type(error).__name__})
    finally:
        if sys.exc_info()[0] is not None:
            _log.error("internal error", extra={"child": title}, exc_info=True)
        logging.shutdown()
        os._exit(status)


def _log_thread_fault(fault: threading.ExceptHookArgs) -> None:
    """A bug in an association: told like everything else, and the association is closed."""
    trace = fault.exc_value and (fault.exc_type, fault.exc_value, fault.exc_traceback)
    _log.error("internal error in a thread", extra={"error": fault.exc_type.__name__}, exc_info=trace)


def _stop_event() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    return stop


def _receive(shared: _Shared, number: int, ready: int) -> None:
    """A receiver process."""
    stop = _stop_event()
    shared.places.belong_to(number)
    shared.reader.close()
    settings = shared.settings
    database = open_database(settings)
    inbox = Inbox(database.inbox_dir)
    refused = RefusedCalls(database)
    house = open_house(
        settings,
        inbox,
        open_spool_ledger(database, inbox, shared.writer),
        open_commitment_desk(database, settings),
        open_results(database, settings),
        is_congested=lambda: shared.pulse.backlog > settings.reception.backlog,
        on_refused=refused.add,
    )
    receiver = Receiver(shared.listeners, house, shared.places, may_accept=lambda: shared.pulse.silent_s < _ORPHANED_S)
    os.write(ready, b"1")
    stop.wait()
    receiver.close(DRAIN_S)
    refused.close()
    database.close()


def _record(shared: _Shared, ready: int) -> None:
    """The recorder process."""
    stop = _stop_event()
    for listener in shared.listeners:
        listener.socket.close()
    shared.pulse.beat_of_recorder()
    database = open_database(shared.settings)
    inbox = Inbox(database.inbox_dir)
    recorder = Recorder(database, inbox, shared.reader, shared.pulse)
    n_replayed = recorder.replay()
    if n_replayed:
        _log.info("recorded what was acknowledged before", extra={"objects": n_replayed})
    os.write(ready, b"1")
    while not stop.is_set():
        try:
            recorder.turn()
        except OSError as error:
            _log.error("not recorded yet", extra={"error": type(error).__name__, "why": str(error)})
            stop.wait(1.0)
    recorder.replay()
    database.close()


def _ended(seat: _Seat) -> int | None:
    """None while it runs, else its exit status (negative: the signal that killed it)."""
    pid, status = os.waitpid(seat.pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _has_spoken(seat: _Seat) -> bool:
    try:
        return os.read(seat.ready, 1) == b"1"
    except BlockingIOError:
        return False


def _signal(seat: _Seat, number: int) -> None:
    if seat.pid:
        os.kill(seat.pid, number)


if __name__ == "__main__":
    main()
