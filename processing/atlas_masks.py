"""An atlas out of the annotated discs of one subject.

Each mask becomes a signed distance, is smoothed a little (annotators draw slice by slice), levelled in the sagittal
plane and sampled on the grid of the atlas, so that a disc of any spacing and tilt gives a smooth atlas disc. The shape
between slices is that of interpolated distances (Raya and Udupa, IEEE Trans Med Imaging 1990;9:33).

**Parts.** Masks do not tell nucleus from annulus; geometry does, as in :mod:`processing.phantom_tissue`. A voxel is
nucleus where (u/0.62)² + (w/0.64)² + h⁴ <= c: u is how far it lies behind the midline, in half depths of the middle
slice, less 0.08 (the nucleus lies towards the back); w how far beside the middle, in half widths; h how far above the
middle of its own column of voxels, in half heights. c is such that the nucleus takes 48 % of the middle slice, as in
the mean healthy anatomy. The rest is annulus, parted at the midline.

**Sides.** Sagittal slabs often end within the discs. With ``complete_sides`` what lies beyond the first or last slice
is modelled with the mean healthy anatomy's outline seen from above (an ellipse in front, squarer behind, its half width
1.32 to 1.35 half depths by level, a fifth lower at the rim): the last profile shrinks along it. Without it such a disc
is refused.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.atlas import (
    ANTERIOR_ANNULUS,
    DIMENSIONS,
    NUCLEUS,
    POSTERIOR_ANNULUS,
    SPACING_MM,
    SUB_SAMPLES,
    AtlasError,
    atlas_disc,
    block_mean,
)
from processing.results import LUMBAR_LEVELS, Affine, AtlasDisc, LabelArray, Level
from processing.volume import spacing_mm

_Float = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

#: Half width over half depth of the mean healthy discs (processing.phantom_anatomy).
WIDTH_OF_DEPTH = {Level.L5S1: 1.35, Level.L4L5: 1.34, Level.L3L4: 1.33, Level.L2L3: 1.33, Level.L1L2: 1.32}

_SMOOTHING_MM = (1.0, 0.4, 0.4)  # SD of the Gaussian on the distance, along slices, rows and columns
_SMALLEST_SHARE = 0.95  # of a disc's voxels in one piece; smaller ones are left away
_RIM_LOSS = 0.2  # of the height, from the middle to the very side
_NUCLEUS_DEPTH, _NUCLEUS_WIDTH, _NUCLEUS_BEHIND, _NUCLEUS_SHARE = 0.62, 0.64, 0.08, 0.48
_SMALLEST_SLICE = 0.1  # of the largest slice; a smaller one at a side is a tip that no image would show


def discs_from_masks(
    levels: LabelArray, affine: Affine, *, complete_sides: bool = False
) -> dict[int, dict[Level, AtlasDisc]]:
    """The 2-D and 3-D discs of an atlas: dimension -> level -> disc.

    Args:
        levels: (slices, rows, columns), :class:`Level` values; canonical order, at least three slices.
        affine: (4, 4), index -> LPS mm.
        complete_sides: model what the first and last slice cut off.

    Raises:
        AtlasError: one line for each fault: one slice, a level that is missing or in pieces, a disc that is cut.
    """
    if levels.shape[0] < 3:
        raise AtlasError(f"{levels.shape[0]} slice(s): an atlas needs the whole discs, at least three slices")
    faults = [fault for level in LUMBAR_LEVELS for fault in _faults(levels == level, level, complete_sides)]
    if faults:
        raise AtlasError("\n".join(faults))
    shapes = {level: _shape_of(_largest_piece(levels == level), affine, level) for level in LUMBAR_LEVELS}
    return {d: {level: _build_disc(shape, level, d) for level, shape in shapes.items()} for d in DIMENSIONS}


def _faults(mask: _Bool, level: Level, complete_sides: bool) -> list[str]:
    if not mask.any():
        return [f"{level.name}: is not annotated; an atlas needs all of L5S1 to L1L2"]
    faults = []
    share = _largest_piece(mask).sum() / mask.sum()
    if share < _SMALLEST_SHARE:
        faults.append(f"{level.name}: is in pieces; the largest has {share:.0%} of its voxels")
    if mask[:, [0, -1]].any() or mask[:, :, [0, -1]].any():
        faults.append(f"{level.name}: touches the edge of the image")
    n_slices = int(mask.any(axis=(1, 2)).sum())
    if n_slices < 3:
        faults.append(f"{level.name}: is seen in {n_slices} slice(s); at least three are needed")
    ends = [name for name, index in (("first", 0), ("last", -1)) if mask[index].any()]
    if ends and not complete_sides:
        faults.append(
            f"{level.name}: is cut by the {' and the '.join(ends)} slice; complete_sides would model the rest"
        )
    return faults


def _largest_piece(mask: _Bool) -> _Bool:
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    largest: _Bool = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])) if count else mask
    return largest


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """One disc as a function of levelled millimetres from its middle: to the right, to inferior, to posterior."""

    distance_mm: _Float  # on the grid of the mask, above 0 inside
    affine: Affine
    middle_mm: _Float  # LPS
    axes: _Float  # (3, 3): right, inferior, posterior, one in each row
    known_mm: tuple[float, float]  # along the first axis: from here to there the disc was imaged
    half_width_mm: float
    half_depth_mm: float
    half_height_mm: float  # reach, upwards and downwards, not the height of any column

    def inside(self, right: _Float, inferior: _Float, posterior: _Float) -> _Bool:
        """Whether the points of a grid, given by its three axes, are disc: (right, inferior, posterior)."""
        known = np.clip(right, *self.known_mm)
        (front, back, height), (front_known, back_known, height_known) = self._side(right), self._side(known)
        shrink = np.where(posterior < 0, (front / front_known)[:, None], (back / back_known)[:, None])
        local = np.empty((len(right), len(inferior), len(posterior), 3))
        local[..., 0] = known[:, None, None]
        local[..., 1] = (inferior / (height / height_known)[:, None])[:, :, None]
        local[..., 2] = (posterior / shrink)[:, None, :]
        to_index = np.linalg.inv(self.affine[:3, :3])
        index = local @ (to_index @ self.axes.T).T + to_index @ (self.middle_mm - self.affine[:3, 3])
        # nearest: around the crop there is background, except where the first or last slice cuts the disc
        sampled = ndimage.map_coordinates(self.distance_mm, np.moveaxis(index, -1, 0), order=1, mode="nearest")
        found: _Bool = sampled > 0
        return found

    def _side(self, right: _Float) -> tuple[_Float, _Float, _Float]:
        """Depth in front of the middle, behind it, and height, relative to the middle; next to nothing at the ends."""
        beside = np.clip(np.abs(right) / self.half_width_mm, 0, 1 - 1e-4)
        return (1 - beside**2) ** 0.5, (1 - beside**4) ** 0.25, 1 - _RIM_LOSS * beside**2


def _shape_of(mask: _Bool, affine: Affine, level: Level) -> _Shape:
    spacing = np.array(spacing_mm(affine))
    mask, affine = _crop(mask, affine, spacing)
    distance_mm = ndimage.distance_transform_edt(mask, spacing) - ndimage.distance_transform_edt(~mask, spacing)
    distance_mm = ndimage.gaussian_filter(distance_mm, np.array(_SMOOTHING_MM) / spacing, mode="nearest")
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    axes = _levelled_axes(points, affine)
    local = points @ axes.T
    slices = local[:, 0]
    first, last = slices.min(), slices.max()
    central = local[np.abs(slices - (first + last) / 2) < 0.75 * spacing[0]]  # the middle slice, or the middle two
    low, high = central[:, 2].min() - spacing[2] / 2, central[:, 2].max() + spacing[2] / 2
    half_depth = float(high - low) / 2
    cut = (bool(mask[0].any()), bool(mask[-1].any()))
    middle, half_width = _width(first, last, cut, float(spacing[0]), WIDTH_OF_DEPTH[level] * half_depth)
    inferior = float(local[:, 1].mean())
    return _Shape(
        distance_mm=distance_mm,
        affine=affine,
        middle_mm=np.array([middle, inferior, (low + high) / 2]) @ axes,
        axes=axes,
        known_mm=(float(first) - middle if cut[0] else -np.inf, float(last) - middle if cut[1] else np.inf),
        half_width_mm=half_width,
        half_depth_mm=half_depth,
        half_height_mm=float(np.abs(local[:, 1] - inferior).max() + spacing[1]),
    )


def _width(
    first: float, last: float, cut: tuple[bool, bool], slice_mm: float, usual_half_width: float
) -> tuple[float, float]:
    """Where the middle lies along the slices, and the half width: measured where both sides are seen, else modelled."""
    if cut == (False, False):
        return (first + last) / 2, (last - first + slice_mm) / 2
    if cut == (True, False):
        middle = min(last + slice_mm / 2 - usual_half_width, (first + last) / 2)
    elif cut == (False, True):
        middle = max(first - slice_mm / 2 + usual_half_width, (first + last) / 2)
    else:
        middle = (first + last) / 2
    reach = max(last - middle, middle - first)
    return middle, max(usual_half_width, reach + slice_mm / 2)


def _crop(mask: _Bool, affine: Affine, spacing: _Float) -> tuple[_Bool, Affine]:
    """The disc with a few millimetres around it; along the slices only where there are images."""
    index = np.argwhere(mask)
    margin = np.array([1, *np.ceil(5.0 / spacing[1:])]).astype(int)
    first = np.maximum(index.min(axis=0) - margin, 0)
    last = np.minimum(index.max(axis=0) + margin + 1, mask.shape)
    box = tuple(slice(int(low), int(high)) for low, high in zip(first, last, strict=True))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first
    return mask[box], moved


def _levelled_axes(points: _Float, affine: Affine) -> _Float:
    """Right, inferior and posterior: across the slices, and across and along the disc's long axis within a slice."""
    right, down, back = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in range(3))
    in_plane = np.stack([points @ back, points @ down], axis=1)
    (xx, xy), (_, yy) = np.cov(in_plane, rowvar=False)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    posterior = np.cos(angle) * back + np.sin(angle) * down
    if posterior[1] < 0:  # LPS: y
        posterior = -posterior
    inferior = np.cross(right, posterior)
    return np.stack([right, inferior if inferior[2] < 0 else -inferior, posterior])


def _build_disc(shape: _Shape, level: Level, dimension: int) -> AtlasDisc:
    reach = (0.0 if dimension == 2 else shape.half_width_mm, shape.half_height_mm, 1.4 * shape.half_depth_mm)
    counts = [2 * int(np.ceil(mm / spacing)) + 1 for mm, spacing in zip(reach, SPACING_MM, strict=True)]
    axes = [_sample_places(n, mm, parts) for n, mm, parts in zip(counts, SPACING_MM, SUB_SAMPLES, strict=True)]
    mask = block_mean(shape.inside(*axes).astype(np.float64)) >= 0.5
    right, _, posterior = (
        (np.arange(n) - (n - 1) / 2) * spacing for n, spacing in zip(counts, SPACING_MM, strict=True)
    )
    behind = posterior / shape.half_depth_mm - _NUCLEUS_BEHIND
    beside = right / shape.half_width_mm
    radial = (
        (behind / _NUCLEUS_DEPTH) ** 2 + (beside[:, None, None] / _NUCLEUS_WIDTH) ** 2 + _relative_height(mask) ** 4
    )
    annulus = np.where(posterior < 0, ANTERIOR_ANNULUS, POSTERIOR_ANNULUS)
    middle = counts[0] // 2
    if not mask[middle].any():
        raise AtlasError(f"{level.name}: the disc is smaller than a voxel of the atlas")
    limit = np.quantile(radial[middle][mask[middle]], _NUCLEUS_SHARE)
    regions = np.where(mask, np.where(radial <= limit, NUCLEUS, annulus), 0).astype(np.uint8)
    return atlas_disc(_without_tips(regions), level, dimension, (counts[2] - 1) / 2)


def _without_tips(regions: LabelArray) -> LabelArray:
    """One piece, without slices that hold next to nothing."""
    disc = _largest_piece(regions > 0)
    per_slice = disc.sum(axis=(1, 2))
    disc &= (per_slice >= _SMALLEST_SLICE * per_slice.max())[:, None, None]
    return np.where(disc, regions, np.uint8(0))


def _sample_places(voxels: int, spacing: float, per_voxel: int) -> _Float:
    """Places in mm of the samples along one axis of a grid with its middle at 0."""
    n = voxels * per_voxel
    places: _Float = (np.arange(n, dtype=np.float64) - (n - 1) / 2) * (spacing / per_voxel)
    return places


def _relative_height(mask: _Bool) -> _Float:
    """How far each voxel lies from the middle of its column of disc voxels, in half heights; large outside."""
    rows = np.arange(mask.shape[1], dtype=np.float64)[None, :, None]
    top = np.where(mask, rows, np.inf).min(axis=1, keepdims=True)
    bottom = np.where(mask, rows, -np.inf).max(axis=1, keepdims=True)
    there = np.isfinite(top)
    middle = np.where(there, (np.where(there, top, 0) + np.where(there, bottom, 0)) / 2, 0)
    half = np.where(there, (np.where(there, bottom, 0) - np.where(there, top, 0) + 1) / 2, 1e-3)
    height: _Float = np.abs(rows - middle) / half
    return height
