"""A Segmentation that a person sends back, checked against the exam that it is meant for."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue

from dicom_io.raw_header import PARSE_FAULTS, parse, quiet_pydicom
from dicom_io.segmentation_reader import disc_segments, open_segmentation
from dicom_io.series import ExamAssembly
from dicom_io.source_attributes import MANUFACTURER
from dicom_io.sources import SourceExam
from dicom_io.uids import tracking_uid
from processing.correction import check_discs
from processing.lattice import place_on_lattice
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine, GivenMask, Level, MaskOrigin
from processing.volume import spacing_mm

_PROGRAM_KEYWORDS = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")
_MOST_LETTERS = 194  # of a name in three groups (PS3.5, VR PN); a page of the report has no room for more
_MOST_RATIO = 1.5  # of what a segmentation says of its slices to what they are: writers round, and take gaps for slices
_MODIFYING_EQUIPMENT = "109103"  # DCM; a program that changed an object after its first writer (PS3.16 CID 7005)


@dataclass(frozen=True, slots=True, eq=False)
class ExamGrid:
    """What a Segmentation must agree with to belong to an exam.

    ``shape`` (slices, rows, columns) and ``affine`` (LPS mm) of what is segmented, ``slice_thickness_mm`` as its
    images say (0 where they do not); ``tracked``: tracking UIDs of the subject's discs.
    """

    study_uids: frozenset[str]
    frame_of_reference_uids: frozenset[str]
    patient_id: str
    shape: tuple[int, int, int]
    affine: Affine
    slice_thickness_mm: float
    tracked: Mapping[str, Level]


def exam_grid(assembly: ExamAssembly) -> ExamGrid:
    """The grid of a complete exam.

    Raises:
        UnsuitableInput: UNREADABLE, a file is no longer the one that was received.
        ValueError: the assembly is not complete.
        OSError: a file cannot be read.
    """
    if not assembly.measured:
        raise ValueError(f"an exam that is {assembly.state} has no grid")
    series = assembly.measured[0]
    first = series.grid[0][0]
    header = parse(first.path.read_bytes())
    source = SourceExam((header,), (header,), series.affine)
    return ExamGrid(
        study_uids=frozenset(one.study_uid for one in assembly.images),
        frame_of_reference_uids=frozenset(one.frame_of_reference_uid for one in assembly.images) - {""},
        patient_id=str(header.get("PatientID") or ""),
        shape=(len(series.grid[0]), first.rows, first.columns),
        affine=series.affine,
        slice_thickness_mm=series.grid[0][0].slice_thickness_mm or 0.0,
        tracked={str(tracking_uid(source, level.name)): level for level in Level},
    )


def read_corrected(path: Path, grid: ExamGrid, known_series: Collection[str] = ()) -> GivenMask:
    """The discs of a Segmentation, on the exam's grid.

    Args:
        path: a DICOM Segmentation.
        grid: of the exam that it is meant for.
        known_series: series of the exam's study and of what was made of it; if given, the Segmentation must refer to
            one of them, if it refers to any.

    Raises:
        UnsuitableInput: IDENTITY_CONFLICT, another study or patient, or other images; GEOMETRY_INCONSISTENT,
            another frame of reference or other voxels; LEVELS_AMBIGUOUS, what has voxels is no disc of known level, or
            discs do not lie in the order of their names; SEGMENTATION_UNCERTAIN, it is empty; UNREADABLE and
            UNSUPPORTED_OBJECT, as :mod:`dicom_io.segmentation_reader`.
    """
    dataset = open_segmentation(path)
    with quiet_pydicom():  # an odd name of an editor must not reach a log
        _check_owner(dataset, grid)
        _check_frame(dataset, grid, known_series)
        origin = _origin(dataset, path)
    found = disc_segments(dataset, grid.tracked)
    if found.unnamed:
        text = f"{' and '.join(found.unnamed)} is drawn, but neither a code nor the label says which disc it is"
        raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, text)
    told = _check_slices(dataset, grid)
    levels = place_on_lattice(found.levels, found.affine, grid.shape, grid.affine, slices_left_out=told)
    check_discs(levels, grid.affine)
    return GivenMask(levels, origin)


def _check_owner(dataset: Dataset, grid: ExamGrid) -> None:
    if str(dataset.get("StudyInstanceUID") or "") not in grid.study_uids:
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, "the segmentation is of another study than the images")
    patient_id = str(dataset.get("PatientID") or "")
    if patient_id and grid.patient_id and patient_id != grid.patient_id:
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, "the segmentation is of another patient than the images")


def _check_frame(dataset: Dataset, grid: ExamGrid, known_series: Collection[str]) -> None:
    """PS3.3 C.7.4.1: positions mean something only within one frame of reference."""
    referenced = {str(one.get("SeriesInstanceUID") or "") for one in dataset.get("ReferencedSeriesSequence") or ()}
    refers_to_us = bool(referenced & set(known_series))
    frame_uid = str(dataset.get("FrameOfReferenceUID") or "")
    if frame_uid and grid.frame_of_reference_uids and frame_uid not in grid.frame_of_reference_uids:
        text = "the segmentation lies in another frame of reference than the images"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    if not frame_uid and not refers_to_us:
        text = "the segmentation names neither a frame of reference nor images of the exam"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    if known_series and referenced and not refers_to_us:
        text = "the segmentation refers to images that are not of its study"
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, text)


def _check_slices(dataset: Dataset, grid: ExamGrid) -> bool:
    """Whether its slices are told to be as far apart, or as thick, as the exam's; False where nothing is told.

    Slices that were made thicker may lie on every other slice of the exam, and mean its neighbours as well.
    """
    spacing, _, _ = spacing_mm(grid.affine)
    for keyword, ours in (
        ("SpacingBetweenSlices", spacing),
        ("SliceThickness", max(spacing, grid.slice_thickness_mm)),
    ):
        said = _of_slices(dataset, keyword)
        if said > _MOST_RATIO * ours:
            text = (
                f"the segmentation's slices are not those of the images: {keyword} {said:.3f} mm, theirs {ours:.3f} mm"
            )
            raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
        if said:
            return True
    return False


def _of_slices(dataset: Dataset, keyword: str) -> float:
    """A number in mm of the frames' Pixel Measures (PS3.3 C.7.6.16.2.1); 0 where they do not tell it."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    groups = (*(dataset.get("SharedFunctionalGroupsSequence") or ())[:1], *frames[:1])
    for measures in (item for group in groups for item in group.get("PixelMeasuresSequence") or ()):
        try:
            said = abs(float(measures.get(keyword) or 0.0))
        except PARSE_FAULTS as error:
            text = f"the segmentation is broken ({keyword} is no number)"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
        if said:
            return said
    return 0.0


def _origin(dataset: FileDataset, path: Path) -> MaskOrigin:
    """Who drew it, and with what: the maker of the object; if that is the node, the program that changed it before."""
    changed_by = [
        item
        for item in dataset.get("ContributingEquipmentSequence") or ()
        if any(
            code.get("CodeValue") == _MODIFYING_EQUIPMENT for code in item.get("PurposeOfReferenceCodeSequence") or ()
        )
    ]
    program = changed_by[-1] if changed_by and _text(dataset, "Manufacturer") == MANUFACTURER else dataset
    editors = (_text(one, name) for name in ("ContentCreatorName", "OperatorsName") for one in (dataset, program))
    return MaskOrigin(
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        editor=next((one for one in editors if one), ""),
        tool=_tool(program) or str(dataset.file_meta.get("ImplementationVersionName") or ""),
    )


def _tool(program: Dataset) -> str:
    """Maker, name and version; nothing where the maker is left open."""
    words = [_text(program, name) for name in _PROGRAM_KEYWORDS]
    return "" if words[0].lower() in ("", "unspecified", "unknown") else " ".join(word for word in words if word)


def _text(dataset: Dataset, keyword: str) -> str:
    """A value as one printable text, which can be written as one value again; several are joined by commas."""
    value = dataset.get(keyword)
    values = value if isinstance(value, MultiValue) else (value,)
    text = ", ".join(str(one) for one in values if one is not None)
    printable = "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text)
    return " ".join(printable.split())[:_MOST_LETTERS]
