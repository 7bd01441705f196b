"""One card, but T1rho and T2 each with an unprepared image of its own: then these are two scans on one grid.

Whether the image at time 0 is shared is a choice of whoever sets the scan up ("TSL 0" for both, or "TSL 0" and "TE 0").
Descriptions tell; and where both are there, each decay is fitted with its own.
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

    They are apart only where each description names one quantity, and a time that the card lists for both (usually 0)
    has come under the name of each.
    """
    together = [(card.name, card, list(several))]
    times = card.times
    shared = set(times.t1rho_ms) & set(times.t2_ms)
    if times.rule is not TimeRule.SERIES_DESCRIPTION or not shared:
        return together
    quantities = [_quantity(images[0].series_description, card) for images in several]
    if None in quantities:
        return together
    found = {
        quantity: {
            time
            for images, named in zip(several, quantities, strict=True)
            if named == quantity
            for time in _times(images, card)
        }
        for quantity in ("T1rho", "T2")
    }
    if not found["T1rho"] & found["T2"] & shared:
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


def _times(images: Images, card: ProtocolCard) -> set[float]:
    try:
        return {time.nominal_ms for time in image_times(images, card)}
    except UnsuitableInput:
        return set()  # told when the series are laid out
