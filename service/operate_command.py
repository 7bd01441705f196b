"""`discnode backup`, `restore` and `retention`: what the keeper of a node does with its files."""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.settings import Settings

_OK, _FAILED = 0, 1
Load = Callable[[Path | None], Settings]


def add_backup(parser: argparse.ArgumentParser, load: Load) -> None:
    """`backup --out`, of a node that may run."""
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or a new file that ends in .tar")
    _add_config(parser)
    parser.set_defaults(command=lambda options: _backup(options.out, load(options.config)))


def add_restore(parser: argparse.ArgumentParser) -> None:
    """`restore BACKUP --into`."""
    parser.add_argument("backup", type=Path, help="folder or .tar file that 'discnode backup' made")
    parser.add_argument("--into", type=Path, required=True, help="the storage folder: new, or empty")
    parser.set_defaults(command=lambda options: _restore(options.backup, options.into))


def add_retention(parser: argparse.ArgumentParser, load: Load) -> None:
    """`retention`, now."""
    parser.add_argument("--dry-run", action="store_true", help="tell what would be deleted, and delete nothing")
    _add_config(parser)
    parser.set_defaults(command=lambda options: _retention(load(options.config), dry_run=options.dry_run))


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="settings file of the node (YAML)")


def _backup(out: Path, settings: Settings) -> int:
    from service.backup import BackupError, make_backup
    from service.progress import show_progress

    try:
        with show_progress("backup") as progress:
            made = make_backup(settings, out, _by_percent(progress))
    except BackupError as error:
        return _fail(error)
    sys.stdout.write(f"{made.path}: {made.n_files} files, {made.size_bytes / 1e6:.1f} MB\n")
    _audit(settings, f"a backup of {made.n_files} files was made")
    if made.missing:
        text = f"{len(made.missing)} files that the database names are not in the storage folder; see manifest.json"
        return _fail(text)
    return _OK


def _audit(settings: Settings, what: str) -> None:
    """Have it in the trail that the node's data were copied, or come from a copy.

    A database of before there was a trail takes no word.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from service.audit import AuditEvent, AuditKind, note
    from service.database import create_engine_for
    from service.quarantine_command import person

    engine = create_engine_for(settings)
    try:
        with engine.begin() as connection:  # also where 'serve' has yet to bring it up
            note(connection, AuditEvent(AuditKind.ALERT, datetime.now(UTC), by=person(), detail=what))
    except SQLAlchemyError as error:
        sys.stderr.write(f"the audit trail cannot be told of it ({type(error).__name__})\n")
    finally:
        engine.dispose()


def _restore(backup: Path, into: Path) -> int:
    from service.backup import BackupError, restore_backup
    from service.progress import show_progress

    try:
        with show_progress("restore") as progress:
            n_files = restore_backup(backup, into, _by_percent(progress))
    except BackupError as error:
        return _fail(error)
    _audit(Settings(storage_dir=into), f"the node's data were restored from a backup of {n_files} files")
    sys.stdout.write(
        f"{into}: {n_files} files, all as they were; point storage_dir to it, leave database_url empty (the database is"
        " in it), and start the node\n"
    )
    if os.geteuid() == 0:
        sys.stdout.write(f"They belong to root now: give them to the node's account first (chown -R USER: {into})\n")
    return _OK


def _retention(settings: Settings, *, dry_run: bool) -> int:
    from service.database import open_database
    from service.quarantine_command import person
    from service.retention import apply_retention, orphans, unasked_destinations

    database = open_database(settings)
    unasked = unasked_destinations(settings)
    now, by = datetime.now(UTC), person()
    done = apply_retention(database, settings.retention, now, unasked=unasked, dry_run=dry_run, by=by)
    what = "would be deleted" if dry_run else "deleted"
    sys.stdout.write(f"{what}: {done.n_images} images, {done.n_results} results, {done.n_bytes / 1e6:.1f} MB\n")
    for uid in done.study_uids:
        sys.stdout.write(f"  {uid}\n")
    for reason, count in sorted(done.kept.items()):
        sys.stdout.write(f"kept: {count} exams: {reason}\n")
    lost = list(orphans(database))
    if lost:
        n_bytes = sum(size for _, size in lost)
        sys.stdout.write(f"nothing on record names {len(lost)} files ({n_bytes / 1e6:.1f} MB) of the inbox:\n")
        for path, _ in lost:
            sys.stdout.write(f"  {path}\n")
    database.close()
    return _OK


def _by_percent(progress: Callable[[str, float], None]) -> Callable[[str, float], None]:
    """Tells only whole percents: there may be a million files."""
    told: dict[str, Any] = {}

    def tell(what: str, share: float) -> None:
        if told.get(what) != (percent := int(100 * share)):
            told[what] = percent
            progress(what, share)

    return tell


def _fail(why: object) -> int:
    sys.stderr.write(f"{why}\n")
    return _FAILED
