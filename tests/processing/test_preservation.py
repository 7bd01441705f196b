"""Where stored transforms take points, checked against elastix; what registration keeps of the values of a disc."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats
from simulated_disc_exam import registered_exam

from processing.preservation import (
    bandwidth_ms,
    common_axis,
    density,
    native_regions,
    overlap,
    part_of,
    preservation,
    values_in,
)
from processing.registration import deform
from processing.results import Alignment, AtlasDisc, DiscMask, Level, Quantity, Region, RegisteredDisc, RelaxationMap
from processing.transform_points import atlas_index, patient_index


@pytest.fixture(scope="module")
def flat():
    """A T1rho FSE exam of one slice: all five discs."""
    return registered_exam(3, n_slices=1)


@pytest.fixture(scope="module")
def deep():
    """One disc of a MAPSS exam of 12 slices."""
    return registered_exam(3, n_slices=12, levels=(Level.L4L5,))


@pytest.mark.parametrize("name", ["flat", pytest.param("deep", marks=pytest.mark.slow)])
def test_points_go_where_elastix_takes_them(name, request):
    exam = request.getfixturevalue(name)
    for disc in exam.registered:
        atlas, image = disc.atlas, exam.stacks[0].signal[0]
        index = np.indices(atlas.mask.shape).reshape(3, -1).astype(float)
        place = patient_index(disc.alignment, atlas, exam.mask.affine, index)
        ours = ndimage.map_coordinates(image.astype(float), place, order=1).reshape(atlas.mask.shape)
        theirs = deform(disc.alignment, image, exam.mask.affine, atlas, order=1)
        inside = atlas.mask > 0
        np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-3)  # of a signal of some hundreds


@pytest.mark.parametrize("name", ["flat", pytest.param("deep", marks=pytest.mark.slow)])
def test_the_inverse_leads_back(name, request):
    exam = request.getfixturevalue(name)
    for disc in exam.registered:
        index = np.argwhere(disc.atlas.mask).T.astype(float)
        place = patient_index(disc.alignment, disc.atlas, exam.mask.affine, index)
        back = atlas_index(disc.alignment, disc.atlas, exam.mask.affine, place)
        np.testing.assert_allclose(back, index, atol=0.05)  # voxels


def test_a_shift_and_a_stretch_are_the_algebra():
    atlas = AtlasDisc(Level.L3L4, np.ones((5, 6, 7), np.uint8), np.ones((5, 6, 7), np.uint8), np.diag([2.0, 1, 1, 1]))
    numbers = ("1.5", "0", "0", "0", "1", "0", "0", "0", "1", "10", "0", "-4")
    stretch = {
        "Transform": ("AffineTransform",),
        "TransformParameters": numbers,
        "CenterOfRotationPoint": ("2", "0", "0"),
    }
    alignment = _alignment((stretch,))
    patient = np.diag([1.0, 1, 1, 1])
    index = np.array([[1.0, 2, 3], [0, 1, 2], [5, 5, 5]])
    place = patient_index(alignment, atlas, patient, index)
    x = 2 * index[0]
    np.testing.assert_allclose(place, [1.5 * (x - 2) + 2 + 10, index[1], index[2] - 4])
    np.testing.assert_allclose(atlas_index(alignment, atlas, patient, place), index, atol=0.02)


def test_a_transform_that_is_not_known_is_refused():
    atlas = AtlasDisc(Level.L3L4, np.ones((5, 6, 7), np.uint8), np.ones((5, 6, 7), np.uint8), np.eye(4))
    with pytest.raises(ValueError, match="SplineKernelTransform"):
        patient_index(_alignment(({"Transform": ("SplineKernelTransform",)},)), atlas, np.eye(4), np.zeros((3, 1)))


def _alignment(transforms):
    jacobian = np.ones((5, 6, 7), np.float32)
    return Alignment(Level.L3L4, (0, 0, 0), transforms, jacobian, 1.0, 1.0, 0.0, 1.0, 0, "fast", 1, 0.0)


def test_a_folding_transform_gives_no_place_instead_of_a_wrong_one(flat):
    disc = flat.registered[0]
    affine, spline, frame = disc.alignment.transforms
    wild = {
        **spline,
        "TransformParameters": tuple(str(20 * (-1) ** k) for k in range(len(spline["TransformParameters"]))),
    }
    folded = replace(disc.alignment, transforms=(affine, wild, frame))
    index = np.argwhere(disc.atlas.mask).T.astype(float)
    place = patient_index(folded, disc.atlas, flat.mask.affine, index)
    back = atlas_index(folded, disc.atlas, flat.mask.affine, place)
    known = np.isfinite(back).all(axis=0)
    again = patient_index(folded, disc.atlas, flat.mask.affine, back[:, known])
    assert not known.all()
    np.testing.assert_allclose(again, place[:, known], atol=0.2)


def test_every_native_voxel_of_the_disc_has_a_part_and_no_other(flat):
    for disc in flat.registered:
        regions = native_regions(disc, flat.mask)
        np.testing.assert_array_equal(regions > 0, flat.mask.levels == disc.alignment.level)
        shares = np.bincount(regions[regions > 0], weights=None, minlength=4)[1:] / (regions > 0).sum()
        wanted = np.bincount(disc.atlas.regions[disc.atlas.regions > 0], minlength=4)[1:] / (disc.atlas.mask > 0).sum()
        np.testing.assert_allclose(shares, wanted, atol=0.05)
        columns = {part: np.argwhere(regions == part)[:, 2].mean() for part in (1, 2, 3)}
        assert columns[2] < columns[1] < columns[3]


def test_nucleus_and_annulus_keep_mean_and_distribution_in_one_slice(flat):
    rows = [row for disc in flat.registered for row in preservation(disc, flat.mask, flat.maps)]
    assert len(rows) == 5 * len(Region)
    nuclei = [row for row in rows if row.region is Region.NUCLEUS]
    assert max(abs(row.change) for row in nuclei) < 0.02
    assert min(row.overlap for row in nuclei) > 0.9
    for disc in flat.registered:
        change, alike = annulus(flat, disc, Quantity.T1RHO)
        assert abs(change) < 0.02
        assert alike > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("quantity", list(Quantity))
def test_nucleus_and_annulus_keep_mean_and_distribution_in_a_volume(deep, quantity):
    (disc,) = deep.registered
    nucleus = next(
        row
        for row in preservation(disc, deep.mask, deep.maps)
        if (row.region, row.quantity) == (Region.NUCLEUS, quantity)
    )
    assert abs(nucleus.change) < 0.02
    assert nucleus.overlap > 0.9
    change, alike = annulus(deep, disc, quantity)
    assert abs(change) < 0.02
    assert alike > 0.9


def annulus(exam, disc, quantity):
    """Change of the mean and overlap of both parts of the annulus together."""
    before = values_in(exam.maps[quantity], np.isin(native_regions(disc, exam.mask), (2, 3)))
    after = values_in(disc.maps[quantity], np.isin(disc.atlas.regions, (2, 3)))
    return after.mean() / before.mean() - 1, overlap(before, after)


def test_a_part_that_lost_its_values_is_seen(flat):
    """The measure can fail: a map whose nucleus was replaced by annulus has another mean and another distribution."""
    disc = flat.registered[0]
    one = disc.maps[Quantity.T1RHO]
    flattened = replace(one, time_ms=np.where(disc.atlas.regions == 1, np.float32(75.0), one.time_ms))
    wrong = replace(disc, maps={Quantity.T1RHO: flattened})
    row = next(row for row in preservation(wrong, flat.mask, flat.maps) if row.region is Region.NUCLEUS)
    assert row.change < -0.3
    assert not row.overlap > 0.5


def test_the_overlap_is_that_of_two_normal_distributions():
    rng = np.random.default_rng(3)
    first, second = rng.normal(100, 10, 40_000), rng.normal(110, 10, 30_000)
    assert overlap(first, second) == pytest.approx(2 * stats.norm.cdf(-0.5), abs=0.02)  # closed form
    assert overlap(first, first[::3]) > 0.98
    assert overlap(first, second + 500) < 1e-6
    assert np.isnan(overlap(first, first[:1]))
    assert np.isnan(overlap(np.full(9, 5.0), np.full(9, 5.0)))


def test_the_density_is_scipys():
    values = np.random.default_rng(4).gamma(9, 10, 700)
    at_ms = np.linspace(values.min() - 60, values.max() + 60, 2048)
    ours = density(values, at_ms, bandwidth_ms(values))
    theirs = stats.gaussian_kde(values)(at_ms)
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * theirs.max())
    assert density(np.array([]), at_ms, 1.0).max() == 0


def test_parts_without_values_are_nan_not_zero():
    regions = np.zeros((3, 4, 6), np.uint8)
    regions[1, 1:3, 1:5] = [2, 1, 1, 3]
    atlas = AtlasDisc(Level.L3L4, (regions > 0).astype(np.uint8), regions, np.eye(4))
    nothing = np.full(regions.shape, np.nan, np.float32)
    empty = RelaxationMap(Quantity.T2, nothing, nothing, nothing, nothing, np.zeros(regions.shape, np.uint8), np.eye(4))
    levels = (regions > 0) * np.uint8(Level.L3L4)
    mask = DiscMask(levels, nothing, levels, np.eye(4), (), "made", "0" * 64)
    disc = RegisteredDisc(_alignment(()), atlas, {Quantity.T2: empty})
    for row in preservation(disc, mask, {Quantity.T2: empty}):
        assert np.isnan([row.before_ms, row.after_ms, row.overlap]).all()
        assert row.n_before == row.n_after == 0
    assert preservation(disc, mask, {}) == ()
    assert part_of(regions, Region.WHOLE_DISC).sum() == 8


@pytest.mark.parametrize("values_ms", [[80.0], [80.0, 80.0]])
def test_values_that_are_all_alike_have_a_density_without_a_width(values_ms):
    values = np.array(values_ms)
    at_ms = common_axis(values)
    drawn = density(values, at_ms, bandwidth_ms(values))
    assert drawn.sum() * (at_ms[1] - at_ms[0]) == pytest.approx(1.0)
