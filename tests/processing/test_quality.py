"""One doubt asks for review; each doubt names its disc."""

from dataclasses import replace

import numpy as np
import pytest

from processing.quality import judge
from processing.refusal import Reason, ReasonCode
from processing.results import (
    LUMBAR_LEVELS,
    Alignment,
    AtlasDisc,
    DiscConfidence,
    DiscMask,
    DiscMeasurement,
    Level,
    Quantity,
    Region,
    RegisteredDisc,
    Verdict,
)

GRID = np.zeros((1, 8, 4), np.uint8)
LIMITS = {"min_dice": 0.85, "max_ring_entropy": 0.6, "min_member_dice": 0.9}


def mask(levels=LUMBAR_LEVELS, **changed):
    labels = GRID.copy()
    for level in levels:
        labels[0, level.value] = level.value
    confidence = tuple(replace(DiscConfidence(level, 0.95, 0.3, False, 4), **changed) for level in levels)
    return DiscMask(labels, GRID.astype(np.float32), GRID, np.eye(4), confidence, "by hand", "0" * 64)


def disc(level, dice=0.96, n_folded=0):
    jacobian = np.ones(GRID.shape, np.float32)
    alignment = Alignment(level, (0.0, 0.0, 0.0), (), jacobian, dice, 0.8, 0.05, 0.5, n_folded, "fast", 1, 1.0)
    return RegisteredDisc(alignment, AtlasDisc(level, GRID, GRID, np.eye(4)), {})


def row(level=Level.L5S1, *, quantity=Quantity.T2, mean_ms=60.0, n=100, **excluded):
    return DiscMeasurement(level, Region.NUCLEUS, quantity, mean_ms, 5.0, mean_ms, n, sum(excluded.values()), excluded)


ALL = tuple(disc(level) for level in LUMBAR_LEVELS)


def test_an_exam_without_doubt_is_ok():
    assert judge(mask(), ALL, [row(NO_DECAY=5)], **LIMITS) == (Verdict.OK, ())


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (lambda: judge(mask(LUMBAR_LEVELS[:4]), ALL, [], **LIMITS), ReasonCode.SEGMENTATION_UNCERTAIN, "L1L2"),
        (lambda: judge(mask((*LUMBAR_LEVELS[1:], Level.T12L1)), ALL, [], **LIMITS), "SEGMENTATION_UNCERTAIN", "L5S1"),
        (lambda: judge(mask(ring_entropy=0.7), ALL, [], **LIMITS), "SEGMENTATION_UNCERTAIN", "0.70"),
        (lambda: judge(mask(ring_entropy=float("nan")), ALL, [], **LIMITS), "SEGMENTATION_UNCERTAIN", "nan"),
        (lambda: judge(mask(member_dice=0.87), ALL, [], **LIMITS), "SEGMENTATION_UNCERTAIN", "disagree on the disc"),
        (lambda: judge(mask(member_dice=float("nan")), ALL, [], **LIMITS), "SEGMENTATION_UNCERTAIN", "disagree"),
        (lambda: judge(mask(touches_border=True), ALL, [], **LIMITS), "SEGMENTATION_UNCERTAIN", "edge"),
        (lambda: judge(mask(), [disc(Level.L3L4, dice=0.8)], [], **LIMITS), "REGISTRATION_POOR", "L3L4"),
        (lambda: judge(mask(), [disc(Level.L3L4, dice=float("nan"))], [], **LIMITS), "REGISTRATION_POOR", "nan"),
        (lambda: judge(mask(), [disc(Level.L3L4, n_folded=2)], [], **LIMITS), "REGISTRATION_POOR", "folds at 2"),
        (lambda: judge(mask(), ALL, [row(NO_DECAY=30)], **LIMITS), "REVIEW_REQUIRED", "30 NO_DECAY"),
        (lambda: judge(mask(), ALL, [row(n=0, mean_ms=float("nan"))], **LIMITS), "REVIEW_REQUIRED", "no voxel"),
    ],
)
def test_a_doubt_asks_for_review(made, code, said):
    verdict, reasons = made()
    assert verdict is Verdict.NEEDS_REVIEW
    assert {reason.code for reason in reasons} == {code}
    assert said in reasons[0].detail


def test_voxels_that_were_not_imaged_are_no_doubt():
    assert judge(mask(), ALL, [row(OUTSIDE_IMAGE=80, NO_DECAY=10)], **LIMITS)[0] is Verdict.OK


def test_doubts_of_earlier_steps_are_kept_in_order_and_once():
    levels = Reason(ReasonCode.LEVELS_AMBIGUOUS, "six lumbar vertebrae?")
    echo = Reason(ReasonCode.DECAY_IMPLAUSIBLE, "T2: clipped")
    failed = Reason(ReasonCode.REGISTRATION_POOR, "registration failed: L5S1")
    verdict, reasons = judge(replace(mask(), reasons=(levels,)), ALL[1:], [], doubts=(echo, failed, echo), **LIMITS)
    assert verdict is Verdict.NEEDS_REVIEW
    assert reasons == (levels, echo, failed)


def test_swapped_roles_ask_for_review():
    whole = [
        replace(row(quantity=Quantity.T1RHO, mean_ms=50.0), region=Region.WHOLE_DISC),
        replace(row(quantity=Quantity.T2, mean_ms=90.0), region=Region.WHOLE_DISC),
    ]
    verdict, (reason,) = judge(mask(), ALL, whole, **LIMITS)
    assert verdict is Verdict.NEEDS_REVIEW
    assert reason.code == ReasonCode.DECAY_IMPLAUSIBLE
