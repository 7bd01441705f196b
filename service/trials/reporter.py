"""The process that makes the reports of subjects that are due. It may be killed at any moment.

A report is built in a folder of its own, which takes its place in the same transaction that records it, puts its
objects on their way and ends the demand: there is the version before, or the new one whole.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from config.settings import Settings
from processing.precision_profile import read_precision
from service import trial_tables as tables
from service.children import receive_message
from service.database import Database, open_database
from service.durable import flush, flush_tree
from service.failure_text import describe_failure
from service.holds import Hold, settle_reports, unsettle_reports
from service.logs import log_to_stderr
from service.trials.history import SubjectHistory, read_history
from service.trials.observations import compared_maps
from service.trials.phantoms import phantom_hold, phantom_state
from service.trials.registry import Trial, trial_by_id
from service.trials.report_contents import EarlierVersion, ReportContents, ReportEdition, Signed, VisitQuality
from service.trials.report_demands import claim_due, end_demand, note_error
from service.trials.report_inputs import inputs_digest
from service.trials.report_outbox import ReportObject, put_report_in_outbox

_log = logging.getLogger(__name__)

POLL_S = 1.0
REPORTS = Path("reports")  # in the storage folder


class VersionTaken(Exception):
    """Somebody else made a version of the report meanwhile."""


@dataclass(frozen=True, slots=True)
class MadeReport:
    """A version of a report that was made. ``folder``: relative to the storage folder."""

    report_id: int
    version: int
    folder: Path
    n_deliveries: int


def run_reporter(database: Database, settings: Settings) -> None:
    """Make reports until killed."""
    while True:
        if not make_next(database, settings, datetime.now(UTC)):
            time.sleep(POLL_S)


def make_next(database: Database, settings: Settings, now: datetime) -> bool:
    """Make the report that has waited longest; False if none is due. Whatever goes wrong stands in the record."""
    due = claim_due(database, now, settings.jobs.retry_s)
    if due is None:
        return False
    started_s = time.monotonic()
    try:
        made = make_report(database, settings, due.subject_id, due.asked_at)
    except Exception as error:  # noqa: BLE001 - the reporter's loop: a bug in one report must not stop the others
        note_error(database, due, describe_failure(error))
        what = {"subject": due.subject_id, "error": type(error).__name__, "attempt": due.attempts}
        _log.error("report not made", extra=what)
        return True
    seconds = round(time.monotonic() - started_s, 1)
    outcome = {"version": made.version, "objects": made.n_deliveries} if made else {"unchanged": True}
    _log.info("report due", extra={"subject": due.subject_id, **outcome, "wall_s": seconds})
    return True


def make_report(database: Database, settings: Settings, subject_id: int, asked_at: datetime) -> MadeReport | None:
    """Make the next version of a subject's report and put it on its way; None where there is nothing new to show.

    Args:
        database: the node's record.
        settings: of the node.
        subject_id: number of the subject's row.
        asked_at: when it was asked for; it stands in the report as the time of its making, in every attempt.

    Raises:
        VersionTaken: another process was faster; nothing is changed.
        SettingsError: the plan's precision profile, or the file of treated levels, cannot be used.
    """
    source = read_source(database, settings, subject_id)
    newest = source.history.newest
    if newest is None or newest.job_id is None or source.digest == source.last_digest:
        with database.write() as connection:
            if newest is not None and end_demand(connection, subject_id, asked_at):
                settle_reports(connection, subject_id)
            elif newest is None:
                end_demand(connection, subject_id, asked_at)
                unsettle_reports(connection, subject_id, "nothing of what it shows counts any more")
        return None
    number = len(source.earlier) + 1
    place = REPORTS / f"subject-{subject_id:06d}" / f"v{number}"
    building = settings.storage_dir / place.with_name(f".building-v{number}-{os.getpid()}")
    _clear(building.parent)
    building.mkdir(parents=True)
    try:
        earlier = None if not source.earlier else settings.storage_dir / place.with_name(f"v{number - 1}")
        objects = _write(
            source, ReportEdition(number, asked_at, source.digest, source.software, source.earlier), building, earlier
        )
        flush_tree(building)
        with database.write() as connection:
            report_id = _record(connection, source, subject_id, number, place, newest.job_id, asked_at)
            sent = [ReportObject(uid, kind, str(place / path)) for uid, kind, path in objects]
            warnings = (*source.history.assessment.warnings, *source.history.warnings)
            plan = source.trial.plan
            why = "" if newest.acquisition is None else phantom_hold(connection, newest.acquisition.device_serial)
            held_by: dict[str, str] = {Hold.PHANTOM: why} if why else {}
            now = datetime.now(UTC)
            n = put_report_in_outbox(
                connection, settings, plan, report_id, sent, now, warnings=warnings, held_by=held_by
            )
            if not end_demand(connection, subject_id, asked_at):  # what it shows has changed while it was made
                unsettle_reports(connection, subject_id, "a new version of the report is due")
            _publish(building, settings.storage_dir / place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return MadeReport(report_id, number, place, n)


@dataclass(frozen=True, slots=True)
class ReportSource:
    """What the next version of a subject's report would show. ``last_digest``: of the version before, or ""."""

    trial: Trial
    history: SubjectHistory
    quality: Mapping[str, VisitQuality]
    earlier: tuple[EarlierVersion, ...]
    digest: str
    last_digest: str
    software: str


def read_source(database: Database, settings: Settings, subject_id: int) -> ReportSource:
    """Read what there is to be shown of a subject.

    Raises:
        LookupError: there is no such subject.
        SettingsError: as :func:`make_report`.
    """
    table = tables.subject
    with database.read() as connection:
        row = connection.execute(select(table).where(table.c.id == subject_id)).one_or_none()
        if row is None:
            raise LookupError(f"there is no subject {subject_id}")
        trial = trial_by_id(connection, row.trial_id)
        versions = _versions(connection, subject_id)
        earlier = tuple(_earlier(connection, one) for one in versions)
    history = read_history(database, settings, trial.plan, row)
    quality = {
        one.name: VisitQuality(phantom=phantom_state(database, trial.plan, one.acquisition, one.scan_date).text)
        for one in history.visits
        if one.is_measured and one.acquisition is not None and one.scan_date is not None
    }
    software = version("discnode")
    digest = inputs_digest(history, quality, software)
    last = versions[-1].inputs_digest if versions else ""
    return ReportSource(trial, history, quality, earlier, digest, last, software)


def contents_of(source: ReportSource, edition: ReportEdition, *, days_only: bool = False) -> ReportContents:
    """Everything that a report shows, its pictures among it."""
    from dicom_io.visit_images import ResultIncomplete, read_visit_images
    from service.trials.visit_quality import dice_with_visit_before

    images = {}
    for visit in source.history.visits:
        if visit.is_measured and visit.folder is not None:
            try:
                images[visit.name] = read_visit_images(visit.folder)
            except ResultIncomplete:
                continue  # retention has taken its objects; the report says that there are no images
    history = source.history
    dice = dice_with_visit_before(history.visits, images)
    quality = {
        one.name: replace(source.quality.get(one.name, VisitQuality()), dice_before=dice.get(one.name))
        for one in history.visits
    }
    precision = read_precision(history.plan.change.precision)
    maps = compared_maps(history.visits, history.non_evaluable)
    return ReportContents(history, history.assessment, images, quality, edition, precision, days_only, maps)


def _write(
    source: ReportSource, edition: ReportEdition, folder: Path, earlier: Path | None
) -> list[tuple[str, str, Path]]:
    """UID, kind and path of each DICOM object made."""
    from service.trials.report_files import write_report

    made = write_report(contents_of(source, edition), folder, earlier)
    return [(one.sop_instance_uid, str(one.kind), one.path) for one in made]


def _versions(connection: Connection, subject_id: int) -> list[Row[Any]]:
    table = tables.subject_report
    return list(
        connection.execute(select(table).where(table.c.subject_id == subject_id).order_by(table.c.version)).all()
    )


def _earlier(connection: Connection, row: Row[Any]) -> EarlierVersion:
    table = tables.signature
    signatures = connection.execute(
        select(table)
        .where(table.c.subject_of == "report", table.c.subject_key == row.id)
        .order_by(table.c.signed_at, table.c.id)
    )
    signed = tuple(Signed(one.decision, one.meaning, one.signed_by, one.signed_at) for one in signatures)
    return EarlierVersion(row.version, row.created_at, signed)


def _record(
    connection: Connection,
    source: ReportSource,
    subject_id: int,
    number: int,
    place: Path,
    job_id: int,
    asked_at: datetime,
) -> int:
    if len(_versions(connection, subject_id)) + 1 != number:
        raise VersionTaken(f"version {number} of the report of subject {subject_id}")
    has_warnings = bool(source.history.warnings or source.history.assessment.warnings)
    result = connection.execute(
        insert(tables.subject_report).values(
            subject_id=subject_id,
            version=number,
            inputs_digest=source.digest,
            folder=str(place),
            job_id=job_id,
            has_warnings=has_warnings,
            created_at=asked_at,
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def _clear(folder: Path) -> None:
    """Remove what attempts that died have left there."""
    for left in folder.glob(".building-*"):
        pid = left.name.split("-")[2]
        if int(pid) == os.getpid() or not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)


def _publish(building: Path, final: Path) -> None:
    """Give a finished, durable folder its name. What has it already was left by an attempt that died before its end."""
    if final.exists():
        left = building.with_name(f"{building.name}-left")
        shutil.rmtree(left, ignore_errors=True)
        os.replace(final, left)
        shutil.rmtree(left, ignore_errors=True)
    os.replace(building, final)
    flush(final.parent)


def main() -> None:
    """The process: told its name and the settings on stdin."""
    message = receive_message()
    log_to_stderr(message.name, message.settings.logs)
    database = open_database(message.settings)
    _log.info("reporter waits for demands", extra={"pid": os.getpid()})
    run_reporter(database, message.settings)


if __name__ == "__main__":
    main()
