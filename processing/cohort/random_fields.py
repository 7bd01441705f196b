"""Random field theory for Gaussian and t fields in two and three dimensions.

Formulas: Worsley et al., Hum Brain Mapp 1996;4:58-73 (densities of the Euler characteristic, resels); Kiebel et al.,
NeuroImage 1999;10:756 and Hayasaka & Nichols, NeuroImage 2003;20:2343 (smoothness from residuals); Friston et al., Hum
Brain Mapp 1994;1:210 (extent of clusters).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize, special, stats

from processing.cohort.design import FloatArray

BoolArray = npt.NDArray[np.bool_]

_A = 4 * math.log(2)


@dataclass(frozen=True, slots=True)
class Smoothness:
    """How smooth a field is: ``fwhm`` in voxels along each axis; ``resels`` R0, R1, R2 (, R3) of the mask."""

    fwhm: tuple[float, ...]
    resels: tuple[float, ...]
    n_voxels: int

    @property
    def dimension(self) -> int:
        """Of the lattice: axes along which the mask is more than one voxel."""
        return len(self.resels) - 1


def euler_densities(t: float | FloatArray, df: float = math.inf) -> FloatArray:
    """rho_0 to rho_3 at height ``t``, (4, ...); ``df`` infinite: a Gaussian field."""
    height = np.asarray(t, dtype=np.float64)
    if math.isinf(df):
        tail, fall = stats.norm.sf(height), np.exp(-(height**2) / 2)
        second, third = height, height**2 - 1
    else:
        tail = stats.t.sf(height, df)
        fall = (1 + height**2 / df) ** (-(df - 1) / 2)
        ratio = math.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / math.sqrt(df / 2)
        second, third = height * ratio, (df - 1) * height**2 / df - 1
    return np.stack(
        [
            tail,
            _A**0.5 / (2 * math.pi) * fall,
            _A / (2 * math.pi) ** 1.5 * fall * second,
            _A**1.5 / (2 * math.pi) ** 2 * fall * third,
        ]
    )


def resels_of(mask: BoolArray, fwhm: Sequence[float]) -> tuple[float, ...]:
    """R0, R1, R2 (, R3) of a lattice of voxels, from its points, edges, faces and cubes.

    Args:
        mask: of two or three axes.
        fwhm: in voxels, for each axis.
    """
    if mask.ndim == 2:
        two = resels_of(mask[None], (1.0, *fwhm))
        return two[:3]
    r = [1 / one for one in fwhm]
    m = mask
    points = int(m.sum())
    edges = [_both(m, axis) for axis in range(3)]
    counts = [int(one.sum()) for one in edges]
    faces = {(i, j): _both(edges[i], j) for i, j in ((0, 1), (0, 2), (1, 2))}
    f = {pair: int(one.sum()) for pair, one in faces.items()}
    cubes = int(_both(faces[(0, 1)], 2).sum())
    r0 = points - sum(counts) + sum(f.values()) - cubes
    beside = {0: ((0, 1), (0, 2)), 1: ((0, 1), (1, 2)), 2: ((0, 2), (1, 2))}
    r1 = sum((counts[i] - f[beside[i][0]] - f[beside[i][1]] + cubes) * r[i] for i in range(3))
    r2 = sum((f[i, j] - cubes) * r[i] * r[j] for i, j in f)
    r3 = cubes * r[0] * r[1] * r[2]
    return (float(r0), float(r1), float(r2), float(r3))


def _both(mask: BoolArray, axis: int) -> BoolArray:
    """Where a thing and its neighbour along an axis are both there."""
    first = [slice(None)] * mask.ndim
    second = [slice(None)] * mask.ndim
    first[axis], second[axis] = slice(0, -1), slice(1, None)
    both: BoolArray = mask[tuple(first)] & mask[tuple(second)]
    return both


def smoothness(residuals: FloatArray, mask: BoolArray) -> Smoothness:
    """Smoothness of a t field from the residuals of its model.

    Each voxel's residuals are scaled to unit length; the covariance of their spatial differences gives the resels per
    voxel, and FWHM of each axis is scaled so that their product agrees with the mean of that.

    Args:
        residuals: (scans, voxels in ``mask``), in the order of ``mask``'s voxels.
        mask: (rows, columns) or (slices, rows, columns). An axis of one voxel does not count.

    Raises:
        ValueError: the mask has no two neighbours along an axis.
    """
    axes = [axis for axis in range(mask.ndim) if mask.shape[axis] > 1]
    field = np.zeros((residuals.shape[0], *mask.shape))
    lengths = np.sqrt(np.einsum("ij,ij->j", residuals, residuals))
    field[:, mask] = residuals / np.where(lengths > 0, lengths, np.inf)
    gradients, inside = [], mask.copy()
    for axis in axes:
        forward = np.zeros_like(field)
        there = np.zeros_like(mask)
        low, high = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        low[axis], high[axis] = slice(0, -1), slice(1, None)
        there[tuple(low)] = _both(mask, axis)
        if not there.any():
            raise ValueError(f"no two voxels of the mask are neighbours along axis {axis}")
        forward[(slice(None), *low)] = field[(slice(None), *high)] - field[(slice(None), *low)]
        gradients.append(forward)
        inside &= there
    if not inside.any():
        raise ValueError("no voxel of the mask has neighbours along all axes")
    d = len(axes)
    products = np.empty((int(inside.sum()), d, d))
    for i in range(d):
        for j in range(i, d):
            products[:, i, j] = products[:, j, i] = (gradients[i][:, inside] * gradients[j][:, inside]).sum(axis=0)
    density = np.sqrt(np.clip(np.linalg.det(products), 0, None) / _A**d)  # resels per voxel
    mean_density = float(density.mean())
    diagonal = np.sqrt(np.array([products[:, i, i].mean() for i in range(d)]) / _A)  # 1/FWHM
    if mean_density <= 0 or not (diagonal > 0).all():
        raise ValueError("the residuals do not vary in space")
    scaled = diagonal * (mean_density / diagonal.prod()) ** (1 / d)
    fwhm = [math.inf] * mask.ndim
    for axis, one in zip(axes, scaled, strict=True):
        fwhm[axis] = 1 / float(one)
    squeezed = mask.reshape([mask.shape[axis] for axis in axes])
    kept = [fwhm[axis] for axis in axes]
    resels = resels_of(squeezed, kept) if d >= 2 else _line_resels(squeezed, kept[0])
    return Smoothness(tuple(fwhm), _without_holes(resels, squeezed), int(mask.sum()))


def _without_holes(resels: tuple[float, ...], mask: BoolArray) -> tuple[float, ...]:
    """Holes and handles lower R0 and may turn others negative; what is expected is then no bound: they do not count."""
    components = ndimage.label(mask)[1]
    return (max(resels[0], float(components)), *(max(one, 0.0) for one in resels[1:]))


def _line_resels(mask: BoolArray, fwhm: float) -> tuple[float, ...]:
    edges = int((mask[:-1] & mask[1:]).sum())
    return float(mask.sum() - edges), edges / fwhm


def expected_euler(t: float | FloatArray, resels: Sequence[float], df: float = math.inf) -> FloatArray:
    """Expected Euler characteristic of the excursion set above ``t``."""
    densities = euler_densities(t, df)
    total: FloatArray = sum(r * densities[d] for d, r in enumerate(resels))
    return np.asarray(total)


def peak_p(t: FloatArray, field: Smoothness, df: float = math.inf) -> FloatArray:
    """Family-wise P of a height (one-sided), NaN where ``t`` is.

    The smaller of Bonferroni's and the expected Euler characteristic, an upper bound of the probability of a peak.
    """
    theory = np.clip(expected_euler(t, field.resels, df), 0, 1)
    # Below the height where it is 1 the expected Euler characteristic is no bound any more.
    theory = np.where(np.asarray(t) < 1.0, 1.0, theory)
    bonferroni = np.minimum(1.0, field.n_voxels * euler_densities(t, df)[0])
    return np.where(np.isnan(t), np.nan, np.minimum(theory, bonferroni))


def peak_threshold(alpha: float, field: Smoothness, df: float = math.inf, *, with_bonferroni: bool = True) -> float:
    """The height whose family-wise P is ``alpha`` (one-sided); 0 < alpha < 0.5."""
    height = threshold_of_resels(alpha, field.resels, df)
    tail = alpha / field.n_voxels
    bonferroni = float(stats.norm.isf(tail) if math.isinf(df) else stats.t.isf(tail, df))
    return min(height, bonferroni) if with_bonferroni else height


def threshold_of_resels(alpha: float, resels: Sequence[float], df: float = math.inf) -> float:
    """The height at which the expected Euler characteristic is ``alpha``, as in K. Worsley's stat_threshold.

    Raises:
        ValueError: a t field of no more degrees of freedom than dimensions: it has no bounded peaks (Worsley, Adv Appl
            Prob 1994;26:13).
    """
    if df <= len(resels) - 1:
        raise ValueError(f"{df:g} degrees of freedom are too few for a field of {len(resels) - 1} dimensions")
    low, high = 1.0, 10.0
    while float(expected_euler(high, resels, df)) > alpha:
        high *= 2
    return float(optimize.brentq(lambda t: float(expected_euler(t, resels, df)) - alpha, low, high, xtol=1e-10))


def cluster_p(extent_voxels: FloatArray, forming: float, field: Smoothness, df: float = math.inf) -> FloatArray:
    """Family-wise P of clusters of so many voxels above the height ``forming``, fixed in advance (one-sided)."""
    d = field.dimension
    expected_clusters = float(expected_euler(forming, field.resels, df))
    densities = euler_densities(forming, df)
    mean_extent = float(densities[0] / densities[d])  # resels
    beta = (math.gamma(d / 2 + 1) / mean_extent) ** (2 / d)
    per_voxel = field.resels[d] / field.n_voxels
    single = np.exp(-beta * (np.asarray(extent_voxels, dtype=np.float64) * per_voxel) ** (2 / d))
    family: FloatArray = -np.expm1(-expected_clusters * single)
    return family


def peak_p_within_cluster(t: FloatArray, forming: float, field: Smoothness, df: float = math.inf) -> FloatArray:
    """P of a peak above the height ``forming``, chosen in advance: rho_D(t) / rho_D(forming)."""
    d = field.dimension
    ratio: FloatArray = euler_densities(t, df)[d] / euler_densities(forming, df)[d]
    return ratio
