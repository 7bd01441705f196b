"""Received files on disk: each is there whole and durable, or not at all."""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: File systems whose journal makes a new name durable with the first flush of the file that bears it: ext2/3/4, XFS.
_NAMES_GO_WITH_THE_FILE = (0xEF53, 0x58465342)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the inbox. ``name`` is relative to the inbox folder; ``sha256`` is of the whole file."""

    name: str
    sha256: str
    size_bytes: int
    is_new: bool


class IncomingFile:
    """A file that is being received: under a temporary name, hashed as it grows. Keep it or discard it."""

    def __init__(self, folder: Path) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self.path, self._descriptor = _create_locked(folder)

    @property
    def sha256(self) -> str:
        """Of what has been written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Append; a short write (a disk filling up) is an error, not a shorter file.

        Raises:
            OSError: the disk is full or fails.
        """
        self._digest.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def flush(self) -> None:
        """Make what was written durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file where it lies."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def discard(self) -> None:
        """Remove it, whatever it is called by now. Where the disk fails at that too, it is left to the next sweep."""
        with contextlib.suppress(OSError):
            self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


class Inbox:
    """A folder of content-addressed files, and those that have come but are not yet recorded.

    ``objects/``: a file is written under a temporary name, flushed, renamed to its SHA-256 and its folder flushed; only
    then is it reported as stored. Equal bytes share one file. ``spool/``: a file is durable there under a name of its
    own (:mod:`dicom_io.spool`) from the moment it is acknowledged until it is recorded. Names never come from the
    network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self._incoming = folder / "incoming"
        self._objects = folder / "objects"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._objects.mkdir(exist_ok=True)
        for number in range(256):
            (self._objects / f"{number:02x}").mkdir(exist_ok=True)
        self.spool.mkdir(exist_ok=True)
        for number in range(16):
            (self.spool / f"{number:x}").mkdir(exist_ok=True)
        for durable in (folder.parent, folder, self._objects, self.spool):
            flush_folder(durable)
        self._needs_folder_flush = _filesystem_kind(folder) not in _NAMES_GO_WITH_THE_FILE

    def path(self, name: str) -> Path:
        """Where a stored file lies."""
        return self.folder / name

    def begin(self) -> IncomingFile:
        """A new file to write into.

        Raises:
            OSError: the disk is full or fails.
        """
        return IncomingFile(self._incoming)

    def store(self, parts: Sequence[bytes]) -> StoredFile:
        """Write the concatenated parts; on return they survive a power cut.

        Raises:
            OSError: the disk is full or fails; nothing is left behind.
        """
        incoming = self.begin()
        try:
            for part in parts:
                incoming.write(part)
        except OSError:
            incoming.discard()
            raise
        return self.place(incoming)

    def place(self, incoming: IncomingFile) -> StoredFile:
        """Keep a received file under its SHA-256; on return it survives a power cut.

        Raises:
            OSError: the disk is full or fails; nothing is left behind.
        """
        sha256, size_bytes = incoming.sha256, incoming.size_bytes
        name = content_address(sha256)
        final = self.folder / name
        try:
            is_new = not _is_whole(final, size_bytes)
            if is_new:
                incoming.flush()
                os.replace(incoming.path, final)
                incoming.close()
            else:
                incoming.discard()
        except OSError:
            incoming.discard()
            raise
        # Also where it is known: perhaps another association renamed it a moment ago and has not yet flushed.
        flush_folder(final.parent)
        return StoredFile(name, sha256, size_bytes, is_new)

    def put_in_spool(self, incoming: IncomingFile, name: str) -> StoredFile:
        """Keep a received file under a new name of the spool; on return it survives a power cut.

        Renamed first and flushed then: on a journalling file system that is one flush for the file and its name.

        Raises:
            OSError: the disk is full or fails; nothing is left behind.
        """
        final = self.folder / name
        try:
            os.rename(incoming.path, final)
            incoming.path = final
            incoming.flush()
            if self._needs_folder_flush:
                flush_folder(final.parent)
        except OSError:
            incoming.discard()
            raise
        incoming.close()
        return StoredFile(name, incoming.sha256, incoming.size_bytes, is_new=True)

    def publish(self, spooled: str, sha256: str) -> str:
        """Give a file of the spool its content address too; returns that. The folder is not yet flushed.

        Raises:
            OSError: the disk fails.
        """
        name = content_address(sha256)
        source, final = self.folder / spooled, self.folder / name
        try:
            os.link(source, final)
        except FileExistsError:
            if not _is_whole(final, source.stat().st_size):  # left by a power cut
                beside = self._incoming / uuid.uuid4().hex
                os.link(source, beside)
                os.replace(beside, final)  # so the spool has it at every moment
        return name

    def flush(self, name: str) -> None:
        """Make a file, and its name, durable.

        Raises:
            OSError: the disk fails, or there is no such file.
        """
        path = self.folder / name
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        if self._needs_folder_flush:
            flush_folder(path.parent)

    def leave_spool(self, spooled: Iterable[str], published: Iterable[str]) -> None:
        """Remove files from the spool that are published and recorded.

        A journal keeps the order of names: where one flush makes file and name durable, the new name is durable when
        the old one is gone.

        Raises:
            OSError: the disk fails.
        """
        if self._needs_folder_flush:
            for folder in {(self.folder / name).parent for name in published}:
                flush_folder(folder)
        for name in spooled:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()

    def count_spool(self) -> int:
        """Files that are not yet recorded."""
        return sum(len(os.listdir(self.spool / f"{number:x}")) for number in range(16))

    def sweep_incoming(self) -> int:
        """Remove what killed receivers left half-written (never acknowledged); returns how many files.

        What is being written now is locked by its writer and stays.
        """
        n_removed = 0
        for path in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as leftover:
                fcntl.flock(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                n_removed += 1
        return n_removed


def _create_locked(folder: Path) -> tuple[Path, int]:
    """A new file that no sweep takes for a leftover."""
    while True:
        path = folder / uuid.uuid4().hex
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)  # a sweep was quicker


def content_address(sha256: str) -> str:
    """Where the file with a certain SHA-256 lies, relative to the inbox folder."""
    return f"objects/{sha256[:2]}/{sha256}.dcm"


def _is_whole(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except FileNotFoundError:
        return False


def flush_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _filesystem_kind(folder: Path) -> int:
    """The magic number of the file system (statfs(2)); 0 where it cannot be told."""
    buffer = ctypes.create_string_buffer(512)  # f_type is the first word of struct statfs on Linux
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(folder), buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value
