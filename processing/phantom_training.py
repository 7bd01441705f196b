"""Random slices for training the network: any subject, position, contrast and image quality, with its true classes."""

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from processing.phantom_anatomy import LumbarAnatomy, draw_anatomy
from processing.phantom_signal import FATTY, acquire, coil_field, intensity, mottle, random_contrast
from processing.phantom_tissue import SamplingPlane, rasterise
from processing.phantom_variants import Variant
from processing.phantom_voxels import SUBSAMPLES, Votes
from processing.results import FloatArray, LabelArray


def draw_training_slice(
    rng: np.random.Generator, *, size: int = 256, spacing_mm: float = 0.78125
) -> tuple[FloatArray, LabelArray]:
    """One random sagittal slice of a random subject in a random contrast, with the network's classes.

    Returns:
        image (size, size) float32, arbitrary positive units; classes (size, size) uint8: 0 background, 1 disc,
        2 vertebral body, 3 sacrum, 4 canal.
    """
    anatomy = draw_anatomy(rng, severe=0.08, vacuum=0.4, variant=_draw_variant(rng.spawn(1)[0]))
    contrast = random_contrast(rng)
    thickness_mm = float(rng.uniform(2.0, 6.0))
    centre, turn = _training_view(rng, anatomy)
    step = spacing_mm * float(rng.uniform(0.92, 1.08))
    shape = (size, size)
    water, fat = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    votes = Votes.empty(shape)
    chosen = SUBSAMPLES[[0, 1, 4, 5]]
    for index, offset in enumerate(chosen):
        depth = ((index + 0.5) / len(chosen) - 0.5) * thickness_mm
        corner = np.array([-depth, 0.0, 0.0])
        rows, columns = np.array([0.0, 0.0, -step]), np.array([0.0, step, 0.0])
        corner = corner + (rows + columns) * (-(size - 1) / 2) + rows * offset[0] + columns * offset[1]
        tissue = rasterise(anatomy, SamplingPlane(centre + turn @ corner, turn @ rows, turn @ columns, shape))
        signal = intensity(tissue, contrast) / np.float32(len(chosen))
        fatty = FATTY[tissue.tissue]
        water += signal * (1 - fatty)
        fat += signal * fatty
        votes.add(tissue)
    shifted = rng.integers(-2, 3, 2) if rng.random() < 0.4 else (0, 0)  # chemical shift makes end plates unequal
    image = water + np.roll(fat, (int(shifted[0]), int(shifted[1])), axis=(0, 1))
    return _disturb(rng, image, votes.elect().classes, step)


def _draw_variant(rng: np.random.Generator) -> Variant:
    """Mostly the usual spine; at times two vertebrae are one bone, where no disc must be invented, or one is flat."""
    draw, level = rng.random(), int(rng.integers(1, 6))
    if draw < 0.08:
        return Variant(missing_disc=level)
    return Variant(flat_body=level) if draw < 0.11 else Variant()


def _training_view(
    rng: np.random.Generator, anatomy: LumbarAnatomy
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where a training slice is centred (body frame) and how it is turned: L5S1 or the top may be cut off."""
    x = rng.normal(0, 9) if rng.random() < 0.8 else rng.uniform(-27, 27)
    lowest = anatomy.discs[0].centre_mm[2]
    cut = rng.random() < 0.18  # the sacrum and L5S1 lie partly or wholly below the field of view
    s = lowest + (rng.uniform(90, 150) if cut else rng.uniform(30, 82))
    middle = np.mean([disc.centre_mm[1] for disc in anatomy.discs[:6]])
    p = middle + rng.uniform(-25, 45)
    turn = Rotation.from_euler("xyz", rng.normal(0, (6.0, 2.5, 2.5)), degrees=True).as_matrix()
    return np.array([x, p, s]), turn


def _disturb(
    rng: np.random.Generator, image: FloatArray, classes: LabelArray, step_mm: float
) -> tuple[FloatArray, LabelArray]:
    """Texture, coil, limited k-space, noise, a field of view smaller than the matrix, display gamma."""
    size = image.shape[0]
    image = image * mottle(rng, image.shape[:2], cell=int(rng.integers(2, 5)), strength=float(rng.uniform(0, 0.15)))
    grid = np.arange(size, dtype=np.float32) * np.float32(step_mm)
    skin = np.float32(size * step_mm * rng.uniform(0.7, 1.1))
    image = image * coil_field(
        skin - grid[None, :],
        (grid - grid.mean())[:, None],
        reach_mm=float(rng.uniform(60, 300)),
        slant=float(rng.uniform(-0.4, 0.4)),
    )
    fov_mm = float(rng.uniform(180, 280))
    fraction = min(size * step_mm / fov_mm, 1.0)
    phase = float(rng.choice((0.5, 0.625, 0.75, 1.0)))
    acquired = (max(int(size * fraction), 32), max(int(size * fraction * phase), 32))
    disc = image[classes == 1]
    level = float(disc.mean()) if disc.size else float(image.mean())
    image = acquire(
        image, acquired, noise_sd=max(level, 1e-3) / float(np.exp(rng.uniform(np.log(8), np.log(70)))), rng=rng
    )
    outside = int(size - fov_mm / step_mm) // 2
    if outside > 0:  # black border around a small field of view
        image, classes = image.copy(), classes.copy()
        for array in (image, classes):
            array[:outside], array[size - outside :] = 0, 0
            array[:, :outside], array[:, size - outside :] = 0, 0
    top = max(float(np.percentile(image, 99.5)), 1e-6)
    return ((image / top) ** np.float32(rng.uniform(0.75, 1.3))).astype(np.float32), classes
