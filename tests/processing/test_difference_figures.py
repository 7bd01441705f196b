"""The picture of where a subject has changed: sizes, the planted change, neutral colours."""

import io

import matplotlib.image
import numpy as np
import pytest

from processing.common_voxels import AtlasDiscMaps, VisitMaps, differences_from
from processing.difference_figures import draw_differences, share_beyond
from processing.results import Level, Quantity

SHAPE = (4, 12, 30)
REGIONS = np.full(SHAPE, 2, np.uint8)
REGIONS[:, 3:9, 8:22] = 1
LEVELS = (Level.L5S1, Level.L4L5)


def visit(name, day, *, nucleus_ms=100.0, levels=LEVELS, atlas="a"):
    rng = np.random.default_rng(day)
    discs = {}
    for level in levels:
        truth = np.where(REGIONS == 1, nucleus_ms if level is Level.L4L5 else 100.0, 60.0)
        times = (truth + rng.normal(0, 3, SHAPE)).astype(np.float32)
        errors = np.full(SHAPE, 3, np.float32)
        discs[level] = AtlasDiscMaps(level, REGIONS, (4.0, 0.8, 0.8), {Quantity.T2: times}, {Quantity.T2: errors})
    return VisitMaps(name, day, discs, atlas)


@pytest.fixture(scope="module")
def maps():
    visits = [
        visit("BL", 0),
        visit("M3", 91),
        visit("M6", 182, levels=(Level.L5S1,)),
        visit("M9", 273, atlas="b"),
        visit("M12", 365, nucleus_ms=130.0),
    ]
    return differences_from(visits[0], visits, Quantity.T2)


def test_there_is_a_map_of_each_disc_that_both_visits_have_in_one_atlas(maps):
    assert set(maps) == {
        ("M3", Level.L5S1),
        ("M3", Level.L4L5),
        ("M6", Level.L5S1),
        ("M12", Level.L5S1),
        ("M12", Level.L4L5),
    }


def test_without_change_5_percent_of_voxels_are_beyond_noise_and_a_change_is_where_it_is(maps):
    for key, one in maps.items():
        if key != ("M12", Level.L4L5):
            assert share_beyond(one) == pytest.approx(0.05, abs=0.02)
    treated = maps["M12", Level.L4L5]
    assert share_beyond(treated) == pytest.approx((REGIONS == 1).mean(), abs=0.06)
    assert treated.difference_ms[REGIONS == 1].mean() == pytest.approx(30, abs=0.5)


def test_the_picture_has_the_size_it_says_and_shows_more_as_orange(maps):
    png, width, height = draw_differences(Quantity.T2, ["M3", "M6", "M9", "M12"], maps, dict.fromkeys(LEVELS, REGIONS))
    pixels = matplotlib.image.imread(io.BytesIO(png))
    assert pixels.shape[:2] == (height, width)
    assert draw_differences(Quantity.T2, ["M3", "M6", "M9", "M12"], maps, dict.fromkeys(LEVELS, REGIONS))[0] == png
    red, green, blue = (pixels[..., index] for index in range(3))
    orange = (red - blue > 0.35) & (green < red)
    # without the colour bar at the right
    shown = orange[:, : int(0.8 * width)]
    assert np.argwhere(shown)[:, 1].mean() > 0.6 * width  # M12 is the last of four
    green_only = (green - red > 0.15) & (green - blue > 0.15)
    assert not green_only.any()


def test_without_a_map_there_is_no_picture():
    with pytest.raises(ValueError, match="no difference"):
        draw_differences(Quantity.T2, ["M3"], {}, {})
