"""Permutation inference: what the largest statistic of a map is when nothing is there.

One regression with nuisance, by Freedman & Lane (J Bus Econ Stat 1983;1:292; Winkler et al., NeuroImage 2014;92:381):
the residuals of the reduced model are permuted, whole subjects at a time, within exchangeability blocks. Two groups
without nuisance: Welch's t, the groups permuted. A one-sample change flips signs. Two maps: the subjects of one are
permuted. The family-wise P of a voxel is the share of permutations, the data as they are among them, whose largest
statistic is at least its own; it is never below 1 / (permutations + 1), and exact where all permutations are made.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.cohort.association import within_blocks
from processing.cohort.design import Design, FloatArray
from processing.cohort.enhancement import enhance
from processing.cohort.exchange import Orders, Signs, orders_of
from processing.cohort.lattice import BoolArray, clusters_above, largest_clusters
from processing.cohort.permuted_statistics import (
    BetweenMaps,
    OneSample,
    PermutedStatistic,
    WelchDifference,
    partial_regression,
    size_of,
    t_of,
    unit_columns,
)

#: Permutations and voxels that are worked on at once: a block stays in the processor's cache, and memory does not grow
#: with the number of permutations.
_PERMUTATIONS = 256
_VOXELS = 2048

#: Single precision is enough to rank permutations; a statistic that is equal but for rounding counts as equal.
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class PermutationResult:
    """Observed statistic and family-wise P values of a map, (voxels,), two-sided.

    ``t``; ``p``: by the largest absolute t; ``p_uncorrected``: voxel by voxel; ``largest``: the largest absolute t of
    each permutation, the data as they are first. ``size_p`` and ``mass_p``: of the cluster that a voxel is in, 1
    outside; ``enhanced_p``: threshold-free; None where they were not asked for. ``n_permutations``: made besides the
    data as they are; ``is_exact``: they are all that differ; ``smallest_p``: that these permutations can give.
    """

    t: FloatArray
    p: FloatArray
    p_uncorrected: FloatArray
    largest: FloatArray
    n_permutations: int
    is_exact: bool
    smallest_p: float
    size_p: FloatArray | None = None
    mass_p: FloatArray | None = None
    enhanced_p: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Permuting:
    """What is asked of a permutation.

    ``n_permutations``: besides the data as they are; fewer are made, and each once, where fewer differ. ``mask``: where
    the voxels lie; needed for clusters. ``cluster_height``: absolute t from which clusters form. ``threshold_free``:
    also by threshold-free cluster enhancement. ``progress``: is told the finished share.
    """

    n_permutations: int
    seed: int
    mask: BoolArray | None = None
    cluster_height: float | None = None
    threshold_free: bool = False
    progress: Callable[[float], None] = lambda _: None


def permute_association(
    maps: FloatArray, design: Design, asked: Permuting, *, blocks: npt.NDArray[np.int64] | None = None
) -> PermutationResult:
    """Voxel by variable, adjusted for covariates (Freedman-Lane).

    Args:
        maps: (subjects, voxels), without NaN: a voxel that not all subjects have is not exchangeable.
        design: of the same subjects. A group is a variable of 0 and 1.
        asked: how many, and of what.
        blocks: subjects are exchanged within their block only (a site, a stratum).

    Raises:
        ValueError: NaN in the maps, other numbers of subjects, or a cluster analysis without mask.
    """
    _check(maps, design.n, asked)
    rows = np.column_stack([design.variable, design.covariates])
    orders = orders_of(rows, asked.n_permutations, asked.seed, blocks)
    return _run(orders, partial_regression(maps, design), asked)


def permute_groups(
    maps: FloatArray,
    in_second: npt.NDArray[np.bool_],
    asked: Permuting,
    *,
    blocks: npt.NDArray[np.int64] | None = None,
) -> PermutationResult:
    """Two groups by Welch's t, told as the t of n - 2 degrees of freedom that is as rare; else as above."""
    _check(maps, len(in_second), asked)
    if min(in_second.sum(), (~in_second).sum()) < 2:
        raise ValueError("a group of fewer than two has no variance")
    orders = orders_of(in_second[:, None].astype(np.float64), asked.n_permutations, asked.seed, blocks)
    statistic = WelchDifference(unit_columns(maps - maps.mean(axis=0)), in_second.astype(np.float64))
    return _run(orders, statistic, asked)


def permute_between(
    first: FloatArray, second: FloatArray, asked: Permuting, *, blocks: npt.NDArray[np.int64] | None = None
) -> PermutationResult:
    """Correlation over subjects of two maps, (subjects, voxels) each; the subjects of one change places.

    With ``blocks`` the means of the blocks are taken out of both: what is left is exchangeable within a block, as it
    sums to zero there in any order.
    """
    _check(first, second.shape[0], asked)
    _check(second, first.shape[0], asked)
    orders = orders_of(np.arange(len(first), dtype=np.float64)[:, None], asked.n_permutations, asked.seed, blocks)
    one, other = (unit_columns(within_blocks(maps, orders.blocks)).astype(np.float32) for maps in (first, second))
    df = len(first) - 1 - len(np.unique(orders.blocks))
    return _run(orders, BetweenMaps(one, other, df), asked)


def flip_signs(changes: FloatArray, asked: Permuting) -> PermutationResult:
    """Whether the mean change differs from zero: one-sample t, whole subjects change their sign.

    ``changes``: (subjects, voxels), one row for each subject, without NaN; the rest as in :func:`permute_association`.
    """
    n = changes.shape[0]
    _check(changes, n, asked)
    if n < 3:
        raise ValueError(f"{n} subjects are too few for a one-sample test: at least 3 are needed")
    return _run(Signs(n, asked.n_permutations, asked.seed), OneSample(unit_columns(changes)), asked)


def _check(maps: FloatArray, n: int, asked: Permuting) -> None:
    if maps.ndim != 2 or maps.shape[0] != n:
        raise ValueError(f"maps of {maps.shape[0]} subjects, a design of {n}")
    if not np.isfinite(maps).all():
        raise ValueError("a voxel that not all subjects have cannot be permuted; leave it out")
    if asked.mask is None and (asked.cluster_height is not None or asked.threshold_free):
        raise ValueError("clusters need to know where the voxels lie: give the mask")
    if asked.mask is not None and int(asked.mask.sum()) != maps.shape[1]:
        raise ValueError(f"a mask of {int(asked.mask.sum())} voxels for maps of {maps.shape[1]}")


@dataclass(frozen=True, slots=True, eq=False)
class _Null:
    """The largest of each permutation: ``size`` of t, ``extent`` and ``mass`` of clusters, ``enhanced``."""

    size: FloatArray
    extent: FloatArray
    mass: FloatArray
    enhanced: FloatArray


def _run(ways: Orders | Signs, statistic: PermutedStatistic, asked: Permuting) -> PermutationResult:
    total, df = ways.n_made, statistic.df
    null = _Null(*(np.zeros(total) for _ in range(4)))
    exceeding = np.zeros(statistic.n_voxels, dtype=np.int64)
    observed = statistic.t(next(ways.chunks(1)))[0]  # the data as they are come first
    size, start = size_of(observed, df), 0
    for rows in ways.chunks(_PERMUTATIONS):
        these = slice(start, start + len(rows))
        if asked.mask is None:
            _compare(partial(statistic.size, rows), size, null.size[these], exceeding)
        else:
            t = statistic.t(rows)
            _compare(partial(_part_of, size_of(t, df)), size, null.size[these], exceeding)
            _enter_clusters(t, asked, null, start)
        start += len(rows)
        asked.progress(start / total)
    null.size[0] = size.max(initial=0.0)  # to the last digit: the data are one of the permutations
    return PermutationResult(
        t=observed,
        p=share_at_least(size, null.size),
        p_uncorrected=np.maximum(exceeding, 1) / total,
        largest=t_of(np.minimum(null.size, 1.0), df),
        n_permutations=total - 1,
        is_exact=ways.is_exact,
        smallest_p=float(share_at_least(null.size.max(keepdims=True), null.size)[0]) if ways.is_exact else 1 / total,
        size_p=_cluster_p(observed, asked, null.extent, "size"),
        mass_p=_cluster_p(observed, asked, null.mass, "mass"),
        enhanced_p=_enhanced_p(observed, asked, null.enhanced),
    )


def _part_of(sizes: FloatArray, voxels: slice) -> FloatArray:
    return sizes[:, voxels]


def _compare(
    sizes_of: Callable[[slice], npt.NDArray[Any]],
    observed: FloatArray,
    largest: FloatArray,
    exceeding: npt.NDArray[np.int64],
) -> None:
    """Of some permutations: the largest size of each, and how often each voxel's own is reached."""
    limit = observed * (1 - _ROUNDING)
    for low in range(0, len(observed), _VOXELS):
        voxels = slice(low, low + _VOXELS)
        sizes = sizes_of(voxels)
        np.maximum(largest, sizes.max(axis=1), out=largest)
        exceeding[voxels] += np.count_nonzero(sizes >= limit[voxels].astype(sizes.dtype), axis=0)


def _enter_clusters(t: FloatArray, asked: Permuting, null: _Null, start: int) -> None:
    if asked.mask is None:
        return
    these = slice(start, start + len(t))
    if asked.cluster_height is not None:
        for sign in (1, -1):
            extent, mass = largest_clusters(sign * t, asked.mask, asked.cluster_height)
            np.maximum(null.extent[these], extent, out=null.extent[these])
            np.maximum(null.mass[these], mass, out=null.mass[these])
    if asked.threshold_free:
        for index, one in enumerate(t, start=start):
            null.enhanced[index] = max(enhance(sign * one, asked.mask).max() for sign in (1, -1))


def share_at_least(values: FloatArray, null: FloatArray) -> FloatArray:
    """The share of ``null`` that is at least each value, equal but for rounding included."""
    ordered = np.sort(null)
    below = np.searchsorted(ordered, values * (1 - _ROUNDING), side="left")
    share: FloatArray = (len(ordered) - below) / len(ordered)
    return share


def height_of(alpha: float, largest: FloatArray) -> float:
    """The smallest of the permutations' largest values that at most a share of ``alpha`` reaches; infinite if none."""
    enough = share_at_least(largest, largest) <= alpha
    return float(largest[enough].min()) if enough.any() else math.inf


def _enhanced_p(observed: FloatArray, asked: Permuting, null: FloatArray) -> FloatArray | None:
    if asked.mask is None or not asked.threshold_free:
        return None
    return share_at_least(np.maximum(enhance(observed, asked.mask), enhance(-observed, asked.mask)), null)


def _cluster_p(observed: FloatArray, asked: Permuting, null: FloatArray, what: str) -> FloatArray | None:
    if asked.mask is None or asked.cluster_height is None:
        return None
    p = np.ones(len(observed))
    for sign in (1, -1):
        for cluster in clusters_above(sign * observed, asked.mask, asked.cluster_height):
            p[cluster.voxels] = share_at_least(np.array([float(getattr(cluster, what))]), null)[0]
    return p
