"""A first version of a protocol card from the images of an exam, to be reviewed by a person who knows the protocol.

What the headers tell is written down with what was seen. What they cannot tell stays ``TODO``, and a card with a TODO
is refused when it is loaded: nobody uses a draft unread.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from config.protocol_cards import ProtocolCard, ScalingRule
from dicom_io.differing_elements import DifferingElement
from dicom_io.headers import ImageFacts
from dicom_io.protocol_explanation import card_verdict, slice_numbers
from dicom_io.protocols import unusable_kind
from dicom_io.time_evidence import TODO, TimeEvidence, escaped, find_times, quoted
from processing.refusal import ReasonCode, UnsuitableInput

_NUMBER = r"\d+(?:\.\d+)?"


@dataclass(frozen=True, slots=True)
class CardDraft:
    """The text of a card in YAML with comments, and the keys that a person must still fill in."""

    name: str
    text: str
    open_keys: tuple[str, ...]


def draft_cards(
    facts: Sequence[ImageFacts],
    cards: Sequence[ProtocolCard] = (),
    *,
    name: str | None = None,
    private_texts: Collection[str] = (),
    look_further: Callable[[Sequence[ImageFacts]], Sequence[DifferingElement]] | None = None,
) -> tuple[CardDraft, ...]:
    """A draft for each scan with several images per slice, or for the anatomy where there is none.

    Args:
        facts: the images of one exam.
        cards: the cards in use: a draft replaces those that fit its images already.
        private_texts: descriptions that name a person and must not stand in a card.
        look_further: finds other elements that tell the images of a scan apart, where the usual ones do not
            (:func:`dicom_io.differing_elements.differing_elements`).
        name: of the card; several drafts get numbers. Default: from the series description.

    Raises:
        UnsuitableInput: PROTOCOL_UNKNOWN, when there is no acquired magnitude image with a position.
    """
    scans = _scans([_without(one, private_texts) for one in facts])
    if not scans:
        raise UnsuitableInput(ReasonCode.PROTOCOL_UNKNOWN, "no acquired magnitude image that a card could describe")
    names = _names(scans, name)
    evidence = [find_times(scan, look_further) if images_per_slice(scan) > 1 else None for scan in scans]
    own = list(zip(names, evidence, strict=True))
    return tuple(
        _draft(scan, cards, name, times, [(other, found) for other, found in own if other != name])
        for scan, (name, times) in zip(scans, own, strict=True)
    )


def _without(one: ImageFacts, private_texts: Collection[str]) -> ImageFacts:
    description = "" if one.series_description in private_texts else one.series_description
    protocol_name = "" if one.protocol_name in private_texts else one.protocol_name
    if (description, protocol_name) == (one.series_description, one.protocol_name):
        return one
    return replace(one, series_description=description, protocol_name=protocol_name)


def _scans(facts: Sequence[ImageFacts]) -> list[list[ImageFacts]]:
    """The images of each scan to be described: series of one geometry that differ only in the time are one scan."""
    usable = [one for one in facts if unusable_kind(one) is None and one.position and len(one.orientation) == 6]
    usable.sort(key=lambda one: (one.series_number or 0, one.series_uid, one.instance_number or 0, one.key))
    series = [list(images) for _, images in groupby(usable, key=lambda one: one.series_uid)]
    alike: defaultdict[tuple[object, ...], list[list[ImageFacts]]] = defaultdict(list)
    for images in series:
        alike[_likeness(images)].append(images)
    scans = [[one for images in group for one in images] for group in _joined(list(alike.values()))]
    relaxometry = [images for images in scans if images_per_slice(images) > 1]
    return relaxometry or scans[:1]


def _joined(groups: list[list[list[ImageFacts]]]) -> list[list[list[ImageFacts]]]:
    """Two families of series with one time each ("TSL 0, 10, ..." and "TE 13, 26, ...") at one place are one scan."""
    families = [group for group in groups if len(group) > 1]
    if len(families) != 2 or _likeness(families[0][0])[1:] != _likeness(families[1][0])[1:]:
        return groups
    return [families[0] + families[1], *(group for group in groups if len(group) == 1)]


def _likeness(images: Sequence[ImageFacts]) -> tuple[object, ...]:
    """Equal for series that may be the times of one scan; of a series that holds several times, its own."""
    first = images[0]
    if images_per_slice(images) > 1:
        return (first.series_uid,)
    places = tuple(sorted({tuple(round(value, 1) for value in one.position) for one in images}))
    text = re.sub(_NUMBER, "#", first.series_description)
    return text, places, first.rows, first.columns, first.manufacturer


def images_per_slice(images: Sequence[ImageFacts]) -> int:
    """How many images lie at the slice that has most of them."""
    numbers = slice_numbers(images)
    return max(numbers.count(number) for number in set(numbers))


def _names(scans: Sequence[Sequence[ImageFacts]], name: str | None) -> list[str]:
    wanted = [name or _slug(images[0]) for images in scans]
    if len(set(wanted)) == len(wanted):
        return wanted
    return [f"{one[:60]}-{number}" for number, one in enumerate(wanted, start=1)]


def _slug(facts: ImageFacts) -> str:
    maker = facts.manufacturer.split()[0] if facts.manufacturer.split() else "scanner"
    text = f"{maker}-{facts.series_description or facts.protocol_name or 'protocol'}".lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:58].strip("-") or "protocol"


_Others = Sequence[tuple[str, TimeEvidence | None]]


def _draft(
    images: Sequence[ImageFacts], cards: Sequence[ProtocolCard], name: str, times: TimeEvidence | None, others: _Others
) -> CardDraft:
    numbers = [number for number in slice_numbers(images) if number is not None]
    n_slices = max(numbers, default=1)
    fitting = [card.name for card in cards if card.name != name and card_verdict(images, card).fits]
    lines = [
        f"# Draft made from {len(images)} images at {n_slices} slices. Review every line; each TODO must be replaced",
        "# by what you know of the protocol. A card with a TODO is not loaded.",
        f"name: {name}",
        f"description: {quoted(images[0].series_description or images[0].protocol_name or 'to be described')}",
        f"role: {'relaxometry' if times else 'anatomy'}",
        *_match_lines(images, times),
        *(times.lines if times else ["times:", "  rule: none"]),
        "expected:",
        f"  # {n_slices} slices were found. Equal limits say the exact number: a full grid is then a whole exam. Give a"
        " range",
        "  # if the number varies between subjects.",
        f"  min_slices: {n_slices}",
        f"  max_slices: {n_slices}",
        *_scaling_lines(images),
    ]
    if times and any(line.startswith("  t1rho_ms:") for line in times.lines):
        lines += [
            "# Stands in no header that is known; shown with every result. Delete the line if you do not know it.",
            f"spin_lock_frequency_hz: {TODO}",
        ]
    if times and others:
        lines += _together_lines(times, others)
    if fitting:
        lines += [
            "# These cards fit the same images; without the next line the node could not tell which to use. Instead you"
            " may",
            "# make the patterns of both exclude each other.",
            f"replaces: [{', '.join(fitting)}]",
        ]
    return CardDraft(name, "\n".join(lines) + "\n", _open_keys(lines))


def _together_lines(times: TimeEvidence, others: _Others) -> list[str]:
    """The other scans of the exam: T1rho and T2 belong together, of anything else a person must know."""
    names = ", ".join(name for name, _ in others)
    quantities = {times.quantities, *(found.quantities for _, found in others if found is not None)}
    if len(others) == 1 and quantities == {("t1rho",), ("t2",)}:
        return [
            "# The exam holds both scans, and is whole only with both. Delete the line if each is an exam of its own.",
            f"together_with: [{names}]",
        ]
    return [
        f"# The exam holds other scans with several times: {names}. Name those without which",
        "# the exam is not whole, or none: []",
        f"together_with: {TODO}",
    ]


def _match_lines(images: Sequence[ImageFacts], times: TimeEvidence | None) -> list[str]:
    """Patterns that fit these images and nothing that is written otherwise."""
    first = images[0]
    lines = ["match:", "  # All patterns (regular expressions, case-insensitive) must be found in the header."]
    for attribute in ("manufacturer", "manufacturer_model_name"):
        values = {getattr(one, attribute) for one in images}
        if len(values) == 1 and getattr(first, attribute):
            lines.append(f"  {attribute}: {quoted(_anchored(getattr(first, attribute)))}")
    descriptions = sorted({one.series_description for one in images})
    if descriptions != [""]:
        pattern = times.description_pattern if times and times.description_pattern else None
        if pattern is None:
            pattern = _anchored(descriptions[0]) if len(descriptions) == 1 else None
        lines.append(f"  series_description: {TODO if pattern is None else quoted(pattern)}")
        if pattern is None:
            lines.insert(-1, f"  # seen: {', '.join(map(repr, descriptions[:8]))}")
    elif len({one.protocol_name for one in images}) == 1 and first.protocol_name:
        lines.append(f"  protocol_name: {quoted(_anchored(first.protocol_name))}")
    elif first.sequence_name:
        lines.append(f"  sequence_name: {quoted(_anchored(first.sequence_name))}")
    else:
        lines += [
            "  # The images have no SeriesDescription, ProtocolName or SequenceName: what tells them from others?",
            f"  series_description: {TODO}",
        ]
    for attribute in ("protocol_name", "sequence_name", "scanning_sequence", "software_versions"):
        value = getattr(first, attribute)
        if value and not any(line.startswith(f"  {attribute}:") for line in lines):
            lines.append(f"  # {attribute}: {quoted(_anchored(value))}")
    return lines


def _scaling_lines(images: Sequence[ImageFacts]) -> list[str]:
    """A proposal with its reason; TODO where the header may not tell the whole scaling."""
    rescale = {(one.rescale_slope, one.rescale_intercept) for one in images}
    is_philips = any("philips" in one.manufacturer.lower() for one in images)
    if all(one.scale_slope for one in images):
        n_slopes = len({one.scale_slope for one in images})
        return [
            f"# Every image has the Philips scale slope (2005,xx0E), {n_slopes} different in all.",
            f"scaling: {ScalingRule.PHILIPS_SCALE_SLOPE}",
        ]
    if is_philips:
        return [
            "# A Philips scanner, but not every image has its scale slope (2005,xx0E): private elements were removed.",
            "# Send the images as the scanner exports them, or find out whether stored values may be compared: one of",
            "# rescale_if_present, rescale_per_image, philips_scale_slope, raw:",
            f"scaling: {TODO}",
        ]
    if len(rescale) == 1:
        (slope, intercept), *_ = rescale
        seen = "no RescaleSlope" if slope is None else f"RescaleSlope {slope:g}, RescaleIntercept {intercept or 0:g}"
        return [f"# {seen} in all images.", f"scaling: {ScalingRule.RESCALE_IF_PRESENT}"]
    if any(slope is None for slope, _ in rescale):
        return [
            "# Some images have a RescaleSlope and some have none. One of rescale_if_present, rescale_per_image, raw:",
            f"scaling: {TODO}",
        ]
    return [
        f"# {len(rescale)} different RescaleSlope/Intercept; by the standard each image's own is to be applied.",
        f"scaling: {ScalingRule.RESCALE_PER_IMAGE}",
    ]


def _open_keys(lines: Sequence[str]) -> tuple[str, ...]:
    """The keys whose value is TODO, with the section they stand in."""
    found, section = [], ""
    for line in lines:
        key = re.match(r"( *)([a-z0-9_]+):(.*)", line)
        if key is None:
            continue
        if not key[1]:
            section = key[2]
        if TODO in key[3]:
            found.append(f"{section}.{key[2]}" if key[1] else key[2])
    return tuple(found)


def _anchored(text: str) -> str:
    return f"^{escaped(text)}$"
