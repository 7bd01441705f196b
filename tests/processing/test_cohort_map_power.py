"""Power of maps against the closed form of one voxel, and what a local effect does to a region's mean."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from processing.cohort.design import DesignError
from processing.cohort.map_power import MapAssumptions, ball_in, simulate_map_power

MASK = np.ones((4, 14, 24), bool)
SPACING = (4.0, 1.0, 1.0)
BALL = ball_in(MASK, SPACING, np.array([1.5, 6.5, 11.5]), 5.0)


def test_one_voxel_is_the_t_test():
    one = np.ones((1, 1, 1), bool)
    found = simulate_map_power(MapAssumptions(one, one, SPACING, 8.0, 5.0, 3.0), 30, simulations=3000, seed=1)
    assert found.power == pytest.approx(TTestIndPower().power(5 / 8, 30, 0.05), abs=0.035)
    assert found.threshold_t == pytest.approx(stats.t.isf(0.025, 58), abs=0.12)
    assert found.region_power == pytest.approx(TTestIndPower().power(5 / 8, 30, 0.05), abs=0.03)


def test_a_local_effect_is_found_in_the_map_and_washed_out_in_the_mean():
    """The paper's claim: the disc's mean, which subjects differ in anyway, does not show what a few voxels do."""
    assumed = MapAssumptions(MASK, BALL, SPACING, 10.0, 12.0, 4.0, shared=0.4)
    found = simulate_map_power(assumed, 25, simulations=300, seed=2)
    assert found.power > 0.9
    assert found.found > 0.3
    assert found.false < 0.09
    share = BALL.mean()
    sd = np.sqrt(0.4)  # about what is left of the voxels' SD in the mean of the region
    assert found.region_power < TTestIndPower().power(1.2 * share / sd, 25, 0.05) + 0.1 < found.power


def test_more_subjects_and_smoother_fields_find_more():
    few, many = (
        simulate_map_power(MapAssumptions(MASK, BALL, SPACING, 10, 9, 4), n, simulations=200, seed=3) for n in (10, 25)
    )
    assert many.power > few.power
    rough, smooth = (
        simulate_map_power(MapAssumptions(MASK, BALL, SPACING, 10, 9, fwhm), 15, simulations=200, seed=3).threshold_t
        for fwhm in (1.5, 8.0)
    )
    assert rough > smooth


def test_a_ball_outside_and_numbers_that_cannot_be_are_refused():
    with pytest.raises(DesignError, match="holds no voxel"):
        ball_in(MASK, SPACING, np.array([40.0, 0, 0]), 5.0)
    with pytest.raises(DesignError, match="above zero"):
        simulate_map_power(MapAssumptions(MASK, BALL, SPACING, 0, 9, 4), 10, simulations=50, seed=1)
