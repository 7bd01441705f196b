"""Deletes files of exams that are done and delivered everywhere, after the days that the settings give them.

Never: what waits or was not taken by a destination, or may be gone there; what is held, or has a case open; an exam
with a job that waits, runs or is parked; a result that goes nowhere. So the last version stays while its successor is
on its way.

The rows stay. Each goes "deleting" (in the transaction that finds the exam settled) -> files removed -> "deleted", so
that after kill -9 the rest is removed by the next look. Files are only removed inside a write transaction: an object
that comes again at that moment is either there, or is known to be gone (service.arrivals).
"""

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

from sqlalchemy import Connection, Row, false, or_, select, update

from config.retention import Retention
from config.settings import Confirm, Settings
from processing.results import Verdict
from service import database as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.holds import Hold
from service.jobs import exam_folder
from service.reconciliation import destinations_in_doubt
from service.states import (
    GONE,
    DeliveryState,
    ExamState,
    FilesState,
    InstanceState,
    JobState,
    QuarantineState,
)

_log = logging.getLogger(__name__)

#: Files of objects in these states may go with their exam; any other state keeps the exam.
_DISPOSABLE = (InstanceState.INDEXED, InstanceState.CORRECTION, InstanceState.SET_ASIDE)
_YOUNG_S = 3600.0  # a file younger than this may be about to get its row


@dataclass(slots=True)
class Deletions:
    """What was deleted, or would be. ``kept``: how many exams stay for now, by reason."""

    n_images: int = 0
    n_results: int = 0
    n_bytes: int = 0
    study_uids: list[str] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Exam:
    """An exam that is settled: since when, and the studies measured in it."""

    id: int
    study_uids: tuple[str, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class _Destinations:
    """Names of those that are not asked what they have, and of those of which a comparison found much missing."""

    unasked: frozenset[str]
    in_doubt: frozenset[str]


def unasked_destinations(settings: Settings) -> frozenset[str]:
    """Names of the destinations that are not asked what they have."""
    return frozenset(one.name for one in settings.destinations if one.confirm is Confirm.NONE)


def apply_retention(
    database: Database,
    retention: Retention,
    now: datetime,
    *,
    unasked: Collection[str] = (),
    dry_run: bool = False,
    by: str = "",
) -> Deletions:
    """Delete what has had its time; with ``dry_run`` only tell what that would be.

    ``unasked``: names of destinations that are not asked what they have (``confirm: none``). Theirs is what they took.
    ``by``: the person who has it done; empty where the node does it by itself.
    """
    done = Deletions()
    if not dry_run:
        _finish_images(database, done)  # what a killed node had begun
        _finish_results(database, done)
    destinations = _Destinations(frozenset(unasked), destinations_in_doubt(database))
    for exam_id in _candidates(database, retention, now):
        _one_exam(database, exam_id, retention, now, done, destinations=destinations, dry_run=dry_run, by=by)
    if done.study_uids and not dry_run:
        facts = {"images": done.n_images, "results": done.n_results, "bytes": done.n_bytes}
        _log.info("files deleted by retention", extra={**facts, "study_uids": ",".join(done.study_uids)})
    return done


def _candidates(database: Database, retention: Retention, now: datetime) -> list[int]:
    """Exams that have been analysed, are old enough and have files still of a kind that is not kept for ever."""
    images = select(db.instance.c.id).where(
        db.instance.c.study_uid == db.exam.c.study_uid, db.instance.c.state.not_in([str(one) for one in GONE])
    )
    results = select(db.job.c.id).where(db.job.c.exam_id == db.exam.c.id, db.job.c.files.is_(None))
    kinds = [
        query.exists() & (db.exam.c.last_arrival_at <= now - timedelta(days=days))
        for query, days in ((images, retention.images_days), (results, retention.results_days))
        if days is not None
    ]
    query = select(db.exam.c.id).where(db.exam.c.state == str(ExamState.ANALYSED), or_(false(), *kinds))
    with database.read() as connection:
        return list(connection.execute(query.order_by(db.exam.c.id)).scalars())


def _one_exam(
    database: Database,
    exam_id: int,
    retention: Retention,
    now: datetime,
    done: Deletions,
    *,
    destinations: _Destinations,
    dry_run: bool,
    by: str,
) -> None:
    with database.read() if dry_run else database.write() as connection:
        found = _settled(connection, exam_id, destinations, is_to_stay=not dry_run)
        if isinstance(found, str):
            done.kept[found] += 1
            return
        images, results = [], []
        if _is_over(found.since, retention.images_days, now):
            images = _mark_images(connection, found, dry_run=dry_run)
        if _is_over(found.since, retention.results_days, now):
            results = _mark_results(connection, found, dry_run=dry_run)
        if (images or results) and not dry_run:
            what = f"{len(images)} images, {len(results)} results, by retention"
            note(connection, AuditEvent(AuditKind.DELETED, now, by=by, studies=found.study_uids, detail=what))
    if not images and not results:
        done.kept["has time left, or is kept by the settings"] += 1
        return
    done.study_uids.extend(found.study_uids)
    if dry_run:
        done.n_images += len(images)
        done.n_results += len(results)
        folder = database.storage_dir / exam_folder(exam_id)
        done.n_bytes += sum(size for _, size in images)
        done.n_bytes += sum(_size(path) for version in results for path in _result_files(folder / f"v{version}"))
        return
    _finish_images(database, done)
    _finish_results(database, done)


def _is_over(since: datetime, days: float | None, now: datetime) -> bool:
    return days is not None and since <= now - timedelta(days=days)


def _settled(
    connection: Connection, exam_id: int, destinations: _Destinations, *, is_to_stay: bool = False
) -> _Exam | str:
    """The exam, if nothing that is left to do with it needs its files; else why it is kept.

    ``is_to_stay``: and nothing comes to it before the transaction ends (SQLite has but one writer anyway).
    """
    exam, instance, job, delivery = db.exam, db.instance, db.job, db.delivery
    group = select(exam.c.id, exam.c.study_uid, exam.c.state, exam.c.version, exam.c.last_arrival_at).where(
        or_(exam.c.id == exam_id, exam.c.joined_to == exam_id)
    )
    group = group.order_by(exam.c.id)
    exams = connection.execute(group.with_for_update() if is_to_stay else group).all()
    own = next((one for one in exams if one.id == exam_id), None)
    if own is None or own.state != ExamState.ANALYSED:
        return "is not analysed"
    ids, uids = [one.id for one in exams], tuple(one.study_uid for one in exams)
    states = set(
        connection.execute(select(instance.c.state).where(instance.c.study_uid.in_(uids)).distinct()).scalars()
    )
    if not states <= {str(one) for one in (*_DISPOSABLE, *GONE)}:
        return "has objects that are held or not yet judged"
    if _has_open_case(connection, ids, uids):
        return "has an open case"
    jobs = connection.execute(select(job).where(job.c.exam_id.in_(ids)).order_by(job.c.version)).all()
    own_jobs = [one for one in jobs if one.exam_id == exam_id]
    if not own_jobs or any(one.state not in (JobState.DONE, JobState.SUPERSEDED) for one in jobs):
        return "has a job that is not done"
    newest = own_jobs[-1]
    if newest.state != JobState.DONE or newest.version != own.version or newest.verdict == Verdict.REFUSED:
        return "has no newest result"
    sent = connection.execute(select(delivery).where(delivery.c.job_id.in_([one.id for one in jobs]))).all()
    if not all(_is_settled(one, one.destination in destinations.unasked) for one in sent):
        return "is not delivered everywhere"
    if not destinations.in_doubt.isdisjoint(one.destination for one in sent):
        return "may be gone from a destination: see 'discnode reconcile'"
    if not any(one.job_id == newest.id for one in sent):
        return "was sent nowhere"
    times = [
        *(one.last_arrival_at for one in exams),
        *(one.finished_at for one in jobs),
        *(one.sent_at for one in sent),
    ]
    return _Exam(exam_id, uids, max(one for one in times if one is not None))


def _is_settled(one: Row[Any], is_unasked: bool) -> bool:
    """Whether the destination has it; of what is never sent: whether a newer version took its place, or it was there.

    What a person rejected before it was anywhere is kept: nobody else has it.
    """
    if one.state == DeliveryState.REJECTED:
        was_there = one.confirmed_at is not None or (is_unasked and one.sent_at is not None)
        return was_there or Hold.SUPERSEDED in (one.holds or {})
    return one.state == DeliveryState.CONFIRMED or (is_unasked and one.state == DeliveryState.SENT)


def _has_open_case(connection: Connection, exam_ids: Sequence[int], study_uids: Sequence[str]) -> bool:
    case = db.quarantine
    query = (
        select(case.c.id)
        .outerjoin(db.instance, db.instance.c.id == case.c.instance_id)
        .where(
            case.c.state == str(QuarantineState.HELD),
            or_(case.c.exam_id.in_(exam_ids), db.instance.c.study_uid.in_(study_uids)),
        )
    )
    return connection.execute(query.limit(1)).first() is not None


def _mark_images(connection: Connection, exam: _Exam, *, dry_run: bool) -> list[tuple[int, int]]:
    """Numbers and sizes of the exam's objects that go; unless ``dry_run`` they are marked as going."""
    table = db.instance
    query = select(table.c.id, table.c.size_bytes).where(
        table.c.study_uid.in_(exam.study_uids), table.c.state.in_([str(one) for one in _DISPOSABLE])
    )
    found = [(int(row.id), int(row.size_bytes)) for row in connection.execute(query)]
    if not dry_run:
        for number, _ in found:
            move(connection, table, number, InstanceState.DELETING, facts=None)
    return found


def _mark_results(connection: Connection, exam: _Exam, *, dry_run: bool) -> list[int]:
    """The versions whose files go; unless ``dry_run`` they are marked as going."""
    table = db.job
    condition = (table.c.exam_id == exam.id) & (table.c.state == str(JobState.DONE)) & table.c.files.is_(None)
    found = list(connection.execute(select(table.c.version).where(condition)).scalars())
    if not dry_run:
        connection.execute(update(table).where(condition).values(files=str(FilesState.DELETING)))
    return found


def _finish_images(database: Database, done: Deletions) -> None:
    """Remove the files of all objects that are marked, unless another object or case lies in the same file."""
    table, case = db.instance, db.quarantine
    going = select(table.c.id, table.c.path, table.c.size_bytes).where(table.c.state == str(InstanceState.DELETING))
    with database.read() as connection:
        if connection.execute(going.limit(1)).first() is None:
            return
    with database.write() as connection:
        # PostgreSQL: what comes again in this moment is either taken up before, and no longer going, or waits.
        for row in connection.execute(going.with_for_update()).all():
            others = select(table.c.id).where(
                table.c.path == row.path, table.c.id != row.id, table.c.state != str(InstanceState.DELETED)
            )
            cases = select(case.c.id).where(case.c.path == row.path, case.c.state == str(QuarantineState.HELD))
            if connection.execute(others.union(cases).limit(1)).first() is None:
                with contextlib.suppress(FileNotFoundError):
                    (database.inbox_dir / row.path).unlink()
                done.n_bytes += row.size_bytes
            move(connection, table, row.id, InstanceState.DELETED)
            done.n_images += 1


def _finish_results(database: Database, done: Deletions) -> None:
    """Remove the files of all results that are marked. result.json stays: it tells the node's own objects."""
    table = db.job
    going = select(table.c.id, table.c.exam_id, table.c.version).where(table.c.files == str(FilesState.DELETING))
    with database.read() as connection:
        rows = connection.execute(going).all()
    for row in rows:
        folder = database.storage_dir / exam_folder(row.exam_id) / f"v{row.version}"
        for path in _result_files(folder):
            done.n_bytes += _size(path)
            path.unlink(missing_ok=True)
        for one in [one for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []:
            shutil.rmtree(one)
        with database.write() as connection:
            connection.execute(update(table).where(table.c.id == row.id).values(files=str(FilesState.DELETED)))
        done.n_results += 1


def _result_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path != folder / "result.json"]


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def orphans(database: Database) -> Iterator[tuple[Path, int]]:
    """Files of the inbox, with their sizes, that nothing on record names. They are never deleted here.

    One that is younger than an hour may be about to get its row, and is not counted.
    """
    with database.read() as connection:
        named = set(connection.execute(select(db.instance.c.path)).scalars())
        named |= set(connection.execute(select(db.quarantine.c.path)).scalars())
    for path in sorted((database.inbox_dir / "objects").rglob("*")):
        if not path.is_file() or str(path.relative_to(database.inbox_dir)) in named:
            continue
        status = path.stat()
        if status.st_mtime < time() - _YOUNG_S:
            yield path, status.st_size
