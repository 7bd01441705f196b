"""Members of an ensemble that differ by a known amount."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_networks import constant_network, register

from models.inference import OnnxModel
from models.registry import load_model
from processing.fitting import FitStatus, relaxation_map, within
from processing.measurements import measure
from processing.members import fit_region, member_spread_ms, pairwise_dice
from processing.results import (
    LUMBAR_LEVELS,
    DiscMask,
    DiscMeasurement,
    EchoStack,
    ImageVolume,
    Level,
    Quantity,
    Region,
    RelaxationMap,
)
from processing.segmentation import find_discs

GRID_MM = 0.78125
SLICES, SLICE_MM = 3, 8.0
VOXEL_MM3 = SLICE_MM * GRID_MM**2
AFFINE = np.array([[-SLICE_MM, 0, 0, 0], [0, 0, GRID_MM, 0], [0, -GRID_MM, 0, 0], [0, 0, 0, 1]])
CENTRES = dict(zip(LUMBAR_LEVELS, (190, 150, 110, 70, 30), strict=True))  # rows
DEPTH = slice(90, 130)  # columns
TIMES_MS = (0.0, 10.0, 40.0, 80.0)


def spine(certainty: float, more_rows_below: int = 0, unseen: Level | None = None) -> np.ndarray:
    """Logits (5, 256, 256) of a straight spine: discs of 12 and ``more_rows_below`` rows, and no doubt anywhere."""
    tissue = np.zeros((256, 256), int)
    tissue[:197, DEPTH] = 2
    tissue[197:250, DEPTH] = 3
    tissue[:, 134:154] = 4
    for level, row in CENTRES.items():
        if level is not unseen:
            tissue[row - 6 : row + 6 + more_rows_below, DEPTH] = 1
    return certainty * np.eye(5)[tissue].transpose(2, 0, 1)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members that agree; the third takes the discs for four rows higher, and does not see L3L4."""
    folder = tmp_path_factory.mktemp("networks")
    answers = (spine(6.0), spine(6.1), spine(6.0, more_rows_below=4, unseen=Level.L3L4))
    paths = [constant_network(folder / f"spine-{k}.onnx", logits) for k, logits in enumerate(answers)]
    return register(folder, *paths)


@pytest.fixture(scope="module")
def model(ensemble: Path) -> OnnxModel:
    return OnnxModel(load_model("made", ensemble), device="cpu")


def volume() -> ImageVolume:
    """What it shows does not matter to these networks."""
    return ImageVolume(np.random.default_rng(0).rayleigh(100, (SLICES, 256, 256)).astype(np.float32), AFFINE)


@pytest.fixture(scope="module")
def mask(model: OnnxModel) -> DiscMask:
    return find_discs(volume(), model)


def rows_of(labels: np.ndarray, level: Level) -> set[int]:
    return set(np.nonzero(labels == level)[1].tolist())


def test_the_mean_of_the_logits_decides_the_mask(mask: DiscMask) -> None:
    assert mask.found == LUMBAR_LEVELS
    for level, row in CENTRES.items():  # two against one
        assert rows_of(mask.levels, level) == set(range(row - 6, row + 6)), level
        assert (mask.levels == level).sum() == SLICES * 12 * 40
    power = np.exp(np.array([4.0 + 0.1 / 3, 2.0, 0, 0, 0]))  # mean logits of two disc, one body
    assert mask.probability[0, CENTRES[Level.L3L4], 100] == pytest.approx(power[0] / power.sum(), rel=1e-5)


def test_every_member_keeps_its_own_mask(mask: DiscMask) -> None:
    assert mask.member_levels is not None
    assert mask.member_levels.shape == (3, *mask.levels.shape)
    assert mask.member_levels.dtype == np.uint8
    for level, row in CENTRES.items():
        for member in (0, 1):
            assert rows_of(mask.member_levels[member], level) == set(range(row - 6, row + 6))
        expected = set() if level is Level.L3L4 else set(range(row - 6, row + 10))
        assert rows_of(mask.member_levels[2], level) == expected


def test_agreement_is_exactly_what_was_made(mask: DiscMask) -> None:
    confidence = {one.level: one for one in mask.confidence}
    for level in LUMBAR_LEVELS:
        one = confidence[level]
        seen = level is not Level.L3L4
        overlap = 2 * 12 / (12 + 16) if seen else 0.0
        assert one.member_dice == pytest.approx((1 + 2 * overlap) / 3)
        rows = np.array([12, 12, 16 if seen else 0])
        assert one.member_volume_sd_mm3 == pytest.approx(rows.std(ddof=1) * 40 * SLICES * VOXEL_MM3)
        assert (one.n_members, one.n_members_with_disc) == (3, 3 if seen else 2)


def echoes(quantity: Quantity, ms_per_row: float) -> EchoStack:
    """A decay without noise whose time grows from row to row: 40 ms and ``ms_per_row`` times the row."""
    time_ms = 40.0 + ms_per_row * np.arange(256)[:, None] + np.zeros((SLICES, 256, 256))
    signal = np.stack([500 * np.exp(-time / time_ms) for time in TIMES_MS]).astype(np.float32)
    return EchoStack(quantity, signal, TIMES_MS, AFFINE)


def test_spread_of_the_mean_time_is_that_of_the_members_masks(mask: DiscMask) -> None:
    stacks = (echoes(Quantity.T1RHO, 0.5), echoes(Quantity.T2, 0.25))
    maps = {stack.role: relaxation_map(stack, fit_region(mask)) for stack in stacks}
    rows = measure(mask, maps, ())
    assert len(rows) == 10
    for row in rows:
        slope = {Quantity.T1RHO: 0.5, Quantity.T2: 0.25}[row.quantity]
        centre = 40 + slope * (CENTRES[row.level] - 0.5)
        assert row.region is Region.WHOLE_DISC
        assert row.mean_ms == pytest.approx(centre, abs=2e-3)
        if row.level is Level.L3L4:  # the two members that see it agree
            assert (row.member_sd_ms, row.n_members) == (pytest.approx(0.0, abs=1e-9), 2)
        else:  # four rows more below: the mean moves by two rows
            expected = np.std([0, 0, 2 * slope], ddof=1)
            assert (row.member_sd_ms, row.n_members) == (pytest.approx(expected, abs=2e-3), 3)


def test_maps_are_as_if_fitted_in_the_discs_alone(mask: DiscMask) -> None:
    stack = echoes(Quantity.T2, 0.25)
    noise = np.random.default_rng(3).normal(scale=10, size=stack.signal.shape).astype(np.float32)
    noisy = replace(stack, signal=stack.signal + noise)
    wide, narrow = (relaxation_map(noisy, where) for where in (fit_region(mask), mask.levels > 0))
    assert (wide.status > 0).sum() > (narrow.status > 0).sum() == (mask.levels > 0).sum()
    cut = within(wide, mask.levels > 0)
    for name in ("time_ms", "standard_error_ms", "s0", "residual_rms", "status"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(narrow, name))


def test_a_map_that_leaves_out_a_members_voxels_is_refused(mask: DiscMask) -> None:
    stack = echoes(Quantity.T2, 0.25)
    with pytest.raises(ValueError, match="was not fitted wherever a member sees L5S1"):
        measure(mask, {Quantity.T2: relaxation_map(stack, mask.levels > 0)}, ())


def test_flipped_images_give_the_members_masks_on_their_own_grid(mask: DiscMask, model: OnnxModel) -> None:
    one = volume()
    affine = AFFINE.copy()
    for axis in (0, 2):
        affine[:3, 3] += affine[:3, axis] * (one.array.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = find_discs(ImageVolume(np.ascontiguousarray(np.flip(one.array, (0, 2))), affine), model)
    assert flipped.member_levels is not None
    assert mask.member_levels is not None
    np.testing.assert_array_equal(flipped.member_levels, np.flip(mask.member_levels, (1, 3)))
    assert flipped.confidence == mask.confidence


def test_a_coarser_grid_gives_the_same_volumes_of_members(model: OnnxModel) -> None:
    fine = volume()
    coarse = ImageVolume(fine.array[:, ::2, ::2].copy(), AFFINE.copy())
    coarse.affine[:3, 1:3] *= 2
    found = find_discs(coarse, model)
    assert found.member_levels is not None
    expected_mm3 = np.array([12, 12, 16]) * 40 * SLICES * VOXEL_MM3
    volumes_mm3 = (found.member_levels == Level.L4L5).sum(axis=(1, 2, 3)) * VOXEL_MM3 * 4
    np.testing.assert_allclose(volumes_mm3, expected_mm3, rtol=0.1)


def test_twice_the_same(mask: DiscMask, ensemble: Path) -> None:
    again = find_discs(volume(), OnnxModel(load_model("made", ensemble), device="cpu"))
    np.testing.assert_array_equal(again.levels, mask.levels)
    np.testing.assert_array_equal(again.probability, mask.probability)
    np.testing.assert_array_equal(again.member_levels, mask.member_levels)
    assert again.confidence == mask.confidence
    assert again.model_sha256 == mask.model_sha256


def test_a_single_network_has_no_members_to_compare(ensemble: Path) -> None:
    alone = OnnxModel(load_model("made", ensemble).only(2), device="cpu")
    found = find_discs(volume(), alone)
    assert found.member_levels is None
    assert found.found == tuple(level for level in LUMBAR_LEVELS if level is not Level.L3L4)  # the gap keeps its level
    for one in found.confidence:
        assert (one.member_dice, one.member_volume_sd_mm3, one.n_members, one.n_members_with_disc) == (None, None, 1, 1)
    (row, *_) = measure(found, {Quantity.T2: relaxation_map(echoes(Quantity.T2, 0.25), fit_region(found))}, ())
    assert (row.member_sd_ms, row.n_members) == (None, None)


def test_the_models_own_threshold_is_used_unless_another_is_given(ensemble: Path) -> None:
    record = replace(load_model("made", ensemble), threshold=0.105)
    model = OnnxModel(record, device="cpu")
    rows = range(CENTRES[Level.L5S1] - 6, CENTRES[Level.L5S1] + 10)  # one member of three: probability 0.11
    assert rows_of(find_discs(volume(), model).levels, Level.L5S1) == set(rows)
    assert rows_of(find_discs(volume(), model, threshold=0.5).levels, Level.L5S1) == set(rows[:-4])


def test_an_island_beside_a_disc_is_not_part_of_it(tmp_path: Path) -> None:
    """As a vessel: as bright as the disc, and joined to it where it is doubtful what it is."""
    row = CENTRES[Level.L4L5]
    answers = []
    for certainty in (6.0, 6.1):
        logits = spine(certainty)
        logits[:, row - 3 : row + 3, 80:90] = 0
        logits[:2, row - 3 : row + 3, 80:84] = np.array([0, certainty])[:, None, None]
        logits[:2, row - 3 : row + 3, 84:90] = np.array([certainty, 0.8 * certainty])[:, None, None]
        answers.append(logits)
    paths = [constant_network(tmp_path / f"vessel-{k}.onnx", logits) for k, logits in enumerate(answers)]
    found = find_discs(volume(), OnnxModel(load_model("made", register(tmp_path, *paths)), device="cpu"))
    assert (found.probability[:, row, 82] > 0.9).all()
    assert not found.levels[:, :, :90].any()
    assert found.member_levels is not None
    assert not found.member_levels[..., :90].any()
    confidence = {one.level: one for one in found.confidence}
    assert confidence[Level.L4L5].n_voxels == SLICES * 12 * 40


def test_dice_of_pairs_by_hand() -> None:
    masks = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    pairs = [4 / 6, 0, 1, 0, 4 / 6, 0]
    assert pairwise_dice(masks) == pytest.approx(np.mean(pairs))
    assert pairwise_dice(np.zeros((2, 4), bool)) == 0.0  # nothing agreed on, no division by zero
    with pytest.raises(ValueError, match="a pair needs two"):
        pairwise_dice(masks[:1])


def fitted(values: list[float], status: list[int]) -> RelaxationMap:
    array = np.array(values, np.float32)[None, None]
    return RelaxationMap(Quantity.T2, array, array, array, array, np.array(status, np.uint8)[None, None], AFFINE)


def test_voxels_without_a_value_do_not_count_and_members_without_one_are_left_out() -> None:
    one = fitted([50, 60, 999, 80], [FitStatus.FITTED, FitStatus.FITTED, FitStatus.NO_DECAY, FitStatus.FITTED])
    members = np.array([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)[:, None, None]
    spread_ms, n_members = member_spread_ms(one, members, Level.L5S1)
    assert spread_ms == pytest.approx(np.std([55.0, 80.0], ddof=1))
    assert n_members == 2
    assert member_spread_ms(one, members[1:], Level.L5S1) == (None, 1)
    assert member_spread_ms(one, members, Level.L1L2) == (None, 0)


def test_records_made_by_hand_need_not_speak_of_members() -> None:
    row = DiscMeasurement(Level.L5S1, Region.NUCLEUS, Quantity.T2, 50.0, 1.0, 50.0, 3, 0)
    assert (row.member_sd_ms, row.n_members) == (None, None)


def test_the_discs_are_where_the_names_say(mask: DiscMask) -> None:
    rows = [np.nonzero(mask.levels == level)[1].mean() for level in LUMBAR_LEVELS]
    assert all(lower > upper for lower, upper in pairwise(rows))
