"""The files of one exam as they were given: what could be read, and why the rest could not."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.protocol_cards import ElementAddress
from dicom_io.headers import ImageFacts, read_facts
from dicom_io.volume_reader import find_dicom_files
from processing.refusal import Reason, UnsuitableInput

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExamFiles:
    """Header facts of the readable images, and one reason for each file that is none."""

    facts: tuple[ImageFacts, ...]
    refusals: tuple[Reason, ...]


def read_exam_files(paths: Sequence[Path], elements: Sequence[ElementAddress] = ()) -> ExamFiles:
    """Read the headers of all files in ``paths`` (files, or folders searched recursively).

    ``elements``: what protocol cards want to be read beside the usual (:func:`config.protocol_cards.asked_elements`).
    """
    facts: list[ImageFacts] = []
    refusals: list[Reason] = []
    files = find_dicom_files(paths)
    for number, path in enumerate(files, start=1):
        try:
            facts.extend(read_facts(path, elements))
        except UnsuitableInput as error:
            # Not by its name in what is kept: people name files after patients.
            refusals.append(Reason(error.reason.code, f"file {number} of {len(files)}: {error.reason.detail}"))
            _log.warning("file %d of %d is %s", number, len(files), path)
    return ExamFiles(tuple(facts), tuple(refusals))
