"""What the network sees of an image: the same steps for training and for use (paper, Segmentation)."""

import numpy as np
import numpy.typing as npt
from skimage.exposure import equalize_adapthist

FloatArray = npt.NDArray[np.float32]

#: Classes of the network, in the order of its output channels.
CLASS_NAMES = ("background", "disc", "vertebral_body", "sacrum", "canal")
BACKGROUND, DISC, BODY, SACRUM, CANAL = range(5)

#: In-plane pixel size of the network, mm: 200 mm field of view over 256 pixels.
SPACING_MM = 0.78125

#: The networks halve their grid up to five times: a stem at half resolution and four poolings.
GRID_MULTIPLE = 32

#: The darkest and brightest thousandths would otherwise set the grey range of the whole image.
_RANGE_PERCENTILES = (0.1, 99.5)


def normalise_slice(image: npt.NDArray[np.floating]) -> FloatArray:
    """Adaptive histogram equalisation, then zero mean and unit variance; ``image`` (rows, columns), any units.

    Kernel 32 pixels, clip limit 0.01, 256 bins, as in the paper; the grey range is first cut at its extreme
    percentiles. A constant or non-finite image has no contrast to equalise and gives zeros.
    """
    low, high = np.percentile(image, _RANGE_PERCENTILES)
    if not np.isfinite(low + high) or high <= low:
        return np.zeros(image.shape, np.float32)
    scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    equalised = equalize_adapthist(scaled, kernel_size=32, clip_limit=0.01, nbins=256)
    normalised: FloatArray = (equalised - equalised.mean()) / max(float(equalised.std()), 1e-6)
    return normalised.astype(np.float32)


def pad_to_grid(
    slices: FloatArray, *, minimum: int = 256, multiple: int = GRID_MULTIPLE
) -> tuple[FloatArray, tuple[int, int]]:
    """Pad normalised ``slices`` (n, rows, columns) at both sides with each slice's darkest value, never stretching.

    Returns the padded slices, at least ``minimum`` and a ``multiple`` of pixels in each direction, and the
    (row, column) offset of the original in them.
    """
    _, rows, columns = slices.shape
    target = [max(minimum, -(-size // multiple) * multiple) for size in (rows, columns)]
    before = ((target[0] - rows) // 2, (target[1] - columns) // 2)
    padded = np.empty((len(slices), *target), np.float32)
    padded[:] = slices.min(axis=(1, 2), keepdims=True)
    padded[:, before[0] : before[0] + rows, before[1] : before[1] + columns] = slices
    return padded, before
