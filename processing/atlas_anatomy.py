"""The atlas ``healthy``: the mean healthy anatomy of :mod:`processing.phantom_anatomy`.

``python -m processing.atlas_anatomy`` rebuilds ``config/atlas/healthy.npz``. The paper used one healthy volunteer; a
mean anatomy is nobody, and can be published.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from processing.atlas import (
    ANTERIOR_ANNULUS,
    ATLAS_FOLDER,
    DEFAULT_ATLAS,
    DIMENSIONS,
    NUCLEUS,
    POSTERIOR_ANNULUS,
    SPACING_MM,
    SUB_SAMPLES,
    Atlas,
    atlas_disc,
    block_mean,
    write_atlas,
)
from processing.phantom_anatomy import Disc, LumbarAnatomy, mean_anatomy
from processing.phantom_local_change import LocalChange
from processing.phantom_tissue import SamplingPlane, TissueSlice, rasterise
from processing.results import LUMBAR_LEVELS, AtlasDisc, Level

SOURCE = "mean healthy anatomy of discnode's simulation (all discs Pfirrmann 2, symmetric); no person"
LICENCE = "Apache-2.0"


def build_healthy() -> Atlas:
    """The atlas of the mean healthy anatomy. Deterministic."""
    discs = {dimension: build_discs(dimension) for dimension in DIMENSIONS}
    return Atlas(DEFAULT_ATLAS, SOURCE, LICENCE, "", discs)


def build_discs(dimension: int) -> dict[Level, AtlasDisc]:
    """Its discs of one dimension."""
    anatomy = mean_anatomy()
    discs = {disc.level: disc for disc in anatomy.discs}
    return {level: _build_disc(anatomy, discs[level.value], level, dimension) for level in LUMBAR_LEVELS}


def _build_disc(anatomy: LumbarAnatomy, disc: Disc, level: Level, dimension: int) -> AtlasDisc:
    shape = _grid_shape(disc, dimension)
    inside, nucleus = _sample_disc(anatomy, disc, shape)
    midline_column = (shape[2] - 1) / 2  # the centre of the model, half of its depth
    regions = np.where(np.arange(shape[2]) < midline_column, ANTERIOR_ANNULUS, POSTERIOR_ANNULUS)
    regions = np.where(nucleus >= 0.5, NUCLEUS, np.broadcast_to(regions, shape))
    regions = np.where(inside >= 0.5, regions, 0).astype(np.uint8)
    return atlas_disc(regions, level, dimension, midline_column)


def share_of_change(change: LocalChange, dimension: int) -> npt.NDArray[np.float64]:
    """Where a local change of a simulated disc lies on the atlas ``healthy``: how much of it there is in each voxel.

    The atlas is a disc of the same model, so the place follows from the fractions that the change is said in; no
    registration is asked. (slices, rows, columns) of the smallest box that holds the atlas disc, 0 outside the disc.
    """
    anatomy = mean_anatomy()
    disc = next(one for one in anatomy.discs if one.level == change.level)
    shape = _grid_shape(disc, dimension)
    inside, _ = _sample_disc(anatomy, disc, shape)
    unit = replace(change, t1rho_ms=1.0)
    marked = replace(disc, local_changes=(unit,), nucleus_ms=(0.0, 0.0))
    marked = replace(marked, anterior_annulus_ms=(0.0, 0.0), posterior_annulus_ms=(0.0, 0.0))
    discs = tuple(marked if one is disc else one for one in anatomy.discs)
    planes = _sample_planes(replace(anatomy, discs=discs), marked, shape)
    there = block_mean(np.stack([np.where(one.level == disc.level, one.t1rho_ms, 0) for one in planes]).astype(float))
    share = np.divide(there, inside, out=np.zeros_like(inside), where=inside >= 0.5)
    return share[_box_of(inside >= 0.5)]


def share_of_nucleus(level: Level, dimension: int) -> npt.NDArray[np.float64]:
    """How much of each voxel of a disc of the atlas ``healthy`` is nucleus; on the grid of :func:`share_of_change`."""
    anatomy = mean_anatomy()
    disc = next(one for one in anatomy.discs if one.level == level.value)
    inside, nucleus = _sample_disc(anatomy, disc, _grid_shape(disc, dimension))
    return np.where(inside >= 0.5, nucleus, 0.0)[_box_of(inside >= 0.5)]


def _box_of(disc: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    places = np.argwhere(disc)
    return tuple(slice(low, high + 1) for low, high in zip(places.min(axis=0), places.max(axis=0), strict=True))


def _grid_shape(disc: Disc, dimension: int) -> tuple[int, int, int]:
    """Slices, rows and columns of a levelled grid about a disc."""
    return (
        1 if dimension == 2 else 2 * round(disc.half_width_mm / SPACING_MM[0] + 1.5) + 1,
        2 * round(disc.height_mm / SPACING_MM[1]) + 1,
        2 * round(1.5 * disc.half_depth_mm / SPACING_MM[2]) + 1,
    )


def _sample_disc(
    anatomy: LumbarAnatomy, disc: Disc, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """On a levelled grid about the disc: share of disc, and its nucleus fraction."""
    planes = _sample_planes(anatomy, disc, shape)
    inside = np.stack([plane.level == disc.level for plane in planes]).astype(np.float64)
    nucleus = np.stack([plane.nucleus for plane in planes]) * inside
    share = block_mean(inside)
    fraction = np.divide(block_mean(nucleus), share, out=np.zeros_like(share), where=share > 0)
    return share, fraction


def _sample_planes(anatomy: LumbarAnatomy, disc: Disc, shape: tuple[int, int, int]) -> list[TissueSlice]:
    """The sub-samples of a levelled grid about the disc, a plane for each of them along the slices."""
    angle = np.deg2rad(disc.angle_deg)
    posterior = np.array([0.0, np.cos(angle), np.sin(angle)])  # body frame: left, posterior, superior
    inferior = np.array([0.0, np.sin(angle), -np.cos(angle)])
    right = np.array([-1.0, 0.0, 0.0])
    fine = [spacing / count for spacing, count in zip(SPACING_MM, SUB_SAMPLES, strict=True)]
    counts = [size * count for size, count in zip(shape, SUB_SAMPLES, strict=True)]
    from_slice, from_row, from_column = (-(count - 1) / 2 * step for count, step in zip(counts, fine, strict=True))
    corner = np.array(disc.centre_mm) + from_slice * right + from_row * inferior + from_column * posterior
    return [
        rasterise(
            anatomy,
            SamplingPlane(
                corner + k * fine[0] * right, fine[1] * inferior, fine[2] * posterior, (counts[1], counts[2])
            ),
        )
        for k in range(counts[0])
    ]


if __name__ == "__main__":
    write_atlas(build_healthy(), ATLAS_FOLDER / f"{DEFAULT_ATLAS}.npz")
