import io

import numpy as np
import pytest
from matplotlib.image import imread

from processing.agreement import DiscTimes
from processing.agreement_figures import (
    GradedDisc,
    draw_by_grade,
    draw_differences_by_grade,
    draw_masks,
    draw_times,
    take_picture,
)
from processing.display import LEVEL_COLOURS
from processing.results import LUMBAR_LEVELS, Level, Quantity

SPACING = (4.0, 1.0, 0.5)


def volumes() -> tuple[np.ndarray, np.ndarray]:
    """An image and discs; slice 1 of 3 shows most of them."""
    image = np.random.default_rng(3).uniform(0, 500, (3, 160, 200)).astype(np.float32)
    discs = np.zeros((3, 160, 200), np.uint8)
    for index, level in enumerate(LUMBAR_LEVELS):
        discs[1, 120 - 18 * index : 128 - 18 * index, 80:140] = level
    discs[0, 120:128, 80:140] = Level.L5S1
    discs[:, 20:28, 40:160] = Level.T12L1
    return image, discs


def pixels(png: bytes) -> np.ndarray:
    return np.round(imread(io.BytesIO(png))[..., :3] * 255).astype(int)


def shows(png: bytes, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels(png) - colour).max(axis=-1) <= 3).any())


def test_the_picture_is_the_fullest_slice_cut_around_its_discs():
    image, discs = volumes()
    picture = take_picture(image, discs, np.roll(discs, 2, axis=1), (discs > 0) * 0.5, SPACING)
    # rows 48..129 and columns 80..139 hold discs; 18 mm are 18 rows and 36 columns
    assert picture.manual.shape == (129 + 18 - (48 - 18), 139 + 36 - (80 - 36))
    assert set(np.unique(picture.manual).tolist()) == {0, 1, 2, 3, 4, 5}  # what lies above is not compared
    np.testing.assert_array_equal(np.unique(picture.probability), [0, 128])
    assert picture.pixel_mm == (1.0, 0.5)
    assert (picture.image.min(), picture.image.max()) == (0, 255)
    assert picture.manual[18 + 72 + 3, 40] == Level.L5S1
    assert picture.automatic[18 + 72 + 3 + 6, 40] == Level.L5S1
    assert picture.manual[18 + 72 + 3 + 6, 40] == 0


def test_masks_are_drawn_in_the_colours_of_their_levels():
    image, discs = volumes()
    probability = (discs > 0).astype(np.float32)
    whole = take_picture(image, discs, discs, probability, SPACING)
    without = np.where(discs == Level.L3L4, 0, discs).astype(np.uint8)
    partly = take_picture(image, without, without, probability, SPACING)
    png = draw_masks([("one", whole)])
    for level in LUMBAR_LEVELS:
        assert shows(png, LEVEL_COLOURS[level])
    assert not shows(draw_masks([("one", partly)]), LEVEL_COLOURS[Level.L3L4])
    assert pixels(draw_masks([("one", whole), ("two", whole)])).shape[0] > 1.7 * pixels(png).shape[0]


def test_times_of_another_quantity_are_not_drawn():
    times = [DiscTimes(level, Quantity.T2, 60.0 + level, 61.0 - level) for level in LUMBAR_LEVELS]
    unlike = [DiscTimes(level, Quantity.T1RHO, 90.0, 300.0) for level in LUMBAR_LEVELS]
    assert draw_times([*times, *unlike], Quantity.T2) == draw_times(times, Quantity.T2)
    assert draw_times([*times, *unlike], Quantity.T1RHO) != draw_times(times, Quantity.T2)


def test_undefined_times_and_an_empty_set_are_drawn_without_a_warning():
    nothing = [DiscTimes(Level.L4L5, Quantity.T2, float("nan"), 50.0)]
    assert draw_times(nothing, Quantity.T2) == draw_times([], Quantity.T2)
    one = [DiscTimes(Level.L4L5, Quantity.T2, 52.0, 50.0)]
    assert draw_times(one, Quantity.T2) != draw_times([], Quantity.T2)


def graded(msd_px: float = 0.5) -> list[GradedDisc]:
    return [
        GradedDisc(grade, Level.L4L5, 0.9 - 0.02 * grade, msd_px, {Quantity.T2: float(grade)})
        for grade in (1, 2, 3, 3, 3, 5)
    ]


def test_grades_are_drawn_with_every_disc():
    png = draw_by_grade(graded())
    assert png.startswith(b"\x89PNG")
    assert png == draw_by_grade(graded())  # the same points at the same places
    assert png != draw_by_grade(graded()[:-1])
    assert draw_by_grade(graded(float("nan"))) != png


@pytest.mark.parametrize("n_quantities", [1, 2])
def test_each_measured_quantity_has_a_panel_of_differences(n_quantities):
    discs = [
        GradedDisc(one.grade, one.level, one.dice, one.msd_px, dict.fromkeys(list(Quantity)[:n_quantities], 1.0))
        for one in graded()
    ]
    assert pixels(draw_differences_by_grade(discs)).shape[1] == n_quantities * 550
