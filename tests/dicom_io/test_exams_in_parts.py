"""Exams in parts: two scans, a study for each time, multi-frame objects, repeats; evidence that all is here."""

import random
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mr_exam import MAPSS_TIMES_MS, fse_facts, image_facts, mapss_facts, scan_card

from config.protocol_cards import ProtocolCard, load_cards
from config.settings import Repeats
from dicom_io.headers import ImageFacts
from dicom_io.series import AssemblyState, ExamAssembly, assemble_exam

CARDS = load_cards()
T1RHO_MS, T2_MS = (0.0, 10.0, 40.0, 80.0), (0.0, 12.8, 25.7, 51.4)


TWO_SCANS = (
    scan_card("two-t2", "two-t1rho", t2_ms=T2_MS),
    scan_card("two-t1rho", "two-t2", t1rho_ms=T1RHO_MS),
)


def scan(
    name: str, times_ms: tuple[float, ...], series: int, *, slices: range = range(6), **changes: object
) -> list[ImageFacts]:
    return [
        image_facts(
            **{
                "manufacturer": "Philips Healthcare",
                "series_description": name,
                "series_uid": f"1.2.3.{series}",
                "series_number": series,
                "sop_instance_uid": f"1.2.3.{series}.{k}.{time}",
                "pixel_sha256": f"{series:020d}{k:020d}{int(time * 10):024d}",
                "position": (20.0 - 4 * k, -100.0, 100.0),
                "echo_time_ms": time,
                "images_in_acquisition": len(times_ms) * len(slices),
                **changes,
            }
        )
        for k in slices
        for time in times_ms
    ]


def t1rho(**changes: object) -> list[ImageFacts]:
    return scan("two-t1rho", T1RHO_MS, 4, **changes)  # type: ignore[arg-type]


def t2(**changes: object) -> list[ImageFacts]:
    return scan("two-t2", T2_MS, 5, **changes)  # type: ignore[arg-type]


def codes(assembly: ExamAssembly) -> list[str]:
    return [reason.code.value for reason in assembly.reasons]


def again(facts: list[ImageFacts], number: int, **changes: object) -> list[ImageFacts]:
    """The same scan once more: another series."""
    return [
        replace(
            one,
            series_uid=f"{one.series_uid}.{number}",
            sop_instance_uid=f"{one.sop_instance_uid}.{number}",
            pixel_sha256=f"{number:04d}{one.pixel_sha256[4:]}",
            series_number=(one.series_number or 0) + number,
            **changes,  # type: ignore[arg-type]
        )
        for one in facts
    ]


# --- T1rho and T2 as two scans


def test_two_scans_on_one_grid_are_one_exam_t1rho_first() -> None:
    facts = [*t2(), *t1rho()]
    random.Random(2).shuffle(facts)
    assembly = assemble_exam(facts, TWO_SCANS)
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.protocols == ("two-t1rho", "two-t2")
    assert [series.times_ms for series in assembly.relaxometry] == [T1RHO_MS, T2_MS]
    assert assembly.series_uids == ("1.2.3.4", "1.2.3.5")
    assert len(assembly.images) == 48


def test_the_scan_that_has_not_come_is_named() -> None:
    assembly = assemble_exam(t1rho(), TWO_SCANS)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert assembly.missing_text == "two-t1rho: the scan of two-t2, which belongs to it, has not come"


def test_holes_in_both_scans_are_named() -> None:
    facts = [one for one in [*t1rho(), *t2()] if one.echo_time_ms not in (40.0, 25.7) or one.position[0] > 0]
    assembly = assemble_exam(facts, TWO_SCANS)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert assembly.missing_text == (
        "two-t1rho: 23/24 images: missing TSL 40 ms at slice 6; two-t2: 23/24 images: missing TE 25.7 ms at slice 6"
    )
    assert len(assembly.missing) == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rows": 512}, "two-t2 and two-t1rho differ in matrix"),
        ({"pixel_spacing_mm": (0.7, 0.7)}, "differ in pixel spacing"),
        ({"frame_of_reference_uid": "1.9"}, "differ in frame of reference"),
        ({"orientation": (0.0, 0.9998, 0.02, 0.0, 0.02, -0.9998)}, "differ in orientation"),
    ],
)
def test_scans_of_another_geometry_are_refused(changes: dict[str, object], text: str) -> None:
    assembly = assemble_exam([*t1rho(), *t2(**changes)], TWO_SCANS)
    assert assembly.state is AssemblyState.REFUSED
    assert codes(assembly) == ["GEOMETRY_INCONSISTENT"]
    assert text in assembly.reasons[0].detail


@pytest.mark.parametrize(("shift_mm", "fits"), [(0.05, True), (0.2, False), (2.0, False)])
def test_scans_must_lie_on_one_grid(shift_mm: float, fits: bool) -> None:
    moved = [replace(one, position=(one.position[0], one.position[1] + shift_mm, one.position[2])) for one in t2()]
    assembly = assemble_exam([*t1rho(), *moved], TWO_SCANS)
    assert assembly.is_complete is fits
    if not fits:
        assert "do not lie on one grid" in assembly.reasons[0].detail


def test_outer_slices_that_one_scan_lacks_are_missing() -> None:
    facts = [*t1rho(images_in_acquisition=None), *t2(slices=range(1, 5), images_in_acquisition=None)]
    assembly = assemble_exam(facts, TWO_SCANS)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert "two-t2: 16/24 images: missing all times at slice 1, 6 of the 6 slices that two-t1rho" in (
        assembly.missing_text
    )
    counted = assemble_exam([*t1rho(), *t2(slices=range(1, 5))], TWO_SCANS)  # all that was acquired has come
    assert codes(counted) == ["GEOMETRY_INCONSISTENT"]


def test_a_third_protocol_is_not_mixed_in() -> None:
    assert codes(assemble_exam([*t1rho(), *t2(), *mapss_facts()], [*TWO_SCANS, *CARDS])) == ["PROTOCOL_DEVIATION"]


def test_evidence_is_needed_of_both_scans() -> None:
    assembly = assemble_exam([*t1rho(), *t2(images_in_acquisition=None)], TWO_SCANS)
    assert assembly.state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE


# --- evidence that nothing more will come


def test_counts_of_the_source_are_evidence() -> None:
    facts = mapss_facts(announced=False)
    assert assemble_exam(facts, CARDS, known_counts={"1.2.3.1": 84}).state is AssemblyState.COMPLETE
    still_receiving = assemble_exam(facts, CARDS, known_counts={"1.2.3.1": 80})
    assert still_receiving.state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE
    of_another = assemble_exam(facts, CARDS, known_counts={"1.2.3.77": 84})
    assert of_another.state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE


@pytest.mark.parametrize("announced", [True, False])
def test_a_source_that_has_more_is_waited_for(announced: bool) -> None:
    facts = mapss_facts(announced=announced)
    more = assemble_exam(facts, CARDS, known_counts={"1.2.3.1": 91})
    assert more.state is AssemblyState.INCOMPLETE
    assert more.missing_text == "ge-mapss: 84/91 images: the source or the sender lists 7 more"


def test_holes_are_named_beside_what_the_source_has_more() -> None:
    facts = [one for one in mapss_facts(announced=False) if one.echo_time_ms != 40 or one.position[0] > 20 - 4 * 6]
    text = assemble_exam(facts, CARDS, known_counts={"1.2.3.1": 91}).missing_text
    assert (
        text
        == "ge-mapss: 78/91 images: missing TSL 40 ms at slices 7-12; the source or the sender lists 7 more than that"
    )


def test_two_holes_read_as_a_person_would_say_it() -> None:
    facts = [one for one in mapss_facts(100 // 7) if one.echo_time_ms != 40 or one.position[0] not in (-4.0, -8.0)]
    assert assemble_exam(facts, CARDS).missing_text == "ge-mapss: 96/98 images: missing TSL 40 ms at slices 7, 8"


def test_an_exact_number_of_slices_is_evidence() -> None:
    exact = [
        card.model_copy(update={"expected": card.expected.model_copy(update={"min_slices": 12, "max_slices": 12})})
        for card in CARDS
    ]
    assert assemble_exam(mapss_facts(announced=False), exact).state is AssemblyState.COMPLETE
    short = assemble_exam(mapss_facts(11, announced=False), exact)
    assert short.state is AssemblyState.INCOMPLETE
    assert "77 images at 11 slices; ge-mapss expects at least 12" in short.missing_text


# --- multi-frame objects


def framed(facts: list[ImageFacts], n_objects: int = 1, *, concatenated: bool = False) -> list[ImageFacts]:
    """The images as frames of objects that hold equal parts."""
    n_frames = len(facts) // n_objects
    return [
        replace(
            one,
            sop_instance_uid=f"1.2.3.1.{index // n_frames}",
            frame_number=index % n_frames + 1,
            number_of_frames=n_frames,
            instance_number=index // n_frames + 1,
            concatenation=(index // n_frames + 1, n_objects) if concatenated else (),
        )
        for index, one in enumerate(facts)
    ]


def test_one_multi_frame_object_is_a_whole() -> None:
    assembly = assemble_exam(framed(mapss_facts(announced=False)), CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert len(assembly.images) == 84
    assert len({one.key for one in assembly.images}) == 84


def test_a_split_object_is_whole_with_all_its_parts() -> None:
    facts = framed(mapss_facts(announced=False), 4, concatenated=True)
    assert assemble_exam(facts, CARDS).state is AssemblyState.COMPLETE
    for part in range(4):
        rest = [one for one in facts if one.concatenation != (part + 1, 4)]
        assert assemble_exam(rest, CARDS).state is not AssemblyState.COMPLETE


def test_one_object_for_each_time_lacks_no_slice() -> None:
    facts = framed(sorted(mapss_facts(announced=False), key=lambda one: one.echo_time_ms or 0), 7)
    assert assemble_exam(facts, CARDS).state is AssemblyState.COMPLETE
    assert assemble_exam(facts[:72], CARDS).state is AssemblyState.INCOMPLETE
    more = assemble_exam(facts, CARDS, known_counts={"1.2.3.1": 8})
    assert more.missing_text == "ge-mapss: 84 images so far: the source or the sender lists 1 more objects"


def test_objects_of_some_slices_may_lack_others() -> None:
    facts = framed(mapss_facts(announced=False), 4)
    assert assemble_exam(facts, CARDS).state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE
    assert assemble_exam(facts, CARDS, known_counts={"1.2.3.1": 4}).state is AssemblyState.COMPLETE


def test_phase_frames_are_set_aside_one_by_one() -> None:
    magnitude = mapss_facts(announced=False)
    phase = [replace(one, complex_component="PHASE", pixel_sha256="d" * 64) for one in magnitude]
    facts = framed([*magnitude, *phase])
    assembly = assemble_exam(facts, CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert [key for key, _ in assembly.set_aside] == [("1.2.3.1.0", frame) for frame in range(85, 169)]
    assert {why for _, why in assembly.set_aside} == {"phase image (ComplexImageComponent PHASE)"}


# --- repeats


def begins(facts: list[ImageFacts], time: str) -> list[ImageFacts]:
    return [replace(one, acquisition_time=time) for one in facts]


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [(Repeats.FIRST, "1.2.3.1.3"), (Repeats.LATEST, "1.2.3.1")],
)
def test_repeats_are_chosen_by_the_time_of_acquisition(repeats: Repeats, expected: str) -> None:
    later = begins(mapss_facts(), "20260112101500.5")
    earlier = begins(again(mapss_facts(), 3), "20260112100900")  # although its series number is higher
    assembly = assemble_exam([*later, *earlier], CARDS, repeats=repeats)
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.series_uids == (expected,)
    assert {why for _, why in assembly.set_aside} == {f"a repeat; the {repeats} scan of ge-mapss is used"}
    assert len(assembly.set_aside) == 84
    held = assemble_exam([*later, *earlier], CARDS)
    assert codes(held) == ["PROTOCOL_DEVIATION"]
    assert "series 5 and 8" in held.reasons[0].detail


@pytest.mark.parametrize("times", [("", "20260112100900"), ("10", "11"), ("100000", "20260112100900"), ("100000",) * 2])
def test_without_comparable_times_series_numbers_tell(times: tuple[str, str]) -> None:
    facts = [*begins(mapss_facts(), times[0]), *begins(again(mapss_facts(), 3), times[1])]
    assert assemble_exam(facts, CARDS, repeats=Repeats.LATEST).series_uids == ("1.2.3.1.3",)
    assert assemble_exam(facts, CARDS, repeats=Repeats.FIRST).series_uids == ("1.2.3.1",)


def test_repeats_without_any_order_are_held() -> None:
    facts = [replace(one, series_number=None) for one in [*mapss_facts(), *again(mapss_facts(), 3)]]
    assembly = assemble_exam(facts, CARDS, repeats=Repeats.LATEST)
    assert codes(assembly) == ["PROTOCOL_DEVIATION"]
    assert "neither acquisition times nor numbers" in assembly.reasons[0].detail


@pytest.mark.parametrize("repeats", Repeats)
def test_some_slices_of_another_scan_are_an_aborted_one(repeats: Repeats) -> None:
    aborted = [replace(one, images_in_acquisition=None) for one in again(mapss_facts(), 3)[: 5 * 7]]
    assembly = assemble_exam([*mapss_facts(), *aborted], CARDS, repeats=repeats)
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.series_uids == ("1.2.3.1",)
    assert {why for _, why in assembly.set_aside} == {"a fragment (5 slices); another series of ge-mapss holds more"}


def test_a_smaller_scan_that_was_meant_so_is_a_repeat() -> None:
    smaller = [replace(one, images_in_acquisition=35) for one in again(mapss_facts(), 3)[: 5 * 7]]
    assert codes(assemble_exam([*mapss_facts(), *smaller], CARDS)) == ["PROTOCOL_DEVIATION"]
    latest = assemble_exam([*mapss_facts(), *smaller], CARDS, repeats=Repeats.LATEST)
    assert len(latest.images) == 35


def test_a_repeat_in_the_same_series_is_told_by_its_acquisition_number() -> None:
    first = [replace(one, acquisition_number=1, images_in_acquisition=None) for one in mapss_facts()]
    second = [replace(one, acquisition_number=2, series_uid="1.2.3.1", series_number=5) for one in again(first, 2)]
    held = assemble_exam([*first, *second], CARDS)
    assert "acquisitions 1 and 2 of one series" in held.reasons[0].detail
    latest = assemble_exam([*first, *second], CARDS, repeats=Repeats.LATEST)
    assert {one.acquisition_number for one in latest.images} == {2}
    aborted = assemble_exam([*first, *second[:30]], CARDS)
    assert {one.acquisition_number for one in aborted.images} == {1}
    assert len(aborted.set_aside) == 30


def test_a_repeat_that_is_still_arriving_is_waited_for() -> None:
    facts = [*mapss_facts(), *again(mapss_facts(), 3)[:30]]
    known = {"1.2.3.1": 84, "1.2.3.1.3": 84}
    assembly = assemble_exam(facts, CARDS, known_counts=known)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert "series 8 is still arriving: the source or the sender lists 54 more" in assembly.missing_text
    known["1.2.3.1.3"] = 30  # the source has no more of it either: an aborted scan
    assert assemble_exam(facts, CARDS, known_counts=known).state is AssemblyState.COMPLETE


# --- a series, or a study, for each time


def by_time(facts: list[ImageFacts], *, studies: bool = False, **changes: object) -> list[ImageFacts]:
    return [
        replace(
            one,
            series_uid=f"{one.series_uid}.{MAPSS_TIMES_MS.index(one.echo_time_ms or 0.0)}",
            series_number=10 + MAPSS_TIMES_MS.index(one.echo_time_ms or 0.0),
            study_uid=f"1.2.{MAPSS_TIMES_MS.index(one.echo_time_ms or 0.0)}" if studies else one.study_uid,
            **changes,  # type: ignore[arg-type]
        )
        for one in facts
    ]


@pytest.mark.parametrize("studies", [True, False])
def test_one_repeated_time_is_chosen_by_the_policy(studies: bool) -> None:
    facts = by_time(mapss_facts(images_in_acquisition=12), studies=studies)
    repeat = again([one for one in facts if one.echo_time_ms == 40], 30)
    held = assemble_exam([*facts, *repeat], CARDS)
    assert codes(held) == ["PROTOCOL_DEVIATION"]
    assert "series of ge-mapss at 40 ms (series 14 and 44)" in held.reasons[0].detail
    latest = assemble_exam([*facts, *repeat], CARDS, repeats=Repeats.LATEST)
    if studies:  # series of several studies are joined only where there is one way
        assert codes(latest) == ["PROTOCOL_DEVIATION"]
    else:
        assert latest.state is AssemblyState.COMPLETE
        assert {one.series_number for one in latest.images if one.echo_time_ms == 40} == {44}


def test_an_aborted_time_beside_a_whole_one_is_left_aside() -> None:
    facts = by_time(mapss_facts(images_in_acquisition=12))
    aborted = again([one for one in facts if one.echo_time_ms == 40][:5], 30)
    assembly = assemble_exam([*facts, *aborted], CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert {key for key, _ in assembly.set_aside} == {one.key for one in aborted}


def test_a_series_whose_time_is_not_known_is_not_called_missing() -> None:
    facts = by_time(mapss_facts(images_in_acquisition=12))
    spoilt = [replace(one, echo_time_ms=41.0) if one.echo_time_ms == 40 else one for one in facts]
    assembly = assemble_exam(spoilt, CARDS)
    assert codes(assembly) == ["ECHO_UNRESOLVED"]
    assert "EchoTime 41 ms is none of the times" in assembly.reasons[0].detail
    elsewhere = [replace(one, rows=512) if one.echo_time_ms == 41 else one for one in spoilt]  # another kind of series
    text = assemble_exam(elsewhere, CARDS).missing_text
    assert "72/84 images: missing TSL 40 ms at all 12 slices; series 14 is not used: EchoTime 41 ms is none" in text


def test_a_series_that_no_card_fits_is_named_where_it_may_hold_what_is_missing() -> None:
    facts = by_time(mapss_facts(images_in_acquisition=12))
    misnamed = [replace(one, series_description="MPSS 40") if one.echo_time_ms == 40 else one for one in facts]
    text = assemble_exam([*misnamed, *fse_facts(series_description="SAG DIXON", rows=512)], CARDS).missing_text
    assert text.endswith("on the same planes lies series 'MPSS 40', which no protocol card fits")


def test_another_series_of_that_name_does_not_keep_the_times_from_being_joined() -> None:
    facts = by_time(mapss_facts(images_in_acquisition=12))
    localiser = again([replace(one, echo_time_ms=5.0, series_uid="1.2.3.9") for one in facts[:3]], 1)
    assembly = assemble_exam([*facts, *localiser], CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert len(assembly.set_aside) == 3
    assert all("EchoTime is 5 ms in all 3 images" in why for _, why in assembly.set_aside)


def test_a_study_for_each_time_is_one_exam() -> None:
    facts = by_time(mapss_facts(), studies=True, study_date="20260112")
    random.Random(3).shuffle(facts)
    assembly = assemble_exam(facts, CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert len(assembly.series_uids) == 7
    without = assemble_exam([one for one in facts if one.echo_time_ms != 40], CARDS)
    assert without.state is AssemblyState.INCOMPLETE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"patient_key": "c" * 64}, "IDENTITY_CONFLICT"),
        ({"study_date": "20260113"}, "IDENTITY_CONFLICT"),
        ({"frame_of_reference_uid": "1.9"}, "GEOMETRY_INCONSISTENT"),
        ({"rows": 512}, "GEOMETRY_INCONSISTENT"),
        ({"rescale_slope": 2.0}, "SCALING_UNKNOWN"),
    ],
)
def test_studies_that_do_not_belong_together_are_not_joined(changes: dict[str, object], code: str) -> None:
    facts = by_time(mapss_facts(), studies=True)
    odd = [replace(one, **changes) if one.echo_time_ms == 40 else one for one in facts]  # type: ignore[arg-type]
    assert codes(assemble_exam(odd, CARDS)) == [code]


def test_two_whole_exams_of_one_day_are_two() -> None:
    morning = mapss_facts(study_date="20260112")
    evening = again(mapss_facts(study_date="20260112", study_uid="1.2.9"), 3)
    assembly = assemble_exam([*morning, *evening], CARDS, repeats=Repeats.LATEST)
    assert codes(assembly) == ["PROTOCOL_DEVIATION"]
    assert "1.2.3 and 1.2.9" in assembly.reasons[0].detail
    begun = assemble_exam([*morning, *evening[:40]], CARDS)
    assert begun.state is AssemblyState.COMPLETE
    assert begun.series_uids == ("1.2.3.1",)
    assert {why for _, why in begun.set_aside} == {"of another study, beside one that holds a whole exam"}
    anatomies = [*fse_facts(), *fse_facts(series_uid="1.2.9.2", study_uid="1.2.9")]
    assert codes(assemble_exam(anatomies, CARDS)) == ["PROTOCOL_DEVIATION"]
    assert assemble_exam([*anatomies[:12], *anatomies[13:]], CARDS).is_complete is False


def test_two_exams_with_a_study_for_each_time_are_not_mixed() -> None:
    first = by_time(mapss_facts(), studies=True)
    second = [replace(one, study_uid=f"{one.study_uid}.9") for one in again(first, 50)]
    assert codes(assemble_exam([*first, *second], CARDS)) == ["PROTOCOL_DEVIATION"]
    begun = [one for one in second if one.echo_time_ms in (0.0, 10.0)]
    assert codes(assemble_exam([*first, *begun], CARDS)) == ["PROTOCOL_DEVIATION"]


def test_scans_of_two_studies_are_joined_too() -> None:
    facts = [*t1rho(), *t2(study_uid="1.2.8")]
    assert assemble_exam(facts, TWO_SCANS).state is AssemblyState.COMPLETE


# --- properties

EXAMS: Mapping[str, tuple[list[ImageFacts], tuple[ProtocolCard, ...]]] = {
    "one series": (mapss_facts(4), CARDS),
    "with anatomy and phase": (
        [
            *mapss_facts(4, images_in_acquisition=56),
            *(
                replace(one, complex_component="PHASE", sop_instance_uid=one.sop_instance_uid + ".9")
                for one in mapss_facts(4)
            ),
            *fse_facts(4),
        ],
        CARDS,
    ),
    "a series for each time": (by_time(mapss_facts(4)), CARDS),
    "a study for each time": (by_time(mapss_facts(4), studies=True), CARDS),
    "two scans": ([*t1rho(), *t2()], TWO_SCANS),
    "frames": (framed(mapss_facts(4, announced=False)), CARDS),
}
ODD: list[dict[str, object]] = [
    {"echo_time_ms": None},
    {"echo_time_ms": float("nan")},
    {"position": ()},
    {"position": (float("inf"), 0.0, 0.0)},
    {"position": (1e300, -1e300, 0.0)},
    {"position": (20.0, -100.0, 100.0)},
    {"orientation": ()},
    {"orientation": (0.0,) * 6},
    {"orientation": (1e200,) * 6},
    {"pixel_spacing_mm": (0.0, 0.0)},
    {"pixel_spacing_mm": (float("nan"), 1.0)},
    {"rows": 1},
    {"rescale_slope": 0.0},
    {"rescale_slope": float("nan")},
    {"rescale_intercept": 1e308},
    {"scale_slope": 0.1},
    {"image_type": ()},
    {"series_description": ""},
    {"series_uid": "1.2.3.1.6"},
    {"study_uid": "1.2.3.99"},
    {"study_date": "19000101"},
    {"patient_key": "z"},
    {"series_number": None},
    {"acquisition_number": 2},
    {"images_in_acquisition": -5},
    {"images_in_acquisition": 10**9},
    {"slice_thickness_mm": None},
    {"spacing_between_slices_mm": 1e-300},
    {"frame_of_reference_uid": ""},
    {"concatenation": (3, 2)},
    {"pixel_sha256": "e" * 64},
    {"sop_instance_uid": "9.9"},
]


@pytest.mark.parametrize("name", EXAMS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_comes_is_answered_and_never_complete_with_an_image_missing(name: str, data: st.DataObject) -> None:
    whole, cards = EXAMS[name]
    kept = data.draw(st.sets(st.integers(0, len(whole) - 1), min_size=len(whole) - 6))
    facts = [one for index, one in enumerate(whole) if index in kept]
    for _ in range(data.draw(st.integers(0, 3))):
        index = data.draw(st.integers(0, len(facts) - 1))
        facts[index] = replace(facts[index], **data.draw(st.sampled_from(ODD)))  # type: ignore[arg-type]
    doubled = [facts[index] for index in data.draw(st.lists(st.integers(0, len(facts) - 1), max_size=3))]
    counts = data.draw(
        st.dictionaries(st.sampled_from(sorted({one.series_uid for one in whole})), st.integers(-1, 200), max_size=3)
    )
    repeats = data.draw(st.sampled_from(Repeats))
    shuffled = [*facts, *doubled]
    random.Random(data.draw(st.integers(0, 9))).shuffle(shuffled)
    assembly = assemble_exam(shuffled, cards, repeats=repeats, known_counts=counts)
    assert repr(assembly) == repr(assemble_exam(facts, cards, repeats=repeats, known_counts=counts))
    assert assembly.is_complete == bool(assembly.measured)
    assert assembly.is_complete or assembly.reasons
    for series in assembly.measured:
        assert np.shape(series.grid) == (len(series.times_ms), len(series.grid[0]))
        for row, time_ms in zip(series.grid, series.times_ms, strict=True):
            assert all(series.card.role == "anatomy" or abs((one.echo_time_ms or 0) - time_ms) <= 0.5 for one in row)
    assert not {one.key for one in assembly.images} & {key for key, _ in assembly.set_aside}
    if assembly.state is AssemblyState.COMPLETE:
        n_needed = sum(not one.complex_component and one.series_description != "SAG T2 FSE" for one in whole)
        assert len(assembly.images) == n_needed


@pytest.mark.parametrize("studies", [True, False])
def test_two_thousand_images_in_parts_take_less_than_a_second(studies: bool) -> None:
    whole = mapss_facts(286)
    cards = [
        card.model_copy(update={"expected": card.expected.model_copy(update={"max_slices": 300})}) for card in CARDS
    ]
    facts = by_time(whole, studies=studies)
    random.Random(1).shuffle(facts)
    begin = time.process_time()
    assembly = assemble_exam(facts, cards)
    assert time.process_time() - begin < 1.0
    assert assembly.state is AssemblyState.COMPLETE
    assert len(assembly.images) == 2002


# --- how many slices the scanner says there are


def counted_by_slices(n_announced: int | None, *, slices: range = range(6)) -> ExamAssembly:
    scans = [
        replace(one, images_in_acquisition=None, announced_slices=n_announced)
        for part in (t1rho(slices=slices), t2(slices=slices))
        for one in part
    ]
    return assemble_exam(scans, TWO_SCANS)


@pytest.mark.parametrize(
    ("n_announced", "state"),
    [
        (6, AssemblyState.COMPLETE),
        (None, AssemblyState.COMPLETE_WITHOUT_EVIDENCE),
        (5, AssemblyState.COMPLETE_WITHOUT_EVIDENCE),
        (8, AssemblyState.INCOMPLETE),
    ],
)
def test_the_announced_number_of_slices_is_evidence_either_way(n_announced: int | None, state: AssemblyState) -> None:
    assert counted_by_slices(n_announced).state is state


def test_a_lost_outer_slice_is_known_by_the_announced_number() -> None:
    assembly = counted_by_slices(6, slices=range(5))
    assert assembly.state is AssemblyState.INCOMPLETE
    assert "20/24 images: the scanner announced 4 more" in assembly.missing_text
