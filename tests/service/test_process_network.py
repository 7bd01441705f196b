"""``discnode process`` with a network that cannot be used: exit status 2 and one line, no traceback."""

from pathlib import Path

import pytest

from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam
from service.cli import main


def test_an_unknown_network_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_exam(simulate_exam(5, n_slices=3), tmp_path / "exam")
    settings = tmp_path / "settings.yaml"
    settings.write_text("segmentation: {model: unet}\n")
    arguments = ["process", str(tmp_path / "exam"), "--out", str(tmp_path / "out"), "--config", str(settings)]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "model 'unet' is not registered; available: cfcm-lumbar" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()
