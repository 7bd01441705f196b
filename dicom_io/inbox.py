"""Received files on disk: each is there whole and durable, or not at all."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the inbox. ``name`` is relative to the inbox folder; ``sha256`` is of the whole file."""

    name: str
    sha256: str
    size_bytes: int
    is_new: bool


class Inbox:
    """A folder of content-addressed files.

    A file is written under a temporary name, flushed, renamed to its SHA-256 and its folder flushed; only then is it
    reported as stored. Names never come from the network. Equal bytes share one file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._objects = folder / "objects"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._objects.mkdir(exist_ok=True)
        for number in range(256):
            (self._objects / f"{number:02x}").mkdir(exist_ok=True)
        for durable in (folder.parent, folder, self._objects):
            _flush_folder(durable)

    def path(self, name: str) -> Path:
        """Where a stored file lies."""
        return self.folder / name

    def store(self, parts: Sequence[bytes]) -> StoredFile:
        """Write the concatenated parts; on return they survive a power cut.

        Raises:
            OSError: the disk is full or fails; nothing is left behind.
        """
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        sha256 = digest.hexdigest()
        size_bytes = sum(len(part) for part in parts)
        name = f"objects/{sha256[:2]}/{sha256}.dcm"
        final = self.folder / name
        if _is_whole(final, size_bytes):
            # Perhaps another association renamed it a moment ago and has not yet flushed the folder.
            _flush_folder(final.parent)
            return StoredFile(name, sha256, size_bytes, is_new=False)
        temporary = self._incoming / uuid.uuid4().hex
        try:
            _write_durably(temporary, parts)
            os.replace(temporary, final)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        _flush_folder(final.parent)
        return StoredFile(name, sha256, size_bytes, is_new=True)

    def sweep_incoming(self) -> int:
        """Remove what a killed receiver left half-written (never acknowledged); returns how many files."""
        leftovers = [path for path in self._incoming.iterdir() if path.is_file()]
        for path in leftovers:
            path.unlink()
        return len(leftovers)


def _is_whole(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except FileNotFoundError:
        return False


def _write_durably(path: Path, parts: Sequence[bytes]) -> None:
    """Write and fsync; a short write (a disk filling up) is an error, not a shorter file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                written = os.write(descriptor, view)
                view = view[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
