"""A card is chosen by what the header says; anything else is refused with what was seen."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mr_exam import MAPSS_TIMES_MS, image_facts, mapss_facts

from config.protocol_cards import ProtocolCard, load_cards
from dicom_io.headers import ImageFacts
from dicom_io.protocols import ImageTime, image_times, match_card, unusable_kind
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


def test_the_nearest_card_says_what_it_misses() -> None:
    with pytest.raises(UnsuitableInput) as caught:
        match_card([image_facts(manufacturer="SIEMENS", series_description="MAPSS")], CARDS[:1])
    assert caught.value.reason.detail.endswith(
        "the nearest, ge-mapss: manufacturer 'SIEMENS' does not match '^GE\\\\b'; "
        "it is for series of GE whose SeriesDescription says MAPSS"
    )


def test_the_nearest_card_is_one_of_the_same_maker() -> None:
    with pytest.raises(UnsuitableInput) as caught:
        match_card([image_facts(manufacturer="Philips", series_description="MAPSS T1rho")], load_cards())
    assert caught.value.reason.detail.endswith(
        "the nearest, philips-mapss-t1rho: series_description 'MAPSS T1rho' does not match what the card asks for; "
        "it is for scans of Philips whose SeriesDescription lists the spin-lock times, "
        "such as 'MAPSS TSL 0_10_40_80 ms'"
    )


@pytest.mark.parametrize(
    "attribute",
    ["manufacturer_model_name", "device_serial_number", "software_versions", "sequence_name"],
)
def test_cards_may_ask_for_model_software_and_sequence(attribute: str) -> None:
    values = BY_NAME["ge-mapss"].model_dump()
    values["match"] = {attribute: "^X7"}
    card = ProtocolCard.model_validate(values)
    assert match_card([image_facts(**{attribute: "x7 beta"})], [card]) == card
    with pytest.raises(UnsuitableInput, match=f"{attribute} 'Y' does not match"):
        match_card([image_facts(**{attribute: "Y"})], [card])


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
        ({"complex_component": "MAGNITUDE"}, None),
        ({"complex_component": "PHASE"}, "phase image"),
        ({"complex_component": "MIXED"}, "image of mixed parts"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "T2 MAP", "T2", "UNSPECIFIED")}, "calculated map"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "T2", "NONE")}, None),  # the flavour of an Enhanced MR frame
        ({"image_type": ("MIXED", "PRIMARY", "OTHER", "NONE")}, "image of mixed kinds"),
    ],
)
def test_images_that_are_no_acquired_magnitude_are_recognised(changes: dict[str, object], expected: str | None) -> None:
    kind = unusable_kind(image_facts(**changes))
    assert kind is None if expected is None else kind is not None and kind.startswith(expected)


def card_with(name: str = "ge-mapss", **times: object) -> ProtocolCard:
    """A built-in card with other times."""
    values = BY_NAME[name].model_dump()
    values["times"] = {"tolerance_ms": 0.5, **times}
    return ProtocolCard.model_validate(values)


def nominal(images: list[ImageFacts], card: ProtocolCard) -> list[float]:
    return [one.nominal_ms for one in image_times(images, card)]


def unresolved(images: list[ImageFacts], card: ProtocolCard) -> str:
    with pytest.raises(UnsuitableInput) as caught:
        image_times(images, card)
    assert caught.value.reason.code is ReasonCode.ECHO_UNRESOLVED
    return caught.value.reason.detail


# --- EchoTime


@pytest.mark.parametrize(
    ("echo_time_ms", "expected"), [(0.0, 0.0), (0.4, 0.0), (12.847, 12.8), (25.695, 25.7), (51.39, 51.4), (80.5, 80.0)]
)
def test_header_times_are_taken_for_the_nearest_of_the_card(echo_time_ms: float, expected: float) -> None:
    (time,) = image_times([image_facts(echo_time_ms=echo_time_ms)], BY_NAME["ge-mapss"])
    assert time == ImageTime(expected, echo_time_ms, "EchoTime (0018,0081)")


@pytest.mark.parametrize("echo_time_ms", [None, 5.0, 20.0, 80.6, -1.0, math.nan, math.inf])
def test_other_times_are_unresolved(echo_time_ms: float | None) -> None:
    text = unresolved([image_facts(echo_time_ms=echo_time_ms)], BY_NAME["ge-mapss"])
    assert "0, 10, 12.8, 25.7, 40, 51.4, 80 ms" in text


def test_anatomy_has_no_time() -> None:
    assert nominal([image_facts(echo_time_ms=102.0)], BY_NAME["t2-fse"]) == [0.0]


@pytest.mark.parametrize(("constant", "text"), [(0.0, "0 ms"), (5.1, "5.1 ms"), (None, "absent")])
def test_one_echo_time_in_all_images_is_unresolved(constant: float | None, text: str) -> None:
    detail = unresolved(mapss_facts(echo_time_ms=constant), BY_NAME["ge-mapss"])
    assert detail.startswith(f"EchoTime is {text} in all 84 images")
    assert "acquisition_order" in detail  # what a site can do about it


def test_first_images_of_a_series_still_arriving_are_no_constant_echo_time() -> None:
    first = [one for one in mapss_facts() if one.echo_time_ms == 0]
    assert set(nominal(first, BY_NAME["ge-mapss"])) == {0.0}


def test_times_are_in_the_order_of_the_images() -> None:
    assert tuple(nominal(mapss_facts(n_slices=1), BY_NAME["ge-mapss"])) == MAPSS_TIMES_MS


# --- a list in the description, and TriggerTime

PHILIPS = card_with(rule="description_list", t1rho_ms=[0, 10, 40, 80], t1rho_pattern=r"T?SL\s*([\d._/, -]*\d)\s*ms")


def philips_images(description: str = "TSL 0_10_40_80 ms", triggers: tuple[float | None, ...] = (0, 10, 40, 80)):
    return [
        image_facts(
            sop_instance_uid=f"1.2.3.{k}.{index}",
            series_description=description,
            trigger_time_ms=trigger,
            echo_time_ms=4.6,
            position=(20.0 - 4 * k, -100.0, 100.0),
        )
        for k in range(3)
        for index, trigger in enumerate(triggers)
    ]


@pytest.mark.parametrize(
    "description",
    ["TSL 0_10_40_80 ms", "MAPSS SL 0_10_40_80ms", "tsl 0-10-40-80 ms", "TSL 0, 10, 40, 80 ms", "SL 0/10.2/40/80 ms"],
)
def test_trigger_times_that_the_description_lists_are_believed(description: str) -> None:
    times = image_times(philips_images(description), PHILIPS)
    assert [one.nominal_ms for one in times] == [0, 10, 40, 80] * 3
    assert {one.source for one in times} == {"TriggerTime (0018,1060), listed in SeriesDescription"}


def test_a_listed_time_that_has_not_come_yet_is_no_contradiction() -> None:
    assert set(nominal(philips_images(triggers=(0, 10, 80)), PHILIPS)) == {0, 10, 80}


@pytest.mark.parametrize(
    ("description", "triggers", "texts"),
    [
        ("TSL 0_20_40_80 ms", (0, 10, 40, 80), ("lists 0, 20, 40, 80 ms", "expects 0, 10, 40, 80 ms")),
        ("TSL 0_10_40 ms", (0, 10, 40), ("lists 0, 10, 40 ms", "expects 0, 10, 40, 80 ms")),
        ("TSL 0_10_40_80 ms", (0, 10, 40, 100), ("lists 0, 10, 40, 80 ms", "TriggerTime has 0, 10, 40, 100 ms")),
        ("TSL 0_10_40_80 ms", (0, 0, 0, 0), ("TriggerTime is 0 ms in all 12", "lists 0, 10, 40, 80 ms")),
        ("TSL 0_10_40_80 ms", (0, 10, None, 80), ("no TriggerTime", "lists 0, 10, 40, 80 ms")),
        ("TSL 0_10_40_80 ms", (None,) * 4, ("TriggerTime is absent in all 12",)),
        ("TSL 0_10_40_80 ms", (650.5, 1301, 1951.5, 2602), ("TriggerTime has 650.5, 1301, 1951.5, 2602 ms",)),
        ("MAPSS", (0, 10, 40, 80), ("lists no times", "expects 0, 10, 40, 80 ms")),
        ("TSL 0_10_40_80 ms TSL 0_10_40_60 ms", (0, 10, 40, 80), ("several lists",)),
        ("TSL 0._10_40_80 ms", (0, 10, 40, 80), ("no list of times",)),
    ],
)
def test_lists_and_trigger_times_that_differ_are_unresolved(
    description: str, triggers: tuple[float | None, ...], texts: tuple[str, ...]
) -> None:
    detail = unresolved(philips_images(description, triggers), PHILIPS)
    assert all(text in detail for text in texts), detail


def test_both_lists_of_one_description_are_checked() -> None:
    card = card_with(
        rule="description_list",
        t1rho_ms=[0, 10, 40, 80],
        t2_ms=[0, 12.8, 25.7, 51.4],
        t1rho_pattern=r"TSL ([\d._]+)",
        t2_pattern=r"TE ([\d._]+)",
    )
    triggers = (0, 10, 12.847, 25.695, 40, 51.39, 80)
    good = philips_images("TSL 0_10_40_80 TE 0_12.8_25.7_51.4", triggers)
    assert nominal(good, card)[:7] == list(MAPSS_TIMES_MS)
    assert image_times(good, card)[2].written_ms == 12.847
    assert "lists 0, 12.8, 25.7, 60" in unresolved(philips_images("TSL 0_10_40_80 TE 0_12.8_25.7_60", triggers), card)


# --- one series for each time

SIEMENS = card_with(
    rule="series_description",
    t1rho_ms=[0, 10, 40, 80],
    t2_ms=[0, 12.8, 25.7, 51.4],
    t1rho_pattern=r"TSL\s*(\d+)",
    t2_pattern=r"TE\s*(\d+)",
)


@pytest.mark.parametrize(
    ("description", "expected", "written"),
    [
        ("MAPSS TSL 40", 40.0, 40.0),
        ("mapss tsl0 ms", 0.0, 0.0),
        ("MAPSS T2prep TE 12.8", 12.8, 12.8),
        ("TE 51.39 ms", 51.4, 51.39),
    ],
)
def test_the_description_of_a_series_names_its_time(description: str, expected: float, written: float) -> None:
    times = image_times([image_facts(series_description=description)] * 2, SIEMENS)
    assert times == (ImageTime(expected, written, "SeriesDescription (0008,103E)"),) * 2


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("MAPSS", "names no time"),
        ("MAPSS TSL 41", "'41'"),
        ("MAPSS TSL 12.8", "none of the T1rho times"),  # a preparation time, where a spin-lock time should stand
        ("MAPSS TSL 10 TE 12.8", "names 10, 12.8 ms"),
        ("MAPSS TSL 10 TSL 40", "names 10, 40 ms"),
    ],
)
def test_other_descriptions_are_unresolved(description: str, text: str) -> None:
    assert text in unresolved([image_facts(series_description=description)], SIEMENS)


# --- an element that the site knows

ELEMENT = {"rule": "element", "t1rho_ms": [0, 10, 40, 80]}


def test_an_element_of_the_site_gives_times_in_its_unit() -> None:
    card = card_with(**ELEMENT, element={"group": "0019", "creator": "GEMS_ACQU_01", "offset": "B0"}, unit="s")
    name = "(0019,xxB0) GEMS_ACQU_01"
    images = [image_facts(elements=((name, text),)) for text in ("0", "0.04", "0.0801")]
    times = image_times(images, card)
    assert [one.nominal_ms for one in times] == [0, 40, 80]
    assert [one.written_ms for one in times] == pytest.approx([0, 40, 80.1])
    assert {one.source for one in times} == {name}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("forty", "no time"),
        ("0\\40", "no time"),
        ("", "no InversionTime"),
        ("20", "none of"),
        ("nan", "no time"),
        ("4_0", "no time"),
    ],
)
def test_elements_that_hold_no_time_are_unresolved(text: str, expected: str) -> None:
    card = card_with(**ELEMENT, element={"keyword": "InversionTime"})
    assert expected in unresolved([image_facts(elements=(("InversionTime", text),))], card)
    assert "no InversionTime" in unresolved([image_facts()], card)


def test_an_element_that_never_varies_is_unresolved() -> None:
    card = card_with(**ELEMENT, element={"keyword": "InversionTime"})
    images = [replace(one, elements=(("InversionTime", "0"),)) for one in mapss_facts()]
    assert "InversionTime is 0 ms in all 84 images" in unresolved(images, card)


# --- whatever stands in a header

NUMBER = st.one_of(
    st.none(),
    st.sampled_from([0.0, 10.0, 12.8, 40.0, 80.0, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf]),
    st.floats(-5, 100),
)
WORD = st.sampled_from(
    ["TSL 0_10_40_80 ms", "TSL 40", "TE 12.8", "TSL 0_10", "TE 0_12.8_25.7_51.4", "TSL", "40", "٤٠ TSL ٤٠", "²", ""]
)
RULES = (
    BY_NAME["ge-mapss"],
    PHILIPS,
    SIEMENS,
    card_with(**ELEMENT, element={"keyword": "InversionTime"}, unit="us"),
    *(
        card_with(
            rule="acquisition_order",
            t1rho_ms=[0, 10, 40, 80],
            order={"times_ms": [0, 40, 10, 80], "key": key, "fastest": fastest},
        )
        for key in ("instance_number", "acquisition_number", "temporal_position")
        for fastest in ("time", "slice")
    ),
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_every_rule_gives_a_time_of_the_card_or_refuses(data: st.DataObject) -> None:
    card = data.draw(st.sampled_from(RULES))
    images = [
        image_facts(
            echo_time_ms=data.draw(NUMBER),
            trigger_time_ms=data.draw(NUMBER),
            series_description=f"{data.draw(WORD)} {data.draw(WORD)}",
            elements=(("InversionTime", data.draw(st.one_of(WORD, st.floats().map(str), st.text(max_size=4)))),),
            instance_number=data.draw(st.one_of(st.none(), st.integers(-3, 12), st.just(2**31))),
            acquisition_number=data.draw(st.one_of(st.none(), st.integers(-1, 6))),
            temporal_position=data.draw(st.one_of(st.none(), st.integers(0, 5))),
            position=data.draw(st.sampled_from([(20.0, 0.0, 0.0), (16.0, 0.0, 0.0), (math.nan,) * 3, ()])),
            frame_number=data.draw(st.sampled_from([None, None, 1, 2])),
            sop_instance_uid=data.draw(st.sampled_from(["1.2", "1.3", "1.4"])),
        )
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    try:
        times = image_times(images, card)
    except UnsuitableInput as refusal:
        allowed = {ReasonCode.ECHO_UNRESOLVED}
        if card.times.order is not None:
            allowed.add(ReasonCode.GEOMETRY_INCONSISTENT)
        unexpected = {refusal.reason.code} - allowed
    else:
        unexpected = {one.nominal_ms for one in times} - set(card.times.distinct_ms)
        assert len(times) == len(images)
        assert all(abs(one.nominal_ms - one.written_ms) <= card.times.tolerance_ms for one in times)
    assert not unexpected
