"""Which images lie at one place: the slices of a stack, found from positions alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicom_io.headers import ImageFacts
from processing.refusal import ReasonCode, UnsuitableInput
from processing.volume import normal_of

#: Images nearer than this belong to one slice; scanners repeat the position of a slice exactly.
SAME_PLACE_MM = 0.1

#: SliceLocations of one slice that differ by more are not those of one slice.
_SAME_LOCATION_MM = 0.5

#: No scanner is larger; a position beyond it is a broken header.
_FARTHEST_MM = 1e5


def group_by_slice(images: Sequence[ImageFacts]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The slice index of each image (images,) and the position of each slice (slices, 3) in LPS mm.

    Slices ascend along the normal of the first image's orientation.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, when an image has no position or orientation, they are no numbers of a
            patient in a scanner, or images of one depth do not lie at one place.
    """
    check_placed(images)
    normal = normal_of(images[0].orientation)
    positions = np.array([one.position for one in images])
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    begins = np.concatenate([[True], np.diff(depths[order]) > SAME_PLACE_MM])
    slice_of_image = np.empty(len(positions), dtype=np.intp)
    slice_of_image[order] = np.cumsum(begins) - 1
    places = positions[order][begins]
    apart = np.linalg.norm(positions - places[slice_of_image], axis=1)
    worst = int(np.argmax(apart))
    if apart[worst] > SAME_PLACE_MM:
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT,
            f"images of slice {slice_of_image[worst] + 1} lie {apart[worst]:.2f} mm apart",
        )
    return slice_of_image, places


def check_locations(images: Sequence[ImageFacts], slice_of_image: Sequence[int]) -> None:
    """Refuse positions that contradict SliceLocation: in one series, images at one place have one SliceLocation.

    Two images whose positions were exchanged fill the grid as well as the right ones do. What SliceLocation counts from
    is the scanner's choice, so that nothing else is concluded from it.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, naming the slice.
    """
    found: dict[tuple[str, int], float] = {}
    for one, index in zip(images, slice_of_image, strict=True):
        if one.slice_location_mm is None:
            continue
        other = found.setdefault((one.series_uid, index), one.slice_location_mm)
        if abs(other - one.slice_location_mm) > _SAME_LOCATION_MM:
            text = (
                f"images of slice {index + 1} have one ImagePositionPatient and SliceLocations {other:g} and "
                f"{one.slice_location_mm:g} mm: which of them is right is not known"
            )
            raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)


def check_placed(images: Sequence[ImageFacts]) -> None:
    """Refuse images that do not say where they lie.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, naming what is absent or no number.
    """
    seen: set[tuple[float, ...]] = set()
    for one in images:
        for name, value in (
            ("ImageOrientationPatient", one.orientation),
            ("ImagePositionPatient", one.position),
            ("PixelSpacing", one.pixel_spacing_mm),
        ):
            if not value:
                raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"an image has no {name}")
            if value in seen:
                continue
            seen.add(value)
            if not all(abs(number) <= _FARTHEST_MM for number in value):  # also false for NaN
                text = f"{name} of an image is {[float(f'{number:g}') for number in value]}"
                raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
