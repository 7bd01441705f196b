"""Stored values -> signal that may be compared between the images of one decay."""

from config.protocol_cards import ScalingRule
from dicom_io.headers import ImageFacts
from processing.refusal import ReasonCode, UnsuitableInput


def scaling_of(facts: ImageFacts, rule: ScalingRule) -> tuple[float, float]:
    """Slope and intercept that turn the stored values of an image into signal, as the card's rule says.

    Raises:
        UnsuitableInput: SCALING_UNKNOWN, when the header does not tell what the rule needs.
    """
    slope = 1.0 if facts.rescale_slope is None else facts.rescale_slope
    intercept = facts.rescale_intercept or 0.0
    if rule is ScalingRule.PHILIPS_SCALE_SLOPE:
        if not facts.scale_slope or not slope:
            text = "an image has no Philips scale slope (2005,xx0E), without which signals cannot be compared"
            raise UnsuitableInput(ReasonCode.SCALING_UNKNOWN, text)
        # FP = DV / (RS * SS) with DV = PV * RS + RI
        return 1 / facts.scale_slope, intercept / (slope * facts.scale_slope)
    if rule is ScalingRule.RESCALE_PER_IMAGE and facts.rescale_slope is None:
        raise UnsuitableInput(ReasonCode.SCALING_UNKNOWN, "an image has no RescaleSlope")
    return slope, intercept
