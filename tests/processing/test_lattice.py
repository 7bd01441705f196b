"""Labels on other orders of the same voxels: brought home exactly, or refused."""

from itertools import permutations, product

import numpy as np
import pytest

from processing.lattice import place_on_lattice
from processing.refusal import ReasonCode, UnsuitableInput

SHAPE = (4, 9, 7)


def grid() -> np.ndarray:
    """Oblique about all axes."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (7, -11, 5), degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.array([[-4.0, 0, 0], [0, 0, 0.625], [0, -0.781, 0]])
    affine[:3, 3] = (17.0, -41.0, 63.0)
    return affine


def labels() -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 2:5, 3:6] = np.arange(1, 19).reshape(2, 3, 3)
    return values


def reordered(values: np.ndarray, affine: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]):
    """The same voxels with axes in another order, some of them reversed."""
    moved, own = values.transpose(axes), affine.copy()
    own[:3, :3] = affine[:3, list(axes)]
    for axis, flip in enumerate(flips):
        if flip:
            own[:3, 3] += own[:3, axis] * (moved.shape[axis] - 1)
            own[:3, axis] *= -1
            moved = np.flip(moved, axis)
    return np.ascontiguousarray(moved), own


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_every_order_of_the_same_voxels_comes_home(axes: tuple[int, ...]) -> None:
    for flips in product((False, True), repeat=3):
        moved, own = reordered(labels(), grid(), axes, flips)
        np.testing.assert_array_equal(place_on_lattice(moved, own, SHAPE, grid()), labels())


@pytest.mark.parametrize("flip", [False, True])
def test_some_of_the_slices_are_enough_even_one_whose_distance_to_the_next_is_unknown(flip: bool) -> None:
    own = grid()
    own[:3, 3] += own[:3, 0]
    one = labels()[1:2]
    own[:3, 0] *= 0.3 * (-1 if flip else 1)
    expected = np.zeros_like(labels())
    expected[1] = labels()[1]
    np.testing.assert_array_equal(place_on_lattice(one, own, SHAPE, grid()), expected)


def test_every_other_slice_is_enough() -> None:
    own = grid()
    own[:3, 3] += own[:3, 0]
    own[:3, 0] *= 2
    every_other = labels()[1::2]
    expected = labels()
    expected[::2] = 0
    found = place_on_lattice(every_other, own, SHAPE, grid(), slices_left_out=True)
    np.testing.assert_array_equal(found, expected)


def test_a_larger_field_without_labels_outside_is_cut() -> None:
    own = grid()
    own[:3, 3] -= own[:3, :3] @ (1, 2, 3)
    larger = np.pad(labels(), ((1, 1), (2, 2), (3, 3)))
    np.testing.assert_array_equal(place_on_lattice(larger, own, SHAPE, grid()), labels())
    larger[0, 0, 0] = 1
    with pytest.raises(UnsuitableInput, match="beyond the edge"):
        place_on_lattice(larger, own, SHAPE, grid())


def _shifted(own: np.ndarray) -> None:
    own[:3, 3] += 0.3 * own[:3, 2]


def _finer(own: np.ndarray) -> None:
    own[:3, 1] *= 0.5


def _turned(own: np.ndarray) -> None:
    angle = np.deg2rad(4.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    own[:3, :3] = turn @ own[:3, :3]


def _stretched(own: np.ndarray) -> None:
    own[:3, 0] *= 1.1


def _not_a_number(own: np.ndarray) -> None:
    own[0, 3] = np.nan


@pytest.mark.parametrize("change", [_shifted, _finer, _turned, _stretched, _not_a_number])
def test_what_does_not_lie_on_the_voxels_is_refused(change) -> None:
    own = grid()
    change(own)
    with pytest.raises(UnsuitableInput) as refusal:
        place_on_lattice(labels(), own, SHAPE, grid())
    assert refusal.value.reason.code is ReasonCode.GEOMETRY_INCONSISTENT


def test_scanners_rounding_is_no_other_grid() -> None:
    own = np.round(grid(), 3)
    np.testing.assert_array_equal(place_on_lattice(labels(), own, SHAPE, grid()), labels())


def test_slices_twice_as_thick_are_no_slices_of_the_exam() -> None:
    """A mask that was resampled on the way lay on every other slice, and half of each disc was measured."""
    own = grid()
    own[:3, 0] *= 2
    with pytest.raises(UnsuitableInput, match="its voxels are 8") as refusal:
        place_on_lattice(labels()[::2], own, SHAPE, grid())
    assert refusal.value.reason.code is ReasonCode.GEOMETRY_INCONSISTENT
