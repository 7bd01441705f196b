"""The level atlas: one healthy disc per level with its nucleus, anterior and posterior annulus, levelled and centred.

``python -m processing.atlas`` rebuilds ``config/atlas/healthy.npz`` from the mean healthy anatomy of
:mod:`processing.phantom_anatomy`. The paper used one healthy volunteer; a mean anatomy is nobody, and can be published.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import config
from processing.phantom_anatomy import Disc, LumbarAnatomy, mean_anatomy
from processing.phantom_tissue import SamplingPlane, rasterise
from processing.results import LUMBAR_LEVELS, Affine, AtlasDisc, LabelArray, Level

ATLAS_NAME = "healthy"
ATLAS_PATH = Path(config.__file__).parent / "atlas" / f"{ATLAS_NAME}.npz"

#: Spacing of slices, rows and columns: a 200 mm field of view with 256 columns, and the usual MAPSS slice.
SPACING_MM = (4.0, 0.78125, 0.78125)

NUCLEUS, ANTERIOR_ANNULUS, POSTERIOR_ANNULUS = 1, 2, 3

_SUB_SAMPLES = (4, 3, 3)  # of a voxel along slices, rows and columns
_MARGIN = (1, 3, 3)  # empty voxels around the disc; registration needs a background, but each one costs


@cache
def load_atlas(dimension: int) -> dict[Level, AtlasDisc]:
    """The stored atlas: ``dimension`` 3 for several slices, 2 for the single mid-slice of a one-slice exam.

    Raises:
        ValueError: another dimension.
    """
    if dimension not in (2, 3):
        raise ValueError(f"the atlas has 2 or 3 dimensions, not {dimension}")
    with np.load(ATLAS_PATH, allow_pickle=False) as stored:
        return {
            level: AtlasDisc(
                level,
                mask=(stored[f"{level.name}_{dimension}d_regions"] > 0).astype(np.uint8),
                regions=stored[f"{level.name}_{dimension}d_regions"],
                affine=stored[f"{level.name}_{dimension}d_affine"],
            )
            for level in LUMBAR_LEVELS
        }


def build_atlas(dimension: int) -> dict[Level, AtlasDisc]:
    """Build the atlas from the mean healthy anatomy. Deterministic."""
    anatomy = mean_anatomy()
    discs = {disc.level: disc for disc in anatomy.discs}
    return {level: _build_disc(anatomy, discs[level.value], level, dimension) for level in LUMBAR_LEVELS}


def _build_disc(anatomy: LumbarAnatomy, disc: Disc, level: Level, dimension: int) -> AtlasDisc:
    slices = 1 if dimension == 2 else 2 * round(disc.half_width_mm / SPACING_MM[0] + 1.5) + 1
    shape = (
        slices,
        2 * round(disc.height_mm / SPACING_MM[1]) + 1,
        2 * round(1.5 * disc.half_depth_mm / SPACING_MM[2]) + 1,
    )
    inside, nucleus, behind_mm = _sample_disc(anatomy, disc, shape)
    mask = inside >= 0.5
    regions = np.where(behind_mm < 0, ANTERIOR_ANNULUS, POSTERIOR_ANNULUS)
    regions = np.where(nucleus >= 0.5, NUCLEUS, regions)
    regions = np.where(mask, regions, 0).astype(np.uint8)
    margin = (0, *_MARGIN[1:]) if dimension == 2 else _MARGIN
    regions = _trim(regions, margin)
    return AtlasDisc(level, (regions > 0).astype(np.uint8), regions, _centred_affine(regions > 0))


def _sample_disc(
    anatomy: LumbarAnatomy, disc: Disc, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """On a levelled grid about the disc: share of disc, its nucleus fraction, mm behind the centre."""
    angle = np.deg2rad(disc.angle_deg)
    posterior = np.array([0.0, np.cos(angle), np.sin(angle)])  # body frame: left, posterior, superior
    inferior = np.array([0.0, np.sin(angle), -np.cos(angle)])
    right = np.array([-1.0, 0.0, 0.0])
    fine = [spacing / count for spacing, count in zip(SPACING_MM, _SUB_SAMPLES, strict=True)]
    counts = [size * count for size, count in zip(shape, _SUB_SAMPLES, strict=True)]
    from_slice, from_row, from_column = (-(count - 1) / 2 * step for count, step in zip(counts, fine, strict=True))
    corner = np.array(disc.centre_mm) + from_slice * right + from_row * inferior + from_column * posterior
    planes = [
        rasterise(
            anatomy,
            SamplingPlane(
                corner + k * fine[0] * right, fine[1] * inferior, fine[2] * posterior, (counts[1], counts[2])
            ),
        )
        for k in range(counts[0])
    ]
    inside = np.stack([plane.level == disc.level for plane in planes]).astype(np.float64)
    nucleus = np.stack([plane.nucleus for plane in planes]) * inside
    share = _block_mean(inside)
    fraction = np.divide(_block_mean(nucleus), share, out=np.zeros_like(share), where=share > 0)
    behind_mm = np.broadcast_to((np.arange(shape[2]) - (shape[2] - 1) / 2) * SPACING_MM[2], shape)
    return share, fraction, behind_mm


def _block_mean(fine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, b, c = _SUB_SAMPLES
    slices, rows, columns = fine.shape
    mean: npt.NDArray[np.float64] = fine.reshape(slices // a, a, rows // b, b, columns // c, c).mean(axis=(1, 3, 5))
    return mean


def _trim(regions: LabelArray, margin: tuple[int, int, int]) -> LabelArray:
    """The disc with exactly ``margin`` empty voxels around it."""
    index = np.argwhere(regions)
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(index.min(axis=0), index.max(axis=0), strict=True))
    return np.pad(regions[box], [(width, width) for width in margin])


def _centred_affine(mask: npt.NDArray[np.bool_]) -> Affine:
    """Slices along -L, rows along -S, columns along +P, the origin at the disc's centroid."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]) * SPACING_MM
    affine[:3, 3] = -affine[:3, :3] @ np.argwhere(mask).mean(axis=0)
    return affine


def write_atlas(path: Path) -> None:
    """Build the 2-D and the 3-D atlas and store them."""
    arrays: dict[str, Any] = {}
    for dimension in (2, 3):
        for level, disc in build_atlas(dimension).items():
            arrays[f"{level.name}_{dimension}d_regions"] = disc.regions
            arrays[f"{level.name}_{dimension}d_affine"] = disc.affine
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    write_atlas(ATLAS_PATH)
