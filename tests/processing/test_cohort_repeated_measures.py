"""The repeated-measures model against closed forms and against R."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from processing.cohort.design import DesignError
from processing.cohort.repeated_measures import fit_repeated_measures


def trial(rng, n=24, missing=0.0):
    """Long data of two groups at three visits; the saturated design of group by visit."""
    group = np.arange(n) % 2
    covariance = np.array([[4.0, 2.4, 1.0], [2.4, 5.0, 2.0], [1.0, 2.0, 3.0]])
    wide = rng.multivariate_normal([60, 62, 65], covariance, n) + np.outer(group, [0.0, 1.0, 2.0])
    wide[rng.random(wide.shape) < missing] = np.nan
    rows = [(s, v) for s in range(n) for v in range(3)]
    design = np.zeros((len(rows), 6))
    for index, (s, v) in enumerate(rows):
        design[index, v] = 1
        design[index, 3 + v] = group[s]
    return wide, group, [f"S{s}" for s, _ in rows], [f"M{v}" for _, v in rows], design


@pytest.mark.parametrize("adjustment", ["satterthwaite", "kenward-roger"])
def test_without_missing_visits_it_is_the_t_test_at_each_visit(adjustment):
    wide, group, subjects, visits, design = trial(np.random.default_rng(1))
    fitted = fit_repeated_measures(wide.ravel(), design, subjects, visits)
    for visit in range(3):
        found = fitted.contrast(np.eye(6)[3 + visit].tolist(), adjustment=adjustment)
        wanted = stats.ttest_ind(wide[group == 1, visit], wide[group == 0, visit])
        assert found.t == pytest.approx(wanted.statistic, rel=1e-6)
        assert found.df == pytest.approx(22, rel=1e-4)
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-4)


def test_the_change_between_two_visits_is_the_paired_t_test():
    rng = np.random.default_rng(2)
    wide = rng.multivariate_normal([60, 63], [[9, 6], [6, 8]], 15)
    design = np.tile([[1.0, 0.0], [1.0, 1.0]], (15, 1))
    subjects, visits = np.repeat([f"S{i}" for i in range(15)], 2), ["BL", "M12"] * 15
    fitted = fit_repeated_measures(wide.ravel(), design, subjects, visits)
    found, wanted = fitted.contrast([0, 1]), stats.ttest_rel(wide[:, 1], wide[:, 0])
    assert found.t == pytest.approx(wanted.statistic, rel=1e-6)
    assert found.df == pytest.approx(14, rel=1e-4)
    assert fitted.covariance == pytest.approx(np.cov(wide.T), rel=1e-4)


R = json.loads((Path(__file__).parents[1] / "data" / "repeated_measures_by_r.json").read_text())


@pytest.mark.parametrize("name", sorted(R["models"]))
def test_estimates_are_those_of_r(name):
    model = R["models"][name]
    fitted = fit_repeated_measures(
        [np.nan if value is None else value for value in model["values"]],
        np.array(model["design"]),
        model["subjects"],
        model["visits"],
        names=model["names"],
    )
    assert fitted.minus_two_reml == pytest.approx(model["minus_two_reml"], abs=1e-4)
    assert fitted.beta == pytest.approx(model["estimates"], abs=1e-4)
    assert np.sqrt(np.diag(fitted.beta_covariance)) == pytest.approx(model["standard_errors"], abs=1e-3)
    assert fitted.covariance == pytest.approx(np.array(model["covariance"]), rel=2e-3)
    for which in ("satterthwaite", "kenward-roger"):
        for coefficient, df, error in zip(
            model["names"], model[which]["df"], model[which]["standard_errors"], strict=True
        ):
            found = fitted.coefficient(coefficient, adjustment=which)
            assert found.df == pytest.approx(df, rel=0.01)
            assert found.standard_error == pytest.approx(error, abs=1e-3)


def test_the_interval_covers_the_true_difference_with_few_subjects_and_missing_visits():
    rng, hits, n_fitted, n_trials = np.random.default_rng(3), 0, 0, 80
    for _ in range(n_trials):
        wide, _, subjects, visits, design = trial(rng, n=16, missing=0.15)
        try:
            found = fit_repeated_measures(wide.ravel(), design, subjects, visits).contrast([0, 0, 0, 0, 0, 1])
        except DesignError:  # so few subjects need not determine six covariances
            continue
        n_fitted += 1
        hits += found.low <= 2.0 <= found.high
    assert n_fitted >= 0.95 * n_trials
    assert abs(hits / n_fitted - 0.95) < 0.06


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y, x, s, v: (y, np.column_stack([x, x[:, 0]]), s, v), "rank 6 for 7"),
        (lambda y, x, s, v: (y, x, ["S0"] * len(s), v), "S0: two observations"),
        (lambda y, x, s, v: (np.where(np.array(v) == "M2", np.nan, y), x, s, v), "rank"),
        (lambda y, x, s, v: (y[:9], x[:9, :3], s[:9], v[:9]), "3 subjects are too few"),
        (lambda y, x, s, v: (y * np.nan, x, s, v), "no observation"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, said):
    wide, _, subjects, visits, design = trial(np.random.default_rng(4))
    with pytest.raises(DesignError, match=said):
        fit_repeated_measures(*change(wide.ravel(), design, subjects, visits))
