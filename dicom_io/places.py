"""Who is connected, counted over all receiver processes: a place is lost with the process that held it."""

import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_FREE, _CONNECTED, _ASSOCIATED = b"\x00", b"\x01", b"\x02"
_HOST_BYTES = 8
_KEPT_SHARE = 16  # one in so many places of those who wait is kept for other hosts


@dataclass(frozen=True, slots=True)
class Limits:
    """How many may be here at once."""

    waiting: int  # connections without an association
    associations: int
    associations_per_host: int


class Place:
    """The place of one connection. Leave it when the connection ends."""

    def __init__(self, places: "Places", index: int, host: bytes) -> None:
        self._places = places
        self._index = index
        self._host = host

    def associate(self) -> bool:
        """Count it as an association; False if there are too many, of all or of its host."""
        return self._places._associate(self._index, self._host)

    def leave(self) -> None:
        """Give it back."""
        self._places._leave(self._index)


class Places:
    """The places of all processes. Create it before they are forked; each then works in rows of its own.

    Shared memory; the lock is the kernel's, which takes it from a process that dies.
    """

    def __init__(self, limits: Limits, processes: int = 1) -> None:
        self._limits = limits
        self._rows = limits.waiting + limits.associations
        self._first = 0
        self._count = processes * self._rows
        self._descriptor = os.memfd_create("places", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, self._count * (1 + _HOST_BYTES))
        self._memory = mmap.mmap(self._descriptor, self._count * (1 + _HOST_BYTES))
        self._threads = threading.Lock()

    def belong_to(self, process: int) -> None:
        """In a process just forked: work in its rows, counted from 0."""
        self._threads = threading.Lock()
        self._first = process * self._rows

    def free_all_of(self, process: int) -> None:
        """The process has died: its connections are gone."""
        with self._lock():
            first = process * self._rows
            self._memory[first : first + self._rows] = _FREE * self._rows

    @property
    def associations(self) -> int:
        """How many there are now."""
        return self._states.count(_ASSOCIATED)

    @property
    def waiting(self) -> int:
        """Connections without an association."""
        return self._states.count(_CONNECTED)

    def enter(self, host: str) -> Place | None:
        """A place for a new connection; None if too many wait already. The last ones are not for who has the others."""
        digest = hashlib.sha256(host.encode()).digest()[:_HOST_BYTES]
        with self._lock():
            n_free = self._limits.waiting - self.waiting
            if n_free <= 0:
                return None
            n_kept = self._limits.waiting // _KEPT_SHARE
            if n_free <= n_kept and self._count_of(_CONNECTED, digest) >= self._limits.waiting - 2 * n_kept:
                return None
            index = self._memory.find(_FREE, self._first, self._first + self._rows)
            if index < 0:
                return None
            self._memory[index : index + 1] = _CONNECTED
            at = self._count + index * _HOST_BYTES
            self._memory[at : at + _HOST_BYTES] = digest
        return Place(self, index, digest)

    @property
    def _states(self) -> bytes:
        return self._memory[: self._count]

    def _associate(self, index: int, host: bytes) -> bool:
        with self._lock():
            if self.associations >= self._limits.associations:
                return False
            if self._count_of(_ASSOCIATED, host) >= self._limits.associations_per_host:
                return False
            self._memory[index : index + 1] = _ASSOCIATED
        return True

    def _count_of(self, state: bytes, host: bytes) -> int:
        hosts = self._memory[self._count :]
        return sum(
            one == state[0] and hosts[number * _HOST_BYTES : (number + 1) * _HOST_BYTES] == host
            for number, one in enumerate(self._states)
        )

    def _leave(self, index: int) -> None:
        with self._lock():
            self._memory[index : index + 1] = _FREE

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self._threads:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
