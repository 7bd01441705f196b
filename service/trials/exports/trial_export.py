"""An export of a trial: a folder that appears whole, with a manifest of every file in it."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import select

from config.sections import SettingsError
from config.settings import Settings
from processing.display import RESEARCH_USE_ONLY
from service import trial_tables as db
from service.audit import AuditEvent, AuditKind, record
from service.database import Database
from service.trials.exports.bids import write_bids
from service.trials.exports.columns import TIDY, VISITS, Column, Row, check_rows, codebook
from service.trials.exports.csv_files import write_table
from service.trials.exports.parquet import write_parquet
from service.trials.exports.scrubbing import scrubbed_result, told_versions
from service.trials.exports.sdtm import write_sdtm
from service.trials.exports.tables import ExportSubject, Shown, tidy_rows, visit_rows
from service.trials.history import SubjectHistory, read_history
from service.trials.phantoms import PhantomState, phantom_state
from service.trials.registry import Trial, find_trial

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"


class Format(StrEnum):
    """What can be exported."""

    TIDY = "tidy"  # one long table and one of visits, with codebook
    PARQUET = "parquet"  # the same tables
    SDTM = "sdtm"  # a draft of PR, DI and MK
    BIDS = "bids"  # maps and discs
    ARCHIVE = "archive"  # all of these, the plan and every result


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. ``notes``: what is not in it, in words."""

    folder: Path
    n_subjects: int
    n_files: int
    notes: tuple[str, ...]


def export_trial(
    database: Database,
    settings: Settings,
    protocol_id: str,
    out: Path,
    formats: Sequence[Format],
    *,
    by: str,
    now: datetime,
) -> Exported:
    """Export a trial into a new folder.

    Subjects are pseudonyms, and days count from day zero: no PatientID, name, UID or free text of a person is in it, no
    date unless the plan says so, and never an arm. The same record gives the same bytes but for the data cut.

    Args:
        database: the node's record.
        settings: of the node.
        protocol_id: of the trial.
        out: must not exist, or be empty.
        formats: what.
        by: who asks, for the audit trail.
        now: the data cut; aware.

    Raises:
        LookupError: no such trial.
        SettingsError: a package is missing, or ``out`` holds something.
    """
    with database.read() as connection:
        trial = find_trial(connection, protocol_id)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out}: is not empty; nothing is ever written over an export")
    subjects = read_subjects(database, settings, trial)
    shown = Shown(
        real_dates=trial.plan.exports.real_dates,
        treated_level=any(one.history.treated_level is not None for one in subjects),
    )
    chosen = set(Format) if Format.ARCHIVE in formats else set(formats)
    tables = {"tidy": shown.columns(TIDY), "visits": shown.columns(VISITS)}
    rows = {"tidy": tidy_rows(subjects, shown), "visits": visit_rows(subjects, shown)}
    for name, columns in tables.items():
        check_rows(rows[name], columns)
    notes: list[str] = []
    with _new_folder(out) as folder:
        _write_tables(folder, chosen, tables, rows)
        if Format.SDTM in chosen:
            write_sdtm(folder / "sdtm", rows["tidy"], rows["visits"], trial.plan.baseline.name)
        if Format.BIDS in chosen:
            notes += write_bids(folder / "bids", subjects, version("discnode"))
        if Format.ARCHIVE in chosen:
            _write_archive(folder / "archive", trial, subjects)
        n_files = _write_manifest(folder, trial, subjects, sorted(chosen), now, notes)
    detail = f"trial {trial.protocol_id} exported: {', '.join(sorted(chosen))}; {len(subjects)} subjects"
    record(database, AuditEvent(AuditKind.TRIAL, now, by=by, detail=detail))
    return Exported(out, len(subjects), n_files, tuple(notes))


def read_subjects(database: Database, settings: Settings, trial: Trial) -> list[ExportSubject]:
    """All subjects of a trial, by their IDs; also those who withdrew: what was measured stays."""
    query = select(db.subject).where(db.subject.c.trial_id == trial.id).order_by(db.subject.c.subject_id)
    with database.read() as connection:
        subject_rows = connection.execute(query).all()
        unblinded = connection.execute(select(db.trial.c.unblinded_at).where(db.trial.c.id == trial.id)).scalar()
    show = True if unblinded is not None else None
    subjects = []
    for row in subject_rows:
        history = read_history(database, settings, trial.plan, row, show_treated_level=show)
        subjects.append(ExportSubject(history, _phantoms(database, history)))
    return subjects


def _phantoms(database: Database, history: SubjectHistory) -> dict[str, PhantomState]:
    return {
        visit.name: phantom_state(database, history.plan, visit.acquisition, visit.scan_date)
        for visit in history.visits
        if visit.is_measured and visit.acquisition is not None and visit.scan_date is not None
    }


def _write_tables(
    folder: Path, chosen: set[Format], tables: Mapping[str, tuple[Column, ...]], rows: Mapping[str, list[Row]]
) -> None:
    for name, columns in tables.items():
        if Format.TIDY in chosen:
            write_table(folder / "tidy" / f"{name}.csv", [column.name for column in columns], rows[name])
        if Format.PARQUET in chosen:
            write_parquet(folder / "parquet" / f"{name}.parquet", columns, rows[name])
    if Format.TIDY in chosen or Format.PARQUET in chosen:
        book = codebook(dict(tables))
        write_table(folder / "codebook.csv", list(book[0]), book)


def _write_archive(folder: Path, trial: Trial, subjects: Sequence[ExportSubject]) -> None:
    """The plan without paths, the freeze, and the result of every measured visit, without UIDs and dates."""
    folder.mkdir(parents=True)
    plan = trial.plan.model_dump(mode="json", exclude={"treated_levels", "deidentification"})
    plan["change"]["precision"] = Path(trial.plan.change.precision).name  # of a site's own file no folder
    _write_json(folder / "plan.json", plan)
    _write_json(folder / "freeze.json", trial.freeze or {})
    for one in subjects:
        for visit in one.history.visits:
            if visit.is_measured and visit.result is not None:
                name = visit.name.replace("/", "_")
                path = folder / "results" / one.history.subject_id / f"{name}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_json(path, scrubbed_result(visit.result))


def _write_manifest(
    folder: Path,
    trial: Trial,
    subjects: Sequence[ExportSubject],
    formats: Sequence[Format],
    now: datetime,
    notes: Sequence[str],
) -> int:
    """What is there: SHA-256 of every file, the versions that made the results, the plan's hash, the data cut."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [
        {"path": path.relative_to(folder).as_posix(), "size_bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in files
    ]
    manifest = {
        "schema": "discnode.export/1",
        "use": RESEARCH_USE_ONLY,
        "trial": trial.protocol_id,
        "plan_sha256": trial.plan_sha256,
        "frozen": trial.freeze is not None,
        "data_cut": now.isoformat(timespec="seconds"),
        "formats": [str(one) for one in formats],
        "discnode": version("discnode"),
        "n_subjects": len(subjects),
        "n_measured_visits": sum(visit.is_measured for one in subjects for visit in one.history.visits),
        "made_with": _made_with(subjects),
        "notes": list(notes),
        "files": entries,
    }
    _write_json(folder / MANIFEST, manifest)
    lines = [f"{entry['sha256']}  {entry['path']}\n" for entry in entries]
    lines.append(f"{_sha256(folder / MANIFEST)}  {MANIFEST}\n")
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return len(entries) + 2


def _made_with(subjects: Sequence[ExportSubject]) -> list[dict[str, Any]]:
    """Every set of versions that made a result, and of how many visits."""
    counts: dict[str, int] = {}
    for one in subjects:
        for visit in one.history.visits:
            if visit.is_measured and visit.result is not None:
                text = json.dumps(told_versions(visit.result.get("versions", {})))
                counts[text] = counts.get(text, 0) + 1
    return [{"visits": number, "versions": json.loads(text)} for text, number in sorted(counts.items())]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block is done, and vanishes when it fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    partial.chmod(0o755)
    try:
        yield partial
        os.replace(partial, out)  # works for an empty folder, too
    finally:
        shutil.rmtree(partial, ignore_errors=True)
