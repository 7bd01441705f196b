"""``discnode process --mask``: the whole analysis of a person's discs, and what is refused."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from corrected_masks import EDITOR, VARIANTS, edited, write_automatic
from pydicom import Dataset, dcmread
from small_mr_exam import mapss_signal, write_mapss

from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam
from service.cli import EXIT_OK, EXIT_REFUSED, EXIT_USAGE, main
from service.result_schema import ResultDocument

LEVELS = ["L5S1", "L4L5", "L3L4", "L2L3", "L1L2"]


def process(images: Path, out: Path, mask: Path | None = None) -> int:
    given = [] if mask is None else ["--mask", str(mask)]
    return main(["process", str(images), "--out", str(out), *given])


def document_in(folder: Path) -> dict[str, Any]:
    text = (folder / "result.json").read_text()
    ResultDocument.model_validate_json(text)
    found: dict[str, Any] = json.loads(text)
    return found


# --- refused, before anything is measured -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_mapss(folder, mapss_signal(5, 54, 40))
    return folder


def _other_study(dataset: Dataset) -> None:
    dataset.StudyInstanceUID = "1.2.99"


def _other_frame(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.99.9"


def _other_grid(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.0, 1.0]


def _unknown_level(dataset: Dataset) -> None:
    segment = dataset.SegmentSequence[1]
    segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "360499006"
    segment.SegmentLabel = "L4"
    del segment.TrackingUID, segment.TrackingID


def _fractional(dataset: Dataset) -> None:
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_other_study, "IDENTITY_CONFLICT"),
        (_other_frame, "GEOMETRY_INCONSISTENT"),
        (_other_grid, "GEOMETRY_INCONSISTENT"),
        (_unknown_level, "LEVELS_AMBIGUOUS"),
        (_fractional, "UNSUPPORTED_OBJECT"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_with_its_code(
    spoil, code: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = edited(dcmread(write_automatic(sorted(small.iterdir()), tmp_path / "seg.dcm")))
    spoil(dataset)
    dataset.save_as(tmp_path / "mask.dcm")
    assert process(small, tmp_path / "out", tmp_path / "mask.dcm") == EXIT_REFUSED
    assert code in capsys.readouterr().err
    found = document_in(tmp_path / "out")
    assert (found["status"], [one["code"] for one in found["reasons"]]) == ("refused", [code])


def test_a_mask_that_is_cut_short_or_not_there(small: Path, tmp_path: Path) -> None:
    content = write_automatic(sorted(small.iterdir()), tmp_path / "seg.dcm").read_bytes()
    (tmp_path / "half.dcm").write_bytes(content[: len(content) - 300])
    assert process(small, tmp_path / "out", tmp_path / "half.dcm") == EXIT_REFUSED
    assert [one["code"] for one in document_in(tmp_path / "out")["reasons"]] == ["UNREADABLE"]
    assert process(small, tmp_path / "none", tmp_path / "missing.dcm") == EXIT_USAGE


# --- measured ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[Path]]:
    """A simulated exam of one slice, and its files."""
    folder = tmp_path_factory.mktemp("scanner")
    return folder, write_exam(simulate_exam(20, n_slices=1, protocol="t1rho-fse"), folder)


@pytest.fixture(scope="module")
def automatic(scanner: tuple[Path, Sequence[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the node makes of it by itself."""
    out = tmp_path_factory.mktemp("automatic")
    assert process(scanner[0], out) == EXIT_OK
    return out


@pytest.mark.slow
def test_six_edited_segmentations_are_measured_each_in_less_than_a_minute(
    scanner: tuple[Path, Sequence[Path]], automatic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = document_in(automatic)
    for number, (name, write) in enumerate(VARIANTS.items()):
        mask, out = tmp_path / f"mask{number}.dcm", tmp_path / f"out{number}"
        write(automatic / "dicom/seg.dcm", scanner[1], mask)
        start_s = time.monotonic()
        assert process(scanner[0], out, mask) == EXIT_OK
        assert time.monotonic() - start_s < 60
        found = document_in(out)
        correction = found["correction"]
        left = ["L4L5", "L3L4"] if name == "some discs" else LEVELS
        assert [one["level"] for one in found["discs"]] == left
        assert correction["sop_instance_uid"] == dcmread(mask).SOPInstanceUID
        assert list(correction["automatic_dice"]) == left
        lowest = min(correction["automatic_dice"].values())
        assert lowest == 1.0 if name == "some discs" else 0.8 < lowest < 1.0
        assert correction["removed"] == [one for one in LEVELS if one not in left]
        reasons = [one["detail"] for one in found["reasons"]]
        assert any("does not hold them: L5S1, L2L3, L1L2" in one for one in reasons) == (name == "some discs")
        assert not any("entropy" in one or "networks disagree" in one for one in reasons)
        check_objects(before, found, out, correction)
    assert EDITOR not in capsys.readouterr().err


def check_objects(before: dict[str, Any], found: dict[str, Any], out: Path, correction: dict[str, Any]) -> None:
    """All objects are made anew, under new UIDs, and name the editor."""
    assert [one["kind"] for one in found["objects"]] == [one["kind"] for one in before["objects"]]
    earlier = {one["sop_instance_uid"] for one in before["objects"]}
    assert earlier.isdisjoint(one["sop_instance_uid"] for one in found["objects"])
    for one in found["objects"]:
        equipment = dcmread(out / one["path"]).ContributingEquipmentSequence[-1]
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
        assert correction["sop_instance_uid"] in equipment.ContributionDescription
        assert str(equipment.get("OperatorsName") or "") == correction["editor"]
    segmentation = dcmread(out / "dicom/seg.dcm")
    assert {one.SegmentAlgorithmType for one in segmentation.SegmentSequence} == {"SEMIAUTOMATIC"}
    volumes = {one["level"]: one["volume_mm3"] for one in before["discs"]}
    for disc in found["discs"]:
        assert disc["volume_mm3"] <= volumes[disc["level"]]
        assert disc["segmentation"] == {}  # no network made it
        assert disc["t1rho_ms"]["n"] > 0
        assert disc["registration"]["dice"] > 0.8


@pytest.mark.slow
def test_a_volume_file_of_labels_will_do_as_well(
    scanner: tuple[Path, Sequence[Path]], automatic: Path, tmp_path: Path
) -> None:
    from dicom_io.segmentation_reader import read_segmentation

    labels, grid = read_segmentation(automatic / "dicom/seg.dcm")
    labels[:, :, np.flatnonzero(labels.any(axis=(0, 1)))[0]] = 0
    volume = SimpleITK.GetImageFromArray(labels)
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    volume.SetSpacing(spacing[::-1].tolist())
    volume.SetOrigin(grid[:3, 3].tolist())
    volume.SetDirection((grid[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    SimpleITK.WriteImage(volume, str(tmp_path / "mask.nii.gz"))
    assert process(scanner[0], tmp_path / "out", tmp_path / "mask.nii.gz") == EXIT_OK
    correction = document_in(tmp_path / "out")["correction"]
    assert (correction["sop_instance_uid"], correction["editor"]) == (None, "")
    assert sorted(correction["automatic_dice"].values())[-2] == 1.0
    assert min(correction["automatic_dice"].values()) < 1.0
