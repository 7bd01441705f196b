"""The simulated scanner's files: real DICOM, GE's way of writing MAPSS, and pixels that match the exam."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from dicom_io.simulated_scanner import write_exam, write_slice_stack, write_truth
from processing.phantom import PhantomExam, simulate_exam
from processing.results import ImageVolume

MAPSS_TIMES_MS = [0, 10, 12.8, 25.7, 40, 51.4, 80]


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(4, n_slices=3, subject="PHANTOM-042", visit=2, oblique_deg=7.0)


@pytest.fixture(scope="module")
def files(exam: PhantomExam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_exam(exam, tmp_path_factory.mktemp("exam"))


@pytest.fixture(scope="module")
def mapss(files: list[Path]) -> list:
    headers = [dcmread(path) for path in files]
    return [header for header in headers if "MAPSS" in header.SeriesDescription]


def test_an_exam_is_two_series_of_one_study(files: list[Path]) -> None:
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    assert len(files) == 3 * 7 + 3
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert len({header.FrameOfReferenceUID for header in headers}) == 1
    assert len({header.SeriesInstanceUID for header in headers}) == 2
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    assert {header.SeriesDescription for header in headers} == {"MAPSS T1rho T2", "SAG T2 FSE"}
    assert {header.SOPClassUID for header in headers} == {MRImageStorage}
    for header in headers:
        assert "RESEARCH USE ONLY" in header.ImageComments
        assert header.PatientID == "PHANTOM-042"
        assert str(header.PatientName).startswith("PHANTOM^")
        assert "Laterality" not in header


def test_spin_lock_times_stand_in_echo_time_fastest_by_echo(mapss: list) -> None:
    assert [header.InstanceNumber for header in mapss] == list(range(1, 22))
    assert [float(header.EchoTime) for header in mapss] == MAPSS_TIMES_MS * 3
    assert [header.EchoNumbers for header in mapss] == [1, 2, 3, 4, 5, 6, 7] * 3
    assert {header.ImagesInAcquisition for header in mapss} == {21}
    assert {header[0x0019, 0x107E].value for header in mapss} == {7}


def test_pixels_are_the_exam_at_one_scale(mapss: list, exam: PhantomExam) -> None:
    pixels = np.stack([header.pixel_array for header in mapss]).reshape(3, 7, 256, 256).swapaxes(0, 1)
    scale = pixels.max() / exam.signal.max()
    np.testing.assert_allclose(pixels, exam.signal * scale, atol=0.51)
    assert pixels.max() > 10_000


def test_headers_give_back_the_affine(mapss: list, exam: PhantomExam) -> None:
    for slice_index, header in enumerate(mapss[::7]):
        orientation = np.array(header.ImageOrientationPatient, dtype=float)
        row_spacing, column_spacing = (float(value) for value in header.PixelSpacing)
        np.testing.assert_allclose(orientation[:3] * column_spacing, exam.affine[:3, 2], atol=1e-5)
        np.testing.assert_allclose(orientation[3:] * row_spacing, exam.affine[:3, 1], atol=1e-5)
        position = exam.affine[:3, 3] + slice_index * exam.affine[:3, 0]
        np.testing.assert_allclose(np.array(header.ImagePositionPatient, dtype=float), position, atol=1e-5)
        assert float(header.SpacingBetweenSlices) == 4.0


def test_uids_follow_from_the_images_alone(exam: PhantomExam, files: list[Path], tmp_path: Path) -> None:
    again = write_exam(exam, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    other = write_exam(simulate_exam(4, n_slices=3, subject="PHANTOM-042", visit=2, snr=30.0), tmp_path / "other")
    known = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files}
    assert known.isdisjoint(dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in other)


def test_visits_are_on_different_days(tmp_path: Path) -> None:
    days = []
    for visit in (1, 2):
        paths = write_exam(simulate_exam(1, n_slices=1, visit=visit), tmp_path / str(visit))
        days.append(dcmread(paths[0], stop_before_pixels=True).StudyDate)
    assert days == ["20260112", "20260713"]


def test_truth_lies_on_the_grid_of_the_images(exam: PhantomExam, tmp_path: Path) -> None:
    write_truth(exam, tmp_path / "deep" / "truth.npz")
    with np.load(tmp_path / "deep" / "truth.npz") as truth:
        assert truth["labels"].shape == exam.signal.shape[1:]
        assert truth["labels"].dtype == np.uint8
        assert set(np.unique(truth["labels"])) == {0, 1, 2, 3, 4, 5}
        np.testing.assert_array_equal(truth["affine"], exam.affine)
        np.testing.assert_array_equal(np.isnan(truth["t2_ms"]), truth["labels"] == 0)
        np.testing.assert_array_equal(np.isnan(truth["t1rho_ms"]), truth["labels"] == 0)


def test_t1rho_fse_is_four_images_of_one_slice(tmp_path: Path) -> None:
    headers = [dcmread(path) for path in write_exam(simulate_exam(2, n_slices=1, protocol="t1rho-fse"), tmp_path)]
    relaxometry = [header for header in headers if header.SeriesDescription == "T1rho FSE"]
    assert [float(header.EchoTime) for header in relaxometry] == [0, 40, 80, 120]


def test_a_plain_stack_becomes_a_series(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[-1.8, 0, 0, 5.0], [0, 0, 0.5, -60.0], [0, -0.5, 0, 80.0], [0, 0, 0, 1.0]])
    array = rng.uniform(0, 255, (4, 40, 30)).astype(np.float32)
    paths = write_slice_stack(ImageVolume(array, affine), tmp_path, subject="REAL-1", series_description="SAG T2 SPACE")
    headers = [dcmread(path) for path in paths]
    assert len(headers) == 4
    assert {(header.Rows, header.Columns) for header in headers} == {(40, 30)}
    assert {header.SeriesDescription for header in headers} == {"SAG T2 SPACE"}
    pixels = np.stack([header.pixel_array for header in headers])
    assert np.corrcoef(pixels.ravel(), array.ravel())[0, 1] > 0.99999
    np.testing.assert_allclose([float(header.ImagePositionPatient[0]) for header in headers], [5, 3.2, 1.4, -0.4])


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not negative"):
        write_slice_stack(ImageVolume(np.full((1, 4, 4), -1, np.float32), np.eye(4)), tmp_path)


@pytest.mark.peers
def test_dciodvfy_finds_no_error_in_any_kind_of_file(files: list[Path], tmp_path: Path) -> None:
    fse = write_exam(simulate_exam(2, n_slices=1, protocol="t1rho-fse"), tmp_path / "fse")
    volume = ImageVolume(np.ones((2, 16, 16), np.float32), np.diag([-4.0, 1, 1, 1])[:, [0, 2, 1, 3]])
    stack = write_slice_stack(volume, tmp_path / "stack")
    for path in (files[0], files[3], files[-1], fse[-1], stack[0]):
        report = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in report.stderr + report.stdout, report.stderr
    consistency = subprocess.run(["dcentvfy", *map(str, files)], capture_output=True, text=True, check=False)
    assert consistency.stdout + consistency.stderr == ""
