"""``discnode trial report``: a subject's report on demand."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from config.settings import Settings
from service import trial_tables as tables
from service.database import Database, open_database


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the action."""
    report = actions.add_parser("report", help="makes a subject's report now: its next version, or a draft in a folder")
    report.add_argument("subject", help="ID of the subject")
    report.add_argument("--config", type=Path, required=True, help="settings file of the node (YAML)")
    report.add_argument("--trial", default="", help="protocol ID, where subjects of two trials have the same ID")
    report.add_argument(
        "--out", type=Path, help="write it into this folder instead: no version is recorded, nothing is sent"
    )
    report.add_argument("--days-only", action="store_true", help="with --out: days from day zero instead of dates")
    report.set_defaults(command=lambda options: _report(options, load))


def _report(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    from service.trials.reporter import make_report

    settings = load(options.config)
    if options.days_only and options.out is None:
        print("--days-only is for drafts: give --out", file=sys.stderr)
        return 2
    database = open_database(settings)
    try:
        found = _subjects(database, options.subject, options.trial)
        if len(found) != 1:
            print(_which(options.subject, found), file=sys.stderr)
            return 2
        ((subject_id, _),) = found
        if options.out is not None:
            return _draft(database, settings, subject_id, options.out, days_only=options.days_only)
        made = make_report(database, settings, subject_id, datetime.now(UTC))
        if made is None:
            print(f"{options.subject}: nothing new to report")
            return 0
        print(f"{options.subject}: version {made.version} in {settings.storage_dir / made.folder}")
        print(f"  {made.n_deliveries} objects on their way to the trial's destinations, or held for a person")
        return 0
    finally:
        database.close()


def _subjects(database: Database, subject: str, protocol_id: str) -> list[tuple[int, str]]:
    """Numbers of the subjects of this ID, with the IDs of their trials."""
    query = select(tables.subject.c.id, tables.trial.c.protocol_id).join(
        tables.trial, tables.trial.c.id == tables.subject.c.trial_id
    )
    query = query.where(tables.subject.c.subject_id == subject)
    if protocol_id:
        query = query.where(tables.trial.c.protocol_id == protocol_id)
    with database.read() as connection:
        return [(int(row[0]), str(row[1])) for row in connection.execute(query.order_by(tables.trial.c.protocol_id))]


def _which(subject: str, found: list[tuple[int, str]]) -> str:
    if not found:
        return f"no subject {subject!r}; 'discnode trial status' lists them"
    return f"{subject!r} is in several trials: say --trial {' or '.join(name for _, name in found)}"


def _draft(database: Database, settings: Settings, subject_id: int, out: Path, *, days_only: bool) -> int:
    from service.trials.report_contents import ReportEdition
    from service.trials.report_files import write_report
    from service.trials.reporter import contents_of, read_source

    source = read_source(database, settings, subject_id)
    if out.exists() and any(out.iterdir()):
        print(f"{out}: is not empty", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    edition = ReportEdition(len(source.earlier) + 1, now, source.digest, source.software, source.earlier, is_draft=True)
    write_report(contents_of(source, edition, days_only=days_only), out)
    print(f"a draft in {out}: no version of it is on record")
    return 0
