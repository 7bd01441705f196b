"""Files and folders that appear whole or not at all, and are written by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.training.dataset import DataError


def start_folder(target: Path, marker: str) -> Path:
    """An empty folder beside ``target`` to write into; what an interrupted call left there is removed.

    ``marker``: the file that shows that ``target``, where it exists, was made by this software and may be replaced.

    Raises:
        DataError: ``target`` exists and holds something else.
    """
    if target.exists() and not (target / marker).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists and holds no {marker}: it was not made by this command and is left alone")
    writing = target.with_name(f".{target.name}.writing")
    if writing.exists():
        shutil.rmtree(writing)
    writing.mkdir(parents=True)
    return writing


def publish_folder(writing: Path, target: Path) -> None:
    """Put the finished folder in the place of ``target``: there is always the old one, none, or the whole new one."""
    for path in sorted(writing.rglob("*")):
        if path.is_file():
            _flush(path)
    old = target.with_name(f".{target.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if target.exists():
        target.rename(old)
    writing.rename(target)
    _flush(target.parent)
    if old.exists():
        shutil.rmtree(old)


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    _flush(temporary)
    os.replace(temporary, path)


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold ``path`` (it need not exist yet) against other processes; the lock goes when this process goes.

    Raises:
        DataError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{path} is being written by another process") from error
        yield


def _flush(path: Path) -> None:
    """To the disk, so that a power cut after a rename does not leave an empty file under the final name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
