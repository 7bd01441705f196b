"""Stored values -> signal that may be compared between the images of one decay."""

import math
from collections.abc import Sequence

from config.protocol_cards import ProtocolCard, Role, ScalingRule
from dicom_io.headers import ImageFacts
from processing.refusal import ReasonCode, UnsuitableInput


def scaling_of(facts: ImageFacts, rule: ScalingRule) -> tuple[float, float]:
    """Slope and intercept that turn the stored values of an image into signal, as the card's rule says.

    Raises:
        UnsuitableInput: SCALING_UNKNOWN, when the header does not tell what the rule needs, or no scanner scales so.
    """
    slope = 1.0 if facts.rescale_slope is None else facts.rescale_slope
    intercept = facts.rescale_intercept or 0.0
    if not (math.isfinite(slope) and slope > 0 and math.isfinite(intercept)):
        raise _unknown(f"rescale slope {slope:g}, intercept {intercept:g}")
    if facts.rescale_slope is None and intercept:  # PS3.3 C.11.1.1.2: never the one without the other
        raise _unknown("an image has a RescaleIntercept but no RescaleSlope")
    if facts.modality_lut_sha256 and (slope, intercept) != (1.0, 0.0):
        raise _unknown("an image has a Modality LUT and a rescale slope too; only one of them can be meant")
    if rule is ScalingRule.PHILIPS_SCALE_SLOPE:
        if facts.scale_slope is None:
            raise _unknown("an image has no Philips scale slope (2005,xx0E), without which signals cannot be compared")
        if not (math.isfinite(facts.scale_slope) and facts.scale_slope > 0):
            raise _unknown(f"Philips scale slope {facts.scale_slope:g}")
        if facts.rescale_slope is None:
            raise _unknown("an image has no RescaleSlope, which Philips writes beside its scale slope (2005,xx0E)")
        # FP = DV / (RS * SS) with DV = PV * RS + RI
        scaled = 1 / facts.scale_slope, intercept / (slope * facts.scale_slope)
        if not all(map(math.isfinite, scaled)):
            raise _unknown(
                f"rescale slope {slope:g}, intercept {intercept:g}, Philips scale slope {facts.scale_slope:g}"
            )
        return scaled
    if rule is ScalingRule.RESCALE_PER_IMAGE and facts.rescale_slope is None:
        raise _unknown("an image has no RescaleSlope")
    return slope, intercept


def check_scaling(images: Sequence[ImageFacts], card: ProtocolCard) -> None:
    """Refuse images whose signals cannot be compared. Of anatomy, where nothing is fitted, only each image's own.

    Raises:
        UnsuitableInput: SCALING_UNKNOWN, as :func:`scaling_of`, or when images of one decay are scaled differently in a
            way that the card's rule does not undo; PROTOCOL_DEVIATION, when they were lossy compressed.
    """
    found = sorted({scaling_of(one, card.scaling) for one in images})
    if card.role is Role.ANATOMY:
        return
    if any(one.lossy_compressed for one in images):
        text = "the images were lossy compressed: their signal is no longer what was measured"
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, text)
    luts = {one.modality_lut_sha256 for one in images}
    if len(luts) > 1:
        raise _unknown("images differ in their Modality LUT; their signals cannot be compared")
    if card.scaling is ScalingRule.RAW and (found != [(1.0, 0.0)] or luts != {""}):
        what = "a Modality LUT" if luts != {""} else f"slope and intercept {found[:3]}"
        raise _unknown(f"{card.name} expects stored values without rescaling; found {what}")
    if card.scaling is ScalingRule.PHILIPS_SCALE_SLOPE:
        if luts != {""}:
            raise _unknown("images with a Modality LUT have no Philips scale slope to apply")
        return
    scale_slopes = {one.scale_slope for one in images}
    if len(scale_slopes) > 1:
        raise _unknown(
            f"the Philips scale slope (2005,xx0E) differs between images; {card.name} does not apply it "
            f"(scaling: {card.scaling}; {ScalingRule.PHILIPS_SCALE_SLOPE} would)"
        )
    if len(found) > 1 and card.scaling is not ScalingRule.RESCALE_PER_IMAGE:
        raise _unknown(
            f"rescale slope and intercept differ between images: {found[:3]}; their signals cannot be compared"
        )


def _unknown(text: str) -> UnsuitableInput:
    return UnsuitableInput(ReasonCode.SCALING_UNKNOWN, text)
