"""Where voxels of a list lie, which are neighbours, and what connected areas they make: one rule for all inference."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from processing.cohort.design import FloatArray

BoolArray = npt.NDArray[np.bool_]

#: Voxels that touch at an edge or a corner are one cluster, in observed and permuted maps alike. Different rules for
#: the two inflate the error rate.
CONNECTIVITY = "full"


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """A connected area above a height. ``voxels``: places in the list; ``size`` in voxels, ``mass``: summed excess."""

    voxels: npt.NDArray[np.int64]
    size: int
    mass: float
    peak: float
    peak_voxel: int


def structure(dimension: int) -> npt.NDArray[np.int_]:
    """The neighbourhood of a voxel."""
    return np.ones((3,) * dimension, dtype=np.int_)


def neighbours(mask: BoolArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every two voxels of the mask that touch, as their places in its list; the first ascending, before the second."""
    place = np.full(tuple(side + 2 for side in mask.shape), -1, dtype=np.int64)
    inner = (slice(1, -1),) * mask.ndim
    place[inner][mask] = np.arange(int(mask.sum()))
    pairs = []
    for offset in np.argwhere(structure(mask.ndim)) - 1:
        if tuple(offset) > (0,) * mask.ndim:  # each pair once, from its earlier voxel
            beside = place[
                tuple(slice(1 + step, side + 1 + step) for step, side in zip(offset, mask.shape, strict=True))
            ]
            there = beside[mask] >= 0
            pairs.append(np.stack([place[inner][mask][there], beside[mask][there]]))
    first, second = np.concatenate(pairs, axis=1)
    order = np.argsort(first, kind="stable")
    return first[order], second[order]


def clusters_above(values: FloatArray, mask: BoolArray, height: float) -> tuple[Cluster, ...]:
    """Clusters of voxels whose value is above ``height``, largest mass first; NaN is below.

    Args:
        values: (voxels in ``mask``,).
        mask: two or three axes.
        height: one-sided.
    """
    picture = np.full(mask.shape, -np.inf)
    picture[mask] = np.where(np.isnan(values), -np.inf, values)
    labels, count = ndimage.label(picture > height, structure(mask.ndim))
    of_voxel = labels[mask]
    found = []
    for label in range(1, count + 1):
        voxels = np.flatnonzero(of_voxel == label)
        inside = values[voxels]
        found.append(
            Cluster(
                voxels=voxels,
                size=len(voxels),
                mass=float((inside - height).sum()),
                peak=float(inside.max()),
                peak_voxel=int(voxels[int(inside.argmax())]),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.mass, one.peak_voxel)))


def largest_clusters(values: FloatArray, mask: BoolArray, height: float) -> tuple[FloatArray, FloatArray]:
    """Size and mass of the largest clusters above ``height`` of many maps, each on its own; 0 where there is none.

    Only voxels above the height are looked at, of all maps at once: few of many permutations are.

    Args:
        values: (maps, voxels in ``mask``), no NaN.
        mask: two or three axes.
        height: one-sided.
    """
    sizes, masses = np.zeros(len(values)), np.zeros(len(values))
    of_map, voxel = np.nonzero(values > height)
    n = len(of_map)
    if not n:
        return sizes, masses
    number = np.full((values.shape[0], values.shape[1] + 1), -1, dtype=np.int32)  # the last: no neighbour
    number[of_map, voxel] = np.arange(n)
    beside = number[of_map[:, None], _later(mask.tobytes(), mask.shape)[voxel]]
    first, which = np.nonzero(beside >= 0)
    links = sparse.coo_array((np.ones(len(first), np.int8), (first, beside[first, which])), shape=(n, n))
    count, label = connected_components(links, directed=False)
    place = np.empty(count, dtype=np.int64)
    place[label] = of_map
    np.maximum.at(sizes, place, np.bincount(label, minlength=count).astype(np.float64))
    np.maximum.at(masses, place, np.bincount(label, weights=values[of_map, voxel] - height, minlength=count))
    return sizes, masses


@lru_cache(maxsize=8)
def _later(mask: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """(voxels, half the neighbourhood): the neighbours after each voxel; where there is none, the number of voxels."""
    first, second = neighbours(np.frombuffer(mask, np.bool_).reshape(shape))
    n = mask.count(1)
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    table = np.full((n, int(rank.max(initial=-1)) + 1), n, dtype=np.int64)
    table[first, rank] = second
    return table
