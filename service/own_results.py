"""The DICOM objects that the node has made of an exam, as its result folders hold them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.settings import ObjectKind
from dicom_io.raw_header import series_uid_of


@dataclass(frozen=True, slots=True)
class OwnObject:
    """One object of one version of an exam's result."""

    version: int
    kind: ObjectKind
    sop_instance_uid: str
    path: Path

    @property
    def series_uid(self) -> str:
        """The series it is in; empty if its file is gone or broken."""
        return series_uid_of(self.path)


def own_objects(exam_folder: Path) -> tuple[OwnObject, ...]:
    """What lies in the folder of an exam's results, oldest version first."""
    return tuple(one for folder in sorted(exam_folder.glob("v*"), key=_version) for one in _objects(folder))


def _version(folder: Path) -> int:
    number = folder.name.removeprefix("v")
    return int(number) if number.isdigit() else 0


def _objects(folder: Path) -> Iterator[OwnObject]:
    path = folder / "result.json"
    if not path.is_file():
        return
    for one in json.loads(path.read_text(encoding="utf-8"))["objects"]:
        yield OwnObject(_version(folder), ObjectKind(one["kind"]), one["sop_instance_uid"], folder / one["path"])
