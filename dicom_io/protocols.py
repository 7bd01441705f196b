"""Header facts and a protocol card -> what a series is and which image has which time, or a refusal that says why."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from config.protocol_cards import Match, ProtocolCard, TimeRule, shown_pattern
from dicom_io.acquisition_order import KEY_NAMES, time_indices
from dicom_io.headers import ImageFacts
from processing.refusal import ReasonCode, UnsuitableInput

# PS3.3 C.8.3.1.1.1 (ImageType of MR images) and what Philips, Siemens and GE write there
_NOT_ACQUIRED = {
    "DERIVED": "derived image",
    "SECONDARY": "secondary image",
    "LOCALIZER": "localiser",
    "P": "phase image",
    "PHASE": "phase image",
    "PHASE MAP": "phase image",
    "R": "real-part image",
    "REAL": "real-part image",
    "I": "imaginary-part image",
    "IMAGINARY": "imaginary-part image",
    "MPR": "reformatted image",
    "PROJECTION IMAGE": "projection",
}
# PS3.3 C.8.13.3.1.1 (ComplexImageComponent of Enhanced MR)
_NOT_MAGNITUDE = {
    "PHASE": "phase image",
    "REAL": "real-part image",
    "IMAGINARY": "imaginary-part image",
    "MIXED": "image of mixed parts",
}
_GE_COMPLEX_PARTS = {1: "phase image", 2: "real-part image", 3: "imaginary-part image"}

#: What stands between the times of a list in a description: TSL 0_10_40_80, 0-10-40-80, 0/10/40/80, 0, 10, 40, 80
_BETWEEN_TIMES = re.compile(r"\s*[_\-,;/\s]\s*")
_TIME = re.compile(r"\d+(\.\d+)?")

_DECIMAL = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*")  # PS3.5 6.2: DS, IS, and floats as text

_MATCHED = tuple(Match.model_fields)

_UNIT_MS = {"ms": 1.0, "s": 1000.0, "us": 0.001}


def unusable_kind(facts: ImageFacts) -> str | None:
    """Why an image is no acquired magnitude image ("phase image", "localiser", …); None when it is one."""
    for value in facts.image_type:
        if value in _NOT_ACQUIRED:
            return f"{_NOT_ACQUIRED[value]} (ImageType {value})"
        if value.endswith((" MAP", "_MAP")):  # Philips: T1 MAP, T2 MAP, B0 MAP
            return f"calculated map (ImageType {value})"
    if facts.image_type[:1] == ("MIXED",):
        return "image of mixed kinds (ImageType MIXED)"
    if facts.complex_component in _NOT_MAGNITUDE:
        return f"{_NOT_MAGNITUDE[facts.complex_component]} (ComplexImageComponent {facts.complex_component})"
    if facts.ge_complex_part in _GE_COMPLEX_PARTS:
        return f"{_GE_COMPLEX_PARTS[facts.ge_complex_part]} (GE image type {facts.ge_complex_part})"
    return None


def match_card(facts_of_series: Sequence[ImageFacts], cards: Sequence[ProtocolCard]) -> ProtocolCard:
    """The one protocol card that fits every image of a series.

    Raises:
        UnsuitableInput: PROTOCOL_UNKNOWN, when no card fits, several do, or not the same for all images; the detail
            names what the header says, which cards exist, and what the nearest of them misses.
    """
    headers = tuple(dict.fromkeys(_matched_headers(facts) for facts in facts_of_series))
    misses = {card.name: [miss for header in headers for miss in _misses(header, card)] for card in cards}
    fitting = [card for card in cards if not misses[card.name]]
    if len(fitting) == 1:
        return fitting[0]
    seen = facts_of_series[0]
    what = f"manufacturer {seen.manufacturer!r:.40}, series description {seen.series_description!r:.70}"
    if fitting:
        names = " and ".join(card.name for card in fitting)
        raise UnsuitableInput(ReasonCode.PROTOCOL_UNKNOWN, f"{what}: several protocol cards fit: {names}")
    names = ", ".join(card.name for card in cards) or "none"
    raise UnsuitableInput(
        ReasonCode.PROTOCOL_UNKNOWN, f"{what}: no protocol card fits; there are: {names}{_nearest(cards, misses)}"
    )


def _matched_headers(facts: ImageFacts) -> tuple[tuple[str, str], ...]:
    return tuple((name, getattr(facts, name)) for name in _MATCHED)


def _misses(header: Sequence[tuple[str, str]], card: ProtocolCard) -> list[str]:
    """What a card asks for and a header does not have, in words; empty when the card fits."""
    return [
        f"{name} {value!r:.70} does not match {shown_pattern(pattern)}"
        for name, value in header
        if (pattern := getattr(card.match, name)) is not None and not re.search(pattern, value, re.IGNORECASE)
    ]


def _nearest(cards: Sequence[ProtocolCard], misses: dict[str, list[str]]) -> str:
    """The card of the same maker with the fewest misses, of several the one that asks for most, and what it misses."""
    if not cards:
        return ""
    nearest = min(cards, key=lambda card: _distance(card, misses[card.name]))
    words = f"; it is for {nearest.match_in_words}" if nearest.match_in_words else ""
    return f"; the nearest, {nearest.name}: {'; '.join(dict.fromkeys(misses[nearest.name]))}{words}"


def _distance(card: ProtocolCard, misses: Sequence[str]) -> tuple[bool, int, int]:
    """The maker counts most: what other makers write is no help."""
    is_of_other_maker = any(miss.startswith("manufacturer ") for miss in misses)
    return is_of_other_maker, len(misses), -sum(value is not None for _, value in card.match)


@dataclass(frozen=True, slots=True)
class ImageTime:
    """The spin-lock or preparation time of one image.

    ``nominal_ms``: as the card names it; ``written_ms``: as the header tells it; ``source``: where that was read.
    """

    nominal_ms: float
    written_ms: float
    source: str


def image_times(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    """The time of each image, by the card's rule; 0 for a card without times.

    Args:
        images: what has come of one scan, at least one image; a rule may need to see all of them together.
        card: its protocol.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, when headers and card do not tell every image's time beyond doubt; the detail
            names both sides. By the rule acquisition_order also GEOMETRY_INCONSISTENT, as positions must agree.
    """
    return _RULES[card.times.rule](images, card)


def _no_times(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    return (ImageTime(0.0, 0.0, ""),) * len(images)


def _by_echo_time(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    source = "EchoTime (0018,0081)" if images[0].frame_number is None else "EffectiveEchoTime (0018,9082)"
    return _by_value(images, [one.echo_time_ms for one in images], card, "EchoTime", source)


def _by_element(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    element = card.times.element
    assert element is not None  # a validated card
    texts = [dict(one.elements).get(element.name) for one in images]
    factor = _UNIT_MS[card.times.unit]
    for text in texts:
        if text and not _DECIMAL.fullmatch(text):
            raise _unresolved(f"{element.name} is {text!r:.40}, which is no time")
    values = [float(text) * factor if text else None for text in texts]
    return _by_value(images, values, card, element.name, element.name)


def _by_value(
    images: Sequence[ImageFacts], values: Sequence[float | None], card: ProtocolCard, name: str, source: str
) -> tuple[ImageTime, ...]:
    """Each image's own header value, which must be one of the card's times."""
    expected = _listed(card.times.distinct_ms)
    _check_varies(images, values, name, f"{card.name} expects {expected} ms there")
    found: dict[float, ImageTime] = {}
    for value in values:
        if value is None:
            raise _unresolved(f"an image has no {name}; {card.name} expects {expected} ms there")
        if value not in found:
            nominal = _nearest_time(value, card.times.distinct_ms, card.times.tolerance_ms)
            if nominal is None:
                raise _unresolved(f"{name} {value:g} ms is none of the times of {card.name}: {expected} ms")
            found[value] = ImageTime(nominal, value, source)
    return _apart_at_each_slice(images, [found[value] for value in values if value is not None], name)


def _apart_at_each_slice(images: Sequence[ImageFacts], times: Sequence[ImageTime], name: str) -> tuple[ImageTime, ...]:
    """Refuse different header values that would mean one time at one slice: EchoTime in seconds is near 0 for all."""
    written: dict[tuple[tuple[float, ...], float], float] = {}
    for one, time in zip(images, times, strict=True):
        other = written.setdefault((one.position, time.nominal_ms), time.written_ms)
        if other != time.written_ms:
            values = _listed(sorted((other, time.written_ms)))
            raise _unresolved(f"{name} {values} ms, of images at one slice, would both mean {time.nominal_ms:g} ms")
    return tuple(times)


def _check_varies(images: Sequence[ImageFacts], values: Sequence[float | None], name: str, expected: str) -> None:
    """Refuse images of which several at one slice carry the same value, and all others too.

    Some GE research sequences write one EchoTime for all images; then nothing in the header tells times apart.
    """
    if len(set(values)) == 1 and len({one.position for one in images}) < len(images):
        value = "absent" if values[0] is None else f"{values[0]:g} ms"
        raise _unresolved(
            f"{name} is {value} in all {len(images)} images; {expected}. "
            "If the order of acquisition is known, a protocol card with the rule acquisition_order can tell them apart"
        )


def _by_description_list(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    """TriggerTime, believed only because the description lists the very same times."""
    for description in dict.fromkeys(one.series_description for one in images):
        _check_lists(description, card)
    listed = f"SeriesDescription lists {_listed(card.times.distinct_ms)} ms"
    values = [one.trigger_time_ms for one in images]
    _check_varies(images, values, "TriggerTime", listed)
    if None in values:
        raise _unresolved(f"an image has no TriggerTime, which would tell its time; {listed}")
    name = "TriggerTime (0018,1060)"
    if images[0].frame_number is not None:
        name += " or NominalCardiacTriggerDelayTime (0020,9153)"
    found: dict[float | None, ImageTime] = {}
    for value in dict.fromkeys(values):
        nominal = None if value is None else _nearest_time(value, card.times.distinct_ms, card.times.tolerance_ms)
        if nominal is None or value is None:
            triggers = _listed(sorted({one for one in values if one is not None}))
            raise _unresolved(f"{listed}, but TriggerTime has {triggers} ms: which image has which time is not known")
        found[value] = ImageTime(nominal, value, f"{name}, listed in SeriesDescription")
    return _apart_at_each_slice(images, [found[value] for value in values], "TriggerTime")


def _check_lists(description: str, card: ProtocolCard) -> None:
    times = card.times
    # a list of T2 beside one of T1rho may leave out the image that both share
    t2_alone = tuple(time for time in times.t2_ms if time not in times.t1rho_ms)
    for pattern, expected, shorter in (
        (times.t1rho_pattern, times.t1rho_ms, times.t1rho_ms),
        (times.t2_pattern, times.t2_ms, t2_alone),
    ):
        if pattern is None:
            continue
        texts = _found_by(pattern, description)
        wanted = f"{card.name} expects {_listed(expected)} ms"
        if len(texts) != 1:
            what = "lists no times" if not texts else f"has several lists of times ({'; '.join(texts)})"
            raise _unresolved(
                f"SeriesDescription {description!r:.70} {what} where {shown_pattern(pattern)} looks; {wanted}"
            )
        parts = [part for part in _BETWEEN_TIMES.split(texts[0].strip()) if part]
        if not all(_TIME.fullmatch(part) for part in parts):
            raise _unresolved(f"{texts[0]!r:.70} in SeriesDescription is no list of times; {wanted}")
        listed = sorted(float(part) for part in parts)
        if not any(_are_same(listed, one, times.tolerance_ms) for one in (expected, shorter)):
            raise _unresolved(f"SeriesDescription lists {_listed(listed)} ms; {wanted}")


def _are_same(ones: Sequence[float], others: Sequence[float], tolerance_ms: float) -> bool:
    return len(ones) == len(others) and all(
        abs(one - other) <= tolerance_ms for one, other in zip(ones, others, strict=True)
    )


def _by_series_description(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    times = {text: _described_time(text, card) for text in dict.fromkeys(one.series_description for one in images)}
    return tuple(times[one.series_description] for one in images)


def _described_time(description: str, card: ProtocolCard) -> ImageTime:
    times = card.times
    found: dict[float, ImageTime] = {}
    for pattern, expected, role in (
        (times.t1rho_pattern, times.t1rho_ms, "T1rho"),
        (times.t2_pattern, times.t2_ms, "T2"),
    ):
        for text in _found_by(pattern, description) if pattern is not None else ():
            nominal = _nearest_time(float(text), expected, times.tolerance_ms) if _TIME.fullmatch(text) else None
            if nominal is None:
                raise _unresolved(
                    f"{text!r:.40} in SeriesDescription {description!r:.70} is none of the {role} times of "
                    f"{card.name}: {_listed(expected)} ms"
                )
            found[nominal] = ImageTime(nominal, float(text), "SeriesDescription (0008,103E)")
    if len(found) != 1:
        what = "names no time" if not found else f"names {_listed(sorted(found))} ms"
        raise _unresolved(
            f"SeriesDescription {description!r:.70} {what}; {card.name} expects one of "
            f"{_listed(times.distinct_ms)} ms there"
        )
    return next(iter(found.values()))


def _found_by(pattern: str, description: str) -> list[str]:
    """What the group of a pattern holds wherever the pattern is found, each once.

    A number of which the group holds only a part (51 of 51.4) is given whole.
    """
    texts = []
    for match in re.finditer(pattern, description, re.IGNORECASE):
        if match.group(1) is not None:
            rest = re.match(r"\d*(\.\d+)?", description[match.end(1) :])
            texts.append((match.group(1) + (rest.group() if rest else "")).strip())
    return list(dict.fromkeys(texts))


def _by_order(images: Sequence[ImageFacts], card: ProtocolCard) -> tuple[ImageTime, ...]:
    order = card.times.order
    assert order is not None  # a validated card
    source = f"order of {KEY_NAMES[order.key]}, by the protocol card"
    times = [ImageTime(time, time, source) for time in order.times_ms]
    return tuple(times[index] for index in time_indices(images, order))


_RULES: dict[TimeRule, Callable[[Sequence[ImageFacts], ProtocolCard], tuple[ImageTime, ...]]] = {
    TimeRule.ECHO_TIME: _by_echo_time,
    TimeRule.DESCRIPTION_LIST: _by_description_list,
    TimeRule.SERIES_DESCRIPTION: _by_series_description,
    TimeRule.ACQUISITION_ORDER: _by_order,
    TimeRule.ELEMENT: _by_element,
    TimeRule.NONE: _no_times,
}


def _nearest_time(value: float, times_ms: Sequence[float], tolerance_ms: float) -> float | None:
    """The time that a value means, if it lies within the tolerance of one."""
    if not math.isfinite(value):
        return None
    nearest = min(times_ms, key=lambda time: abs(time - value))
    return nearest if abs(nearest - value) <= tolerance_ms else None


def _listed(times_ms: Sequence[float]) -> str:
    return ", ".join(f"{time:g}" for time in times_ms)


def _unresolved(text: str) -> UnsuitableInput:
    return UnsuitableInput(ReasonCode.ECHO_UNRESOLVED, text)
