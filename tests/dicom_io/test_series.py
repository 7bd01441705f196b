"""Assembly of an exam: whole only when it is whole, in any order of arrival, and never silently wrong."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from small_mr_exam import MAPSS_TIMES_MS, fse_facts, image_facts, mapss_facts

from config.protocol_cards import ScalingRule, load_cards
from dicom_io.headers import ImageFacts
from dicom_io.missing_images import MissingImage
from dicom_io.series import AssemblyState, ExamAssembly, assemble_exam
from processing.refusal import ReasonCode

CARDS = load_cards()


def assemble(facts: list[ImageFacts]) -> ExamAssembly:
    return assemble_exam(facts, CARDS)


def codes(assembly: ExamAssembly) -> list[str]:
    return [reason.code.value for reason in assembly.reasons]


def test_whole_exam_is_complete_by_the_announced_count() -> None:
    facts = mapss_facts()
    random.Random(4).shuffle(facts)
    assembly = assemble(facts)
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.reasons == assembly.missing == assembly.set_aside == ()
    (series,) = assembly.relaxometry
    assert series is not None
    assert series.card.name == "ge-mapss"
    assert series.times_ms == MAPSS_TIMES_MS
    assert np.shape(series.grid) == (7, 12)
    for slices, time_ms in zip(series.grid, MAPSS_TIMES_MS, strict=True):
        assert [one.position[0] for one in slices] == [20.0 - 4 * k for k in range(12)]  # left to right
        assert {one.echo_time_ms for one in slices} == {time_ms}
    assert np.allclose(series.affine @ [3, 2, 1, 1], [8.0, -100 + 0.78125, 100 - 2 * 0.78125, 1])


def test_whole_exam_without_a_count_is_complete_without_evidence() -> None:
    assert assemble(mapss_facts(announced=False)).state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE
    too_low = mapss_facts(images_in_acquisition=12)
    assert assemble(too_low).state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE


def test_one_missing_image_is_named() -> None:
    facts = [one for one in mapss_facts() if not (one.position[0] == 20 - 4 * 6 and one.echo_time_ms == 40)]
    assembly = assemble(facts)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert assembly.missing == (MissingImage(7, 40.0),)
    assert assembly.missing_text == "ge-mapss: 83/84 images: missing TSL 40 ms at slice 7"
    assert codes(assembly) == ["SERIES_INCOMPLETE"]


def test_images_that_all_lie_at_one_place_are_no_stack() -> None:
    assembly = assemble(mapss_facts(position=(20.0, -100.0, 100.0)))
    assert codes(assembly) == ["GEOMETRY_INCONSISTENT"]
    assert assembly.reasons[0].detail == "all 84 images lie at one place, several of each kind"


def test_echo_times_in_seconds_are_unresolved() -> None:
    assembly = assemble([replace(one, echo_time_ms=(one.echo_time_ms or 0) / 1000) for one in mapss_facts()])
    assert codes(assembly) == ["ECHO_UNRESOLVED"]
    assert "would both mean 0 ms" in assembly.reasons[0].detail


@pytest.mark.parametrize("announced", [True, False])
def test_missing_inner_slice_is_a_hole(announced: bool) -> None:
    facts = [one for one in mapss_facts(announced=announced) if one.position[0] != 20 - 4 * 6]
    assembly = assemble(facts)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert "77/84 images: missing all times at slice 7" in assembly.missing_text
    assert len(assembly.missing) == 7


@pytest.mark.parametrize(("step", "missing"), [(2, "slices 2, 4, 6, 8, 10"), (3, "slices 2, 3, 5, 6, 8, 9")])
def test_every_other_slice_is_missing_where_the_header_tells_a_smaller_spacing(step: int, missing: str) -> None:
    facts = [one for one in mapss_facts(announced=False) if (20 - one.position[0]) / 4 % step == 0]
    assembly = assemble(facts)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert f"missing all times at {missing}" in assembly.missing_text
    counted = assemble([replace(one, images_in_acquisition=len(facts)) for one in facts])
    assert counted.state is AssemblyState.COMPLETE  # the scanner says that these are all


@pytest.mark.parametrize("spacing_mm", [0.4, 1.0, 3.0, 6.0, 8.0, -4.0, 0.0, 1e-300, 1e300, None])
def test_a_spacing_in_the_header_that_means_something_else_is_not_believed(spacing_mm: float | None) -> None:
    assembly = assemble(mapss_facts(announced=False, spacing_between_slices_mm=spacing_mm))
    assert assembly.state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE


def test_missing_edge_slice_is_seen_by_the_count_alone() -> None:
    for edge in (20.0, 20.0 - 4 * 11):
        counted = assemble([one for one in mapss_facts() if one.position[0] != edge])
        assert counted.state is AssemblyState.INCOMPLETE
        assert counted.missing_text == "ge-mapss: 77/84 images: the scanner announced 7 more"
        uncounted = assemble([one for one in mapss_facts(announced=False) if one.position[0] != edge])
        assert uncounted.state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE


def test_a_time_that_has_not_come_at_all_is_named_once() -> None:
    facts = [one for one in mapss_facts() if one.echo_time_ms != 80]
    assembly = assemble(facts)
    assert assembly.missing_text == "ge-mapss: 72/84 images: missing TSL 80 ms at all 12 slices"
    assert len(assembly.missing) == 12


def test_too_few_slices_wait() -> None:
    assembly = assemble(mapss_facts(n_slices=2, announced=False))
    assert assembly.state is AssemblyState.INCOMPLETE
    assert "at least 3 slices" in assembly.missing_text


@settings(max_examples=150, deadline=None)
@given(kept=st.sets(st.integers(0, 83), max_size=84), seed=st.integers(0, 99), announced=st.booleans())
def test_a_subset_is_never_complete_and_nothing_is_raised(kept: set[int], seed: int, announced: bool) -> None:
    whole = mapss_facts(announced=announced)
    subset = [one for index, one in enumerate(whole) if index in kept]
    random.Random(seed).shuffle(subset)
    assembly = assemble(subset)
    assert assembly.state is not AssemblyState.COMPLETE or len(kept) == 84
    if announced and 0 < len(kept) < 84:
        assert assembly.state is AssemblyState.INCOMPLETE
    if assembly.is_complete and not announced:
        present = sorted({one.position[0] for one in subset})
        assert len(subset) == 7 * len(present)  # every slice that is there is whole, and they follow each other
        assert np.ptp(np.diff(present)) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_arrival_does_not_matter(seed: int) -> None:
    facts = [*mapss_facts()[:80], *fse_facts()]
    shuffled = list(facts)
    random.Random(seed).shuffle(shuffled)
    assert repr(assemble(shuffled)) == repr(assemble(facts))


def test_doubly_received_images_count_once() -> None:
    facts = mapss_facts()
    assert assemble([*facts, *facts[:9]]).state is AssemblyState.COMPLETE
    assert assemble([*facts[:-1], facts[0]]).state is AssemblyState.INCOMPLETE


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"patient_key": "c" * 64}, "IDENTITY_CONFLICT", "images of 2 patients"),
        ({"study_uid": "1.2.7"}, "IDENTITY_CONFLICT", "images of 2 studies"),
        ({"rows": 512}, "GEOMETRY_INCONSISTENT", "differ in matrix"),
        ({"pixel_spacing_mm": (0.7, 0.7)}, "GEOMETRY_INCONSISTENT", "differ in pixel spacing"),
        ({"orientation": (1.0, 0, 0, 0, 0, -1.0)}, "GEOMETRY_INCONSISTENT", "differ in orientation"),
        ({"frame_of_reference_uid": "1.9"}, "GEOMETRY_INCONSISTENT", "differ in frame of reference"),
        ({"position": ()}, "GEOMETRY_INCONSISTENT", "no ImagePositionPatient"),
        ({"orientation": ()}, "GEOMETRY_INCONSISTENT", "no ImageOrientationPatient"),
        ({"pixel_spacing_mm": ()}, "GEOMETRY_INCONSISTENT", "no PixelSpacing"),
        ({"frame_of_reference_uid": ""}, "GEOMETRY_INCONSISTENT", "no FrameOfReferenceUID"),
        ({"position": (20.0 - 4 * 6, -97.0, 100.0)}, "GEOMETRY_INCONSISTENT", "images of slice 7 lie 3.00 mm apart"),
        ({"rescale_slope": 2.0}, "SCALING_UNKNOWN", "differ between images"),
        ({"rescale_slope": 1.0, "rescale_intercept": -5.0}, "SCALING_UNKNOWN", "differ between images"),
        ({"rescale_intercept": -5.0}, "SCALING_UNKNOWN", "a RescaleIntercept but no RescaleSlope"),
        ({"echo_time_ms": 20.0}, "ECHO_UNRESOLVED", "EchoTime 20 ms is none"),
        ({"echo_time_ms": None}, "ECHO_UNRESOLVED", "no EchoTime"),
        ({"echo_time_ms": 10.0}, "PROTOCOL_DEVIATION", "two different images for slice 7 and 10 ms"),
        ({"lossy_compressed": True}, "PROTOCOL_DEVIATION", "lossy compressed"),
        ({"series_description": "OTHER"}, "PROTOCOL_UNKNOWN", "no protocol card fits"),
    ],
)
def test_one_odd_image_spoils_the_exam(change: dict[str, object], code: str, text: str) -> None:
    facts = mapss_facts()
    odd = 6 * 7 + 4
    facts[odd] = replace(facts[odd], **change)  # type: ignore[arg-type]
    assembly = assemble(facts)
    assert not assembly.is_complete
    assert codes(assembly) == [code]
    assert text in assembly.reasons[0].detail
    assert not assembly.relaxometry


def test_same_uid_with_other_pixels_is_a_conflict() -> None:
    facts = mapss_facts()
    assembly = assemble([*facts, replace(facts[3], pixel_sha256="e" * 64)])
    assert assembly.state is AssemblyState.REFUSED
    assert codes(assembly) == ["INSTANCE_CONFLICT"]


def test_same_pixels_under_another_uid_are_a_conflict() -> None:
    facts = mapss_facts(announced=False)
    assembly = assemble([*facts, replace(facts[3], sop_instance_uid="1.2.3.99")])
    assert codes(assembly) == ["INSTANCE_CONFLICT"]


def test_equal_scaling_is_accepted_and_a_zero_slope_is_not() -> None:
    assert assemble(mapss_facts(rescale_slope=2.5, rescale_intercept=-3.0)).state is AssemblyState.COMPLETE
    assert codes(assemble(mapss_facts(rescale_slope=0.0))) == ["SCALING_UNKNOWN"]


def test_raw_scaling_refuses_a_slope() -> None:
    raw = [card.model_copy(update={"scaling": ScalingRule.RAW}) for card in CARDS]
    assert assemble_exam(mapss_facts(), raw).state is AssemblyState.COMPLETE
    assert codes(assemble_exam(mapss_facts(rescale_slope=2.0), raw)) == ["SCALING_UNKNOWN"]


@pytest.mark.parametrize("shift_mm", [1.0, -0.7])
def test_irregular_slices_are_refused_naming_the_slice(shift_mm: float) -> None:
    facts = [
        replace(one, position=(one.position[0] + (shift_mm if one.position[0] == 20 - 4 * 6 else 0), -100.0, 100.0))
        for one in mapss_facts()
    ]
    assembly = assemble(facts)
    assert assembly.state is AssemblyState.REFUSED
    assert codes(assembly) == ["GEOMETRY_INCONSISTENT"]
    assert "slice 7" in assembly.reasons[0].detail


def test_axial_mapss_is_refused() -> None:
    facts = [
        replace(one, orientation=(1.0, 0, 0, 0, 1.0, 0), position=(0.0, 0.0, one.position[0])) for one in mapss_facts()
    ]
    assert "not sagittal" in assemble(facts).reasons[0].detail


def test_more_slices_than_the_card_allows_deviate() -> None:
    facts = mapss_facts(n_slices=2, series_description="T1rho FSE", announced=False)
    facts = [replace(one, echo_time_ms=one.echo_time_ms) for one in facts if one.echo_time_ms in (0.0, 40.0, 80.0)]
    assembly = assemble(facts)
    assert codes(assembly) == ["PROTOCOL_DEVIATION"]
    assert "at most 1" in assembly.reasons[0].detail


def test_single_slice_exam_needs_its_thickness() -> None:
    def exam(**changes: object) -> list[ImageFacts]:
        times = (0.0, 40.0, 80.0, 120.0)
        return [
            image_facts(
                sop_instance_uid=f"1.2.3.1.{echo}",
                pixel_sha256=f"{echo:064d}",
                echo_time_ms=time_ms,
                series_description="T1rho FSE",
                **changes,
            )
            for echo, time_ms in enumerate(times)
        ]

    assembly = assemble(exam(images_in_acquisition=4))
    assert assembly.state is AssemblyState.COMPLETE
    (relaxometry,) = assembly.relaxometry
    assert np.linalg.norm(relaxometry.affine[:3, 0]) == pytest.approx(4.0)
    assert "without a slice thickness" in assemble(exam(slice_thickness_mm=None)).reasons[0].detail


@pytest.mark.parametrize("decimals", [4, 6])
@pytest.mark.parametrize("angles_deg", [(0, 0, 20), (12, -7, 9), (0, 25, 0), (180, 0, 5)])
def test_oblique_stacks_are_laid_out_along_their_normal(angles_deg: tuple[float, ...], decimals: int) -> None:
    turn = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    order = random.Random(4).sample(range(12), 12)  # acquired interleaved, from either side
    facts = [
        replace(
            one,
            position=tuple(np.round(turn @ one.position, decimals).tolist()),
            orientation=tuple(np.round((turn @ np.reshape(one.orientation, (2, 3)).T).T.ravel(), decimals).tolist()),
            instance_number=order[(one.instance_number or 1) % 12] + 1,
        )
        for one in mapss_facts()
    ]
    random.Random(5).shuffle(facts)
    assembly = assemble(facts)
    assert assembly.state is AssemblyState.COMPLETE, assembly.reasons
    (series,) = assembly.relaxometry
    straight = assemble(mapss_facts()).relaxometry[0].affine
    expected = np.eye(4)
    expected[:3, :3] = turn
    corners = np.array([[s, r, c, 1] for s in (0, 11) for r in (0, 255) for c in (0, 255)]).T
    rounding = 0.5 * 10.0**-decimals
    assert np.abs((series.affine - expected @ straight) @ corners).max() < 2 * rounding * 200  # over 200 mm


# --- several series in one study


def test_anatomy_supports_and_is_not_awaited() -> None:
    assembly = assemble([*mapss_facts(), *fse_facts()])
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.anatomy is not None
    assert assembly.anatomy.series_uids == ("1.2.3.2",)
    assert assembly.measured == assembly.relaxometry
    partial = assemble([*mapss_facts(), *(one for one in fse_facts() if one.position[0] != 0)])
    assert partial.state is AssemblyState.COMPLETE
    assert partial.anatomy is None
    assert len(partial.set_aside) == 11


def test_anatomy_alone_is_measured_but_never_evidence() -> None:
    assembly = assemble(fse_facts(images_in_acquisition=12))
    assert assembly.state is AssemblyState.COMPLETE_WITHOUT_EVIDENCE
    assert not assembly.relaxometry
    assert assembly.anatomy is not None
    assert assembly.measured == (assembly.anatomy,)
    assert assembly.anatomy.times_ms == (0.0,)


def test_partial_anatomy_alone_is_incomplete() -> None:
    assembly = assemble([one for one in fse_facts() if one.position[0] != 0])
    assert assembly.state is AssemblyState.INCOMPLETE
    assert assembly.missing_text == "t2-fse: 11/12 images: missing slice 6"


def test_spoilt_relaxometry_is_not_replaced_by_anatomy() -> None:
    assembly = assemble([*mapss_facts(echo_time_ms=0.0), *fse_facts()])
    assert assembly.state is AssemblyState.REFUSED
    assert codes(assembly) == ["ECHO_UNRESOLVED"]


def test_axial_fse_is_set_aside() -> None:
    axial = [
        replace(one, orientation=(1.0, 0, 0, 0, 1.0, 0), position=(0.0, 0.0, one.position[0]))
        for one in fse_facts(series_uid="1.2.3.7", series_number=4)
    ]
    both = assemble([*fse_facts(), *axial])
    assert both.is_complete
    assert dict(both.set_aside) == {one.key: "t2-fse: the slices are not sagittal" for one in axial}
    alone = assemble(axial)
    assert alone.state is AssemblyState.REFUSED
    assert codes(alone) == ["GEOMETRY_INCONSISTENT"]


def test_repeated_anatomy_uses_the_later_series() -> None:
    assembly = assemble([*fse_facts(), *fse_facts(series_uid="1.2.3.8", series_number=9)])
    assert assembly.anatomy is not None
    assert assembly.anatomy.series_uids == ("1.2.3.8",)
    assert {why for _, why in assembly.set_aside} == {"a later series of t2-fse is used"}


def test_phase_images_of_the_series_are_set_aside_and_counted() -> None:
    phase = [
        replace(
            one,
            sop_instance_uid=one.sop_instance_uid + ".2",
            image_type=("ORIGINAL", "PRIMARY", "PHASE MAP", "P"),
            images_in_acquisition=168,
        )
        for one in mapss_facts()
    ]
    magnitude = mapss_facts(images_in_acquisition=168)
    assert assemble([*magnitude, *phase]).state is AssemblyState.COMPLETE
    assert len(assemble([*magnitude, *phase]).set_aside) == 84
    assert assemble([*magnitude, *phase[:80]]).state is AssemblyState.INCOMPLETE


def test_only_unknown_series_are_unknown_with_every_reason() -> None:
    others = fse_facts(series_description="3-plane LOC", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    assembly = assemble([*others, *fse_facts(series_uid="1.2.3.5", series_description="DIXON", series_number=8)])
    assert assembly.state is AssemblyState.UNKNOWN
    assert codes(assembly) == ["PROTOCOL_UNKNOWN", "PROTOCOL_UNKNOWN"]
    assert "DIXON" in assembly.reasons[1].detail
    assert len(assembly.set_aside) == 24


def test_unknown_series_beside_the_exam_is_set_aside() -> None:
    assembly = assemble([*mapss_facts(), *fse_facts(series_description="DIXON")])
    assert assembly.state is AssemblyState.COMPLETE
    assert len(assembly.set_aside) == 12


def split_by_time(facts: list[ImageFacts], **changes: object) -> list[ImageFacts]:
    return [
        replace(
            one,
            series_uid=f"1.2.3.{10 + MAPSS_TIMES_MS.index(one.echo_time_ms or 0.0)}",
            series_number=10 + MAPSS_TIMES_MS.index(one.echo_time_ms or 0.0),
            **changes,  # type: ignore[arg-type]
        )
        for one in facts
    ]


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        (84, AssemblyState.COMPLETE),  # the count of the scan before it was split
        (12, AssemblyState.COMPLETE),  # the count of each part
        (None, AssemblyState.COMPLETE_WITHOUT_EVIDENCE),
        (96, AssemblyState.INCOMPLETE),
    ],
)
def test_one_series_per_time_is_joined(announced: int | None, expected: AssemblyState) -> None:
    facts = split_by_time(mapss_facts(), images_in_acquisition=announced)
    assembly = assemble(facts)
    assert assembly.state is expected
    if assembly.is_complete:
        assert len(assembly.series_uids) == 7
    without_one_time = assemble([one for one in facts if one.echo_time_ms != 40])
    assert without_one_time.state is AssemblyState.INCOMPLETE
    total = max(84, announced or 0)
    assert f"ge-mapss: 72/{total} images: missing TSL 40 ms at all 12 slices" in without_one_time.missing_text


def test_joined_series_must_share_scaling_and_place() -> None:
    facts = split_by_time(mapss_facts())
    scaled = [replace(one, rescale_slope=1 + (one.series_number or 0) / 10) for one in facts]
    assert codes(assemble(scaled)) == ["SCALING_UNKNOWN"]
    elsewhere = [replace(one, frame_of_reference_uid=one.series_uid) for one in facts]
    assert codes(assemble(elsewhere)) == ["GEOMETRY_INCONSISTENT"]


def test_aborted_scan_beside_a_whole_one_is_set_aside() -> None:
    aborted = [
        replace(one, series_uid="1.2.3.6", sop_instance_uid=one.sop_instance_uid + ".6", series_number=4)
        for one in mapss_facts()[:30]
    ]
    assembly = assemble([*aborted, *mapss_facts()])
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.series_uids == ("1.2.3.1",)
    assert {key for key, _ in assembly.set_aside} == {one.key for one in aborted}


def test_parts_of_two_scans_are_never_mixed_into_one() -> None:
    second = [
        replace(one, series_uid="1.2.3.6", sop_instance_uid=one.sop_instance_uid + ".6", series_number=6)
        for one in mapss_facts()
    ]
    assembly = assemble([*mapss_facts()[:42], *second[42:]])  # together they would fill the grid
    assert assembly.state is AssemblyState.INCOMPLETE


def test_two_whole_scans_are_for_a_person_to_choose() -> None:
    second = [
        replace(one, series_uid="1.2.3.6", sop_instance_uid=one.sop_instance_uid + ".6", series_number=6)
        for one in mapss_facts()
    ]
    assembly = assemble([*mapss_facts(), *second])
    assert codes(assembly) == ["PROTOCOL_DEVIATION"]
    assert "series 5 and 6" in assembly.reasons[0].detail


def test_two_relaxometry_protocols_are_not_mixed() -> None:
    other = [replace(one, series_uid="1.2.3.6", series_description="T1rho FSE") for one in mapss_facts(n_slices=1)]
    other = [replace(one, sop_instance_uid=one.sop_instance_uid + ".6") for one in other]
    assert codes(assemble([*mapss_facts(), *other])) == ["PROTOCOL_DEVIATION"]


def test_no_image_is_refused() -> None:
    assert codes(assemble([])) == ["SERIES_INCOMPLETE"]


def test_reasons_hold_no_identity() -> None:
    facts = mapss_facts()
    facts[0] = replace(facts[0], patient_key="c" * 64)
    assembly = assemble(facts)
    assert facts[0].patient_key not in repr(assembly.reasons)
    assert facts[1].patient_key not in repr(assembly.reasons)
    assert assembly.reasons[0].code is ReasonCode.IDENTITY_CONFLICT


def test_two_thousand_images_take_less_than_a_second() -> None:
    relaxometry = mapss_facts(n_slices=64)
    others = [one for k in range(130) for one in fse_facts(series_uid=f"1.2.4.{k}", series_number=k)]
    begin = time.process_time()
    assembly = assemble([*relaxometry, *others])
    assert time.process_time() - begin < 1.0
    assert assembly.state is AssemblyState.COMPLETE


def located(facts: list[ImageFacts]) -> list[ImageFacts]:
    return [replace(one, slice_location_mm=-one.position[0] + 3.0) for one in facts]


def test_two_images_of_one_time_with_exchanged_positions_were_measured() -> None:
    """Slices next to each other look alike: the signal does not tell, but SliceLocation does."""
    facts = located(mapss_facts())
    assert assemble(facts).is_complete
    one, other = 5 * 7 + 4, 6 * 7 + 4
    facts[one], facts[other] = (
        replace(facts[one], position=facts[other].position),
        replace(facts[other], position=facts[one].position),
    )
    assembly = assemble(facts)
    assert codes(assembly) == ["GEOMETRY_INCONSISTENT"]
    assert "one ImagePositionPatient and SliceLocations" in assembly.reasons[0].detail


@pytest.mark.parametrize("moved_mm", [0.4, 1.0, 2.0, -1.0])
def test_an_image_beside_its_slice_was_waited_for_as_hundreds_of_missing_ones(moved_mm: float) -> None:
    facts = mapss_facts()
    x, y, z = facts[45].position
    facts[45] = replace(facts[45], position=(x + moved_mm, y, z))
    assembly = assemble(facts)
    assert codes(assembly) == ["GEOMETRY_INCONSISTENT"]
    assert f"lie {abs(moved_mm):.2f} mm apart" in assembly.reasons[0].detail
