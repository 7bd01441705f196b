"""The pictures of the exam report, on white paper: the discs and their maps in the middle slice, and every slice."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from processing.anatomy_panels import (
    ON_PAPER,
    View,
    draw_map,
    draw_slices,
    letter_edges,
    midline_slice,
    name_discs,
    outline,
    scale_bar,
    show_anatomy,
    view_of,
)
from processing.results import DiscMask, ExamResult, Quantity

_DPI = 150
#: Inches; printed at two thirds, so that writing of 11 points comes out at 7.
_WIDTH_IN, _SLICES_HEIGHT_IN = 10.6, 2.1
_MOST_PANEL_IN, _MOST_ALONE_IN, _TITLE_IN, _GAP_IN = 4.7, 6.2, 0.34, 0.16  # alone: without maps beside them
_SCALE_IN = 0.92  # beside a map: its colours, their values and unit
_HALF_IN = 0.04  # room below the panels


def draw_maps_picture(result: ExamResult) -> npt.NDArray[np.uint8]:
    """Named discs on the anatomy beside each map with its scale, (rows, 1590, 3) uint8 sRGB, middle slice.

    Without maps: the whole slice beside its part around the discs. All panels are as high as fits beside each other.

    Raises:
        ValueError: the result has no disc.
    """
    mask = _mask_of(result)
    midline = midline_slice(mask.levels)
    crop = view_of(mask.levels, result.background.affine, cropped=True)
    quantities = [quantity for quantity in Quantity if quantity in result.maps]
    if not quantities:
        whole = view_of(mask.levels, result.background.affine, cropped=False)
        figure, canvas, (left, right) = _side_by_side([whole, crop], scales=False)
        _draw_discs(left, result, midline, whole, 50.0)
        _draw_discs(right, result, midline, crop, 20.0, ", larger")
        return _drawn(canvas)
    figure, canvas, (first, *others) = _side_by_side([crop] * (1 + len(quantities)), scales=True)
    _draw_discs(first, result, midline, crop, 20.0)
    for axes, quantity in zip(others, quantities, strict=True):
        draw_map(figure, axes, result, quantity, midline, crop, ON_PAPER)
    return _drawn(canvas)


def _side_by_side(views: list[View], *, scales: bool) -> tuple[Figure, FigureCanvasAgg, list[Axes]]:
    """Panels of one height, from the left; beside each but the first is room for the scale of its colours."""
    shares = [_width_mm(view) / _height_mm(view) for view in views]
    taken_in = _GAP_IN * len(views) + (_SCALE_IN * (len(views) - 1) if scales else 0.0)
    panel_in = min(_MOST_PANEL_IN if scales else _MOST_ALONE_IN, (_WIDTH_IN - taken_in) / sum(shares))
    height_in = panel_in + _TITLE_IN + _HALF_IN
    figure, canvas = _figure(height_in)
    spare_in = (_WIDTH_IN - taken_in - panel_in * sum(shares)) / max(1, len(shares) - 1)
    places, left_in = [], 0.0
    for number, share in enumerate(shares):
        width_in = panel_in * share
        box = (left_in / _WIDTH_IN, _HALF_IN / height_in, width_in / _WIDTH_IN, panel_in / height_in)
        places.append(figure.add_axes(box))
        left_in += width_in + _GAP_IN + (_SCALE_IN + spare_in if scales and number else 0.0)
    return figure, canvas, places


def _width_mm(view: View) -> float:
    left, right, _, _ = view.extent
    return right - left


def _height_mm(view: View) -> float:
    _, _, bottom, top = view.extent
    return bottom - top


def _draw_discs(axes: Axes, result: ExamResult, slice_index: int, view: View, bar_mm: float, how: str = "") -> None:
    show_anatomy(axes, result, slice_index, view)
    outline(axes, result, slice_index, view, width=1.3)
    name_discs(axes, result, slice_index, view)
    letter_edges(axes, view, sides_at=0.93)  # level with no disc's name
    scale_bar(axes, view, bar_mm)
    title = f"Slice {slice_index + 1} of {len(result.background.array)}{how}"
    axes.set_title(title, color=ON_PAPER.text, fontsize=13, loc="left")


def draw_slices_picture(result: ExamResult) -> npt.NDArray[np.uint8]:
    """The outlines in all slices through the discs, or evenly chosen ones, (315, 1590, 3) uint8 sRGB.

    Raises:
        ValueError: the result has no disc.
    """
    mask = _mask_of(result)
    crop = view_of(mask.levels, result.background.affine, cropped=True)
    figure, canvas = _figure(_SLICES_HEIGHT_IN)
    cells = figure.add_gridspec(1, 1, left=0.0, right=1.0, top=0.9, bottom=0.0)
    draw_slices(figure, cells[0], result, midline_slice(mask.levels), crop, ON_PAPER)
    return _drawn(canvas)


def _mask_of(result: ExamResult) -> DiscMask:
    if result.mask is None or not result.mask.found:
        raise ValueError("a result without a disc has no picture")
    return result.mask


def _figure(height_in: float) -> tuple[Figure, FigureCanvasAgg]:
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor=ON_PAPER.ground)
    return figure, FigureCanvasAgg(figure)


def _drawn(canvas: FigureCanvasAgg) -> npt.NDArray[np.uint8]:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
