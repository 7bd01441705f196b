from pathlib import Path

import annotated_site
import numpy as np
import pytest
from striped_site import (
    AFFINE,
    FIRST_ROWS,
    striped_image,
    striped_levels,
    write_pairs,
    write_release,
    write_site,
)
from volume_files import write_volume

pytest.importorskip("nibabel")

from config.settings import load_settings
from models.preprocessing import BODY, CANAL, DISC, SPACING_MM
from models.training.dataset import Manifest, load_slices, read_manifest
from models.training.folds import fold_of_images, read_folds
from models.training.slices import TrainingSlice
from service.cli import main
from service.training.prepare import prepare

ANY = 0b11111


def prepared(data: Path, out: Path, folds: int = 2) -> tuple[Manifest, list[TrainingSlice]]:
    manifest = prepare(data, out, settings=load_settings(None), folds=folds, say=lambda _: None)
    assert read_manifest(out) == manifest
    return manifest, load_slices(out, manifest)


def at(row_mm: float, column_mm: float) -> tuple[int, int]:
    return round(row_mm / SPACING_MM), round(column_mm / SPACING_MM)


def test_a_sites_own_masks_mark_discs_and_leave_the_rest_open(tmp_path: Path) -> None:
    manifest, slices = prepared(write_site(tmp_path / "site", "A_1", "A_2", "B"), tmp_path / "out")
    assert [(one.subject, one.visit, one.slices) for one in manifest.exams] == [
        ("A", "1", 2),
        ("A", "2", 2),
        ("B", "", 2),
    ]
    assert manifest.slice_counts == {"A": 4, "B": 2}  # the slices without a disc are left out
    assert read_folds(tmp_path / "out" / "folds.json") in ((("A",), ("B",)), (("B",), ("A",)))
    one = slices[0]
    assert one.image.shape == one.allowed.shape == (round(192 / SPACING_MM), round(112 / SPACING_MM))
    assert one.allowed[at(FIRST_ROWS[1] + 4, 45)] == 1 << DISC
    assert one.image[at(FIRST_ROWS[1] + 4, 45)] == pytest.approx(200, abs=15)
    assert one.allowed[at(FIRST_ROWS[1] - 10, 45)] == ANY & ~(1 << DISC)  # a vertebra, canal or whatever, but no disc
    assert one.allowed[at(180, 45)] == ANY & ~(1 << DISC)  # below L5S1 there is none
    assert one.allowed[at(10, 45)] == ANY  # above L1L2 there is one that nobody marked
    assert manifest.exams[0].known == ("disc",)
    assert manifest.exams[0].missing_levels == ()


def test_a_missing_level_is_reported_and_its_place_left_open(tmp_path: Path) -> None:
    levels = striped_levels()
    levels[levels == 3] = 0
    manifest, slices = prepared(write_site(tmp_path / "site", "A", "B", levels=levels), tmp_path / "out")
    assert manifest.exams[0].missing_levels == ("L3L4",)
    assert slices[0].allowed[at(FIRST_ROWS[3] + 4, 45)] == ANY
    assert slices[0].allowed[at(FIRST_ROWS[2] - 5, 45)] == ANY & ~(1 << DISC)


def test_the_public_release_keeps_all_series_of_a_patient_together(tmp_path: Path) -> None:
    site = write_release(tmp_path / "spider", "1_t1", "1_t2", "2_t1", "2_t2", "3_t2")
    manifest, slices = prepared(site, tmp_path / "out")
    assert [(one.subject, one.visit) for one in manifest.exams] == [
        ("1", "t1"),
        ("1", "t2"),
        ("2", "t1"),
        ("2", "t2"),
        ("3", "t2"),
    ]
    folds = read_folds(tmp_path / "out" / "folds.json")
    assert {("1" in fold) + ("2" in fold) for fold in folds} == {1}  # those with both series are divided evenly
    of_images = fold_of_images(tmp_path / "out" / "folds.json")
    assert all(one.subject in folds[of_images[one.images_sha256]] for one in manifest.exams)
    one = slices[0]
    assert one.allowed[at(FIRST_ROWS[2] + 4, 45)] == 1 << DISC
    assert one.allowed[at(FIRST_ROWS[2] - 10, 45)] == 1 << BODY
    assert one.allowed[at(100, 70)] == 1 << CANAL


def test_subfolders_of_pairs_are_data_sets(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data" / "first", "1", "2")
    write_site(tmp_path / "data" / "second", "x", "y")
    manifest, slices = prepared(tmp_path / "data", tmp_path / "out")
    assert [one.dataset for one in manifest.exams] == ["first", "first", "second", "second"]
    for fold in read_folds(tmp_path / "out" / "folds.json"):
        assert sorted(name in "12" for name in fold) == [False, True]
    assert slices[0].allowed[at(100, 70)] == 1 << CANAL
    assert slices[-1].allowed[at(100, 70)] == ANY & ~(1 << DISC)


@pytest.mark.slow
def test_dicom_exams_with_a_truth_are_known_everywhere(tmp_path: Path) -> None:
    for name in ("S1", "S2"):
        exam = annotated_site.phantom(name)
        annotated_site.write_dicom(exam, tmp_path / "site", name)
        annotated_site.write_truth_beside(exam, tmp_path / "site", name)
    manifest, slices = prepared(tmp_path / "site", tmp_path / "out")
    assert manifest.subjects == ("S1", "S2")
    assert manifest.exams[0].open == ()
    assert "sacrum" in manifest.exams[0].known
    discs = np.concatenate([one.image[one.allowed == 1 << DISC] for one in slices])
    bodies = np.concatenate([one.image[one.allowed == 1 << BODY] for one in slices])
    assert np.median(discs) > 1.5 * np.median(bodies)  # fat-suppressed: the masks lie where the discs are


def test_thin_slices_are_thinned(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 0] = -0.9
    stack = np.repeat(striped_levels()[1:], 4, axis=0)
    for name in ("A", "B"):
        write_volume(np.repeat(striped_image(1)[1:], 4, axis=0), tmp_path / "site" / f"{name}_image.mha", affine)
        write_volume(stack, tmp_path / "site" / f"{name}_mask.mha", affine)
    manifest, _ = prepared(tmp_path / "site", tmp_path / "out")
    assert [one.slices for one in manifest.exams] == [4, 4]  # of eight, 0.9 mm apart, every second


def test_what_was_prepared_from_the_same_files_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = write_site(tmp_path / "site", "A", "B", "C")
    command = ["train", "prepare", str(site), "--out", str(tmp_path / "out"), "--folds", "3"]
    assert main(command) == 0
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert main(command) == 0
    assert "was prepared from these files" in capsys.readouterr().out
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before
    write_site(site, "D")
    assert main(command) == 0
    assert read_manifest(tmp_path / "out").subjects == ("A", "B", "C", "D")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "site"]


def _other_grid(site: Path) -> None:
    shifted = AFFINE.copy()
    shifted[1, 3] += 3.0
    write_volume(striped_levels(), site / "A_mask.nii.gz", shifted)


def _empty_mask(site: Path) -> None:
    write_volume(np.zeros_like(striped_levels()), site / "A_mask.nii.gz", AFFINE)


def _look_alike(site: Path) -> None:
    write_site(site, "b")


def _no_mask(site: Path) -> None:
    (site / "A_mask.nii.gz").unlink()


def _too_few(site: Path) -> None:
    for name in ("A_image", "A_mask"):
        (site / f"{name}.nii.gz").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_other_grid, "mask and image have different geometry"),
        (_empty_mask, "the mask is empty"),
        (_look_alike, "B and b look like one subject"),
        (_no_mask, "A_image.nii.gz: there is no mask"),
        (_too_few, "1 subjects cannot fill 2 folds"),
    ],
)
def test_bad_data_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, said: str
) -> None:
    assert callable(spoil)
    site = write_site(tmp_path / "site", "A", "B")
    spoil(site)
    assert main(["train", "prepare", str(site), "--out", str(tmp_path / "out"), "--folds", "2"]) == 2
    assert said in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["site"]


def test_one_name_in_two_data_sets_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "data" / "first", "1", "2")
    write_site(tmp_path / "data" / "second", "2", "3")
    assert main(["train", "prepare", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--folds", "2"]) == 2
    assert "subject 2 is in first and second" in capsys.readouterr().err


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = write_site(tmp_path / "site", "A", "B")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("two years of work")
    assert main(["train", "prepare", str(site), "--out", str(tmp_path / "thesis"), "--folds", "2"]) == 2
    assert "left alone" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_an_empty_or_missing_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "no annotated exams"), ("none", "no such folder")):
        assert main(["train", "prepare", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
