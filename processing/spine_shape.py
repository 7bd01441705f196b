"""The shape of a spine's discs in a few numbers, and how far two sets of them are apart: is it the same person's?

What stays from visit to visit is how far the discs lie from each other (the vertebrae between them) and how long they
are from front to back. Their height falls in a day by 6 to 8 % (Martin, Eur Spine J 2022) and with degeneration, and a
treatment may change it, so it weighs less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from processing.results import Affine, LabelArray, Level

#: Above this distance two exams are asked about. Measured by tests/benchmarks/spine_shape.py on simulated subjects
#: whose masks were disturbed as networks err; the sensitivity and the false alarms are told there.
MOST_DISTANCE = 1.25

#: SD of the difference of two visits of one person, of the logarithms; the same benchmark measures them without the
#: change of height in a day, which is added here.
_SD_SPACING, _SD_DEPTH, _SD_HEIGHT = 0.02, 0.03, 0.11
_FEWEST_FEATURES = 5
_DROPPED_SHARE = 0.15  # the largest deviations of one place may be a treatment, a collapse, or a mask that slipped
_MIDDLE_MM = 9.0  # to either side of the middle of a disc


@dataclass(frozen=True, slots=True)
class DiscShape:
    """One disc. ``height_mm`` and ``depth_mm`` (front to back) in its middle slices; ``centroid_mm`` LPS."""

    height_mm: float
    depth_mm: float
    centroid_mm: tuple[float, float, float]


def disc_shapes(levels: LabelArray, affine: Affine) -> dict[Level, DiscShape]:
    """The shape of each disc of a mask, from below.

    Args:
        levels: (slices, rows, columns) with values of :class:`Level`; slices are sagittal.
        affine: (slice, row, column) -> LPS mm.
    """
    shapes = {}
    for level in Level:
        voxels = np.argwhere(levels == level.value)
        if len(voxels) == 0:
            continue
        middle = float(np.median(voxels[:, 0]))
        reach = max(0.5, _MIDDLE_MM / float(np.linalg.norm(affine[:3, 0])))
        voxels = voxels[np.abs(voxels[:, 0] - middle) <= reach]
        shape = _shape(voxels, affine)
        if shape is not None:
            shapes[level] = shape
    return shapes


def _shape(voxels: np.ndarray[Any, np.dtype[np.int64]], affine: Affine) -> DiscShape | None:
    """Of a uniform strip of length a the SD along it is a / sqrt(12); its height is the area over the length."""
    n_slices = len(np.unique(voxels[:, 0]))
    in_plane_mm = voxels[:, 1:] @ affine[:3, 1:3].T
    area_mm2 = len(voxels) / n_slices * float(np.linalg.norm(np.cross(affine[:3, 1], affine[:3, 2])))
    spread = np.linalg.eigvalsh(np.cov(in_plane_mm.T)) if len(voxels) > 3 else np.zeros(3)
    depth_mm = float(np.sqrt(12 * max(spread[-1], 0.0)))
    if depth_mm <= 0:
        return None
    centre = affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3]
    return DiscShape(area_mm2 / depth_mm, depth_mm, (float(centre[0]), float(centre[1]), float(centre[2])))


Shapes = Mapping[str, Mapping[str, Any]]


def shape_entry(shape: DiscShape) -> dict[str, Any]:
    """A disc's shape as it stands in result.json."""
    return {
        "height_mm": round(shape.height_mm, 3),
        "depth_mm": round(shape.depth_mm, 3),
        "centroid_mm": [round(value, 3) for value in shape.centroid_mm],
    }


def shape_distance(one: Shapes, other: Shapes) -> float | None:
    """How far two spines are apart: about 1 between two visits of one person; None where too little can be compared.

    Args:
        one: level name -> entry of result.json; discs without a shape are left out.
        other: the same of another exam.
    """
    return _distance(_by_level(one), _by_level(other), 0)


def shifted_levels(one: Shapes, other: Shapes) -> int:
    """By how many levels the names of ``other`` lie above those of ``one``; 0 where they agree, or nothing tells.

    A shift is only said where the names as they stand do not fit, and those of the shift do, clearly better.
    """
    first, second = _by_level(one), _by_level(other)
    as_named = _distance(first, second, 0)
    if as_named is None or as_named <= MOST_DISTANCE:
        return 0
    moved = {shift: _distance(first, second, shift) for shift in (-1, 1)}
    fitting = {shift: value for shift, value in moved.items() if value is not None and value <= MOST_DISTANCE}
    if not fitting:
        return 0
    best = min(fitting, key=lambda shift: fitting[shift])
    return best if fitting[best] < as_named / 2 else 0


def _by_level(shapes: Shapes) -> dict[int, DiscShape]:
    found = {}
    for name, entry in shapes.items():
        shape = entry.get("shape") or {}
        if name in Level.__members__ and shape:
            x, y, z = shape["centroid_mm"]
            found[Level[name].value] = DiscShape(shape["height_mm"], shape["depth_mm"], (x, y, z))
    return found


def _distance(one: dict[int, DiscShape], other: dict[int, DiscShape], shift: int) -> float | None:
    """Root mean square of the differences in units of their SD, without the largest."""
    deviations = []
    for level, first in one.items():
        second = other.get(level + shift)
        if second is None:
            continue
        deviations.append(np.log(second.depth_mm / first.depth_mm) / _SD_DEPTH)
        deviations.append(np.log(second.height_mm / first.height_mm) / _SD_HEIGHT)
        if level + 1 in one and level + 1 + shift in other:
            spacings = [_apart(first, one[level + 1]), _apart(second, other[level + 1 + shift])]
            deviations.append(np.log(spacings[1] / spacings[0]) / _SD_SPACING)
    if len(deviations) < _FEWEST_FEATURES:
        return None
    kept = np.sort(np.abs(deviations))[: len(deviations) - int(_DROPPED_SHARE * len(deviations))]
    return float(np.sqrt(np.mean(kept**2)))


def _apart(one: DiscShape, other: DiscShape) -> float:
    return float(np.linalg.norm(np.subtract(one.centroid_mm, other.centroid_mm)))
