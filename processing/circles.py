"""Circles in an image, to a fraction of a pixel: what vials of a phantom are in a slice across them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import canny
from skimage.transform import hough_circle, hough_circle_peaks

from processing.results import FloatArray

_Float64 = npt.NDArray[np.float64]

_RAYS = 72
_STEP_PX = 0.25  # along a ray
_MIN_VOTES = 0.35  # of a circle's length that must be an edge to be looked into
_MOST = 60  # circles that are looked into
_ON_EDGE_MM = 1.5  # an edge of a ray belongs to the circle so near it
_SIZES = (0.85, 0.93, 1.0, 1.07, 1.15)  # of the expected radius


@dataclass(frozen=True, slots=True)
class Circle:
    """A circle in an image: ``down_mm``, ``across_mm`` of its centre from that of the first pixel, and ``radius_mm``.

    ``edge_share``: of the directions from its centre, those in which the image has its edge there.
    """

    down_mm: float
    across_mm: float
    radius_mm: float
    edge_share: float


def find_circles(
    image: FloatArray, pixel_mm: tuple[float, float], radii_mm: Sequence[float], *, min_edge_share: float = 0.7
) -> tuple[Circle, ...]:
    """Circles of about these radii in an image (rows, columns), the best-edged first.

    Edges (Canny 1986) vote for centres (the circular Hough transform of scikit-image) on a grid of square pixels; each
    candidate is then fitted to the steepest places of the image along rays from its centre. Bright vials in dark
    surroundings are found like dark ones in bright. No two circles overlap.
    """
    square_mm = min(pixel_mm)
    squared = _resampled(image, pixel_mm, square_mm)
    scale = float(np.percentile(squared, 99.5))
    if not scale > 0:
        return ()
    edges = canny(squared / scale, sigma=1.0, low_threshold=0.04, high_threshold=0.12)
    sizes_px = np.unique(np.rint([radius * size / square_mm for radius in radii_mm for size in _SIZES]).astype(int))
    if not edges.any() or sizes_px.max() * 2 >= max(squared.shape):
        return ()
    votes = hough_circle(edges, sizes_px, normalize=True)
    near = max(int(sizes_px.min() // 2), 1)
    _, across_px, down_px, found_px = hough_circle_peaks(
        votes, sizes_px, min_xdistance=near, min_ydistance=near, threshold=_MIN_VOTES, num_peaks=_MOST
    )
    fitted = []
    for down, across, radius in zip(down_px, across_px, found_px, strict=True):
        circle = fit_circle(image, pixel_mm, down * square_mm, across * square_mm, radius * square_mm)
        if circle is not None and circle.edge_share >= min_edge_share:
            fitted.append(circle)
    return _apart(fitted)


def fit_circle(
    image: FloatArray, pixel_mm: tuple[float, float], down_mm: float, across_mm: float, radius_mm: float
) -> Circle | None:
    """The circle near a first guess: through the steepest places of the image on rays from the centre.

    Algebraic least squares (Kåsa, IEEE Trans Instrum Meas 1976;25:8-14) of those within 1.5 mm of the circle, repeated
    until nothing changes. None where there are too few.
    """
    angles = np.arange(_RAYS) * (2 * np.pi / _RAYS)
    directions = np.stack([np.sin(angles), np.cos(angles)])
    middle = np.array([down_mm, across_mm])
    step_mm = min(pixel_mm) * _STEP_PX
    on_edge = np.zeros(_RAYS, bool)
    for _ in range(6):
        along_mm = np.arange(radius_mm * 0.65, radius_mm * 1.35, step_mm)
        places = middle[:, None, None] + directions[:, :, None] * along_mm
        ray = ndimage.map_coordinates(
            image, [places[0] / pixel_mm[0], places[1] / pixel_mm[1]], order=1, mode="nearest"
        )
        slope = np.abs(ndimage.gaussian_filter1d(ray, 2.0, axis=1, order=1))
        at = slope.argmax(axis=1)
        height = np.abs(ray[:, :3].mean(axis=1) - ray[:, -3:].mean(axis=1))
        edge_mm = along_mm[at]
        on_edge = (np.abs(edge_mm - np.median(edge_mm)) <= _ON_EDGE_MM) & (height > 0.05 * np.abs(ray).max())
        on_edge &= (at > 0) & (at < len(along_mm) - 1)
        if on_edge.sum() < _RAYS // 3:
            return None
        points = middle[:, None] + directions[:, on_edge] * edge_mm[on_edge]
        moved, radius = _through(points)
        shift = float(np.linalg.norm(moved - middle))
        if shift > radius_mm or not 0.5 * radius_mm < radius < 2 * radius_mm:
            return None
        change = abs(radius - radius_mm)
        middle, radius_mm = moved, radius
        if shift < step_mm / 4 and change < step_mm / 4:
            break
    return Circle(float(middle[0]), float(middle[1]), radius_mm, float(on_edge.mean()))


def _through(points: _Float64) -> tuple[_Float64, float]:
    """Centre and radius of the circle through points (2, n), by linear least squares."""
    matrix = np.column_stack([2 * points.T, np.ones(points.shape[1])])
    solution, *_ = np.linalg.lstsq(matrix, (points**2).sum(axis=0), rcond=None)
    centre = solution[:2]
    return centre, float(np.sqrt(max(solution[2] + centre @ centre, 0.0)))


def _apart(circles: Sequence[Circle]) -> tuple[Circle, ...]:
    """The best of circles that overlap; ties by place, so that the same image gives the same answer."""
    kept: list[Circle] = []
    for one in sorted(circles, key=lambda circle: (-circle.edge_share, circle.down_mm, circle.across_mm)):
        distances = [np.hypot(one.down_mm - two.down_mm, one.across_mm - two.across_mm) for two in kept]
        if all(gap >= 0.8 * (one.radius_mm + two.radius_mm) for gap, two in zip(distances, kept, strict=True)):
            kept.append(one)
    return tuple(kept)


def _resampled(image: FloatArray, pixel_mm: tuple[float, float], square_mm: float) -> _Float64:
    if pixel_mm[0] == pixel_mm[1]:
        return image.astype(np.float64)
    zoom = (pixel_mm[0] / square_mm, pixel_mm[1] / square_mm)
    resampled: _Float64 = ndimage.zoom(image.astype(np.float64), zoom, order=1, grid_mode=False)
    return resampled
