"""The shape of discs: closed forms, what must not matter, and what must."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from processing.results import Level
from processing.spine_shape import (
    MOST_DISTANCE,
    disc_shapes,
    shape_distance,
    shape_entry,
    shifted_levels,
)

SPACING_MM = np.array([4.0, 0.8, 0.5])


def boxes(depth_mm: float = 36.0, height_mm: float = 9.6, apart_mm: float = 40.0, n: int = 5) -> np.ndarray:
    """Discs as boxes, L5S1 lowest (last rows), in slices 1 to 5 of 7; (slices, rows, columns)."""
    rows, columns = round(260 / SPACING_MM[1]), round(60 / SPACING_MM[2])
    levels = np.zeros((7, rows, columns), np.uint8)
    for index in range(n):
        low = round((20 + index * apart_mm) / SPACING_MM[1])
        high, across = round(height_mm / SPACING_MM[1]), round(depth_mm / SPACING_MM[2])
        levels[1:6, rows - low - high : rows - low, 10 : 10 + across] = index + 1
    return levels


def affine(turn: Rotation | None = None, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Sagittal slices along -L, rows along -S, columns along +P, turned and moved."""
    axes = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if turn is None else turn.as_matrix()) @ axes * SPACING_MM
    matrix[:3, 3] = shift
    return matrix


def entries(levels: np.ndarray, matrix: np.ndarray) -> dict[str, dict[str, object]]:
    return {level.name: {"shape": shape_entry(one)} for level, one in disc_shapes(levels, matrix).items()}


def test_a_box_has_its_own_height_and_depth() -> None:
    found = disc_shapes(boxes(), affine())
    assert list(found) == list(Level)[:5]
    for shape in found.values():
        # SD of n voxels is that of the strip times sqrt(1 - 1/n^2)
        assert shape.depth_mm == pytest.approx(36.0, rel=1e-3)
        assert shape.height_mm == pytest.approx(9.6, rel=1e-3)
    centres = [np.array(found[level].centroid_mm) for level in (Level.L5S1, Level.L4L5)]
    assert np.linalg.norm(centres[0] - centres[1]) == pytest.approx(40.0, abs=1e-6)


def test_where_and_how_the_subject_lies_does_not_matter() -> None:
    turned = affine(Rotation.from_euler("xyz", (3.0, -2.0, 5.0), degrees=True), (12.0, -80.0, 300.0))
    distance = shape_distance(entries(boxes(), affine()), entries(boxes(), turned))
    assert distance == pytest.approx(0.0, abs=0.01)


def test_other_vertebrae_are_another_person_lower_discs_are_not() -> None:
    own = entries(boxes(), affine())
    lower = shape_distance(own, entries(boxes(height_mm=8.8), affine()))
    assert lower is not None
    assert lower < MOST_DISTANCE
    other = shape_distance(own, entries(boxes(apart_mm=43.2), affine()))
    assert other is not None
    assert other > MOST_DISTANCE


def test_too_little_tells_nothing() -> None:
    own = entries(boxes(), affine())
    assert shape_distance(own, {}) is None
    assert shape_distance(own, {"L5S1": own["L5S1"]}) is None
    assert shape_distance(own, {name: {"shape": None} for name in own}) is None
    assert disc_shapes(np.zeros((3, 4, 4), np.uint8), affine()) == {}


def test_names_one_level_too_high() -> None:
    """Discs of growing distance, so that each place is its own."""
    levels = boxes(n=1)
    own = entries(levels, affine())
    first = own["L5S1"]["shape"]
    names = [level.name for level in Level]
    places = np.cumsum([0.0, 30.0, 34.0, 39.0, 45.0])
    spine = {
        name: {"shape": {**first, "centroid_mm": [0.0, 0.0, place], "depth_mm": 30.0 + 3 * index}}  # type: ignore[dict-item]
        for index, (name, place) in enumerate(zip(names, places, strict=False))
    }
    shifted = dict(zip(names[1:], spine.values(), strict=False))
    assert shifted_levels(spine, shifted) == 1
    assert shifted_levels(shifted, spine) == -1
    assert shifted_levels(spine, spine) == 0
