"""Files that survive a power cut: flushed before anything refers to them."""

import os
from pathlib import Path


def flush_tree(folder: Path) -> None:
    """Make everything in a folder durable."""
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))


def flush(path: Path) -> None:
    """Make a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
