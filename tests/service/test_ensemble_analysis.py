"""The whole analysis with an ensemble: three networks whose mean is one network, so the mask is known beforehand."""

import csv
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra packages of training")

from onnx import helper, numpy_helper  # noqa: E402
from short_registration import shortened  # noqa: E402
from tiny_networks import register  # noqa: E402

from config.settings import FittingSettings, RegistrationSettings, SegmentationSettings, Settings  # noqa: E402
from dicom_io.simulated_scanner import write_exam  # noqa: E402
from dicom_io.volume_reader import ExamImages, read_exam  # noqa: E402
from models.inference import OnnxModel  # noqa: E402
from models.registry import load_model  # noqa: E402
from processing.fitting import FitStatus, relaxation_map  # noqa: E402
from processing.phantom import simulate_exam  # noqa: E402
from processing.refusal import ReasonCode  # noqa: E402
from processing.results import ExamResult, Quantity, Region  # noqa: E402
from processing.segmentation import find_discs  # noqa: E402
from service.exam_files import read_exam_files  # noqa: E402
from service.pipeline import analyse, assemble  # noqa: E402
from service.result_files import write_result  # noqa: E402

SHIFTS = (0.0, 2.0, -2.0)  # of the disc's logit; their mean is 0


def shifted_copy(source: Path, path: Path, shift: float) -> Path:
    """The network of ``source`` with ``shift`` added to the logit of disc."""
    model = onnx.load(source)
    for node in model.graph.node:
        node.output[:] = ["raw" if name == "logits" else name for name in node.output]
    offsets = np.array([0, shift, 0, 0, 0], np.float32).reshape(1, 5, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(offsets, "offsets"))
    model.graph.node.append(helper.make_node("Add", ["raw", "offsets"], ["logits"]))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    source = load_model("cfcm-lumbar").members[0].path
    return register(folder, *(shifted_copy(source, folder / f"s{k}.onnx", SHIFTS[k]) for k in range(3)))


@pytest.fixture(scope="module")
def registration(tmp_path_factory: pytest.TempPathFactory) -> RegistrationSettings:
    return shortened(tmp_path_factory.mktemp("registration"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ExamImages:
    scanner = tmp_path_factory.mktemp("scanner")
    write_exam(simulate_exam(20, n_slices=5, slice_spacing_mm=8.0), scanner)
    return read_exam(assemble(read_exam_files([scanner]), Settings()))


@pytest.fixture(scope="module")
def result(images: ExamImages, networks: Path, registration: RegistrationSettings) -> ExamResult:
    settings = Settings(
        segmentation=SegmentationSettings(model="made", weights_dir=networks, max_ring_entropy=1.0),
        registration=registration,
    )
    return analyse(images, settings, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.slow
def test_the_mask_is_that_of_the_mean(result: ExamResult, images: ExamImages, networks: Path) -> None:
    middle = find_discs(images.background, OnnxModel(load_model("made", networks).only(0), device="cpu"))
    assert result.mask is not None
    assert result.mask.member_levels is not None
    assert np.count_nonzero(result.mask.levels != middle.levels) <= 2  # rounding
    sizes = (result.mask.member_levels > 0).sum(axis=(1, 2, 3))
    assert sizes[2] < sizes[0] < sizes[1]


@pytest.mark.slow
def test_the_motion_of_each_image_is_told_and_none_is_doubted(result: ExamResult) -> None:
    assert [one.time_ms for one in result.motion] == [10, 40, 80, 12.8, 25.7, 51.4]
    assert all(one.displacement_mm < 0.3 and not one.corrected for one in result.motion)
    assert not {reason.code for reason in result.reasons} & {ReasonCode.MOTION, ReasonCode.DECAY_IMPLAUSIBLE}


@pytest.mark.slow
def test_the_spread_is_that_of_maps_fitted_everywhere(result: ExamResult, images: ExamImages) -> None:
    assert result.mask is not None
    everywhere = {stack.role: relaxation_map(stack, np.ones(stack.signal.shape[1:], bool)) for stack in images.stacks}
    whole = [row for row in result.measurements if row.region is Region.WHOLE_DISC]
    assert len(whole) == 10
    for row in whole:
        one = everywhere[row.quantity]
        good = one.status == FitStatus.FITTED
        means = [one.time_ms[(own == row.level) & good].astype(np.float64).mean() for own in result.mask.member_levels]
        assert row.member_sd_ms == pytest.approx(np.std(means, ddof=1), rel=1e-6)
        assert 0 < row.member_sd_ms < 10
        assert row.n_members == 3


@pytest.mark.slow
def test_maps_end_where_the_mask_ends(result: ExamResult, images: ExamImages) -> None:
    assert result.mask is not None
    assert result.mask.member_levels is not None
    discs = result.mask.levels > 0
    assert (result.mask.member_levels.any(axis=0) & ~discs).sum() > 100  # beyond it there is something to leave out
    for stack in images.stacks:
        alone = relaxation_map(stack, discs)
        np.testing.assert_array_equal(result.maps[stack.role].status, alone.status)
        np.testing.assert_array_equal(result.maps[stack.role].time_ms, alone.time_ms)


@pytest.mark.slow
def test_noise_floor_and_ceilings_reach_every_map(
    images: ExamImages, networks: Path, registration: RegistrationSettings, result: ExamResult
) -> None:
    settings = Settings(
        segmentation=SegmentationSettings(model="made", weights_dir=networks, max_ring_entropy=1.0),
        registration=registration,
        fitting=FittingSettings(noise_floor="estimated", paper_ceilings=True),
    )
    asked = analyse(images, settings, datetime(2026, 1, 1, tzinfo=UTC))
    assert re.fullmatch(
        r"T1rho in noise of SD [0-9.e+]+, below 200 ms; T2 in noise of SD [0-9.e+]+, below 150 ms",
        asked.versions["fit"],
    )
    assert result.versions["fit"] == "T1rho plain; T2 plain"
    assert asked.versions["settings_digest"] != result.versions["settings_digest"]
    for quantity, ceiling_ms in ((Quantity.T1RHO, 200), (Quantity.T2, 150)):
        maps = [asked.maps[quantity], *(disc.maps[quantity] for disc in asked.registered)]
        assert len(maps) == 6
        for one in maps:
            assert (one.status == FitStatus.FITTED).any()
            assert np.nanmax(one.time_ms) < ceiling_ms
        usual, floored = result.maps[quantity], asked.maps[quantity]
        both = (usual.status == FitStatus.FITTED) & (floored.status == FitStatus.FITTED)
        # at SNR 40 the floor shortens the times a little, and nearly everywhere
        assert 0 < np.median(usual.time_ms[both] - floored.time_ms[both]) < 2


@pytest.mark.slow
def test_the_files_tell_the_spread(result: ExamResult, images: ExamImages, tmp_path: Path) -> None:
    write_result(result, images, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert (document["versions"]["model_members"], document["versions"]["disc_threshold"]) == ("3", "0.5")
    with (tmp_path / "out" / "discs.csv").open(encoding="utf-8", newline="") as stream:
        rows = {(row["level"], row["region"], row["quantity"]): row for row in csv.DictReader(stream)}
    for disc in document["discs"]:
        assert 0 < disc["t2_ms"]["member_sd"] < 10
        assert 0.5 < disc["segmentation"]["member_dice"] < 1
        assert disc["segmentation"]["n_members_with_disc"] == 3
        assert float(rows[disc["level"], "whole_disc", "T2"]["member_sd_ms"]) == disc["t2_ms"]["member_sd"]
        assert rows[disc["level"], "nucleus", "T2"]["member_sd_ms"] == ""
