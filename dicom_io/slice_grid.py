"""The images of one series, laid out as slices × times: whole, or what is missing, or why they are no volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from config.protocol_cards import ProtocolCard, Role, ScalingRule, TimeRule
from dicom_io.headers import ImageFacts
from dicom_io.protocols import times_of
from dicom_io.scaling import scaling_of
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine
from processing.volume import SPACING_TOLERANCE, affine_from_orientation, check_regular, is_sagittal, normal_of

#: Images nearer than this belong to one slice; scanners repeat the position of a slice exactly.
_SAME_PLACE_MM = 0.1

#: Direction cosines and pixel spacings that differ by less are the same, written with other rounding.
_SAME_NUMBER = 1e-3

#: How many slices a text about missing images names before it only counts.
_SLICES_NAMED = 6


@dataclass(frozen=True, slots=True, eq=False)
class ImageSeries:
    """A whole series: ``grid[time][slice]``, times ascending as in ``times_ms``, slices ascending along the normal.

    An anatomical series has the one time 0. ``affine`` (4, 4): (slice, row, column) -> LPS mm.
    """

    card: ProtocolCard
    grid: tuple[tuple[ImageFacts, ...], ...]
    times_ms: tuple[float, ...]
    affine: Affine

    @property
    def instances(self) -> tuple[ImageFacts, ...]:
        """All images, time by time."""
        return tuple(facts for slices in self.grid for facts in slices)

    @property
    def series_uids(self) -> tuple[str, ...]:
        """The series the images came in, sorted; usually one."""
        return tuple(sorted({facts.series_uid for facts in self.instances}))


@dataclass(frozen=True, slots=True)
class MissingImage:
    """A hole in the grid: the slice, counted from 1 along the normal from the first one there, and the card's time."""

    slice_number: int
    time_ms: float


@dataclass(frozen=True, slots=True)
class PartialSeries:
    """A series that is not whole yet, and what is known to be missing (nothing, when whole slices at an edge are)."""

    card: ProtocolCard
    n_images: int
    missing: tuple[MissingImage, ...]
    text: str


def lay_out(facts: Sequence[ImageFacts], card: ProtocolCard, *, n_to_come: int = 0) -> ImageSeries | PartialSeries:
    """Place each image of a series at its slice and time.

    Args:
        facts: at least one image; all acquired magnitude images of the card.
        card: the protocol.
        n_to_come: images that the scanner announced and that are not among ``facts``.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT (mixed matrix, spacing, orientation or frame of reference, irregular
            or non-sagittal slices), ECHO_UNRESOLVED, SCALING_UNKNOWN, INSTANCE_CONFLICT (one image under two UIDs),
            PROTOCOL_DEVIATION (two images for one slice and time, more slices than the card allows, lossy echoes).
    """
    _check_uniform(facts)
    _check_scaling(facts, card)
    image_times = times_of(facts, card)
    times = (0.0,) if card.times.rule is TimeRule.NONE else card.times.distinct_ms
    normal = normal_of(facts[0].orientation)
    image_slices, places = _group_by_slice(np.array([one.position for one in facts]), normal)
    cells = _fill_cells(facts, image_slices, image_times, card)

    numbers = _slice_numbers(places @ normal, _announced_spacing_mm(facts))
    if numbers is None:
        if n_to_come:
            return PartialSeries(card, len(facts), (), _announced_text(len(facts), n_to_come))
        check_regular(places, normal)  # names the slice that is out of place
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "the slices are not regularly spaced")
    n_slices = numbers[-1] + 1
    if n_slices > card.expected.max_slices:
        text = f"{n_slices} slices; {card.name} expects at most {card.expected.max_slices}"
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, text)
    index_of = {number: index for index, number in enumerate(numbers)}
    missing = tuple(
        MissingImage(number + 1, time)
        for number in range(n_slices)
        for time in times
        if (index_of.get(number), time) not in cells
    )
    if missing:
        text = _missing_text(missing, n_slices * len(times), len(times))
        return PartialSeries(card, len(facts), missing, text)
    if n_slices < card.expected.min_slices:
        text = (
            f"{len(facts)} images at {n_slices} slices; {card.name} expects at least {card.expected.min_slices} slices"
        )
        return PartialSeries(card, len(facts), (), text)
    if n_to_come:
        return PartialSeries(card, len(facts), (), _announced_text(len(facts), n_to_come))
    affine = affine_from_orientation(
        facts[0].orientation, places, facts[0].pixel_spacing_mm, single_slice_mm=facts[0].slice_thickness_mm
    )
    if not is_sagittal(affine):
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "the slices are not sagittal")
    grid = tuple(tuple(cells[index, time] for index in range(n_slices)) for time in times)
    return ImageSeries(card, grid, times, affine)


def same_geometry(one: ImageFacts, other: ImageFacts) -> str | None:
    """The name of the first attribute in which two images cannot belong to one volume; None when they can."""
    if (one.rows, one.columns) != (other.rows, other.columns):
        return "matrix"
    if not np.allclose(one.pixel_spacing_mm, other.pixel_spacing_mm, rtol=_SAME_NUMBER, atol=0):
        return "pixel spacing"
    if not np.allclose(one.orientation, other.orientation, rtol=0, atol=_SAME_NUMBER):
        return "orientation"
    if one.frame_of_reference_uid != other.frame_of_reference_uid:
        return "frame of reference"
    return None


def _check_uniform(facts: Sequence[ImageFacts]) -> None:
    for one in facts:
        for name, value in (
            ("ImageOrientationPatient", one.orientation),
            ("ImagePositionPatient", one.position),
            ("PixelSpacing", one.pixel_spacing_mm),
            ("FrameOfReferenceUID", one.frame_of_reference_uid),  # the results could not say where they lie
        ):
            if not value:
                raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"an image has no {name}")
    first = facts[0]
    compared: set[tuple[object, ...]] = set()  # most images repeat the same few headers
    for one in facts:
        key = (one.rows, one.columns, one.pixel_spacing_mm, one.orientation, one.frame_of_reference_uid)
        if key in compared:
            continue
        compared.add(key)
        differs = same_geometry(first, one)
        if differs:
            raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"images of one series differ in {differs}")


def _check_scaling(facts: Sequence[ImageFacts], card: ProtocolCard) -> None:
    if card.role is Role.RELAXOMETRY and any(one.lossy_compressed for one in facts):
        text = "the images were lossy compressed: their signal is no longer what was measured"
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, text)
    found = sorted({scaling_of(one, card.scaling) for one in facts})
    if card.scaling is ScalingRule.RAW and found != [(1.0, 0.0)]:
        text = f"{card.name} expects stored values without rescaling; found slope and intercept {found[:3]}"
        raise UnsuitableInput(ReasonCode.SCALING_UNKNOWN, text)
    if len(found) > 1:
        text = f"rescale slope and intercept differ between images: {found[:3]}; their signals cannot be compared"
        raise UnsuitableInput(ReasonCode.SCALING_UNKNOWN, text)
    if found[0][0] <= 0:
        raise UnsuitableInput(ReasonCode.SCALING_UNKNOWN, f"rescale slope {found[0][0]:g}")


def _group_by_slice(
    positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The slice index of each image (images,) and the position of each slice (slices, 3), along the normal."""
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    begins = np.concatenate([[True], np.diff(depths[order]) > _SAME_PLACE_MM])
    slice_of_image = np.empty(len(positions), dtype=np.intp)
    slice_of_image[order] = np.cumsum(begins) - 1
    places = positions[order][begins]
    apart = np.linalg.norm(positions - places[slice_of_image], axis=1)
    worst = int(np.argmax(apart))
    if apart[worst] > _SAME_PLACE_MM:
        raise UnsuitableInput(
            ReasonCode.GEOMETRY_INCONSISTENT,
            f"images of slice {slice_of_image[worst] + 1} lie {apart[worst]:.2f} mm apart",
        )
    return slice_of_image, places


def _fill_cells(
    facts: Sequence[ImageFacts],
    image_slices: npt.NDArray[np.intp],
    image_times: Sequence[float],
    card: ProtocolCard,
) -> dict[tuple[int | None, float], ImageFacts]:
    cells: dict[tuple[int | None, float], ImageFacts] = {}
    for one, index, time in zip(facts, image_slices.tolist(), image_times, strict=True):
        other = cells.setdefault((index, time), one)
        if other is one:
            continue
        where = f"slice {index + 1}" if card.times.rule is TimeRule.NONE else f"slice {index + 1} and {time:g} ms"
        if other.pixel_sha256 == one.pixel_sha256:
            raise UnsuitableInput(ReasonCode.INSTANCE_CONFLICT, f"one image came under two UIDs: {where}")
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, f"two different images for {where}; {card.name} has one")
    return cells


def _announced_spacing_mm(facts: Sequence[ImageFacts]) -> float | None:
    announced = {one.spacing_between_slices_mm for one in facts}
    value = announced.pop() if len(announced) == 1 else None
    return value if value and value > 0 else None


def _slice_numbers(depths: npt.NDArray[np.float64], announced_spacing_mm: float | None) -> list[int] | None:
    """The place of each slice in a regular stack, from 0, with holes; None when there is no such stack.

    The unit is the smallest gap, or, when every second slice or more is missing, the spacing that the header tells.
    """
    gaps = np.diff(depths)
    if len(gaps) == 0:
        return [0]
    for unit in (float(gaps.min()), announced_spacing_mm):
        if unit is None:
            continue
        steps = np.round(gaps / unit)
        if (steps >= 1).all() and (np.abs(gaps - steps * unit) <= SPACING_TOLERANCE * unit * steps).all():
            return [0, *np.cumsum(steps).astype(int).tolist()]
    return None


def _announced_text(n_images: int, n_to_come: int) -> str:
    return f"{n_images}/{n_images + n_to_come} images: the scanner announced {n_to_come} more"


def _missing_text(missing: Sequence[MissingImage], n_expected: int, n_times: int) -> str:
    parts = []
    for number, images in groupby(missing, key=lambda one: one.slice_number):
        times = [f"{one.time_ms:g}" for one in images]
        whole_slice = f"slice {number}" if n_times == 1 else f"all times at slice {number}"
        parts.append(whole_slice if len(times) == n_times else f"{', '.join(times)} ms at slice {number}")
    more = f"; and at {len(parts) - _SLICES_NAMED} more slices" if len(parts) > _SLICES_NAMED else ""
    return f"{n_expected - len(missing)}/{n_expected} images: missing {'; '.join(parts[:_SLICES_NAMED])}{more}"
