"""What registration keeps of a disc's values: each part measured where it was acquired and again in atlas space.

**Before.** The parts of the atlas are pulled back onto the native grid: each voxel of the native mask takes the part of
the atlas voxel nearest to its place in the atlas (the inverse transform). So the values are the native map's own, not
interpolated. The reverse, pushing voxels into the atlas, would leave holes where the atlas is larger.

**After.** The map fitted to the deformed echoes, under the parts of the atlas.

The overlap of two distributions is the area under the smaller of their densities (Inman and Bradley, Commun Stat
Theory Methods 1989;18:3851): 1 where they are alike, 0 where they have nothing in common. Densities are Gaussian kernel
densities; both have the same bandwidth, the mean of Scott's for either: the number of voxels must not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.measurements import ATLAS_REGIONS
from processing.results import (
    AtlasDisc,
    DiscMask,
    LabelArray,
    Level,
    Quantity,
    Region,
    RegisteredDisc,
    RelaxationMap,
)
from processing.transform_points import atlas_index

_Float = npt.NDArray[np.float64]

_STEPS = 512  # of the axis on which densities are compared


@dataclass(frozen=True, slots=True)
class Preservation:
    """One part of one disc before and after registration; times in ms, NaN where a side has no value.

    ``overlap`` 0..1 of the two distributions.
    """

    level: Level
    region: Region
    quantity: Quantity
    before_ms: float
    after_ms: float
    n_before: int
    n_after: int
    overlap: float

    @property
    def change(self) -> float:
        """Mean after over mean before, less 1."""
        return self.after_ms / self.before_ms - 1


def preservation(
    disc: RegisteredDisc, mask: DiscMask, maps: Mapping[Quantity, RelaxationMap]
) -> tuple[Preservation, ...]:
    """Each part, and the whole disc, before and after registration, for each quantity in native and atlas space."""
    native = native_regions(disc, mask)
    rows = []
    for quantity, after in disc.maps.items():
        if quantity not in maps:
            continue
        for region in Region:
            old = values_in(maps[quantity], part_of(native, region))
            new = values_in(after, part_of(disc.atlas.regions, region))
            rows.append(_row(disc.alignment.level, region, quantity, old, new))
    return tuple(rows)


def native_regions(disc: RegisteredDisc, mask: DiscMask) -> LabelArray:
    """The atlas' parts on the native grid, (slices, rows, columns) uint8 as ``AtlasDisc.regions``; 0 outside the disc.

    A native voxel whose place in the atlas is not known (the transform folds there) is 0, too.
    """
    index = np.argwhere(mask.levels == disc.alignment.level).T
    place = atlas_index(disc.alignment, disc.atlas, mask.affine, index.astype(np.float64))
    known = np.isfinite(place).all(axis=0)
    highest = np.array(disc.atlas.regions.shape)[:, None] - 1
    nearest = np.clip(np.round(place[:, known]), 0, highest).astype(np.intp)
    regions = np.zeros(mask.levels.shape, np.uint8)
    regions[tuple(index[:, known])] = _parts_everywhere(disc.atlas)[tuple(nearest)]
    return regions


def part_of(regions: LabelArray, region: Region) -> npt.NDArray[np.bool_]:
    """Where a part is in an array of the atlas' labels."""
    return regions > 0 if region is Region.WHOLE_DISC else regions == ATLAS_REGIONS[region]


def values_in(one: RelaxationMap, part: npt.NDArray[np.bool_]) -> _Float:
    """The fitted times of a part, ms."""
    values = one.time_ms[part].astype(np.float64)
    return values[np.isfinite(values)]


def bandwidth_ms(*groups_ms: _Float) -> float:
    """Mean of the groups' bandwidths by Scott's rule, SD·n^(-1/5); 0 where no group has two different values."""
    widths = [float(one.std(ddof=1)) * len(one) ** -0.2 for one in groups_ms if len(one) > 1]
    return float(np.mean(widths)) if widths else 0.0


def density(values_ms: _Float, at_ms: _Float, width_ms: float) -> _Float:
    """Gaussian kernel density (1/ms) at evenly spaced ``at_ms`` that hold all the values; 0 where there are none.

    Counted in fine bins first and smoothed then: the cost does not grow with the number of values.
    """
    step = float(at_ms[1] - at_ms[0])
    if len(values_ms) == 0:
        return np.zeros_like(at_ms)
    edges = np.append(at_ms - step / 2, at_ms[-1] + step / 2)
    counts = np.histogram(values_ms, edges)[0] / (len(values_ms) * step)
    if width_ms == 0:  # a single value, or all alike: there is nothing to smooth by
        return counts
    smooth: _Float = ndimage.gaussian_filter1d(counts, width_ms / step, mode="constant", truncate=5)
    return smooth


def common_axis(*values_ms: _Float) -> _Float:
    """Evenly spaced times that hold all values, with room for the kernels' tails."""
    together = np.concatenate(values_ms)
    room = together.std() + 1e-3
    return np.linspace(together.min() - room, together.max() + room, _STEPS)


def overlap(first_ms: _Float, second_ms: _Float) -> float:
    """Area under the smaller of two densities, 0..1; NaN where a side has fewer than two values or all are alike."""
    width_ms = bandwidth_ms(first_ms, second_ms)
    if min(len(first_ms), len(second_ms)) < 2 or width_ms == 0:
        return float("nan")
    at_ms = common_axis(first_ms, second_ms)
    smaller = np.minimum(density(first_ms, at_ms, width_ms), density(second_ms, at_ms, width_ms))
    return float(smaller.sum() * (at_ms[1] - at_ms[0]))


def _parts_everywhere(atlas: AtlasDisc) -> LabelArray:
    """Labels that go on beyond the disc's edge: a native voxel may lie a little outside, as the Dice is below 1."""
    spacing = np.linalg.norm(atlas.affine[:3, :3], axis=0)
    nearest = ndimage.distance_transform_edt(atlas.regions == 0, spacing, return_distances=False, return_indices=True)
    everywhere: LabelArray = atlas.regions[tuple(nearest)]
    return everywhere


def _row(level: Level, region: Region, quantity: Quantity, old: _Float, new: _Float) -> Preservation:
    return Preservation(
        level=level,
        region=region,
        quantity=quantity,
        before_ms=float(old.mean()) if len(old) else float("nan"),
        after_ms=float(new.mean()) if len(new) else float("nan"),
        n_before=len(old),
        n_after=len(new),
        overlap=overlap(old, new),
    )
