"""Networks that cannot be used: exit status 2 and one line before any work, no traceback."""

from pathlib import Path

import pytest
import yaml
from tiny_networks import affine_network, register

from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam
from service.cli import main


def write_settings(folder: Path, **segmentation: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"segmentation": segmentation}))
    return path


def networks(folder: Path, count: int = 3) -> Path:
    """An ensemble that sees background everywhere."""
    folder.mkdir()
    paths = [affine_network(folder / f"n{k}.onnx", [0] * 5, [5 + k, 0, 0, 0, 0]) for k in range(count)]
    return register(folder, *paths, threshold=0.4)


def test_an_unknown_network_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_exam(simulate_exam(5, n_slices=3), tmp_path / "exam")
    settings = write_settings(tmp_path, model="unet")
    arguments = ["process", str(tmp_path / "exam"), "--out", str(tmp_path / "out"), "--config", str(settings)]
    for command in (arguments, ["check-config", str(settings)]):
        assert main(command) == 2
        message = capsys.readouterr().err
        assert "model 'unet' is not registered; available: cfcm-lumbar" in message
        assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_member_is_told_before_the_images_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = networks(tmp_path / "nets")
    settings = write_settings(tmp_path, model="made", weights_dir="nets")
    damaged = weights / "n1.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-7])  # as a copy that broke off
    (tmp_path / "exam").mkdir()  # nothing in it: reading it would be a refusal, status 3
    arguments = ["process", str(tmp_path / "exam"), "--out", str(tmp_path / "out"), "--config", str(settings)]
    for command in (arguments, ["check-config", str(settings)]):
        assert main(command) == 2
        message = capsys.readouterr().err
        assert "n1.onnx has SHA-256" in message
        assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_check_config_tells_which_networks_will_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks(tmp_path / "nets")
    assert main(["check-config", str(write_settings(tmp_path, model="made", weights_dir="nets"))]) == 0
    assert "finds discs with made, version 1 (3 networks, threshold 0.4)" in capsys.readouterr().out
    settings = write_settings(tmp_path, model="made", weights_dir="nets", threshold=0.6)
    assert main(["check-config", str(settings)]) == 0
    assert "threshold 0.6" in capsys.readouterr().out


def test_a_folder_without_networks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(write_settings(tmp_path, weights_dir="nowhere"))]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path / "nowhere" / "registry.yaml") in message
    assert "No such file" in message
