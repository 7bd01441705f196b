"""Signals are compared only where header and card say how: each rule, and what each refuses."""

import math

import pytest
from small_mr_exam import image_facts

from config.protocol_cards import ProtocolCard, ScalingRule, load_cards
from dicom_io.headers import ImageFacts
from dicom_io.scaling import check_scaling, scaling_of
from processing.refusal import ReasonCode, UnsuitableInput

BY_NAME = {card.name: card for card in load_cards()}


def card(rule: ScalingRule, name: str = "ge-mapss") -> ProtocolCard:
    return BY_NAME[name].model_copy(update={"scaling": rule})


def refused(images: list[ImageFacts], rule: ScalingRule) -> str:
    with pytest.raises(UnsuitableInput) as caught:
        check_scaling(images, card(rule))
    assert caught.value.reason.code is ReasonCode.SCALING_UNKNOWN
    return caught.value.reason.detail


def philips(**changes: object) -> ImageFacts:
    return image_facts(**{"rescale_slope": 2.0, "rescale_intercept": 0.0, "scale_slope": 0.005, **changes})


def test_philips_floating_point_value() -> None:
    """FP = DV / (RS * SS), DV = PV * RS + RI."""
    slope, intercept = scaling_of(philips(rescale_intercept=-30.0), ScalingRule.PHILIPS_SCALE_SLOPE)
    stored = 1234
    assert stored * slope + intercept == pytest.approx((stored * 2.0 - 30.0) / (2.0 * 0.005))


def test_philips_slopes_may_differ_from_image_to_image() -> None:
    images = [philips(), philips(rescale_slope=1.7, scale_slope=0.0061), philips(scale_slope=0.2)]
    check_scaling(images, card(ScalingRule.PHILIPS_SCALE_SLOPE))
    assert len({scaling_of(one, ScalingRule.PHILIPS_SCALE_SLOPE) for one in images}) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scale_slope": None}, "no Philips scale slope"),
        ({"scale_slope": 0.0}, "scale slope 0"),
        ({"scale_slope": -0.1}, "scale slope -0.1"),
        ({"scale_slope": math.nan}, "scale slope nan"),
        ({"scale_slope": 1e-320}, "scale slope 9.99989e-321"),
        ({"rescale_slope": 0.0}, "rescale slope 0"),
        ({"rescale_slope": -1.0}, "rescale slope -1"),
        ({"rescale_slope": math.inf}, "rescale slope inf"),
        ({"rescale_intercept": math.nan}, "intercept nan"),
        ({"rescale_slope": None, "rescale_intercept": 5.0}, "no RescaleSlope"),
        ({"modality_lut_sha256": "c" * 64}, "a Modality LUT and a rescale slope too"),
    ],
)
def test_one_odd_philips_image_is_refused(changes: dict[str, object], text: str) -> None:
    assert text in refused([philips(), philips(**changes)], ScalingRule.PHILIPS_SCALE_SLOPE)


@pytest.mark.parametrize("rule", [ScalingRule.RESCALE_IF_PRESENT, ScalingRule.RESCALE_PER_IMAGE, ScalingRule.RAW])
def test_a_scale_slope_that_differs_is_not_ignored(rule: ScalingRule) -> None:
    images = [image_facts(rescale_slope=1.0, scale_slope=value) for value in (0.005, 0.006)]
    assert "philips_scale_slope would" in refused(images, rule)
    assert "philips_scale_slope would" in refused([images[0], image_facts(rescale_slope=1.0)], rule)
    check_scaling([images[0], images[0]], card(rule))  # one factor for all


def test_each_image_by_its_own_slope() -> None:
    images = [image_facts(rescale_slope=slope, rescale_intercept=1.0) for slope in (1.0, 2.0)]
    check_scaling(images, card(ScalingRule.RESCALE_PER_IMAGE))
    assert "differ between images" in refused(images, ScalingRule.RESCALE_IF_PRESENT)
    assert "no RescaleSlope" in refused([*images, image_facts()], ScalingRule.RESCALE_PER_IMAGE)


def test_slopes_of_only_some_images_are_refused() -> None:
    assert "differ" in refused([image_facts(), image_facts(rescale_slope=2.0)], ScalingRule.RESCALE_IF_PRESENT)
    check_scaling([image_facts(), image_facts(rescale_slope=1.0)], card(ScalingRule.RESCALE_IF_PRESENT))


def test_modality_luts_must_be_one() -> None:
    with_lut = image_facts(modality_lut_sha256="c" * 64)
    for rule in (ScalingRule.RESCALE_IF_PRESENT, ScalingRule.RAW):
        assert "Modality LUT" in refused([with_lut, image_facts()], rule)
    check_scaling([with_lut, with_lut], card(ScalingRule.RESCALE_IF_PRESENT))
    assert "found a Modality LUT" in refused([with_lut, with_lut], ScalingRule.RAW)
    assert "Modality LUT" in refused([philips(modality_lut_sha256="c" * 64)] * 2, ScalingRule.PHILIPS_SCALE_SLOPE)


def test_anatomy_is_not_compared_between_images() -> None:
    anatomy = card(ScalingRule.RESCALE_IF_PRESENT, "t2-fse")
    images = [philips(), philips(rescale_slope=3.0, scale_slope=0.1)]
    check_scaling(images, anatomy)
    with pytest.raises(UnsuitableInput, match="rescale slope 0"):
        check_scaling([*images, philips(rescale_slope=0.0)], anatomy)


def test_a_philips_image_without_rescale_slope_was_scaled_by_guess() -> None:
    """FP = (PV * RS + RI) / (RS * SS): with RS and RI removed, the offset RI / (RS * SS) is not known."""
    image = philips(rescale_slope=None, rescale_intercept=None)
    assert "no RescaleSlope" in refused([philips(), image], ScalingRule.PHILIPS_SCALE_SLOPE)


def test_an_intercept_without_slope_moved_the_signal() -> None:
    image = image_facts(rescale_slope=None, rescale_intercept=100.0)
    assert "no RescaleSlope" in refused([image], ScalingRule.RESCALE_IF_PRESENT)
