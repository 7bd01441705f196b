"""What runs when, in the supervisor."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import OperationalError

from config.settings import Settings

_log = logging.getLogger(__name__)

DELIVERY_S = 1.0
CONFIRMATION_S = 1.0
RECONCILIATION_S = 30.0  # how often is looked whether it is time
ECHO_S = 2.0
SOURCE_S = 0.5
COMMITMENT_S = 1.0


def build_schedule(
    settings: Settings,
    *,
    sweep_intake: Callable[[], None],
    sweep_leases: Callable[[], None],
    echo_receiver: Callable[[], None],
    deliver: Callable[[str], None],
    confirm: Callable[[str], None],
    reconcile: Callable[[str], None],
    ask_source: Callable[[str], None],
    report_commitments: Callable[[], None],
    apply_retention: Callable[[], None],
    others: Sequence[tuple[str, Callable[[], None], float]],
    lateness: "Lateness",
) -> BackgroundScheduler:
    """A schedule, not yet started. One task never runs twice at once; a slow peer holds up only itself."""
    tasks: list[tuple[str, Callable[..., None], float, tuple[str, ...]]] = [
        ("intake", sweep_intake, settings.completion.sweep_s, ()),
        ("leases", sweep_leases, settings.jobs.lease_s / 4, ()),
        ("commitments", report_commitments, COMMITMENT_S, ()),
        ("echo", echo_receiver, ECHO_S, ()),
        ("retention", apply_retention, settings.retention.every_s, ()),
        *((name, task, seconds, ()) for name, task, seconds in others),
        *((f"deliver {one.name}", deliver, DELIVERY_S, (one.name,)) for one in settings.destinations),
        *((f"confirm {one.name}", confirm, CONFIRMATION_S, (one.name,)) for one in settings.destinations),
        *((f"reconcile {one.name}", reconcile, RECONCILIATION_S, (one.name,)) for one in settings.destinations),
        *((f"source {one.name}", ask_source, SOURCE_S, (one.name,)) for one in settings.sources),
    ]
    scheduler = BackgroundScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(len(tasks))},
        job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
    )
    for name, task, seconds, arguments in tasks:
        timed = lateness.timed(name, task, seconds)
        scheduler.add_job(timed, "interval", seconds=seconds, args=arguments, id=name, next_run_time=datetime.now(UTC))
    return scheduler


class Lateness:
    """How late each task is: seconds since it last ended, less its interval. May be asked from any thread."""

    def __init__(self) -> None:
        self._ended_s: dict[str, float] = {}
        self._interval_s: dict[str, float] = {}

    def timed(self, name: str, task: Callable[..., None], interval_s: float) -> Callable[..., None]:
        """The task, noting when it ends."""
        self._ended_s[name], self._interval_s[name] = time.monotonic(), interval_s

        def run(*arguments: Any) -> None:
            try:
                task(*arguments)
            except OperationalError as error:  # locked by another program, or the disk is full: it is tried again
                _log.error("task not done", extra={"task": name, "error": type(error).__name__})
            finally:
                self._ended_s[name] = time.monotonic()

        return run

    def late_s(self) -> dict[str, float]:
        """Task -> seconds behind."""
        now_s = time.monotonic()
        return {name: max(0.0, now_s - at_s - self._interval_s[name]) for name, at_s in self._ended_s.items()}
