"""Annotated DICOM exams: every kind of mask gives the same truth, and what does not fit is refused before any work."""

import dataclasses

import annotated_site
import example_exam
import numpy as np
import pytest
from volume_files import write_volume

from config.settings import Settings
from dicom_io.segmentation_writer import segmentation_object
from dicom_io.volume_reader import read_exam
from processing.annotations import AnnotationError
from processing.results import DiscMask, Quantity
from processing.volume import to_canonical
from service.annotated_exams import find_annotated_exams, read_annotated_exam, read_annotated_exams
from service.exam_files import read_exam_files
from service.pipeline import assemble


def write_segmentation(exam, folder) -> None:
    """The truth as a DICOM Segmentation, made by the node's own writer."""
    images = read_exam(assemble(read_exam_files([folder]), Settings()))
    nothing = np.zeros(exam.labels.shape, np.float32)
    mask = DiscMask(exam.labels, nothing, exam.labels, exam.affine, (), "truth", "0" * 64)
    result = dataclasses.replace(example_exam.exam_result(), mask=mask)
    segmentation_object(result, images.source).save_as(folder / "discs.dcm", enforce_file_format=True)


@pytest.fixture
def exam():
    return annotated_site.phantom("S1")


@pytest.mark.parametrize("kind", ["truth", "volume", "segmentation"])
def test_each_kind_of_mask_gives_the_truth_on_the_grid_of_the_images(tmp_path, exam, kind):
    folder = annotated_site.write_dicom(exam, tmp_path, "S1_2")
    if kind == "truth":
        annotated_site.write_truth_beside(exam, tmp_path, "S1_2")
    elif kind == "volume":
        write_volume(exam.labels, folder / "mask.nii.gz", exam.affine)
    else:
        write_segmentation(exam, folder)
    (found,) = read_annotated_exams(tmp_path, Settings())
    assert (found.subject, found.visit, found.source) == ("S1", "2", "dicom")
    labels, affine, _ = to_canonical(exam.labels, exam.affine)
    np.testing.assert_allclose(found.image.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(np.where(found.levels > 5, 0, found.levels), labels)
    assert [stack.role for stack in found.stacks] == [Quantity.T1RHO, Quantity.T2]
    times, signal = exam.echoes(Quantity.T2)
    assert found.stacks[1].times_ms == pytest.approx(times, abs=1e-3)
    stored, _, _ = to_canonical(signal, exam.affine)
    correlation = np.corrcoef(found.stacks[1].signal.ravel(), stored.ravel())[0, 1]
    assert correlation > 0.9999
    np.testing.assert_array_equal(found.stacks[1].signal[0], found.image.array)


def test_a_segmentation_of_one_slice_is_placed_on_its_slice(tmp_path, exam):
    one_slice = dataclasses.replace(exam, labels=exam.labels * np.array([0, 1, 0], np.uint8)[:, None, None])
    folder = annotated_site.write_dicom(exam, tmp_path, "S1")
    write_segmentation(one_slice, folder)
    (found,) = read_annotated_exams(tmp_path, Settings())
    labels, _, _ = to_canonical(one_slice.labels, exam.affine)
    np.testing.assert_array_equal(found.levels, labels)


def test_without_a_mask_or_with_two_an_exam_is_refused(tmp_path, exam):
    folder = annotated_site.write_dicom(exam, tmp_path, "S1")
    with pytest.raises(AnnotationError, match="S1: 0 masks; one DICOM Segmentation"):
        find_annotated_exams(tmp_path, Settings())
    annotated_site.write_truth_beside(exam, tmp_path, "S1")
    write_volume(exam.labels, folder / "mask.nii.gz", exam.affine)
    with pytest.raises(AnnotationError, match="S1: 2 masks"):
        find_annotated_exams(tmp_path, Settings())


def test_a_mask_on_another_grid_is_refused(tmp_path, exam):
    folder = annotated_site.write_dicom(exam, tmp_path, "S1")
    moved = exam.affine.copy()
    moved[:3, 3] += exam.affine[:3, 1] * 0.5  # half a row: another convention of the voxel's corner
    write_volume(exam.labels, folder / "mask.nii.gz", moved)
    with pytest.raises(AnnotationError, match="does not lie on the voxels of its image"):
        find_annotated_exams(tmp_path, Settings())
    turned = exam.affine.copy()
    turned[:3, 1] *= 1.02
    write_volume(exam.labels, folder / "mask.nii.gz", turned)
    with pytest.raises(AnnotationError, match="different geometry"):
        find_annotated_exams(tmp_path, Settings())
    write_volume(exam.labels * 0, folder / "mask.nii.gz", exam.affine)
    with pytest.raises(AnnotationError, match="the mask is empty"):
        find_annotated_exams(tmp_path, Settings())


def test_one_patient_under_two_subjects_is_refused_but_two_visits_are_not(tmp_path, exam):
    for name in ("S1_1", "S1_2"):
        annotated_site.write_dicom(exam, tmp_path, name)
        annotated_site.write_truth_beside(exam, tmp_path, name)
    assert [one.visit for one in find_annotated_exams(tmp_path, Settings())] == ["1", "2"]
    (tmp_path / "S1_2").rename(tmp_path / "S9_1")
    (tmp_path / "S1_2_truth.npz").rename(tmp_path / "S9_1_truth.npz")
    with pytest.raises(AnnotationError, match="S1, S9: the images are of one patient"):
        find_annotated_exams(tmp_path, Settings())


def test_incomplete_dicom_and_mixed_folders_are_refused(tmp_path, exam):
    folder = annotated_site.write_dicom(exam, tmp_path, "S1")
    annotated_site.write_truth_beside(exam, tmp_path, "S1")
    series = sorted(folder.glob("series-003/*"))
    series[3].unlink()
    with pytest.raises(AnnotationError, match="S1: SERIES_INCOMPLETE"):
        find_annotated_exams(tmp_path, Settings())
    write_volume(exam.signal[0], tmp_path / "S2_image.nii.gz", exam.affine)
    with pytest.raises(AnnotationError, match="both volume files and subfolders"):
        find_annotated_exams(tmp_path, Settings())
    with pytest.raises(AnnotationError, match="no such folder"):
        find_annotated_exams(tmp_path / "absent", Settings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="holds no annotated exam"):
        find_annotated_exams(tmp_path / "empty", Settings())


def test_volume_files_are_found_too(tmp_path, exam):
    write_volume(exam.signal[0], tmp_path / "S2_1_image.mha", exam.affine)
    write_volume(exam.labels, tmp_path / "S2_1_mask.mha", exam.affine)
    (source,) = find_annotated_exams(tmp_path, Settings())
    found = read_annotated_exam(source)
    assert (found.name, found.source, found.stacks) == ("S2_1", "site", ())
    labels, _, _ = to_canonical(exam.labels, exam.affine)
    np.testing.assert_array_equal(found.levels, labels)
