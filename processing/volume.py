"""Geometry of one sagittal volume: affines, spacing, orientation. Arrays ``(slices, rows, columns)``, LPS millimetres.

An affine ``(4, 4)`` float64 maps the index ``(slice, row, column, 1)`` of a voxel's centre to LPS mm. Slices ascend
along the image normal n = row direction × column direction (PS3.3 C.7.6.2.1.1), which for a standard sagittal series
points to the patient's right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine

#: Unit LPS directions of the canonical order: slices to the right, rows to inferior, columns to posterior.
CANONICAL_DIRECTIONS = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

#: How far a slice may lie from its place in a regular stack, as a fraction of the slice spacing. Scanners round
#: positions to about 0.001 mm; a missing or shifted slice is off by tens of percent.
SPACING_TOLERANCE = 0.02

#: How far two direction cosines may be from unit length and from a right angle. Some writers keep four decimals.
_ORTHONORMAL_TOLERANCE = 2e-3


def spacing_mm(affine: Affine) -> tuple[float, float, float]:
    """Distance in mm between neighbouring voxel centres along (slices, rows, columns)."""
    slices, rows, columns = np.linalg.norm(affine[:3, :3], axis=0)
    return float(slices), float(rows), float(columns)


def slice_normal(affine: Affine) -> npt.NDArray[np.float64]:
    """The unit LPS vector (3,) along which slices ascend."""
    normal: npt.NDArray[np.float64] = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    return normal


def is_sagittal(affine: Affine, *, tolerance_deg: float = 30.0) -> bool:
    """Whether the image plane is within ``tolerance_deg`` of a sagittal plane (normal near the left-right axis)."""
    return bool(abs(slice_normal(affine)[0]) >= np.cos(np.deg2rad(tolerance_deg)))


def normal_of(orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    """The unit normal (3,) of ImageOrientationPatient's six direction cosines: row direction × column direction.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, when the cosines are not two perpendicular unit vectors.
    """
    row_direction, column_direction = np.asarray(orientation, dtype=np.float64).reshape(2, 3)
    lengths = np.array([np.linalg.norm(row_direction), np.linalg.norm(column_direction)])
    wrong_length = not np.all(np.abs(lengths - 1) <= _ORTHONORMAL_TOLERANCE)  # also true for NaN
    if wrong_length or abs(row_direction @ column_direction) > _ORTHONORMAL_TOLERANCE:
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT,
            f"ImageOrientationPatient {[float(x) for x in orientation]} is not a pair of perpendicular unit vectors",
        )
    normal: npt.NDArray[np.float64] = np.cross(row_direction, column_direction)
    return normal / np.linalg.norm(normal)


def affine_from_orientation(
    orientation: Sequence[float],
    positions: npt.ArrayLike,
    pixel_spacing: Sequence[float],
    *,
    single_slice_mm: float | None = None,
) -> Affine:
    """The affine of a stack of slices from what DICOM tells of each.

    Args:
        orientation: ImageOrientationPatient, six cosines, the same for all slices.
        positions: ImagePositionPatient of each slice, (slices, 3) LPS mm, in any order.
        pixel_spacing: PixelSpacing in mm: between rows, between columns.
        single_slice_mm: extent of the slice, used when there is only one position and hence no spacing to measure.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, as :func:`check_regular` and :func:`normal_of`, or one slice without
            a known thickness, or a spacing that is not positive.
    """
    normal = normal_of(orientation)
    sorted_positions = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    sorted_positions = sorted_positions[np.argsort(sorted_positions @ normal, kind="stable")]
    if len(sorted_positions) == 1:
        if single_slice_mm is None or not (np.isfinite(single_slice_mm) and single_slice_mm > 0):
            raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "a single slice without a slice thickness")
        slice_spacing = float(single_slice_mm)
    else:
        slice_spacing = check_regular(sorted_positions, normal)
    row_spacing, column_spacing = (float(x) for x in pixel_spacing)
    if not (np.isfinite([row_spacing, column_spacing]).all() and row_spacing > 0 and column_spacing > 0):
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"pixel spacing {row_spacing} x {column_spacing} mm")
    affine = np.eye(4)
    affine[:3, 0] = normal * slice_spacing
    affine[:3, 1] = np.asarray(orientation[3:6], dtype=np.float64) * row_spacing
    affine[:3, 2] = np.asarray(orientation[0:3], dtype=np.float64) * column_spacing
    affine[:3, 3] = sorted_positions[0]
    return affine


def check_regular(positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]) -> float:
    """The slice spacing in mm of positions (slices, 3) that ascend along ``normal``; at least two slices.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, naming the slice (counted from 1 along the normal), when positions
            are not numbers, two slices lie at one place, a gap differs from the others or a slice is shifted sideways.
    """
    if not np.isfinite(positions).all():
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "a slice position is not a number")
    depths = positions @ normal
    gaps = np.diff(depths)
    spacing = float(np.median(gaps))
    tolerance = SPACING_TOLERANCE * spacing
    if float(gaps.min()) <= max(tolerance, 1e-3):
        first = int(np.argmin(gaps)) + 1
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT, f"slices {first} and {first + 1} lie at the same place along the normal"
        )
    worst = int(np.argmax(np.abs(gaps - spacing)))
    if abs(gaps[worst] - spacing) > tolerance:
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT,
            f"slice {worst + 2} lies {gaps[worst]:.2f} mm after slice {worst + 1}; "
            f"the other slices are {spacing:.2f} mm apart",
        )
    spacing = float(depths[-1] - depths[0]) / (len(depths) - 1)
    sideways = np.linalg.norm((positions - positions[0]) - np.outer(depths - depths[0], normal), axis=1)
    worst = int(np.argmax(sideways))
    if sideways[worst] > max(tolerance, 0.05):
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT,
            f"slice {worst + 1} is shifted {sideways[worst]:.2f} mm within its plane against slice 1",
        )
    return spacing


@dataclass(frozen=True, slots=True)
class CanonicalOrder:
    """Which flips and which transpose brought an array into canonical order; calling it takes them back.

    ``axes[i]`` is the original axis (0 slices, 1 rows, 2 columns) that became canonical axis i; ``flipped[i]`` says
    whether canonical axis i was reversed. Leading axes (echoes, classes) are left alone.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The array ``(..., slices, rows, columns)`` in canonical order, as a view."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        ordered: npt.NDArray[Any] = moved[self._reversal]
        return ordered

    def __call__(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The canonical array ``(..., slices, rows, columns)`` back in the native order, as a view."""
        lead = array.ndim - 3
        native_axes = [lead + self.axes.index(axis) for axis in range(3)]
        native: npt.NDArray[Any] = array[self._reversal].transpose(*range(lead), *native_axes)
        return native

    @property
    def _reversal(self) -> tuple[Any, ...]:
        return (..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flipped))


def to_canonical(array: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine, CanonicalOrder]:
    """Bring a sagittal array into the order a reader expects, by flips and transposes alone.

    Args:
        array: ``(..., slices, rows, columns)``; leading axes are kept.
        affine: its affine, LPS mm.

    Returns:
        The array (a view) with slices ascending to the patient's right, rows to inferior, columns to posterior; its
        affine; and ``undo``, which takes any array of that shape (with any leading axes) back to the native order.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, when the slices do not ascend along the left-right axis.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = CANONICAL_DIRECTIONS @ directions  # [canonical axis, native axis]
    axes = max(permutations(range(3)), key=lambda order: sum(abs(cosines[i, axis]) for i, axis in enumerate(order)))
    if axes[0] != 0:
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "the images are not sagittal")
    flipped = tuple(bool(cosines[i, axis] < 0) for i, axis in enumerate(axes))
    order = CanonicalOrder((axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2]))
    canonical_affine = affine.copy()
    for i, axis in enumerate(axes):
        step = affine[:3, axis]
        canonical_affine[:3, i] = -step if flipped[i] else step
        if flipped[i]:
            length = array.shape[array.ndim - 3 + axis]
            canonical_affine[:3, 3] += step * (length - 1)
    return order.apply(array), canonical_affine, order
