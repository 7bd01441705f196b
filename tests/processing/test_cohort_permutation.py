"""Permutation inference and cluster enhancement against brute force."""

import itertools
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import ndimage, stats

from processing.cohort.association import correlation_between_maps, equivalent_t, partial_correlation
from processing.cohort.design import make_design
from processing.cohort.enhancement import enhance
from processing.cohort.lattice import clusters_above, largest_clusters, structure
from processing.cohort.permutation import (
    Permuting,
    flip_signs,
    height_of,
    permute_association,
    permute_between,
    permute_groups,
    share_at_least,
)


def some_design(rng, n=20, k=2):
    return make_design(rng.standard_normal(n), {f"c{i}": rng.standard_normal(n) for i in range(k)})


def test_the_observed_t_is_that_of_the_regression():
    rng = np.random.default_rng(1)
    design, maps = some_design(rng), rng.standard_normal((20, 7))
    found = permute_association(maps, design, Permuting(5, 1))
    exog = np.column_stack([design.nuisance, design.variable])
    wanted = [sm.OLS(maps[:, v], exog).fit().tvalues[-1] for v in range(7)]
    assert found.t == pytest.approx(wanted, abs=1e-10)
    assert found.t == pytest.approx(partial_correlation(maps, design).t, abs=1e-9)


def test_freedman_lane_is_what_regressing_the_permuted_residuals_gives():
    rng = np.random.default_rng(2)
    design, maps = some_design(rng, n=9), rng.standard_normal((9, 3))
    found = permute_association(maps, design, Permuting(30, 5))
    replay = np.random.default_rng(5)
    orders = np.tile(np.arange(9), (31, 1))
    orders = replay.permuted(orders, axis=1)
    reduced = design.nuisance
    fitted = reduced @ np.linalg.lstsq(reduced, maps, rcond=None)[0]
    residuals, exog = maps - fitted, np.column_stack([reduced, design.variable])
    for index in range(1, 31):
        again = fitted + residuals[orders[index]]
        t = [sm.OLS(again[:, v], exog).fit().tvalues[-1] for v in range(3)]
        assert found.largest[index] == pytest.approx(np.abs(t).max(), rel=1e-5)


def test_a_one_sample_change_flips_whole_subjects():
    rng = np.random.default_rng(3)
    changes = rng.standard_normal((6, 4)) + 0.4
    found = flip_signs(changes, Permuting(4000, 2))
    assert found.t == pytest.approx(stats.ttest_1samp(changes, 0).statistic)
    every = [
        np.abs(stats.ttest_1samp(changes * np.array(signs)[:, None], 0).statistic).max()
        for signs in itertools.product((-1, 1), repeat=6)
    ]
    exact = [(np.array(every) >= abs(t) - 1e-9).mean() for t in found.t]
    assert found.p == pytest.approx(exact, abs=1e-12)
    assert found.is_exact
    assert found.n_permutations == 63
    assert found.smallest_p == 2 / 64


def test_blocks_keep_subjects_at_their_site():
    n = 12
    blocks = np.repeat([0, 1], 6)
    site = np.repeat([0.0, 50.0], 6)
    rng = np.random.default_rng(4)
    design = make_design(site + rng.standard_normal(n))
    maps = (site * 1.0)[:, None] + rng.standard_normal((n, 1)) * 0.5
    across = permute_association(maps, design, Permuting(500, 1))
    within = permute_association(maps, design, Permuting(500, 1), blocks=blocks)
    assert across.p[0] < 0.01  # only because the sites differ
    assert within.p[0] > 0.05


def test_p_is_never_below_one_of_the_permutations():
    rng = np.random.default_rng(5)
    x = rng.standard_normal(15)
    found = permute_association(x[:, None] * 3 + 0.001, make_design(x), Permuting(99, 1))
    assert found.p[0] == found.smallest_p == 0.01


def test_the_same_seed_gives_the_same_numbers_whatever_is_held_at_once(monkeypatch):
    rng = np.random.default_rng(6)
    design, maps = some_design(rng), rng.standard_normal((20, 50))
    whole = permute_association(maps, design, Permuting(200, 9))
    monkeypatch.setattr("processing.cohort.permutation._VOXELS", 7)
    assert (permute_association(maps, design, Permuting(200, 9)).p == whole.p).all()


def enhanced_by_steps(picture, step):
    out = np.zeros(picture.shape)
    for height in np.arange(step / 2, picture.max(), step):
        labels, _ = ndimage.label(picture > height, np.ones((3,) * picture.ndim))
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        out += np.sqrt(sizes[labels]) * height**2 * step
    return out


def enhanced_by_every_height(picture):
    """Components between each two neighbouring values: no step is too long."""
    out = np.zeros(picture.shape)
    heights = np.unique(np.append(picture[picture > 0], 0))
    for low, high in itertools.pairwise(heights):
        labels, _ = ndimage.label(picture > low, structure(picture.ndim))
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        out += np.sqrt(sizes[labels]) * (high**3 - low**3) / 3
    return out


@pytest.mark.parametrize("shape", [(12, 17), (4, 6, 7), (1, 9, 9)])
@pytest.mark.parametrize("digits", [9, 1])
def test_enhancement_is_exact(shape, digits):
    rng = np.random.default_rng(17)
    picture = (ndimage.gaussian_filter(rng.standard_normal(shape), 0.8) * 4).round(digits)  # also with ties
    mask = rng.random(shape) < 0.9
    wanted = enhanced_by_every_height(np.where(mask, picture, -1))[mask]
    assert enhance(picture[mask], mask) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", [(9, 12), (4, 6, 7)])
def test_enhancement_is_the_integral_over_heights(shape):
    rng = np.random.default_rng(7)
    picture = ndimage.gaussian_filter(rng.standard_normal(shape), 1) * 4
    mask = rng.random(shape) < 0.85
    values = picture[mask]
    by_steps = enhanced_by_steps(np.where(mask, picture, -1), 0.001)[mask]
    assert enhance(values, mask) == pytest.approx(by_steps, rel=0.01, abs=0.01)


@pytest.mark.parametrize("shape", [(15, 22), (4, 9, 10), (1, 8, 12)])
@pytest.mark.parametrize("height", [-0.5, 0.5, 1.5, 2.5, 9.0])
def test_the_largest_clusters_of_many_maps_are_those_of_each(shape, height):
    rng = np.random.default_rng(29)
    mask = rng.random(shape) < 0.9
    values = rng.standard_normal((12, int(mask.sum())))
    sizes, masses = largest_clusters(values, mask, height)
    for index, one in enumerate(values):
        found = clusters_above(one, mask, height)
        assert sizes[index] == max((cluster.size for cluster in found), default=0)
        assert masses[index] == pytest.approx(max((cluster.mass for cluster in found), default=0.0))


def test_enhancement_of_nothing_is_nothing():
    mask = np.ones((3, 3), bool)
    assert (enhance(np.full(9, -1.0), mask) == 0).all()
    assert (enhance(np.full(9, np.nan), mask) == 0).all()


def test_clusters_of_both_signs_are_found_and_planted_ones_survive():
    rng = np.random.default_rng(8)
    mask = np.ones((16, 24), bool)
    x = rng.standard_normal(24)
    noise = ndimage.gaussian_filter(rng.standard_normal((24, 16, 24)), [0, 1.5, 1.5])
    noise /= noise.std()
    noise[:, 3:9, 3:9] += 1.5 * x[:, None, None]
    noise[:, 8:13, 15:20] -= 1.5 * x[:, None, None]
    found = permute_association(
        noise[:, mask], make_design(x), Permuting(199, 1, mask=mask, cluster_height=2.5, threshold_free=True)
    )
    for p in (found.size_p, found.mass_p, found.enhanced_p, found.p):
        picture = np.ones(mask.shape)
        picture[mask] = p
        assert picture[6, 6] <= 0.02
        assert picture[10, 17] <= 0.02
    outside = np.ones(mask.shape, bool)
    outside[1:11, 1:11] = outside[6:15, 13:22] = False
    picture = np.ones(mask.shape)
    picture[mask] = found.p
    assert (picture[outside] > 0.05).all()


def test_missing_values_are_refused():
    with pytest.raises(ValueError, match="not all subjects"):
        permute_association(np.full((5, 2), np.nan), make_design(range(5)), Permuting(5, 1))


NILEARN = json.loads((Path(__file__).parents[1] / "data" / "permuted_by_nilearn.json").read_text())


@pytest.mark.parametrize("name", ["alone", "adjusted"])
def test_p_is_that_of_nilearn_within_monte_carlo_error(name):
    covariates = np.array(NILEARN["covariates"]) if name == "adjusted" else np.empty((24, 0))
    columns = {f"c{i}": covariates[:, i] for i in range(covariates.shape[1])}
    design, theirs = make_design(NILEARN["variable"], columns), NILEARN[name]
    maps = np.array(NILEARN["maps"])
    found = permute_association(maps, design, Permuting(10_000, 3))
    assert np.abs(found.t) == pytest.approx(np.abs(theirs["t"]), abs=1e-10)
    p = np.array(theirs["p"])
    error = np.sqrt(p * (1 - p) * (1 / 10_000 + 1 / 20_000)) + 1 / 10_000
    assert (np.abs(found.p - p) <= 4 * error).all()
    assert p.min() < 0.01  # the planted slope runs from nothing to a strong one
    assert p.max() > 0.9
    deciles = np.linspace(0.1, 0.9, 9)
    assert np.quantile(found.largest, deciles) == pytest.approx(np.quantile(theirs["largest"], deciles), abs=0.1)


def test_the_data_are_one_of_the_permutations_whatever_rounding_does():
    rng = np.random.default_rng(21)
    x = rng.standard_normal(30)
    for noise in (1e-1, 1e-2, 1e-3, 1e-5, 1e-9, 0):
        maps = x[:, None] + noise * rng.standard_normal((30, 3))
        found = permute_association(maps, make_design(x), Permuting(49, 1))
        assert (found.p == 1 / 50).all(), noise
        assert (found.p_uncorrected >= 1 / 50).all()
        assert (flip_signs(9 + maps * noise, Permuting(49, 1)).p == 1 / 50).all()
        assert (permute_between(maps, maps + noise, Permuting(49, 1)).p == 1 / 50).all()


def test_welch_is_permuted_as_it_is_shown():
    rng = np.random.default_rng(22)
    second = np.array([0, 1, 0, 1, 0, 0, 1, 0]) > 0
    maps = rng.standard_normal((8, 4)) * np.where(second, 3, 1)[:, None] + 50
    found = permute_groups(maps, second, Permuting(5000, 1))
    assert found.is_exact
    assert found.n_permutations == math.comb(8, 3) - 1

    def shown(mine):
        of = stats.ttest_ind(maps[mine], maps[~mine], equal_var=False)
        return equivalent_t(of.statistic, of.df, 6)

    assert found.t == pytest.approx(shown(second), abs=1e-9)
    largest = [np.abs(shown(np.isin(np.arange(8), chosen))).max() for chosen in itertools.combinations(range(8), 3)]
    assert found.p == pytest.approx([(np.array(largest) >= abs(t) - 1e-9).mean() for t in found.t], abs=1e-12)


@pytest.mark.parametrize("df", [2.0, 4.7, 13.2, 60.0])
def test_an_equivalent_t_is_as_rare(df):
    t = np.array([-6.0, -2.0, 0.0, 0.5, 1.0, 2.5, 5.0])
    found = equivalent_t(t, np.full(7, df), 20)
    wanted = np.sign(t) * stats.t.isf(stats.t.sf(np.abs(t), df), 20)
    assert found == pytest.approx(wanted, rel=0.03, abs=1e-12)


def test_two_maps_are_permuted_against_each_other():
    rng = np.random.default_rng(23)
    first, second = rng.standard_normal((2, 5, 3))
    second[:, 0] += 2 * first[:, 0]
    found = permute_between(first, second, Permuting(5000, 1))
    assert found.is_exact

    def r_of(order):
        return np.array([stats.pearsonr(first[:, v], second[order, v]).statistic for v in range(3)])

    largest = np.array([np.abs(r_of(list(order))).max() for order in itertools.permutations(range(5))])
    wanted = [(largest >= abs(r) - 1e-6).mean() for r in r_of(range(5))]
    assert found.p == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("n", [99, 199, 5000, 12])
def test_the_height_of_the_largest_t_is_that_of_its_p(n):
    largest = np.abs(np.random.default_rng(24).standard_normal(n + 1)) + 2
    height = height_of(0.05, largest)
    if n == 12:
        assert height == math.inf
        return
    assert share_at_least(np.array([height]), largest)[0] <= 0.05
    below = largest[largest < height].max()
    assert share_at_least(np.array([below]), largest)[0] > 0.05


_REPRODUCED = """
import hashlib, numpy as np
from processing.cohort.design import make_design
from processing.cohort.permutation import Permuting, flip_signs, permute_association, permute_between, permute_groups
rng = np.random.default_rng(1)
mask = np.ones((3, 30, 40), bool)
maps = rng.standard_normal((40, mask.sum()))
x, age = rng.standard_normal((2, 40))
maps[:, :200] += 0.9 * x[:, None]
asked = Permuting(300, 7, mask=mask, cluster_height=3.0, threshold_free=False)
found = [
    permute_association(maps, make_design(x, {"age": age}), asked),
    permute_association(maps, make_design(x, {"age": age}), Permuting(300, 7)),
    permute_groups(maps, x > 0, asked), flip_signs(maps, asked), permute_between(maps, maps[:, ::-1], Permuting(50, 7)),
]
told = hashlib.sha256()
for one in found:
    for values in (one.p, one.p_uncorrected, one.size_p, one.mass_p):
        told.update(b"-" if values is None else values.tobytes())
print(told.hexdigest(), min(one.p.min() for one in found))
"""


def test_p_values_are_bit_identical_with_other_numbers_of_threads():
    told = set()
    for threads in ("1", "4"):
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        made = subprocess.run([sys.executable, "-c", _REPRODUCED], env=environment, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        told.add(made.stdout)
    assert len(told) == 1


def test_memory_does_not_grow_with_permutations():
    rng = np.random.default_rng(28)
    mask = np.ones((5, 20, 20), bool)
    maps, design = rng.standard_normal((30, mask.sum())), make_design(rng.standard_normal(30))

    def peak(n):
        tracemalloc.start()
        permute_association(maps, design, Permuting(n, 1, mask=mask, cluster_height=3.5))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(300), peak(3000)
    assert many - few <= 3000 * 8 * 8  # a few numbers for each permutation, no maps


def test_two_maps_permuted_within_sites_are_those_less_the_means_of_sites():
    rng = np.random.default_rng(31)
    site = np.arange(14) % 2
    first, second = rng.standard_normal((2, 14, 6))
    asked = Permuting(99, 5)
    plain = permute_between(first, second, asked, blocks=site)
    shifted = permute_between(first + 9.0 * site[:, None], second - 7.0 * site[:, None], asked, blocks=site)
    np.testing.assert_allclose(shifted.t, plain.t, atol=1e-4)
    np.testing.assert_allclose(shifted.p, plain.p)
    np.testing.assert_allclose(plain.t, correlation_between_maps(first, second, blocks=site).t, atol=1e-4)


@pytest.mark.parametrize(("size", "fewest"), [(2, 2), (3, 1)])
def test_the_least_p_of_two_maps_within_small_sites(size, fewest):
    rng = np.random.default_rng(32)
    site = np.arange(6) // size
    first = rng.standard_normal((6, 1))
    found = permute_between(first, first, Permuting(500, 5), blocks=site)
    assert found.is_exact
    assert found.p[0] == pytest.approx(fewest / (found.n_permutations + 1))
