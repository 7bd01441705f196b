"""Only an upright sagittal lumbar spine passes: hand-made answers of a network, each wrong in one way."""

import numpy as np
import pytest
from scipy import ndimage
from straight_spine import SPACING_MM, SURE, Spine, probability_of

from processing.disc_candidates import find_candidates
from processing.plausibility import check_plausible, mean_entropy, posture_deg
from processing.refusal import ReasonCode, UnsuitableInput


def fault_of(classes: np.ndarray, spacing_mm: tuple[float, float, float] = SPACING_MM) -> str:
    return fault_in(probability_of(np.ascontiguousarray(classes)), spacing_mm)


def fault_in(probability: np.ndarray, spacing_mm: tuple[float, float, float] = SPACING_MM) -> str:
    with pytest.raises(UnsuitableInput) as refused:
        check_plausible(probability, spacing_mm)
    assert refused.value.reason.code is ReasonCode.SEGMENTATION_UNCERTAIN
    return refused.value.reason.detail


def turned(angle_deg: float) -> np.ndarray:
    """The middle slices of a spine, turned about the middle of the picture."""
    return ndimage.rotate(Spine(slices=2).classes, angle_deg, axes=(1, 2), reshape=False, order=0)


@pytest.mark.parametrize("spine", [Spine(), Spine(slices=1), Spine(missing=(3,)), Spine(with_sacrum=False)])
def test_a_spine_passes(spine: Spine) -> None:
    check_plausible(spine.probability(), SPACING_MM)


@pytest.mark.parametrize("angle_deg", [-30.0, -12.0, 0.0, 12.0, 30.0])
def test_posture_is_the_angle_by_which_the_picture_was_turned(angle_deg: float) -> None:
    found = find_candidates(probability_of(turned(angle_deg)), SPACING_MM)
    # ndimage turns from rows towards columns, that is, the lower end to the back: the top leans forwards
    assert posture_deg(found.discs) == pytest.approx(angle_deg, abs=2.0)


@pytest.mark.parametrize("angle_deg", [-12.0, 12.0])
def test_a_spine_that_leans_a_little_passes(angle_deg: float) -> None:
    check_plausible(probability_of(turned(angle_deg)), SPACING_MM)


@pytest.mark.parametrize("angle_deg", [-40.0, -30.0, 30.0, 40.0])
def test_a_turned_spine_is_refused(angle_deg: float) -> None:
    assert "leans" in fault_of(turned(angle_deg))


@pytest.mark.parametrize("angle_deg", [60.0, 90.0, -90.0, 120.0])
def test_a_lying_spine_is_refused(angle_deg: float) -> None:
    fault_of(turned(angle_deg))


def test_front_and_back_exchanged() -> None:
    assert "behind the discs" in fault_of(Spine().classes[:, :, ::-1])


def test_upside_down() -> None:
    assert "upside down" in fault_of(np.roll(Spine(discs=5).classes, 20, axis=1)[:, ::-1])


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ((slice(None), slice(128, None)), "mm high"),
        ((slice(None), slice(0, 128)), "mm high"),
        ((slice(None), slice(None), slice(0, 146)), "canal"),
        ((slice(None), slice(None), slice(146, None)), "0 discs"),
    ],
)
def test_half_a_picture_is_refused(part: tuple[slice, ...], why: str) -> None:
    assert why in fault_of(Spine().classes[part])


def test_a_spine_at_the_edge_of_the_picture_is_refused() -> None:
    assert "edge of the picture" in fault_of(Spine().classes[:, :, :160])


def test_three_discs_are_too_few() -> None:
    assert "3 discs" in fault_of(Spine(discs=3).classes)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_pixel_size_is_refused(factor: float) -> None:
    fault_of(Spine().classes, (SPACING_MM[0], SPACING_MM[1] * factor, SPACING_MM[2] * factor))


def test_discs_without_canal_are_refused() -> None:
    """A ladder, or a coronal picture."""
    classes = Spine().classes
    classes[classes == 4] = 0
    assert "spinal canal" in fault_of(classes)


def test_an_empty_answer_is_refused() -> None:
    fault_of(np.zeros((1, 256, 256), np.uint8))


def test_an_unsure_answer_is_refused() -> None:
    sure = Spine().probability()
    unsure = (0.6 * sure + 0.4 * 0.2).astype(np.float32)  # towards all five classes alike
    discs = sure[1] > 0.5
    unsure[:, discs] = np.array([0.04, 0.84, 0.04, 0.04, 0.04], np.float32)[:, None]  # the discs' cores still stand out
    assert "entropy" in fault_in(unsure)


def test_entropy_is_that_of_the_probabilities() -> None:
    spine = Spine()
    others = (1.0 - SURE) / 4
    expected = -(SURE * np.log(SURE) + 4 * others * np.log(others)) / np.log(5)
    assert mean_entropy(spine.probability(), spine.classes) == pytest.approx(expected, rel=1e-4)
    assert mean_entropy(spine.probability(), np.zeros_like(spine.classes)) == 1.0


def test_detail_never_asks_for_more_than_two_lines() -> None:
    assert len(fault_of(turned(40.0))) < 160
