"""Times by the order of acquisition: a numbering that agrees with positions, holes that shift nothing, else refused."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mr_exam import image_facts

from config.protocol_cards import Order, OrderKey, load_cards
from dicom_io.acquisition_order import time_indices
from dicom_io.headers import ImageFacts
from dicom_io.protocols import image_times
from dicom_io.series import AssemblyState, assemble_exam
from processing.refusal import ReasonCode, UnsuitableInput

TIMES_MS = (0.0, 10.0, 40.0, 80.0)
TIME_FASTEST = Order(times_ms=TIMES_MS)
SLICE_FASTEST = Order(times_ms=TIMES_MS, fastest="slice")


def series(
    n_slices: int = 5,
    *,
    fastest: str = "time",
    first: int = 1,
    slice_order: list[int] | None = None,
    **changes: object,
) -> list[tuple[int, ImageFacts]]:
    """(index of the true time, image without any time in its header), numbered in the order of acquisition."""
    order = slice_order or list(range(n_slices))
    if fastest == "time":
        acquired = [(time, place) for place in order for time in range(len(TIMES_MS))]
    else:
        acquired = [(time, place) for time in range(len(TIMES_MS)) for place in order]
    return [
        (
            time,
            image_facts(
                sop_instance_uid=f"1.2.3.{number}",
                pixel_sha256=f"{number:064d}",
                instance_number=number,
                echo_time_ms=5.1,
                echo_numbers=(1,),
                position=(20.0 - 4 * place, -100.0, 100.0),
                **changes,
            ),
        )
        for number, (time, place) in enumerate(acquired, start=first)
    ]


def refused(images: list[ImageFacts], order: Order) -> str:
    with pytest.raises(UnsuitableInput) as caught:
        time_indices(images, order)
    assert caught.value.reason.code is ReasonCode.ECHO_UNRESOLVED
    return caught.value.reason.detail


ORDERS = pytest.mark.parametrize(("fastest", "order"), [("time", TIME_FASTEST), ("slice", SLICE_FASTEST)])


@ORDERS
@pytest.mark.parametrize("first", [0, 1, 2, 4, 101])
@pytest.mark.parametrize("slice_order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 2, 4, 1, 3]])
def test_whole_series_are_told_however_numbers_begin_and_slices_follow(
    fastest: str, order: Order, first: int, slice_order: list[int]
) -> None:
    made = series(fastest=fastest, first=first, slice_order=slice_order)
    random.Random(1).shuffle(made)
    assert time_indices([image for _, image in made], order) == [time for time, _ in made]


@ORDERS
@settings(max_examples=80, deadline=None)
@given(lost=st.sets(st.integers(1, 20), max_size=9), seed=st.integers(0, 9))
def test_lost_images_shift_no_others(fastest: str, order: Order, lost: set[int], seed: int) -> None:
    made = [(time, image) for time, image in series(fastest=fastest) if image.instance_number not in lost]
    random.Random(seed).shuffle(made)
    images = [image for _, image in made]
    if fastest == "slice" and len({image.position for image in images}) == len(images):
        assert "too few images" in refused(images, order)
    else:
        assert time_indices(images, order) == [time for time, _ in made]


@ORDERS
@settings(max_examples=60, deadline=None)
@given(
    lost=st.sets(st.integers(0, 19), max_size=12),
    first=st.integers(-3, 30),
    seed=st.integers(0, 9),
    n=st.integers(1, 5),
)
def test_a_full_grid_is_right_or_refused_wherever_numbers_begin(
    fastest: str, order: Order, lost: set[int], first: int, seed: int, n: int
) -> None:
    """The one thing that must never happen: every slice has every time, and a time is wrong."""
    made = [one for index, one in enumerate(series(n, fastest=fastest, first=first)) if index not in lost]
    random.Random(seed).shuffle(made)
    if not made:
        return
    try:
        found = time_indices([image for _, image in made], order)
    except UnsuitableInput:
        return
    cells = {(image.position, index) for (_, image), index in zip(made, found, strict=True)}
    is_full = len(cells) == len(TIMES_MS) * len({image.position for _, image in made})
    assert not is_full or found == [time for time, _ in made]


@ORDERS
def test_exchanged_numbers_contradict_positions(fastest: str, order: Order) -> None:
    images = [image for _, image in series(fastest=fastest)]
    images[3] = replace(images[3], instance_number=images[9].instance_number)
    images[9] = replace(images[9], instance_number=4)
    assert "InstanceNumber contradicts the slice positions" in refused(images, order)


def test_the_other_order_contradicts_positions() -> None:
    assert "contradicts" in refused([image for _, image in series(fastest="slice")], TIME_FASTEST)
    assert "contradicts" in refused([image for _, image in series(fastest="time")], SLICE_FASTEST)


@ORDERS
def test_more_images_than_times_contradict(fastest: str, order: Order) -> None:
    once = [image for _, image in series(fastest=fastest)]
    again = [
        replace(image, sop_instance_uid=image.sop_instance_uid + ".2") for _, image in series(fastest=fastest, first=21)
    ]
    assert "contradicts" in refused([*once, *again], order)


def test_doubled_and_absent_numbers_are_unresolved() -> None:
    images = [image for _, image in series()]
    assert "2 images have InstanceNumber 1" in refused(
        [images[0], replace(images[1], instance_number=1), *images[2:]], TIME_FASTEST
    )
    assert "no InstanceNumber" in refused([replace(images[0], instance_number=None), *images[1:]], TIME_FASTEST)


@pytest.mark.parametrize("key", [OrderKey.ACQUISITION_NUMBER, OrderKey.TEMPORAL_POSITION])
@pytest.mark.parametrize("first", [0, 1, 7])
def test_numbers_that_count_the_times_alone(key: OrderKey, first: int) -> None:
    images = [
        replace(image, acquisition_number=time + first, temporal_position=time + first)
        for time, image in series(slice_order=[0, 2, 4, 1, 3])
    ]
    order = Order(key=key, times_ms=TIMES_MS)
    assert time_indices(images, order) == [time for time, _ in series()]
    assert "runs from" in refused([*images, replace(images[0], acquisition_number=12, temporal_position=12)], order)


def test_frames_of_one_object_are_counted_by_their_own_number() -> None:
    images = [
        replace(image, sop_instance_uid="1.2.3.1", instance_number=1, frame_number=number, number_of_frames=20)
        for number, (_, image) in enumerate(series(), start=1)
    ]
    assert time_indices(images, TIME_FASTEST) == [time for time, _ in series()]
    assert "concatenation" in refused([replace(one, concatenation=(1, 2)) for one in images], TIME_FASTEST)


def test_objects_that_hold_a_stack_each_are_counted_by_instance_number() -> None:
    images = [
        replace(image, sop_instance_uid=f"1.2.3.{time}", instance_number=time + 1, frame_number=1, number_of_frames=5)
        for time, image in series()
    ]
    assert time_indices(images, TIME_FASTEST) == [time for time, _ in series()]


def test_numbers_gone_wild_end_soon() -> None:
    made = [image for _, image in series(fastest="slice")]
    wild = [replace(image, instance_number=(image.instance_number or 0) * 100_000_007) for image in made]
    assert "contradicts" in refused(wild, SLICE_FASTEST)


def test_positions_are_needed_to_check_the_order() -> None:
    images = [replace(image, position=()) for _, image in series()]
    with pytest.raises(UnsuitableInput, match="GEOMETRY_INCONSISTENT"):
        time_indices(images, TIME_FASTEST)


@ORDERS
def test_a_series_for_each_time_keeps_its_numbers(fastest: str, order: Order) -> None:
    values = load_cards()[0].model_dump()
    values["times"] = {"rule": "acquisition_order", "t1rho_ms": TIMES_MS, "order": order.model_dump()}
    card = type(load_cards()[0]).model_validate(values)
    images = [replace(image, series_uid=f"1.2.3.{time}") for time, image in series(fastest=fastest)]
    assembly = assemble_exam(images, [card])
    assert assembly.is_complete, assembly.reasons
    assert len(assembly.series_uids) == len(TIMES_MS)
    for row, time in zip(assembly.relaxometry[0].grid, range(len(TIMES_MS)), strict=True):
        assert {one.series_uid for one in row} == {f"1.2.3.{time}"}


def test_an_exam_with_one_echo_time_is_measured_by_a_card_that_knows_the_order() -> None:
    values = load_cards()[0].model_dump()
    values["times"] = {"rule": "acquisition_order", "t1rho_ms": TIMES_MS, "order": {"times_ms": TIMES_MS}}
    card = type(load_cards()[0]).model_validate(values)
    images = [image for _, image in series(images_in_acquisition=20)]
    assert {one.source for one in image_times(images, card)} == {"order of InstanceNumber, by the protocol card"}
    assembly = assemble_exam(images, [card])
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.relaxometry[0].times_ms == TIMES_MS
    without = assemble_exam([*images[:6], *images[7:]], [card])
    assert without.missing_text == "ge-mapss: 19/20 images: missing TSL 40 ms at slice 2"
