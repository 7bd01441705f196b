"""Where the points of an atlas disc lie in the patient, and the reverse, from the stored transforms of an alignment.

elastix' own numbers, evaluated without elastix: an affine map is y = A·(x - c) + t + c; a cubic B-spline adds the
displacement of its coefficients to x (Rueckert, IEEE Trans Med Imaging 1999;18:712). Whoever only draws or counts needs
no itk, which takes many seconds to load. Indices are (slice, row, column), not whole numbers as a rule.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.results import Affine, Alignment, AtlasDisc

_Float = npt.NDArray[np.float64]

_ITERATIONS = 60
_TOLERANCE_MM = 0.01


def patient_index(alignment: Alignment, atlas: AtlasDisc, affine: Affine, index: _Float) -> _Float:
    """Patient grid indices (3, n) of atlas grid indices (3, n).

    Args:
        alignment: of the disc; its ``transforms`` map the atlas to the patient.
        atlas: the disc it was registered to.
        affine: (4, 4) of the patient's grid, or of any crop of it.
        index: (slice, row, column) on the atlas grid.
    """
    into_patient = _Plane(affine, _dimension(atlas))
    return into_patient.index(_transformed(alignment, _Plane(atlas.affine, _dimension(atlas)).place_mm(index)))


def atlas_index(alignment: Alignment, atlas: AtlasDisc, affine: Affine, index: _Float) -> _Float:
    """Atlas grid indices (3, n) of patient grid indices (3, n): the inverse of :func:`patient_index`.

    Found step by step, with the affine part as the slope; NaN where that does not end (folding, or far from the disc).
    """
    dimension = _dimension(atlas)
    target_mm = _Plane(affine, dimension).place_mm(index)
    matrix, shift = _affine_part(alignment, dimension)
    to_atlas = np.linalg.inv(matrix)
    place_mm = to_atlas @ (target_mm - shift)
    for _ in range(_ITERATIONS):
        miss_mm = target_mm - _transformed(alignment, place_mm)
        if np.abs(miss_mm).max(initial=0) < _TOLERANCE_MM:
            break
        place_mm = place_mm + to_atlas @ miss_mm
    far = np.abs(target_mm - _transformed(alignment, place_mm)).max(axis=0, initial=0) > 10 * _TOLERANCE_MM
    place_mm[:, far] = np.nan
    return _Plane(atlas.affine, dimension).index(place_mm)


class _Plane:
    """The coordinates elastix works in: LPS mm in 3-D; in 2-D mm along the columns and rows of the one slice."""

    def __init__(self, affine: Affine, dimension: int) -> None:
        axes = affine[:3, 2::-1] / np.linalg.norm(affine[:3, 2::-1], axis=0)  # columns, rows, slices
        self._project = np.eye(3) if dimension == 3 else axes[:, :2].T
        self._scale = self._project @ affine[:3, 3 - dimension : 3]
        self._origin = self._project @ affine[:3, 3]
        self._skip = 3 - dimension

    def place_mm(self, index: _Float) -> _Float:
        place: _Float = self._scale @ index[self._skip :] + self._origin[:, None]
        return place

    def index(self, place_mm: _Float) -> _Float:
        index = np.zeros((3, place_mm.shape[1]))
        index[self._skip :] = np.linalg.solve(self._scale, place_mm - self._origin[:, None])
        return index


def _dimension(atlas: AtlasDisc) -> int:
    return 2 if atlas.mask.shape[0] == 1 else 3


def _transformed(alignment: Alignment, place_mm: _Float) -> _Float:
    """All transforms one after the other, the first first."""
    for one in alignment.transforms:
        if _kind(one).startswith("Affine"):
            matrix, shift = _matrix_and_shift(one)
            place_mm = matrix @ place_mm + shift
        else:
            place_mm = place_mm + _spline_displacement(one, place_mm)
    return place_mm


def _affine_part(alignment: Alignment, dimension: int) -> tuple[_Float, _Float]:
    matrix, shift = np.eye(dimension), np.zeros((dimension, 1))
    for one in alignment.transforms:
        if _kind(one).startswith("Affine"):
            a, t = _matrix_and_shift(one)
            matrix, shift = a @ matrix, a @ shift + t
    return matrix, shift


def _kind(one: Mapping[str, tuple[str, ...]]) -> str:
    kind = one["Transform"][0]
    if kind not in ("AffineTransform", "BSplineTransform", "RecursiveBSplineTransform"):
        raise ValueError(f"the transform {kind} is not known")
    return kind


def _numbers(one: Mapping[str, tuple[str, ...]], name: str) -> _Float:
    return np.array(one[name], dtype=np.float64)


def _matrix_and_shift(one: Mapping[str, tuple[str, ...]]) -> tuple[_Float, _Float]:
    """A and t of y = A·x + t."""
    centre = _numbers(one, "CenterOfRotationPoint")
    numbers = _numbers(one, "TransformParameters")
    matrix = numbers[: len(centre) ** 2].reshape(len(centre), len(centre))
    shift: _Float = (numbers[len(centre) ** 2 :] + centre - matrix @ centre)[:, None]
    return matrix, shift


def _spline_displacement(one: Mapping[str, tuple[str, ...]], place_mm: _Float) -> _Float:
    """Millimetres by which a B-spline moves points (dimension, n); 0 outside its grid, as in elastix."""
    size = _numbers(one, "GridSize").astype(int)
    dimension = len(size)
    # elastix writes directions column by column
    axes = _numbers(one, "GridDirection").reshape(dimension, dimension).T * _numbers(one, "GridSpacing")
    at = np.linalg.solve(axes, place_mm - _numbers(one, "GridOrigin")[:, None])
    coefficients = _numbers(one, "TransformParameters").reshape(dimension, *size[::-1])
    supported = ((at >= 1) & (at <= size[:, None] - 2)).all(axis=0)
    moved = np.stack(
        [ndimage.map_coordinates(one_axis, at[::-1], order=3, prefilter=False) for one_axis in coefficients]
    )
    displacement: _Float = np.where(supported, moved, 0.0)
    return displacement
