"""Slopes of subjects: straight courses are found exactly, whatever is missing; subjects stay the units."""

import numpy as np
import pytest
from scipy import stats

from processing.cohort.analysis import mean_change
from processing.cohort.design import DesignError
from processing.cohort.inference import Control, InferenceRules
from processing.cohort.level_maps import LevelMaps
from processing.cohort.slopes import subject_slopes
from processing.results import Level

REGIONS = np.ones((1, 8, 12), np.uint8)
RULES = InferenceRules(n_permutations=200, seed=1)


def maps_of(values: np.ndarray) -> LevelMaps:
    units = tuple(f"scan {index}" for index in range(len(values)))
    return LevelMaps(Level.L4L5, "T1rho", REGIONS, (4.0, 0.8, 0.8), values, units)


def test_the_slope_of_a_straight_course_is_exact_with_scans_missing():
    rng = np.random.default_rng(1)
    months, subjects, rows, truth = [], [], [], rng.normal(0, 2, (5, 96))
    for subject in range(5):
        for month in rng.permutation([0.0, 3.0, 6.0, 12.0])[: 2 + subject % 3]:
            months.append(month)
            subjects.append(f"S{subject}")
            rows.append(80 + subject + truth[subject] * month)
    values = np.array(rows)
    values[subjects.index("S1"), 7] = np.nan  # S1 has three scans: two are left at voxel 7
    values[subjects.index("S0"), 9] = np.nan  # S0 has two: no slope
    slopes = subject_slopes(maps_of(values), subjects, months, "months")
    assert slopes.units == ("S0", "S1", "S2", "S3", "S4")
    assert slopes.quantity == "T1rho slope per months"
    assert np.isnan(slopes.values[0, 9])
    expected = truth.copy()
    expected[0, 9] = np.nan
    np.testing.assert_allclose(slopes.values, expected, atol=1e-9)


def test_slopes_agree_with_least_squares_on_noise():
    rng = np.random.default_rng(2)
    times = [0.0, 2.0, 5.0, 11.0]
    values = rng.normal(80, 5, (4, 96))
    slopes = subject_slopes(maps_of(values), ["S0"] * 4, times, "months")
    np.testing.assert_allclose(slopes.values[0], np.polyfit(times, values, 1)[0], rtol=1e-9)


def test_a_subject_seen_once_is_refused():
    with pytest.raises(DesignError, match="S1: has no two scans at different times"):
        subject_slopes(maps_of(np.full((3, 96), 80.0)), ["S0", "S0", "S1"], [0, 3, 0], "months")


def test_many_scans_of_few_subjects_do_not_make_many_subjects():
    """Eight scans of each of four subjects: the test has three degrees of freedom, not thirty-one."""
    rng = np.random.default_rng(3)
    subjects = [f"S{index // 8}" for index in range(32)]
    slopes = subject_slopes(maps_of(rng.normal(80, 5, (32, 96))), subjects, list(range(8)) * 4, "months")
    found = mean_change(slopes, RULES)
    assert (found.n == 4).all()
    t = slopes.values.mean(axis=0) / (slopes.values.std(axis=0, ddof=1) / 2)
    np.testing.assert_allclose(found.inference.p[Control.UNCORRECTED], 2 * stats.t.sf(np.abs(t), 3), rtol=1e-9)
