"""What the processes of the receive path tell each other in shared memory: signs of life, and how much waits."""

import mmap
import struct
import time

_NUMBERS = struct.Struct("ddQ")


class Pulse:
    """Shared by a process and those it forks later. Times are of the system's monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _NUMBERS.size)

    def beat(self, backlog: int) -> None:
        """The reception lives, and so many objects are not yet recorded."""
        struct.pack_into("d", self._memory, 0, time.monotonic())
        struct.pack_into("Q", self._memory, 16, backlog)

    def beat_of_recorder(self) -> None:
        """The recorder lives."""
        struct.pack_into("d", self._memory, 8, time.monotonic())

    @property
    def silent_s(self) -> float:
        """Seconds since the reception's last beat."""
        return time.monotonic() - float(_NUMBERS.unpack_from(self._memory)[0])

    @property
    def recorder_silent_s(self) -> float:
        """Seconds since the recorder's last beat."""
        return time.monotonic() - float(_NUMBERS.unpack_from(self._memory)[1])

    @property
    def backlog(self) -> int:
        """Objects that are received and not yet recorded."""
        return int(_NUMBERS.unpack_from(self._memory)[2])
