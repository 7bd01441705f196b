"""Where voxels of a list lie, which are neighbours, and what connected areas they make: one rule for all inference."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

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


def largest_cluster(values: FloatArray, mask: BoolArray, height: float) -> tuple[int, float]:
    """Size and mass of the largest clusters above ``height``, each on its own; (0, 0) where there is none."""
    picture = np.full(mask.shape, -np.inf)
    picture[mask] = values
    labels, count = ndimage.label(picture > height, structure(mask.ndim))
    if not count:
        return 0, 0.0
    of_voxel = labels[mask]
    sizes = np.bincount(of_voxel, minlength=count + 1)[1:]
    masses = np.bincount(of_voxel, weights=np.where(of_voxel > 0, values - height, 0.0), minlength=count + 1)[1:]
    return int(sizes.max()), float(masses.max())
