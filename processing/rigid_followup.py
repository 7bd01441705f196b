"""One disc at two visits, brought together by a rigid motion in the patient's space: how alike its outlines are.

A disc does not become another one between two visits. A low overlap after the best rigid motion speaks of a
segmentation that failed, of an operated disc, or of another patient. Nothing is measured in the moved images.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK

from processing.results import LUMBAR_LEVELS, Affine, LabelArray, Level
from processing.volume import spacing_mm

_Mask = npt.NDArray[np.bool_]

_MARGIN_MM = 8.0  # around the disc
_REACH_MM = 6.0  # distances beyond do not count: far from the outline they say nothing
_ITERATIONS = 120


@dataclass(frozen=True, slots=True)
class DiscAtTwoVisits:
    """How a disc of an earlier visit lies at a later one.

    ``dice`` of both masks after the rigid motion, where the later slab shows the disc at all; ``dice_centred`` after
    moving the centroids together alone. ``volume_ratio`` later / earlier there. ``rotation_deg``: its angle;
    ``shift_mm``: how far the centroid moved in scanner coordinates. ``overlap``: share of the earlier disc that the
    later slab shows.
    """

    level: Level
    dice: float
    dice_centred: float
    volume_ratio: float
    rotation_deg: float
    shift_mm: float
    overlap: float


def compare_discs(
    earlier: LabelArray, earlier_affine: Affine, later: LabelArray, later_affine: Affine
) -> tuple[DiscAtTwoVisits, ...]:
    """Every disc that both visits name, from below.

    Args:
        earlier: (slices, rows, columns) levels of a visit.
        earlier_affine: index -> LPS mm.
        later: of another visit, on a grid of its own.
        later_affine: index -> LPS mm.
    """
    return tuple(
        compare_disc(earlier == level, earlier_affine, later == level, later_affine, level)
        for level in LUMBAR_LEVELS
        if (earlier == level).any() and (later == level).any()
    )


def compare_disc(
    earlier: _Mask, earlier_affine: Affine, later: _Mask, later_affine: Affine, level: Level
) -> DiscAtTwoVisits:
    """One disc at two visits. The same masks give the same numbers.

    Raises:
        ValueError: a mask is empty.
    """
    if not earlier.any() or not later.any():
        raise ValueError("a disc without a voxel cannot be compared")
    fixed, moving = _cut(earlier, earlier_affine), _cut(later, later_affine)
    start = SimpleITK.Euler3DTransform()
    start.SetCenter(_centroid(*fixed).tolist())
    start.SetTranslation((_centroid(*moving) - _centroid(*fixed)).tolist())
    best = _register(fixed, moving, start)
    dice_centred, _, _ = _overlap(fixed, moving, start)
    dice, ratio, overlap = _overlap(fixed, moving, best)
    if dice < dice_centred:
        best = start
        dice, ratio, overlap = _overlap(fixed, moving, start)
    rotation = np.array(best.GetMatrix()).reshape(3, 3)
    angle = np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
    shift = np.array(best.GetTranslation())
    return DiscAtTwoVisits(level, dice, dice_centred, ratio, float(angle), float(np.linalg.norm(shift)), overlap)


def _cut(mask: _Mask, affine: Affine) -> tuple[_Mask, Affine]:
    """The box around the disc with a margin in the plane; all slices, for the slab ends where the scan ends."""
    steps = spacing_mm(affine)
    places = np.argwhere(mask)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    margin = [0, *(int(np.ceil(_MARGIN_MM / step)) for step in steps[1:])]
    first = np.maximum(low - margin, 0)
    last = np.minimum(high + margin, mask.shape)
    moved = affine.copy()
    moved[:3, 3] = (affine @ [*first, 1])[:3]
    return mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))], moved


def _centroid(mask: _Mask, affine: Affine) -> npt.NDArray[np.float64]:
    index = np.argwhere(mask).mean(axis=0)
    centre: npt.NDArray[np.float64] = (affine @ [*index, 1])[:3]
    return centre


def _image(array: npt.NDArray[np.float32], affine: Affine) -> "SimpleITK.Image":
    """ITK's image; its axes are columns, rows, slices."""
    image = SimpleITK.GetImageFromArray(array)
    steps = spacing_mm(affine)
    image.SetSpacing(steps[::-1])
    image.SetOrigin(affine[:3, 3].tolist())
    directions = (affine[:3, :3] / np.array(steps))[:, ::-1]
    image.SetDirection(directions.ravel().tolist())
    return image


def _distances(mask: _Mask, affine: Affine) -> "SimpleITK.Image":
    """Signed distance to the outline in mm, negative inside. A slab's end is no outline: the disc goes on there."""
    padded = np.pad(mask, ((2, 2), (0, 0), (0, 0)), mode="edge")
    moved = affine.copy()
    moved[:3, 3] -= 2 * affine[:3, 0]
    distance = SimpleITK.SignedMaurerDistanceMap(
        _image(padded.astype(np.float32), moved) > 0.5, squaredDistance=False, useImageSpacing=True
    )
    return SimpleITK.Cast(
        SimpleITK.Clamp(distance, SimpleITK.sitkFloat32, -_REACH_MM, _REACH_MM), SimpleITK.sitkFloat32
    )


def _register(
    fixed: tuple[_Mask, Affine], moving: tuple[_Mask, Affine], start: "SimpleITK.Euler3DTransform"
) -> "SimpleITK.Euler3DTransform":
    """The rigid motion with the least squared difference of distances; all voxels, one thread: no chance in it."""
    transform = SimpleITK.Euler3DTransform(start)
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=_ITERATIONS, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(_distances(*fixed), _distances(*moving))
    return transform


def _overlap(
    fixed: tuple[_Mask, Affine], moving: tuple[_Mask, Affine], transform: "SimpleITK.Euler3DTransform"
) -> tuple[float, float, float]:
    """Dice, later / earlier volume, and share of the earlier disc that the later slab shows."""
    grid = _image(fixed[0].astype(np.float32), fixed[1])
    wide = np.pad(moving[0], ((1, 1), (0, 0), (0, 0)), mode="edge").astype(np.float32)
    before_first = moving[1].copy()
    before_first[:3, 3] -= moving[1][:3, 0]
    resampled = SimpleITK.Resample(_image(wide, before_first), grid, transform, SimpleITK.sitkLinear, 0.0)
    there = SimpleITK.GetArrayFromImage(resampled) >= 0.5
    slices = _slices_of(fixed, moving[1], transform)
    seen = (slices >= -0.5) & (slices <= len(moving[0]) - 0.5)
    here = fixed[0] & seen
    there &= seen
    total = int(here.sum() + there.sum())
    dice = 2.0 * float((here & there).sum()) / total if total else 0.0
    ratio = float(there.sum()) / float(here.sum()) if here.any() else float("nan")
    return dice, ratio, float(here.sum()) / float(fixed[0].sum())


def _slices_of(
    fixed: tuple[_Mask, Affine], moving: Affine, transform: "SimpleITK.Euler3DTransform"
) -> npt.NDArray[np.float64]:
    """For each voxel of the earlier grid the slice, in the later one's numbers, at which it comes to lie."""
    index = np.indices(fixed[0].shape).reshape(3, -1)
    points = fixed[1][:3, :3] @ index + fixed[1][:3, 3:]
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter())[:, None], np.array(transform.GetTranslation())[:, None]
    moved = matrix @ (points - centre) + centre + shift
    slices: npt.NDArray[np.float64] = np.linalg.solve(moving[:3, :3], moved - moving[:3, 3:])[0]
    return slices.reshape(fixed[0].shape)
