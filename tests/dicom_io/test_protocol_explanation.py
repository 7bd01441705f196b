import re
from dataclasses import replace

import pytest
from small_mr_exam import fse_facts, image_facts, mapss_facts

from config.protocol_cards import load_cards
from dicom_io.headers import ImageFacts
from dicom_io.protocol_explanation import ExamExplanation, ImageExplanation, Use, explain_exam, slice_numbers
from dicom_io.protocol_needs import needs_of
from processing.advice import ADVICE
from processing.refusal import Reason, ReasonCode

CARDS = load_cards()


def explain(facts: list[ImageFacts]) -> ExamExplanation:
    return explain_exam(facts, CARDS)


def images_of(explanation: ExamExplanation) -> list[ImageExplanation]:
    return [one for series in explanation.series for one in series.images]


def test_every_image_of_a_whole_exam_has_a_use_a_time_and_a_source() -> None:
    explanation = explain(
        [*mapss_facts(3), *fse_facts(3), image_facts(sop_instance_uid="1.9", image_type=("LOCALIZER",))]
    )
    assert explanation.is_accepted
    assert needs_of(explanation) == ()
    images = images_of(explanation)
    assert len(images) == 7 * 3 + 3 + 1
    by_use = {use: [one for one in images if one.use is use] for use in Use}
    assert {one.time_ms for one in by_use[Use.SHARED]} == {0.0}
    assert {one.time_ms for one in by_use[Use.T1RHO]} == {10.0, 40.0, 80.0}
    assert {one.time_ms for one in by_use[Use.T2]} == {12.8, 25.7, 51.4}
    assert all(one.source == "EchoTime (0018,0081)" and one.is_measured for one in by_use[Use.T1RHO])
    assert {one.slice_number for one in by_use[Use.T2]} == {1, 2, 3}
    assert len(by_use[Use.ANATOMY]) == 3
    assert [one.why for one in by_use[Use.SET_ASIDE]] == ["localiser (ImageType LOCALIZER)"]
    assert by_use[Use.UNRESOLVED] == []


def test_missing_images_are_asked_for_by_time_and_slice() -> None:
    facts = [one for one in mapss_facts(12) if not (one.echo_time_ms == 40.0 and one.position[0] in (-4.0, -8.0))]
    explanation = explain(facts)
    assert not explanation.is_accepted
    assert needs_of(explanation) == ("Send the missing images of ge-mapss: TSL 40 ms at slices 7, 8.",)
    assert all(one.time_ms is not None for one in images_of(explanation))


def test_one_echo_time_for_all_asks_for_a_card_that_names_the_order() -> None:
    explanation = explain(mapss_facts(3, echo_time_ms=5.0))
    assert {one.use for one in images_of(explanation)} == {Use.UNRESOLVED}
    (need,) = needs_of(explanation)
    assert "rule acquisition_order" in need
    assert "replaces ge-mapss" in need


def test_an_unknown_series_is_told_the_nearest_card_and_which_pattern_failed_on_which_value() -> None:
    explanation = explain(mapss_facts(3, series_description="SPINE T1R"))
    (series,) = explanation.series
    assert series.card is None
    verdict = next(one for one in series.verdicts if one.card == "ge-mapss")
    (failure,) = verdict.failures
    assert re.fullmatch(r"series_description: '.*MAPP\?S' is not found in 'SPINE T1R'", failure)
    (need,) = needs_of(explanation)
    assert "discnode protocol draft" in need
    assert "nearest card is ge-mapss" in need


def test_several_cards_that_fit_are_named() -> None:
    explanation = explain(mapss_facts(3, series_description="MAPSS T1rho FSE"))
    (need,) = needs_of(explanation)
    assert "ge-mapss and ge-t1rho-fse" in need


def test_scaling_that_differs_is_explained() -> None:
    facts = [replace(one, rescale_slope=1.0 + index / 10) for index, one in enumerate(mapss_facts(3))]
    (need,) = needs_of(explain(facts))
    assert "rescale_per_image" in need


def test_two_files_with_one_uid_are_both_explained() -> None:
    facts = mapss_facts(3)
    explanation = explain([*facts, replace(facts[0], path=facts[0].path.with_name("other.dcm"), pixel_sha256="c" * 64)])
    assert len(images_of(explanation)) == 22
    assert explanation.reasons[0].code is ReasonCode.INSTANCE_CONFLICT


def test_slice_numbers_leave_out_the_missing_ones() -> None:
    facts = [image_facts(position=(depth, 0.0, 0.0)) for depth in (0.0, 4.0, 4.001, 16.0)]
    assert slice_numbers(facts) == [5, 4, 4, 1]  # the normal points to the right


@pytest.mark.parametrize("changes", [{"orientation": ()}, {"orientation": (1.0,) * 6}, {"position": ()}])
def test_images_without_a_place_have_no_slice_number(changes: dict[str, object]) -> None:
    assert slice_numbers([image_facts(**changes)]) == [None]


def test_there_is_advice_for_every_reason_code() -> None:
    assert set(ADVICE) == set(ReasonCode)


def test_files_that_cannot_be_read_are_among_the_reasons() -> None:
    broken = Reason(ReasonCode.UNREADABLE, "file 3 of 30: cut short")
    explanation = explain_exam(mapss_facts(3, series_description="?"), CARDS, refusals=[broken])
    assert broken in explanation.reasons
    assert ADVICE[ReasonCode.UNREADABLE] in needs_of(explanation)
