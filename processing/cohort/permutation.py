"""Permutation inference: what the largest statistic of a map is when nothing is there.

One regression with nuisance, by Freedman & Lane (J Bus Econ Stat 1983;1:292; Winkler et al., NeuroImage 2014;92:381):
the residuals of the reduced model are permuted, whole subjects at a time, within exchangeability blocks. A one-sample
change flips signs. The family-wise P of a voxel is the share of permutations, the data as they are among them, whose
largest statistic is at least its own; the smallest possible one is 1 / (permutations + 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processing.cohort.design import Design, FloatArray
from processing.cohort.enhancement import enhance
from processing.cohort.lattice import BoolArray, clusters_above, largest_cluster

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
    outside; ``enhanced_p``: threshold-free; None where they were not asked for.
    """

    t: FloatArray
    p: FloatArray
    p_uncorrected: FloatArray
    largest: FloatArray
    n_permutations: int
    smallest_p: float
    size_p: FloatArray | None = None
    mass_p: FloatArray | None = None
    enhanced_p: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Permutations as rows that the residuals are multiplied with, (permutations, subjects) each.

    ``variable``: of unit length. ``nuisance``: orthonormal columns, one array for each; without the constant, to which
    residuals are orthogonal in any order.
    """

    variable: FloatArray
    nuisance: tuple[FloatArray, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Residuals:
    """Residuals of the reduced model, of unit length for each voxel; ``df`` of the t statistic."""

    unit: FloatArray  # (subjects, voxels)
    df: int

    def squared_r(self, rows: _Rows, voxels: slice) -> npt.NDArray[np.float32]:
        """Squared partial correlations (permutations, voxels), in single precision."""
        part = self.unit[:, voxels].astype(np.float32)
        across: npt.NDArray[np.float32] = rows.variable.astype(np.float32) @ part
        np.square(across, out=across)
        if rows.nuisance:
            rest = np.ones_like(across)
            for column in rows.nuisance:
                projected = column.astype(np.float32) @ part
                np.square(projected, out=projected)
                rest -= projected
            across /= np.maximum(rest, np.float32(1e-12), out=rest)
        return across

    def t(self, rows: _Rows) -> FloatArray:
        """t statistics (permutations, voxels)."""
        rest = 1 - sum(((column @ self.unit) ** 2 for column in rows.nuisance), start=np.float64(0.0))
        r = (rows.variable @ self.unit) / np.sqrt(np.maximum(rest, 1e-300))
        return self.t_of(r)

    def t_of(self, r: FloatArray) -> FloatArray:
        """t of a partial correlation."""
        t: FloatArray = r * np.sqrt(self.df / np.maximum(1 - r * r, 1e-300))
        return t


def _unit(values: FloatArray) -> FloatArray:
    """Each column of unit length; a column of zeros stays."""
    lengths = np.sqrt(np.einsum("ij,ij->j", values, values))
    unit: FloatArray = values / np.where(lengths > 0, lengths, 1.0)
    return unit


def permute_association(
    maps: FloatArray,
    design: Design,
    *,
    n_permutations: int,
    seed: int,
    mask: BoolArray | None = None,
    blocks: npt.NDArray[np.int64] | None = None,
    cluster_height: float | None = None,
    threshold_free: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> PermutationResult:
    """Voxel by variable, adjusted for covariates (Freedman-Lane).

    Args:
        maps: (subjects, voxels), without NaN: a voxel that not all subjects have is not exchangeable.
        design: of the same subjects. A group is a variable of 0 and 1.
        n_permutations: besides the data as they are.
        seed: of the permutations.
        mask: where the voxels lie; needed for clusters.
        blocks: subjects are exchanged within their block only (a site, a stratum).
        cluster_height: absolute t from which clusters form.
        threshold_free: also by threshold-free cluster enhancement.
        progress: is told the finished share.

    Raises:
        ValueError: NaN in the maps, other numbers of subjects, or a cluster analysis without mask.
    """
    _check(maps, design.n, mask, cluster_height, threshold_free)
    basis = np.linalg.qr(design.nuisance)[0]
    variable = design.variable - basis @ (basis.T @ design.variable)
    variable = variable / np.linalg.norm(variable)
    residuals = _Residuals(_unit(maps - basis @ (basis.T @ maps)), design.n - basis.shape[1] - 1)
    rng = np.random.default_rng(seed)
    groups = [np.arange(design.n)] if blocks is None else [np.flatnonzero(blocks == one) for one in np.unique(blocks)]

    def draw(count: int, first: bool) -> _Rows:
        orders = np.tile(np.arange(design.n), (count, 1))
        for group in groups:
            orders[:, group] = rng.permuted(orders[:, group], axis=1)
        if first:
            orders[0] = np.arange(design.n)
        inverse = np.argsort(orders, axis=1)  # to permute the residuals is to permute all else backwards
        return _Rows(variable[inverse], tuple(column[inverse] for column in basis.T[1:]))

    return _run(draw, residuals, n_permutations, mask, cluster_height, threshold_free, progress)


def flip_signs(
    changes: FloatArray,
    *,
    n_permutations: int,
    seed: int,
    mask: BoolArray | None = None,
    cluster_height: float | None = None,
    threshold_free: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> PermutationResult:
    """Whether the mean change differs from zero: one-sample t, whole subjects change their sign.

    ``changes``: (subjects, voxels), one row for each subject, without NaN; the rest as in :func:`permute_association`.
    """
    n = changes.shape[0]
    _check(changes, n, mask, cluster_height, threshold_free)
    if n < 3:
        raise ValueError(f"{n} subjects are too few for a one-sample test: at least 3 are needed")
    rng = np.random.default_rng(seed)

    def draw(count: int, first: bool) -> _Rows:
        signs = rng.choice(np.array([-1.0, 1.0]), size=(count, n))
        if first:
            signs[0] = 1.0
        return _Rows(signs / math.sqrt(n))

    return _run(draw, _Residuals(_unit(changes), n - 1), n_permutations, mask, cluster_height, threshold_free, progress)


def _check(
    maps: FloatArray, n: int, mask: BoolArray | None, cluster_height: float | None, threshold_free: bool
) -> None:
    if maps.ndim != 2 or maps.shape[0] != n:
        raise ValueError(f"maps of {maps.shape[0]} subjects, a design of {n}")
    if not np.isfinite(maps).all():
        raise ValueError("a voxel that not all subjects have cannot be permuted; leave it out")
    if mask is None and (cluster_height is not None or threshold_free):
        raise ValueError("clusters need to know where the voxels lie: give the mask")
    if mask is not None and int(mask.sum()) != maps.shape[1]:
        raise ValueError(f"a mask of {int(mask.sum())} voxels for maps of {maps.shape[1]}")


def _run(
    draw: Callable[[int, bool], _Rows],
    residuals: _Residuals,
    n_permutations: int,
    mask: BoolArray | None,
    height: float | None,
    threshold_free: bool,
    progress: Callable[[float], None],
) -> PermutationResult:
    total, n_voxels = n_permutations + 1, residuals.unit.shape[1]
    largest = np.zeros(total)  # squared r
    exceeding = np.zeros(n_voxels, dtype=np.int64)
    sizes, masses, enhanced = np.zeros(total), np.zeros(total), np.zeros(total)
    observed = np.empty(n_voxels)
    limit = np.empty(n_voxels, dtype=np.float32)
    for start in range(0, total, _PERMUTATIONS):
        count = min(_PERMUTATIONS, total - start)
        rows, these = draw(count, start == 0), slice(start, start + count)
        if start == 0:
            alone = _Rows(rows.variable[:1], tuple(one[:1] for one in rows.nuisance))
            observed = residuals.t(alone)[0]
            limit = (observed**2 / (observed**2 + residuals.df) * (1 - _ROUNDING)).astype(np.float32)
        for low in range(0, n_voxels, _VOXELS):
            voxels = slice(low, low + _VOXELS)
            squared = residuals.squared_r(rows, voxels)
            np.maximum(largest[these], squared.max(axis=1), out=largest[these])
            exceeding[voxels] += np.count_nonzero(squared >= limit[voxels], axis=0)
        if mask is not None and (height is not None or threshold_free):
            for index, t in enumerate(residuals.t(rows), start=start):
                if height is not None:
                    both = [largest_cluster(sign * t, mask, height) for sign in (1, -1)]
                    sizes[index], masses[index] = max(one for one, _ in both), max(one for _, one in both)
                if threshold_free:
                    enhanced[index] = max(enhance(sign * t, mask).max() for sign in (1, -1))
        progress((start + count) / total)
    null = residuals.t_of(np.sqrt(np.minimum(largest, 1.0)))
    clustered = mask is not None and height is not None
    return PermutationResult(
        t=observed,
        p=share_at_least(np.abs(observed), null),
        p_uncorrected=exceeding / total,
        largest=null,
        n_permutations=n_permutations,
        smallest_p=1 / total,
        size_p=_cluster_p(observed, mask, height, sizes, "size") if clustered else None,
        mass_p=_cluster_p(observed, mask, height, masses, "mass") if clustered else None,
        enhanced_p=_enhanced_p(observed, mask, enhanced) if mask is not None and threshold_free else None,
    )


def share_at_least(values: FloatArray, null: FloatArray) -> FloatArray:
    """The share of ``null`` that is at least each value, equal but for rounding included."""
    ordered = np.sort(null)
    below = np.searchsorted(ordered, values * (1 - _ROUNDING), side="left")
    share: FloatArray = (len(ordered) - below) / len(ordered)
    return share


def _enhanced_p(observed: FloatArray, mask: BoolArray, null: FloatArray) -> FloatArray:
    return share_at_least(np.maximum(enhance(observed, mask), enhance(-observed, mask)), null)


def _cluster_p(
    observed: FloatArray, mask: BoolArray | None, height: float | None, null: FloatArray, what: str
) -> FloatArray:
    p = np.ones(len(observed))
    if mask is None or height is None:
        return p
    for sign in (1, -1):
        for cluster in clusters_above(sign * observed, mask, height):
            p[cluster.voxels] = share_at_least(np.array([float(getattr(cluster, what))]), null)[0]
    return p
