"""The noise of a magnitude image: its standard deviation from the background, and what it does to the mean signal."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import i0e, i1e

_Float64 = npt.NDArray[np.float64]

#: Background needed, in squares of 8 x 8 voxels: over four echoes the standard deviation is then known to 2 %.
MIN_SQUARES = 8

#: Largest distance between the distribution of the background and Rayleigh's. Images smoothed after the magnitude was
#: taken reach 0.1 and more; quantised noise of 2 stored units stays below 0.01.
MAX_DISTANCE = 0.03

#: Largest difference between the mean backgrounds of two echoes, as a share: noise does not decay, faint tissue does.
MAX_DECAY = 0.05

_SIDE = 8  # voxels
_ALIKE = 0.8, 1.25  # squares of noise alone have this power, relative to their median; interpolated ones scatter by 0.1


@dataclass(frozen=True, slots=True)
class NoiseEstimate:
    """Standard deviation of the noise in each of the two channels of a magnitude image, in units of the signal.

    NaN where it is unknown; ``doubt`` then says why.
    """

    sd: float
    n_voxels: int
    doubt: str | None = None


def estimate_noise(signal: npt.NDArray[np.floating]) -> NoiseEstimate:
    """Noise of the images (echoes, slices, rows, columns) of one scan, from the squares of them that hold nothing else.

    In noise alone the mean square of the magnitude is 2σ² in every echo (Rayleigh's distribution). Squares of 8 x 8
    voxels are chosen by the first echo, in which faint tissue shows most; σ is measured in the others, whose noise had
    no part in the choice. It must neither decay from echo to echo nor be distributed otherwise. There is no such part
    of the image where the scanner has masked, thresholded or smoothed the background.
    """
    squares = _squares(signal)
    if squares.shape[1] < MIN_SQUARES:
        return NoiseEstimate(float("nan"), 0, f"{squares.shape[1]} squares of the image hold a signal throughout")
    noise = squares[1:, _darkest((squares[0] ** 2).mean(axis=1))]
    n_squares, n_voxels = noise.shape[1], noise[0].size
    sd = float(np.sqrt((noise**2).mean() / 2))
    means = noise.mean(axis=(1, 2))
    distance = _distance_from_rayleigh(noise, sd) if sd > 0 else float("nan")
    doubt = None
    if not sd > 0:
        doubt = "the background is empty in the later echoes"
    elif n_squares < MIN_SQUARES:
        doubt = f"{n_squares} squares of the image are alike in being dark, {MIN_SQUARES} are needed"
    elif np.ptp(means) > MAX_DECAY * means.mean():
        doubt = "the darkest part of the image decays from echo to echo: it is tissue, or masked around it"
    elif not distance <= MAX_DISTANCE:
        doubt = f"the background is {distance:.2f} off Rayleigh's distribution: smoothed, thresholded or uneven"
    return NoiseEstimate(sd if doubt is None else float("nan"), n_voxels, doubt)


def expected_magnitude(signal: _Float64) -> tuple[_Float64, _Float64]:
    """Mean of a magnitude image where the true signal is ``signal`` (any shape), and its derivative.

    Both in units of the noise's standard deviation σ. The mean of Rice's distribution is
    σ·√(π/2)·L½(-S²/2σ²) with Laguerre's L½(-x) = e^(-x/2)·((1 + x)·I0(x/2) + x·I1(x/2)) (Rice, Bell Syst Tech J
    1944;23:282-332; Koay and Basser, J Magn Reson 2006;179:317-322). It holds for one receiver channel, or channels
    combined into one complex image first.
    """
    x = signal * signal / 2
    zeroth, first = i0e(x / 2), i1e(x / 2)
    root = np.sqrt(np.pi / 2)
    return root * ((1 + x) * zeroth + x * first), root / 2 * signal * (zeroth + first)


def _squares(signal: npt.NDArray[np.floating]) -> _Float64:
    """(echoes, squares, 64): the squares in which no voxel is missing in an echo or zero in all of them."""
    echoes, slices, rows, columns = signal.shape
    down, across = rows // _SIDE, columns // _SIDE
    cut = signal[:, :, : down * _SIDE, : across * _SIDE].reshape(echoes, slices, down, _SIDE, across, _SIDE)
    squares = cut.transpose(0, 1, 2, 4, 3, 5).reshape(echoes, slices * down * across, _SIDE**2)
    whole = (np.isfinite(squares).all(axis=0) & (squares != 0).any(axis=0)).all(axis=1)
    return squares[:, whole].astype(np.float64)


def _darkest(power: _Float64) -> npt.NDArray[np.intp]:
    """The darkest quarter of the squares that have about the same power, beginning from below; never empty."""
    middle = float(np.quantile(power, 0.02, method="lower"))  # that of a square: between two there may be none
    alike = np.flatnonzero(power == middle)
    for _ in range(100):
        found = np.flatnonzero((power >= _ALIKE[0] * middle) & (power <= _ALIKE[1] * middle))
        if not len(found) or len(found) == len(alike):
            break
        alike, middle = found, float(np.median(power[found]))
    return alike[power[alike] <= np.quantile(power[alike], 0.25)]


def _distance_from_rayleigh(noise: _Float64, sd: float) -> float:
    """Largest difference between cumulative distributions (Kolmogorov's), taken mid-step for values that repeat."""
    values, counts = np.unique(noise, return_counts=True)
    observed = (np.cumsum(counts) - counts / 2) / noise.size
    return float(np.abs(observed - (1 - np.exp(-((values / sd) ** 2) / 2))).max())
