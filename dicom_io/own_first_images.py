"""One card, but T1rho and T2 each with an unprepared image of its own: then these are two scans on one grid.

Whether the image at time 0 is shared is a choice of whoever sets the scan up ("TSL 0" for both, or "TSL 0" and "TE 0").
Descriptions tell, or which times came in one series; and where both are there, each decay is fitted with its own.
"""

import re
from collections.abc import Sequence

from config.protocol_cards import ProtocolCard, TimeRule
from dicom_io.headers import ImageFacts
from dicom_io.protocols import image_times
from processing.refusal import UnsuitableInput

Images = tuple[ImageFacts, ...]


def parted(card: ProtocolCard, several: Sequence[Images]) -> list[tuple[str, ProtocolCard, list[Images]]]:
    """The scans of a card, each with a key, its card and its series: one, or T1rho and T2 apart.

    They are apart only where each series is of one quantity, and a time that the card lists for both (usually 0) has
    come with each. By descriptions the image that both share is one of T1rho ("TSL 0"): one of T2 ("TE 0") is its own,
    also where that of T1rho has not come, or not yet.
    """
    together = [(card.name, card, list(several))]
    times = card.times
    shared = set(times.t1rho_ms) & set(times.t2_ms)
    if times.rule not in (TimeRule.SERIES_DESCRIPTION, TimeRule.ECHO_TIME, TimeRule.ELEMENT) or not shared:
        return together
    is_described = times.rule is TimeRule.SERIES_DESCRIPTION
    held = [_times(images, card) for images in several]
    quantities = [
        _quantity(images[0].series_description, card) if is_described else _quantity_of(times_ms - shared, card)
        for images, times_ms in zip(several, held, strict=True)
    ]
    if None in quantities:
        return together
    found: dict[str, set[float]] = {"T1rho": set(), "T2": set()}
    for quantity, times_ms in zip(quantities, held, strict=True):
        found[str(quantity)] |= times_ms
    if not found["T2"] & shared or not (is_described or found["T1rho"] & shared):
        return together
    keys = {quantity: f"{card.name} ({quantity})" for quantity in found}
    without = {"T1rho": {"t2_ms": (), "t2_pattern": None}, "T2": {"t1rho_ms": (), "t1rho_pattern": None}}
    return [
        (
            keys[quantity],
            card.model_copy(
                update={
                    "times": times.model_copy(update=without[quantity]),
                    "together_with": (keys["T2" if quantity == "T1rho" else "T1rho"],),
                }
            ),
            [images for images, named in zip(several, quantities, strict=True) if named == quantity],
        )
        for quantity in found
    ]


def _quantity(description: str, card: ProtocolCard) -> str | None:
    patterns = {"T1rho": card.times.t1rho_pattern, "T2": card.times.t2_pattern}
    named = [name for name, pattern in patterns.items() if pattern and re.search(pattern, description, re.IGNORECASE)]
    return named[0] if len(named) == 1 else None


def _quantity_of(times_ms: set[float], card: ProtocolCard) -> str | None:
    """What a series is of whose times, but for those of both quantities, are all of one."""
    lists = {"T1rho": card.times.t1rho_ms, "T2": card.times.t2_ms}
    named = [name for name, listed in lists.items() if times_ms and times_ms <= set(listed)]
    return named[0] if len(named) == 1 else None


def _times(images: Images, card: ProtocolCard) -> set[float]:
    try:
        return {time.nominal_ms for time in image_times(images, card)}
    except UnsuitableInput:
        return set()  # told when the series are laid out
