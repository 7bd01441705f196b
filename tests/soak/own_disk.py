"""An ext4 file system in a file, for faults of a disk. Mounting needs root."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


class NoDisk(Exception):
    """None can be had here; the message says why."""


class Disk:
    """A file system of its own, mounted at ``mount_point``.

    Raises:
        NoDisk: it cannot be made or mounted.
    """

    def __init__(self, folder: Path, size_mb: int) -> None:
        self._image = folder / "disk.img"
        self.mount_point = folder / "disk"
        self._ballast = self.mount_point / "ballast"
        self.mount_point.mkdir()
        with self._image.open("wb") as stream:
            stream.truncate(size_mb * 1_000_000)
        try:
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(self._image)], check=True, capture_output=True)
            self.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoDisk(
                f"no file system of its own can be mounted here ({type(error).__name__}; needs root)"
            ) from error

    def mount(self) -> None:
        """After :meth:`unmount`; the journal is replayed."""
        subprocess.run(
            ["mount", "-o", "loop", str(self._image), str(self.mount_point)], check=True, capture_output=True
        )

    def unmount(self) -> None:
        """Nobody may use it any more."""
        subprocess.run(["umount", str(self.mount_point)], check=True)

    def cut(self) -> None:
        """As a power cut: nothing reaches the disk from here on."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def fill(self) -> None:
        """Let no free block be left."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        try:
            step = 64 << 20
            size = os.fstat(descriptor).st_size
            while step >= 4096:
                try:
                    os.posix_fallocate(descriptor, size, step)
                    size += step
                except OSError:
                    step //= 2
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Take away what :meth:`fill` has put there."""
        self._ballast.unlink(missing_ok=True)
