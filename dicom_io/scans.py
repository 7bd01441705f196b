"""The series of one protocol card -> the one scan that is measured: parts joined, fragments and repeats left aside."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from config.protocol_cards import ProtocolCard, TimeRule
from config.settings import Repeats
from dicom_io.completeness import Arrived, by_known_counts, count
from dicom_io.headers import ImageFacts
from dicom_io.protocols import image_times
from dicom_io.shared_grid import is_part_of
from dicom_io.slice_grid import ImageSeries, PartialSeries, lay_out, same_geometry
from processing.refusal import ReasonCode, UnsuitableInput

Images = tuple[ImageFacts, ...]
_TIME = re.compile(r"(\d{8})?\d{6}(\.\d+)?")  # AcquisitionDate, if given, and AcquisitionTime

#: How many series a text names that are not used.
_NAMED = 3

Leave = Callable[[Sequence[ImageFacts], str], None]


def lay_out_counted(
    images: Sequence[ImageFacts], card: ProtocolCard, arrived: Arrived
) -> tuple[ImageSeries | PartialSeries, bool]:
    """Lay out the images of one scan, and say whether there is evidence that nothing more of it will come.

    Raises:
        UnsuitableInput: as :func:`dicom_io.slice_grid.lay_out`.
    """
    counted = count(images, card, arrived)
    laid_out = lay_out(images, card, awaited=counted.awaited, is_counted=counted.is_counted)
    return laid_out, counted.is_evidence


def find_scan(
    card: ProtocolCard, candidates: Sequence[Images], arrived: Arrived, repeats: Repeats, leave: Leave
) -> tuple[ImageSeries | PartialSeries, bool]:
    """The scan of a card that is measured, and whether there is evidence that nothing more of it will come.

    One whole series is used, and fragments beside it (an aborted scan) are left aside. Series that each hold some of
    the times are joined, if there is one way to do so: anonymised GE exams have one series for each spin-lock time.

    Args:
        card: a card of relaxometry.
        candidates: the usable images of each of its series, in the order of series numbers.
        arrived: everything of the exam.
        repeats: what to do when several could be measured.
        leave: is told which images are left aside, and why.

    Raises:
        UnsuitableInput: as :func:`dicom_io.slice_grid.lay_out`; PROTOCOL_DEVIATION, when several could be measured;
            ECHO_UNRESOLVED, also when the times of a series on the same planes are not known and others are missing.
    """
    candidates = [part for images in candidates for part in _acquisitions(images, card, arrived)]
    if len(candidates) == 1:
        return lay_out_counted(candidates[0], card, arrived)
    whole = _whole_scans(card, candidates, arrived)
    if whole:
        chosen = [_choose(whole, f"whole scans of {card.name}", repeats)]
    else:
        chosen = _join(card, candidates, arrived, repeats)
    left = [images for images in candidates if not any(images is one for one in chosen)]
    why_left = [_why_left(images, whole, card, repeats) for images in left]
    for images, why in zip(left, why_left, strict=True):
        leave(images, why)
    laid_out, has_evidence = lay_out_counted([one for images in chosen for one in images], card, arrived)
    if isinstance(laid_out, PartialSeries):
        for images in left:
            if same_geometry(images[0], chosen[0][0]) is None:
                image_times(images, card)  # what is missing has come, and its time is not known
        others = [f"{_names([images])} is not used: {why}" for images, why in zip(left, why_left, strict=True)]
        return replace(laid_out, text="; ".join([laid_out.text, *others[:_NAMED]])), False
    for images in left:  # a repeat of which the source has more is not a fragment: it is on its way
        awaited = by_known_counts({one.series_uid for one in images}, arrived).awaited
        if awaited.n_images:
            text = f"{_names([images])} is still arriving: {awaited.said_by} {awaited.n_images} more of it"
            return PartialSeries(card, len(laid_out.instances), (), text), False
    return laid_out, has_evidence


def _acquisitions(images: Images, card: ProtocolCard, arrived: Arrived) -> list[Images]:
    """The images of a series, or, where it holds a scan and its repeats, those of each acquisition."""
    numbers = {one.acquisition_number for one in images}
    if len(numbers) < 2 or None in numbers:
        return [images]
    try:
        lay_out(images, card)
    except UnsuitableInput:
        parts = [
            tuple(one for one in images if one.acquisition_number == number)
            for number in sorted(number for number in numbers if number is not None)
        ]
        return parts if any(_is_whole(part, card, arrived) for part in parts) else [images]
    return [images]


def _whole_scans(card: ProtocolCard, candidates: Sequence[Images], arrived: Arrived) -> list[Images]:
    """The series that are whole by themselves.

    One that has but some slices of another, and no evidence that they are all, is a scan that was aborted.
    """
    found: list[tuple[Images, ImageSeries, bool]] = []
    for images in candidates:
        try:
            laid_out, has_evidence = lay_out_counted(images, card, arrived)
        except UnsuitableInput:
            continue  # of several series one may be spoilt; if none is whole, the refusal is raised from the fullest
        if isinstance(laid_out, ImageSeries):
            found.append((images, laid_out, has_evidence))
    most = max((len(scan.grid[0]) for _, scan, _ in found), default=0)
    return [
        images
        for images, scan, has_evidence in found
        if has_evidence or len(scan.grid[0]) == most or not any(is_part_of(scan, other) for _, other, _ in found)
    ]


def _is_whole(images: Images, card: ProtocolCard, arrived: Arrived) -> bool:
    try:
        laid_out, _ = lay_out_counted(images, card, arrived)
    except UnsuitableInput:
        return False
    return isinstance(laid_out, ImageSeries)


def _join(card: ProtocolCard, candidates: Sequence[Images], arrived: Arrived, repeats: Repeats) -> list[Images]:
    """The series that together may make one scan: no time in two of them; else the fullest series alone.

    Series of one image each, as some archives hand images out, are no halves of two aborted scans.

    Raises:
        UnsuitableInput: PROTOCOL_DEVIATION, when there are several ways to make a whole scan.
    """
    if all(len(images) == 1 for images in candidates):
        together = tuple(one for images in candidates for one in images)
        if _is_whole(together, card, arrived):
            return list(candidates)  # without any of them there would be a hole: there is no other way
    by_times = _by_times(card, candidates)
    times = [time for key in by_times for time in key]
    if not times or len(set(times)) < len(times):
        return [max(candidates, key=len)]
    fullest = {key: [part for part in parts if len(part) == max(map(len, parts))] for key, parts in by_times.items()}
    chosen = [parts[0] for parts in fullest.values()]
    if not _is_whole(tuple(one for images in chosen for one in images), card, arrived):
        return chosen
    return [
        _choose(parts, f"series of {card.name} at {', '.join(f'{time:g}' for time in sorted(key))} ms", repeats)
        for key, parts in fullest.items()
    ]


def _by_times(card: ProtocolCard, candidates: Sequence[Images]) -> dict[frozenset[float], list[Images]]:
    """The series by the times they hold, without those whose times are not known.

    By the rule acquisition_order one series alone does not tell: there all are looked at together.
    """
    if card.times.rule is TimeRule.ACQUISITION_ORDER:
        together = tuple(one for images in candidates for one in images)
        nominal = dict(zip((one.key for one in together), _nominal_times(together, card), strict=False))
    else:
        nominal = {
            one.key: time
            for images in candidates
            for one, time in zip(images, _nominal_times(images, card), strict=False)
        }
    found: dict[frozenset[float], list[Images]] = {}
    for images in candidates:
        if images[0].key in nominal:
            found.setdefault(frozenset(nominal[one.key] for one in images), []).append(images)
    return found


def _nominal_times(images: Images, card: ProtocolCard) -> list[float]:
    """The card's time of each image; empty when they are not known."""
    try:
        return [time.nominal_ms for time in image_times(images, card)]
    except UnsuitableInput:
        return []


def _choose(equals: Sequence[Images], what: str, repeats: Repeats) -> Images:
    """The one of several that is measured.

    Raises:
        UnsuitableInput: PROTOCOL_DEVIATION, when that is not known.
    """
    if len(equals) == 1:
        return equals[0]
    keys = _order_keys(equals)
    if repeats is not Repeats.HOLD and keys is not None:
        pick = min if repeats is Repeats.FIRST else max
        wanted = pick(keys)
        if keys.count(wanted) == 1:
            return equals[keys.index(wanted)]
    undecided = (
        " (setting completion.repeats)"
        if repeats is Repeats.HOLD
        else "; neither acquisition times nor numbers tell their order"
    )
    raise UnsuitableInput(
        ReasonCode.PROTOCOL_DEVIATION,
        f"{len(equals)} {what} ({_names(equals)}): which one to measure is not known{undecided}",
    )


def _order_keys(equals: Sequence[Images]) -> Sequence[str | int] | None:
    """What orders several scans in time: when each began, else series number, else acquisition number."""
    began = [min(one.acquisition_time for one in images) for images in equals]
    are_alike = all(_TIME.fullmatch(time) for time in began) and len({len(time.split(".")[0]) for time in began}) == 1
    if are_alike and len(set(began)) == len(began):
        return began
    for numbers in (
        [images[0].series_number for images in equals],
        [images[0].acquisition_number for images in equals],
    ):
        known = [number for number in numbers if number is not None]
        if len(set(known)) == len(equals):
            return known
    return None


def _why_left(images: Images, whole: Sequence[Images], card: ProtocolCard, repeats: Repeats) -> str:
    if any(images is one for one in whole):
        return f"a repeat; the {repeats} scan of {card.name} is used"
    try:
        laid_out = lay_out(images, card)
    except UnsuitableInput as refusal:
        return refusal.reason.detail
    held = laid_out.text if isinstance(laid_out, PartialSeries) else f"{len(laid_out.grid[0])} slices"
    return f"a fragment ({held}); another series of {card.name} holds more"


def _names(several: Sequence[Images]) -> str:
    numbers = [images[0].series_number for images in several]
    if len(several) > 1 and len({images[0].series_uid for images in several}) == 1:
        return f"acquisitions {' and '.join(str(images[0].acquisition_number) for images in several)} of one series"
    return f"series {' and '.join('without number' if number is None else str(number) for number in numbers)}"
