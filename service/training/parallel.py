"""Tasks in processes of their own, a few at a time; they end with the process that started them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from models.training.dataset import DataError


class TaskFailed(Exception):
    """A task ended early. What it said stands above; its checkpoint is kept."""


@dataclass(frozen=True, slots=True)
class Task:
    """``run(*arguments, say)`` in a process of its own; every line that it says is led by ``name``."""

    name: str
    run: Callable[..., None]
    arguments: tuple[Any, ...]


def run_tasks(tasks: Sequence[Task], processes: int) -> None:
    """Run all tasks, at most ``processes`` at a time, in order.

    Raises:
        TaskFailed: one ended with an error; the others were stopped.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(tasks)
    running: dict[int, tuple[Task, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                task = waiting.pop(0)
                process = context.Process(target=_perform, args=(task,), daemon=False)
                process.start()
                running[process.sentinel] = (task, process)
            for sentinel in wait(list(running)):
                assert isinstance(sentinel, int)
                task, process = running.pop(sentinel)
                process.join()
                if process.exitcode != 0:
                    raise TaskFailed(f"{task.name} ended early ({_status(process.exitcode)})")
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _status(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def _perform(task: Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of the terminal's processes; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(line: str) -> None:
        sys.stdout.write(f"{task.name}: {line}\n")
        sys.stdout.flush()

    try:
        task.run(*task.arguments, say)
    except (OSError, DataError) as error:  # a full disk is no bug: one line, no traceback
        sys.stderr.write(f"{task.name}: {error}\n")
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
