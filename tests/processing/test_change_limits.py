"""Limits of change against published values and closed forms; their coverage by simulation."""

import math

import numpy as np
import pytest

from processing.change_limits import (
    change_limits,
    critical_value,
    cv_of_log_sd,
    log_sd_of_cv,
    reference_change_values,
    smallest_detectable_change,
    upper_bound_factor,
    verdict_of,
)
from processing.results import Quantity, Region
from processing.visits import ChangeVerdict, Precision


def precision(cv=0.05, *, sd_ms=None, between=0.1006, n_pairs=None, borrowed=False):
    return Precision(
        Quantity.T2,
        Region.NUCLEUS,
        log_sd_of_cv(cv),
        sd_ms,
        None if between is None else log_sd_of_cv(between),
        n_pairs,
        "a test",
        borrowed,
    )


@pytest.mark.parametrize(
    ("cv", "up", "down"),
    [(0.031, 9.0, 8.2), (0.04, 11.7, 10.5), (0.05, 14.9, 12.9), (0.0814, 25.3, 20.2), (0.1006, 32.1, 24.3)],
)
def test_reference_change_values_of_published_precisions(cv, up, down):
    low, high = reference_change_values(log_sd_of_cv(cv))
    # to the one decimal that is published: the distance is at most half of the last digit and its rounding
    assert (100 * high, -100 * low) == pytest.approx((up, down), abs=0.06)


def test_smallest_detectable_change_is_2_77_within_sd_and_qiba_s_14_percent_for_a_cv_of_5():
    assert smallest_detectable_change(1.0) == pytest.approx(1.96 * math.sqrt(2), rel=1e-4)
    assert smallest_detectable_change(5.0) == pytest.approx(13.9, abs=0.05)


def test_two_baseline_scans_cut_the_smallest_detectable_change_by_13_percent():
    assert smallest_detectable_change(1.0, n_baseline=2) / smallest_detectable_change(1.0) == pytest.approx(
        math.sqrt(3) / 2
    )


@pytest.mark.parametrize(("n_pairs", "factor"), [(5, 2.09), (10, 1.59), (20, 1.36), (35, 1.25), (50, 1.20)])
def test_factors_of_the_upper_bound(n_pairs, factor):
    assert upper_bound_factor(n_pairs) == pytest.approx(factor, abs=0.005)


def test_the_upper_bound_is_exceeded_by_the_true_sd_in_5_percent_of_studies():
    rng = np.random.default_rng(1)
    n, studies = 8, 40_000
    estimated = np.sqrt((rng.normal(0, math.sqrt(2), (studies, n)) ** 2).mean(axis=1) / 2)
    share = (estimated * upper_bound_factor(n) < 1).mean()
    assert share == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / studies))


def test_without_a_pair_there_is_no_bound():
    with pytest.raises(ValueError, match="without a pair"):
        upper_bound_factor(0)


def test_one_sided_limits_are_narrower():
    assert critical_value(0.95, two_sided=False) == pytest.approx(1.6449, abs=1e-4)
    assert critical_value(0.95) == pytest.approx(1.9600, abs=1e-4)
    low, high = reference_change_values(log_sd_of_cv(0.05), two_sided=False)
    assert 100 * high == pytest.approx(100 * math.expm1(1.6449 * math.sqrt(2) * log_sd_of_cv(0.05)), abs=1e-3)
    assert low > reference_change_values(log_sd_of_cv(0.05))[0]


def test_cv_and_log_sd_are_inverse():
    for cv in (0.001, 0.05, 0.3, 1.0):
        assert cv_of_log_sd(log_sd_of_cv(cv)) == pytest.approx(cv, rel=1e-9)


def limits(one, **change):
    given = {"limit": "rcv", "confidence": 0.95, "upper_bound": False} | change
    return change_limits(80.0, one, **given)


def test_limits_in_ms_of_a_baseline_say_how_they_came_about():
    found = limits(precision(borrowed=True))
    assert (found.lower_ms, found.upper_ms) == pytest.approx((-80 * 0.1294, 80 * 0.1486), abs=0.05)
    assert found.basis == (
        "95% reference change value; within-subject CV 5.0 % (n not known, so without upper bound, borrowed)"
    )
    symmetric = limits(precision(sd_ms=3.0, n_pairs=10), limit="sdc", upper_bound=True, n_baseline=2)
    assert symmetric.upper_ms == -symmetric.lower_ms == pytest.approx(1.96 * 3.0 * 1.593 * math.sqrt(1.5), rel=1e-3)
    assert "within-subject SD 3.0 ms (n = 10)" in symmetric.basis
    assert "upper 95% bound used (x 1.59)" in symmetric.basis
    assert "mean of 2 baseline scans" in symmetric.basis


def test_another_scanner_widens_the_limits_by_its_variance():
    found = limits(precision(), widened=True)
    sd = math.sqrt(2 * (log_sd_of_cv(0.05) ** 2 + log_sd_of_cv(0.1006) ** 2))
    assert found.upper_ms == pytest.approx(80 * math.expm1(1.96 * sd), rel=1e-4)
    assert "widened for another scanner, software or coil (between-scanner CV 10.1 %)" in found.basis
    with pytest.raises(ValueError, match="not known"):
        limits(precision(between=None), widened=True)


@pytest.mark.parametrize("baseline_ms", [0.0, -3.0, math.nan])
def test_a_baseline_that_is_no_time_has_no_limits(baseline_ms):
    with pytest.raises(ValueError, match="has no limits"):
        change_limits(baseline_ms, precision(), limit="rcv", confidence=0.95, upper_bound=False)


def test_a_change_on_its_limit_is_within():
    assert verdict_of(-5.0, -5.0, 7.0) is ChangeVerdict.WITHIN
    assert verdict_of(7.0, -5.0, 7.0) is ChangeVerdict.WITHIN
    assert verdict_of(-5.01, -5.0, 7.0) is ChangeVerdict.DECREASE
    assert verdict_of(7.01, -5.0, 7.0) is ChangeVerdict.INCREASE


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("n_baseline", [1, 2])
@pytest.mark.parametrize("limit", ["rcv", "sdc"])
def test_95_percent_of_unchanged_subjects_lie_within_the_limits(limit, n_baseline, widened):
    """Each simulated subject has limits of its own, from its own measured baseline."""
    rng = np.random.default_rng(7)
    n = 4000
    known = precision(0.05, sd_ms=4.0 if limit == "sdc" else None)
    between = math.sqrt(2) * log_sd_of_cv(0.1006) * widened

    def measured(shape):
        if limit == "rcv":
            return 80 * np.exp(rng.normal(0, known.within_sd_log, shape))
        return 80 + rng.normal(0, 4.0, shape)

    scans = measured((n, n_baseline))
    baseline = np.exp(np.log(scans).mean(axis=1)) if limit == "rcv" else scans.mean(axis=1)
    offset = rng.normal(0, between, n)
    followup = measured(n) * np.exp(offset) if limit == "rcv" else measured(n) + 80 * offset
    within = 0
    for before, after in zip(baseline, followup, strict=True):
        found = change_limits(
            before, known, limit=limit, confidence=0.95, upper_bound=False, n_baseline=n_baseline, widened=widened
        )
        within += verdict_of(after - before, found.lower_ms, found.upper_ms) is ChangeVerdict.WITHIN
    assert within / n == pytest.approx(0.95, abs=3.5 * math.sqrt(0.95 * 0.05 / n))
