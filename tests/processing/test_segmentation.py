import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from models.inference import OnnxModel
from models.registry import load_model
from processing.phantom import PhantomExam, simulate_exam
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import LUMBAR_LEVELS, DiscMask, ImageVolume
from processing.segmentation import find_discs, tissue_probability


@cache
def network() -> OnnxModel:
    return OnnxModel(load_model("cfcm-lumbar"), device="cpu")


@cache
def exam(seed: int, n_slices: int = 5, slice_spacing_mm: float = 8.0) -> PhantomExam:
    return simulate_exam(seed, n_slices=n_slices, slice_spacing_mm=slice_spacing_mm, subject=f"SEG-{seed}")


def first_image(one: PhantomExam) -> ImageVolume:
    return ImageVolume(one.signal[0], one.affine)


@cache
def upright(seed: int) -> DiscMask:
    return find_discs(first_image(exam(seed)), network())


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("seed", [101, 102])
def test_the_five_discs_of_an_exam_are_found_and_rightly_named(seed: int) -> None:
    mask, truth = upright(seed), exam(seed).labels
    for level in LUMBAR_LEVELS:
        assert dice(mask.levels == level, truth == level) >= 0.85, level
    assert mask.levels.shape == mask.probability.shape == mask.tissue.shape == truth.shape
    assert (mask.probability[mask.levels > 0] > 0.5).all()
    assert set(np.unique(mask.tissue)) <= {0, 1, 2, 3, 4}
    assert {one.level for one in mask.confidence} == set(mask.found)
    for one in mask.confidence:
        assert one.n_voxels == (mask.levels == one.level).sum()
        assert one.mean_probability > 0.8
        assert 0 <= one.ring_entropy < 0.8


def test_one_slice_is_enough() -> None:
    one = exam(101)
    middle = one.signal.shape[1] // 2
    affine = one.affine.copy()
    affine[:3, 3] += middle * affine[:3, 0]
    mask = find_discs(ImageVolume(one.signal[0][middle : middle + 1], affine), network())
    for level in LUMBAR_LEVELS:
        assert dice(mask.levels[0] == level, one.labels[middle] == level) >= 0.8


@pytest.mark.parametrize("order", [((0, 1, 2), (1, 2)), ((0, 2, 1), (0,)), ((0, 2, 1), (0, 1, 2))])
def test_flipped_and_transposed_images_give_the_same_mask_on_their_own_grid(
    order: tuple[tuple[int, int, int], tuple[int, ...]],
) -> None:
    axes, flips = order
    one = exam(101)
    array = np.flip(one.signal[0].transpose(axes), flips)
    affine = one.affine[:, [*axes, 3]].copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
    mask = find_discs(ImageVolume(np.ascontiguousarray(array), affine), network())
    assert np.array_equal(mask.levels, np.flip(upright(101).levels.transpose(axes), flips))


def test_an_oblique_exam_is_measured_on_its_own_grid() -> None:
    one = simulate_exam(101, n_slices=5, slice_spacing_mm=8.0, subject="SEG-101", oblique_deg=10.0)
    mask = find_discs(first_image(one), network())
    assert dice(mask.levels > 0, one.labels > 0) >= 0.85
    for level in LUMBAR_LEVELS:
        assert dice(mask.levels == level, one.labels == level) >= 0.8


def test_a_finer_grid_gives_the_same_discs() -> None:
    one = exam(102)
    finer = ImageVolume(np.kron(one.signal[0], np.ones((1, 2, 2), np.float32)), one.affine.copy())
    step = one.affine[:3, 1] / 2, one.affine[:3, 2] / 2
    finer.affine[:3, 1], finer.affine[:3, 2] = step
    finer.affine[:3, 3] -= (step[0] + step[1]) / 2
    mask = find_discs(finer, network())
    assert dice(mask.levels > 0, np.kron(upright(102).levels > 0, np.ones((1, 2, 2), bool))) > 0.93


def test_coronal_images_are_refused() -> None:
    affine = np.diag([4.0, 0.8, 0.8, 1.0])[:, [1, 0, 2, 3]]  # slices along P
    with pytest.raises(UnsuitableInput, match="not sagittal") as refused:
        find_discs(ImageVolume(np.zeros((3, 64, 64), np.float32), affine), network())
    assert refused.value.reason.code is ReasonCode.GEOMETRY_INCONSISTENT


@pytest.mark.parametrize("content", ["noise", "blank", "not a number"])
def test_images_without_a_spine_are_refused(content: str) -> None:
    one = exam(101)
    shape = one.signal[0].shape
    array = {
        "noise": np.random.default_rng(0).rayleigh(100.0, shape).astype(np.float32),
        "blank": np.zeros(shape, np.float32),
        "not a number": np.full(shape, np.nan, np.float32),
    }[content]
    with pytest.raises(UnsuitableInput) as refused:
        find_discs(ImageVolume(array, one.affine), network())
    assert refused.value.reason.code is ReasonCode.SEGMENTATION_UNCERTAIN


@pytest.mark.parametrize("seed", [101, 102])
def test_without_l5s1_in_view_no_names_are_given(seed: int) -> None:
    one = exam(seed)
    rows = np.flatnonzero((one.labels == 1).any(axis=(0, 2)))
    cut = ImageVolume(np.ascontiguousarray(one.signal[0][:, : rows.min() - 2]), one.affine)
    with pytest.raises(UnsuitableInput) as refused:
        find_discs(cut, network())
    assert refused.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_the_same_image_gives_the_same_mask() -> None:
    again = find_discs(first_image(exam(101)), network())
    assert np.array_equal(again.levels, upright(101).levels)
    assert np.array_equal(again.probability, upright(101).probability)


def test_discs_of_a_real_spine_are_found_and_named() -> None:
    """A patient the network was not trained on; licence and source in tests/data/spider_57.LICENSE.txt."""
    with np.load(Path(__file__).parents[1] / "data" / "spider_57.npz") as held:
        image, truth = held["image"].astype(np.float32), held["label"] == 1
        slice_mm, row_mm, column_mm = held["spacing_mm"]
    affine = np.array([[-slice_mm, 0, 0, 0], [0, 0, column_mm, 0], [0, -row_mm, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    mask = find_discs(ImageVolume(image, affine), network())
    parts, count = ndimage.label(truth)
    from_below = sorted(range(1, count + 1), key=lambda part: -ndimage.center_of_mass(parts == part)[1])
    for level, part in zip(LUMBAR_LEVELS, from_below, strict=False):
        assert dice(mask.levels == level, parts == part) >= 0.8, level


def test_a_long_stack_is_not_held_in_memory_more_than_twice() -> None:
    class Network:
        record = load_model("cfcm-lumbar")
        n_members = 1

        def predict(self, slices: np.ndarray) -> np.ndarray:
            return np.zeros((len(slices), 5, *slices.shape[1:]), np.float32)

    planes = np.zeros((60, 256, 256), np.float32)
    tracemalloc.start()
    try:
        probability = tissue_probability(planes, (0.78125, 0.78125), Network())  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(probability.sum(axis=0), 1.0, rtol=1e-6)
    assert peak < 2.6 * probability.nbytes  # the logits, the probabilities and the planes; it was 4 and more
