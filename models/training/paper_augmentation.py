"""The paper's augmentations alone (Iriondo et al., Magn Reson Med 2020;84:1376), for its own recipe."""

import numpy as np
from scipy import ndimage

from models.preprocessing import FloatArray, normalise_slice
from models.training.slices import LabelArray, TrainingSlice


def draw_paper_example(rng: np.random.Generator, source: TrainingSlice, size: int) -> tuple[FloatArray, LabelArray]:
    """One example, the middle (size, size) of the picture: normalised image and allowed classes.

    Rotation within 20 degrees, elastic deformation of one to three points with sigma 6 to 12 pixels, and one local
    Gaussian brightening. The paper does not say how far the points move or how bright it gets: here by at most half a
    sigma, which folds nothing over, and by up to half.
    """
    angle = np.deg2rad(rng.uniform(-20, 20))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = (size - 1) / 2
    grid = np.indices((size, size), dtype=np.float64) - half
    middle = (np.array(source.allowed.shape, dtype=np.float64) - 1) / 2
    coordinates = np.tensordot(rotation, grid, axes=1) + middle[:, None, None]
    for _ in range(rng.integers(1, 4)):
        point, sigma = rng.uniform(-half, half, 2), rng.uniform(6, 12)
        bump = np.exp(-((grid[0] - point[0]) ** 2 + (grid[1] - point[1]) ** 2) / (2 * sigma**2))
        direction, far = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5 * sigma)
        coordinates += far * np.array([np.sin(direction), np.cos(direction)])[:, None, None] * bump
    image: FloatArray = ndimage.map_coordinates(source.image, coordinates, order=1, mode="constant")
    allowed: LabelArray = ndimage.map_coordinates(source.allowed, coordinates, order=0, mode="constant", cval=1)
    point, spread = rng.uniform(-half, half, 2), size * rng.uniform(0.08, 0.3)
    bump = np.exp(-((grid[0] - point[0]) ** 2 + (grid[1] - point[1]) ** 2) / (2 * spread**2))
    return normalise_slice(image * (1 + rng.uniform(0, 0.5) * bump)), allowed
