"""Several scans of one exam (T1rho and T2) that share a grid: each voxel the same place in both, or refused."""

from collections.abc import Sequence

import numpy as np

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


def _compared(scan: ImageSeries, largest: ImageSeries, is_evident: bool) -> ImageSeries | PartialSeries:
    names = f"{scan.card.name} and {largest.card.name}"
    differs = same_geometry(largest.grid[0][0], scan.grid[0][0])
    if differs:
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"{names} differ in {differs}")
    places = np.array([one.position for one in largest.grid[0]])
    own = np.array([one.position for one in scan.grid[0]])
    apart = np.linalg.norm(own[:, np.newaxis] - places, axis=2)  # (own slices, slices of the largest)
    worst = float(apart.min(axis=1).max())
    if worst > SAME_PLACE_MM:
        text = f"{names} do not lie on one grid: a slice of one is {worst:.2f} mm from the nearest of the other"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    lacking = sorted(set(range(len(places))) - set(apart.argmin(axis=1).tolist()))
    if not lacking:
        return scan
    if is_evident:
        text = f"{scan.card.name} has {len(own)} slices, {largest.card.name} has {len(places)}"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
    missing = tuple(MissingImage(number + 1, time) for number in lacking for time in scan.times_ms)
    n_images = len(scan.instances)
    numbers = ", ".join(str(number + 1) for number in lacking)
    text = (
        f"{n_images}/{n_images + len(missing)} images: missing all times at slice {numbers} "
        f"of the {len(places)} slices that {largest.card.name} has"
    )
    return PartialSeries(scan.card, n_images, missing, text)
