"""Power of the voxel-wise comparison of two groups for a local effect, beside that of the mean of the whole region.

Maps of subjects are simulated as smooth Gaussian fields on the level's grid; in the second group a ball is shifted. A
voxel counts as found where its |t| exceeds the (1 - alpha) quantile of the largest |t| of maps without an effect, which
is what the permutation of the largest t estimates in each study.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from processing.cohort.design import DesignError, FloatArray

_FWHM_OF_SIGMA = math.sqrt(8 * math.log(2))


@dataclass(frozen=True, slots=True, eq=False)
class MapAssumptions:
    """What is assumed of a level's maps.

    ``mask`` (slices, rows, columns) and ``ball``, the part that is shifted by ``effect_ms``; ``spacing_mm``; ``sd_ms``:
    of a voxel over subjects; ``fwhm_mm`` of the fields; ``shared``: share of the variance that all voxels of a subject
    have in common; ``alpha`` two-sided, family-wise.
    """

    mask: npt.NDArray[np.bool_]
    ball: npt.NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    sd_ms: float
    effect_ms: float
    fwhm_mm: float
    shared: float = 0.0
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class MapPower:
    """Of one size. ``power``: share of studies that find a voxel of the ball, with its 95 % interval.

    ``found``: mean share of the ball that is found; ``false``: share of studies that find one outside it;
    ``region_power``: share in which the mean of the whole region differs at alpha; ``threshold_t``.
    """

    n_per_group: int
    power: float
    low: float
    high: float
    found: float
    false: float
    region_power: float
    threshold_t: float
    simulations: int


def ball_in(
    mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float], centre: FloatArray, radius_mm: float
) -> npt.NDArray[np.bool_]:
    """Voxels of ``mask`` within ``radius_mm`` of an index ``centre`` (3,).

    Raises:
        DesignError: there are none.
    """
    offsets = (np.indices(mask.shape).reshape(3, -1).T - centre) * np.array(spacing_mm)
    inside = (np.linalg.norm(offsets, axis=1) <= radius_mm).reshape(mask.shape) & mask
    if not inside.any():
        raise DesignError(f"a ball of {radius_mm:g} mm holds no voxel")
    return np.asarray(inside)


def simulate_map_power(assumed: MapAssumptions, n_per_group: int, *, simulations: int, seed: int) -> MapPower:
    """Power of one size; half of the work is the same studies without the effect, for the threshold.

    Raises:
        DesignError: fewer than two subjects a group, or numbers that cannot be.
    """
    if n_per_group < 2:
        raise DesignError("at least 2 subjects a group are needed")
    if assumed.sd_ms <= 0 or assumed.fwhm_mm <= 0 or not 0 <= assumed.shared < 1:
        raise DesignError("SD and FWHM must be above zero, the shared part from 0 to below 1")
    rng = np.random.default_rng([seed, n_per_group])
    box = tuple(slice(int(low), int(high) + 1) for low, high in _ends(assumed.mask))
    mask, ball = assumed.mask[box], assumed.ball[box][assumed.mask[box]]
    smooth = [_smoothing(n, assumed.fwhm_mm / mm) for n, mm in zip(mask.shape, assumed.spacing_mm, strict=True)]
    shift = assumed.effect_ms / assumed.sd_ms * ball
    null, largest = np.empty(simulations), np.empty((2, simulations))
    found, region = np.empty(simulations), np.empty(simulations)
    thresholds: list[tuple[FloatArray, FloatArray]] = []
    for one in range(simulations):
        difference, error = _difference(_fields(mask, smooth, assumed.shared, 2 * n_per_group, rng), n_per_group)
        null[one] = np.abs(difference[:-1] / error[:-1]).max()
        moved = (difference[:-1] + shift) / error[:-1]
        thresholds.append((np.abs(moved[ball]), np.abs(moved[~ball])))
        region[one] = abs(difference[-1] + shift.mean()) / error[-1]
    height = float(np.quantile(null, 1 - assumed.alpha, method="higher"))
    for one, (inside, outside) in enumerate(thresholds):
        found[one] = (inside > height).mean()
        largest[:, one] = inside.max(), outside.max() if len(outside) else 0.0
    hits = int((largest[0] > height).sum())
    low, high = proportion_confint(hits, simulations, alpha=0.05, method="beta")
    return MapPower(
        n_per_group,
        hits / simulations,
        float(low),
        float(high),
        float(found.mean()),
        float((largest[1] > height).mean()),
        float((region > stats.t.isf(assumed.alpha / 2, 2 * n_per_group - 2)).mean()),
        height,
        simulations,
    )


def _ends(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    places = np.argwhere(mask)
    return np.stack([places.min(axis=0), places.max(axis=0)], axis=1)


def _smoothing(n: int, fwhm: float) -> npt.NDArray[np.float32]:
    """Gaussian smoothing of n voxels in a row, each of unit variance for white noise."""
    reach = math.ceil(3 * fwhm / _FWHM_OF_SIGMA)
    distance = np.arange(n)[:, None] - np.arange(-reach, n + reach)
    weights = np.exp(-0.5 * (distance * _FWHM_OF_SIGMA / fwhm) ** 2)
    unit: npt.NDArray[np.float32] = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _fields(
    mask: npt.NDArray[np.bool_],
    smooth: list[npt.NDArray[np.float32]],
    shared: float,
    n: int,
    rng: np.random.Generator,
) -> FloatArray:
    """(n, voxels of the mask): smooth fields of unit variance, of which ``shared`` is the same for all voxels."""
    z, y, x = smooth
    noise = rng.standard_normal((n, z.shape[1], y.shape[1], x.shape[1]), dtype=np.float32)
    field = np.moveaxis(np.tensordot(noise @ x.T, y, axes=(2, 1)), -1, 2)
    field = np.moveaxis(np.tensordot(field, z, axes=(1, 1)), -1, 1)
    common = rng.standard_normal((n, 1))
    fields: FloatArray = math.sqrt(1 - shared) * field[:, mask] + math.sqrt(shared) * common
    return fields


def _difference(fields: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Second half less first, and its standard error by the pooled variance; last of all the mean over the voxels."""
    values = np.column_stack([fields, fields.mean(axis=1)])
    first, second = values[:n], values[n:]
    pooled = (first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / 2
    return second.mean(axis=0) - first.mean(axis=0), np.sqrt(2 * pooled / n)
