"""The files of the audit trail as bytes: found, locked, appended to durably or not at all."""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)

_FILE = re.compile(r"audit-\d{4}-\d{2}\.jsonl")
_TAIL_BYTES = 65_536


def trail_files(folder: Path) -> list[Path]:
    """The files of a trail, oldest first."""
    return sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name)) if folder.is_dir() else []


@contextmanager
def locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Alone with the folder, or, to read a copy that cannot be written to, without a lock."""
    path = folder / "lock"
    if exclusive:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    elif not path.exists():
        yield
        return
    descriptor = os.open(path, (os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY) | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def last_line(path: Path) -> bytes | None:
    """The last whole line of a file, None if it has none; anything after it is cut off."""
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        length = _TAIL_BYTES
        while True:
            start = max(0, size - length)
            stream.seek(start)
            tail = stream.read(size - start)
            end = tail.rfind(b"\n") + 1
            begin = tail.rfind(b"\n", 0, max(0, end - 1)) + 1
            if start == 0 or (end and begin):
                break
            length *= 4
        if start + end < size:
            _log.warning("an unfinished audit line is removed", extra={"file": path.name, "bytes": size - start - end})
            stream.truncate(start + end)
            os.fsync(stream.fileno())
        return tail[begin:end] if end else None


def append_bytes(path: Path, content: bytes) -> None:
    """Append durably, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    size = os.fstat(descriptor).st_size
    try:
        done = 0
        while done < len(content):
            done += os.write(descriptor, content[done:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)
    if is_new:
        _flush_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put a small file in the place of the one before it.

    Raises:
        OSError: it cannot be written; the one before it stays.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
