"""A local change of a simulated disc is where it was put, as large as was said, and nowhere else; so is its atlas."""

from dataclasses import replace

import numpy as np
import pytest

from processing.atlas import load_atlas
from processing.atlas_anatomy import share_of_change, share_of_nucleus
from processing.fitting import relaxation_map
from processing.phantom import LocalChange, VisitChange, anatomy_of, simulate_exam
from processing.phantom_visits import at_visit
from processing.results import LUMBAR_LEVELS, EchoStack, Level, Quantity

BEHIND = LocalChange(2, centre=(0.7, 0.0, 0.0), radius=(0.25, 0.7, 0.7), t1rho_ms=30.0, t2_ms=18.0)


def exam(**change):
    return simulate_exam(11, n_slices=1, anatomy_matrix=32, snr=np.inf, change=VisitChange(**change))


@pytest.fixture(scope="module")
def usual():
    return exam()


@pytest.fixture(scope="module")
def changed():
    return exam(local=(BEHIND,))


def test_it_changes_a_part_of_its_own_disc_alone(usual, changed):
    np.testing.assert_array_equal(changed.labels, usual.labels)
    np.testing.assert_array_equal(changed.nucleus, usual.nucleus)
    moved = np.nan_to_num(changed.t1rho_ms - usual.t1rho_ms)
    disc = usual.labels == Level.L4L5
    assert (moved[~disc] == 0).all()
    assert moved[disc].max() == pytest.approx(30.0, abs=0.05)
    share = (moved[disc] > 15.0).mean()
    assert 0.05 < share < 0.2
    columns = np.argwhere(disc)[:, 2]
    where = np.argwhere(moved > 15.0)[:, 2]
    assert (where.mean() - columns.min()) / np.ptp(columns) == pytest.approx(0.5 + 0.7 / 2, abs=0.06)


def test_its_truth_is_exact_in_both_times(usual, changed):
    disc = usual.labels == Level.L4L5
    t1rho = (changed.t1rho_ms - usual.t1rho_ms)[disc] / 30.0
    t2 = (changed.t2_ms - usual.t2_ms)[disc] / 18.0
    np.testing.assert_allclose(t1rho, t2, atol=1e-4)
    times_ms, signal = changed.echoes(Quantity.T1RHO)
    core = disc & (np.nan_to_num(changed.t1rho_ms - usual.t1rho_ms) > 29.0)
    fitted = relaxation_map(EchoStack(Quantity.T1RHO, signal, times_ms, changed.affine), core)
    assert np.nanmean(fitted.time_ms[core]) == pytest.approx(float(changed.t1rho_ms[core].mean()), rel=0.02)


def test_the_annulus_of_one_grade_leaves_the_nucleus_its_own(usual):
    even = exam(annulus_grade=2)
    for before, after in zip(usual.anatomy.discs, even.anatomy.discs, strict=True):
        assert after.nucleus_ms == before.nucleus_ms
        if before.grade == 2:
            assert after.posterior_annulus_ms == before.posterior_annulus_ms
    grades = np.array([anatomy.grades for seed in range(40) if (anatomy := anatomy_of(seed, "A"))])
    front = np.array(
        [
            [
                disc.anterior_annulus_ms[1]
                for disc in at_visit(anatomy_of(seed, "A"), VisitChange(annulus_grade=2)).discs
            ]
            for seed in range(40)
        ]
    )[:, :5]
    assert abs(np.corrcoef(grades.ravel(), front.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("dimension", [2, 3])
def test_it_lies_on_the_grid_of_the_atlas_disc_and_where_it_was_said(dimension):
    share = share_of_change(BEHIND, dimension)
    regions = load_atlas(dimension)[Level.L4L5].regions
    places = np.argwhere(regions)
    assert share.shape == tuple(places.max(axis=0) - places.min(axis=0) + 1)
    assert share.max() == pytest.approx(1.0, abs=0.01)
    assert share[share.shape[0] // 2, share.shape[1] // 2].argmax() > 0.75 * share.shape[2]
    if dimension == 3:
        outer = share_of_change(replace(BEHIND, centre=(0.0, 0.8, 0.0), radius=(0.3, 0.2, 0.7)), 3)
        assert outer.sum(axis=(1, 2)).argmax() < share.shape[0] // 4  # slices run to the right, the change is left


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_nucleus_of_the_atlas_is_where_at_least_half_of_a_voxel_is_nucleus(dimension):
    regions = load_atlas(dimension)[Level.L2L3].regions
    places = np.argwhere(regions)
    box = tuple(slice(low, high + 1) for low, high in zip(places.min(axis=0), places.max(axis=0), strict=True))
    assert ((share_of_nucleus(Level.L2L3, dimension) >= 0.5) != (regions[box] == 1)).mean() < 0.002


def test_the_place_does_not_depend_on_the_size_of_the_change():
    np.testing.assert_allclose(
        share_of_change(BEHIND, 2), share_of_change(replace(BEHIND, t1rho_ms=-12.0), 2), atol=1e-6
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="level names"):
        replace(BEHIND, level=6)
    with pytest.raises(ValueError, match="radius"):
        replace(BEHIND, radius=(0.1, 0.0, 0.1))
    with pytest.raises(ValueError, match="local change leaves level 2"):
        at_visit(anatomy_of(3, "A"), VisitChange(local=(replace(BEHIND, t2_ms=-60.0),)))
    with pytest.raises(ValueError, match="annulus_grade"):
        VisitChange(annulus_grade=6)


def test_only_its_own_level_has_it():
    anatomy = at_visit(anatomy_of(3, "A"), VisitChange(local=(BEHIND,)))
    for level in LUMBAR_LEVELS:
        assert bool(anatomy.discs[level - 1].local_changes) == (level == Level.L4L5)
