"""Voxel by variable, group and voxel against the libraries that do one column at a time."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from processing.cohort.association import (
    adjusted_difference,
    correlation_between_maps,
    group_difference,
    partial_correlation,
)
from processing.cohort.design import DesignError, make_design
from processing.cohort.multiplicity import adjusted, survives


def with_holes(rng, shape, share=0.2):
    maps = rng.standard_normal(shape)
    maps[rng.random(shape) < share] = np.nan
    return maps


def regression_r(values, variable, covariates):
    """r from the t of a regression, by statsmodels."""
    kept = np.isfinite(values)
    exog = sm.add_constant(np.column_stack([covariates[kept], variable[kept]]))
    fit = sm.OLS(values[kept], exog).fit()
    t, df = fit.tvalues[-1], fit.df_resid
    return t / np.sqrt(df + t * t), fit.pvalues[-1], df


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("k", [0, 1, 4])
def test_partial_correlation_is_that_of_the_regression(share, k):
    rng = np.random.default_rng(k + round(100 * share))
    n, voxels = 24, 60
    covariates = rng.standard_normal((n, k)) * 30 + 1000  # far from zero: digits must not be lost
    variable = rng.standard_normal(n) + (covariates.sum(axis=1) / 100 if k else 0)
    maps = with_holes(rng, (n, voxels), share) + variable[:, None] * 0.3
    design = make_design(variable, {f"c{i}": covariates[:, i] for i in range(k)})
    found = partial_correlation(maps, design)
    for voxel in range(voxels):
        r, p, df = regression_r(maps[:, voxel], variable, covariates)
        assert found.r[voxel] == pytest.approx(r, abs=1e-10)
        assert found.p[voxel] == pytest.approx(p, abs=1e-10)
        assert found.df[voxel] == df
        assert found.low[voxel] < found.r[voxel] < found.high[voxel]
    assert (found.n == np.isfinite(maps).sum(axis=0)).all()


PINGOUIN = json.loads((Path(__file__).parents[1] / "data" / "pingouin_partial_correlation.json").read_text())


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_partial_correlation_is_that_of_pingouin(method):
    covariates = np.array(PINGOUIN["c"])
    design = make_design(PINGOUIN["x"], {f"c{i}": covariates[:, i] for i in range(3)})
    found = partial_correlation(np.array(PINGOUIN["maps"]), design, ranks=method == "spearman")
    wanted = np.array(PINGOUIN[method])
    assert found.r == pytest.approx(wanted[:, 0], abs=1e-10)
    assert found.p == pytest.approx(wanted[:, 1], abs=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_spearman_with_covariates_ranks_everything(share):
    rng = np.random.default_rng(11)
    n = 18
    covariate, variable = rng.standard_normal(n), rng.standard_normal(n)
    maps = with_holes(rng, (n, 20), share)
    found = partial_correlation(maps, make_design(variable, {"age": covariate}), ranks=True)
    for voxel in range(20):
        kept = np.isfinite(maps[:, voxel])
        y, x, z = (stats.rankdata(one[kept]) for one in (maps[:, voxel], variable, covariate))
        assert found.r[voxel] == pytest.approx(regression_r(y, x, z[:, None])[0], abs=1e-10)
    alone = partial_correlation(maps, make_design(variable), ranks=True)
    kept = np.isfinite(maps[:, 3])
    assert alone.r[3] == pytest.approx(stats.spearmanr(maps[kept, 3], variable[kept]).statistic, abs=1e-12)


def test_intervals_cover_the_true_correlation():
    rng = np.random.default_rng(12)
    n, fields, rho = 20, 4000, 0.5
    x = rng.standard_normal(n)
    x = (x - x.mean()) / x.std()
    hits = []
    for _ in range(20):  # the interval is for a random variable
        x = rng.standard_normal(n)
        maps = rho * x[:, None] + np.sqrt(1 - rho**2) * rng.standard_normal((n, fields // 20))
        found = partial_correlation(maps, make_design(x))
        hits.append((found.low <= rho) & (rho <= found.high))
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)


def test_intervals_of_ranks_cover_the_true_correlation():
    rng = np.random.default_rng(18)
    n, rho, hits = 30, 0.8, []
    true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's, of a normal pair
    for _ in range(60):
        x = rng.standard_normal(n)
        maps = rho * x[:, None] + np.sqrt(1 - rho**2) * rng.standard_normal((n, 50))
        found = partial_correlation(maps, make_design(x), ranks=True)
        hits.append((found.low <= true) & (true <= found.high))
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_adjusted_groups_are_those_of_the_regression(share):
    rng = np.random.default_rng(19)
    n, age = 26, rng.uniform(20, 70, 26)
    second = (np.arange(n) % 3 == 0).astype(float)
    maps = with_holes(rng, (n, 12), share) * 6 + 80 + 4 * second[:, None] + 0.3 * age[:, None]
    found = adjusted_difference(maps, make_design(second, {"age": age}))
    for voxel in range(12):
        kept = np.isfinite(maps[:, voxel])
        fit = sm.OLS(maps[kept, voxel], sm.add_constant(np.column_stack([age, second])[kept])).fit()
        assert found.difference[voxel] == pytest.approx(fit.params[-1], rel=1e-9)
        assert (found.low[voxel], found.high[voxel]) == pytest.approx(tuple(fit.conf_int()[-1]), rel=1e-8)
        assert found.p[voxel] == pytest.approx(fit.pvalues[-1], rel=1e-8)
        assert found.df[voxel] == fit.df_resid
    alone = adjusted_difference(maps, make_design(second))
    pooled = group_difference(maps, second > 0.5, equal_variances=True)
    for name in ("difference", "low", "high", "effect", "t", "p", "df"):
        assert getattr(alone, name) == pytest.approx(getattr(pooled, name), rel=1e-8), name


@pytest.mark.parametrize("equal", [False, True])
def test_groups_are_compared_as_scipy_does(equal):
    rng = np.random.default_rng(13)
    maps = with_holes(rng, (30, 40)) * 5 + 60
    in_second = np.arange(30) >= 17
    found = group_difference(maps, in_second, equal_variances=equal)
    wanted = stats.ttest_ind(maps[in_second], maps[~in_second], equal_var=equal, nan_policy="omit")
    assert found.t == pytest.approx(wanted.statistic, abs=1e-10)
    assert found.p == pytest.approx(wanted.pvalue, abs=1e-10)
    interval = wanted.confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low, abs=1e-9)
    assert found.high == pytest.approx(interval.high, abs=1e-9)
    assert found.maxima[1] == pytest.approx(np.nanmax(maps[in_second], axis=0))
    assert found.sds[0] == pytest.approx(np.nanstd(maps[~in_second], axis=0, ddof=1))


def test_two_maps_are_correlated_over_subjects():
    rng = np.random.default_rng(14)
    first = with_holes(rng, (16, 30))
    second = 0.7 * np.nan_to_num(first) + with_holes(rng, (16, 30), 0.1)
    found = correlation_between_maps(first, second)
    for voxel in range(30):
        kept = np.isfinite(first[:, voxel]) & np.isfinite(second[:, voxel])
        wanted = stats.pearsonr(first[kept, voxel], second[kept, voxel])
        assert found.r[voxel] == pytest.approx(wanted.statistic, abs=1e-12)
        assert found.p[voxel] == pytest.approx(wanted.pvalue, abs=1e-12)
        assert found.n[voxel] == kept.sum()


def test_sites_are_taken_out_of_two_maps_as_covariates_are():
    rng = np.random.default_rng(27)
    first, second = with_holes(rng, (18, 12)), with_holes(rng, (18, 12), 0.1)
    sites = np.arange(18) % 3
    first[sites == 2, 0] = np.nan  # a site that has no value there costs nothing
    first, second = first + 4.0 * sites[:, None], second + 3.0 * sites[:, None]
    found = correlation_between_maps(first, second, blocks=sites)
    for voxel in range(12):
        kept = np.isfinite(first[:, voxel]) & np.isfinite(second[:, voxel])
        mine = sites[kept]
        dummies = {f"site {one}": (mine == one).astype(float).tolist() for one in np.unique(mine)[1:]}
        design = make_design(first[kept, voxel].tolist(), dummies)
        wanted = partial_correlation(second[kept, voxel][:, None], design)
        for name in ("r", "p", "df", "low", "high", "n"):
            assert getattr(found, name)[voxel] == pytest.approx(getattr(wanted, name)[0], abs=1e-10), name


def test_voxels_with_too_few_subjects_have_no_result():
    rng = np.random.default_rng(15)
    maps = rng.standard_normal((12, 3))
    maps[2:, 0] = np.nan
    maps[9:, 1] = np.nan
    maps[:, 2] = 4.0
    found = partial_correlation(maps, make_design(rng.standard_normal(12)), min_n=10)
    assert np.isnan(found.r).all()
    assert list(found.n) == [2, 9, 12]
    assert np.isnan(found.p).all()


def test_what_does_not_vary_has_no_result_and_never_a_small_p():
    rng = np.random.default_rng(25)
    second = np.arange(10) >= 5
    two_values = np.where(second, 0.3, 0.1)[:, None]
    constant = np.full((10, 1), 0.1)
    for equal in (False, True):
        for maps in (two_values, constant):
            found = group_difference(maps, second, equal_variances=equal)
            assert np.isnan([found.t[0], found.p[0], found.low[0]]).all()
    design = make_design(rng.standard_normal(10), {"age": rng.standard_normal(10)})
    partly = np.where(np.arange(10)[:, None] == 2, np.nan, constant)
    for maps in (constant, partly):
        assert np.isnan(partial_correlation(maps, design).p).all()
        assert np.isnan(partial_correlation(maps, design, ranks=True).p).all()
        assert np.isnan(correlation_between_maps(maps, rng.standard_normal((10, 1))).p).all()


def test_subjects_left_at_a_voxel_may_not_carry_the_design():
    rng = np.random.default_rng(26)
    site = np.repeat([0.0, 1.0], 6)
    design = make_design(rng.standard_normal(12), {"site": site, "age": rng.standard_normal(12)})
    maps = rng.standard_normal((12, 2))
    maps[site == 1, 0] = np.nan  # one site alone
    for ranks in (False, True):
        found = partial_correlation(maps, design, ranks=ranks)
        assert np.isnan(found.r[0])
        assert np.isfinite(found.r[1])


@pytest.mark.parametrize("share", [0.0, 0.15, 0.999])
@pytest.mark.parametrize("method", ["bonferroni", "fdr_bh", "fdr_by"])
def test_many_p_values_are_adjusted_as_statsmodels_does_the_finite_ones(method, share):
    rng = np.random.default_rng(27)
    for _ in range(10):
        p = rng.random((40, 50)) ** rng.integers(1, 6)
        p[rng.random(p.shape) < 0.2] = p[0, 0]  # ties
        p[rng.random(p.shape) < share] = np.nan
        known = np.isfinite(p)
        if not known.any():
            continue
        wanted = multipletests(p[known], alpha=0.05, method=method)
        assert (adjusted(p, method)[known] == wanted[1]).all()
        assert (survives(p, method)[known] == (wanted[1] <= 0.05)).all()
        assert survives(p, method).sum() == wanted[0].sum()
    assert np.isnan(adjusted(np.full(5, np.nan), method)).all()


@pytest.mark.parametrize("method", ["bonferroni", "fdr_bh", "fdr_by"])
def test_voxels_without_a_value_are_no_tests(method):
    p = np.random.default_rng(16).random(200) ** 3
    p[::7] = np.nan
    known = np.isfinite(p)
    assert (adjusted(p, method)[known] == multipletests(p[known], method=method)[1]).all()
    assert np.isnan(adjusted(p, method)[~known]).all()
    assert (survives(p, method)[known] == multipletests(p[known], method=method)[0]).all()
    assert not survives(p, method)[~known].any()


@pytest.mark.parametrize(
    ("variable", "covariates", "units", "said"),
    [
        ([1, 2, np.nan, 4, 5], {}, None, "variable: no value for row 3"),
        ([1, 1, 1, 1, 1], {}, None, "variable: the same value"),
        ([1, 2, 3, 4, 5], {"age": [5, 5, 5, 5, 5]}, None, "age: the same value"),
        ([1, 2, 3, 4, 6], {"age": [2, 4, 6, 8, 12]}, None, "variable: is a combination"),
        ([1, 2, 3, 4, 6, 9], {"a": [1, 0, 2, 5, 3, 3], "b": [3, 1, 5, 11, 7, 7]}, None, "b: is a combination"),
        ([1, 2, 3], {"age": [1, 3, 2]}, None, "3 units are too few"),
        ([1, 2, 3, 4], {}, ["S1", "S2", "S1", "S3"], "S1: more than once"),
        ([1, 2, 3, 4], {"age": [1, 2]}, None, "age: 2 values for 4 units"),
    ],
)
def test_a_design_that_cannot_be_analysed_says_why(variable, covariates, units, said):
    with pytest.raises(DesignError, match=said):
        make_design(variable, covariates, units=units)


def test_half_a_million_voxels_in_a_second_of_one_core():
    rng = np.random.default_rng(17)
    maps = rng.standard_normal((20, 100_000))
    design = make_design(rng.standard_normal(20), {f"c{i}": rng.standard_normal(20) for i in range(4)})
    spent = []
    for _ in range(3):
        start = time.process_time()
        partial_correlation(maps, design)
        spent.append(time.process_time() - start)
    assert 100_000 / min(spent) > 250_000  # 500,000 are asked for; the machine may be busy
