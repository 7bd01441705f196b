"""The files of one exam as they were given: what could be read, and why the rest could not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_io.headers import InstanceFacts, read_facts
from dicom_io.volume_reader import find_dicom_files
from processing.refusal import Reason, UnsuitableInput


@dataclass(frozen=True, slots=True)
class ExamFiles:
    """Header facts of the readable images, and one reason for each file that is none."""

    facts: tuple[InstanceFacts, ...]
    refusals: tuple[Reason, ...]


def read_exam_files(paths: Sequence[Path]) -> ExamFiles:
    """Read the headers of all files in ``paths`` (files, or folders searched recursively)."""
    facts: list[InstanceFacts] = []
    refusals: list[Reason] = []
    for path in find_dicom_files(paths):
        try:
            facts.append(read_facts(path))
        except UnsuitableInput as error:
            refusals.append(Reason(error.reason.code, f"{path.name}: {error.reason.detail}"))
    return ExamFiles(tuple(facts), tuple(refusals))
