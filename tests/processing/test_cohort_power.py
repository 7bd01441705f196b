"""Power by simulation against the closed form of the t-test, and the model of many trials against that of one."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from processing.cohort.design import DesignError
from processing.cohort.many_trials import fit_many
from processing.cohort.power import TrialAssumptions, make_assumptions, simulate_power, smallest_n
from processing.cohort.repeated_measures import fit_repeated_measures


@pytest.mark.parametrize(("n", "visits", "terms"), [(30, 3, 2), (30, 3, 3), (26, 4, 3), (20, 1, 2)])
def test_many_trials_are_fitted_as_one_is(n, visits, terms):
    rng = np.random.default_rng(1)
    values = rng.multivariate_normal(np.zeros(visits), 30 * (1 + np.eye(visits)), (3, n))
    for visit in range(1, visits):
        values[:, :, visit:][rng.random((3, n)) < 0.08] = np.nan
    x = np.ones((3, n, terms))
    x[:, :, 1] = np.arange(n) % 2
    x[:, :, 2:] = rng.standard_normal((3, n, terms - 2))
    found = fit_many(values, x)
    for trial in range(3):
        design = np.zeros((n, visits, visits * terms))
        for visit in range(visits):
            design[:, visit, visit * terms : (visit + 1) * terms] = x[trial]
        subjects = np.repeat([f"S{index}" for index in range(n)], visits).tolist()
        one = fit_repeated_measures(
            values[trial].ravel().tolist(),
            design.reshape(n * visits, -1),
            subjects,
            [f"M{index}" for index in range(visits)] * n,
        )
        weights = np.zeros(visits * terms)
        weights[(visits - 1) * terms + 1] = 1
        wanted = one.contrast(weights.tolist())
        assert found.estimate[trial] == pytest.approx(wanted.estimate, abs=1e-6)
        assert found.standard_error[trial] == pytest.approx(wanted.standard_error, rel=1e-6)
        assert found.df[trial] == pytest.approx(wanted.df, rel=1e-6)


def test_a_trial_of_too_few_that_stay_is_not_fitted():
    values = np.random.default_rng(2).standard_normal((2, 12, 2))
    values[1, :11, 1] = np.nan
    x = np.ones((2, 12, 2))
    x[:, :, 1] = np.arange(12) % 2
    assert np.isfinite(fit_many(values, x).df).tolist() == [True, False]


@pytest.mark.parametrize(("n", "sds"), [(16, [8.0]), (41, [8.0, 10, 8])])
def test_without_missing_visits_it_is_the_power_of_the_t_test(n, sds):
    assumed = make_assumptions(sds, 0.6, 5.0)
    found = simulate_power(assumed, n, simulations=4000, seed=1)
    wanted = TTestIndPower().power(5 / 8, n, 0.05)
    assert stats.binomtest(round(found.power * 4000), 4000, wanted).pvalue > 0.001
    assert found.n_unfitted == 0


def test_the_smallest_n_is_that_of_the_t_test():
    for power in (0.8, 0.9):
        *_, found = smallest_n(make_assumptions([8.0], 0, 5.0), power, simulations=4000, seed=2)
        wanted = np.ceil(TTestIndPower().solve_power(5 / 8, alpha=0.05, power=power))
        assert abs(found.n_per_group - wanted) <= 2


def test_baseline_that_tells_of_the_change_saves_subjects():
    """The variance falls by 1 - r squared."""
    plain, adjusted = (make_assumptions([8.0, 8], 0.7, 5.0, baseline_correlation=r) for r in (0.0, 0.6))
    wanted = TTestIndPower().power(5 / 8 / 0.8, 30, 0.05)
    assert abs(simulate_power(adjusted, 30, simulations=4000, seed=1).power - wanted) < 0.02
    assert simulate_power(plain, 30, simulations=4000, seed=1).power < wanted - 0.1


def test_subjects_that_leave_cost_power_but_less_where_their_visits_tell_of_the_last():
    powers = [
        simulate_power(make_assumptions([8.0, 8], r, 5.0, dropout=[0.0, 0.3]), 45, simulations=4000, seed=1).power
        for r in (0.0, 0.95)
    ]
    complete, reduced = (TTestIndPower().power(5 / 8, n, 0.05) for n in (45, 45 * 0.7))
    assert reduced - 0.02 < powers[0] < reduced + 0.02
    assert reduced + 0.05 < powers[1] < complete


def test_without_an_effect_the_rate_is_alpha():
    small = TrialAssumptions(np.array([[60.0, 40], [40, 80]]), 1e-9, (0.05, 0.25), n_covariates=1)
    found = simulate_power(small, 14, simulations=8000, seed=3)
    assert stats.binom.cdf(found.power * 8000, 8000, 0.05) < 0.9995
    assert found.power > 0.035


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: make_assumptions([8.0, 8], 1.2, 5), "not positive definite"),
        (lambda: make_assumptions([8.0, 0], 0.5, 5), "above zero"),
        (lambda: make_assumptions([8.0, 8], 0.5, 5, dropout=[0.3, 0.1]), "do not fall"),
        (lambda: make_assumptions([8.0, 8], 0.5, 0), "by chance only"),
        (lambda: simulate_power(make_assumptions([8.0], 0.5, 5), 2, simulations=10, seed=1), "at least 3"),
    ],
)
def test_assumptions_that_cannot_be_are_refused(make, said):
    with pytest.raises(DesignError, match=said):
        make()


def test_the_same_seed_gives_the_same_numbers():
    assumed = make_assumptions([8.0, 9], 0.5, 5.0, dropout=[0.1])
    assert simulate_power(assumed, 20, simulations=500, seed=4) == simulate_power(assumed, 20, simulations=500, seed=4)
