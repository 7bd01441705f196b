"""The four analyses on maps with effects that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats
from statsmodels.stats.multitest import multipletests

from processing.atlas import load_atlas
from processing.cohort.analysis import between_maps, by_group, by_variable, group_design, over_time
from processing.cohort.design import DesignError, make_design
from processing.cohort.inference import Control, InferenceRules
from processing.cohort.level_maps import LevelMaps, region_means
from processing.results import Level, Region

RULES = InferenceRules(n_permutations=300, seed=3)
DISC = load_atlas(3)[Level.L4L5]
MASK = DISC.regions > 0


def maps_of(rng, n, quantity="T1rho", planted=None, weight=None, prefix="S"):
    """Smooth noise of 8 ms around 80 ms; ``weight`` of each subject times ``planted`` voxels is added."""
    noise = ndimage.gaussian_filter(rng.standard_normal((n, *MASK.shape)), [0, 0.8, 1.5, 1.5])
    noise *= 8 / noise.std()
    noise += 5 * rng.standard_normal(n)[:, None, None, None]  # discs differ as wholes, too
    if planted is not None:
        noise += np.asarray(weight)[:, None, None, None] * planted
    values = 80 + noise[:, MASK]
    return LevelMaps(
        Level.L4L5, quantity, DISC.regions, (4.0, 0.78, 0.78), values, tuple(f"{prefix}{i}" for i in range(n))
    )


def a_ball(radius=4):
    places = np.indices(MASK.shape)
    centre = np.array(MASK.shape) // 2
    distance = np.sqrt(sum(((p - c) * s) ** 2 for p, c, s in zip(places, centre, (2, 1, 1), strict=True)))
    return (distance <= radius) & MASK


def overlap(found, wanted):
    return 2 * (found & wanted).sum() / (found.sum() + wanted.sum())


def test_a_local_effect_is_found_where_it_is_though_the_disc_mean_misses_it():
    rng = np.random.default_rng(2)
    n, ball = 28, a_ball(5)
    grade = rng.standard_normal(n)
    maps = maps_of(rng, n, planted=ball * 12.0, weight=grade)
    found = by_variable(maps, make_design(grade, units=maps.units, variable_name="grade"), RULES)
    whole = next(row for row in found.regions if row.region is Region.WHOLE_DISC)
    assert whole.p > 0.05
    for control in (Control.MAX_T, Control.CLUSTER_MASS, Control.RANDOM_FIELD_CLUSTER, Control.FDR_BH):
        picture = np.zeros(MASK.shape, bool)
        picture[MASK] = found.inference.survives(control)
        assert overlap(picture, ball) >= 0.6, control
    peak = found.inference.clusters[0]
    assert ball[peak.peak_index]
    assert peak.p[Control.MAX_T] <= 0.05
    assert (found.low <= found.effect).all()
    assert (found.effect <= found.high).all()


def test_covariates_that_explain_an_effect_take_it_away():
    rng = np.random.default_rng(4)
    n = 24
    age = rng.standard_normal(n)
    grade = age + 0.5 * rng.standard_normal(n)
    maps = maps_of(rng, n, planted=MASK * 8.0, weight=age)
    alone = by_variable(maps, make_design(grade, units=maps.units), RULES)
    adjusted = by_variable(maps, make_design(grade, {"age": age}, units=maps.units), RULES)
    assert alone.inference.survives(Control.MAX_T).mean() > 0.3
    assert adjusted.inference.survives(Control.MAX_T).mean() < 0.02


def test_groups_are_compared_with_their_means_beside():
    rng = np.random.default_rng(5)
    n, ball = 26, a_ball(5)
    severe = np.arange(n) >= 12
    maps = maps_of(rng, n, planted=ball * -16.0, weight=severe)
    found = by_group(maps, group_design(severe, maps.units, "severe"), RULES)
    picture = np.zeros(MASK.shape, bool)
    picture[MASK] = found.inference.survives(Control.CLUSTER_MASS)
    assert overlap(picture, ball) >= 0.6
    in_ball = ball[MASK]
    assert found.effect[in_ball].mean() == pytest.approx(-16, abs=3)
    assert found.groups.means[0][in_ball].mean() - found.groups.means[1][in_ball].mean() == pytest.approx(16, abs=3)


def test_a_change_is_told_by_one_row_for_each_subject():
    rng = np.random.default_rng(6)
    first = maps_of(rng, 20)
    later = maps_of(rng, 18, planted=a_ball(5) * 24.0, weight=np.ones(18))
    found = over_time(first, later, RULES)
    assert found.units == later.units
    wanted = stats.ttest_1samp(later.values - first.values[:18], 0)
    assert found.inference.p[Control.UNCORRECTED] == pytest.approx(wanted.pvalue)
    assert found.inference.survives(Control.MAX_T)[a_ball(3)[MASK]].mean() > 0.5


def test_two_maps_of_one_subject_are_correlated_over_subjects():
    rng = np.random.default_rng(7)
    first = maps_of(rng, 14)
    second = LevelMaps(
        first.level,
        "T2",
        first.regions,
        first.spacing_mm,
        0.7 * first.values + rng.standard_normal(first.values.shape),
        first.units,
    )
    found = between_maps(first, second, RULES)
    assert np.median(found.effect) > 0.9
    assert (found.inference.p[Control.MAX_T] <= 0.05).mean() > 0.9
    assert Control.RANDOM_FIELD not in found.inference.p


def test_maps_that_share_nothing_but_their_sites_are_not_correlated():
    rng = np.random.default_rng(17)
    site = np.arange(16) % 2
    first, second = maps_of(rng, 16), maps_of(rng, 16, quantity="T2")
    for maps in (first, second):
        maps.values[:] += 40.0 * site[:, None]
    alone, within = between_maps(first, second, RULES), between_maps(first, second, RULES, blocks=site)
    assert np.median(alone.effect) > 0.8
    assert abs(np.median(within.effect)) < 0.5
    assert all(row.p > 0.01 for row in within.regions)
    for control in (Control.BONFERRONI, Control.FDR_BH, Control.MAX_T):
        assert alone.inference.survives(control).any()
        assert not within.inference.survives(control).any(), control
    with pytest.raises(DesignError, match="16 subjects are too few for 15 sites"):
        between_maps(first, second, RULES, blocks=np.arange(16) % 15)


def test_voxels_that_a_subject_lacks_are_in_no_correction_and_it_is_said():
    rng = np.random.default_rng(8)
    maps = maps_of(rng, 12)
    maps.values[3, :40] = np.nan
    found = by_variable(maps, make_design(rng.standard_normal(12), units=maps.units), RULES)
    assert (found.n[:40] == 11).all()
    assert np.isfinite(found.inference.p[Control.UNCORRECTED][:40]).all()
    assert np.isnan(found.inference.p[Control.MAX_T][:40]).all()
    assert any("40 voxels" in note for note in found.inference.notes)


def test_region_means_leave_out_what_has_no_value():
    rng = np.random.default_rng(9)
    maps = maps_of(rng, 3)
    maps.values[0, DISC.regions[MASK] == 1] = np.nan
    means = region_means(maps)
    assert np.isnan(means[0, list(Region).index(Region.NUCLEUS)])
    assert np.isfinite(means[0, 0])
    assert means[1, 0] == pytest.approx(maps.values[1].mean())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: by_group(m, group_design(np.arange(8) >= 7, m.units, "arm"), RULES), "second group has 1"),
        (lambda m: by_group(m, group_design(np.zeros(8, bool), m.units, "arm"), RULES), "the same value"),
        (lambda m: by_variable(m, make_design(range(8), units=[f"X{i}" for i in range(8)]), RULES), "no map of X0"),
        (lambda m: over_time(m, m.of(m.units[:2]), RULES), "2 subjects have a change"),
    ],
)
def test_what_cannot_be_analysed_is_refused(change, said):
    with pytest.raises(DesignError, match=said):
        change(maps_of(np.random.default_rng(1), 8))


NILEARN = json.loads((Path(__file__).parents[1] / "data" / "permuted_by_nilearn.json").read_text())


@pytest.mark.parametrize("name", ["alone", "adjusted"])
def test_voxels_that_a_subject_lacks_change_no_p_of_the_others(name):
    """Family-wise P values are nilearn's of the complete voxels, wherever incomplete ones stand between them."""
    complete, rng = np.array(NILEARN["maps"]), np.random.default_rng(10)
    holes = np.zeros(60, bool)
    holes[rng.permutation(60)[:20]] = True
    values = np.empty((24, 60))
    values[:, ~holes] = complete
    values[:, holes] = rng.standard_normal((24, 20)) + 3 * np.array(NILEARN["variable"])[:, None]
    values[rng.integers(0, 24, 20), np.flatnonzero(holes)] = np.nan
    units = tuple(f"S{i}" for i in range(24))
    maps = LevelMaps(Level.L4L5, "T1rho", np.ones((1, 6, 10), np.uint8), (4.0, 0.78, 0.78), values, units)
    covariates = np.array(NILEARN["covariates"])
    columns = {"a": covariates[:, 0], "b": covariates[:, 1]} if name == "adjusted" else {}
    design = make_design(NILEARN["variable"], columns, units=units)
    found = by_variable(maps, design, InferenceRules(n_permutations=5000, seed=4)).inference
    p = np.array(NILEARN[name]["p"])
    error = np.sqrt(p * (1 - p) * (1 / 5_000 + 1 / 20_000)) + 1 / 5_000
    assert (np.abs(found.p[Control.MAX_T][~holes] - p) <= 4 * error).all()
    assert np.isnan(found.p[Control.MAX_T][holes]).all()
    uncorrected = found.p[Control.UNCORRECTED]
    for control, method in ((Control.FDR_BH, "fdr_bh"), (Control.BONFERRONI, "bonferroni")):
        assert (found.p[control][~holes] == multipletests(uncorrected[~holes], method=method)[1]).all()
        assert np.isnan(found.p[control][holes]).all()


def test_ranks_are_permuted_as_ranks():
    rng = np.random.default_rng(11)
    n = 20
    grade = np.exp(2 * rng.standard_normal(n))
    maps = maps_of(rng, n, planted=MASK * 30.0, weight=np.argsort(np.argsort(grade)) / n)
    found = by_variable(maps, make_design(grade, units=maps.units), RULES, ranks=True)
    voxel = int(np.argmax(np.abs(found.effect)))
    assert found.effect[voxel] == pytest.approx(stats.spearmanr(maps.values[:, voxel], grade).statistic)
    assert found.inference.p[Control.MAX_T].min() == found.inference.p[Control.MAX_T][voxel] <= 0.05


def test_groups_with_covariates_are_compared_as_they_are_shown():
    rng = np.random.default_rng(12)
    n = 24
    age, severe = rng.uniform(20, 70, n), np.arange(n) % 2 == 0
    maps = maps_of(rng, n, planted=MASK * 1.0, weight=0.5 * age + 15 * severe)
    found = by_group(maps, group_design(severe, maps.units, "severe", {"age": age.tolist()}), RULES)
    assert np.median(found.effect) == pytest.approx(15, abs=6)
    assert any("adjusted for age" in note for note in found.inference.notes)
    survivors = found.inference.survives(Control.MAX_T)
    assert survivors.any()
    assert found.inference.p[Control.UNCORRECTED][survivors].max() < 0.01


def test_groups_that_differ_in_spread_are_told():
    rng = np.random.default_rng(13)
    maps = maps_of(rng, 20)
    few = np.arange(20) < 7
    maps.values[few] = 80 + 3 * (maps.values[few] - 80)
    found = by_group(maps, group_design(few, maps.units, "few"), RULES)
    assert any("differ in spread" in note for note in found.inference.notes)


def test_changes_that_are_skewed_are_told():
    rng = np.random.default_rng(16)
    first, later = maps_of(rng, 16), maps_of(rng, 16)
    assert not any("skewed" in note for note in over_time(first, later, RULES).inference.notes)
    first.values[:] = 80
    later.values[:] = 80 + 5 * np.exp((later.values - 80) / 8)
    assert any("changes are skewed" in note for note in over_time(first, later, RULES).inference.notes)


def test_few_permutations_are_told_with_the_smallest_p():
    rng = np.random.default_rng(14)
    maps = maps_of(rng, 4)
    found = over_time(maps, maps_of(rng, 4), RULES)
    assert "only 16 permutations differ: all were made, the smallest P is 0.125" in found.inference.notes
    assert "no permutation P can be as small as 0.05" in found.inference.notes
    assert found.inference.p[Control.MAX_T].min() >= 0.125


def test_a_map_that_is_its_own_copy_has_a_small_p_and_stays_in_the_family():
    maps = maps_of(np.random.default_rng(15), 12)
    found = between_maps(maps, maps, RULES)
    assert found.inference.in_family.all()
    assert found.inference.survives(Control.MAX_T).all()
