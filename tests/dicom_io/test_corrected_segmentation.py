"""A segmentation that a person sends back: what is accepted, on which voxels, and what is refused with which code."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from corrected_masks import (
    EDITOR,
    VARIANTS,
    assembly_of,
    drawn_discs,
    edited,
    erased,
    frames_of,
    put_frames,
    write_automatic,
)
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid
from small_mr_exam import mapss_signal, write_mapss

from dicom_io.corrected_segmentation import ExamGrid, exam_grid, read_corrected
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Level

SHAPE = (5, 54, 40)
DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_mapss(tmp_path_factory.mktemp("images"), mapss_signal(*SHAPE))


@pytest.fixture(scope="module")
def grid(images: list[Path]) -> ExamGrid:
    return exam_grid(assembly_of(images))


@pytest.fixture(scope="module")
def automatic(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_automatic(images, tmp_path_factory.mktemp("own") / "seg.dcm")


def _without_first_columns() -> np.ndarray:
    discs = drawn_discs(SHAPE)
    discs[:, :, :8] = 0
    return discs


def _without_a_column() -> np.ndarray:
    discs = drawn_discs(SHAPE)
    discs[:, :, 10] = 0
    return discs


def _two_discs() -> np.ndarray:
    return drawn_discs(SHAPE, (Level.L4L5, Level.L3L4))


EXPECTED = {
    "edited pixels": lambda: erased(drawn_discs(SHAPE)),
    "another order, empty frames left out": _without_first_columns,
    "label map": lambda: erased(drawn_discs(SHAPE)),
    "some discs": _two_discs,
    "other names": _without_a_column,
    "by Slicer's dcmqi": lambda: erased(drawn_discs(SHAPE)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_person_drew_is_read_voxel_by_voxel(
    name: str, automatic: Path, images: list[Path], grid: ExamGrid, tmp_path: Path
) -> None:
    path = tmp_path / "corrected.dcm"
    VARIANTS[name](automatic, images, path)
    given = read_corrected(path, grid)
    np.testing.assert_array_equal(given.levels, EXPECTED[name]())
    assert given.origin.sop_instance_uid == dcmread(path).SOPInstanceUID
    assert given.origin.editor == ("" if name == "some discs" else EDITOR)


def _deflated(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def _implicit(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _described_frame_by_frame(dataset: Dataset) -> None:
    """Orientation and spacing at each frame, not once for all."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = deepcopy(shared.PlaneOrientationSequence)
        frame.PixelMeasuresSequence = deepcopy(shared.PixelMeasuresSequence)
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence


def _on_two_slices(dataset: Dataset) -> None:
    """Discs on the second and fourth slice only, and no word on how far slices lie apart."""
    frames, groups = frames_of(dataset), dataset.PerFrameFunctionalGroupsSequence
    kept = [i for i, one in enumerate(groups) if _x_mm(one) in (16.0, 8.0)]
    put_frames(dataset, frames[kept], [groups[i] for i in kept])
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices


def _x_mm(frame: Dataset) -> float:
    return float(frame.PlanePositionSequence[0].ImagePositionPatient[0])


def _without_optional_parts(dataset: Dataset) -> None:
    """What other programs leave out: dimensions' organization, derivation, algorithm, colours."""
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    for segment in dataset.SegmentSequence:
        del segment.RecommendedDisplayCIELabValue, segment.SegmentationAlgorithmIdentificationSequence
        segment.SegmentAlgorithmType = "MANUAL"
    del dataset.ContributingEquipmentSequence, dataset.SegmentsOverlap


@pytest.mark.parametrize("change", [_deflated, _implicit, _described_frame_by_frame, _without_optional_parts])
def test_other_forms_of_the_same_segmentation_are_read_alike(
    change, automatic: Path, grid: ExamGrid, tmp_path: Path
) -> None:
    dataset = edited(dcmread(automatic))
    change(dataset)
    path = tmp_path / "corrected.dcm"
    implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(read_corrected(path, grid).levels, drawn_discs(SHAPE))


def test_empty_slices_between_others_may_be_left_out(automatic: Path, grid: ExamGrid, tmp_path: Path) -> None:
    dataset = edited(dcmread(automatic))
    _on_two_slices(dataset)
    path = tmp_path / "corrected.dcm"
    dataset.save_as(path)
    expected = drawn_discs(SHAPE)
    expected[[0, 2, 4]] = 0
    np.testing.assert_array_equal(read_corrected(path, grid).levels, expected)


def test_a_compressed_label_map_is_read(automatic: Path, images: list[Path], grid: ExamGrid, tmp_path: Path) -> None:
    path = tmp_path / "corrected.dcm"
    VARIANTS["label map"](automatic, images, path)
    dataset = dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_corrected(path, grid).levels, erased(drawn_discs(SHAPE)))


def test_what_ohifs_library_writes_is_read_voxel_by_voxel(grid: ExamGrid) -> None:
    """Written by dcmjs 0.51.1 as OHIF calls it, from the images of this module and labels as a person types them."""
    given = read_corrected(DATA / "dcmjs_segmentation.dcm", grid, {"1.2.3.1"})
    np.testing.assert_array_equal(given.levels, erased(drawn_discs(SHAPE)))
    assert given.origin.tool == "dcmjs-0.0"  # which names no maker


def test_the_program_that_saved_it_is_named(automatic: Path, grid: ExamGrid, tmp_path: Path) -> None:
    path = tmp_path / "corrected.dcm"
    edited(dcmread(automatic)).save_as(path)
    assert read_corrected(path, grid).origin.tool == "3D Slicer Segment Editor 5.8"


def test_several_editors_and_odd_letters_become_one_name_that_can_be_written(
    automatic: Path, grid: ExamGrid, tmp_path: Path
) -> None:
    """Of several versions of a program, Manufacturer would have had several values; a list showed its brackets."""
    path = tmp_path / "corrected.dcm"
    dataset = edited(dcmread(automatic), editor="")
    dataset.OperatorsName, dataset.SoftwareVersions = ["Reader^Rosa", "Second^Sam\x1b"], ["5.8", "r1\n"]
    dataset.save_as(path)
    origin = read_corrected(path, grid).origin
    assert (origin.editor, origin.tool) == ("Reader^Rosa, Second^Sam", "3D Slicer Segment Editor 5.8, r1")


@pytest.mark.filterwarnings("ignore:The PN component length:UserWarning")  # pydicom, when such a file is made
def test_an_endless_name_of_an_editor_leaves_room_for_the_report(
    automatic: Path, grid: ExamGrid, tmp_path: Path
) -> None:
    path = tmp_path / "corrected.dcm"
    edited(dcmread(automatic), editor="x" * 20000).save_as(path)
    assert read_corrected(path, grid).origin.editor == "x" * 194


# --- what is refused --------------------------------------------------------------------------------------------------


def _other_study(dataset: Dataset) -> None:
    dataset.StudyInstanceUID = "1.2.99"


def _other_patient(dataset: Dataset) -> None:
    dataset.PatientID = "P-18"


def _other_frame(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.99.9"


def _no_frame(dataset: Dataset) -> None:
    del dataset.FrameOfReferenceUID


def _other_images(dataset: Dataset) -> None:
    for number, series in enumerate(dataset.ReferencedSeriesSequence):
        series.SeriesInstanceUID = f"1.2.99.{number}"


def _between_the_slices(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = [float(x) + 2.0, y, z]


def _twice_as_thick(dataset: Dataset) -> None:
    """As a tool resamples it: every other frame, with twice the spacing and the thickness."""
    frames, groups = frames_of(dataset), dataset.PerFrameFunctionalGroupsSequence
    kept = [i for i, one in enumerate(groups) if round(_x_mm(one) / 4) % 2 == 0]
    put_frames(dataset, frames[kept], [groups[i] for i in kept])
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = measures.SliceThickness = 8.0


def _twice_as_thick_without_spacing(dataset: Dataset) -> None:
    _twice_as_thick(dataset)
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices


def _on_every_other_slice_without_a_word(dataset: Dataset) -> None:
    """Neither how thick its slices are nor how far apart: it may have been resampled."""
    _twice_as_thick_without_spacing(dataset)
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = None


def _other_pixels(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.8]


def _turned(dataset: Dataset) -> None:
    plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [0, 0.98480775, -0.17364818, 0, -0.17364818, -0.98480775]


def _beyond_the_images(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = [float(x) + 12.0, y, z]


def _far_apart(dataset: Dataset) -> None:
    """Positions 0.1 mm and 8000 mm apart: as many empty slices between them as one likes."""
    places: dict[float, int] = {}
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 0.1
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        number = places.setdefault(float(x), len(places))
        x_mm = -8000.0 if number == 3 else -0.1 * number
        frame.PlanePositionSequence[0].ImagePositionPatient = [f"{x_mm:.2f}", y, z]


def _unknown_level(dataset: Dataset) -> None:
    segment = dataset.SegmentSequence[1]
    segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "360499006"
    segment.SegmentLabel, segment.TrackingUID = "Segment_6", generate_uid()


def _contradictory(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentLabel = "L3/L4"


def _swapped(dataset: Dataset) -> None:
    first, second = dataset.SegmentSequence[:2]
    for keyword in ("SegmentedPropertyTypeCodeSequence", "SegmentLabel", "TrackingUID"):
        one, other = first[keyword].value, second[keyword].value
        setattr(first, keyword, other)
        setattr(second, keyword, one)


def _fractional(dataset: Dataset) -> None:
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"


def _overlapping(dataset: Dataset) -> None:
    frames = frames_of(dataset)
    frames[:, 3:6, 12:15] = 1
    put_frames(dataset, frames, dataset.PerFrameFunctionalGroupsSequence)


def _empty(dataset: Dataset) -> None:
    put_frames(dataset, frames_of(dataset) * 0, dataset.PerFrameFunctionalGroupsSequence)


def _no_frames_described(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (_other_study, ReasonCode.IDENTITY_CONFLICT, "another study"),
        (_other_patient, ReasonCode.IDENTITY_CONFLICT, "another patient"),
        (_other_images, ReasonCode.IDENTITY_CONFLICT, "images that are not of its study"),
        (_other_frame, ReasonCode.GEOMETRY_INCONSISTENT, "another frame of reference"),
        (_between_the_slices, ReasonCode.GEOMETRY_INCONSISTENT, "0.50 voxels beside"),
        (_other_pixels, ReasonCode.GEOMETRY_INCONSISTENT, "voxels are 4.000 x 0.800 x 0.800 mm"),
        (_turned, ReasonCode.GEOMETRY_INCONSISTENT, "voxels beside|other directions"),
        (_beyond_the_images, ReasonCode.GEOMETRY_INCONSISTENT, "beyond the edge"),
        (_twice_as_thick, ReasonCode.GEOMETRY_INCONSISTENT, "SpacingBetweenSlices 8.000 mm, theirs 4.000 mm"),
        (_twice_as_thick_without_spacing, ReasonCode.GEOMETRY_INCONSISTENT, "SliceThickness 8.000 mm, theirs 4.000"),
        (_on_every_other_slice_without_a_word, ReasonCode.GEOMETRY_INCONSISTENT, "its voxels are 8.000"),
        (_far_apart, ReasonCode.GEOMETRY_INCONSISTENT, "span 80001 x 54 x 40 voxels, more than any exam has"),
        (_unknown_level, ReasonCode.LEVELS_AMBIGUOUS, "segment 2 is drawn, but neither"),
        (_contradictory, ReasonCode.LEVELS_AMBIGUOUS, "called L4L5 and L3L4"),
        (_swapped, ReasonCode.LEVELS_AMBIGUOUS, "L4L5 does not lie above L5S1"),
        (_fractional, ReasonCode.UNSUPPORTED_OBJECT, "FRACTIONAL"),
        (_overlapping, ReasonCode.UNSUPPORTED_OBJECT, "segments overlap"),
        (_empty, ReasonCode.SEGMENTATION_UNCERTAIN, "no voxel of a disc"),
        (_no_frames_described, ReasonCode.UNREADABLE, "broken"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_code(
    change, code: ReasonCode, text: str, automatic: Path, grid: ExamGrid, tmp_path: Path
) -> None:
    dataset = edited(dcmread(automatic))
    change(dataset)
    path = tmp_path / "corrected.dcm"
    dataset.save_as(path)
    with pytest.raises(UnsuitableInput, match=text) as refusal:
        read_corrected(path, grid, {"1.2.3.1"})
    assert refusal.value.reason.code is code
    assert EDITOR not in refusal.value.reason.detail


def test_a_file_that_is_cut_short_is_unreadable(automatic: Path, grid: ExamGrid, tmp_path: Path) -> None:
    content = automatic.read_bytes()
    path = tmp_path / "corrected.dcm"
    for n_bytes in (len(content) - 200, len(content) // 2, 400):
        path.write_bytes(content[:n_bytes])
        with pytest.raises(UnsuitableInput) as refusal:
            read_corrected(path, grid)
        assert refusal.value.reason.code is ReasonCode.UNREADABLE


def test_without_a_frame_of_reference_it_must_refer_to_the_exam(
    automatic: Path, grid: ExamGrid, tmp_path: Path
) -> None:
    dataset = edited(dcmread(automatic))
    _no_frame(dataset)
    path = tmp_path / "corrected.dcm"
    dataset.save_as(path)
    assert (read_corrected(path, grid, {"1.2.3.1"}).levels == drawn_discs(SHAPE)).all()
    with pytest.raises(UnsuitableInput, match="names neither"):
        read_corrected(path, grid)
