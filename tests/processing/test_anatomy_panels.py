"""Panels of pictures: an outline is drawn from the part of the slice around a disc, and is that of the whole slice."""

from dataclasses import replace

import example_exam
import numpy as np
import pytest
from matplotlib.figure import Figure

from processing.anatomy_panels import outline, view_of
from processing.results import Level

PLACES = {
    "inside": (slice(10, 14), slice(8, 15)),
    "one voxel": (slice(11, 12), slice(9, 10)),
    "in the first corner": (slice(0, 3), slice(0, 2)),
    "at the last edges": (slice(-2, None), slice(-1, None)),
    "in two parts": (slice(4, 30, 20), slice(5, 9)),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_outline_of_a_disc_is_that_in_the_whole_slice(place: str) -> None:
    result = example_exam.exam_result()
    assert result.mask is not None
    levels = np.zeros_like(result.mask.levels)
    levels[1][PLACES[place]] = Level.L4L5
    result = replace(result, mask=replace(result.mask, levels=levels))
    view = view_of(levels, result.mask.affine, cropped=False)
    ours, whole = Figure().subplots(1, 2)
    outline(ours, result, 1, view, width=1.0)
    x, y = (np.arange(n) * mm for n, mm in ((levels.shape[2], view.column_mm), (levels.shape[1], view.row_mm)))
    whole.contour(x, y, (levels[1] > 0).astype(np.float32), levels=[0.5])
    found, expected = (one.collections[0].get_paths() for one in (ours, whole))
    assert [len(path) for path in found] == [len(path) for path in expected]
    for path, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(path.vertices, other.vertices)
    assert sum(map(len, found)) > 2
