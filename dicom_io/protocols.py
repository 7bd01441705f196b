"""Header facts and a protocol card -> what a series is, its times, or a refusal that names what was seen."""

import re
from collections.abc import Sequence

from config.protocol_cards import ProtocolCard, TimeRule
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
_GE_COMPLEX_PARTS = {1: "phase image", 2: "real-part image", 3: "imaginary-part image"}


def unusable_kind(facts: ImageFacts) -> str | None:
    """Why an image is no acquired magnitude image ("phase image", "localiser", …); None when it is one."""
    for value in facts.image_type:
        if value in _NOT_ACQUIRED:
            return f"{_NOT_ACQUIRED[value]} (ImageType {value})"
    if facts.ge_complex_part in _GE_COMPLEX_PARTS:
        return f"{_GE_COMPLEX_PARTS[facts.ge_complex_part]} (GE image type {facts.ge_complex_part})"
    return None


def match_card(facts_of_series: Sequence[ImageFacts], cards: Sequence[ProtocolCard]) -> ProtocolCard:
    """The one protocol card that fits every image of a series.

    Raises:
        UnsuitableInput: PROTOCOL_UNKNOWN, when no card fits, several do, or not the same for all images; the detail
            names what the header says and which cards exist.
    """
    fitting: list[ProtocolCard] = []
    for card in cards:
        verdicts = {_fits(*headers, card) for headers in {_matched_headers(facts) for facts in facts_of_series}}
        if verdicts == {True}:
            fitting.append(card)
    if len(fitting) == 1:
        return fitting[0]
    seen = facts_of_series[0]
    what = f"manufacturer {seen.manufacturer!r:.40}, series description {seen.series_description!r:.70}"
    if fitting:
        names = " and ".join(card.name for card in fitting)
        raise UnsuitableInput(ReasonCode.PROTOCOL_UNKNOWN, f"{what}: several protocol cards fit: {names}")
    names = ", ".join(card.name for card in cards) or "none"
    raise UnsuitableInput(ReasonCode.PROTOCOL_UNKNOWN, f"{what}: no protocol card fits; there are: {names}")


def time_of(facts: ImageFacts, card: ProtocolCard) -> float:
    """The card's spin-lock or echo time in ms that the header of an image names; 0 for a card without times.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, when the header names no time or one that is none of the card's.
    """
    if card.times.rule is TimeRule.NONE:
        return 0.0
    expected = ", ".join(f"{time:g}" for time in card.times.distinct_ms)
    if facts.echo_time_ms is None:
        raise UnsuitableInput(
            ReasonCode.ECHO_UNRESOLVED, f"an image has no EchoTime; {card.name} expects {expected} ms there"
        )
    nearest = min(card.times.distinct_ms, key=lambda time: abs(time - (facts.echo_time_ms or 0.0)))
    if abs(nearest - facts.echo_time_ms) > card.times.tolerance_ms:
        raise UnsuitableInput(
            ReasonCode.ECHO_UNRESOLVED,
            f"EchoTime {facts.echo_time_ms:g} ms is none of the times of {card.name}: {expected} ms",
        )
    return nearest


def times_of(facts_of_series: Sequence[ImageFacts], card: ProtocolCard) -> tuple[float, ...]:
    """The time in ms of each image, as :func:`time_of`.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, also when several images of one slice all carry one EchoTime, as some GE
            research sequences write it: then nothing in the header tells the spin-lock times apart.
    """
    echo_times = {facts.echo_time_ms for facts in facts_of_series}
    slices = {facts.position for facts in facts_of_series}
    if len(card.times.distinct_ms) > 1 and len(echo_times) == 1 and len(slices) < len(facts_of_series):
        found = echo_times.pop()
        expected = ", ".join(f"{time:g}" for time in card.times.distinct_ms)
        raise UnsuitableInput(
            ReasonCode.ECHO_UNRESOLVED,
            f"EchoTime is {'absent' if found is None else f'{found:g} ms'} in all {len(facts_of_series)} images; "
            f"{card.name} expects {expected} ms there",
        )
    return tuple(time_of(facts, card) for facts in facts_of_series)


def _matched_headers(facts: ImageFacts) -> tuple[str, str, str, str]:
    return facts.manufacturer, facts.series_description, facts.protocol_name, facts.scanning_sequence


def _fits(manufacturer: str, description: str, protocol_name: str, sequence: str, card: ProtocolCard) -> bool:
    match = card.match
    pairs = (
        (match.manufacturer, manufacturer),
        (match.series_description, description),
        (match.protocol_name, protocol_name),
        (match.scanning_sequence, sequence),
    )
    return all(re.search(pattern, text, re.IGNORECASE) for pattern, text in pairs if pattern is not None)
