"""The pictures of the exam report, on white paper: the discs and their maps in the middle slice, and every slice."""

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from processing.anatomy_panels import (
    ON_PAPER,
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
_WIDTH_IN, _MAPS_HEIGHT_IN, _SLICES_HEIGHT_IN = 10.6, 4.9, 2.1


def draw_maps_picture(result: ExamResult) -> npt.NDArray[np.uint8]:
    """Named discs on the anatomy beside each map with its scale, (735, 1590, 3) uint8 sRGB, middle slice.

    Without maps: the whole slice beside its part around the discs.

    Raises:
        ValueError: the result has no disc.
    """
    mask = _mask_of(result)
    midline = midline_slice(mask.levels)
    crop = view_of(mask.levels, result.background.affine, cropped=True)
    whole = view_of(mask.levels, result.background.affine, cropped=False)
    quantities = [quantity for quantity in Quantity if quantity in result.maps]
    figure, canvas = _figure(_MAPS_HEIGHT_IN)
    n_panels = 1 + max(len(quantities), 1)
    cells = figure.add_gridspec(1, n_panels, left=0.01, right=0.93, top=0.93, bottom=0.01, wspace=0.2)
    anatomy = figure.add_subplot(cells[0])
    view = crop if quantities else whole
    show_anatomy(anatomy, result, midline, view)
    outline(anatomy, result, midline, view, width=1.3)
    name_discs(anatomy, result, midline, view)
    letter_edges(anatomy, view)
    scale_bar(anatomy, view, 20.0 if quantities else 50.0)
    title = f"Slice {midline + 1} of {len(mask.levels)}"
    anatomy.set_title(title, color=ON_PAPER.text, fontsize=13, loc="left")
    for place, quantity in enumerate(quantities, start=1):
        draw_map(figure, figure.add_subplot(cells[place]), result, quantity, midline, crop, ON_PAPER)
    if not quantities:
        larger = figure.add_subplot(cells[1])
        show_anatomy(larger, result, midline, crop)
        outline(larger, result, midline, crop, width=1.3)
        letter_edges(larger, crop)
        scale_bar(larger, crop, 20.0)
        larger.set_title("Discs, larger", color=ON_PAPER.text, fontsize=13, loc="left")
    return _drawn(canvas)


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
