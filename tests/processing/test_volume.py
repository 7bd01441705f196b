"""Geometry: the place of every voxel stays the same whatever order the array is in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.refusal import ReasonCode, UnsuitableInput
from processing.volume import (
    affine_from_orientation,
    check_regular,
    is_sagittal,
    normal_of,
    slice_normal,
    spacing_mm,
    to_canonical,
)

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def world(affine: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    return (affine @ [*index, 1.0])[:3]


def test_standard_sagittal_affine_places_voxels_where_dicom_says() -> None:
    positions = [[20.0 - 4 * k, -90.0, 110.0] for k in range(6)]
    affine = affine_from_orientation(SAGITTAL, positions, (0.8, 0.6))
    assert np.allclose(slice_normal(affine), [-1, 0, 0])
    assert spacing_mm(affine) == pytest.approx((4.0, 0.8, 0.6))
    # PS3.3 equation C.7.6.2.1-1: position + column index * column spacing * row cosines + row index * row spacing * ...
    assert np.allclose(world(affine, (2, 3, 5)), [12.0, -90 + 5 * 0.6, 110 - 3 * 0.8])
    assert is_sagittal(affine)


def test_order_of_positions_does_not_matter() -> None:
    positions = np.array([[20.0 - 4 * k, -90.0, 110.0] for k in range(6)])
    shuffled = positions[[3, 0, 5, 1, 4, 2]]
    expected = affine_from_orientation(SAGITTAL, positions, (1, 1))
    assert np.array_equal(affine_from_orientation(SAGITTAL, shuffled, (1, 1)), expected)


def test_reversed_sagittal_still_ascends_along_its_own_normal() -> None:
    orientation = (0.0, -1.0, 0.0, 0.0, 0.0, -1.0)  # columns run to anterior: the normal points to the left
    affine = affine_from_orientation(orientation, [[4.0 * k, 90.0, 110.0] for k in range(4)], (1, 1))
    assert np.allclose(slice_normal(affine), [1, 0, 0])
    assert is_sagittal(affine)


def test_axial_and_coronal_are_not_sagittal() -> None:
    axial = affine_from_orientation((1, 0, 0, 0, 1, 0), [[0, 0, 4.0 * k] for k in range(4)], (1, 1))
    coronal = affine_from_orientation((1, 0, 0, 0, 0, -1), [[0, 4.0 * k, 0] for k in range(4)], (1, 1))
    for affine in (axial, coronal):
        assert not is_sagittal(affine)
        with pytest.raises(UnsuitableInput, match=r"GEOMETRY_INCONSISTENT.*not sagittal"):
            to_canonical(np.zeros((4, 5, 6)), affine)


def test_obliquity_up_to_the_tolerance_is_sagittal() -> None:
    for degrees, expected in ((29.0, True), (31.0, False)):
        angle = np.deg2rad(degrees)
        orientation = (-np.sin(angle), np.cos(angle), 0, 0, 0, -1)
        normal = normal_of(orientation)
        affine = affine_from_orientation(orientation, [normal * 4.0 * k for k in range(3)], (1, 1))
        assert is_sagittal(affine) is expected


def test_single_slice_takes_the_given_thickness_and_refuses_without() -> None:
    affine = affine_from_orientation(SAGITTAL, [[0, 0, 0]], (1, 1), single_slice_mm=8.0)
    assert spacing_mm(affine)[0] == pytest.approx(8.0)
    with pytest.raises(UnsuitableInput, match="single slice"):
        affine_from_orientation(SAGITTAL, [[0, 0, 0]], (1, 1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ((4, [-4.0, 0, 0]), "slice 5 lies 8.00 mm after slice 4"),  # a hole of one slice, the rest moved up
        ((4, [0, 0, 1.0]), "slice 5 is shifted 1.00 mm"),
        ((4, [4.0, 0, 0]), "same place"),
        ((4, [np.nan, 0, 0]), "not a number"),
    ],
)
def test_irregular_stacks_are_refused_naming_the_slice(change: tuple[int, list[float]], text: str) -> None:
    positions = np.array([[-4.0 * k, 0, 0] for k in range(8)])
    index, shift = change
    positions[index:] += shift
    if "shifted" in text:
        positions[index + 1 :] -= shift
    with pytest.raises(UnsuitableInput, match=text) as refusal:
        check_regular(positions, np.array([-1.0, 0, 0]))
    assert refusal.value.reason.code is ReasonCode.GEOMETRY_INCONSISTENT


def test_rounded_positions_are_accepted() -> None:
    rng = np.random.default_rng(3)
    turn = rotation(rng, 12)
    orientation = np.round(np.concatenate([turn @ [0, 1, 0], turn @ [0, 0, -1]]), 5)
    positions = np.round([turn @ [-4.4 * k, 0, 0] + [31.123456, -80.2, 100.1] for k in range(30)], 3)
    assert spacing_mm(affine_from_orientation(orientation, positions, (1, 1)))[0] == pytest.approx(4.4, abs=1e-3)


@pytest.mark.parametrize("orientation", [(0, 1, 0, 0, 1, 0), (0, 2, 0, 0, 0, -1), (0, np.nan, 0, 0, 0, -1), (0,) * 6])
def test_impossible_orientations_are_refused(orientation: tuple[float, ...]) -> None:
    with pytest.raises(UnsuitableInput, match="perpendicular unit vectors"):
        normal_of(orientation)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), transposed=st.booleans(), flips=st.tuples(*[st.booleans()] * 3))
def test_canonical_order_keeps_every_voxel_in_its_place_and_undo_is_exact(
    seed: int, transposed: bool, flips: tuple[bool, bool, bool]
) -> None:
    rng = np.random.default_rng(seed)
    turn = rotation(rng, rng.uniform(0, 25))
    affine = np.eye(4)
    steps = [np.array([-4.0, 0, 0]), np.array([0, 0, -0.8]), np.array([0, 0.6, 0])]
    if transposed:
        steps[1], steps[2] = steps[2], steps[1]
    for axis in range(3):
        affine[:3, axis] = turn @ steps[axis] * (-1 if flips[axis] else 1)
    affine[:3, 3] = rng.normal(size=3) * 50
    array = rng.integers(0, 1000, (2, 3, 4, 5))
    canonical, canonical_affine, undo = to_canonical(array, affine)
    assert np.array_equal(undo(canonical), array)
    directions = canonical_affine[:3, :3] / np.linalg.norm(canonical_affine[:3, :3], axis=0)
    assert (np.diag(np.array([[-1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ directions) > 0.7).all()
    native = {tuple(np.round(world(affine, i), 6)): array[0][i] for i in np.ndindex(3, 4, 5)}
    ordered = {tuple(np.round(world(canonical_affine, i), 6)): canonical[0][i] for i in np.ndindex(canonical.shape[1:])}
    assert native == ordered
