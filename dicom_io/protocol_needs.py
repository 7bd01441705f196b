"""What would be needed to have an exam measured: the general advice for its reasons, made as concrete as it can be."""

from config.protocol_cards import ScalingRule, TimeRule
from dicom_io.protocol_explanation import CardVerdict, ExamExplanation, SeriesExplanation
from processing.advice import ADVICE
from processing.refusal import Reason, ReasonCode


def needs_of(explanation: ExamExplanation) -> tuple[str, ...]:
    """One sentence or two for each reason; empty when the exam is accepted."""
    if explanation.is_accepted:
        return ()
    needs: list[str] = []
    for reason in explanation.reasons:
        needs.extend(_needs_for(reason, explanation))
    return tuple(dict.fromkeys(needs))


def _needs_for(reason: Reason, explanation: ExamExplanation) -> list[str]:
    found: list[str] = []
    if reason.code is ReasonCode.PROTOCOL_UNKNOWN:
        found = [need for series in explanation.series if (need := _unknown(series))]
    elif reason.code is ReasonCode.ECHO_UNRESOLVED:
        found = [need for series in explanation.series if (need := _unresolved(series))]
    elif reason.code is ReasonCode.SERIES_INCOMPLETE:
        found = [need] if (need := _incomplete(reason.detail)) else []
    elif reason.code is ReasonCode.SCALING_UNKNOWN:
        found = [need for series in explanation.series if (need := _scaling(series))]
    return found or [ADVICE[reason.code]]


def _unknown(series: SeriesExplanation) -> str | None:
    if series.card is not None or not any(verdict.failures for verdict in series.verdicts):
        return None
    name = _name(series)
    fitting = [verdict.card for verdict in series.verdicts if verdict.fits]
    if len(fitting) > 1:
        names = " and ".join(fitting)
        return (
            f"{name}: several cards fit ({names}). Make their patterns exclude each other, or let your card replace the"
            " built-in one ('replaces')."
        )
    if fitting:
        return None  # it holds no magnitude image; a card would not help
    nearest = min(series.verdicts, key=_distance)
    words = f"; it is for {nearest.is_for}" if nearest.is_for else ""
    return (
        f"{name}: if it is to be measured, write a card for it ('discnode protocol draft FOLDER'). The nearest card"
        f" is {nearest.card}, but {'; '.join(nearest.failures)}{words}."
    )


def _distance(verdict: CardVerdict) -> tuple[bool, int]:
    """A card for another maker is of no help, however few its other failures."""
    return any(failure.startswith("manufacturer:") for failure in verdict.failures), len(verdict.failures)


def _unresolved(series: SeriesExplanation) -> str | None:
    card = series.card
    if card is None or all(one.time_ms is not None or not one.why for one in series.images):
        return None
    images = [one.facts for one in series.images]
    name, rule = _name(series), card.times.rule
    expected = ", ".join(f"{time:g}" for time in card.times.distinct_ms)
    if rule is TimeRule.ECHO_TIME:
        found = sorted({one.echo_time_ms for one in images if one.echo_time_ms is not None})
        if len(found) < 2:
            return (
                f"{name}: {card.name} reads the times in EchoTime, and all images say the same there. If the scanner"
                " acquires the times in a fixed order, write a card with rule acquisition_order that names it and"
                f" replaces {card.name}; if it writes them elsewhere, a card with rule element."
            )
        times = ", ".join(f"{time:g}" for time in found[:12])
        return (
            f"{name}: EchoTime holds {times} ms, {card.name} expects {expected} ms. If this is another protocol, write"
            " a card for it and make the patterns of both exclude each other."
        )
    places = {
        TimeRule.DESCRIPTION_LIST: "the list in SeriesDescription and the values of TriggerTime (0018,1060)",
        TimeRule.SERIES_DESCRIPTION: "the time in each SeriesDescription",
        TimeRule.ACQUISITION_ORDER: "number and order of the images",
        TimeRule.ELEMENT: f"the element {card.times.element.name if card.times.element else ''}",
    }
    return (
        f"{name}: {card.name} reads the times from {places[rule]} and expects {expected} ms. Correct what was sent, or"
        " write a card that tells how this scanner writes its times."
    )


def _scaling(series: SeriesExplanation) -> str | None:
    card = series.card
    if card is None:
        return None
    images = [one.facts for one in series.images]
    name = _name(series)
    if card.scaling is ScalingRule.PHILIPS_SCALE_SLOPE and any(not one.scale_slope for one in images):
        return (
            f"{name}: the Philips scale slope (2005,xx0E) is missing. Send the images with their private elements, as"
            " the scanner exported them."
        )
    slopes = {(one.rescale_slope, one.rescale_intercept) for one in images}
    if len(slopes) < 2:
        return None
    if any(one.scale_slope for one in images):
        return f"{name}: each image has its own scaling. A card with scaling philips_scale_slope undoes it."
    return (
        f"{name}: RescaleSlope and RescaleIntercept differ between images. If they are to be applied to each image, a"
        " card with scaling rescale_per_image says so; if other scaling was lost on the way, send the originals."
    )


def _incomplete(detail: str) -> str | None:
    """From the text about what is missing, such as "ge-mapss: 82/84 images: missing TSL 40 ms at slices 7, 8"."""
    card, _, text = detail.partition(": ")
    _, is_listed, missing = text.partition(" images: missing ")
    if is_listed:
        return f"Send the missing images of {card}: {missing}."
    if text.startswith("the scan of "):
        return f"Send the other scan, too: {text}."
    return None


def _name(series: SeriesExplanation) -> str:
    return f"Series {series.facts.series_number or '?'} {series.facts.series_description!r:.70}"
