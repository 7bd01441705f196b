"""Threshold-free cluster enhancement, exactly: the integral over all heights is a sum over the tree of components.

Smith & Nichols, NeuroImage 2009;44:83: TFCE(v) = integral from 0 to t(v) of e(h)^E h^H dh with e(h) the extent of the
component that holds v at height h; E = 0.5, H = 2. The components of an image at all heights are its max-tree
(Salembier 1998), so no steps of height have to be chosen.
"""

import numpy as np
import numpy.typing as npt
from skimage.morphology import max_tree

from processing.cohort.design import FloatArray
from processing.cohort.lattice import BoolArray

EXTENT_POWER = 0.5
HEIGHT_POWER = 2.0


def enhance(
    values: FloatArray,
    mask: BoolArray,
    *,
    extent_power: float = EXTENT_POWER,
    height_power: float = HEIGHT_POWER,
) -> FloatArray:
    """Enhanced values of positive voxels, 0 elsewhere (also where ``values`` is NaN); (voxels in ``mask``,)."""
    positive = np.where(np.nan_to_num(values, nan=0.0) > 0, values, 0.0)
    # Ranks in place of values: the tree depends on their order alone, and it is made for whole numbers.
    heights, rank = np.unique(positive, return_inverse=True)
    if len(heights) == 1 and heights[0] == 0:
        return np.zeros(len(values))
    picture = np.zeros(tuple(side + 2 for side in mask.shape), dtype=np.int64)
    inner = (slice(1, -1),) * mask.ndim
    picture[inner][mask] = rank if heights[0] == 0 else rank + 1
    levels = heights if heights[0] == 0 else np.concatenate([[0.0], heights])
    parent, order = max_tree(picture, connectivity=mask.ndim)
    return _walk(picture.ravel(), parent.ravel(), order, levels, extent_power, height_power).reshape(picture.shape)[
        inner
    ][mask]


def _walk(
    rank: npt.NDArray[np.int64],
    parent: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    levels: FloatArray,
    extent_power: float,
    height_power: float,
) -> FloatArray:
    """Up the tree for the extents, down again for the sums; only above height 0."""
    size = [1] * len(rank)
    parents = parent.tolist()
    sequence = order.tolist()
    for voxel in reversed(sequence[1:]):
        size[parents[voxel]] += size[voxel]
    power = height_power + 1
    integral = levels**power / power
    gain = (integral[rank] - integral[rank[parent]]) * np.asarray(size, dtype=np.float64) ** extent_power
    total = [0.0] * len(rank)
    gains = gain.tolist()
    for voxel in sequence[1:]:
        total[voxel] = total[parents[voxel]] + gains[voxel]
    return np.asarray(total)
