"""The page about registration: values in the colour of the bar, folding marked, what failed said, no identity."""

from dataclasses import replace

import example_exam
import numpy as np
import pytest
from matplotlib import colormaps
from simulated_disc_exam import registered_exam, result_of

from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS
from processing.refusal import Reason, ReasonCode
from processing.registration_page import draw_registration_page
from processing.results import Level, Quantity

RED, PINK, CROSS = (255, 0, 0), (255, 92, 173), 40
#: Where the page shows what: columns of the 2000 pixels.
NAMES, ATLAS_MAPS, JACOBIANS = slice(0, 170), slice(520, 880), slice(1280, 1620)


@pytest.fixture(scope="module")
def exam():
    return registered_exam(3, n_slices=1)


@pytest.fixture(scope="module")
def page(exam):
    return draw_registration_page(result_of(exam))


def count(picture, colour, *, tolerance=3):
    """Pixels of about this colour."""
    return int((np.abs(picture.astype(int) - colour) <= tolerance).all(axis=-1).sum())


def body(picture):
    """Without heading and legend."""
    return picture[140:1360]


def test_it_is_an_rgb_picture_and_the_same_every_time(exam, page):
    assert (page.shape, page.dtype) == ((1500, 2000, 3), np.uint8)
    np.testing.assert_array_equal(draw_registration_page(result_of(exam)), page)


def test_every_disc_has_its_name_in_its_colour(exam, page):
    for level in tuple(Level)[:5]:
        assert count(page[:, NAMES], LEVEL_COLOURS[level]) > 50
    assert count(page[:, NAMES], LEVEL_COLOURS[Level.T12L1]) == 0


def test_a_value_is_shown_in_the_colour_of_the_bar(exam):
    low, high = DISPLAY_RANGES_MS[Quantity.T1RHO]
    value = np.float32(low + 0.8 * (high - low))
    discs = tuple(
        replace(
            disc,
            maps={
                q: replace(one, time_ms=np.where(disc.atlas.mask > 0, value, np.nan)) for q, one in disc.maps.items()
            },
        )
        for disc in exam.registered
    )
    shown = draw_registration_page(result_of(exam, registered=discs))
    red, green, blue, _ = colormaps["viridis"](0.8, bytes=True)
    assert count(body(shown)[:, ATLAS_MAPS], (red, green, blue)) > 30_000


def test_the_midline_is_drawn_for_every_disc(exam, page):
    per_disc = np.array_split(body(page)[:, ATLAS_MAPS], 5)
    assert all(count(one, PINK, tolerance=60) > 20 for one in per_disc)
    moved = tuple(replace(disc, atlas=replace(disc.atlas, midline_mm=-10.0)) for disc in exam.registered)
    assert (draw_registration_page(result_of(exam, registered=moved)) != page)[:, ATLAS_MAPS].any()


def test_det_j_of_one_is_white_and_folding_is_crossed_in_red(exam, page):
    assert count(body(page)[:, JACOBIANS], RED, tolerance=30) == 0
    disc = exam.registered[2]
    one, inside = disc.alignment, disc.atlas.mask > 0
    flat = np.where(inside, np.float32(1.0), one.jacobian)
    folded = flat.copy()
    folded[tuple(np.argwhere(inside)[::40].T)] = -0.3
    for jacobian, crosses in ((flat, False), (folded, True)):
        changed = replace(disc, alignment=replace(one, jacobian=jacobian))
        shown = draw_registration_page(result_of(exam, registered=(changed,)))
        assert (count(body(shown)[:, JACOBIANS], RED, tolerance=30) > CROSS) == crosses


def test_a_disc_that_was_not_registered_says_why(exam, page):
    why = Reason(ReasonCode.REGISTRATION_POOR, "registration failed: L3L4: the registration process died twice")
    rest = tuple(disc for disc in exam.registered if disc.alignment.level is not Level.L3L4)
    shown = draw_registration_page(result_of(exam, registered=rest, reasons=(why,)))
    amber = (255, 200, 87)
    assert count(body(shown), amber) > 300
    assert count(body(page), amber) == 0
    unexplained = draw_registration_page(result_of(exam, registered=rest))
    assert (unexplained != shown).any()
    assert (np.flatnonzero((shown != page).any(axis=(1, 2))) > 500).all()  # nothing above this disc's row


def test_a_disc_without_registration_or_values_is_drawn_all_the_same(exam):
    nothing = {q: replace(one, time_ms=np.full_like(one.time_ms, np.nan)) for q, one in exam.maps.items()}
    empty = tuple(
        replace(disc, maps={q: replace(one, time_ms=np.full_like(one.time_ms, np.nan)) for q, one in disc.maps.items()})
        for disc in exam.registered
    )
    pages = [result_of(exam, registered=()), result_of(exam, registered=empty, maps=nothing)]
    bare, without_values = (draw_registration_page(one) for one in pages)
    assert bare is not None
    assert without_values is not None
    assert bare.shape == without_values.shape
    assert (bare != without_values).any()


def test_two_quantities_and_several_slices_and_an_upper_disc():
    """The example of the writers: atlas discs of 2 x 3 x 4 voxels without maps, T12L1 found but not measured."""
    result = example_exam.exam_result(tuple(Level))
    shown = draw_registration_page(replace(result, registered=result.registered[:5]))
    assert count(shown[:, NAMES], LEVEL_COLOURS[Level.L1L2]) > 50
    assert count(shown[:, NAMES], LEVEL_COLOURS[Level.T12L1]) == 0


def test_without_discs_or_maps_there_is_no_page():
    for result in (example_exam.exam_result((), with_maps=False), example_exam.exam_result(with_maps=False)):
        with pytest.raises(ValueError, match="no registration page"):
            draw_registration_page(result)
