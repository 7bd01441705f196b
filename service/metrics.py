"""What is measured, as Prometheus text: counts, ages and what runs. No identity, no UIDs, no names of callers."""

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry
from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from service import database as db
from service.database import Database
from service.health import Health
from service.states import DeliveryState, ExamState, JobState, QuarantineState
from service.tally import DEATHS, FAILED_LOGINS, REFUSED_CALLS, counts
from service.trials.watch import count_trials

KEEP_S = 2.0  # an answer is given again for so long: two who ask at once cost one look
_BOUNDS_S = (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


@dataclass(frozen=True, slots=True)
class Running:
    """What the supervisor knows without the database: wanted and running processes by kind, seconds behind by task."""

    wanted: Mapping[str, int]
    alive: Mapping[str, int]
    late_s: Mapping[str, float]


@dataclass(slots=True)
class _Grown:
    """What only grows, read on from where the last look ended; it starts anew with the node, as a counter may."""

    last_instance: int = -1
    objects: int = 0
    bytes: int = 0
    last_finished: datetime = field(default_factory=lambda: datetime.now(UTC))
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS_S) + 1))
    seconds: float = 0.0


class Metrics:
    """Answers ``/metrics``. Its methods may be called from any thread."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        health: Callable[[], Health],
        running: Callable[[], Running],
    ) -> None:
        self._database, self._settings = database, settings
        self._health, self._running = health, running
        self._grown = _Grown()
        self._lock = threading.Lock()
        self._kept, self._kept_at_s = b"", float("-inf")
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All that is measured, in the Prometheus text format."""
        with self._lock:
            if time.monotonic() - self._kept_at_s > KEEP_S:
                self._kept, self._kept_at_s = generate_latest(self._registry), time.monotonic()
            return self._kept

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead: the registry need not collect to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        yield InfoMetricFamily("discnode_build", "The running software", {"version": version("discnode")})
        yield from self._of_health()
        yield from self._of_disk()
        families: list[Metric] = []
        try:
            with self._database.read() as connection:
                for part in (_exams, _jobs, _outbox, _quarantine, self._received, self._durations):
                    families += part(connection)
                if self._settings.trials_dir is not None:
                    families += _trials(connection)
            families += _tallies(counts(self._database))
        except SQLAlchemyError:
            families = []  # all or none: half a look would read as zero
        yield _gauge(
            "discnode_database_readable", "1 if the figures from the database are there", float(bool(families))
        )
        yield from families

    def _of_health(self) -> Iterator[Metric]:
        now = self._health()
        yield _gauge("discnode_ready", "1 if images can be received and analysed", float(now.is_ready))
        ok = GaugeMetricFamily(
            "discnode_check_ok", "1 if a check of /health/ready found nothing wrong", labels=["check"]
        )
        for one in now.checks:
            ok.add_metric([one.name], float(not one.wrong))
        yield ok
        running = self._running()
        up = GaugeMetricFamily("discnode_processes_up", "Processes that run", labels=["kind"])
        wanted = GaugeMetricFamily("discnode_processes_wanted", "Processes that should run", labels=["kind"])
        for kind, number in running.wanted.items():
            wanted.add_metric([kind], number)
            up.add_metric([kind], running.alive.get(kind, 0))
        yield up
        yield wanted
        lag = GaugeMetricFamily("discnode_schedule_lag_seconds", "How late a task of the schedule is", labels=["task"])
        for task, seconds in sorted(running.late_s.items()):
            lag.add_metric([task], seconds)
        yield lag

    def _of_disk(self) -> Iterator[Metric]:
        try:
            usage = shutil.disk_usage(self._settings.storage_dir)
        except OSError:
            return
        yield _gauge("discnode_disk_free_bytes", "Free space where the storage folder is", usage.free)
        yield _gauge("discnode_disk_total_bytes", "Size of the file system of the storage folder", usage.total)

    def _received(self, connection: Connection) -> list[Metric]:
        table, grown = db.instance, self._grown
        query = select(func.count(), func.sum(table.c.size_bytes), func.max(table.c.id))
        if grown.last_instance < 0:  # the first look: from here on
            grown.last_instance = connection.execute(select(func.max(table.c.id))).scalar() or 0
        number, size, newest = connection.execute(query.where(table.c.id > grown.last_instance)).one()
        if number:
            grown.objects, grown.bytes, grown.last_instance = grown.objects + number, grown.bytes + int(size), newest
        return [
            CounterMetricFamily("discnode_received_objects", "Objects received since the node started", grown.objects),
            CounterMetricFamily("discnode_received_bytes", "Bytes received since the node started", grown.bytes),
        ]

    def _durations(self, connection: Connection) -> list[Metric]:
        table, grown = db.job, self._grown
        query = select(table.c.started_at, table.c.finished_at).where(
            table.c.finished_at > grown.last_finished, table.c.started_at.is_not(None)
        )
        for row in connection.execute(query.order_by(table.c.finished_at)):
            seconds = max(0.0, (row.finished_at - row.started_at).total_seconds())
            place = sum(seconds > bound for bound in _BOUNDS_S)
            grown.buckets[place] += 1
            grown.seconds += seconds
            grown.last_finished = row.finished_at
        names, total, buckets = [*map(str, _BOUNDS_S), "+Inf"], 0, []
        for name, number in zip(names, grown.buckets, strict=True):
            total += number
            buckets.append((name, float(total)))
        text = "Wall time of the analyses finished since the node started, from their last start"
        return [HistogramMetricFamily("discnode_job_duration_seconds", text, buckets=buckets, sum_value=grown.seconds)]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _age_s(moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _exams(connection: Connection) -> list[Metric]:
    found = {row[0]: int(row[1]) for row in connection.execute(_by(db.exam.c.state))}
    family = GaugeMetricFamily("discnode_exams", "Exams by state", labels=["state"])
    for state in ExamState:
        family.add_metric([state], found.get(state, 0))
    return [family]


def _jobs(connection: Connection) -> list[Metric]:
    table = db.job
    found = {row[0]: int(row[1]) for row in connection.execute(_by(table.c.state))}
    family = GaugeMetricFamily("discnode_jobs", "Analyses by state", labels=["state"])
    for state in JobState:
        family.add_metric([state], found.get(state, 0))
    oldest = connection.execute(
        select(func.min(table.c.created_at)).where(table.c.state == str(JobState.QUEUED))
    ).scalar()
    return [family, _gauge("discnode_jobs_queued_oldest_seconds", "Age of the oldest queued analysis", _age_s(oldest))]


def _outbox(connection: Connection) -> list[Metric]:
    table = db.delivery
    family = GaugeMetricFamily(
        "discnode_outbox", "Result objects by destination and state", labels=["destination", "state"]
    )
    query = select(table.c.destination, table.c.state, func.count()).group_by(table.c.destination, table.c.state)
    found = {(name, state): number for name, state, number in connection.execute(query)}
    for name in sorted({one for one, _ in found}):
        for state in DeliveryState:
            family.add_metric([name, state], found.get((name, state), 0))
    ages = GaugeMetricFamily(
        "discnode_outbox_oldest_seconds",
        "Age of the oldest result that waits for a destination",
        labels=["destination"],
    )
    waiting = (
        select(table.c.destination, func.min(db.job.c.finished_at))
        .join(db.job, db.job.c.id == table.c.job_id)
        .where(table.c.state == str(DeliveryState.WAITING))
        .group_by(table.c.destination)
    )
    oldest = {row[0]: row[1] for row in connection.execute(waiting)}
    for name in sorted({one for one, _ in found}):
        ages.add_metric([name], _age_s(oldest.get(name)))
    held = select(func.min(db.job.c.finished_at)).join(table, table.c.job_id == db.job.c.id)
    since = connection.execute(held.where(table.c.state == str(DeliveryState.HELD))).scalar()
    decided = _gauge(
        "discnode_release_oldest_seconds", "Age of the oldest result that a person must let go", _age_s(since)
    )
    return [family, ages, decided]


def _quarantine(connection: Connection) -> list[Metric]:
    table = db.quarantine
    family = GaugeMetricFamily("discnode_quarantine_held", "What is held, by reason code", labels=["code"])
    held = _by(table.c.code).where(table.c.state == str(QuarantineState.HELD))
    for code, number in sorted((str(code), number) for code, number in connection.execute(held)):
        family.add_metric([code], number)
    return [family]


def _trials(connection: Connection) -> list[Metric]:
    visits = GaugeMetricFamily("discnode_trial_visits", "Exams taken for visits, by state", labels=["trial", "state"])
    held = GaugeMetricFamily("discnode_trial_held", "Exams a trial holds, by reason code", labels=["trial", "code"])
    missed = GaugeMetricFamily("discnode_trial_missed_visits", "Expected visits that did not come", labels=["trial"])
    edited = GaugeMetricFamily("discnode_trial_plan_edited", "1 if a frozen plan's file was edited", labels=["trial"])
    for one in count_trials(connection):
        for state, number in one.visits.items():
            visits.add_metric([one.protocol_id, state], number)
        for code, number in sorted(one.held.items()):
            held.add_metric([one.protocol_id, code], number)
        missed.add_metric([one.protocol_id], one.missed)
        edited.add_metric([one.protocol_id], float(one.is_edited))
    return [visits, held, missed, edited]


def _tallies(found: Mapping[tuple[str, str], int]) -> list[Metric]:
    families: list[Metric] = []
    for name, metric, text, label in (
        (REFUSED_CALLS, "discnode_refused_associations", "Associations that were refused, by reason", "reason"),
        (FAILED_LOGINS, "discnode_failed_logins", "Logins of the web that failed, by reason", "reason"),
        (DEATHS, "discnode_process_deaths", "Processes of the node that ended unexpectedly, by kind", "kind"),
    ):
        family = CounterMetricFamily(metric, text, labels=[label])
        for (kind, value), number in sorted(found.items()):
            if kind == name:
                family.add_metric([value], number)
        families.append(family)
    return families


def _by(column: Any) -> Select[Any]:
    return select(column, func.count()).group_by(column)
