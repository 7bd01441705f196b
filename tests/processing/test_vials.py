"""Vials of a QC phantom with set times: found, told apart and measured; refused where they are not the template's."""

import numpy as np
import pytest

from config.phantom_templates import PhantomTemplate, load_templates
from processing.circles import find_circles
from processing.fitting import fit_rules
from processing.phantom import simulate_exam
from processing.phantom_vials import VialExam, simulate_vials
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import EchoStack, ImageVolume, Quantity
from processing.vials import PlacedVials, VialMeasurement, measure_vials, place_vials, recognise, vial_maps

TEMPLATE = load_templates()[0]


def first_image(scan: VialExam) -> ImageVolume:
    return ImageVolume(scan.exam.signal[0], scan.exam.affine)


def measured(scan: VialExam, template: PhantomTemplate = TEMPLATE) -> tuple[PlacedVials, tuple[VialMeasurement, ...]]:
    exam = scan.exam
    stacks = [
        EchoStack(quantity, signal, times_ms, exam.affine)
        for quantity in Quantity
        for times_ms, signal in [exam.echoes(quantity)]
    ]
    placed = place_vials(first_image(scan), template)
    rules, _ = fit_rules(stacks)
    return placed, measure_vials(stacks, placed, vial_maps(stacks, placed, rules))


def truth_of(scan: VialExam, one: VialMeasurement) -> float:
    return (scan.t1rho_ms if one.quantity is Quantity.T1RHO else scan.t2_ms)[one.vial]


@pytest.mark.parametrize(
    "how",
    [{}, {"filling": "air"}, {"turn_deg": -14.0, "shift_mm": (-6.0, 9.0)}, {"t1rho_factor": 0.96, "t2_factor": 1.03}],
    ids=["gel", "air", "turned", "another scanner"],
)
def test_vials_are_measured_within_one_percent_or_half_a_ms(how: dict[str, object]) -> None:
    scan = simulate_vials(TEMPLATE, 4, n_slices=3, **how)  # type: ignore[arg-type]
    placed, rows = measured(scan)
    assert placed.slices == (0, 1, 2)
    assert placed.turn_deg == pytest.approx(how.get("turn_deg", 2.0), abs=0.2)
    whole = [one for one in rows if one.slice_index is None]
    assert [(one.vial, one.quantity) for one in whole] == [
        (vial.name, quantity) for quantity in Quantity for vial in TEMPLATE.vials
    ]
    for one in whole:
        truth = truth_of(scan, one)
        assert abs(one.mean_ms - truth) <= max(0.01 * truth, 0.5), (one.vial, one.quantity)
        assert max(abs(value) for value in one.residuals_percent) < 0.3
        assert one.snr is not None


def test_what_is_measured_lies_within_the_vials() -> None:
    scan = simulate_vials(TEMPLATE, 5, n_slices=2)
    placed = place_vials(first_image(scan), TEMPLATE)
    assert (scan.labels[placed.rois > 0] == placed.rois[placed.rois > 0]).all()
    overlap = (placed.labels == scan.labels).mean()
    assert overlap > 0.995
    radii = [place.circle.radius_mm for place in placed.places]
    assert np.mean(radii) == pytest.approx(12.0, abs=0.15)


def test_slices_through_lid_and_bottom_are_left_out() -> None:
    placed, rows = measured(simulate_vials(TEMPLATE, 6, n_slices=6, n_ends=1))
    assert placed.slices == (1, 2, 3, 4)
    assert {one.slice_index for one in rows} == {None, 1, 2, 3, 4}


def test_the_same_images_give_the_same_numbers() -> None:
    scan = simulate_vials(TEMPLATE, 7, n_slices=2)
    assert measured(scan)[1] == measured(scan)[1]
    again = simulate_vials(TEMPLATE, 7, n_slices=2)
    assert np.array_equal(again.exam.signal, scan.exam.signal)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"mirrored": True}, "mirrored"),
        ({"turn_deg": 35.0}, "turned by 35 degrees"),
        ({"left_out": ("V3",)}, "5 circles"),
        ({"n_slices": 1, "snr": 1.5}, "circles"),
    ],
    ids=["wrong way round", "turned too far", "a vial missing", "no image"],
)
def test_what_is_not_the_template_is_refused(how: dict[str, object], words: str) -> None:
    scan = simulate_vials(TEMPLATE, 8, **{"n_slices": 2, **how})  # type: ignore[arg-type]
    with pytest.raises(UnsuitableInput, match=words) as refusal:
        place_vials(first_image(scan), TEMPLATE)
    assert refusal.value.reason.code is ReasonCode.REVIEW_REQUIRED


def test_vials_in_each_others_places_are_refused() -> None:
    swapped = TEMPLATE.model_copy(
        update={
            "vials": (
                TEMPLATE.vials[0].model_copy(update={"t1rho_ms": 110, "t2_ms": 95}),
                *TEMPLATE.vials[1:4],
                TEMPLATE.vials[4].model_copy(update={"t1rho_ms": 30, "t2_ms": 25}),
                TEMPLATE.vials[5],
            )
        }
    )
    with pytest.raises(UnsuitableInput, match=r"V1 T1rho 30\.\d ms for 110 ms"):
        measured(simulate_vials(TEMPLATE, 9, n_slices=2), swapped)


def test_a_spine_is_no_phantom() -> None:
    for seed in range(3):
        exam = simulate_exam(seed, n_slices=1)
        assert recognise(ImageVolume(exam.signal[0], exam.affine), [TEMPLATE]) is None


def test_a_phantom_is_recognised_by_its_picture() -> None:
    assert recognise(first_image(simulate_vials(TEMPLATE, 10, n_slices=1)), [TEMPLATE]) == TEMPLATE


def test_circles_are_found_to_a_tenth_of_a_pixel_in_oblong_pixels() -> None:
    down = np.arange(160)[:, None] * 1.0 - 61.3
    across = np.arange(200)[None, :] * 0.8 - 83.7
    image = np.clip(10.5 - np.hypot(down, across), 0, 1).astype(np.float32)  # a blurred rim at 10 mm
    (circle,) = find_circles(image, (1.0, 0.8), [10.0])
    assert (circle.down_mm, circle.across_mm) == pytest.approx((61.3, 83.7), abs=0.08)
    assert circle.radius_mm == pytest.approx(10.0, abs=0.1)


def test_an_empty_image_has_no_circle() -> None:
    assert find_circles(np.zeros((64, 64), np.float32), (1.0, 1.0), [10.0]) == ()
