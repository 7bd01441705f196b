"""Discs read back from a DICOM Segmentation: of our own writer, and of another program that knows only labels."""

import example_exam
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_io.segmentation_reader import is_segmentation, read_segmentation
from dicom_io.segmentation_writer import segmentation_object
from processing.refusal import ReasonCode, UnsuitableInput


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "seg.dcm"
    result, source = example_exam.exam_result(), example_exam.source_exam()
    segmentation_object(result, source).save_as(path, enforce_file_format=True)
    return path


def changed(path, change) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def on_grid(labels: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], grid: np.ndarray) -> np.ndarray:
    """Labels placed by their affine on a grid that contains theirs."""
    placed = np.zeros(shape, np.uint8)
    indices = np.argwhere(labels)
    points = np.c_[indices, np.ones(len(indices))] @ affine.T
    back = points @ np.linalg.inv(grid).T
    np.testing.assert_allclose(back, np.round(back), atol=1e-3)
    placed[tuple(np.round(back[:, :3]).astype(int).T)] = labels[tuple(indices.T)]
    return placed


def test_what_our_writer_wrote_is_read_back_voxel_by_voxel(path):
    mask = example_exam.exam_result().mask
    assert mask is not None
    assert is_segmentation(path)
    labels, affine = read_segmentation(path)
    np.testing.assert_array_equal(on_grid(labels, affine, mask.levels.shape, mask.affine), mask.levels)


def test_segments_of_another_program_are_matched_by_their_labels(path):
    expected, _ = read_segmentation(path)

    def rename(dataset: Dataset) -> None:
        for segment in dataset.SegmentSequence:
            code = segment.SegmentedPropertyTypeCodeSequence[0]
            code.CodeValue, code.CodeMeaning = "360499006", "Intervertebral disc"
            first, _, second = str(segment.SegmentLabel).partition("/")
            segment.SegmentLabel = f"disc {first.lower()}-{second.split()[0].lower()}"

    changed(path, rename)
    found, _ = read_segmentation(path)
    np.testing.assert_array_equal(found, expected)


def test_other_segments_are_left_out(path):
    before, _ = read_segmentation(path)
    present = sorted(set(np.unique(before).tolist()) - {0})

    def rename(dataset: Dataset) -> None:
        segment = dataset.SegmentSequence[0]
        segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "51114001"
        segment.SegmentLabel = "artery"

    changed(path, rename)
    after, _ = read_segmentation(path)
    assert sorted(set(np.unique(after).tolist()) - {0}) == present[1:]


def _no_disc(dataset: Dataset) -> None:
    for segment in dataset.SegmentSequence:
        segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "51114001"
        segment.SegmentLabel = "artery"


def _twice(dataset: Dataset) -> None:
    first, second = dataset.SegmentSequence[:2]
    second.SegmentedPropertyTypeCodeSequence = first.SegmentedPropertyTypeCodeSequence
    second.SegmentLabel = first.SegmentLabel


def _overlapping(dataset: Dataset) -> None:
    """Two frames of one place get the same pixels, as different segments."""
    places: dict[str, int] = {}
    n_bytes = dataset.Rows * dataset.Columns // 8
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        other = places.setdefault(str(frame.PlanePositionSequence[0].ImagePositionPatient), index)
        if other != index:
            pixels = bytearray(dataset.PixelData)
            pixels[index * n_bytes : (index + 1) * n_bytes] = pixels[other * n_bytes : (other + 1) * n_bytes]
            dataset.PixelData = bytes(pixels)
            return
    raise AssertionError("no two frames at one place")


def _shifted_frame(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        first = dataset.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0].ImagePositionPatient
        if position.ImagePositionPatient == first:
            position.ImagePositionPatient = [float(first[0]) + 1.3, *first[1:]]
            return


def _without_segments(dataset: Dataset) -> None:
    del dataset.SegmentSequence


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (_no_disc, ReasonCode.LEVELS_AMBIGUOUS, "no segment is a lumbar disc"),
        (_twice, ReasonCode.LEVELS_AMBIGUOUS, "two segments are"),
        (_overlapping, ReasonCode.UNSUPPORTED_OBJECT, "segments overlap"),
        (_shifted_frame, ReasonCode.GEOMETRY_INCONSISTENT, "no regular stack of slices"),
        (_without_segments, ReasonCode.UNREADABLE, "the segmentation is broken"),
    ],
)
def test_a_segmentation_that_tells_no_levels_is_refused(path, change, code, text):
    changed(path, change)
    with pytest.raises(UnsuitableInput, match=text) as refusal:
        read_segmentation(path)
    assert refusal.value.reason.code is code


def test_an_image_is_no_segmentation(tmp_path, path):
    other = tmp_path / "other.dcm"
    dataset = dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.SOPInstanceUID = generate_uid()
    dataset.save_as(other)
    (tmp_path / "text").write_text("not DICOM")
    assert not is_segmentation(other)
    assert not is_segmentation(tmp_path / "text")
    with pytest.raises(UnsuitableInput, match="not a DICOM Segmentation"):
        read_segmentation(other)
