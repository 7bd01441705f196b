"""Threshold-free cluster enhancement, exactly: the integral over all heights is a sum over the tree of components.

Smith & Nichols, NeuroImage 2009;44:83: TFCE(v) = integral from 0 to t(v) of e(h)^E h^H dh with e(h) the extent of the
component that holds v at height h; E = 0.5, H = 2. Components change only where two of them meet, and they meet along
the edges of the maximum spanning tree of the voxels, an edge as high as the lower of its ends; so no steps of height
have to be chosen.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import minimum_spanning_tree

from processing.cohort.design import FloatArray
from processing.cohort.lattice import BoolArray, neighbours

EXTENT_POWER = 0.5
HEIGHT_POWER = 2.0

IntArray = npt.NDArray[np.int64]


def enhance(
    values: FloatArray,
    mask: BoolArray,
    *,
    extent_power: float = EXTENT_POWER,
    height_power: float = HEIGHT_POWER,
) -> FloatArray:
    """Enhanced values of positive voxels, 0 elsewhere (also where ``values`` is NaN); (voxels in ``mask``,)."""
    heights = np.maximum(np.nan_to_num(values, nan=0.0), 0.0)
    first, second, meeting = _spanning_tree(heights, mask)
    n = len(heights)
    parent, size = _meetings(first.tolist(), second.tolist(), n)
    born = np.concatenate([heights, meeting])  # the height below which a node is its own component
    power = height_power + 1
    integral = born**power / power
    until = np.where(parent < 0, 0.0, integral[parent])  # parent -1: the component goes on to height 0
    total: list[float] = ((integral - until) * size**extent_power).tolist()
    above = parent.tolist()
    for node in range(len(total) - 1, -1, -1):  # a node's parent is later
        if above[node] >= 0:
            total[node] += total[above[node]]
    return np.array(total[:n])


def _spanning_tree(heights: FloatArray, mask: BoolArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Edges of the maximum spanning tree of the positive voxels: two ends and height, the highest first."""
    low, high = _edges(mask.tobytes(), mask.shape)
    height = np.minimum(heights[low], heights[high])
    there = height > 0
    low, high, height = low[there], high[there], height[there]
    begins = np.concatenate([[0], np.cumsum(np.bincount(low, minlength=len(heights)))])
    graph = sparse.csr_array((-height, high, begins), shape=(len(heights),) * 2)
    tree = minimum_spanning_tree(graph, overwrite=True).tocoo()
    order = np.argsort(tree.data, kind="stable")
    return tree.row[order].astype(np.int64), tree.col[order].astype(np.int64), -tree.data[order]


@lru_cache(maxsize=8)
def _edges(mask: bytes, shape: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    return neighbours(np.frombuffer(mask, np.bool_).reshape(shape))


def _meetings(first: list[int], second: list[int], n: int) -> tuple[IntArray, FloatArray]:
    """A node for each voxel, then one for each meeting: its parent (-1: none) and how many voxels it holds."""
    parent = [-1] * (n + len(first))
    size = [1.0] * len(parent)
    newest = list(range(n))  # node of the component, kept at its representative
    link = list(range(n))
    for node, (one, other) in enumerate(zip(first, second, strict=True), start=n):
        while link[one] != one:
            link[one] = one = link[link[one]]
        while link[other] != other:
            link[other] = other = link[link[other]]
        left, right = newest[one], newest[other]
        parent[left] = parent[right] = node
        size[node] = size[left] + size[right]
        if size[left] < size[right]:
            one, other = other, one
        link[other] = one
        newest[one] = node
    return np.array(parent, np.int64), np.array(size)
