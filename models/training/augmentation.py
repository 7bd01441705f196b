"""Random changes of training slices: where tissue lies, how bright it is, and what the scanner adds.

Every function takes its own random generator, so that a batch depends on its seed alone.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.preprocessing import BACKGROUND, BODY, CANAL, DISC, SACRUM, FloatArray, normalise_slice
from models.training.slices import LabelArray, TrainingSlice

FloatGrid = npt.NDArray[np.float64]


def draw_example(
    rng: np.random.Generator, source: TrainingSlice, size: int, *, recolour: float = 0.4
) -> tuple[FloatArray, LabelArray]:
    """One augmented example: normalised image and allowed classes, both (size, size).

    ``recolour``: how often its tissues get another contrast, see :func:`change_contrast`.
    """
    coordinates = warp_coordinates(rng, source.allowed, size)
    outside: Literal["constant", "nearest"] = "constant" if rng.random() < 0.5 else "nearest"
    image: FloatArray = ndimage.map_coordinates(source.image, coordinates, order=1, mode=outside)
    allowed: LabelArray = ndimage.map_coordinates(source.allowed, coordinates, order=0, mode="constant", cval=1)
    image = change_contrast(rng, _unit_range(image), allowed, recolour=recolour)
    image = add_scanner_effects(rng, image)
    last = field_end(rng, allowed)
    normalised = np.empty_like(image)
    normalised[:last] = normalise_slice(image[:last])
    normalised[last:] = normalised[:last].min()  # as pad_to_grid leaves what lies beyond the field
    allowed[last:] = 1 << BACKGROUND
    return normalised, allowed


def field_end(rng: np.random.Generator, allowed: LabelArray) -> int:
    """The first row beyond the field of view: mostly none, in one case of four somewhere around the lowest disc.

    A lumbar picture that ends just above or below L5S1 must not make the network take L5 for the sacrum.
    """
    rows = len(allowed)
    discs = np.flatnonzero((allowed == 1 << DISC).any(axis=1))
    if not len(discs) or rng.random() >= 0.25:
        return rows
    return int(np.clip(discs[-1] + rng.uniform(-50, 35), 0.4 * rows, rows))


def warp_coordinates(rng: np.random.Generator, allowed: LabelArray, size: int) -> FloatGrid:
    """Where each pixel of a (size, size) window is taken from: (2, size, size) in pixels of the source.

    Rotation within ±20°, scale about 12 %, slight shear, and an elastic field of one to three points moved by 2 to 12
    pixels. The window lies around a random disc, so that the lowest or highest disc is cut at times.
    """
    angle = np.deg2rad(np.clip(rng.normal(0, 8), -20, 20))
    scale_y, scale_x = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.04, 2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[scale_y, rng.normal(0, 0.05)], [0.0, scale_x]])
    centre = _window_centre(rng, allowed, size)
    half = (size - 1) / 2
    grid = np.indices((size, size), dtype=np.float64) - half
    coordinates = np.tensordot(matrix, grid, axes=1) + centre[:, None, None]
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 4)):
            point, spread = rng.uniform(-half, half, 2), rng.uniform(20, 45)
            bump = np.exp(-((grid[0] - point[0]) ** 2 + (grid[1] - point[1]) ** 2) / (2 * spread**2))
            shift = rng.normal(0, 1, 2)
            shift *= rng.uniform(0.3, 1.0) * rng.uniform(6, 12) / max(float(np.hypot(*shift)), 1e-6)
            coordinates += shift[:, None, None] * bump
    return coordinates


def _window_centre(rng: np.random.Generator, allowed: LabelArray, size: int) -> FloatGrid:
    """The middle of the window, (row, column): near the whole picture's middle, or around a random disc pixel."""
    shape = np.array(allowed.shape, dtype=np.float64)
    discs = np.argwhere(allowed == 1 << DISC)
    centre = (shape - 1) / 2
    if shape.max() > 1.1 * size and len(discs):
        centre = discs[rng.integers(len(discs))].astype(np.float64)
    centre = centre + rng.normal(0, 0.1 * size, 2)
    # At most a fifth of the window lies beyond the picture, unless the picture is smaller than the window.
    beyond = 0.2 * size * rng.random() ** 2
    low, high = size / 2 - beyond, shape - size / 2 + beyond
    kept: FloatGrid = np.where(
        low < high, np.clip(centre, low, np.maximum(low, high)), (shape - 1) / 2 + rng.normal(0, 8, 2)
    )
    return kept


def change_contrast(rng: np.random.Generator, image: FloatArray, allowed: LabelArray, *, recolour: float) -> FloatArray:
    """Another contrast with the same shapes; ``image`` (rows, columns) in 0..1, result about 0..1.

    With probability ``recolour`` each tissue is lightened or darkened as a whole, so that real anatomy also comes as a
    fat-suppressed image (disc bright, marrow dark). Then a random curve of the grey values.
    """
    if rng.random() < recolour:
        mapslike = rng.random() < 0.5
        changes = {
            DISC: rng.uniform(0.15, 0.6) if mapslike else rng.normal(0, 0.25),
            BODY: rng.uniform(-0.3, 0.0) if mapslike else rng.normal(0, 0.25),
            CANAL: rng.normal(-0.2, 0.3),
        }
        if not (allowed == (1 << BACKGROUND | 1 << SACRUM)).any():  # else only a block of the sacrum is known
            changes[SACRUM] = changes[BODY]
        softness = rng.uniform(0.4, 1.0)
        image = image * np.float32(rng.uniform(0.4, 1.0))
        for tissue, change in changes.items():
            share = ndimage.gaussian_filter((allowed == 1 << tissue).astype(np.float32), softness)
            image = (image + share * np.float32(change)).astype(np.float32)
        image = _unit_range(image)
    draw = rng.random()
    if draw < 0.35:
        return np.power(image, np.exp(rng.normal(0, 0.35))).astype(np.float32)
    if draw < 0.65:  # a monotone curve
        knots = np.concatenate([[0.0], np.cumsum(rng.uniform(0.2, 1.0, 5))])
        return _through_curve(image, knots / knots[-1])
    if draw < 0.75:  # a curve that also turns back
        return _through_curve(image, rng.uniform(0, 1, 5))
    return image


def _through_curve(image: FloatArray, heights: FloatGrid) -> FloatArray:
    """Grey values 0..1 through the piecewise linear curve with evenly spaced ``heights``."""
    return np.interp(image, np.linspace(0, 1, len(heights)), heights).astype(np.float32)


def add_scanner_effects(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Coil fall-off, local brightening, blur, coarse phase encoding, noise, a dark band; ``image`` about 0..1."""
    size = image.shape[0]
    rows, columns = np.indices(image.shape, dtype=np.float32) / np.float32(size)
    if rng.random() < 0.35:
        image = image * np.exp(np.float32(rng.uniform(0.3, 1.6)) * (columns - 0.6))
    if rng.random() < 0.4:
        for _ in range(rng.integers(1, 4)):
            spread = np.float32(rng.uniform(0.08, 0.3))
            row, column = rng.uniform(0, 1, 2).astype(np.float32)
            bump = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * spread**2))
            image = image * (1 + np.float32(rng.uniform(-0.5, 1.0)) * bump)
    if rng.random() < 0.3:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.1))
    if rng.random() < 0.25:
        image = _truncate_phase_encoding(image, rng.uniform(0.5, 0.85))
    if rng.random() < 0.6:
        sigma = 0.1 * rng.random() ** 2
        noise = rng.normal(0, sigma, (2, *image.shape)).astype(np.float32)
        image = np.hypot(image + noise[0], noise[1])
    if rng.random() < 0.15:  # a saturation band or an edge of the field
        band = int(rng.uniform(0.03, 0.15) * size)
        place = (slice(None, band), slice(-band, None))[rng.integers(2)]
        image = image.copy()
        image[(place, slice(None)) if rng.random() < 0.3 else (slice(None), place)] *= np.float32(rng.uniform(0, 0.3))
    return image


def _truncate_phase_encoding(image: FloatArray, share: float) -> FloatArray:
    """Keep the middle ``share`` of the frequencies along columns (anterior-posterior), as zero filling does."""
    spectrum = np.fft.rfft(image, axis=1)
    spectrum[:, int(share * spectrum.shape[1]) :] = 0
    kept: FloatArray = np.abs(np.fft.irfft(spectrum, n=image.shape[1], axis=1)).astype(np.float32)
    return kept


def _unit_range(image: FloatArray) -> FloatArray:
    """Grey values brought to 0..1 between the 0.5th and 99.5th percentile."""
    low, high = np.percentile(image, (0.5, 99.5))
    unit: FloatArray = np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    return unit
