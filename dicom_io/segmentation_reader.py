"""A DICOM Segmentation of discs -> level labels on its own grid, whatever program wrote it (PS3.3 A.51, C.8.20)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from highdicom.seg import Segmentation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset

from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.raw_header import PARSE_FAULTS, parse, quiet_pydicom
from dicom_io.segment_names import level_of
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine, LabelArray, Level

_FAULTS = (RuntimeError, IndexError, *PARSE_FAULTS)  # RuntimeError: of highdicom, and of decoders


_MAX_VOXELS = 2**27  # 512 slices of 512 x 512


@dataclass(frozen=True, slots=True, eq=False)
class DiscSegments:
    """What a Segmentation holds: ``levels`` (slices, rows, columns) uint8 and its affine (LPS mm).

    ``unnamed``: labels of segments that have voxels and are no disc of known level; they are not in ``levels``.
    """

    levels: LabelArray
    affine: Affine
    unnamed: tuple[str, ...] = field(default=())


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM Segmentation; False for anything else, also for what is no DICOM."""
    try:
        return str(parse(path.read_bytes()).file_meta.MediaStorageSOPClassUID) in SEGMENTATION_CLASSES
    except (UnsuitableInput, AttributeError):
        return False


def read_segmentation(path: Path) -> tuple[LabelArray, Affine]:
    """Level labels (slices, rows, columns) of the slices that the segmentation holds, and their affine (LPS mm).

    Slices between its frames that it leaves out are empty. Segments that are no lumbar disc are left out.

    Raises:
        UnsuitableInput: as :func:`open_segmentation` and :func:`disc_segments`.
    """
    found = disc_segments(open_segmentation(path))
    return found.levels, found.affine


def open_segmentation(path: Path) -> FileDataset:
    """The data set of a Segmentation, its pixels known to be all there.

    Raises:
        UnsuitableInput: UNREADABLE, the file is broken or cut short; UNSUPPORTED_OBJECT, it is no Segmentation, or a
            fractional one.
    """
    dataset = parse(path.read_bytes())
    said = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if not {said, str(dataset.get("SOPClassUID", said))} <= set(SEGMENTATION_CLASSES):
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, "not a DICOM Segmentation")
    pixels = dataset.get_item("PixelData", keep_deferred=True)
    if not isinstance(pixels, RawDataElement) or not pixels.value:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "the segmentation is broken (no pixel data)")
    if pixels.length not in (0xFFFFFFFF, len(pixels.value)):
        text = f"the segmentation is cut short: {len(pixels.value)} of {pixels.length} bytes of pixel data are there"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    kind = str(dataset.get("SegmentationType", ""))
    if kind not in ("BINARY", "LABELMAP"):
        text = f"a segmentation of type {kind or 'unknown'}; BINARY or LABELMAP is expected"
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text)
    return dataset


def disc_segments(dataset: FileDataset, tracked: Mapping[str, Level] | None = None) -> DiscSegments:
    """The discs of an open Segmentation.

    Args:
        dataset: as :func:`open_segmentation` gives it.
        tracked: tracking UIDs of the subject's discs, for segments that neither a code nor a label names.

    Raises:
        UnsuitableInput: UNREADABLE, mandatory parts are missing or its pixels cannot be decoded; LEVELS_AMBIGUOUS, no
            segment is a lumbar disc of known level, two are the same one, or one is called by two names;
            UNSUPPORTED_OBJECT, segments overlap; GEOMETRY_INCONSISTENT, its frames are no regular stack of slices.
    """
    try:
        segments = {int(one.SegmentNumber): one for one in dataset.SegmentSequence}
        n_frames = int(dataset.NumberOfFrames)
        if len(dataset.PerFrameFunctionalGroupsSequence) != n_frames:
            raise ValueError("another number of frames than of their descriptions")
        if not dataset.get("FrameOfReferenceUID"):  # highdicom places frames only within one
            dataset.FrameOfReferenceUID = dataset.StudyInstanceUID
        with quiet_pydicom():
            segmentation = Segmentation.from_dataset(dataset, copy=False)
    except _FAULTS as error:
        text = f"the segmentation is broken ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
    segments.pop(0, None)  # the background of a label map
    numbers = _numbers_of(segments, tracked or {})
    affine = _affine(segmentation)
    labels = _labels(segmentation, sorted(segments))
    present = set(np.unique(labels).tolist())
    unnamed = tuple(_name(segments[one]) for one in sorted(present & (segments.keys() - numbers.keys())))
    table = np.zeros(max(segments) + 1, np.uint8)
    for number, level in numbers.items():
        table[number] = level
    return DiscSegments(table[labels], affine, unnamed)


def _numbers_of(segments: Mapping[int, Dataset], tracked: Mapping[str, Level]) -> dict[int, Level]:
    """Segment number -> level, for the segments that are lumbar discs."""
    found: dict[int, Level] = {}
    for number, segment in sorted(segments.items()):
        level = level_of(segment, tracked)
        if level is None:
            continue
        if level in found.values():
            raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, f"two segments are {level.name}")
        found[number] = level
    if not found:
        raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, "no segment is a lumbar disc of known level")
    return found


def _name(segment: Dataset) -> str:
    return f"segment {segment.get('SegmentNumber')}"  # not its label: people write anything there


def _affine(segmentation: Segmentation) -> Affine:
    try:
        geometry = segmentation.get_volume_geometry()
    except _FAULTS as error:
        text = f"the segmentation's frames have no clear places ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text) from error
    if geometry is None:
        text = "the segmentation's frames are no regular stack of slices"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    if math.prod(geometry.spatial_shape) > _MAX_VOXELS:  # a gap in positions may ask for any number of empty slices
        shape = " x ".join(map(str, geometry.spatial_shape))
        text = f"the segmentation's frames span {shape} voxels, more than any exam has"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    return np.asarray(geometry.affine, np.float64)


def _labels(segmentation: Segmentation, numbers: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Segment numbers (slices, rows, columns); 0 where there is none."""
    try:
        with quiet_pydicom():
            volume = segmentation.get_volume(segment_numbers=numbers, combine_segments=True, dtype=np.uint16)
    except _FAULTS as error:
        if "overlap" in str(error):
            text = "segments overlap: a voxel belongs to two of them, and it is not said to which disc"
            raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text) from error
        text = f"the segmentation's pixels cannot be read ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
    return np.asarray(volume.array)
