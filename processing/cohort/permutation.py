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
from processing.cohort.lattice import BoolArray, largest_cluster

#: Values of permuted maps that are held at once: memory does not grow with the number of permutations.
_HELD = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class PermutationResult:
    """Observed statistic and family-wise P values of a map, (voxels,), two-sided.

    ``t``; ``p``: by the largest absolute t; ``p_uncorrected``: voxel by voxel; ``largest``: the largest absolute t of
    each permutation, the data as they are first. ``size_p`` and ``mass_p``: of the cluster that a voxel is in, 1 outside;
    ``enhanced_p``: threshold-free; None where they were not asked for.
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


@dataclass(frozen=True, slots=True)
class _Statistic:
    """Residuals of the reduced model, and what turns a permuted variable into t maps."""

    residuals: FloatArray  # (n, voxels)
    variable: FloatArray  # (n,), adjusted for the nuisance
    basis: FloatArray  # (n, k): orthonormal columns of the nuisance
    df: int

    def t_maps(self, orders: npt.NDArray[np.int64]) -> FloatArray:
        """(permutations, voxels). Permuting the residuals is permuting variable and nuisance backwards."""
        lengths = np.einsum("ij,ij->j", self.residuals, self.residuals)
        inverse = np.argsort(orders, axis=1)
        across = self.variable[inverse] @ self.residuals
        rest = np.broadcast_to(lengths, across.shape).copy()
        for column in range(self.basis.shape[1]):
            if np.ptp(self.basis[:, column]) == 0:
                continue  # the constant: residuals sum to zero in any order
            rest -= (self.basis[:, column][inverse] @ self.residuals) ** 2
        return self._t(across, rest)

    def _t(self, across: FloatArray, rest: FloatArray) -> FloatArray:
        length = float(self.variable @ self.variable)
        np.maximum(rest - across**2 / length, 1e-300, out=rest)
        t: FloatArray = across * (math.sqrt(self.df / length)) / np.sqrt(rest)
        return t


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
    residuals = maps - basis @ (basis.T @ maps)
    statistic = _Statistic(residuals, variable, basis, design.n - basis.shape[1] - 1)
    rng = np.random.default_rng(seed)
    groups = [np.arange(design.n)] if blocks is None else [np.flatnonzero(blocks == one) for one in np.unique(blocks)]

    def draw(count: int, first: bool) -> FloatArray:
        orders = np.tile(np.arange(design.n), (count, 1))
        for group in groups:
            orders[:, group] = rng.permuted(orders[:, group], axis=1)
        if first:
            orders[0] = np.arange(design.n)
        return statistic.t_maps(orders)

    return _run(draw, maps.shape[1], n_permutations, mask, cluster_height, threshold_free, progress)


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
    squares = np.einsum("ij,ij->j", changes, changes)

    def draw(count: int, first: bool) -> FloatArray:
        signs = rng.choice(np.array([-1.0, 1.0]), size=(count, n))
        if first:
            signs[0] = 1.0
        sums = signs @ changes
        rest = np.maximum(squares - sums**2 / n, 1e-300)
        t: FloatArray = sums / n / np.sqrt(rest / (n - 1) / n)
        return t

    return _run(draw, changes.shape[1], n_permutations, mask, cluster_height, threshold_free, progress)


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
    draw: Callable[[int, bool], FloatArray],
    n_voxels: int,
    n_permutations: int,
    mask: BoolArray | None,
    height: float | None,
    threshold_free: bool,
    progress: Callable[[float], None],
) -> PermutationResult:
    total = n_permutations + 1
    at_once = max(1, min(total, _HELD // max(1, n_voxels)))
    largest = np.empty(total)
    sizes, masses, enhanced = np.zeros(total), np.zeros(total), np.zeros(total)
    exceeding = np.zeros(n_voxels)
    observed = np.empty(n_voxels)
    for start in range(0, total, at_once):
        count = min(at_once, total - start)
        t = draw(count, start == 0)
        if start == 0:
            observed = t[0].copy()
        absolute = np.abs(t)
        largest[start : start + count] = absolute.max(axis=1)
        exceeding += (absolute >= np.abs(observed) - 1e-9).sum(axis=0)
        for index in range(count):
            if mask is not None and height is not None:
                both = [largest_cluster(sign * t[index], mask, height) for sign in (1, -1)]
                sizes[start + index] = max(size for size, _ in both)
                masses[start + index] = max(mass for _, mass in both)
            if mask is not None and threshold_free:
                enhanced[start + index] = max(enhance(sign * t[index], mask).max() for sign in (1, -1))
        progress(min(1.0, (start + count) / total))
    result = PermutationResult(
        t=observed,
        p=share_at_least(np.abs(observed), largest),
        p_uncorrected=exceeding / total,
        largest=largest,
        n_permutations=n_permutations,
        smallest_p=1 / total,
        size_p=_cluster_p(observed, mask, height, sizes, "size") if mask is not None and height is not None else None,
        mass_p=_cluster_p(observed, mask, height, masses, "mass") if mask is not None and height is not None else None,
        enhanced_p=(
            share_at_least(np.maximum(enhance(observed, mask), enhance(-observed, mask)), enhanced)
            if mask is not None and threshold_free
            else None
        ),
    )
    return result


def share_at_least(values: FloatArray, null: FloatArray) -> FloatArray:
    """The share of ``null`` that is at least each value, equal but for rounding included."""
    ordered = np.sort(null)
    below = np.searchsorted(ordered, values - 1e-9 * np.maximum(1.0, np.abs(values)), side="left")
    share: FloatArray = (len(ordered) - below) / len(ordered)
    return share


def _cluster_p(
    observed: FloatArray, mask: BoolArray, height: float, null: FloatArray, what: str
) -> FloatArray:
    from processing.cohort.lattice import clusters_above

    p = np.ones(len(observed))
    for sign in (1, -1):
        for cluster in clusters_above(sign * observed, mask, height):
            p[cluster.voxels] = share_at_least(np.array([float(getattr(cluster, what))]), null)[0]
    return p
