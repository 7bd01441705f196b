"""Figures: what is drawn where, and that the spine is where the discs are."""

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection

from processing.atlas import load_atlas
from processing.cohort.analysis import by_group, by_variable, group_design
from processing.cohort.design import make_design
from processing.cohort.figures import draw_groups, draw_maps
from processing.cohort.inference import Control, InferenceRules
from processing.cohort.level_maps import LevelMaps
from processing.cohort.spine import spine_view
from processing.results import LUMBAR_LEVELS, Level

RULES = InferenceRules(n_permutations=0, random_fields=False)


def analyses(kind):
    rng, out = np.random.default_rng(1), {}
    x = rng.standard_normal(10)
    for level, disc in load_atlas(2).items():
        values = 80 + rng.standard_normal((10, int((disc.regions > 0).sum())))
        values += 5 * x[:, None] * (level is Level.L4L5)
        maps = LevelMaps(level, "T1rho", disc.regions, (4.0, 0.78, 0.78), values, tuple(f"S{i}" for i in range(10)))
        if kind == "variable":
            out[level] = by_variable(maps, make_design(x, units=maps.units), RULES)
        else:
            out[level] = by_group(maps, group_design(x > 0, maps.units, "arm"), RULES)
    return out


def test_each_level_is_drawn_between_its_vertebrae():
    view = spine_view()
    middles = [view.on_disc(level, np.zeros(2)) for level in LUMBAR_LEVELS]
    heights = [one[1] for one in middles]
    assert heights == sorted(heights)
    left, right, bottom, top = view.extent_mm
    rows, columns = view.grey.shape
    for middle, above in zip(middles, heights[1:], strict=False):
        between = (middle[1] + above) / 2  # in a vertebra
        row = round((top - between) / (top - bottom) * (rows - 1))
        column = round((middle[0] - left) / (right - left) * (columns - 1))
        assert view.grey[row, column] == 0.9  # the cut face of bone


def test_survivors_are_outlined_and_nothing_else():
    found = analyses("variable")
    figure = draw_maps(found, Control.BONFERRONI, n_slices=1)
    effect = figure.axes[0]
    voxels = [one for one in effect.collections if isinstance(one, PolyCollection)]
    assert sum(len(one.get_paths()) for one in voxels) == sum(len(one.effect) for one in found.values())
    outlines = [one for one in effect.collections if isinstance(one, LineCollection) and one.get_linewidths()[0] == 1.0]
    assert len(outlines) == sum(one.inference.survives(Control.BONFERRONI).any() for one in found.values())
    assert found[Level.L4L5].inference.survives(Control.BONFERRONI).any()
    assert "n = 10" in figure.get_suptitle()


def test_uncorrected_maps_say_so():
    figure = draw_maps(analyses("variable"), Control.UNCORRECTED, n_slices=1)
    assert "NOT corrected" in figure.get_suptitle()


def test_group_means_stand_side_by_side():
    figure = draw_groups(analyses("group"), ("low", "high"))
    assert [axes.get_title().split(" ")[0] for axes in figure.axes[:2]] == ["low", "high"]

    assert any(text.get_text() == "Research use only" for text in figure.texts)
