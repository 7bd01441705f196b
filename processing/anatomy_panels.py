"""Panels that pictures are made of: anatomy with the discs outlined and named, maps in colour with their scale."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patheffects import withStroke

from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS, LEVEL_NAMES, QUANTITY_NAMES
from processing.results import Affine, ExamResult, ImageVolume, LabelArray, Level, Quantity
from processing.volume import spacing_mm

_ON_ANATOMY, _SHADE = "#f2f4f5", "#101418"
_COLOUR_MAP = "viridis"  # even steps of lightness, and readable with every common colour blindness
_CROP_MARGIN_MM = 14.0
_MAX_SLICES_SHOWN = 12
_HALO = [withStroke(linewidth=2.5, foreground=_SHADE)]  # keeps writing readable on bright anatomy
_LETTERS: dict[str, Any] = {"color": _ON_ANATOMY, "fontsize": 10, "ha": "center", "path_effects": _HALO}


@dataclass(frozen=True, slots=True)
class Ink:
    """What a picture is drawn on, and what is written around its panels."""

    ground: str
    text: str
    faint: str


ON_SCREEN = Ink(ground=_SHADE, text=_ON_ANATOMY, faint="#9aa5ad")
ON_PAPER = Ink(ground="#ffffff", text="#1b2530", faint="#5a6670")


@dataclass(frozen=True, slots=True)
class View:
    """A part of the grid to draw: index ranges, the slice's voxel size in mm, and which way rows and columns run."""

    rows: slice
    columns: slice
    row_mm: float
    column_mm: float
    row_ends: tuple[str, str]  # letters at the first and last row, e.g. H, F
    column_ends: tuple[str, str]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges in mm for imshow: left, right, bottom, top; index 0 of the grid has its centre at 0 mm."""
        left, right = (self.columns.start - 0.5) * self.column_mm, (self.columns.stop - 0.5) * self.column_mm
        top, bottom = (self.rows.start - 0.5) * self.row_mm, (self.rows.stop - 0.5) * self.row_mm
        return left, right, bottom, top


def midline_slice(levels: LabelArray) -> int:
    """The slice in the middle of the discs: the median of their voxels along the slice axis. ``levels`` has a disc."""
    return int(np.median(np.nonzero(levels)[0]))


def view_of(levels: LabelArray, affine: Affine, *, cropped: bool) -> View:
    """The whole slice, or the part of it around the discs. ``levels`` (slices, rows, columns) has a disc."""
    _, row_mm, column_mm = spacing_mm(affine)
    n_rows, n_columns = levels.shape[1:]
    rows, columns = slice(0, n_rows), slice(0, n_columns)
    if cropped:
        _, i, j = np.nonzero(levels)
        margin_i, margin_j = int(np.ceil(_CROP_MARGIN_MM / row_mm)), int(np.ceil(1.8 * _CROP_MARGIN_MM / column_mm))
        rows = slice(max(int(i.min()) - margin_i, 0), min(int(i.max()) + margin_i + 1, n_rows))
        columns = slice(max(int(j.min()) - margin_j, 0), min(int(j.max()) + margin_j + 1, n_columns))
    return View(rows, columns, row_mm, column_mm, _letters(affine[:3, 1]), _letters(affine[:3, 2]))


def _letters(direction: npt.NDArray[np.float64]) -> tuple[str, str]:
    """Patient letters at the start and the end of an axis that runs along an LPS direction."""
    axis = int(np.argmax(np.abs(direction)))
    ends = ("RL", "AP", "FH")[axis]
    return (ends[0], ends[1]) if direction[axis] > 0 else (ends[1], ends[0])


@lru_cache(maxsize=1)  # each panel of a picture asks for it
def _grey_range(background: ImageVolume) -> tuple[float, float]:
    """The 1st to 99.7th percentile of the anatomy."""
    low, high = np.percentile(background.array, (1.0, 99.7))
    return float(low), float(max(high, low + 1e-6))


def show_anatomy(axes: Axes, result: ExamResult, slice_index: int, view: View) -> None:
    """One slice in grey, without ticks."""
    image = result.background.array[slice_index, view.rows, view.columns]
    grey = Normalize(*_grey_range(result.background))
    axes.imshow(image, cmap="gray", norm=grey, extent=view.extent, interpolation="bilinear", aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def outline(axes: Axes, result: ExamResult, slice_index: int, view: View, *, width: float) -> None:
    """Contours of the discs that this slice cuts, each in its level's colour."""
    assert result.mask is not None
    levels = result.mask.levels[slice_index]
    x = np.arange(levels.shape[1]) * view.column_mm
    y = np.arange(levels.shape[0]) * view.row_mm
    for level in result.mask.found:
        inside = levels == level
        if inside.any():
            rows, columns = (_around(inside.any(axis=axis)) for axis in (1, 0))  # the rest of the slice costs time only
            part = inside[rows, columns].astype(np.float32)
            axes.contour(x[columns], y[rows], part, levels=[0.5], colors=[level_colour(level)], linewidths=width)
    left, right, bottom, top = view.extent
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _around(is_inside: npt.NDArray[np.bool_]) -> slice:
    """From one before the first true value to one behind the last, as far as there are so many."""
    inside = np.flatnonzero(is_inside)
    first = max(min(int(inside[0]) - 1, len(is_inside) - 2), 0)
    return slice(first, max(int(inside[-1]) + 2, first + 2))


def name_discs(axes: Axes, result: ExamResult, slice_index: int, view: View) -> None:
    """Level names in front of the discs, away from the spinal canal."""
    assert result.mask is not None
    levels = result.mask.levels[slice_index]
    anterior_first = view.column_ends[0] == "A"
    for level in result.mask.found:
        i, j = np.nonzero(levels == level)
        if len(i):
            x = (j.min() if anterior_first else j.max()) * view.column_mm
            axes.annotate(
                LEVEL_NAMES[level],
                (x, i[j == (j.min() if anterior_first else j.max())].mean() * view.row_mm),
                xytext=(-7 if anterior_first else 7, 0),
                textcoords="offset points",
                ha="right" if anterior_first else "left",
                va="center",
                color=level_colour(level),
                fontsize=11,
                fontweight="bold",
                path_effects=_HALO,
            )


def letter_edges(axes: Axes, view: View, *, sides_at: float = 0.5) -> None:
    """The letters of the patient's sides at the edges; those at left and right so far up (0..1)."""
    places = ((0.025, sides_at), (0.975, sides_at), (0.5, 0.975), (0.5, 0.025))
    for (x, y), letter in zip(places, (*view.column_ends, *view.row_ends), strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, va="center", **_LETTERS)


def scale_bar(axes: Axes, view: View, length_mm: float) -> None:
    """A bar with its length, at the lower right."""
    left, right, bottom, top = view.extent
    x, y = right - 0.06 * (right - left) - length_mm, bottom - 0.05 * (bottom - top)
    axes.plot([x, x + length_mm], [y, y], color=_ON_ANATOMY, linewidth=3, solid_capstyle="butt", path_effects=_HALO)
    axes.text(x + length_mm / 2, y - 0.014 * (bottom - top), f"{length_mm:g} mm", va="bottom", **_LETTERS)


def draw_map(
    figure: Figure, axes: Axes, result: ExamResult, quantity: Quantity, midline: int, view: View, ink: Ink
) -> None:
    """The fitted voxels of one slice in colour on the anatomy, with the discs' outlines and the colours' scale."""
    show_anatomy(axes, result, midline, view)
    values = np.ma.masked_invalid(result.maps[quantity].time_ms[midline, view.rows, view.columns])
    colours = Normalize(*DISPLAY_RANGES_MS[quantity])
    axes.imshow(values, cmap=_COLOUR_MAP, norm=colours, extent=view.extent, interpolation="nearest", aspect="equal")
    outline(axes, result, midline, view, width=0.8)
    letter_edges(axes, view)
    scale_bar(axes, view, 20.0)
    axes.set_title(f"{QUANTITY_NAMES[quantity]} map", color=ink.text, fontsize=13, loc="left")
    beside = axes.inset_axes((1.03, 0.0, 0.04, 1.0))
    bar = figure.colorbar(ScalarMappable(colours, _COLOUR_MAP), cax=beside, extend="both", extendfrac=0.03)
    bar.set_label(f"{QUANTITY_NAMES[quantity]} (ms)", color=ink.text, fontsize=12)
    bar.ax.tick_params(colors=ink.text, labelsize=11)
    bar.outline.set_visible(False)


def draw_slices(figure: Figure, place: SubplotSpec, result: ExamResult, midline: int, view: View, ink: Ink) -> None:
    """All slices through the discs, or as many as fit, evenly chosen, so that a slip in a side slice is seen."""
    assert result.mask is not None
    cut = np.flatnonzero(result.mask.levels.any(axis=(1, 2)))
    shown = cut
    if len(cut) > _MAX_SLICES_SHOWN:
        shown = cut[np.linspace(0, len(cut) - 1, _MAX_SLICES_SHOWN).round().astype(int)]
    cells = place.subgridspec(1, max(len(shown), 5), wspace=0.03)
    for index, slice_index in enumerate(shown.tolist()):
        axes = figure.add_subplot(cells[index])
        show_anatomy(axes, result, slice_index, view)
        outline(axes, result, slice_index, view, width=0.9)
        colour, weight = (ink.text, "bold") if slice_index == midline else (ink.faint, "normal")
        axes.set_title(f"slice {slice_index + 1}", fontsize=10, color=colour, fontweight=weight)


def level_colour(level: Level) -> tuple[float, float, float]:
    """The level's colour, sRGB 0..1."""
    red, green, blue = LEVEL_COLOURS[level]
    return red / 255, green / 255, blue / 255
