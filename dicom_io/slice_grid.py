"""The images of one series, laid out as slices × times: whole, or what is missing, or why they are no volume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.protocol_cards import ProtocolCard, TimeRule
from dicom_io.headers import ImageFacts
from dicom_io.missing_images import Awaited, MissingImage, awaited_text, missing_text
from dicom_io.protocols import ImageTime, image_times
from dicom_io.scaling import check_scaling
from dicom_io.slice_places import check_locations, check_placed, group_by_slice
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine
from processing.volume import SPACING_TOLERANCE, affine_from_orientation, check_regular, is_sagittal, normal_of

#: No slices lie closer; an announced spacing below it is a broken header.
_LEAST_SPACING_MM = 0.1

#: Two halves of one slice lie nearer than this part of the usual spacing.
_TORN = 0.75

#: Direction cosines and pixel spacings that differ by less are the same, written with other rounding.
_SAME_NUMBER = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class ImageSeries:
    """A whole scan: ``grid[time][slice]``, times ascending as in ``times_ms``, slices ascending along the normal.

    An anatomical scan has the one time 0. ``image_times`` has the form of ``grid`` and says what each header tells.
    ``affine`` (4, 4): (slice, row, column) -> LPS mm.
    """

    card: ProtocolCard
    grid: tuple[tuple[ImageFacts, ...], ...]
    image_times: tuple[tuple[ImageTime, ...], ...]
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
class PartialSeries:
    """A scan that is not whole yet, and what is known to be missing (nothing, when whole slices at an edge are)."""

    card: ProtocolCard
    n_images: int
    missing: tuple[MissingImage, ...]
    text: str


_Cells = dict[tuple[int | None, float], tuple[ImageFacts, ImageTime]]


def lay_out(
    facts: Sequence[ImageFacts],
    card: ProtocolCard,
    *,
    awaited: Awaited | None = None,
    is_counted: bool = False,
) -> ImageSeries | PartialSeries:
    """Place each image of a scan at its slice and time.

    Args:
        facts: at least one image; all acquired magnitude images of the card.
        card: the protocol.
        awaited: images that are known to exist and are not among ``facts``.
        is_counted: the headers say that these are all. Otherwise slices that lie two or three times as far apart as
            SpacingBetweenSlices says have others between them that have not come.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT (mixed matrix, spacing, orientation or frame of reference, irregular
            or non-sagittal slices), ECHO_UNRESOLVED, SCALING_UNKNOWN, INSTANCE_CONFLICT (one image under two UIDs),
            PROTOCOL_DEVIATION (two images for one slice and time, more slices than the card allows, lossy echoes).
    """
    awaited = awaited or Awaited()
    _check_uniform(facts)
    check_scaling(facts, card)
    found_times = image_times(facts, card)
    image_slices, places = group_by_slice(facts)
    cells = _fill_cells(facts, image_slices, found_times, card)
    check_locations(facts, image_slices.tolist())

    normal = normal_of(facts[0].orientation)
    numbers = _slice_numbers(places @ normal, _announced_spacing_mm(facts), is_counted)
    if numbers is None:
        if awaited.n_images:
            return PartialSeries(card, len(facts), (), awaited_text(len(facts), awaited))
        check_regular(places, normal)  # names the slice that is out of place
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "the slices are not regularly spaced")
    _check_not_torn(cells, places @ normal, card)
    partial = _if_partial(len(facts), cells, numbers, card, awaited)
    if partial is not None:
        return partial
    affine = affine_from_orientation(
        facts[0].orientation, places, facts[0].pixel_spacing_mm, single_slice_mm=facts[0].slice_thickness_mm
    )
    if not is_sagittal(affine):
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "the slices are not sagittal")
    times = _times_of(card)
    filled = [[cells[index, time] for index in range(len(places))] for time in times]
    return ImageSeries(
        card,
        grid=tuple(tuple(image for image, _ in row) for row in filled),
        image_times=tuple(tuple(time for _, time in row) for row in filled),
        times_ms=times,
        affine=affine,
    )


def _times_of(card: ProtocolCard) -> tuple[float, ...]:
    return (0.0,) if card.times.rule is TimeRule.NONE else card.times.distinct_ms


def _if_partial(
    n_images: int, cells: _Cells, numbers: Sequence[int], card: ProtocolCard, awaited: Awaited
) -> PartialSeries | None:
    """What the grid lacks; None when it lacks nothing and nothing is awaited."""
    n_slices = numbers[-1] + 1
    if n_slices > card.expected.max_slices:
        text = f"{n_slices} slices; {card.name} expects at most {card.expected.max_slices}"
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, text)
    index_of = {number: index for index, number in enumerate(numbers)}
    missing = tuple(
        MissingImage(number + 1, time)
        for number in range(n_slices)
        for time in _times_of(card)
        if (index_of.get(number), time) not in cells
    )
    if missing:
        text = missing_text(card, missing, n_images, n_slices, awaited)
        return PartialSeries(card, n_images, missing, text)
    if awaited.n_images:
        return PartialSeries(card, n_images, (), awaited_text(n_images, awaited))
    if n_slices < card.expected.min_slices:
        text = f"{n_images} images at {n_slices} slices; {card.name} expects at least {card.expected.min_slices} slices"
        return PartialSeries(card, n_images, (), text)
    return None


def same_geometry(one: ImageFacts, other: ImageFacts) -> str | None:
    """The name of the first attribute in which two images cannot belong to one volume; None when they can."""
    if (one.rows, one.columns) != (other.rows, other.columns):
        return "matrix"
    if not _are_close(one.pixel_spacing_mm, other.pixel_spacing_mm, rtol=_SAME_NUMBER):
        return "pixel spacing"
    if not _are_close(one.orientation, other.orientation, atol=_SAME_NUMBER):
        return "orientation"
    if one.frame_of_reference_uid != other.frame_of_reference_uid:
        return "frame of reference"
    return None


def _are_close(one: Sequence[float], other: Sequence[float], *, rtol: float = 0.0, atol: float = 0.0) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=rtol, atol=atol)


def _check_uniform(facts: Sequence[ImageFacts]) -> None:
    check_placed(facts)
    if not all(one.frame_of_reference_uid for one in facts):  # the results could not say where they lie
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, "an image has no FrameOfReferenceUID")
    first = facts[0]
    compared: set[tuple[object, ...]] = set()  # most images repeat the same few headers
    for one in facts:
        key = (one.rows, one.columns, one.pixel_spacing_mm, one.orientation, one.frame_of_reference_uid)
        if key in compared:
            continue
        compared.add(key)
        differs = same_geometry(first, one)
        if differs:
            raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"images of one scan differ in {differs}")


def _fill_cells(
    facts: Sequence[ImageFacts],
    image_slices: npt.NDArray[np.intp],
    found_times: Sequence[ImageTime],
    card: ProtocolCard,
) -> _Cells:
    cells: _Cells = {}
    for one, index, time in zip(facts, image_slices.tolist(), found_times, strict=True):
        other, _ = cells.setdefault((index, time.nominal_ms), (one, time))
        if other is one:
            continue
        where = f"slice {index + 1}"
        if card.times.rule is not TimeRule.NONE:
            where += f" and {time.nominal_ms:g} ms"
        if other.pixel_sha256 == one.pixel_sha256:
            raise UnsuitableInput(ReasonCode.INSTANCE_CONFLICT, f"one image came under two UIDs: {where}")
        if not image_slices.any() and card.expected.min_slices > 1:
            text = f"all {len(facts)} images lie at one place, several of each kind"
            raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, f"two different images for {where}; {card.name} has one")
    return cells


def _check_not_torn(cells: _Cells, depths: npt.NDArray[np.float64], card: ProtocolCard) -> None:
    """Refuse a slice of which some images lie apart, where every other one is whole: nothing of it is missing."""
    times = set(_times_of(card))
    held = [{time for index, time in cells if index == place} for place in range(len(depths))]
    torn = [place for place, found in enumerate(held) if found != times]
    if (
        len(torn) != 2
        or torn[1] != torn[0] + 1
        or held[torn[0]] & held[torn[1]]
        or held[torn[0]] | held[torn[1]] != times
    ):
        return
    gaps = np.diff(depths)
    if len(gaps) > 2 and gaps[torn[0]] < _TORN * np.median(gaps):
        text = f"images of slice {torn[0] + 1} lie {gaps[torn[0]]:.2f} mm apart"
        raise UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, text)


def _announced_spacing_mm(facts: Sequence[ImageFacts]) -> float | None:
    announced = {one.spacing_between_slices_mm for one in facts}
    value = announced.pop() if len(announced) == 1 else None
    return value if value and value > _LEAST_SPACING_MM else None


def _slice_numbers(
    depths: npt.NDArray[np.float64], announced_spacing_mm: float | None, is_counted: bool
) -> list[int] | None:
    """The place of each slice in a regular stack, from 0, with holes; None when there is no such stack.

    The unit is the smallest gap. It is the spacing that the header tells when the gaps are no multiples of the
    smallest, or when every second slice, or two of three, may be missing. Vendors do not agree on what that attribute
    means, so what lies in any other relation to the gaps is not believed.
    """
    gaps = np.diff(depths)
    if len(gaps) == 0:
        return [0]
    units = [float(gaps.min())]
    if announced_spacing_mm is not None:
        is_every_other = not is_counted and round(units[0] / announced_spacing_mm) in (2, 3)
        units.insert(0 if is_every_other else 1, announced_spacing_mm)
    for unit in units:
        steps = np.round(gaps / unit)
        if (steps >= 1).all() and (np.abs(gaps - steps * unit) <= SPACING_TOLERANCE * unit * steps).all():
            return [0, *np.cumsum(steps).astype(int).tolist()]
    return None
