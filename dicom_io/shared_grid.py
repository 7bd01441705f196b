"""Several scans of one exam (T1rho and T2) that share a grid: each voxel the same place in both, or refused."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicom_io.missing_images import MissingImage
from dicom_io.slice_grid import ImageSeries, PartialSeries, same_geometry
from dicom_io.slice_places import SAME_PLACE_MM
from processing.refusal import ReasonCode, UnsuitableInput


def on_one_grid(
    scans: Sequence[ImageSeries | PartialSeries], *, is_evident: bool
) -> tuple[ImageSeries | PartialSeries, ...]:
    """The scans, whole ones on one grid. A scan that lacks outer slices which another one has is not whole.

    Args:
        scans: one of each protocol.
        is_evident: there is evidence that nothing more will come; then slices that are lacking are no matter of time.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, naming both protocols and what differs.
    """
    whole = [scan for scan in scans if isinstance(scan, ImageSeries)]
    if len(whole) < 2:
        return tuple(scans)
    largest = max(whole, key=lambda scan: len(scan.grid[0]))
    return tuple(_compared(scan, largest, is_evident) if isinstance(scan, ImageSeries) else scan for scan in scans)


def is_part_of(scan: ImageSeries, other: ImageSeries) -> bool:
    """Whether a scan has only slices that another one has too, and fewer of them."""
    if len(scan.grid[0]) >= len(other.grid[0]) or same_geometry(scan.grid[0][0], other.grid[0][0]):
        return False
    return bool(_distances_mm(scan, other).min(axis=1).max() <= SAME_PLACE_MM)


def _distances_mm(scan: ImageSeries, other: ImageSeries) -> npt.NDArray[np.float64]:
    """(slices, slices of the other)"""
    own, places = (np.array([one.position for one in series.grid[0]]) for series in (scan, other))
    apart: npt.NDArray[np.float64] = np.linalg.norm(own[:, np.newaxis] - places, axis=2)
    return apart


def _compared(scan: ImageSeries, largest: ImageSeries, is_evident: bool) -> ImageSeries | PartialSeries:
    is_one_card = scan.card.name == largest.card.name
    names = f"T1rho and T2 of {scan.card.name}" if is_one_card else f"{scan.card.name} and {largest.card.name}"
    differs = same_geometry(largest.grid[0][0], scan.grid[0][0])
    if differs:
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"{names} differ in {differs}")
    apart = _distances_mm(scan, largest)
    n_own, n_slices = apart.shape
    worst = float(apart.min(axis=1).max())
    if worst > SAME_PLACE_MM:
        text = f"{names} do not lie on one grid: a slice of one is {worst:.2f} mm from the nearest of the other"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    lacking = sorted(set(range(n_slices)) - set(apart.argmin(axis=1).tolist()))
    if not lacking:
        return scan
    if is_evident:
        text = f"{scan.card.name} has {n_own} slices, {largest.card.name} has {n_slices}"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    missing = tuple(MissingImage(number + 1, time) for number in lacking for time in scan.times_ms)
    n_images = len(scan.instances)
    numbers = ", ".join(str(number + 1) for number in lacking)
    text = (
        f"{n_images}/{n_images + len(missing)} images: missing all times at slice {numbers} "
        f"of the {n_slices} slices that {largest.card.name} has"
    )
    return PartialSeries(scan.card, n_images, missing, text)
