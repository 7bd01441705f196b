"""What each image of an exam is, where its time was read, and what would be needed to measure it. No file is touched.

It asks the same functions that judge an exam and adds nothing to their verdict: what stands here is what happens.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

import numpy as np

from config.protocol_cards import ProtocolCard, Role, shown_pattern
from config.settings import Repeats
from dicom_io.headers import ImageFacts
from dicom_io.protocols import ImageTime, image_times, match_card, unusable_kind
from dicom_io.scaling import scaling_of
from dicom_io.series import ExamAssembly, assemble_exam
from dicom_io.slice_grid import ImageSeries
from processing.refusal import Reason, UnsuitableInput
from processing.volume import normal_of

ImageKey = tuple[str, int]

#: Images nearer than this along the normal are of one slice.
_SAME_SLICE_MM = 0.1


class Use(StrEnum):
    """What an image is for."""

    T1RHO = "T1rho"
    T2 = "T2"
    SHARED = "T1rho and T2"
    ANATOMY = "anatomy"
    SET_ASIDE = "set aside"
    UNRESOLVED = "not resolved"


@dataclass(frozen=True, slots=True)
class CardVerdict:
    """Whether a card fits a series, and which of its patterns are not found in which values.

    ``is_for``: what the card is for, in words; "" where it does not say.
    """

    card: str
    failures: tuple[str, ...]
    is_for: str = ""

    @property
    def fits(self) -> bool:
        """Whether every pattern is found in every image."""
        return not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageExplanation:
    """One image: its use and the reason for it, its time in ms (None: none, or not known) and where that was read.

    ``time_ms`` is the card's, ``written_ms`` what the header tells.

    ``slice_number`` counts from 1 along the normal, as texts about missing images do; None without a position.
    ``is_measured``: it takes part in the measurement.
    """

    facts: ImageFacts
    use: Use
    is_measured: bool = False
    why: str = ""
    slice_number: int | None = None
    time_ms: float | None = None
    written_ms: float | None = None
    source: str = ""
    scaling: str = ""


@dataclass(frozen=True, slots=True)
class SeriesExplanation:
    """The images of one DICOM series, the card that they match (None and the ``problem``, if not exactly one)."""

    images: tuple[ImageExplanation, ...]
    verdicts: tuple[CardVerdict, ...]
    card: ProtocolCard | None
    problem: str

    @property
    def facts(self) -> ImageFacts:
        """Of its first image."""
        return self.images[0].facts


@dataclass(frozen=True, slots=True)
class ExamExplanation:
    """All series, and the verdict on the exam with its reasons."""

    series: tuple[SeriesExplanation, ...]
    assembly: ExamAssembly
    reasons: tuple[Reason, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether the exam would be measured as it is."""
        return self.assembly.is_complete


def explain_exam(
    facts: Sequence[ImageFacts],
    cards: Sequence[ProtocolCard],
    *,
    refusals: Sequence[Reason] = (),
    repeats: Repeats = Repeats.HOLD,
) -> ExamExplanation:
    """Explain the images of one exam.

    Args:
        facts: all images, in any order.
        cards: the protocol cards in use.
        refusals: why other files of the exam could not be read.
        repeats: what to do when a scan is there twice.
    """
    assembly = assemble_exam(facts, cards, repeats=repeats)
    by_series = groupby(sorted(facts, key=_series_order), key=lambda one: one.series_uid)
    matched = [_match(tuple(images), cards) for _, images in by_series]
    uses = _uses(matched, assembly)
    series = tuple(
        SeriesExplanation(tuple(uses[_place(one)] for one in found.images), found.verdicts, found.card, found.problem)
        for found in matched
    )
    reasons = tuple(dict.fromkeys((*assembly.reasons, *refusals)))
    return ExamExplanation(series, assembly, reasons)


@dataclass(frozen=True, slots=True)
class _Matched:
    images: tuple[ImageFacts, ...]
    verdicts: tuple[CardVerdict, ...]
    card: ProtocolCard | None
    problem: str


def _place(one: ImageFacts) -> tuple[ImageKey, str]:
    """The image as it was given: of two files with one UID both are explained."""
    return one.key, str(one.path)


def _series_order(one: ImageFacts) -> tuple[object, ...]:
    return one.series_number or 0, one.series_uid, one.instance_number or 0, str(one.path), one.key


def _match(images: tuple[ImageFacts, ...], cards: Sequence[ProtocolCard]) -> _Matched:
    usable = [one for one in images if unusable_kind(one) is None]
    verdicts = tuple(card_verdict(usable or images, card) for card in cards)
    if not usable:
        return _Matched(images, verdicts, None, "holds no acquired magnitude image")
    try:
        return _Matched(images, verdicts, match_card(usable, cards), "")
    except UnsuitableInput as refusal:
        return _Matched(images, verdicts, None, refusal.reason.detail)


def card_verdict(images: Sequence[ImageFacts], card: ProtocolCard) -> CardVerdict:
    """Which patterns of a card are not found in which values of a series."""
    failures: list[str] = []
    for name, pattern in card.match:
        if pattern is None:
            continue
        values = sorted({str(getattr(one, name)) for one in images})
        failing = [value for value in values if not re.search(pattern, value, re.IGNORECASE)]
        if failing:
            more = f" (and {len(failing) - 1} other values)" if len(failing) > 1 else ""
            failures.append(f"{name}: {shown_pattern(pattern)} is not found in {failing[0]!r:.80}{more}")
    return CardVerdict(card.name, tuple(failures), card.match_in_words or "")


def _uses(matched: Sequence[_Matched], assembly: ExamAssembly) -> dict[tuple[ImageKey, str], ImageExplanation]:
    """The use of every image, under its place."""
    laid_out = _laid_out(assembly)
    set_aside = dict(assembly.set_aside)
    found: dict[tuple[ImageKey, str], ImageExplanation] = {}
    by_card: defaultdict[str, list[tuple[ProtocolCard, list[ImageFacts]]]] = defaultdict(list)
    for series in matched:
        rest: list[ImageFacts] = []
        for one in series.images:
            why = unusable_kind(one) or ("" if series.card else _short_problem(series))
            if one.key in laid_out:
                found[_place(one)] = replace(laid_out[one.key], facts=one)
            elif why or one.key in set_aside:
                found[_place(one)] = ImageExplanation(facts=one, use=Use.SET_ASIDE, why=why or set_aside[one.key])
            else:
                rest.append(one)
        if series.card is not None and rest:
            by_card[series.card.name].append((series.card, rest))
    for groups in by_card.values():
        explained = _of_card(groups[0][0], [images for _, images in groups])
        found.update({_place(one.facts): one for one in explained})
    return found


def _short_problem(series: _Matched) -> str:
    n_fitting = sum(verdict.fits for verdict in series.verdicts)
    return "several protocol cards fit" if n_fitting > 1 else series.problem if n_fitting else "no protocol card fits"


def _laid_out(assembly: ExamAssembly) -> dict[ImageKey, ImageExplanation]:
    """The images that have their place in a whole scan."""
    anatomy = [assembly.anatomy] if assembly.anatomy and assembly.anatomy not in assembly.measured else []
    return {
        one.facts.key: one
        for series in (*assembly.measured, *anatomy)
        for one in _of_whole(series, is_measured=series in assembly.measured)
    }


def _of_whole(series: ImageSeries, *, is_measured: bool) -> list[ImageExplanation]:
    return [
        _explained(one, series.card, time, number, is_measured=is_measured)
        for images, times in zip(series.grid, series.image_times, strict=True)
        for number, (one, time) in enumerate(zip(images, times, strict=True), start=1)
    ]


def _of_card(card: ProtocolCard, groups: Sequence[Sequence[ImageFacts]]) -> list[ImageExplanation]:
    """Images of a scan that is not whole: together if their times are told together, else series by series."""
    everything = [one for images in groups for one in images]
    numbers = slice_numbers(everything)
    try:
        times = image_times(everything, card)
    except UnsuitableInput as refusal:
        if len(groups) > 1:
            return [one for images in groups for one in _of_card(card, [images])]
        unresolved = replace(_explained(everything[0], card, None, None), why=refusal.reason.detail)
        return [
            replace(unresolved, facts=one, slice_number=number, scaling=_scaling_text(one, card))
            for one, number in zip(everything, numbers, strict=True)
        ]
    return [_explained(one, card, time, number) for one, time, number in zip(everything, times, numbers, strict=True)]


def _explained(
    one: ImageFacts, card: ProtocolCard, time: ImageTime | None, number: int | None, *, is_measured: bool = False
) -> ImageExplanation:
    has_time = time is not None and card.role is not Role.ANATOMY
    return ImageExplanation(
        facts=one,
        use=Use.UNRESOLVED if time is None else _use_of(card, time.nominal_ms),
        is_measured=is_measured,
        slice_number=number,
        time_ms=time.nominal_ms if time is not None and has_time else None,
        written_ms=time.written_ms if time is not None and has_time else None,
        source=time.source if time is not None and has_time else "",
        scaling=_scaling_text(one, card),
    )


def _use_of(card: ProtocolCard, time_ms: float) -> Use:
    if card.role is Role.ANATOMY:
        return Use.ANATOMY
    in_t1rho, in_t2 = time_ms in card.times.t1rho_ms, time_ms in card.times.t2_ms
    return Use.SHARED if in_t1rho and in_t2 else Use.T1RHO if in_t1rho else Use.T2


def _scaling_text(one: ImageFacts, card: ProtocolCard) -> str:
    try:
        slope, intercept = scaling_of(one, card.scaling)
    except UnsuitableInput as refusal:
        return refusal.reason.detail
    if (slope, intercept) == (1.0, 0.0):
        return "stored values"
    return f"x {slope:.6g}" + (f" {intercept:+.6g}" if intercept else "")


def slice_numbers(images: Sequence[ImageFacts]) -> list[int | None]:
    """The slice of each image, from 1 along the normal; a gap of several spacings leaves numbers out.

    None for an image without a position; all None where the images do not share one orientation.
    """
    placed = [one for one in images if _has_place(one)]
    try:
        normal = normal_of(placed[0].orientation) if placed else None
    except UnsuitableInput:
        normal = None
    if normal is None or any(not np.allclose(one.orientation, placed[0].orientation, atol=1e-3) for one in placed):
        return [None] * len(images)
    depths = sorted({float(np.dot(one.position, normal)) for one in placed})
    places = [depths[0]]
    for depth in depths[1:]:
        if depth - places[-1] > _SAME_SLICE_MM:
            places.append(depth)
    unit = min(np.diff(places), default=1.0)
    return [
        1 + round((float(np.dot(one.position, normal)) - places[0]) / unit) if _has_place(one) else None
        for one in images
    ]


def _has_place(one: ImageFacts) -> bool:
    return len(one.orientation) == 6 and len(one.position) == 3
