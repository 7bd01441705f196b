"""One subject's discs at all visits, side by side: levels from above, visits from the left, one scale, one window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from processing.display import DISPLAY_RANGES_MS, LEVEL_NAMES, QUANTITY_NAMES
from processing.results import LUMBAR_LEVELS, Level, Quantity
from processing.visit_images import VisitImages
from processing.volume import spacing_mm

_DPI = 150
_WIDTH_IN = 10.6  # printed at two thirds
_HEAD_IN, _FOOT_IN, _GAP_IN, _SCALE_IN = 0.5, 0.04, 0.06, 0.78
_MOST_PANEL_IN = 2.45
_HEAD_NEEDS_IN = 1.75  # for a date and a day in letters of usual size
_MARGIN_MM = 4.5
_INK, _FAINT, _ABSENT, _LINE = "#1b2530", "#5a6670", "#f1f3f5", "#c9d1d8"
_ON_IMAGE = "#f2f4f5"
_HALO = [withStroke(linewidth=2.2, foreground="#101418")]
_COLOUR_MAP = "viridis"
_FROM_ABOVE = tuple(reversed(LUMBAR_LEVELS))


@dataclass(frozen=True, slots=True, eq=False)
class StripVisit:
    """One column: what stands above it, and what it shows.

    ``images`` None: ``absent`` says why, in a word or two. ``without_value``: levels that are shown without colours,
    and why.
    """

    name: str
    line: str
    images: VisitImages | None
    absent: str = ""
    without_value: tuple[tuple[Level, str], ...] = ()


def draw_strip(visits: Sequence[StripVisit], quantity: Quantity | None) -> npt.NDArray[np.uint8]:
    """The picture, (rows, 1590, 3) uint8 sRGB; with the map of a quantity in colour, or the segmented images alone.

    Each panel is the slice through the middle of the disc. Grey runs from the 1st to the 99.7th percentile of each
    visit's own image, because a scanner's signal has no unit; colours mean the same ms in all panels.

    Raises:
        ValueError: no visit has images.
    """
    shown = [one.images for one in visits if one.images is not None]
    if not shown:
        raise ValueError("no visit has images")
    heights_mm, width_mm = _sizes_mm(shown)
    scale_in = _SCALE_IN if quantity is not None else 0.0
    wide_in = (_WIDTH_IN - scale_in - _GAP_IN * (len(visits) - 1)) / len(visits)
    panel_in = min(wide_in, _MOST_PANEL_IN)
    per_mm = panel_in / width_mm
    height_in = _HEAD_IN + _FOOT_IN + sum(heights_mm) * per_mm + _GAP_IN * (len(heights_mm) - 1)
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor="#ffffff")
    canvas = FigureCanvasAgg(figure)
    for column, visit in enumerate(visits):
        left_in, top_in = column * (panel_in + _GAP_IN), height_in - _HEAD_IN
        _head(figure, visit, left_in / _WIDTH_IN, height_in, min(1.0, panel_in / _HEAD_NEEDS_IN))
        for level, tall_mm in zip(_FROM_ABOVE, heights_mm, strict=True):
            tall_in = tall_mm * per_mm
            box = (left_in / _WIDTH_IN, (top_in - tall_in) / height_in, panel_in / _WIDTH_IN, tall_in / height_in)
            axes = figure.add_axes(box)
            is_first = visit is visits[0] and level is _FROM_ABOVE[0]
            _panel(axes, visit, level, quantity, (width_mm, tall_mm), with_bar=is_first)
            top_in -= tall_in + _GAP_IN
    if quantity is not None:
        right_in = len(visits) * (panel_in + _GAP_IN)
        _colour_scale(figure, quantity, right_in, height_in)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _sizes_mm(shown: Sequence[VisitImages]) -> tuple[list[float], float]:
    """Height of each level's row, from above, and the width of all panels: the largest disc of any visit fits."""
    heights, width = [], 0.0
    for level in _FROM_ABOVE:
        tall = 12.0
        for images in shown:
            found = _middle(images.levels, level)
            if found is None:
                continue
            _, row_mm, column_mm = spacing_mm(images.background.affine)
            i, j = np.nonzero((images.levels == level).any(axis=0))
            tall = max(tall, float(np.ptp(i)) * row_mm)
            width = max(width, float(np.ptp(j)) * column_mm)
        heights.append(tall + 2 * _MARGIN_MM)
    return heights, max(width, 30.0) + 3.2 * _MARGIN_MM


def _middle(levels: npt.NDArray[np.uint8], level: Level) -> tuple[int, float, float] | None:
    """The slice through a disc's middle, and the row and column of its centre; None where it was not found."""
    k, i, j = np.nonzero(levels == level)
    if not len(k):
        return None
    return int(np.median(k)), (i.min() + i.max()) / 2, (j.min() + j.max()) / 2


def _head(figure: Figure, visit: StripVisit, left: float, height_in: float, scale: float) -> None:
    """Above a column; in smaller letters where it is narrow, so that it does not run into the next one."""
    strong: dict[str, Any] = {"fontsize": 12 * scale, "fontweight": "bold", "color": _INK}
    figure.text(left, 1 - 0.2 / height_in, visit.name, **strong)
    figure.text(left, 1 - 0.4 / height_in, visit.line, fontsize=9.5 * scale, color=_FAINT)


def _panel(
    axes: Axes,
    visit: StripVisit,
    level: Level,
    quantity: Quantity | None,
    size_mm: tuple[float, float],
    *,
    with_bar: bool,
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    images = visit.images
    found = None if images is None else _middle(images.levels, level)
    why = dict(visit.without_value).get(level, "")
    if images is None or found is None:
        _gap(axes, level, visit.absent if images is None else (why or "disc not found"))
        return
    _anatomy(axes, images, level, found, size_mm)
    if quantity is not None and quantity in images.maps and not why:
        _map(axes, images, level, found[0], quantity)
    _outline(axes, images, level, found[0])
    _write(axes, level, why, f"slice {found[0] + 1} of {len(images.levels)}")
    if with_bar:
        _bar(axes, size_mm)


def _gap(axes: Axes, level: Level, why: str) -> None:
    """Where there is nothing to be seen, so that nobody takes a gap for a picture that was left out."""
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, facecolor=_ABSENT, edgecolor=_LINE, hatch="////", linewidth=0)
    )
    axes.text(0.03, 0.93, LEVEL_NAMES[level], transform=axes.transAxes, va="top", fontsize=10, color=_FAINT)
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, why, fontsize=10, color=_INK, bbox={"facecolor": _ABSENT, "edgecolor": "none"}, **place)


def _anatomy(
    axes: Axes, images: VisitImages, level: Level, found: tuple[int, float, float], size_mm: tuple[float, float]
) -> None:
    slice_index, row, column = found
    _, row_mm, column_mm = spacing_mm(images.background.affine)
    low, high = np.percentile(images.background.array, (1.0, 99.7))
    grey = Normalize(float(low), float(max(high, low + 1e-6)))
    axes.imshow(
        images.background.array[slice_index],
        cmap="gray",
        norm=grey,
        extent=_extent(images),
        interpolation="bilinear",
        aspect="auto",
    )
    wide, tall = size_mm
    axes.set_facecolor("#000000")
    axes.set_xlim(column * column_mm - wide / 2, column * column_mm + wide / 2)
    axes.set_ylim(row * row_mm + tall / 2, row * row_mm - tall / 2)
    axes.set_autoscale_on(False)


def _extent(images: VisitImages) -> tuple[float, float, float, float]:
    """Edges of a slice in mm: left, right, bottom, top; index 0 has its centre at 0 mm."""
    _, row_mm, column_mm = spacing_mm(images.background.affine)
    n_rows, n_columns = images.levels.shape[1:]
    return -0.5 * column_mm, (n_columns - 0.5) * column_mm, (n_rows - 0.5) * row_mm, -0.5 * row_mm


def _map(axes: Axes, images: VisitImages, level: Level, slice_index: int, quantity: Quantity) -> None:
    inside = images.levels[slice_index] == level
    values = np.ma.masked_invalid(np.where(inside, images.maps[quantity][slice_index], np.nan))
    colours = Normalize(*DISPLAY_RANGES_MS[quantity])
    axes.imshow(values, cmap=_COLOUR_MAP, norm=colours, extent=_extent(images), interpolation="nearest", aspect="auto")


def _outline(axes: Axes, images: VisitImages, level: Level, slice_index: int) -> None:
    _, row_mm, column_mm = spacing_mm(images.background.affine)
    inside = (images.levels[slice_index] == level).astype(np.float32)
    x, y = np.arange(inside.shape[1]) * column_mm, np.arange(inside.shape[0]) * row_mm
    axes.contour(x, y, inside, levels=[0.5], colors=[_ON_IMAGE], linewidths=0.9)


def _write(axes: Axes, level: Level, why: str, where: str) -> None:
    """The level's name, and what else must not be taken from the picture when it is copied out of the report."""
    burnt: dict[str, Any] = {"transform": axes.transAxes, "color": _ON_IMAGE, "path_effects": _HALO}
    axes.text(0.03, 0.94, LEVEL_NAMES[level], va="top", fontsize=10, fontweight="bold", **burnt)
    axes.text(0.97, 0.06, where, ha="right", va="bottom", fontsize=7, **burnt)
    if why:
        axes.text(0.97, 0.94, why, ha="right", va="top", fontsize=9, **burnt)


def _bar(axes: Axes, size_mm: tuple[float, float]) -> None:
    left, right = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    x, y = left + 0.04 * (right - left), bottom - 0.09 * size_mm[1]
    axes.plot([x, x + 10.0], [y, y], color=_ON_IMAGE, linewidth=2.5, solid_capstyle="butt", path_effects=_HALO)
    axes.text(x + 11.0, y, "10 mm", color=_ON_IMAGE, fontsize=7, va="center", path_effects=_HALO)


def _colour_scale(figure: Figure, quantity: Quantity, left_in: float, height_in: float) -> None:
    box = ((left_in + 0.06) / _WIDTH_IN, 0.12, 0.13 / _WIDTH_IN, 0.72)
    bar = figure.colorbar(
        ScalarMappable(Normalize(*DISPLAY_RANGES_MS[quantity]), _COLOUR_MAP),
        cax=figure.add_axes(box),
        extend="both",
        extendfrac=0.03,
    )
    bar.set_label(f"{QUANTITY_NAMES[quantity]} (ms)", color=_INK, fontsize=10)
    bar.ax.tick_params(colors=_INK, labelsize=9)
    bar.outline.set_visible(False)
