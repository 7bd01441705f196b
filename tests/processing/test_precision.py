"""Repeatability against published examples and closed forms."""

import math

import numpy as np
import pytest

from processing.precision import (
    bland_altman,
    error_scale,
    icc_agreement,
    repeatability,
    rms_cv,
    within_sd_interval,
    within_subject_sd,
)
from processing.results import Quantity, Region

# Bland and Altman, Lancet 1986;1:307: peak expiratory flow of 17 subjects, l/min, twice by each of two meters
WRIGHT = np.array(
    [
        (494, 490), (395, 397), (516, 512), (434, 401), (476, 470), (557, 611), (413, 415), (442, 431), (650, 638),
        (433, 429), (417, 420), (656, 633), (267, 275), (478, 492), (178, 165), (423, 372), (427, 421),
    ],
    float,
)  # fmt: skip
MINI = np.array(
    [
        (512, 525), (430, 415), (520, 508), (428, 444), (500, 500), (600, 625), (364, 460), (380, 390), (658, 642),
        (445, 432), (432, 420), (626, 605), (260, 227), (477, 467), (259, 268), (350, 370), (451, 443),
    ],
    float,
)  # fmt: skip

# Shrout and Fleiss, Psychol Bull 1979;86:420, Table 2: six targets by four judges
SHROUT_FLEISS = np.array([(9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7)], float)


def test_agreement_of_two_flow_meters_as_published():
    found = bland_altman(MINI[:, 0], WRIGHT[:, 0])
    assert found.n == 17
    assert found.bias_ms.value == pytest.approx(-2.1, abs=0.05)
    # published with 2 SD for 1.96: -79.7 and 75.5; the intervals' half-width with an approximate variance: 34.5
    assert found.lower_limit_ms.value == pytest.approx(-2.1 - 1.96 * 38.8, abs=0.1)
    assert found.upper_limit_ms.value == pytest.approx(-2.1 + 1.96 * 38.8, abs=0.1)
    assert found.upper_limit_ms.high - found.upper_limit_ms.value == pytest.approx(34.5, abs=0.6)
    assert found.bias_ms.high - found.bias_ms.value == pytest.approx(19.9, abs=0.1)  # -22.0 to 17.8
    assert found.p_slope > 0.05


def test_repeatability_of_two_flow_meters_as_published():
    """Within-subject SDs of 15.3 and 19.9 l/min (Bland and Altman, Stat Methods Med Res 1999;8:135)."""
    assert within_subject_sd(WRIGHT) == pytest.approx(15.3, abs=0.05)
    assert within_subject_sd(MINI) == pytest.approx(19.9, abs=0.05)


def test_icc_as_published():
    assert icc_agreement(SHROUT_FLEISS).value == pytest.approx(0.29, abs=0.005)


def test_interval_of_the_icc_as_psych_and_pingouin_give_it():
    found = icc_agreement(SHROUT_FLEISS)
    assert (found.low, found.high) == pytest.approx((0.02, 0.76), abs=0.005)


def test_icc_covers_its_truth_in_95_percent_of_studies():
    rng = np.random.default_rng(2)
    truth, inside, n = 0.8, 0, 600
    for _ in range(n):
        subjects = rng.normal(0, 1, (30, 1))
        values = 10 + subjects + rng.normal(0, math.sqrt(1 / truth - 1), (30, 2))
        found = icc_agreement(values)
        inside += found.low <= truth <= found.high
    assert inside / n == pytest.approx(0.95, abs=0.03)


def test_two_replicates_have_closed_forms():
    pairs = np.array([(80.0, 84.0), (60.0, 57.0), (100.0, 100.0)])
    difference = pairs[:, 1] - pairs[:, 0]
    assert within_subject_sd(pairs) == pytest.approx(math.sqrt((difference**2).mean() / 2))
    assert rms_cv(pairs) == pytest.approx(math.sqrt(((difference / pairs.mean(axis=1)) ** 2).mean() / 2))


def test_within_sd_and_its_interval_by_chi_square():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1000):
        found = within_sd_interval(80 + rng.normal(0, 4, (12, 2)))
        inside += found.low <= 4 <= found.high
    assert inside / 1000 == pytest.approx(0.95, abs=0.025)


def test_discs_of_one_subject_are_no_independent_subjects():
    values = 80 + np.random.default_rng(4).normal(0, 4, (50, 2))
    pooled = within_sd_interval(values, n_independent=10)
    assert pooled.value == within_sd_interval(values).value
    freedom_10, freedom_50 = pooled.high / pooled.value, within_sd_interval(values).high / pooled.value
    assert (freedom_10, freedom_50) == pytest.approx((1.755, 1.243), abs=0.001)  # sqrt(n / chi2(0.025, n))


def test_everything_of_a_cell():
    rng = np.random.default_rng(8)
    truth = rng.uniform(50, 130, (200, 1))
    values = truth * np.exp(rng.normal(0, 0.04, (200, 2)))
    found = repeatability(Quantity.T2, Region.NUCLEUS, None, values, [str(k // 5) for k in range(200)])
    assert (found.n_subjects, found.n_discs, found.n_scans) == (40, 200, 2)
    assert found.within_cv.value == pytest.approx(0.04, abs=0.004)
    assert found.rms_cv == pytest.approx(found.within_cv.value, rel=0.02)
    assert found.rcv_percent == pytest.approx((-10.5, 11.7), abs=1.2)
    assert found.icc.value > 0.95
    assert found.sdc_ms == pytest.approx(2.77 * found.within_sd_ms.value, rel=0.001)
    assert found.error_scale.scale == "percent"
    assert found.error_scale.p_ms < 0.05


def test_an_error_of_the_same_size_everywhere_is_told_in_ms():
    rng = np.random.default_rng(9)
    truth = rng.uniform(30, 200, (300, 1))
    found = error_scale(truth + rng.normal(0, 4, (300, 2)))
    assert found.scale == "ms"
    assert found.p_percent < 0.05


def test_few_subjects_do_not_tell_the_scale():
    found = error_scale(np.array([(80.0, 82.0), (60.0, 59.0)]))
    assert found.scale == "percent"
    assert math.isnan(found.p_ms)


@pytest.mark.parametrize(
    "values", [np.array([(80.0, math.nan), (70.0, 71.0)]), np.array([(80.0, 0.0), (70.0, 71.0)]), np.ones((1, 2))]
)
def test_what_cannot_be_judged_is_an_error(values):
    with pytest.raises(ValueError, match="T2 nucleus"):
        repeatability(Quantity.T2, Region.NUCLEUS, None, values, ["a"] * len(values))


def test_scans_without_any_difference_have_no_spread_and_break_nothing():
    found = repeatability(Quantity.T2, Region.NUCLEUS, None, np.repeat([[80.0], [60.0]], 2, axis=1), ["a", "b"])
    assert (found.within_sd_ms.value, found.rms_cv) == (0.0, 0.0)
    assert found.icc.value == pytest.approx(1.0)
