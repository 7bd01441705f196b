"""Warm processes that register discs, one disc at a time in each.

elastix takes many seconds to load and may crash in native code. It is loaded once in each process; a process that dies
costs one retry of the discs it was given, not the exam.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from types import TracebackType
from typing import Any

from processing.refusal import Reason, ReasonCode
from processing.registration import DiscTask, RegisteredSignal, RegistrationFailed, align_disc, warm_up

_log = logging.getLogger(__name__)


class RegistrationPool:
    """Holds the processes. Close it, or use it as a context; they also end when this process ends, however it does.

    ``align_one`` must be a module's function: it is what the processes run on each task.
    """

    def __init__(
        self,
        processes: int,
        *,
        align_one: Callable[[DiscTask], RegisteredSignal] = align_disc,
        prepare: Callable[[], Any] = warm_up,
    ) -> None:
        self._processes = processes
        self._align_one = align_one
        self._prepare = prepare
        self._executor = self._open()

    def align(self, tasks: Sequence[DiscTask]) -> tuple[tuple[RegisteredSignal, ...], tuple[Reason, ...]]:
        """Register all discs side by side.

        Returns:
            What was registered, in the order of ``tasks``, and a REGISTRATION_POOR reason for each disc that was not.
        """
        outcomes = [self._outcome(future) for future in self._submit(tasks)]
        if any(isinstance(outcome, BrokenProcessPool) for outcome in outcomes):
            _log.warning("a registration process died; the discs it took with it are tried again, one by one")
            outcomes = [
                self._align_alone(task) if isinstance(outcome, BrokenProcessPool) else outcome
                for task, outcome in zip(tasks, outcomes, strict=True)
            ]
        registered = tuple(outcome for outcome in outcomes if isinstance(outcome, RegisteredSignal))
        failures = [outcome for outcome in outcomes if isinstance(outcome, RegistrationFailed)]
        for failure in failures:
            _log.warning("registration failed: %s; the end of elastix' log:\n%s", failure, failure.log)
        reasons = tuple(Reason(ReasonCode.REGISTRATION_POOR, f"registration failed: {failure}") for failure in failures)
        return registered, reasons

    def close(self) -> None:
        """End the processes."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "RegistrationPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> ProcessPoolExecutor:
        # spawn: a fork would copy the threads' locks of a process that has onnxruntime and a database open
        executor = ProcessPoolExecutor(
            self._processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._prepare,)
        )
        for _ in range(self._processes):
            executor.submit(_nothing)  # starts a process, which warms up while the caller does something else
        return executor

    def _submit(self, tasks: Sequence[DiscTask]) -> list["Future[RegisteredSignal]"]:
        try:
            return [self._executor.submit(self._align_one, task) for task in tasks]
        except BrokenProcessPool:  # a process died, now or while it was idle
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = self._open()
            return [self._executor.submit(self._align_one, task) for task in tasks]

    def _align_alone(self, task: DiscTask) -> RegisteredSignal | RegistrationFailed:
        """Second and last try, with no other disc in the pool that could take this one with it."""
        (future,) = self._submit([task])
        outcome = self._outcome(future)
        if isinstance(outcome, BrokenProcessPool):
            return RegistrationFailed(task.atlas.level, "the registration process died twice")
        return outcome

    @staticmethod
    def _outcome(future: "Future[RegisteredSignal]") -> RegisteredSignal | RegistrationFailed | BrokenProcessPool:
        try:
            return future.result()
        except (RegistrationFailed, BrokenProcessPool) as failure:
            return failure


def _begin(prepare: Callable[[], Any]) -> None:
    """First thing in a new process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, even when that was killed and could not say goodbye."""
    parent = parent_process()
    if parent is None:
        return
    while os.getppid() == parent.pid:  # also asked directly: a sibling could hold the sentinel open
        if connection.wait([parent.sentinel], timeout=1.0):
            break
    os._exit(1)  # no clean-up: elastix may be deep in native code


def _nothing() -> None:
    """Runs once a process is ready."""
