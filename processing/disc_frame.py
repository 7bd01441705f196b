"""The change of frame between a patient's disc and its atlas disc: a rotation and the two centroids, in mm.

The patient's slice, row and column axes become the atlas' axes, its centroid the atlas' centroid, and the tilt of the
disc in the sagittal plane is taken out. elastix therefore never sees an oblique image.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.results import Affine, AtlasDisc

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DiscFrame:
    """patient = rotation @ (atlas - atlas_centroid) + patient_centroid, mm; in 3-D or in the plane of one slice."""

    rotation: _Float64
    patient_centroid: _Float64
    atlas_centroid: _Float64


def disc_frame(mask: npt.NDArray[Any], affine: Affine, atlas: AtlasDisc) -> DiscFrame:
    """The frame of one disc: ``mask`` (slices, rows, columns), nonzero inside; ``affine`` (4, 4), index -> LPS mm.

    Raises:
        ValueError: the slices of mask and atlas are not oriented alike.
    """
    dimension = atlas_dimension(atlas)
    own, target = grid_axes(affine)[:, :dimension], grid_axes(atlas.affine)[:, :dimension]
    similarity = target.T @ own
    # the best pairing of axes as a whole: at 45 degrees two atlas axes may be nearest to the same axis
    orders = permutations(range(dimension))
    nearest = np.array(max(orders, key=lambda order: sum(abs(similarity[i, axis]) for i, axis in enumerate(order))))
    if nearest[-1] != dimension - 1 and dimension == 3:
        raise ValueError("the slices of mask and atlas are not oriented alike")
    signs = np.sign(similarity[np.arange(dimension), nearest])
    axes = plane_of(affine, dimension) @ (own[:, nearest] * signs)
    atlas_axes = plane_of(atlas.affine, dimension) @ target
    tilt = _tilt(mask, affine, own[:, nearest] * signs) - _tilt(atlas.mask, atlas.affine, target)
    turn = np.eye(dimension)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return DiscFrame(
        rotation=axes @ turn @ atlas_axes.T,
        patient_centroid=plane_of(affine, dimension) @ centroid_mm(mask, affine),
        atlas_centroid=plane_of(atlas.affine, dimension) @ centroid_mm(atlas.mask, atlas.affine),
    )


def centroid_mm(mask: npt.NDArray[Any], affine: Affine) -> _Float64:
    """Centroid (3,) of the nonzero voxels, LPS mm."""
    centroid: _Float64 = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    return centroid


def grid_axes(affine: Affine) -> _Float64:
    """Unit vectors along columns, rows and slices, as itk orders them: the columns of a (3, 3)."""
    axes: _Float64 = affine[:3, 2::-1] / np.linalg.norm(affine[:3, 2::-1], axis=0)
    return axes


def plane_of(affine: Affine, dimension: int) -> _Float64:
    """(dimension, 3): LPS mm to the coordinates elastix works in; in 2-D those along columns and rows."""
    return np.eye(3) if dimension == 3 else grid_axes(affine)[:, :2].T


def atlas_dimension(atlas: AtlasDisc) -> int:
    """2 for a single-slice atlas, else 3."""
    return 2 if atlas.mask.shape[0] == 1 else 3


def _tilt(mask: npt.NDArray[Any], affine: Affine, axes: _Float64) -> float:
    """Angle in radians of the disc's long axis, towards posterior, in the plane of the first two axes (columns, rows).

    Towards posterior: on a grid turned in its plane the axis alone would let a steep disc come out back to front.
    """
    points = np.argwhere(mask) @ affine[:3, :3].T @ axes[:, :2]
    (xx, xy), (_, yy) = np.cov(points, rowvar=False)
    angle = float(0.5 * np.arctan2(2 * xy, xx - yy))
    posterior = axes[1, :2] @ [np.cos(angle), np.sin(angle)]  # LPS: y
    return angle if posterior >= 0 else angle + np.pi
