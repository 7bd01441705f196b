"""Figures of registration: what they show of a disc that is carried onto itself."""

import numpy as np

from processing.atlas import load_atlas
from processing.registration_figures import BeforeAfter, Carried, PatientDisc, before_after_figure, carried_figure
from processing.results import Alignment, Level, Quantity


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in (axes.title, *axes.texts)]


def test_a_disc_that_lies_in_the_atlas_already_is_shown_under_its_numbers_and_a_failure_under_its_reason():
    atlas = load_atlas(2)[Level.L4L5]
    one = Alignment(
        Level.L4L5, (0, 0, 0), (), np.ones(atlas.mask.shape, np.float32), 0.987, 0.9, 0.12, 0.7, 3, "fast", 1, 2.0
    )
    disc = PatientDisc("A01, L4/L5", atlas.mask, atlas.mask.astype(np.float32) + 1, atlas.affine)
    ways = {"by masks": Carried(atlas, one), "by grey values": Carried(atlas, None, "the images do not overlap")}
    for jacobian in (False, True):
        figure = carried_figure([(disc, ways)], "S2", jacobian=jacobian)
        said = texts(figure)
        assert "by masks\nDice 0.987, SD det J 0.12, 3 folded" in said
        assert any("failed: the images do not overlap" in text for text in said)
    carried = figure.axes[1]
    edges = [np.concatenate(one.get_paths()[0].to_polygons(closed_only=False)) for one in carried.collections[-2:]]
    np.testing.assert_allclose(*edges)  # the atlas' edge and the patient's are the same line


def test_all_panels_before_and_after_have_one_scale_in_mm_and_one_in_ms():
    disc = load_atlas(3)[Level.L3L4]
    values = np.where(disc.mask > 0, 80 + np.indices(disc.mask.shape)[2], np.nan).astype(np.float32)
    discs = [
        BeforeAfter(level, Quantity.T1RHO, values, (4.0, 0.5, 0.5), values + 10, (4.0, 0.78, 0.78))
        for level in (Level.L5S1, Level.L4L5)
    ]
    figure = before_after_figure(discs, "Fig 4")
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 4
    assert len({round(np.ptp(axes.get_xlim()), 6) for axes in maps}) == 1
    assert len({axes.images[0].norm.vmax for axes in maps}) == 1
    assert f"{np.nanmean(values):.1f} → {np.nanmean(values) + 10:.1f} ms" in texts(figure)
