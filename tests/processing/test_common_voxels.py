"""Means over common voxels: what thresholds hide, what a bad visit must not take from the others, and z maps."""

import numpy as np
import pytest

from processing.common_voxels import AtlasDiscMaps, VisitMaps, difference_map, observe
from processing.results import Level, Quantity, Region
from processing.visits import NO_SCAN, Cell

SHAPE = (4, 8, 20)
CELL = Cell(Level.L4L5, Region.NUCLEUS, Quantity.T2)
WHOLE = Cell(Level.L4L5, Region.WHOLE_DISC, Quantity.T2)


def disc(times_ms, error_ms=2.0, *, regions=None):
    if regions is None:
        regions = np.full(SHAPE, 1, np.uint8)
        regions[..., :5], regions[..., 15:], regions[:, 0] = 2, 3, 0
    times = np.where(regions > 0, times_ms, np.nan).astype(np.float32)
    errors = np.where(np.isfinite(times), error_ms, np.nan).astype(np.float32)
    return AtlasDiscMaps(Level.L4L5, regions, (4.0, 0.78, 0.78), {Quantity.T2: times}, {Quantity.T2: errors})


def visit(name, day, times_ms, **given):
    return VisitMaps(name, day, {Level.L4L5: disc(times_ms)}, given.pop("atlas", "a" * 64), **given)


def test_means_are_those_of_the_region():
    columns = np.broadcast_to(np.arange(20.0) + 50, SHAPE)
    found = observe([visit("BL", 0, columns)])
    assert found[CELL][0].value_ms == pytest.approx(columns[0, 0, 5:15].mean())
    assert found[CELL][0].n == 4 * 7 * 10
    assert found[WHOLE][0].value_ms == pytest.approx(columns[0, 0].mean())
    assert {cell.region for cell in found} == set(Region)


def test_a_rise_that_a_ceiling_hides_is_seen_over_common_voxels():
    """Voxels at 150 ms and above are dropped, as in the paper: the mean of what is left rises by half only."""
    rng = np.random.default_rng(5)
    before = rng.normal(120, 30, SHAPE)
    after = before + 20
    cut = [np.where(one < 150, one, np.nan) for one in (before, after)]
    each = observe([visit("BL", 0, cut[0]), visit("M12", 365, cut[1])], common=False)[WHOLE]
    shared = observe([visit("BL", 0, cut[0]), visit("M12", 365, cut[1])])[WHOLE]
    assert each[1].value_ms - each[0].value_ms < 13
    assert shared[1].value_ms - shared[0].value_ms == pytest.approx(20, abs=0.01)
    assert shared[0].n == shared[1].n
    assert shared[1].excluded_share > 0.25


def test_a_spoilt_visit_and_one_that_is_not_compared_take_no_voxels_from_the_others():
    whole = np.full(SHAPE, 80.0)
    spoilt = whole.copy()
    spoilt[:, :, 2:] = np.nan
    found = observe([visit("BL", 0, whole), visit("M3", 91, spoilt), visit("M6", 182, whole)])[CELL]
    assert [one.n for one in found] == [280, 0, 280]
    assert found[1].value_ms is None
    some = whole.copy()
    some[:, 1:3] = np.nan
    visits = [visit("BL", 0, whole), visit("M3", 91, some), visit("M6", 182, whole)]
    assert [one.n for one in observe(visits)[CELL]] == [200, 200, 200]
    assert [one.n for one in observe(visits, left_out=["M3"])[CELL]] == [280, 200, 280]


def test_a_scan_before_the_baseline_in_another_atlas_does_not_take_the_baseline_away():
    whole = np.full(SHAPE, 80.0)
    visits = [visit("SCR", -20, whole, atlas="b" * 64), visit("BL", 0, whole), visit("M3", 91, whole)]
    found = observe(visits, baseline="BL")[CELL]
    assert [one.value_ms for one in found] == [None, pytest.approx(80), pytest.approx(80)]
    assert "another atlas" in found[0].reason


def test_a_visit_without_scan_or_disc_has_no_value_and_says_why():
    visits = [
        visit("BL", 0, np.full(SHAPE, 80.0)),
        VisitMaps("M3", 91, reason=NO_SCAN),
        VisitMaps("M6", 182, {}, "a" * 64, "held: the wrong patient is suspected"),
        VisitMaps("M9", 270, {Level.L5S1: disc(np.full(SHAPE, 50.0))}, "a" * 64),
        visit("M12", 365, np.full(SHAPE, 81.0), atlas="b" * 64),
    ]
    found = observe(visits)[CELL]
    assert [one.value_ms for one in found] == [80.0, None, None, None, None]
    assert [one.reason for one in found[1:]] == [
        NO_SCAN,
        "held: the wrong patient is suspected",
        "the disc was not found, or not registered",
        f"measured in another atlas ({'b' * 12}, not {'a' * 12})",
    ]


def test_without_a_common_voxel_there_is_no_value():
    left, right = np.full(SHAPE, 80.0), np.full(SHAPE, 80.0)
    left[:, :4], right[:, 4:] = np.nan, np.nan
    found = observe([visit("BL", 0, left), visit("M3", 91, right)], max_excluded_share=0.6)[CELL]
    assert {(one.value_ms, one.n, one.reason) for one in found} == {(None, 0, "no voxel has a value at all visits")}


def test_z_of_unchanged_voxels_is_standard_normal_and_that_of_a_change_is_its_size():
    rng = np.random.default_rng(6)
    truth = np.full((20, 40, 40), 80.0)
    regions = np.ones(truth.shape, np.uint8)
    errors = rng.uniform(1, 4, truth.shape)
    first, second = (disc(truth + rng.normal(0, errors), errors, regions=regions) for _ in range(2))
    z = difference_map(first, second, Quantity.T2).z
    assert z.mean() == pytest.approx(0, abs=0.03)
    assert z.std() == pytest.approx(1, abs=0.02)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.05, abs=0.005)
    changed = difference_map(disc(80.0, 3.0), disc(92.0, 4.0), Quantity.T2)
    inside = changed.difference_ms[np.isfinite(changed.difference_ms)]
    assert set(inside.tolist()) == {12.0}
    assert np.nanmax(changed.z) == pytest.approx(12 / 5)


def test_maps_of_other_discs_are_not_subtracted():
    with pytest.raises(ValueError, match="not the same disc"):
        difference_map(disc(80.0), disc(80.0, regions=np.ones(SHAPE, np.uint8)), Quantity.T2)


def test_slices_of_the_atlas_beside_a_thin_slab_are_no_failed_fits():
    """Three slices of 4 mm image a part of a disc that is 50 mm wide; what they do not reach has not failed."""
    first, second = (np.full(SHAPE, 70.0), np.full(SHAPE, 80.0))
    first[:1], second[3:] = np.nan, np.nan
    found = observe([visit("BL", 0, first), visit("M12", 365, second)])[WHOLE]
    assert [one.value_ms for one in found] == [70, 80]
    assert found[0].n == found[1].n == 2 * 7 * 20  # the slices that both reach
    assert found[0].excluded_share == pytest.approx(1 / 3)
    alone = observe([visit("BL", 0, first)])[WHOLE][0]
    assert alone.n == 3 * 7 * 20
    assert alone.excluded_share == 0
