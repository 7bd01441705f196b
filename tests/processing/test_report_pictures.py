"""The pictures of the report: right size, right slice, colours of the maps, paper around them."""

import dataclasses

import example_exam
import numpy as np
import pytest
from matplotlib import colormaps

from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS
from processing.report_pictures import draw_maps_picture, draw_slices_picture
from processing.results import Level, Quantity


def count_near(picture: np.ndarray, colour: tuple[int, ...], within: int = 12) -> int:
    """Pixels of about a colour."""
    return int((np.abs(picture.astype(int) - colour).max(axis=-1) <= within).sum())


def test_maps_stand_beside_the_anatomy_on_white():
    picture = draw_maps_picture(example_exam.exam_result())
    assert (picture.dtype, picture.shape[1:]) == (np.uint8, (1590, 3))
    np.testing.assert_array_equal(picture, draw_maps_picture(example_exam.exam_result()))
    assert (picture[:, -20:] == 255).all()
    for level in tuple(Level)[:5]:
        assert count_near(picture, LEVEL_COLOURS[level]) > 100  # its outline, and its name


@pytest.mark.parametrize("value_ms", [30.0, 90.0, 150.0])
def test_a_map_has_the_colours_of_its_values(value_ms):
    result = example_exam.exam_result()
    one = result.maps[Quantity.T2]
    flat = np.where(np.isfinite(one.time_ms), np.float32(value_ms), np.float32(np.nan)).astype(np.float32)
    picture = draw_maps_picture(dataclasses.replace(result, maps={Quantity.T2: dataclasses.replace(one, time_ms=flat)}))
    low, high = DISPLAY_RANGES_MS[Quantity.T2]
    colour = tuple(round(255 * part) for part in colormaps["viridis"]((value_ms - low) / (high - low))[:3])
    others = [colormaps["viridis"]((other - low) / (high - low))[:3] for other in (60.0, 120.0)]
    assert count_near(picture, colour, within=2) > 5000
    assert all(count_near(picture, tuple(round(255 * part) for part in one), within=2) < 1000 for one in others)


def test_an_exam_without_maps_shows_the_slice_twice():
    picture = draw_maps_picture(example_exam.exam_result(with_maps=False))
    panels = (picture < 200).any(axis=(0, 2))
    edges = np.flatnonzero(np.diff(panels.astype(int)) == 1)
    assert len(edges) + panels[0] == 2


@pytest.mark.parametrize("levels", [tuple(Level)[:5], (Level.L3L4,)])
def test_all_slices_with_a_disc_are_shown(levels):
    result = example_exam.exam_result(levels)
    assert result.mask is not None
    picture = draw_slices_picture(result)
    assert picture.shape[1:] == (1590, 3)
    panels = np.r_[False, (picture[picture.shape[0] // 3 :] < 255).any(axis=(0, 2)), False]
    n_panels = int((np.diff(panels.astype(int)) == 1).sum())
    assert n_panels == result.mask.levels.any(axis=(1, 2)).sum()


def test_a_result_without_a_disc_has_no_picture():
    result = example_exam.exam_result(())
    for draw in (draw_maps_picture, draw_slices_picture):
        with pytest.raises(ValueError, match="without a disc"):
            draw(result)
