"""A disc that was moved is found again; another disc is not the same; a slab that shows a part is no other disc."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from processing.phantom import simulate_exam
from processing.results import LUMBAR_LEVELS, Level
from processing.rigid_followup import compare_disc, compare_discs

STEPS = (4.0, 0.8, 0.8)


def grid(n_slices=12):
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (-STEPS[0], 0, 0), (0, 0, -STEPS[1]), (0, STEPS[2], 0)
    affine[:3, 3] = -affine[:3, :3] @ np.array([(n_slices - 1) / 2, 39.5, 39.5])
    return affine


def wedge(rotation=None, shift=(0.0, 0.0, 0.0), *, height_mm=10.0, n_slices=12, noise=0.0):
    """A wedged superellipse, higher in front, where a rotation and a shift (LPS mm) put it."""
    affine = grid(n_slices)
    index = np.indices((n_slices, 80, 80)).reshape(3, -1)
    points = (affine[:3, :3] @ index + affine[:3, 3:]).T - shift
    if rotation is not None:
        points = rotation.inv().apply(points)
    left, posterior, superior = points.T
    half = height_mm / 2 * (1 - 0.25 * posterior / 17)
    inside = np.abs(left / 24) ** 3 + np.abs(posterior / 17) ** 3 + np.abs(superior / half) ** 3 < 1
    return inside.reshape(n_slices, 80, 80), affine


def test_a_disc_that_turned_and_moved_is_the_same_disc():
    turn = Rotation.from_euler("xyz", (5, 1, 2), degrees=True)
    earlier, later = wedge(), wedge(turn, (1.5, -4.0, 6.0))
    found = compare_disc(*earlier, *later, Level.L4L5)
    assert found.dice > 0.95
    assert found.dice > found.dice_centred + 0.02
    assert found.rotation_deg == pytest.approx(np.degrees(turn.magnitude()), abs=1.0)
    assert found.shift_mm == pytest.approx(np.linalg.norm((1.5, -4.0, 6.0)), abs=0.5)
    assert found.volume_ratio == pytest.approx(1, abs=0.02)
    assert found.overlap > 0.95


def test_the_same_masks_give_the_same_numbers():
    earlier, later = wedge(), wedge(Rotation.from_euler("x", 3, degrees=True), (0.0, 2.0, 1.0))
    assert compare_disc(*earlier, *later, Level.L4L5) == compare_disc(*earlier, *later, Level.L4L5)


def test_a_narrower_slab_shows_a_part_of_the_same_disc():
    earlier = wedge()
    mask, affine = wedge(None, (2.0, -4.0, 6.0))
    part, narrow = mask[4:8], affine.copy()
    narrow[:3, 3] += 4 * affine[:3, 0]
    found = compare_disc(*earlier, part, narrow, Level.L4L5)
    assert found.dice > 0.95
    assert found.overlap < 0.45
    assert found.volume_ratio == pytest.approx(1, abs=0.08)


def test_a_disc_that_lost_its_height_is_not_alike():
    found = compare_disc(*wedge(), *wedge(height_mm=6.0), Level.L4L5)
    assert found.dice < 0.8
    assert found.volume_ratio == pytest.approx(0.6, abs=0.05)


def test_an_empty_mask_is_an_error():
    mask, affine = wedge()
    with pytest.raises(ValueError, match="without a voxel"):
        compare_disc(mask, affine, np.zeros_like(mask), affine, Level.L4L5)


def test_discs_of_one_subject_at_two_visits_are_more_alike_than_those_of_two_subjects():
    """Position and noise of a visit differ, the anatomy is the subject's."""
    mine = [simulate_exam(5, n_slices=4, matrix=96, subject="A", visit=visit) for visit in (1, 2)]
    other = simulate_exam(5, n_slices=4, matrix=96, subject="B")
    same = compare_discs(mine[0].labels, mine[0].affine, mine[1].labels, mine[1].affine)
    unlike = compare_discs(mine[0].labels, mine[0].affine, other.labels, other.affine)
    assert [one.level for one in same] == list(LUMBAR_LEVELS)
    assert min(one.dice for one in same) > 0.88
    assert np.mean([one.dice for one in same]) > np.mean([one.dice for one in unlike]) + 0.03
