"""`discnode atlas`: a site's own atlas from what `discnode evaluate` reads, listed, and used as a setting."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from annotated_site import phantom, write_dicom, write_truth_beside

from processing.atlas import LUMBAR_LEVELS, load_atlas, read_atlas
from processing.phantom import simulate_exam
from service.cli import main

SHAPE, SPACING_MM = (17, 150, 60), (3.0, 1.0, 1.0)


def levels_of_five_discs() -> np.ndarray:
    """Boxes with rounded sides, L5S1 lowest; the grid's rows run to inferior, its columns to posterior."""
    k, i, j = np.indices(SHAPE)
    side = ((k - 8) * 3.0 / 20) ** 2 + ((j - 29.5) / 17) ** 2
    levels = np.zeros(SHAPE, np.uint8)
    for level in LUMBAR_LEVELS:
        levels[(side <= 1) & (np.abs(i - (140 - 25 * level)) <= 4)] = level
    return levels


def write_volume(path: Path, array: np.ndarray) -> Path:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM[2], SPACING_MM[1], SPACING_MM[0]))
    image.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))  # columns to posterior, rows to inferior, slices to the right
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return write_volume(tmp_path / "A7_mask.nii.gz", levels_of_five_discs())


def build(*arguments: object) -> int:
    return main(["atlas", "build", *map(str, arguments)])


def test_a_mask_becomes_an_atlas_that_check_config_takes(
    mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.npz"
    assert build("--from", mask, "--out", out, "--name", "ours", "--licence", "internal") == 0
    said = capsys.readouterr().out
    assert "ours" in said
    assert "A7" not in said  # a subject's name does not go into the atlas
    atlas = read_atlas(str(out))
    assert (atlas.name, atlas.licence) == ("ours", "internal")
    disc = load_atlas(3, str(out))[LUMBAR_LEVELS[2]]
    truth_mm3 = int((levels_of_five_discs() == LUMBAR_LEVELS[2]).sum()) * np.prod(SPACING_MM)
    voxel_mm3 = abs(np.linalg.det(disc.affine))
    assert int(disc.mask.sum()) * voxel_mm3 == pytest.approx(truth_mm3, rel=0.1)  # edges are rounded

    settings = tmp_path / "site.yaml"
    settings.write_text("registration: {atlas: ours.npz}\n", encoding="utf-8")
    assert main(["check-config", str(settings)]) == 0
    assert f"registers to the atlas ours (sha256 {atlas.sha256[:16]}" in capsys.readouterr().out


def test_the_same_mask_gives_the_same_file(mask: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert build("--from", mask, "--out", tmp_path / f"{name}.npz", "--name", "x") == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_an_exam_is_chosen_from_a_folder(mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site"
    site.mkdir()
    image = (levels_of_five_discs() * 100).astype(np.int16)
    for name in ("A7", "B2_1"):
        write_volume(site / f"{name}_mask.mha", levels_of_five_discs())
        write_volume(site / f"{name}_image.mha", image)
    out = tmp_path / "ours.npz"
    assert build("--from", site, "--out", out) == 3
    assert "choose one with --exam; there are A7, B2_1" in capsys.readouterr().err.replace(
        "an atlas is of one exam; ", ""
    )
    assert build("--from", site, "--out", out, "--exam", "C9") == 3
    assert "there is no exam C9" in capsys.readouterr().err
    assert not out.exists()
    assert build("--from", site, "--out", out, "--exam", "B2_1") == 0
    direct = tmp_path / "direct.npz"
    assert build("--from", mask, "--out", direct, "--name", "ours") == 0
    assert direct.read_bytes() == out.read_bytes()


def test_a_simulated_truth_of_whole_discs_and_a_dicom_exam_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dicom_io.simulated_scanner import write_truth

    truth = tmp_path / "S1_truth.npz"
    write_truth(simulate_exam(3, n_slices=12), truth)
    assert build("--from", truth, "--out", tmp_path / "s1.npz") == 3
    assert "L4L5: is cut by the first and the last slice" in capsys.readouterr().err
    assert build("--from", truth, "--out", tmp_path / "s1.npz", "--complete-sides") == 0
    assert "sides modelled" in capsys.readouterr().out

    site = tmp_path / "site"
    write_dicom(phantom("S2"), site, "S2")
    write_truth_beside(phantom("S2"), site, "S2")
    assert build("--from", site, "--out", tmp_path / "s2.npz", "--complete-sides") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda levels: np.where(levels == 4, 0, levels), "L2L3: is not annotated"),
        (lambda levels: levels[8:9], "1 slice(s): an atlas needs"),
        (lambda levels: levels[:, :, 20:], "touches the edge of the image"),
    ],
)
def test_a_mask_that_cannot_be_an_atlas_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object, said: str
) -> None:
    assert callable(change)
    path = write_volume(tmp_path / "bad_mask.nii.gz", change(levels_of_five_discs()).astype(np.uint8))
    assert build("--from", path, "--out", tmp_path / "x.npz") == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_wrong_use_is_told(mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--from", mask, "--out", tmp_path / "x.nii") == 2
    assert "ends in .npz" in capsys.readouterr().err
    assert build("--from", tmp_path / "nobody", "--out", tmp_path / "x.npz") == 3
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    assert build("--from", tmp_path / "notes.txt", "--out", tmp_path / "x.npz") == 3
    assert "notes.txt" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert build("--from", mask, "--out", tmp_path / "file" / "x.npz") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_list_shows_source_licence_levels_and_credit(
    mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["atlas", "list"]) == 0
    said = capsys.readouterr().out
    for wanted in ("healthy", "healthy-2", "degenerated", "CC BY 4.0", "doi:10.1038/s41597-024-03090-w", "L5S1", "cm3"):
        assert wanted in said
    out = tmp_path / "ours.npz"
    assert build("--from", mask, "--out", out) == 0
    capsys.readouterr()
    assert main(["atlas", "list", str(out), str(tmp_path / "none.npz")]) == 2
    captured = capsys.readouterr()
    assert "ours" in captured.out
    assert "none.npz" in captured.err


@pytest.mark.parametrize("atlas", ["nobody", "none.npz"])
def test_settings_with_an_atlas_that_is_not_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], atlas: str
) -> None:
    settings = tmp_path / "site.yaml"
    settings.write_text(f"registration: {{atlas: {atlas}}}\n", encoding="utf-8")
    for command in (
        ["check-config", str(settings)],
        ["process", str(tmp_path), "--out", str(tmp_path / "r"), "--config", str(settings)],
    ):
        assert main(command) == 2
        assert "registration.atlas" in capsys.readouterr().err
