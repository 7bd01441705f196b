"""Permutation inference and cluster enhancement against brute force."""

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import ndimage, stats

from processing.cohort.association import partial_correlation
from processing.cohort.design import make_design
from processing.cohort.enhancement import enhance
from processing.cohort.permutation import Permuting, flip_signs, permute_association


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


@pytest.mark.parametrize("shape", [(9, 12), (4, 6, 7)])
def test_enhancement_is_the_integral_over_heights(shape):
    rng = np.random.default_rng(7)
    picture = ndimage.gaussian_filter(rng.standard_normal(shape), 1) * 4
    mask = rng.random(shape) < 0.85
    values = picture[mask]
    by_steps = enhanced_by_steps(np.where(mask, picture, -1), 0.001)[mask]
    assert enhance(values, mask) == pytest.approx(by_steps, rel=0.01, abs=0.01)


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
