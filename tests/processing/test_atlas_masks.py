"""Atlases from annotated masks: known shapes come back levelled, the healthy atlas too; bad masks are told."""

import numpy as np
import pytest

from processing.atlas import ANTERIOR_ANNULUS, NUCLEUS, SPACING_MM, AtlasError, load_atlas
from processing.atlas_masks import discs_from_masks
from processing.phantom_anatomy import mean_anatomy
from processing.phantom_tissue import rasterise_volume
from processing.results import LUMBAR_LEVELS, Level

VOXEL_MM3 = float(np.prod(SPACING_MM))
IN_SLICE_MM = (1.8, 0.5, 0.5)
#: Half depth, half width, half height in mm, tilt in degrees.
SIZES = {
    Level.L5S1: (16.0, 21.0, 5.0, 35.0),
    Level.L4L5: (17.0, 22.0, 5.5, 15.0),
    Level.L3L4: (17.0, 22.0, 5.0, 0.0),
    Level.L2L3: (16.5, 21.0, 4.5, -8.0),
    Level.L1L2: (16.0, 20.0, 4.0, -12.0),
}


def spine(n_slices=31, turn_deg=0.0):
    """Five superelliptic discs one above the other: levels and affine; the middle slice is in the middle."""
    shape = (n_slices, 380, 130)
    turn = np.radians(turn_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]) * IN_SLICE_MM
    right, down, back = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, IN_SLICE_MM, strict=True))
    affine[:3, 3] = [30.0, -80.0, 200.0]
    levels = np.zeros(shape, np.uint8)
    for number, (level, (depth, width, height, tilt_deg)) in enumerate(SIZES.items()):
        tilt, y = np.radians(tilt_deg), down[:, None] - (60 - 30 * number)
        u, v = np.cos(tilt) * back + np.sin(-tilt) * y, np.cos(tilt) * y + np.sin(tilt) * back
        flat = (np.abs(u) / depth) ** 2.5 + (np.abs(v) / height) ** 2.5
        inside = (flat[None] ** 0.8 + (right[:, None, None] / width) ** 2) <= 1
        levels[inside] = level
    return levels, affine


@pytest.fixture(scope="module")
def whole():
    levels, affine = spine()
    return levels, affine, discs_from_masks(levels, affine)


@pytest.mark.parametrize("level", LUMBAR_LEVELS)
def test_size_and_tilt_come_back(whole, level):
    levels, _, discs = whole
    disc = discs[3][level]
    depth, width, height, _ = SIZES[level]
    volume_mm3 = float((levels == level).sum() * np.prod(IN_SLICE_MM))
    assert disc.mask.sum() * VOXEL_MM3 == pytest.approx(volume_mm3, rel=0.04)
    extent_mm = (np.ptp(np.argwhere(disc.mask), axis=0) + 1) * SPACING_MM
    assert (np.abs(extent_mm - [2 * width, 2 * height, 2 * depth]) < [6.5, 1.6, 1.6]).all()
    points = np.argwhere(disc.mask) @ disc.affine[:3, :3].T
    assert abs(np.degrees(np.arctan(np.polyfit(points[:, 1], points[:, 2], 1)[0]))) < 1.0
    assert disc.midline_mm == pytest.approx(0, abs=0.6)  # symmetric discs


def test_the_single_slice_is_the_middle_of_the_volume(whole):
    _, _, discs = whole
    for level in LUMBAR_LEVELS:
        flat, middle = discs[2][level].mask[0], discs[3][level].mask
        area = [int(one.sum()) for one in middle]
        assert int(flat.sum()) == pytest.approx(max(area), rel=0.03)
        assert area == area[::-1]


def test_nucleus_and_annulus_lie_where_they_should(whole):
    _, _, discs = whole
    for level in LUMBAR_LEVELS:
        disc = discs[3][level]
        places = {
            label: np.argwhere(disc.regions == label) @ disc.affine[:3, :3].T + disc.affine[:3, 3]
            for label in (1, 2, 3)
        }
        posterior_mm = {label: points[:, 1].mean() for label, points in places.items()}
        assert posterior_mm[2] < posterior_mm[1] < posterior_mm[3]
        assert 0 < posterior_mm[1] < 3  # the nucleus lies a little towards the back
        widths = {label: np.ptp(points[:, 0]) for label, points in places.items()}
        assert widths[1] < widths[2]


def test_a_turned_grid_gives_the_same_atlas(whole):
    _, _, upright = whole
    turned = discs_from_masks(*spine(turn_deg=12))
    for level in LUMBAR_LEVELS:
        np.testing.assert_array_equal(turned[3][level].regions, upright[3][level].regions)


@pytest.fixture(scope="module")
def mean_spine():
    """The anatomy of the atlas ``healthy`` as thin upright slices: levels and affine."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]) * IN_SLICE_MM
    affine[:3, 3] = [14 * 1.8, -30, 72]
    levels = np.stack([one.level for one in rasterise_volume(mean_anatomy(), affine, (29, 380, 140))])
    return np.where(levels > Level.L1L2, 0, levels).astype(np.uint8), affine


#: Slices that are there: all; 13, which is 23 mm of about 44; all but three at one side.
@pytest.mark.parametrize(("first", "last"), [(0, 29), (8, 21), (3, 29), (0, 26)])
def test_masks_of_the_mean_anatomy_give_the_healthy_atlas_though_sides_are_cut(mean_spine, first, last):
    levels, affine = mean_spine
    moved = affine.copy()
    moved[:3, 3] += first * affine[:3, 0]
    discs = discs_from_masks(levels[first:last], moved, complete_sides=(first, last) != (0, 29))
    for dimension in (2, 3):
        for level, wanted in load_atlas(dimension).items():
            got = discs[dimension][level]
            assert int(got.mask.sum()) == pytest.approx(int(wanted.mask.sum()), rel=0.04)
            one, other = on_one_grid(got), on_one_grid(wanted)
            assert dice(one > 0, other > 0) > 0.965
            assert dice(one == NUCLEUS, other == NUCLEUS) > 0.84
            assert dice(one == ANTERIOR_ANNULUS, other == ANTERIOR_ANNULUS) > 0.88


def on_one_grid(disc):
    """Parts on a grid whose middle lies on the midline, at the centroid's height and in the middle slice."""
    middle_mm = np.array([0, disc.midline_mm, 0]) - disc.affine[:3, 3]
    first = np.array([10, 20, 40]) - np.round(np.linalg.solve(disc.affine[:3, :3], middle_mm)).astype(int)
    grid = np.zeros((21, 40, 80), np.uint8)
    grid[tuple(slice(start, start + n) for start, n in zip(first, disc.regions.shape, strict=True))] = disc.regions
    return grid


def dice(one, other):
    return 2 * int((one & other).sum()) / int(one.sum() + other.sum())


def test_every_fault_is_named():
    levels, affine = spine()
    slab = levels[9:22]
    with pytest.raises(AtlasError, match="L5S1: is cut by the first and the last slice") as caught:
        discs_from_masks(slab, affine)
    assert len(str(caught.value).splitlines()) == 5

    missing = np.where(levels == Level.L2L3, 0, levels).astype(np.uint8)
    with pytest.raises(AtlasError, match="L2L3: is not annotated"):
        discs_from_masks(missing, affine)

    with pytest.raises(AtlasError, match="1 slice"):
        discs_from_masks(levels[15:16], affine)

    cropped = levels[:, :, int(np.argwhere(levels > 0)[:, 2].min()) + 1 :]
    with pytest.raises(AtlasError, match="touches the edge of the image"):
        discs_from_masks(cropped, affine)

    pieces = levels.copy()
    pieces[:, :, 62:68][pieces[:, :, 62:68] == Level.L3L4] = 0
    with pytest.raises(AtlasError, match="L3L4: is in pieces"):
        discs_from_masks(pieces, affine)

    thin = levels.copy()
    keep = np.zeros(len(levels), bool)
    keep[14:16] = True
    thin[~keep] = np.where(thin[~keep] == Level.L1L2, 0, thin[~keep])
    with pytest.raises(AtlasError, match=r"L1L2: is seen in 2 slice\(s\)"):
        discs_from_masks(thin, affine)


def test_a_crumb_beside_a_disc_is_left_away(whole):
    levels, affine, clean = whole
    crumbs = levels.copy()
    crumbs[15, 5:7, 5:7] = Level.L4L5
    built = discs_from_masks(crumbs, affine)
    np.testing.assert_array_equal(built[3][Level.L4L5].mask, clean[3][Level.L4L5].mask)
