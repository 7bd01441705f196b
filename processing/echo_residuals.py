"""What one exponential leaves of the echoes of a tissue, seen in small tiles: a common scale, a pattern in space.

A tile's amplitude is the root mean square of its voxels less the noise power, sqrt(<S^2> - 2 sigma^2): unbiased where
Rician noise lifts a single voxel (E[S^2] = A^2 + 2 sigma^2), and with a third of a voxel's noise.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from processing.fitting import FitStatus, fit_monoexponential
from processing.results import EchoStack, LabelArray
from processing.volume import spacing_mm

_Float = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]
_Voxel = TypeVar("_Voxel", np.uint8, np.float32)

_TILE_MM = 2.3  # three pixels of the usual 0.78 mm; smaller than any disc is high


@dataclass(frozen=True, slots=True, eq=False)
class TileResiduals:
    """Tiles of one decay. (echoes, tiles) ``residual`` and ``model`` are shares of the tile's fitted S0.

    ``label``: what the tile consists of; ``place`` (tiles, 3): slice, and row and column counted in tiles.
    """

    times_ms: tuple[float, ...]
    residual: _Float
    model: _Float
    label: LabelArray
    place: npt.NDArray[np.intp]
    noise: float  # SD of a voxel's noise over the mean S0 of the tiles


@dataclass(frozen=True, slots=True, eq=False)
class EchoGains:
    """If one echo alone had another scale: its gain, less 1, and the share of all residuals it explains, (echoes,)."""

    gain: _Float
    explained: _Float
    n_tiles: int


def noise_sd(stack: EchoStack, voxels: _Bool) -> float:
    """SD of the noise of single voxels (slices, rows, columns), from the median residual of their fits; NaN if none."""
    fit = fit_monoexponential(stack.signal[:, voxels], stack.times_ms)
    power = fit.residual_rms[fit.status == FitStatus.FITTED] ** 2 * len(stack.times_ms)
    if len(power) == 0:
        return float("nan")
    return float(np.sqrt(np.median(power) / chi2.median(len(stack.times_ms) - 2)))


def tile_residuals(stack: EchoStack, labels: LabelArray, *, noise: float, filled: float) -> TileResiduals:
    """Fit the tiles of which a share of ``filled`` or more has one label other than 0.

    Args:
        stack: the decay.
        labels: (slices, rows, columns) uint8, up to three in a tile; the most frequent counts.
        noise: :func:`noise_sd`.
        filled: share of a tile's voxels, above 0.5 to 1.
    """
    # At least two voxels each way: neighbours share their noise where the scanner filled up its k-space with zeros.
    height, width = (max(2, round(_TILE_MM / step)) for step in spacing_mm(stack.affine)[1:])
    blocks = _blocks(labels, height, width)
    label = np.median(blocks, axis=-1).astype(np.uint8)  # more than half of them have it, or it is not used
    inside = (blocks == label[..., None]) & (blocks > 0)
    used = inside.mean(axis=-1) >= filled
    weight = inside[used].astype(np.float64)
    power = np.stack(
        [(weight * _blocks(echo, height, width)[used].astype(np.float64) ** 2).sum(axis=-1) for echo in stack.signal]
    )
    amplitude = np.sqrt(np.maximum(power / weight.sum(axis=-1) - 2 * noise**2, 0.0))
    fit = fit_monoexponential(amplitude, stack.times_ms)
    good = (fit.status == FitStatus.FITTED) & (fit.s0 > 5 * noise)  # in the dark there is only noise
    times = np.asarray(stack.times_ms)[:, None]
    model = np.exp(-times / fit.time_ms[good])
    return TileResiduals(
        times_ms=stack.times_ms,
        residual=amplitude[:, good] / fit.s0[good] - model,
        model=model,
        label=label[used][good],
        place=np.argwhere(used)[good],
        noise=noise / float(fit.s0[good].mean()) if good.any() else float("nan"),
    )


def echo_gains(tiles: TileResiduals, labels: Collection[int]) -> EchoGains:
    """Least-squares gain of each echo on its own, from the tiles of some labels.

    A small gain g of echo k adds g m_k to the signal. The fit of two parameters takes away what lies in the plane of
    its two derivatives (m, t m); what is left, q_k, is compared with the residuals: g = sum(r q_k) / sum(q_k^2).
    """
    chosen = np.isin(tiles.label, list(labels))
    residual, model = tiles.residual[:, chosen], tiles.model[:, chosen]
    left = _left_by_fit(model, np.asarray(tiles.times_ms))  # (echo that gains, echoes, tiles)
    common = np.einsum("et,ket->k", residual, left)
    power = np.einsum("ket,ket->k", left, left)
    total = float((residual**2).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return EchoGains(common / power, common**2 / power / np.float64(total), int(chosen.sum()))


def neighbour_residual(tiles: TileResiduals, chosen: _Bool) -> tuple[_Float, int]:
    """Residual that neighbouring tiles share, as a share of S0, for each echo; and the number of pairs.

    The mean product of neighbours' residuals, whose noise is independent: noise alone gives 0 on average. Pairs along
    rows and along columns are taken apart, as a pattern may change its sign across the disc; the larger counts.
    """
    where = tiles.place[chosen]
    if not len(where):
        return np.zeros(len(tiles.times_ms)), 0
    grid = np.full((len(tiles.times_ms), *(where.max(axis=0) + 2)), np.nan)
    grid[:, where[:, 0], where[:, 1], where[:, 2]] = tiles.residual[:, chosen]
    best, pairs = np.zeros(len(grid)), 0
    for one, other in ((grid[:, :, 1:], grid[:, :, :-1]), (grid[..., 1:], grid[..., :-1])):
        product = (one * other).reshape(len(grid), -1)
        product = product[:, np.isfinite(product).all(axis=0)]
        if product.shape[1]:
            best = np.maximum(best, product.mean(axis=1))
            pairs = max(pairs, product.shape[1])
    return np.sqrt(best), pairs


def _blocks(volume: npt.NDArray[_Voxel], height: int, width: int) -> npt.NDArray[_Voxel]:
    """(slices, rows, columns) -> (slices, tiles down, tiles across, voxels)."""
    slices, rows, columns = volume.shape
    down, across = rows // height, columns // width
    cut = volume[:, : down * height, : across * width].reshape(slices, down, height, across, width)
    return cut.transpose(0, 1, 3, 2, 4).reshape(slices, down, across, height * width)


def _left_by_fit(model: _Float, times: _Float) -> _Float:
    """(echoes, echoes, tiles): what is left of the signal of echo k alone when S0 and T are fitted, tile by tile."""
    first = model / np.linalg.norm(model, axis=0)
    second = times[:, None] * model
    second = second - (first * second).sum(axis=0) * first
    second /= np.linalg.norm(second, axis=0)
    alone = np.eye(len(model))[:, :, None] * model
    for direction in (first, second):
        alone = alone - np.einsum("ket,et->kt", alone, direction)[:, None] * direction
    return alone
