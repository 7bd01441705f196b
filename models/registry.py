"""The networks this software ships: name, file, SHA-256, what they expect, where they come from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from models.preprocessing import CLASS_NAMES, SPACING_MM

_FOLDER = Path(__file__).parent / "weights"


class ModelError(Exception):
    """A network cannot be used: unknown name, missing file or a file that is not the registered one."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One registered network. Input: (n, 1, rows, columns) slices as :mod:`models.preprocessing` leaves them."""

    name: str
    path: Path
    sha256: str
    version: str
    training_data: str
    licence: str
    spacing_mm: float = SPACING_MM
    classes: tuple[str, ...] = CLASS_NAMES


def names(folder: Path = _FOLDER) -> tuple[str, ...]:
    """The registered names."""
    return tuple(sorted(_entries(folder)))


def load_model(name: str, folder: Path = _FOLDER) -> ModelRecord:
    """The record of a network, after its file's SHA-256 was compared with the registered one.

    Raises:
        ModelError: the name is not registered, the file is missing, or the hash differs.
    """
    entries = _entries(folder)
    if name not in entries:
        raise ModelError(f"model {name!r} is not registered; available: {', '.join(sorted(entries)) or 'none'}")
    entry = entries[name]
    path = folder / entry["file"]
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"model {name!r}: {path.name} cannot be read: {error.strerror}") from error
    if found != entry["sha256"]:
        raise ModelError(f"model {name!r}: {path.name} has SHA-256 {found}, registered is {entry['sha256']}; not used")
    return ModelRecord(name, path, found, str(entry["version"]), entry["training_data"], entry["licence"])


def _entries(folder: Path) -> dict[str, dict[str, str]]:
    entries: dict[str, dict[str, str]] = yaml.safe_load((folder / "registry.yaml").read_text(encoding="utf-8")) or {}
    return entries
