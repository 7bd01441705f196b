import math

import numpy as np
import pytest

from processing.agreement import (
    DiscTimes,
    compare_exam,
    compare_times,
    mean_interval,
    mean_surface_distance,
    pooled_dice,
    rank_correlation,
    times_agreement,
)
from processing.results import LUMBAR_LEVELS, EchoStack, Level, Quantity

SPACING = (4.0, 0.5, 0.5)
CENTRES = {level: 90 - 18 * index for index, level in enumerate(LUMBAR_LEVELS)}


def boxes(shape=(3, 100, 60), *, down=0, shrink=0, levels=LUMBAR_LEVELS, named=None) -> np.ndarray:
    """Discs of 8 rows x 30 columns in every slice, moved ``down`` rows, ``shrink`` voxels smaller on each side."""
    mask = np.zeros(shape, np.uint8)
    for level in levels:
        row = CENTRES[level] - 4 + down
        mask[:, row + shrink : row + 8 - shrink, 15 + shrink : 45 - shrink] = (named or {}).get(level, level)
    return mask


def test_equal_masks_agree_wholly():
    exam = compare_exam(boxes(), boxes(), SPACING)
    assert [one.level for one in exam.discs] == list(LUMBAR_LEVELS)
    for one in (*exam.discs, *exam.slices):
        assert (one.dice, one.sensitivity, one.precision, one.msd_mm) == (1.0, 1.0, 1.0, 0.0)
        assert one.volume_difference_percent == 0.0
        assert one.found
        assert not one.wrongly_named
    assert len(exam.slices) == 15
    assert pooled_dice([exam]) == 1.0


def test_shifted_boxes_have_the_overlap_of_the_closed_form():
    exam = compare_exam(boxes(), boxes(down=2), SPACING)  # 6 of 8 rows in common
    for one in exam.discs:
        assert one.dice == pytest.approx(0.75)
        assert one.sensitivity == pytest.approx(0.75)
        assert one.precision == pytest.approx(0.75)
        assert one.volume_difference_percent == 0.0
        assert one.n_manual == one.n_automatic == 3 * 8 * 30
    assert pooled_dice([exam, exam]) == pytest.approx(0.75)


def test_eroded_boxes_have_the_overlap_of_the_closed_form():
    exam = compare_exam(boxes(), boxes(shrink=1), SPACING)
    manual, automatic = 8 * 30, 6 * 28
    for one in exam.discs:
        assert one.dice == pytest.approx(2 * automatic / (manual + automatic))
        assert one.sensitivity == pytest.approx(automatic / manual)
        assert one.precision == 1.0
        assert one.volume_difference_percent == pytest.approx(100 * (manual - automatic) / manual)  # manual - automatic


def test_a_larger_automatic_disc_has_a_negative_volume_difference():
    one = compare_exam(boxes(shrink=1), boxes(), SPACING).discs[0]
    assert one.volume_difference_percent == pytest.approx(100 * (168 - 240) / 168)
    assert one.sensitivity == 1.0
    assert one.precision == pytest.approx(168 / 240)


def test_surface_distance_of_an_eroded_rectangle():
    outer, inner = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    outer[4:12, 5:35] = True
    inner[5:11, 6:34] = True
    # every edge voxel of one rectangle is 1 voxel from the other's edge, but for the outer corners: sqrt 2
    n_outer, n_inner = 2 * (8 + 30) - 4, 2 * (6 + 28) - 4
    expected = (n_outer - 4 + 4 * math.sqrt(2) + n_inner) / (n_outer + n_inner)
    assert mean_surface_distance(outer, inner, (0.5, 0.5)) == pytest.approx(0.5 * expected, abs=1e-6)
    assert mean_surface_distance(inner, outer, (0.5, 0.5)) == pytest.approx(0.5 * expected, abs=1e-6)


def test_surface_distance_of_a_shifted_rectangle_and_unequal_spacing():
    first, second = np.zeros((30, 50), bool), np.zeros((30, 50), bool)
    first[5:15, 5:45] = True
    second[7:17, 5:45] = True
    ends = 2 * (1.5 + 3.0)  # of the sides, which else lie on each other: 1 and 2 rows beyond the other's corner
    to_side = np.minimum(np.arange(1, 39), np.arange(38, 0, -1)) * 1.0
    inside = float(np.minimum(3.0, to_side).sum())  # an edge within the other rectangle may be closer to its side
    outside = 38 * 3.0
    expected = (ends + inside + outside) / (2 * (10 + 40) - 4)
    assert mean_surface_distance(first, second, (1.5, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_surface_distance_is_told_in_mm_and_in_pixels():
    one = compare_exam(boxes((1, 100, 60)), boxes((1, 100, 60), shrink=1), SPACING).discs[0]
    assert one.slice_index is None
    assert one.msd_px == pytest.approx(one.msd_mm / 0.5)
    assert one.msd_px == pytest.approx((68 + 4 * math.sqrt(2) + 64) / 136, abs=1e-6)  # two dimensions for one slice


def test_end_faces_of_a_stack_make_the_distance_smaller_in_three_dimensions():
    exam = compare_exam(boxes(), boxes(down=1), SPACING)
    assert exam.discs[0].msd_mm < exam.slices[0].msd_mm


def test_a_missing_disc_counts_with_a_dice_of_zero():
    automatic = boxes(levels=(Level.L4L5, Level.L3L4))
    exam = compare_exam(boxes(), automatic, SPACING)
    lowest = exam.discs[0]
    assert (lowest.level, lowest.dice, lowest.sensitivity, lowest.n_automatic) == (Level.L5S1, 0.0, 0.0, 0)
    assert math.isnan(lowest.msd_mm)
    assert math.isnan(lowest.precision)
    assert lowest.volume_difference_percent == 100.0
    assert not lowest.found
    assert exam.discs[1].found


def test_a_disc_under_the_wrong_name_is_found_but_wrongly_named():
    shifted = {level: level + 1 for level in LUMBAR_LEVELS[:4]}  # all one too high
    exam = compare_exam(boxes(), boxes(levels=LUMBAR_LEVELS[:4], named=shifted), SPACING)
    assert [one.named for one in exam.discs] == [Level.L4L5, Level.L3L4, Level.L2L3, Level.L1L2, None]
    assert [one.wrongly_named for one in exam.discs] == [True] * 4 + [False]
    assert all(one.dice == 0.0 and math.isnan(one.msd_mm) for one in exam.discs)


def test_levels_without_annotation_are_told_and_not_compared():
    exam = compare_exam(boxes(levels=LUMBAR_LEVELS[:3]), boxes(), SPACING)
    assert len(exam.discs) == 3
    assert exam.unannotated == (Level.L2L3, Level.L1L2)
    assert pooled_dice([exam]) == pytest.approx(2 * 3 / (3 + 5))


def test_the_disc_above_the_lumbar_ones_is_not_compared():
    manual = boxes()
    manual[:, 2:6, 15:45] = Level.T12L1
    assert compare_exam(manual, boxes(), SPACING).voxels == (3600, 3600, 3600)


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        compare_exam(boxes(), boxes((2, 100, 60)), SPACING)
    with pytest.raises(ValueError, match="no surface"):
        mean_surface_distance(np.zeros((4, 4), bool), np.ones((4, 4), bool), (1.0, 1.0))


def test_interval_of_a_mean_is_student_s():
    # t(0.975, 4) = 2.776445: mean 3, s = sqrt(2.5), half width 2.776445 * sqrt(2.5 / 5)
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0, math.nan])
    assert found.n == 5
    assert found.mean == 3.0
    assert found.high - 3.0 == pytest.approx(2.776445105 * math.sqrt(0.5), rel=1e-8)
    assert found.low + found.high == pytest.approx(6.0)
    assert mean_interval([2.0]).mean == 2.0
    assert math.isnan(mean_interval([2.0]).low)
    assert math.isnan(mean_interval([]).mean)


def test_agreement_of_times_by_hand():
    manual, automatic = [50.0, 60.0, 80.0, 100.0], [51.0, 59.0, 82.0, 104.0]
    difference = np.array([-1.0, 1.0, -2.0, -4.0])
    rows = [DiscTimes(Level.L4L5, Quantity.T2, a, b) for a, b in zip(manual, automatic, strict=True)]
    found = times_agreement([*rows, DiscTimes(Level.L5S1, Quantity.T2, math.nan, 3.0)])
    assert found.n == 4
    assert found.bias_ms == pytest.approx(-1.5)
    sd = math.sqrt(((difference + 1.5) ** 2).sum() / 3)
    assert found.lower_limit_ms == pytest.approx(-1.5 - 1.96 * sd)
    assert found.upper_limit_ms == pytest.approx(-1.5 + 1.96 * sd)
    assert found.r == pytest.approx(np.corrcoef(manual, automatic)[0, 1])
    u = 1.5 / (sd / 2) / math.sqrt(3)  # Student's distribution in closed form for 3 degrees of freedom
    assert found.p_paired_t == pytest.approx(1 - 2 / math.pi * (u / (1 + u * u) + math.atan(u)), abs=1e-9)


def test_agreement_of_too_few_or_equal_times_is_undefined_not_invented():
    one = times_agreement([DiscTimes(Level.L4L5, Quantity.T2, 50.0, 51.0)])
    assert (one.n, one.bias_ms) == (1, -1.0)
    assert math.isnan(one.r)
    assert math.isnan(one.p_paired_t)
    assert math.isnan(one.lower_limit_ms)
    assert times_agreement([]).n == 0
    same = times_agreement([DiscTimes(Level.L4L5, Quantity.T2, x, x) for x in (40.0, 50.0, 60.0)])
    assert (same.r, same.bias_ms) == (pytest.approx(1.0), 0.0)
    assert math.isnan(same.p_paired_t)


def test_rank_correlation_follows_order_alone():
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [9.0, 7.0, 1.0, 0.5]) == (pytest.approx(-1.0), 4)
    assert rank_correlation([1.0, 2.0, 3.0, math.nan], [1.0, 10.0, 100.0, 0.0]) == (pytest.approx(1.0), 3)
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[0])
    assert math.isnan(rank_correlation([], [])[0])


def test_times_are_means_under_each_mask():
    times = (0.0, 10.0, 40.0, 80.0)
    true = np.where(np.arange(60) < 30, 60.0, 100.0)  # left half 60 ms, right half 100 ms
    signal = 1000 * np.exp(-np.array(times)[:, None, None, None] / true) * np.ones((4, 3, 100, 60))
    stack = EchoStack(Quantity.T1RHO, signal.astype(np.float32), times, np.eye(4))
    manual = boxes(levels=(Level.L4L5, Level.L1L2))
    automatic = manual.copy()
    automatic[:, :, :30] = 0  # only the right half
    automatic[automatic == Level.L1L2] = 0
    rows = compare_times(stack, manual, automatic)
    assert [(one.level, one.quantity) for one in rows] == [(Level.L4L5, Quantity.T1RHO)]
    assert rows[0].manual_ms == pytest.approx(80.0, abs=1e-3)
    assert rows[0].automatic_ms == pytest.approx(100.0, abs=1e-3)
