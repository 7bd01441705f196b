"""A DICOM Segmentation of discs -> level labels on its own grid; segments are matched by code, else by label."""

import re
from pathlib import Path

import highdicom
import numpy as np
from highdicom.seg import Segmentation, segread
from pydicom.uid import SegmentationStorage

from dicom_io.codes import DISC_CODES
from dicom_io.raw_header import PARSE_FAULTS, parse
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine, LabelArray, Level

_LABEL = re.compile(r"\b(T12|L[1-5])\s*[-/_]?\s*(L[1-5]|S1)\b", re.IGNORECASE)


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM Segmentation; False for anything else, also for what is no DICOM."""
    try:
        return bool(parse(path.read_bytes()).file_meta.MediaStorageSOPClassUID == SegmentationStorage)
    except (UnsuitableInput, AttributeError):
        return False


def read_segmentation(path: Path) -> tuple[LabelArray, Affine]:
    """Level labels (slices, rows, columns) of the slices that the segmentation holds, and their affine (LPS mm).

    Slices between its frames that it leaves out are empty. Segments that are no lumbar disc are left out.

    Raises:
        UnsuitableInput: UNREADABLE, the file is broken; UNSUPPORTED_OBJECT, it is no Segmentation, no segment is a
            disc of known level, two segments are the same level, or segments overlap; GEOMETRY_INCONSISTENT, its frames
            are no regular stack of slices.
    """
    segmentation = _open(path)
    numbers = _disc_segments(segmentation)
    try:
        geometry = segmentation.get_volume_geometry()
    except (RuntimeError, ValueError) as error:
        text = f"the segmentation's frames have no clear places: {error}"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text) from error
    if geometry is None:
        text = "the segmentation's frames are no regular stack of slices"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    try:
        volume = segmentation.get_volume(segment_numbers=list(numbers), combine_segments=True, dtype=np.uint16)
    except (RuntimeError, ValueError) as error:
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, f"segments cannot be combined: {error}") from error
    table = np.zeros(max(numbers) + 1, np.uint8)
    for number, level in numbers.items():
        table[number] = level
    return table[volume.array], np.asarray(volume.affine, np.float64)


def _open(path: Path) -> Segmentation:
    if not is_segmentation(path):
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, "not a DICOM Segmentation")
    try:
        return segread(path)
    except (AttributeError, *PARSE_FAULTS) as error:  # AttributeError: a mandatory element is missing
        text = f"the segmentation is broken ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error


def _disc_segments(segmentation: Segmentation) -> dict[int, Level]:
    """Segment number -> level, for the segments that are lumbar discs."""
    found: dict[int, Level] = {}
    for number in segmentation.segment_numbers:
        level = _level_of(segmentation.get_segment_description(number))
        if level is None:
            continue
        if level in found.values():
            raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, f"two segments are {level.name}")
        found[int(number)] = level
    if not found:
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, "no segment is a lumbar disc of known level")
    return found


def _level_of(description: "highdicom.seg.SegmentDescription") -> Level | None:
    code = description.segmented_property_type
    for level, known in DISC_CODES.items():
        if (code.value, code.scheme_designator) == (known.value, known.scheme_designator):
            return level
    match = _LABEL.search(str(description.segment_label))
    name = "".join(match.groups()).upper() if match else ""
    return Level[name] if name in Level.__members__ else None
