"""Which result of an exam supersedes which: said in result.json, in the measurements and in the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from config.settings import ObjectKind
from dicom_io.predecessor import name_predecessor


@dataclass(frozen=True, slots=True)
class Edition:
    """Which analysis of an exam a result is, from 1, and which one it replaces.

    ``is_again``: an earlier one was of just the same, as when a person names another lowest disc and takes it back.
    """

    version: int
    replaces: int
    is_again: bool = False


class ObjectFile(Protocol):
    """A result object on disk."""

    @property
    def kind(self) -> str:
        """A value of :class:`config.settings.ObjectKind`."""

    @property
    def path(self) -> Path:
        """Where it lies, relative to the result's folder or absolute."""


def mark_version(
    out: Path, objects: Sequence[ObjectFile], version: int, earlier_version: int | None, earlier: Path | None
) -> None:
    """Write the version of a finished result, and what it supersedes, into its folder.

    Args:
        out: the result's folder.
        objects: what it made.
        version: which analysis of the exam it is.
        earlier_version: that of the newest finished one before it, if there is one.
        earlier: the folder of that.
    """
    document: dict[str, Any] = {"version": version}
    if earlier_version is not None and earlier is not None:
        made = _made_by(earlier)
        document["predecessor"] = {
            "version": earlier_version,
            "objects": [{"kind": one["kind"], "sop_instance_uid": one["sop_instance_uid"]} for one in made],
        }
        _name_earlier_documents(out, objects, earlier, made)
    path = out / "result.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content | document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _made_by(folder: Path) -> list[dict[str, Any]]:
    """The objects of an earlier result; none if it is no longer there."""
    path = folder / "result.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["objects"] if path.is_file() else []
    return found


def _name_earlier_documents(
    out: Path, objects: Sequence[ObjectFile], earlier: Path, made: Sequence[dict[str, Any]]
) -> None:
    """Each document names the earlier one of its file name: the one with outlines is not the one with segments."""
    kinds = (ObjectKind.SR, ObjectKind.PDF)
    before = {Path(one["path"]).name: earlier / one["path"] for one in made if one["kind"] in kinds}
    for document in (one.path for one in objects if one.kind in kinds):
        found = before.get(document.name)
        if found is not None and found.is_file():
            name_predecessor(out / document, found)
