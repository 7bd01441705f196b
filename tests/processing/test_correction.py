"""A person's discs in place of the networks': what is compared, what is judged, and what is no mask of discs."""

import numpy as np
import pytest

from processing.correction import check_discs, correct_discs
from processing.quality import judge
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import DiscConfidence, DiscMask, GivenMask, ImageVolume, Level, MaskOrigin, Verdict

SHAPE = (3, 60, 20)
MODEL = ("cfcm", "ab" * 32)


def affine() -> np.ndarray:
    """Sagittal: rows run to inferior."""
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[2, 1], matrix[1, 2], matrix[3, 3] = -4.0, -0.8, 0.8, 1.0
    return matrix


def discs(*levels: Level, width: int = 10) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for level in levels:
        bottom = 58 - 9 * (level - 1)
        labels[:, bottom - 5 : bottom, 4 : 4 + width] = level
    return labels


def automatic(*levels: Level) -> DiscMask:
    labels = discs(*levels)
    sure = tuple(DiscConfidence(level, 0.5, 0.99, False, 150, member_dice=0.1) for level in levels)
    return DiscMask(labels, np.ones(SHAPE, np.float32), labels + 1, affine(), sure, *MODEL)


def corrected(labels: np.ndarray, found: DiscMask | Reason):
    def find() -> DiscMask:
        if isinstance(found, Reason):
            raise UnsuitableInput(found.code, found.detail)
        return found

    given = GivenMask(labels, MaskOrigin("cd" * 32, "1.2.3"))
    return correct_discs(given, ImageVolume(np.zeros(SHAPE, np.float32), affine()), find, MODEL)


def test_each_disc_is_compared_with_the_automatic_one_of_its_name() -> None:
    labels = discs(Level.L5S1) + discs(Level.L4L5, width=5) + discs(Level.L3L4)
    mask, correction = corrected(labels, automatic(Level.L5S1, Level.L4L5, Level.L2L3))
    assert correction.automatic_dice == {
        Level.L5S1: 1.0,
        Level.L4L5: pytest.approx(2 * 5 / (5 + 10)),
        Level.L3L4: 0.0,  # drawn anew
    }
    assert correction.removed == (Level.L2L3,)
    assert correction.automatic_refusal is None
    np.testing.assert_array_equal(mask.levels, labels)
    assert (mask.tissue == automatic(Level.L5S1, Level.L4L5, Level.L2L3).tissue).all()
    assert mask.confidence == ()


def test_there_need_be_no_automatic_discs_to_correct() -> None:
    refusal = Reason(ReasonCode.LEVELS_AMBIGUOUS, "six discs, no sacrum")
    mask, correction = corrected(discs(Level.L5S1), refusal)
    assert (correction.automatic_dice, correction.removed, correction.automatic_refusal) == ({}, (), refusal)
    assert mask.found == (Level.L5S1,)


def test_images_that_are_not_sagittal_stay_refused() -> None:
    with pytest.raises(UnsuitableInput, match="not sagittal"):
        corrected(discs(Level.L5S1), Reason(ReasonCode.GEOMETRY_INCONSISTENT, "the images are not sagittal"))


def test_t12l1_is_not_measured() -> None:
    mask, correction = corrected(discs(Level.L1L2, Level.T12L1), automatic(Level.L1L2))
    assert mask.found == (Level.L1L2,)
    assert list(correction.automatic_dice) == [Level.L1L2]


LIMITS = {"min_dice": 0.85, "max_ring_entropy": 0.3, "min_member_dice": 0.8}


def test_what_the_networks_were_unsure_of_is_no_reason_any_more() -> None:
    levels = tuple(Level)[:5]
    assert judge(automatic(*levels), (), (), **LIMITS)[0] is Verdict.NEEDS_REVIEW
    mask, correction = corrected(discs(*levels), automatic(*levels))
    assert judge(mask, (), (), correction=correction, **LIMITS) == (Verdict.OK, ())


def test_other_doubts_stay_and_missing_discs_are_named() -> None:
    mask, correction = corrected(discs(*tuple(Level)[:3]), automatic(*tuple(Level)[:5]))
    motion = Reason(ReasonCode.MOTION, "T1rho 40 ms")
    verdict, reasons = judge(mask, (), (), doubts=(motion,), correction=correction, **LIMITS)
    assert verdict is Verdict.NEEDS_REVIEW
    missing, other = reasons
    assert (missing.code, other) == (ReasonCode.REVIEW_REQUIRED, motion)
    assert missing.detail.endswith("does not hold them: L2L3, L1L2")


def test_a_disc_that_the_image_cuts_is_a_doubt_whoever_drew_it() -> None:
    labels = discs(*tuple(Level)[:5])
    labels[:, 54:, 4:14] = Level.L5S1
    mask, correction = corrected(labels, automatic(Level.L4L5))
    reasons = judge(mask, (), (), correction=correction, **LIMITS)[1]
    assert [one.detail for one in reasons] == ["L5S1: cut by the edge of the image"]


def test_every_other_slice_alone_is_a_doubt() -> None:
    """The volume of such a disc is half of what it was, and nobody was told."""
    labels = discs(*tuple(Level)[:5])
    labels[1][labels[1] == Level.L4L5] = 0
    mask, correction = corrected(labels, automatic(*tuple(Level)[:5]))
    (reason,) = judge(mask, (), (), correction=correction, **LIMITS)[1]
    assert reason.code is ReasonCode.REVIEW_REQUIRED
    assert reason.detail == "L4L5: not drawn on 1 of the slices between its first and its last one"


def test_names_that_all_went_to_the_neighbour_are_a_doubt() -> None:
    """In order, as they must be, and each one disc too high."""
    levels = tuple(Level)[:4]
    labels = discs(*tuple(Level)[1:5])
    labels[labels > 0] -= 1
    mask, correction = corrected(labels, automatic(*tuple(Level)[:5]))
    assert mask.found == levels
    reasons = judge(mask, (), (), correction=correction, **LIMITS)[1]
    assert [one.detail for one in reasons][:4] == [
        f"{level.name}: drawn where the networks found {Level(level + 1).name}" for level in levels
    ]


def test_discs_must_lie_in_the_order_of_their_names() -> None:
    check_discs(discs(*Level), affine())
    check_discs(discs(Level.L5S1, Level.L2L3), affine())
    upside_down = discs(*Level)[:, ::-1]
    with pytest.raises(UnsuitableInput, match="L4L5 does not lie above L5S1") as refusal:
        check_discs(upside_down, affine())
    assert refusal.value.reason.code is ReasonCode.LEVELS_AMBIGUOUS


def test_an_empty_mask_is_none() -> None:
    for labels in (discs(), discs(Level.T12L1)):
        with pytest.raises(UnsuitableInput, match="no voxel of a disc") as refusal:
            check_discs(labels, affine())
        assert refusal.value.reason.code is ReasonCode.SEGMENTATION_UNCERTAIN
