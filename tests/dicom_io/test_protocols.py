"""A card is chosen by what the header says; anything else is refused with what was seen."""

import pytest
from small_mr_exam import MAPSS_TIMES_MS, image_facts, mapss_facts

from config.protocol_cards import ProtocolCard, load_cards
from dicom_io.protocols import match_card, time_of, times_of, unusable_kind
from processing.refusal import ReasonCode, UnsuitableInput

CARDS = load_cards()
BY_NAME = {card.name: card for card in CARDS}


@pytest.mark.parametrize(
    ("manufacturer", "description", "expected"),
    [
        ("GE MEDICAL SYSTEMS", "MAPSS T1rho T2", "ge-mapss"),
        ("ge healthcare", "Sag mapss spine", "ge-mapss"),
        ("GE MEDICAL SYSTEMS", "T1rho FSE", "ge-t1rho-fse"),
        ("GE MEDICAL SYSTEMS", "SAG T2 FSE", "t2-fse"),
        ("SIEMENS", "t2_tse_sag", "t2-fse"),
        ("SIEMENS", "T2* GRE", None),
        ("Siemens Healthineers", "T2 SPACE SAG", "t2-fse"),
    ],
)
def test_built_in_cards_match_what_scanners_write(manufacturer: str, description: str, expected: str | None) -> None:
    facts = [image_facts(manufacturer=manufacturer, series_description=description)]
    if expected is None:
        with pytest.raises(UnsuitableInput, match="PROTOCOL_UNKNOWN"):
            match_card(facts, CARDS)
    else:
        assert match_card(facts, CARDS).name == expected


def test_unknown_protocol_names_what_was_seen_and_what_exists() -> None:
    with pytest.raises(UnsuitableInput) as caught:
        match_card([image_facts(manufacturer="Image Makers", series_description="MAPSS")], CARDS)
    assert caught.value.reason.code is ReasonCode.PROTOCOL_UNKNOWN
    for text in ("Image Makers", "MAPSS", "ge-mapss", "ge-t1rho-fse", "t2-fse"):
        assert text in caught.value.reason.detail


def test_several_fitting_cards_are_refused_not_chosen_from() -> None:
    with pytest.raises(UnsuitableInput, match=r"several protocol cards fit: ge-mapss and t2-fse"):
        match_card([image_facts(series_description="MAPSS T2 FSE")], CARDS)


def test_series_whose_images_disagree_matches_nothing() -> None:
    mixed = [image_facts(), image_facts(series_description="OTHER")]
    with pytest.raises(UnsuitableInput, match="no protocol card fits"):
        match_card(mixed, CARDS)


def test_every_given_pattern_must_fit() -> None:
    values = BY_NAME["ge-mapss"].model_dump()
    values["match"] = {"protocol_name": "LUMBAR", "scanning_sequence": "GR"}
    card = ProtocolCard.model_validate(values)
    assert match_card([image_facts(protocol_name="lumbar 2", scanning_sequence="GR")], [card]) == card
    with pytest.raises(UnsuitableInput):
        match_card([image_facts(protocol_name="lumbar 2", scanning_sequence="SE")], [card])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "M", "ND", "NORM", "MFSPLIT")}, None),
        ({"image_type": ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE")}, None),
        ({"image_type": ("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE")}, "phase image"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE")}, "real-part image"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "I_FFE", "I", "FFE")}, "imaginary-part image"),
        ({"image_type": ("DERIVED", "PRIMARY", "MPR")}, "derived image"),
        ({"image_type": ("ORIGINAL", "SECONDARY")}, "secondary image"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localiser"),
        ({"ge_complex_part": 0}, None),
        ({"ge_complex_part": 1}, "phase image"),
    ],
)
def test_images_that_are_no_acquired_magnitude_are_recognised(changes: dict[str, object], expected: str | None) -> None:
    kind = unusable_kind(image_facts(**changes))
    assert kind is None if expected is None else kind is not None and kind.startswith(expected)


@pytest.mark.parametrize(
    ("echo_time_ms", "expected"), [(0.0, 0.0), (0.4, 0.0), (12.847, 12.8), (25.695, 25.7), (51.39, 51.4), (80.5, 80.0)]
)
def test_header_times_are_taken_for_the_nearest_of_the_card(echo_time_ms: float, expected: float) -> None:
    assert time_of(image_facts(echo_time_ms=echo_time_ms), BY_NAME["ge-mapss"]) == expected


@pytest.mark.parametrize("echo_time_ms", [None, 5.0, 20.0, 80.6, -1.0])
def test_other_times_are_unresolved(echo_time_ms: float | None) -> None:
    with pytest.raises(UnsuitableInput, match=r"ECHO_UNRESOLVED.*0, 10, 12.8, 25.7, 40, 51.4, 80 ms"):
        time_of(image_facts(echo_time_ms=echo_time_ms), BY_NAME["ge-mapss"])


def test_anatomy_has_no_time() -> None:
    assert time_of(image_facts(echo_time_ms=102.0), BY_NAME["t2-fse"]) == 0.0


@pytest.mark.parametrize(("constant", "text"), [(0.0, "0 ms"), (5.1, "5.1 ms"), (None, "absent")])
def test_one_echo_time_in_all_images_is_unresolved(constant: float | None, text: str) -> None:
    with pytest.raises(UnsuitableInput, match=rf"ECHO_UNRESOLVED: EchoTime is {text} in all 84 images"):
        times_of(mapss_facts(echo_time_ms=constant), BY_NAME["ge-mapss"])


def test_first_images_of_a_series_still_arriving_are_no_constant_echo_time() -> None:
    first = [one for one in mapss_facts() if one.echo_time_ms == 0]
    assert set(times_of(first, BY_NAME["ge-mapss"])) == {0.0}


def test_times_are_in_the_order_of_the_images() -> None:
    assert times_of(mapss_facts(n_slices=1), BY_NAME["ge-mapss"]) == MAPSS_TIMES_MS
