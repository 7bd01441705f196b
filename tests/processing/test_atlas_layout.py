"""Atlas discs on one grid: nothing lost, nothing interpolated, the same place in every exam."""

import dataclasses

import numpy as np
import pytest

from processing.atlas import load_atlas, shipped_atlases
from processing.atlas_layout import PITCH_MM, alike, lay_out
from processing.results import Level


def places_mm(layout, level):
    """Positions of a level's voxels in the layout, in the order of its grid."""
    index = np.argwhere(layout.labels // 10 == level)
    return index @ layout.affine[:3, :3].T + layout.affine[:3, 3]


@pytest.mark.parametrize("name", shipped_atlases())
@pytest.mark.parametrize("dimension", [2, 3])
def test_every_voxel_of_every_disc_has_one_place_and_keeps_its_part(name, dimension):
    discs = list(load_atlas(dimension, name).values())
    layout = lay_out(discs)
    for disc in discs:
        here = layout.labels // 10 == disc.level
        np.testing.assert_array_equal(layout.labels[here] % 10, disc.regions[disc.mask > 0])
        index = np.argwhere(disc.mask)
        inside = index @ disc.affine[:3, :3].T + disc.affine[:3, 3]
        moved = places_mm(layout, disc.level) - inside
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-9)  # as a whole


@pytest.mark.parametrize("dimension", [2, 3])
def test_discs_stand_from_below_at_the_places_of_their_levels(dimension):
    discs = list(load_atlas(dimension).values())
    layout = lay_out(discs)
    half_voxel = np.abs(layout.affine[:3, :3]).sum(axis=1) / 2
    for level in (disc.level for disc in discs):
        centre = places_mm(layout, level).mean(axis=0)
        assert (np.abs(centre - (0, 0, PITCH_MM * (level - Level.L3L4))) <= half_voxel + 1e-9).all()


def test_a_place_is_the_same_whichever_discs_an_exam_has():
    discs = load_atlas(3)
    whole, some = lay_out(list(discs.values())), lay_out([discs[Level.L1L2], discs[Level.L4L5]])
    for level in (Level.L1L2, Level.L4L5):
        np.testing.assert_allclose(places_mm(whole, level), places_mm(some, level), atol=1e-9)


def test_values_come_to_the_place_of_their_voxel():
    discs = list(load_atlas(3).values())
    layout = lay_out(discs)
    values = [np.random.default_rng(disc.level).random(disc.mask.shape) for disc in discs]
    placed = layout.place(values)
    for disc, array in zip(discs, values, strict=True):
        np.testing.assert_array_equal(placed[layout.labels // 10 == disc.level], array[disc.mask > 0])
    assert not placed[layout.labels == 0].any()


def test_discs_of_other_spacing_are_a_group_of_their_own():
    discs = list(load_atlas(3).values())
    other = dataclasses.replace(discs[1], affine=discs[1].affine * (1, 2, 1, 1))
    groups = alike([discs[0], other, discs[2]])
    assert [[disc.level for disc in group] for group in groups] == [[Level.L5S1, Level.L3L4], [Level.L4L5]]
    with pytest.raises(ValueError, match="different spacings"):
        lay_out([discs[0], other])


def test_what_cannot_be_laid_out_is_refused():
    disc = load_atlas(3)[Level.L3L4]
    with pytest.raises(ValueError, match="each level once"):
        lay_out([disc, disc])
    with pytest.raises(ValueError, match="one disc or more"):
        lay_out([])
    with pytest.raises(ValueError, match=r"L3L4 is \d+ mm high"):
        lay_out([dataclasses.replace(disc, affine=disc.affine * (1, 6, 1, 1))])


@pytest.mark.parametrize("name", shipped_atlases())
@pytest.mark.parametrize("dimension", [2, 3])
def test_ohif_opens_maps_of_a_layout_and_writes_beside_the_discs(name, dimension):
    labels = lay_out(list(load_atlas(dimension, name).values())).labels
    assert labels[0].size % 4 == 0
    edge = np.ones(labels.shape[1:], bool)
    edge[4:-4, 4:-4] = False
    assert not labels[:, edge].any()
