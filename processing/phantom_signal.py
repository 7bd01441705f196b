"""What a scanner would measure of phantom tissue: contrast, decay, coil, k-space and noise.

MAPSS: S(TSL) = M0 exp(-TSL / T1rho) and S(TE) = M0 exp(-TE / T2) share one M0, that of a fat-suppressed spoiled
gradient echo (the cycled radio-frequency phase removes the T1 recovery term, so two parameters describe the decay).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from processing.phantom_tissue import Tissue, TissueSlice
from processing.results import FloatArray

_Table = npt.NDArray[np.float32]

# Relative signal of each tissue without preparation, T1rho and T2 in ms (3 T; muscle and fat: Pai 2008).
#                         MAPSS  FSE PD  T1rho  T2
_PROPERTIES = {
    Tissue.AIR: (0.00, 0.00, 50.0, 40.0),
    Tissue.FAT: (0.11, 1.00, 70.0, 100.0),
    Tissue.MUSCLE: (0.55, 0.75, 42.0, 34.0),
    Tissue.MARROW: (0.34, 0.62, 75.0, 62.0),
    Tissue.CORTEX: (0.06, 0.12, 25.0, 15.0),
    Tissue.END_PLATE: (0.10, 0.15, 30.0, 18.0),
    Tissue.DISC: (0.80, 0.75, 70.0, 50.0),
    Tissue.CSF: (0.62, 1.10, 900.0, 700.0),
    Tissue.NERVE: (0.60, 0.80, 105.0, 80.0),
    Tissue.EPIDURAL_FAT: (0.14, 1.00, 70.0, 100.0),
    Tissue.VESSEL: (0.30, 0.10, 110.0, 90.0),
    Tissue.BOWEL: (0.42, 0.70, 80.0, 65.0),
    Tissue.SACRUM: (0.34, 0.62, 75.0, 62.0),
    Tissue.SACRAL_DISC: (0.62, 0.70, 66.0, 46.0),
    Tissue.SACRAL_END_PLATE: (0.10, 0.15, 30.0, 18.0),
    Tissue.VEIN: (0.55, 0.90, 120.0, 110.0),
    Tissue.HAEMANGIOMA: (0.66, 1.00, 130.0, 120.0),
    Tissue.MODIC: (0.48, 0.75, 95.0, 85.0),
    Tissue.KIDNEY: (0.80, 0.95, 100.0, 90.0),
    Tissue.VACUUM: (0.00, 0.00, 50.0, 40.0),
    Tissue.POSTERIOR_BONE: (0.30, 0.60, 75.0, 62.0),
    Tissue.VENOUS: (0.42, 0.25, 130.0, 110.0),
    Tissue.ROOT: (0.60, 0.80, 105.0, 80.0),
}
_TABLE = np.array([_PROPERTIES[tissue] for tissue in Tissue], dtype=np.float32)
#: Fraction of each tissue's signal that comes from fat, which is shifted along the readout.
FATTY: _Table = np.zeros(len(Tissue), dtype=np.float32)
FATTY[[Tissue.FAT, Tissue.EPIDURAL_FAT]] = 1.0
FATTY[[Tissue.MARROW, Tissue.SACRUM, Tissue.POSTERIOR_BONE, Tissue.HAEMANGIOMA, Tissue.MODIC]] = 0.5
T1RHO_MS: _Table = _TABLE[:, 2]
T2_MS: _Table = _TABLE[:, 3]


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Signal of each tissue; discs go from ``annulus`` to ``nucleus``, weighted by exp(-echo_time_ms / T2)."""

    base: _Table  # (tissues,)
    annulus: float
    nucleus: float
    echo_time_ms: float


def mapss_contrast() -> Contrast:
    """The first MAPSS echo: fat-suppressed, discs brighter than marrow."""
    return Contrast(_TABLE[:, 0], annulus=0.72, nucleus=0.90, echo_time_ms=0.0)


def fse_contrast(echo_time_ms: float) -> Contrast:
    """A fast spin echo without fat suppression; fat stays bright (J-coupling is broken by the echo train)."""
    return Contrast(_TABLE[:, 1] * np.exp(-np.float32(echo_time_ms) / T2_MS), 0.70, 0.90, echo_time_ms)


def random_contrast(rng: np.random.Generator) -> Contrast:
    """A contrast for training: MAPSS-like, T1rho or T2 FSE, T1-like, or fully random; always jittered."""
    mode = rng.choice(4, p=(0.38, 0.32, 0.10, 0.20))
    if mode == 0:
        echo = float(rng.choice((0.0, 0.0, 0.0, 10.0, 25.0)))
        start = mapss_contrast()
        contrast = Contrast(start.base * np.exp(-np.float32(echo) / T2_MS), start.annulus, start.nucleus, echo)
        contrast.base[[Tissue.FAT, Tissue.EPIDURAL_FAT]] *= rng.uniform(0.3, 3.0)  # fat suppression varies and fails
        contrast.base[[Tissue.MARROW, Tissue.SACRUM, Tissue.POSTERIOR_BONE]] *= rng.uniform(0.5, 1.6)
    elif mode == 1:
        contrast = fse_contrast(float(rng.uniform(8, 130)))
        if rng.random() < 0.25:  # short-tau inversion or spectral fat suppression
            contrast.base[[Tissue.FAT, Tissue.EPIDURAL_FAT]] *= 0.2
            contrast.base[[Tissue.MARROW, Tissue.SACRUM, Tissue.POSTERIOR_BONE]] *= 0.5
    elif mode == 2:
        base = _TABLE[:, 1].copy()
        base[[Tissue.CSF, Tissue.NERVE]] = 0.2, 0.35
        base[[Tissue.MUSCLE, Tissue.KIDNEY, Tissue.BOWEL]] *= 0.6
        contrast = Contrast(base, rng.uniform(0.28, 0.45), rng.uniform(0.25, 0.45), 0.0)
    else:
        base = rng.uniform(0.1, 1.0, len(Tissue)).astype(np.float32)
        base[[Tissue.AIR, Tissue.VACUUM]] = 0
        base[[Tissue.CORTEX, Tissue.END_PLATE]] = rng.uniform(0.0, 0.15)
        base[Tissue.SACRUM] = base[Tissue.POSTERIOR_BONE] = base[Tissue.MARROW]
        base[Tissue.SACRAL_END_PLATE] = base[Tissue.END_PLATE]
        annulus = rng.uniform(0.15, 1.0)
        contrast = Contrast(base, annulus, annulus * rng.uniform(0.8, 1.8), 0.0)
        base[Tissue.SACRAL_DISC] = annulus
    jitter = np.exp(0.15 * rng.standard_normal(len(Tissue))).astype(np.float32)
    jitter[Tissue.SACRUM] = jitter[Tissue.MARROW] * np.float32(np.exp(0.04 * rng.standard_normal()))
    jitter[Tissue.SACRAL_END_PLATE] = jitter[Tissue.END_PLATE]
    base = contrast.base * jitter
    base[Tissue.VESSEL] *= rng.uniform(0.05, 2.0)  # flow void or inflow
    base[Tissue.VENOUS] *= rng.uniform(0.05, 2.0)
    base[Tissue.BOWEL] *= rng.uniform(0.1, 1.5)
    return Contrast(base, contrast.annulus, contrast.nucleus, contrast.echo_time_ms)


def intensity(tissue: TissueSlice, contrast: Contrast) -> FloatArray:
    """Unprepared signal (rows, columns) of tissue samples in a contrast."""
    signal: FloatArray = contrast.base[tissue.tissue].astype(np.float32)
    inside = tissue.tissue == Tissue.DISC
    nucleus = tissue.nucleus[inside]
    value = np.float32(contrast.annulus) + nucleus * np.float32(contrast.nucleus - contrast.annulus)
    if contrast.echo_time_ms:
        value = value * np.exp(-np.float32(contrast.echo_time_ms) / tissue.t2_ms[inside])
    signal[inside] = value
    return signal


def decay(tissue: TissueSlice, time_ms: float, table_ms: _Table, disc_ms: FloatArray) -> FloatArray:
    """exp(-time / T) of tissue samples (rows, columns), T from ``disc_ms`` in discs and from the table elsewhere."""
    factor: FloatArray = np.exp(-np.float32(time_ms) / table_ms)[tissue.tissue]
    inside = tissue.tissue == Tissue.DISC
    factor[inside] = np.exp(-np.float32(time_ms) / disc_ms[inside])
    return factor


def mottle(rng: np.random.Generator, shape: tuple[int, int], *, cell: int, strength: float) -> FloatArray:
    """A smooth random factor around 1, (rows, columns): ``cell`` is its grain in samples."""
    coarse = rng.standard_normal((shape[0] // cell + 3, shape[1] // cell + 3)).astype(np.float32)
    fine = ndimage.zoom(coarse, cell, order=1, grid_mode=True, mode="nearest")
    field: FloatArray = np.maximum(1 + strength * fine[: shape[0], : shape[1]], 0).astype(np.float32)
    return field


def coil_field(behind_mm: FloatArray, along_mm: FloatArray, *, reach_mm: float, slant: float) -> FloatArray:
    """Sensitivity of a spine coil: falls with the distance in front of the back, slowly varying along the body.

    Args:
        behind_mm: how far a sample lies in front of the skin of the back (positive inside).
        along_mm: position along the body.
        reach_mm: distance at which the sensitivity has fallen to a half.
        slant: relative change per 100 mm along the body.
    """
    distance = np.maximum(behind_mm, 0) / np.float32(reach_mm)
    field = (1 + np.float32(slant / 100) * along_mm) / (1 + distance * distance)
    return field.astype(np.float32)


def acquire(
    image: FloatArray, acquired: tuple[int, int], *, noise_sd: float, rng: np.random.Generator | None
) -> FloatArray:
    """Measure an image through a limited k-space, zero-filled to its own matrix; complex noise, magnitude (Rician).

    Args:
        image: (..., rows, columns), the object averaged over voxels.
        acquired: samples taken along rows (frequency encoding) and columns (phase encoding).
        noise_sd: standard deviation of the noise in each of the two channels of the reconstructed image.
        rng: source of noise; may be None when ``noise_sd`` is 0.
    """
    rows, columns = image.shape[-2:]
    keep = (
        np.abs(np.fft.fftfreq(rows) * rows) <= min(acquired[0], rows) / 2,
        np.abs(np.fft.fftfreq(columns) * columns) <= min(acquired[1], columns) / 2,
    )
    window = (keep[0][:, None] & keep[1][None, :]).astype(np.float32)
    space = fft.fft2(image.astype(np.complex64)) * window
    if noise_sd > 0 and rng is not None:
        scale = noise_sd * rows * columns / np.sqrt(window.sum())
        noise = rng.standard_normal((*image.shape, 2), dtype=np.float32) * np.float32(scale)
        space += noise.view(np.complex64)[..., 0] * window
    magnitude: FloatArray = np.abs(fft.ifft2(space)).astype(np.float32)
    return magnitude
