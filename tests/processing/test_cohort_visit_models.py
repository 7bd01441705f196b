"""A trial's visits against the t-test, regression and R; responders and missing visits against closed forms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from processing.cohort.design import DesignError
from processing.cohort.missing_data import missing_data_sensitivity, pool
from processing.cohort.responders import count_responders, is_responder
from processing.cohort.visit_models import Occasion, VisitData, fit_visits, target_contrasts, with_holm

COVARIANCE = np.array([[60.0, 30, 20], [30, 80, 40], [20, 40, 100]])


def trial(seed=1, n=40, effect=(2.0, 5.0, 8.0), missing=0.0, levels=("L4L5",), dropout=False):
    """Changes of two groups at three visits and ``levels``, by a baseline."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 2
    occasions = tuple(Occasion(level, visit) for level in levels for visit in ("M3", "M6", "M12"))
    subject = rng.standard_normal((n, 1)) * 3
    columns, baselines = [], []
    for _ in levels:
        baseline = rng.normal(90, 15, n)
        noise = rng.multivariate_normal(np.zeros(3), COVARIANCE, n)
        columns.append(noise + subject + np.outer(group, effect) - 0.2 * (baseline - 90)[:, None])
        baselines.append(np.repeat(baseline[:, None], 3, axis=1))
    values = np.hstack(columns)
    gone = rng.random(values.shape) < missing
    values[np.maximum.accumulate(gone, axis=1) if dropout else gone] = np.nan
    subjects = tuple(f"S{index}" for index in range(n))
    age = rng.normal(45, 9, (n, 1))
    return VisitData(subjects, occasions, values, group, ("a", "b"), np.hstack(baselines), age, ("age",))


def test_without_missing_visits_a_visit_is_its_analysis_of_covariance():
    data = trial()
    bare = VisitData(data.subjects, data.occasions, data.values, data.group, data.groups, data.baseline)
    fit = fit_visits(bare)
    for place, visit in enumerate(("M3", "M6", "M12")):
        design = np.column_stack([np.ones(40), data.group, data.baseline[:, place] - data.baseline[:, place].mean()])
        wanted = sm.OLS(data.values[:, place], design).fit()
        found = next(one for one in fit.contrasts if one.visit == visit).estimate
        assert found.estimate == pytest.approx(wanted.params[1], rel=1e-6)
        assert found.standard_error == pytest.approx(wanted.bse[1], rel=1e-5)
        assert found.df == pytest.approx(37, rel=1e-3)
        means = {one.group: one for one in fit.means if one.visit == visit}
        assert means["a"].estimate.estimate == pytest.approx(wanted.params[0], rel=1e-6)
        assert means["b"].n == 20
    assert target_contrasts(fit.contrasts)[-1].visit == "M12"


R = json.loads((Path(__file__).parents[1] / "data" / "repeated_measures_by_r.json").read_text())["models"]


def data_of_r(name, occasions, n_covariates):
    """One row a subject of R's long data; its design is arm and baseline at each occasion, then covariates."""
    model, m = R[name], len(occasions)
    values = np.array([np.nan if one is None else one for one in model["values"]]).reshape(-1, m)
    design = np.array(model["design"]).reshape(len(values), m, -1)
    baseline = np.einsum("sop,op->so", design[:, :, 2 * m : 3 * m], np.eye(m))
    covariates = design[:, 0, 3 * m :]
    assert covariates.shape[1] == n_covariates
    return VisitData(
        tuple(model["subjects"][::m]),
        occasions,
        values,
        design[:, 0, m].astype(int),
        ("placebo", "active"),
        baseline + 90,
        covariates,
        tuple(model["names"][3 * m :]),
    )


@pytest.mark.parametrize("which", ["kenward-roger", "satterthwaite"])
@pytest.mark.parametrize(
    ("name", "occasions", "n_covariates"),
    [
        ("trial", [("L4L5", "M3"), ("L4L5", "M6"), ("L4L5", "M12")], 1),
        ("levels_and_sites", [("L4L5", "M6"), ("L4L5", "M12"), ("L5S1", "M6"), ("L5S1", "M12")], 2),
    ],
)
def test_a_trial_is_that_of_r(name, occasions, n_covariates, which):
    occasions, model = tuple(Occasion(*one) for one in occasions), R[name]
    rows = {
        (row.level, row.visit): row.estimate
        for row in fit_visits(data_of_r(name, occasions, n_covariates), which).contrasts
    }
    for place, occasion in enumerate(occasions, start=len(occasions)):
        found = rows[occasion]
        assert found.estimate == pytest.approx(model["estimates"][place], abs=1e-4)
        assert found.standard_error == pytest.approx(model[which]["standard_errors"][place], abs=1e-3)
        assert found.df == pytest.approx(model[which]["df"][place], rel=0.01)


def test_values_tell_the_change_from_baseline_of_each_group_and_their_difference():
    data = trial(effect=(0, 5, 8))
    bare = VisitData(data.subjects, data.occasions, data.values, data.group, data.groups, baseline_visit="M3")
    rows = {(one.kind, one.group, one.visit): one.estimate for one in fit_visits(bare).contrasts}
    change = data.values[:, 2] - data.values[:, 0]
    first, second = change[data.group == 0], change[data.group == 1]
    wanted = stats.ttest_ind(second, first)
    assert rows["change between", "b", "M12"].t == pytest.approx(wanted.statistic, rel=1e-5)
    assert rows["change between", "b", "M12"].p == pytest.approx(wanted.pvalue, rel=1e-3)
    assert rows["change", "b", "M12"].estimate == pytest.approx(second.mean(), rel=1e-6)
    assert ("change", "b", "M3") not in rows


def test_the_model_of_values_is_that_of_baseline_and_changes_where_subjects_leave_too():
    """What simulated power rests on: one is a combination of the other, both unstructured."""
    data = trial(n=60)
    values = data.values.copy()
    values[:12, 2], values[:6, 1] = np.nan, np.nan
    bare = VisitData(data.subjects, data.occasions, values, data.group, data.groups)
    turned = np.column_stack([values[:, 0], values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]])
    asked = target_contrasts(fit_visits(replace(bare, baseline_visit="M3")).contrasts)[-1]
    found = target_contrasts(fit_visits(replace(bare, values=turned)).contrasts)[-1]
    assert (asked.kind, found.kind) == ("change between", "between")
    assert found.estimate.estimate == pytest.approx(asked.estimate.estimate, rel=1e-5)
    assert found.estimate.standard_error == pytest.approx(asked.estimate.standard_error, rel=1e-4)
    assert found.estimate.df == pytest.approx(asked.estimate.df, rel=1e-3)


def test_levels_of_a_subject_are_occasions_and_their_mean_is_the_model_of_means():
    """Two discs of a subject add little to one: taken as independent they would halve the variance."""
    data = trial(n=60, levels=("L4L5", "L5S1"))
    bare = VisitData(data.subjects, data.occasions, data.values, data.group, data.groups)
    together = fit_visits(bare)
    mean = VisitData(
        data.subjects,
        tuple(Occasion("mean", one) for one in ("M3", "M6", "M12")),
        (data.values[:, :3] + data.values[:, 3:]) / 2,
        data.group,
        data.groups,
    )
    found, wanted = (
        target_contrasts(together.contrasts)[-1].estimate,
        target_contrasts(fit_visits(mean).contrasts)[-1].estimate,
    )
    assert target_contrasts(together.contrasts)[-1].level == ""
    assert found.estimate == pytest.approx(wanted.estimate, rel=1e-6)
    assert found.standard_error == pytest.approx(wanted.standard_error, rel=1e-4)
    assert found.df == pytest.approx(58, rel=1e-3)


def test_p_of_models_for_each_level_are_adjusted_by_holm():
    fits = with_holm(tuple(fit_visits(trial(seed)) for seed in (1, 2, 3)))
    p = sorted(target_contrasts(fit.contrasts)[-1].estimate.p for fit in fits)
    adjusted = sorted(target_contrasts(fit.contrasts)[-1].p_holm for fit in fits)
    assert adjusted[0] == pytest.approx(min(1, 3 * p[0]))
    assert adjusted[-1] >= p[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.of(np.arange(40) < 6), "6 subjects are too few for an unstructured covariance of 3 occasions"),
        (lambda d: d.of((d.group == 0) | (np.arange(40) == 1)), "'b' has 1 subjects"),
        (lambda d: replace(d, covariates=3.0 * d.group[:, None]), "age: is a combination of the groups"),
        (lambda d: replace(d, covariates=0 * d.covariates), "age: the same value"),
        (
            lambda d: replace(d, covariates=np.where(np.arange(40)[:, None] == 4, np.nan, d.covariates)),
            "no value for S4",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(change, said):
    with pytest.raises(DesignError, match=said):
        fit_visits(change(trial()))


def test_the_difference_of_shares_has_newcombes_interval_and_fishers_p():
    """Newcombe 1998, Table II, (a): 56/70 less 48/80, 0.0524 to 0.3339; P as R 4.2.2's fisher.test has it."""
    responds = np.concatenate([np.repeat([1.0, 0.0], [48, 32]), np.repeat([1.0, 0.0], [56, 14])])
    known, _ = count_responders(responds, np.repeat([0, 1], [80, 70]), ("a", "b"))
    (difference,) = known.differences
    assert (difference.difference, difference.low, difference.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert difference.p == pytest.approx(0.01252112975, abs=1e-10)


def test_missing_subjects_are_left_out_or_did_not_respond():
    changes = np.array([12.0, 8, np.nan, 10, -12, np.nan, 12, 12])
    responds = is_responder(changes, np.full(8, -10.0), np.full(8, 10.0), "increase")
    assert responds.tolist()[:2] == [1, 0]
    assert responds[3] == 0  # on the limit is within
    known, worst = count_responders(responds, np.repeat([0, 1], 4), ("a", "b"))
    assert [(one.n_responders, one.n, one.n_missing) for one in known.shares] == [(1, 3, 1), (2, 3, 1)]
    assert [(one.n_responders, one.n, one.n_missing) for one in worst.shares] == [(1, 4, 1), (2, 4, 1)]
    either = is_responder(changes, np.full(8, -10.0), np.full(8, 10.0), "either")
    assert np.nansum(either) == 4


def test_pooling_is_rubins_rule_with_the_degrees_of_freedom_of_barnard_and_rubin():
    """By hand: W 4, B 1, m 5: T 5.2, gamma 0.2308, nu_old 75.11, nu_obs 21.68 of 30."""
    found = pool(np.array([8.0, 9, 10, 11, 12]) * np.sqrt(1 / 2.5) + 2, np.full(5, 4.0), 30)
    share = 1.2 / 5.2
    old, observed = 4 / share**2, 31 / 33 * 30 * (1 - share)
    assert found.standard_error == pytest.approx(np.sqrt(5.2))
    assert found.df == pytest.approx(old * observed / (old + observed))
    assert found.df == pytest.approx(16.823, abs=1e-3)


@pytest.fixture(scope="module")
def holes():
    return trial(seed=4, n=80, missing=0.12, dropout=True)


def test_imputed_at_random_the_difference_is_that_of_the_model(holes):
    fit = fit_visits(holes)
    (found,) = missing_data_sensitivity(fit, holes, "M12", imputations=250, seed=1)
    wanted = target_contrasts(fit.contrasts)[-1].estimate
    assert found.n_imputed == tuple(int(np.isnan(holes.values[holes.group == one, 2]).sum()) for one in (1, 0))
    assert found.at_random.estimate == pytest.approx(wanted.estimate, abs=0.15 * wanted.standard_error)
    assert found.at_random.standard_error == pytest.approx(wanted.standard_error, rel=0.07)
    assert abs(found.jump.estimate) < abs(found.at_random.estimate)  # towards no difference


def test_where_nothing_is_missing_it_is_the_analysis_of_covariance_and_there_is_no_tipping_point():
    data = trial(seed=7)
    fit = fit_visits(data)
    (found,) = missing_data_sensitivity(fit, data, "M12", imputations=20, seed=1)
    design = np.column_stack([np.ones(40), data.group, data.baseline[:, 2], data.covariates])
    wanted = sm.OLS(data.values[:, 2], design).fit()
    assert found.at_random.estimate == pytest.approx(wanted.params[1])
    assert found.at_random.standard_error == pytest.approx(wanted.bse[1])
    assert found.jump == pytest.approx(found.at_random)
    assert found.tipping_ms is None
    assert [row.delta_ms for row in found.deltas] == [0.0]


def test_the_tipping_point_is_where_p_crosses_alpha_and_shifts_by_the_share_that_is_missing(holes):
    fit = fit_visits(holes)
    (found,) = missing_data_sensitivity(fit, holes, "M12", imputations=60, seed=2)
    assert found.at_random.p < 0.05
    assert found.tipping_ms < 0
    (again,) = missing_data_sensitivity(fit, holes, "M12", imputations=60, seed=2, deltas_ms=(0.0, found.tipping_ms))
    assert again.deltas[0].pooled == again.at_random
    assert again.deltas[1].pooled.p == pytest.approx(0.05, abs=1e-6)
    share = found.n_imputed[0] / 40
    shift = again.deltas[1].pooled.estimate - again.at_random.estimate
    assert shift == pytest.approx(share * found.tipping_ms, rel=0.1)


def test_every_group_is_asked_first_against_the_reference_and_adjusted_for():
    data = trial(n=45)
    three = replace(data, group=np.arange(45) % 3, groups=("placebo", "dose", "a zero"))
    (fit,) = with_holm((fit_visits(three),))
    first = target_contrasts(fit.contrasts)
    assert [(row.group, row.reference, row.visit) for row in first] == [
        ("dose", "placebo", "M12"),
        ("a zero", "placebo", "M12"),
    ]
    low, high = sorted((row.estimate.p, row.p_holm) for row in first)
    assert low[1] == pytest.approx(min(1, 2 * low[0]))
    assert high[1] == pytest.approx(max(high[0], low[1]))


def test_without_groups_the_mean_over_levels_is_asked_first():
    data = trial(n=40, levels=("L4L5", "L5S1"))
    bare = VisitData(data.subjects, data.occasions, data.values, np.zeros(40, np.int64), ("",), data.baseline)
    (row,) = target_contrasts(fit_visits(bare).contrasts)
    assert (row.kind, row.words, row.level, row.visit) == ("mean", "mean", "", "M12")
    assert row.estimate.estimate == pytest.approx(data.values[:, [2, 5]].mean(), rel=1e-6)
    assert row.estimate.p < 0.01
    (value,) = target_contrasts(fit_visits(replace(bare, baseline=None)).contrasts)
    assert np.isnan(value.estimate.p)  # that a relaxation time is zero is no question
    (change,) = target_contrasts(fit_visits(replace(bare, baseline=None, baseline_visit="M3")).contrasts)
    assert (change.kind, change.level) == ("change", "")


def test_intervals_of_imputed_differences_are_of_one_less_alpha(holes):
    fit = fit_visits(holes)
    (found,) = missing_data_sensitivity(fit, holes, "M12", imputations=20, seed=2, alpha=0.2)
    assert len(found.deltas) > 1
    for one in (found.at_random, found.jump, *(row.pooled for row in found.deltas)):
        half = stats.t.ppf(0.9, one.df) * one.standard_error
        assert (one.low, one.high) == pytest.approx((one.estimate - half, one.estimate + half))


def test_jump_to_reference_gives_those_that_left_at_once_the_mean_of_the_reference():
    """No visits but the last: the jump takes from the difference the share that is missing."""
    data = trial(seed=6, n=200, effect=(0, 0, 10))
    values = data.values[:, 2:].copy()
    values[(data.group == 1) & (np.arange(200) < 100), 0] = np.nan
    one = VisitData(data.subjects, data.occasions[2:], values, data.group, data.groups)
    fit = fit_visits(one)
    (found,) = missing_data_sensitivity(fit, one, "M12", imputations=250, seed=3)
    assert found.jump.estimate == pytest.approx(0.5 * target_contrasts(fit.contrasts)[-1].estimate.estimate, abs=0.15)
    assert found.at_random.estimate == pytest.approx(target_contrasts(fit.contrasts)[-1].estimate.estimate, abs=0.15)
