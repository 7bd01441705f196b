"""``discnode process`` on exams that cannot be measured: exit status 3, the reason on stderr and in result.json."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from dicom_io.simulated_scanner import write_exam, write_slice_stack
from processing.phantom import simulate_exam
from processing.results import ImageVolume
from service.cli import main


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small MAPSS exam: four slices, seven times, and its FSE."""
    folder = tmp_path_factory.mktemp("scanned")
    return write_exam(simulate_exam(5, n_slices=4), folder)


@pytest.fixture
def exam(scanned: list[Path], tmp_path: Path) -> list[Path]:
    """A copy of the MAPSS images that a test may damage."""
    folder = tmp_path / "exam"
    folder.mkdir()
    copies = []
    for number, path in enumerate(scanned):
        if "MAPSS" in str(pydicom.dcmread(path, stop_before_pixels=True).SeriesDescription):
            copies.append(folder / f"{number:03d}.dcm")
            copies[-1].write_bytes(path.read_bytes())
    return copies


def refusal(capsys: pytest.CaptureFixture[str], *paths: Path, out: Path) -> list[dict[str, str]]:
    """Process, expect a refusal, and give its reasons."""
    assert main(["process", *map(str, paths), "--out", str(out)]) == 3
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "refused"
    stderr = capsys.readouterr().err
    assert all(f"{reason['code']}: {reason['detail']}" in stderr for reason in result["reasons"])
    assert not list(out.glob("dicom/*"))
    return list(result["reasons"])


def edit(path: Path, **values: object) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_missing_image_is_named_by_time_and_slice(
    exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = next(path for path in exam if abs(float(pydicom.dcmread(path).EchoTime) - 40.0) < 0.1)
    gone.unlink()
    (reason,) = refusal(capsys, exam[0].parent, out=tmp_path / "out")
    assert reason["code"] == "SERIES_INCOMPLETE"
    assert "40 ms" in reason["detail"]
    assert "27/28" in reason["detail"]


def test_truncated_image_is_named_beside_what_is_then_missing(
    exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam[3].write_bytes(exam[3].read_bytes()[:-5000])
    codes = [reason["code"] for reason in refusal(capsys, exam[0].parent, out=tmp_path / "out")]
    assert codes == ["SERIES_INCOMPLETE", "UNREADABLE"]


def test_unknown_protocol(exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in exam:
        edit(path, SeriesDescription="LOCALIZER 3PL")
    (reason,) = refusal(capsys, exam[0].parent, out=tmp_path / "out")
    assert reason["code"] == "PROTOCOL_UNKNOWN"


def test_two_patients_in_one_study(exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(exam[0], PatientID="SOMEBODY-ELSE")
    reasons = refusal(capsys, exam[0].parent, out=tmp_path / "out")
    assert reasons[0]["code"] == "IDENTITY_CONFLICT"
    assert "SOMEBODY" not in json.dumps(reasons)


def test_echo_times_that_are_all_the_same(exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in exam:
        edit(path, EchoTime=2.3)
    reasons = refusal(capsys, exam[0].parent, out=tmp_path / "out")
    assert reasons[0]["code"] == "ECHO_UNRESOLVED"


def test_ct_and_pixel_free_and_foreign_files(
    exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    ct = pydicom.dcmread(exam[0])
    ct.SOPClassUID = ct.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    ct.Modality = "CT"
    ct.save_as(folder / "ct.dcm")
    empty = pydicom.dcmread(exam[1])
    del empty.PixelData
    empty.save_as(folder / "empty.dcm")
    (folder / "letter.txt").write_text("not an image")
    codes = sorted(reason["code"] for reason in refusal(capsys, folder, out=tmp_path / "out"))
    assert codes == ["UNREADABLE", "UNSUPPORTED_OBJECT", "UNSUPPORTED_OBJECT"]


def test_noise_has_no_discs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).rayleigh(100, (5, 256, 256)).astype(np.float32)
    affine = np.array([[-4.0, 0, 0, 8], [0, 0, 0.8, -100], [0, -0.8, 0, 100], [0, 0, 0, 1]])
    write_slice_stack(ImageVolume(noise, affine), tmp_path / "noise")
    (reason,) = refusal(capsys, tmp_path / "noise", out=tmp_path / "out")
    assert reason["code"] == "SEGMENTATION_UNCERTAIN"


def test_two_exams_at_once(exam: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    study = generate_uid()
    for path in exam:
        copy = other / path.name
        copy.write_bytes(path.read_bytes())
        dataset = pydicom.dcmread(copy)
        dataset.StudyInstanceUID = study
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(copy)
    reasons = refusal(capsys, exam[0].parent, other, out=tmp_path / "out")
    assert reasons[0]["code"] == "IDENTITY_CONFLICT"


def test_wrong_use_is_told_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["process", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text("prot: 104\n")
    assert main(["check-config", str(faulty)]) == 2
    message = capsys.readouterr().err
    assert "faulty.yaml" in message
    assert "prot" in message
    assert "port" in message


def test_an_exam_without_slices_or_signal_is_not_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--slices", "0"], ["--snr", "-1"]):
        assert main(["simulate", "--out", str(tmp_path / "exam"), *wrong]) == 2
        assert "at least one slice" in capsys.readouterr().err
    assert not (tmp_path / "exam").exists()


def test_a_scanner_that_is_not_simulated_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, message in (
        (["--vendor", "ge", "--enhanced"], "Enhanced MR is simulated for philips and siemens"),
        (["--vendor", "siemens", "--one-echo-time"], "GE's way"),
        (["--vendor", "siemens", "--one-scan"], "a choice of philips"),
        (["--vendor", "siemens", "--phase-images"], "for philips only"),
        (["--vendor", "philips", "--protocol", "t1rho-fse"], "simulated for ge only"),
    ):
        assert main(["simulate", "--out", str(tmp_path / "exam"), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "exam").exists()


@pytest.mark.parametrize(
    ("flavour", "printed"),
    [
        (["--vendor", "philips"], "9 images"),
        (["--vendor", "philips", "--one-scan", "--phase-images"], "15 images"),
        (["--vendor", "philips", "--enhanced"], "3 objects"),
        (["--vendor", "siemens"], "8 images"),
        (["--one-echo-time"], "8 images"),
    ],
)
def test_every_scanner_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flavour: list[str], printed: str
) -> None:
    assert main(["simulate", "--out", str(tmp_path / "exam"), "--slices", "1", *flavour]) == 0
    assert printed in capsys.readouterr().out


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "discnode.yaml"
    config.write_text("storage_dir: node\n")
    for group, action in (("jobs", "show"), ("jobs", "retry"), ("quarantine", "show"), ("quarantine", "release")):
        assert main([group, action, "7", "--config", str(config)]) == 2
        assert "7" in capsys.readouterr().err
    assert main(["jobs", "list", "--config", str(config)]) == main(["quarantine", "list", "--config", str(config)]) == 0


def test_check_config_misses_what_opens_the_door_of_a_dicomweb_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "site.yaml"
    settings.write_text("destinations: [{name: web, dicomweb_url: 'https://h/dicom-web', headers_file: door}]\n")
    assert main(["check-config", str(settings)]) == 2
    assert f"headers_file {tmp_path / 'door'}: cannot be read" in capsys.readouterr().err
    (tmp_path / "door").touch(0o600)
    (tmp_path / "door").write_text("Authorization: Bearer x\n")
    assert main(["check-config", str(settings)]) == 0
    assert "sends to web (https://h/dicom-web)" in capsys.readouterr().out
