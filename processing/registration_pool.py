"""Warm processes that register discs, one disc at a time in each.

elastix takes many seconds to load and may crash or hang in native code. It is loaded once in each process; a process
that dies costs one retry of its disc, one that hangs is killed and costs its disc, and neither costs the exam.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from processing.refusal import Reason, ReasonCode
from processing.registration import DiscTask, RegisteredSignal, RegistrationFailed, align_disc, warm_up

_log = logging.getLogger(__name__)

_TRIES = 2  # of a disc whose process dies
_REASON_LOG_CHARACTERS = 400  # of elastix' log, in a reason; the log of the node has more

_Outcome = RegisteredSignal | RegistrationFailed


class RegistrationPool:
    """Holds the processes. Close it, or use it as a context; they also end when this process ends, however it does.

    ``align_one`` must be a module's function: it is what the processes run on each task. ``deadline_s``: wall seconds
    that one disc may take, and that a process may take to load elastix.
    """

    def __init__(
        self,
        processes: int,
        *,
        deadline_s: float = 300.0,
        align_one: Callable[[DiscTask], RegisteredSignal] = align_disc,
        prepare: Callable[[], Any] = warm_up,
    ) -> None:
        self._deadline_s = deadline_s
        self._align_one = align_one
        self._prepare = prepare
        self._lock = threading.Lock()
        self._workers = [self._start() for _ in range(processes)]  # these warm up while the caller does something else

    def align(self, tasks: Sequence[DiscTask]) -> tuple[tuple[RegisteredSignal, ...], tuple[Reason, ...]]:
        """Register all discs side by side.

        Returns:
            What was registered, in the order of ``tasks``, and a REGISTRATION_POOR reason for each disc that was not.
        """
        outcomes = self.outcomes(tasks)
        registered = tuple(outcome for outcome in outcomes if isinstance(outcome, RegisteredSignal))
        failures = [outcome for outcome in outcomes if isinstance(outcome, RegistrationFailed)]
        for failure in failures:
            _log.warning("registration failed: %s; the end of elastix' log:\n%s", failure, failure.log)
        return registered, tuple(Reason(ReasonCode.REGISTRATION_POOR, _explain(failure)) for failure in failures)

    def outcomes(self, tasks: Sequence[DiscTask]) -> list[RegisteredSignal | RegistrationFailed]:
        """Register all discs side by side; for each task what came of it."""
        with self._lock:
            return _Run(self._workers, tasks, self._align_one, self._deadline_s, self._start).finish()

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            for worker in self._workers:
                worker.close()
            self._workers.clear()

    def __enter__(self) -> "RegistrationPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> "_Worker":
        # an executor for each process: so that we know which disc a dying process had, and which process to kill
        # spawn: a fork would copy the threads' locks of a process that has onnxruntime and a database open
        executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)
        before = set(active_children())
        loaded = executor.submit(self._prepare)  # starts the process
        return _Worker(executor, tuple(set(active_children()) - before), loaded)


@dataclass(slots=True)
class _Worker:
    """One process, which loads elastix first; ``future`` and ``task`` are what it is busy with since ``since_s``."""

    executor: ProcessPoolExecutor
    children: tuple[BaseProcess, ...]
    loaded: "Future[Any]"
    future: "Future[RegisteredSignal] | None" = None
    task: int = -1
    since_s: float = 0.0

    @property
    def awaited(self) -> "Future[Any]":
        """What comes next from a busy process."""
        assert self.future is not None
        return self.future if self.loaded.done() else self.loaded

    def close(self) -> None:
        """Let an idle process end by itself; one that is still loading may never be done."""
        if self.loaded.done():
            self.executor.shutdown(wait=True, cancel_futures=True)
        else:
            self.end()

    def end(self) -> None:
        """No clean-up: elastix may be deep in native code."""
        for process in self.children:  # not asked for its number: it may hang before it can answer
            process.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)


class _Run:
    """All discs of one exam: hands them to the processes and gathers what comes of them."""

    def __init__(
        self,
        workers: list[_Worker],
        tasks: Sequence[DiscTask],
        align_one: Callable[[DiscTask], RegisteredSignal],
        deadline_s: float,
        start: Callable[[], _Worker],
    ) -> None:
        self._workers, self._tasks = workers, tasks
        self._align_one, self._deadline_s, self._start = align_one, deadline_s, start
        self._waiting = deque(range(len(tasks)))
        self._tries = [0] * len(tasks)
        self._outcomes: dict[int, _Outcome] = {}

    def finish(self) -> list[_Outcome]:
        """Until there is an outcome for each task. What an exception of ours leaves unfinished is given up."""
        try:
            while len(self._outcomes) < len(self._tasks):
                self._step()
        finally:
            for worker in [worker for worker in self._workers if worker.future is not None]:
                self._replace(worker)
        return [self._outcomes[number] for number in range(len(self._tasks))]

    def _step(self) -> None:
        """Give every idle process a disc, then wait until something comes of one."""
        for place, worker in enumerate(self._workers):
            if worker.future is None and self._waiting:
                self._give(place, self._waiting.popleft())
        busy = [worker for worker in self._workers if worker.future is not None]
        left_s = min(worker.since_s for worker in busy) + self._deadline_s - time.monotonic()
        awaited = [worker.awaited for worker in busy]
        done, _ = wait(awaited, timeout=max(0.0, left_s), return_when=FIRST_COMPLETED)
        for worker, future in zip(busy, awaited, strict=True):
            if future in done:
                self._hear(worker)
            elif time.monotonic() - worker.since_s > self._deadline_s:
                self._give_up(worker)

    def _give(self, place: int, task: int) -> None:
        """The task is this process's, at once or as soon as it has loaded elastix."""
        worker = self._workers[place]
        try:
            worker.future = worker.executor.submit(self._align_one, self._tasks[task])
        except BrokenProcessPool:  # it died while it was idle
            worker = self._replace(worker)
            worker.future = worker.executor.submit(self._align_one, self._tasks[task])
        worker.task, worker.since_s = task, time.monotonic()

    def _hear(self, worker: _Worker) -> None:
        assert worker.future is not None
        worker.since_s = time.monotonic()
        if not worker.future.done():
            return  # it has loaded elastix; the disc's time begins
        try:
            self._outcomes[worker.task] = worker.future.result()
        except RegistrationFailed as failure:
            self._outcomes[worker.task] = failure
        except BrokenProcessPool:
            self._lose(worker)
            return
        worker.future = None

    def _lose(self, worker: _Worker) -> None:
        """A process died: its disc is tried once more."""
        self._replace(worker)
        self._tries[worker.task] += 1
        if self._tries[worker.task] < _TRIES:
            _log.warning("a registration process died; its disc is tried again")
            self._waiting.appendleft(worker.task)
        else:
            level = self._tasks[worker.task].atlas.level
            self._outcomes[worker.task] = RegistrationFailed(level, "the registration process died twice")

    def _give_up(self, worker: _Worker) -> None:
        doing = "registration" if worker.loaded.done() else "loading elastix"
        detail = f"killed after {self._deadline_s:g} s of {doing}, the deadline"
        self._outcomes[worker.task] = RegistrationFailed(self._tasks[worker.task].atlas.level, detail)
        self._replace(worker)

    def _replace(self, worker: _Worker) -> _Worker:
        worker.end()
        new = self._workers[self._workers.index(worker)] = self._start()
        return new


def _explain(failure: RegistrationFailed) -> str:
    """The reason, with elastix' last words."""
    said = " ".join(failure.log[-_REASON_LOG_CHARACTERS:].split())
    return f"registration failed: {failure}" + (f"; elastix' log ends with: {said}" if said else "")


def _begin() -> None:
    """First thing in a new process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, even when that was killed and could not say goodbye."""
    parent = parent_process()
    if parent is None:
        return
    while os.getppid() == parent.pid:  # also asked directly: a sibling could hold the sentinel open
        if connection.wait([parent.sentinel], timeout=1.0):
            break
    os._exit(1)  # no clean-up: elastix may be deep in native code
