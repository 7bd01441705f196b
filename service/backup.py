"""A backup of a node that goes on running, and a node from a backup.

In a backup every file is there that its database names. So the order is: what changes in place (objects on their way
in) is copied first, then the database at one moment, then the files that never change once they are there; a file that
was deleted between the two makes the database be copied anew. The audit trail comes last, whole: the database notes
where it ends, and may lag behind it, but not the other way round.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy.engine import make_url

from config.settings import Settings
from service.audit_files import locked
from service.audit_trail import audit_folder
from service.migration import copy_sqlite
from service.migrations import known_revisions, newest_revision

#: Called with what is being done now and the finished share, 0..1.
Progress = Callable[[str, float], None]

MANIFEST = "manifest.json"
DATABASE = "discnode.sqlite"
_SCHEMA = "discnode.backup/1"
_LOCK = "node.lock"
_IMMUTABLE = ("inbox/objects", "results", "reports")
_TRIES = 5
_BLOCK = 1 << 20
_LEFT_S = 7 * 86_400.0
_FILE_MODE = 0o640  # images of patients are nobody else's


class BackupError(Exception):
    """The backup could not be made or used; the message says why. What was begun is removed."""


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What a backup holds. ``missing``: files that the database names and the node had lost already."""

    path: Path
    n_files: int
    size_bytes: int
    missing: tuple[str, ...]


def make_backup(settings: Settings, out: Path, progress: Progress = lambda what, share: None) -> BackupSummary:
    """Back the node up while it runs: the database, received objects, results, and what else is in its folder.

    Args:
        settings: the node's settings.
        out: a new folder, or a new file whose name ends in ``.tar``. On the file system of the storage folder a folder
            shares the files' blocks with the node (hard links): quick and small, but no help against a lost disk.
        progress: is told how far it is.

    Raises:
        BackupError: the database is not SQLite, ``out`` exists, or the disk is full or fails.
    """
    source = _sqlite_file(settings)
    if out.exists():
        raise BackupError(f"{out} exists already")
    storage = settings.storage_dir.resolve()
    if out.resolve().is_relative_to(storage):
        raise BackupError(f"{out} is in the storage folder: the next backup would hold this one; choose another place")
    stage = storage / f".backup-{uuid.uuid4().hex[:8]}"
    for left in storage.glob(".backup-*"):  # by one that was killed
        if left.stat().st_mtime < time.time() - _LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
    try:
        stage.mkdir(mode=0o750)
        missing = _gather(storage, source, stage, audit_folder(settings).name)
        n_files, size_bytes = _write_manifest(stage, missing, progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        _hand_over(stage, out)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise BackupError(f"the backup could not be made: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return BackupSummary(out, n_files, size_bytes, missing)


def _sqlite_file(settings: Settings) -> Path:
    url = make_url(settings.resolved_database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        text = (
            "the database is not SQLite. Copy inbox/spool of the storage folder first, then dump the database (pg_dump"
            " --format=custom DATABASE > node.dump), then copy the rest of the storage folder: in that order, so that"
            " each acknowledged object is in one of them, and every file is there that the dump names"
        )
        raise BackupError(text)
    return Path(url.database)


def _gather(storage: Path, database: Path, stage: Path, trail: str) -> tuple[str, ...]:
    """Put everything into ``stage``; returns what the database names and is not there."""
    for path in _files(storage):
        if (
            not _is_immutable(path)
            and path.parts[0] != trail
            and not (storage / path).as_posix().startswith(database.absolute().as_posix())
        ):
            _copy(storage / path, stage / path)
    missing: set[str] = set()
    for _ in range(_TRIES):
        copy_sqlite(database, stage / DATABASE)
        for path in _files(storage):
            if _is_immutable(path):
                _link(storage / path, stage / path)
        lost = {name for name in files_named(stage / DATABASE) if not (stage / name).is_file()}
        if lost == missing:
            break
        missing = lost  # deleted meanwhile, perhaps: then the next copy of the database does not name them
    with locked(storage / trail, exclusive=False):
        for path in _files(storage):
            if path.parts[0] == trail:
                _copy(storage / path, stage / path)
    return tuple(sorted(missing))


def _files(storage: Path) -> Iterator[Path]:
    """What belongs in a backup, relative to the storage folder: no half-written files, attempts, or other backups."""
    for parent, folders, names in os.walk(storage):
        here = Path(parent).relative_to(storage)
        folders[:] = [one for one in folders if not one.startswith(".") and (here / one) != Path("inbox/incoming")]
        for name in names:
            if not name.startswith(".") and (here / name).parts[0] != _LOCK:
                yield here / name


def _is_immutable(path: Path) -> bool:
    return path.as_posix().startswith(tuple(f"{one}/" for one in _IMMUTABLE))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # it has moved on meanwhile
        shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> None:
    """The same file by another name. What it replaces was written anew under its name (the newest result.json)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.unlink(missing_ok=True)
        os.link(source, target)
    except FileNotFoundError:
        pass
    except OSError:  # a file system without hard links
        _copy(source, target)


def files_named(database: Path) -> Iterator[str]:
    """The files that a database says are there, relative to the storage folder."""
    queries = (
        "SELECT 'inbox/' || path FROM instance WHERE state NOT IN ('deleting', 'deleted', 'set_aside')",
        "SELECT 'inbox/' || path FROM quarantine WHERE path != '' AND state = 'held'",
        "SELECT delivery.path FROM delivery JOIN job ON job.id = delivery.job_id WHERE job.files IS NULL",
    )
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
        for query in queries:
            for (name,) in opened.execute(query):
                yield str(name)


def _write_manifest(stage: Path, missing: tuple[str, ...], progress: Progress) -> tuple[int, int]:
    """List every file with its SHA-256; returns their number and size."""
    paths = sorted(_files(stage))
    entries, size_bytes = [], 0
    for number, path in enumerate(paths):
        sha256, size = _digest(stage / path)
        entries.append({"path": path.as_posix(), "sha256": sha256, "size_bytes": size})
        size_bytes += size
        progress("checksums", (number + 1) / len(paths))
    content = {
        "schema": _SCHEMA,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": newest_revision(),
        "missing": list(missing),
        "files": entries,
    }
    (stage / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return len(entries), size_bytes


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return digest.hexdigest(), path.stat().st_size


def _hand_over(stage: Path, out: Path) -> None:
    """Make the staged backup appear at ``out``, whole and durable."""
    new = out.with_name(f".{out.name}.new")
    try:
        if out.suffix == ".tar":
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(stage / MANIFEST, MANIFEST)
                for path in sorted(_files(stage)):
                    if path.name != MANIFEST or path.parent != Path():
                        archive.add(stage / path, path.as_posix())
            _flush(new)
        elif stage.stat().st_dev == out.parent.stat().st_dev:
            os.replace(stage, new)
        else:
            shutil.copytree(stage, new)
        for parent, _, names in os.walk(new):
            for name in names:
                _flush(Path(parent, name))
            _flush(Path(parent))
        os.replace(new, out)
        _flush(out.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restore_backup(backup: Path, into: Path, progress: Progress = lambda what, share: None) -> int:
    """Make a storage folder from a backup, checking every file; returns the number of files.

    Args:
        backup: folder or ``.tar`` file.
        into: the storage folder; not there, or empty.
        progress: is told how far it is.

    Raises:
        BackupError: a node runs there, ``into`` is not empty, or the backup is not whole; nothing is left behind.
    """
    _check_target(into)
    new = into.with_name(f".{into.name}.restored-{uuid.uuid4().hex[:8]}")
    try:
        with _opened(backup) as read:
            manifest = _manifest(read)
            new.mkdir(parents=True, mode=0o750)
            files = manifest["files"]
            for number, entry in enumerate(files):
                _restore_file(read, entry, new)
                progress("restore", (number + 1) / max(1, len(files)))
        for parent, _, _ in os.walk(new):
            _flush(Path(parent))
        if into.exists():
            (into / _LOCK).unlink(missing_ok=True)
            into.rmdir()
        os.replace(new, into)
        _flush(into.parent)
    except (OSError, tarfile.TarError) as error:
        raise BackupError(f"{backup}: cannot be restored: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return len(files)


def _check_target(into: Path) -> None:
    if not into.exists():
        return
    if not into.is_dir():
        raise BackupError(f"{into} is not a folder")
    lock = into / _LOCK
    if lock.exists():
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BackupError(f"a node runs in {into}; stop it first") from error
    if any(one.name != _LOCK for one in into.iterdir()):
        raise BackupError(f"{into} is not empty; restore into a new folder and point storage_dir to it")


@contextlib.contextmanager
def _opened(backup: Path) -> Iterator[Callable[[str], Any]]:
    """Gives a function that opens one file of the backup for reading.

    Raises:
        BackupError: there is no backup.
    """
    if backup.is_dir():
        yield lambda name: (backup / name).open("rb")
        return
    if not backup.is_file():
        raise BackupError(f"{backup}: there is no such backup")
    with tarfile.open(backup, "r:") as archive:

        def read(name: str) -> Any:
            try:
                file = archive.extractfile(name)
            except KeyError:
                file = None
            if file is None:
                raise FileNotFoundError(f"{name} is not in it")
            return file

        yield read


def _manifest(read: Callable[[str], Any]) -> dict[str, Any]:
    with read(MANIFEST) as file:
        try:
            content: dict[str, Any] = json.loads(file.read())
        except ValueError as error:
            raise BackupError("its manifest is broken") from error
    if content.get("schema") != _SCHEMA:
        raise BackupError("it is not a backup of a node")
    if content["revision"] not in known_revisions():
        raise BackupError(f"it is of a newer program (revision {content['revision']})")
    return content


def _restore_file(read: Callable[[str], Any], entry: dict[str, Any], new: Path) -> None:
    name = PurePosixPath(entry["path"])
    if name.is_absolute() or ".." in name.parts:
        raise BackupError(f"its manifest names a file outside: {name}")
    target = new / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with read(entry["path"]) as source, target.open("xb") as file:
        while block := source.read(_BLOCK):
            digest.update(block)
            file.write(block)
        os.fchmod(file.fileno(), _FILE_MODE)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != entry["sha256"]:
        raise BackupError(f"{name} of it is not as it was (SHA-256); use another backup")
