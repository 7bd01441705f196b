"""The overview picture: outlines where the discs are, colours that follow the map, no identity."""

import dataclasses

import example_exam
import numpy as np
import pytest
from matplotlib import colormaps

from processing.anatomy_panels import midline_slice
from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS
from processing.montage import draw_montage
from processing.refusal import Reason, ReasonCode
from processing.results import Correction, Level, MaskOrigin, Quantity, Region, Verdict


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw_montage(example_exam.exam_result())


def count(picture: np.ndarray, colour: tuple[int, int, int], *, tolerance: int = 3) -> int:
    """Pixels of about this colour."""
    return int((np.abs(picture.astype(int) - colour) <= tolerance).all(axis=-1).sum())


def test_it_is_an_rgb_picture_and_the_same_every_time(picture):
    assert (picture.shape, picture.dtype) == ((1200, 1600, 3), np.uint8)
    np.testing.assert_array_equal(draw_montage(example_exam.exam_result()), picture)


def test_every_disc_that_was_found_has_its_colour_and_no_other(picture):
    for level in tuple(Level)[:5]:
        assert count(picture, LEVEL_COLOURS[level]) > 50, level
    two = draw_montage(example_exam.exam_result((Level.L5S1, Level.L3L4), with_maps=False))
    for level in Level:
        assert (count(two, LEVEL_COLOURS[level]) > 50) == (level in (Level.L5S1, Level.L3L4)), level


@pytest.mark.parametrize("quantity", list(Quantity))
def test_a_value_is_shown_in_the_colour_of_the_colour_bar(quantity):
    """A map of one value fills the discs of its panel with one colour, that of the bar at this value."""
    result = example_exam.exam_result()
    low, high = DISPLAY_RANGES_MS[quantity]
    value = low + 0.8 * (high - low)
    there = np.isfinite(result.maps[quantity].time_ms)
    flat = dataclasses.replace(result.maps[quantity], time_ms=np.where(there, value, np.nan).astype(np.float32))
    shown = draw_montage(dataclasses.replace(result, maps={quantity: flat}))
    red, green, blue, _ = colormaps["viridis"](0.8, bytes=True)
    in_bar = 500
    assert count(shown, (red, green, blue)) > in_bar + 3000
    red, green, blue, _ = colormaps["viridis"](0.4, bytes=True)
    assert count(shown, (red, green, blue)) < in_bar


def test_an_exam_without_maps_has_no_colour_bar():
    picture = draw_montage(example_exam.exam_result(with_maps=False))
    assert count(picture, tuple(int(c) for c in colormaps["viridis"](0.5, bytes=True)[:3])) == 0


def test_verdict_and_doubts_change_the_picture(picture):
    result = example_exam.exam_result()
    fine = draw_montage(dataclasses.replace(result, verdict=Verdict.OK, reasons=()))
    changed = np.any(fine != picture, axis=-1)
    assert changed[:100].any()  # the heading
    assert changed[900:, 950:].any()  # the list of doubts
    assert not changed[100:900].any()


def test_a_persons_discs_are_called_so(picture):
    corrected = dataclasses.replace(example_exam.exam_result(), correction=Correction(MaskOrigin("ab" * 32), {}))
    assert (draw_montage(corrected) != picture).any()


def test_many_doubts_stay_inside_the_picture(picture):
    reasons = tuple(Reason(ReasonCode.MOTION, f"doubt {number}: " + "words " * 20) for number in range(30))
    crowded = draw_montage(dataclasses.replace(example_exam.exam_result(), reasons=reasons))
    np.testing.assert_array_equal(crowded[:900], picture[:900])
    background = crowded[-1, -1]
    assert (crowded[-12:] == background).all()
    assert (crowded[900:, -12:] == background).all()


def test_spread_over_the_networks_changes_the_table_alone(picture):
    result = example_exam.exam_result()
    rows = [
        dataclasses.replace(row, member_sd_ms=0.3, n_members=5) if row.region is Region.WHOLE_DISC else row
        for row in result.measurements
    ]
    shown = draw_montage(dataclasses.replace(result, measurements=tuple(rows)))
    changed = np.any(shown != picture, axis=-1)
    assert changed[930:1170, 30:960].any()
    assert changed[1100:, 970:].any()  # the note says what it is
    assert not changed[:930].any()
    unknown = [dataclasses.replace(row, member_sd_ms=None) for row in rows]  # an ensemble of which one sees the disc
    differs = np.any(draw_montage(dataclasses.replace(result, measurements=tuple(unknown))) != shown, axis=-1)
    assert differs[930:1170, 30:960].any()


def test_the_midline_is_the_middle_of_the_discs_not_of_the_stack():
    labels = np.zeros((11, 4, 4), np.uint8)
    labels[6:10, 1:3, 1:3] = 2
    assert midline_slice(labels) == 7


def test_a_single_slice_and_a_single_disc_are_drawn():
    result, _ = example_exam.single_slice(example_exam.exam_result((Level.L2L3,)), example_exam.source_exam())
    assert count(draw_montage(result), LEVEL_COLOURS[Level.L2L3]) > 50


def test_a_result_without_a_disc_has_no_overview():
    with pytest.raises(ValueError, match="without a disc"):
        draw_montage(example_exam.exam_result((), with_maps=False))
