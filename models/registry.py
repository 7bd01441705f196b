"""The networks that can be used: name, members, their SHA-256, what they expect, where they come from.

A folder of networks holds ``registry.yaml`` and the files it names. One entry is one ensemble; a single network is an
ensemble of one. The packaged folder is ``models/weights``; a site's own networks lie in another folder of that form.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from models.preprocessing import CLASS_NAMES, SPACING_MM

#: The folder of the networks that this software ships.
PACKAGED_FOLDER = Path(__file__).parent / "weights"

#: Where a folder of networks says what it holds.
REGISTRY_FILE = "registry.yaml"

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: A plain name: what lies beside the registry, and nowhere else.
_FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.onnx$")]


class ModelError(Exception):
    """A network cannot be used: unknown name, missing file or a file that is not the registered one."""


class _MemberEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    file: _FileName
    sha256: _Sha256


class _Entry(BaseModel):
    """One ensemble in ``registry.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)  # version: 2

    version: str
    architecture: str = Field(min_length=1)
    width: int = Field(ge=1)
    members: tuple[_MemberEntry, ...] = Field(min_length=1)
    threshold: float = Field(gt=0, lt=1)
    training_data: str
    licence: str
    spacing_mm: float = Field(SPACING_MM, gt=0)

    @model_validator(mode="after")
    def _members_differ(self) -> Self:
        if len({one.sha256 for one in self.members}) < len(self.members):
            raise ValueError("the same network is listed twice; it would agree with itself")
        return self


@dataclass(frozen=True, slots=True)
class Member:
    """One network of an ensemble: an ONNX file and the SHA-256 of its bytes, in hex."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One registered ensemble. Input: (n, 1, rows, columns) slices as :mod:`models.preprocessing` leaves them.

    ``threshold``: disc probability from which a voxel belongs to a disc, as calibrated for this ensemble.
    """

    name: str
    members: tuple[Member, ...]
    version: str
    architecture: str
    width: int
    threshold: float
    training_data: str
    licence: str
    spacing_mm: float = SPACING_MM
    classes: tuple[str, ...] = CLASS_NAMES

    @property
    def sha256(self) -> str:
        """One digest that stands for all weights.

        Of a single network: the SHA-256 of its file. Of several: the SHA-256 of their digests in hex, in order, one a
        line (``sha256sum`` of a text of those lines gives the same).
        """
        if len(self.members) == 1:
            return self.members[0].sha256
        return hashlib.sha256("".join(f"{one.sha256}\n" for one in self.members).encode()).hexdigest()

    def only(self, index: int) -> "ModelRecord":
        """The ``index``-th member alone, e.g. for a subject on whom the others were trained.

        Raises:
            IndexError: there is no such member.
        """
        return replace(self, members=(self.members[index],))


def names(folder: Path | None = None) -> tuple[str, ...]:
    """The names registered in ``folder`` (default: the packaged one).

    Raises:
        ModelError: the registry cannot be read.
    """
    return tuple(sorted(_entries(folder or PACKAGED_FOLDER)))


def load_model(name: str, folder: Path | None = None) -> ModelRecord:
    """The record of an ensemble, after the SHA-256 of each member's file was compared with the registered one.

    Args:
        name: as in ``registry.yaml``.
        folder: that holds it; default: the packaged one.

    Raises:
        ModelError: the registry cannot be read, the name is not registered, a file is missing, or a hash differs.
    """
    folder = folder or PACKAGED_FOLDER
    entries = _entries(folder)
    if name not in entries:
        raise ModelError(f"model {name!r} is not registered; available: {', '.join(sorted(entries)) or 'none'}")
    try:
        entry = _Entry.model_validate(entries[name])
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'entry'}: {one['msg']}" for one in error.errors())
        raise ModelError(f"model {name!r}: {folder / REGISTRY_FILE} is not in order: {faults}") from error
    members = tuple(_checked(name, folder / one.file, one.sha256) for one in entry.members)
    return ModelRecord(
        name=name,
        members=members,
        version=entry.version,
        architecture=entry.architecture,
        width=entry.width,
        threshold=entry.threshold,
        training_data=entry.training_data,
        licence=entry.licence,
        spacing_mm=entry.spacing_mm,
    )


def trial_record(paths: tuple[Path, ...], *, name: str = "unregistered", threshold: float = 0.5) -> ModelRecord:
    """A record of network files that no registry names, to try them before they are registered.

    Raises:
        ModelError: there is none, or one cannot be read.
    """
    if not paths:
        raise ModelError(f"model {name!r} has no member")
    members = tuple(Member(path, _sha256(name, path)) for path in paths)
    return ModelRecord(name, members, "0", "unknown", 0, threshold, "unknown", "unknown")


def _checked(name: str, path: Path, registered: str) -> Member:
    found = _sha256(name, path)
    if found != registered:
        raise ModelError(f"model {name!r}: {path.name} has SHA-256 {found}, registered is {registered}; not used")
    return Member(path, found)


def _sha256(name: str, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"model {name!r}: {path.name} cannot be read: {error.strerror}") from error


def _entries(folder: Path) -> dict[str, object]:
    path = folder / REGISTRY_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ModelError(f"{path}: must hold 'name: entry' lines")
    return {str(name): entry for name, entry in content.items()}
