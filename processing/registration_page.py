"""One page about the registration of an exam, as the paper's Fig 4: per disc the maps before and after, how the values
are distributed before and after, det J, the deformed mask on the atlas and the deformed image against the atlas' edge.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec, SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS, LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.measurements import measured_levels
from processing.preservation import bandwidth_ms, common_axis, density, native_regions, overlap, values_in
from processing.registration_cells import (
    ANNULUS_COLOUR,
    BAR_MM,
    FAINT,
    FOLDED_COLOUR,
    JACOBIAN,
    JACOBIAN_COLOURS,
    MAP_COLOURS,
    MIDLINE_COLOUR,
    NUCLEUS_COLOUR,
    QUANTITY_NAMES,
    TEXT,
    deformed_slice,
    draw_chequers,
    draw_jacobian,
    draw_native,
    draw_overlay,
    draw_registered,
    native_grid,
)
from processing.results import DiscMask, ExamResult, Level, Quantity, RegisteredDisc

_WIDTH_PX, _HEIGHT_PX, _DPI = 2000, 1500, 100
_BACKGROUND = "#101418"
_PARTS = (("nucleus", NUCLEUS_COLOUR, (1,)), ("annulus", ANNULUS_COLOUR, (2, 3)))
_Bool = npt.NDArray[np.bool_]
_Float = npt.NDArray[np.float64]


def draw_registration_page(result: ExamResult) -> npt.NDArray[np.uint8]:
    """The page of one exam, (1500, 2000, 3) uint8 sRGB. It shows nothing that tells who the patient is.

    Middle slices are shown: of the disc in the native maps, of the atlas after registration.

    Raises:
        ValueError: the result has no disc or no map.
    """
    mask = result.mask
    if mask is None or not measured_levels(mask) or not result.maps:
        raise ValueError("a result without discs or maps has no registration page")
    figure = Figure(figsize=(_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    levels = tuple(reversed(measured_levels(mask)))  # from above, as the picture of a spine
    rows = figure.add_gridspec(max(len(levels), 5), 1, left=0.01, right=0.985, top=0.905, bottom=0.085, hspace=0.17)
    registered = {disc.alignment.level: disc for disc in result.registered}
    _draw_heading(figure, result)
    for place, level in enumerate(levels):
        _draw_disc(figure, rows[place], result, mask, level, registered.get(level))
    _draw_footer(figure, result)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_disc(
    figure: Figure, place: SubplotSpec, result: ExamResult, mask: DiscMask, level: Level, disc: RegisteredDisc | None
) -> None:
    """One disc: two rows of cells, T1rho above T2."""
    quantities = [quantity for quantity in Quantity if quantity in result.maps]
    cells = place.subgridspec(2, 6, width_ratios=(0.5, 1.2, 1.2, 1.3, 1.2, 1.2), wspace=0.07, hspace=0.22)
    _draw_name(figure.add_subplot(cells[:, 0]), result, level, disc)
    native = native_grid(mask, level)
    for row, quantity in enumerate(quantities):
        of = slice(None) if len(quantities) == 1 else row
        draw_native(figure.add_subplot(cells[of, 1]), result, mask, level, quantity, native)
        if disc is not None and quantity in disc.maps:
            draw_registered(figure.add_subplot(cells[of, 2]), disc, quantity)
    if disc is None:
        _draw_missing(figure.add_subplot(cells[:, 2:]), result, level)
        return
    _draw_distributions(figure, cells, result, mask, disc, quantities)
    deformed_mask, deformed_echo = deformed_slice(disc, result, mask)
    draw_jacobian(figure.add_subplot(cells[0, 4]), disc)
    draw_overlay(figure.add_subplot(cells[1, 4]), disc, deformed_mask)
    draw_chequers(figure.add_subplot(cells[0, 5]), disc, deformed_echo)


def _draw_heading(figure: Figure, result: ExamResult) -> None:
    figure.text(0.012, 0.967, "discnode", color=TEXT, fontsize=20, fontweight="bold", va="center")
    about = f"{result.versions.get('discnode', '')}   {result.versions.get('protocol', '')}"
    figure.text(0.085, 0.966, f"Registration   {about}", color=FAINT, fontsize=12, va="center")
    atlas = f"atlas: {result.versions.get('atlas', 'not named')}"
    figure.text(0.5, 0.967, atlas, color=TEXT, fontsize=14, va="center", ha="center")
    loud: dict[str, Any] = {"fontsize": 16, "fontweight": "bold", "va": "center"}
    figure.text(0.985, 0.967, RESEARCH_USE_ONLY.upper(), color="#ff8f6b", ha="right", **loud)
    headings = ("native map", "map in atlas space", "distribution of values", "det J · mask", "first image · means")
    for x, text in zip((0.175, 0.352, 0.538, 0.727, 0.9), headings, strict=True):
        figure.text(x, 0.934, text, color=FAINT, fontsize=13, ha="center", va="center")


def _draw_name(axes: Axes, result: ExamResult, level: Level, disc: RegisteredDisc | None) -> None:
    axes.set_axis_off()
    axes.text(0.1, 0.82, LEVEL_NAMES[level], color=_colour(level), fontsize=18, fontweight="bold", va="center")
    if disc is None:
        return
    one = disc.alignment
    lines = [f"Dice {one.dice:.3f}", f"(centroid {one.dice_after_centroid:.2f})", f"SD det J {one.sd_jacobian:.3f}"]
    lines += [f"min det J {one.min_jacobian:.2f}", f"folded {one.n_folded}"]
    axes.text(0.1, 0.6, "\n".join(lines), color=TEXT, fontsize=10.5, va="top", linespacing=1.3)


def _draw_missing(axes: Axes, result: ExamResult, level: Level) -> None:
    """Why a disc was not registered, in the words of the result."""
    axes.set_axis_off()
    names = (level.name, LEVEL_NAMES[level])
    said = [f"{one.code.value}: {one.detail}" for one in result.reasons if any(name in one.detail for name in names)]
    text = "Not registered. " + (" ".join(said) or "The result gives no reason.")
    wrapped = "\n".join(textwrap.wrap(text, 100)[:6])
    axes.text(0.04, 0.6, wrapped, color="#ffc857", fontsize=13, va="center", linespacing=1.4)


def _draw_distributions(
    figure: Figure,
    cells: GridSpecFromSubplotSpec,
    result: ExamResult,
    mask: DiscMask,
    disc: RegisteredDisc,
    quantities: list[Quantity],
) -> None:
    """Histograms of the whole disc and densities of its parts, before and after; means beside them."""
    native = native_regions(disc, mask)
    lines = []
    for row, quantity in enumerate(quantities):
        if quantity not in disc.maps:
            continue
        of = slice(None) if len(quantities) == 1 else row
        values = {
            name: (
                values_in(result.maps[quantity], np.isin(native, labels)),
                values_in(disc.maps[quantity], np.isin(disc.atlas.regions, labels)),
            )
            for name, _, labels in _PARTS
        }
        _draw_histogram(figure.add_subplot(cells[of, 3]), values, quantity)
        lines += [_change(name, quantity, *pair) for name, pair in values.items()]
    axes = figure.add_subplot(cells[1, 5])
    axes.set_axis_off()
    text = "means before → after (ms), overlap\n" + "\n".join(lines)
    axes.text(0.0, 1.05, text, color=TEXT, fontsize=9.5, va="top", linespacing=1.35, transform=axes.transAxes)


def _change(name: str, quantity: Quantity, before: _Float, after: _Float) -> str:
    if not (len(before) and len(after)):
        return f"{QUANTITY_NAMES[quantity]} {name}: no values"
    old, new = before.mean(), after.mean()
    share = f"{QUANTITY_NAMES[quantity]} {name} {old:.1f} → {new:.1f} ({100 * (new / old - 1):+.1f} %)"
    return f"{share}, {overlap(before, after):.2f}"


def _draw_histogram(axes: Axes, values: Mapping[str, tuple[_Float, _Float]], quantity: Quantity) -> None:
    """Whole disc as histograms (before filled, after as a line); parts as densities, each as large as its share."""
    before, after = (np.concatenate([pair[side] for pair in values.values()]) for side in (0, 1))
    axes.set_facecolor(_BACKGROUND)
    axes.set_yticks([])
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(FAINT)
    axes.tick_params(colors=FAINT, labelsize=8, pad=1, length=2)
    high = DISPLAY_RANGES_MS[quantity][1]
    high = max(high, float(np.percentile(np.concatenate([before, after]), 99.5)) + 10) if len(before) else high
    axes.set_xlim(0, high)
    if min(len(before), len(after)) < 2:
        return
    edges = np.linspace(0, high, 41).tolist()
    axes.hist(before, edges, density=True, color="#59636b")
    axes.hist(after, edges, density=True, histtype="step", color=TEXT, linewidth=1.0)
    at_ms = common_axis(before, after)
    for name, colour, _ in _PARTS:
        old, new = values[name]
        width_ms = bandwidth_ms(old, new)
        axes.plot(at_ms, density(old, at_ms, width_ms) * len(old) / len(before), "--", color=colour, linewidth=1.2)
        axes.plot(at_ms, density(new, at_ms, width_ms) * len(new) / len(after), "-", color=colour, linewidth=1.2)
    axes.text(
        0.01,
        0.95,
        f"{QUANTITY_NAMES[quantity]} (ms)",
        color=FAINT,
        fontsize=9,
        ha="left",
        va="top",
        transform=axes.transAxes,
    )


# -- footer -----------------------------------------------------------------------------------------------------------


def _draw_footer(figure: Figure, result: ExamResult) -> None:
    names = [QUANTITY_NAMES[quantity] for quantity in Quantity if quantity in result.maps]
    low, high = DISPLAY_RANGES_MS[Quantity.T1RHO]
    _draw_bar(figure, 0.10, ScalarMappable(Normalize(low, high), MAP_COLOURS), f"{' and '.join(names)} (ms)", None)
    _draw_bar(figure, 0.655, ScalarMappable(JACOBIAN, JACOBIAN_COLOURS), "det J", (0.25, 0.5, 1.0, 2.0, 4.0))
    handles = [
        Patch(color="#59636b", label="disc before"),
        Line2D([], [], color=TEXT, linewidth=1, label="disc after"),
        Line2D([], [], color=NUCLEUS_COLOUR, label="nucleus (dashed: before)"),
        Line2D([], [], color=ANNULUS_COLOUR, label="annulus (dashed: before)"),
        Line2D([], [], color=MIDLINE_COLOUR, linestyle="--", label="midline of the atlas"),
        Line2D([], [], color=FOLDED_COLOUR, marker="x", linestyle="", label="folded"),
        Patch(color="#64a8ff", label="atlas alone"),
        Patch(color="#ffb000", label="patient alone"),
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.46, 0.022),
        ncols=4,
        fontsize=9,
        labelcolor=TEXT,
        facecolor=_BACKGROUND,
        edgecolor=_BACKGROUND,
    )
    note = (
        f"Bars: {BAR_MM:g} mm. Before: the native map, parts of the atlas pulled back onto it. After: fitted to the"
        " deformed echoes. Overlap: area under the smaller density, 1 = alike. det J: volume in the patient per volume"
        " in the atlas. Not for diagnosis."
    )
    figure.text(0.012, 0.012, note, color=FAINT, fontsize=9.5, va="center")


def _draw_bar(figure: Figure, left: float, colours: ScalarMappable, name: str, ticks: tuple[float, ...] | None) -> None:
    axes = figure.add_axes((left, 0.055, 0.17, 0.012))
    bar = figure.colorbar(colours, cax=axes, orientation="horizontal", extend="both", extendfrac=0.03)
    if ticks is not None:
        bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
    bar.ax.tick_params(colors=TEXT, labelsize=9, pad=1)
    bar.outline.set_visible(False)
    bar.ax.set_title(name, color=TEXT, fontsize=10, pad=3)


def _colour(level: Level) -> tuple[float, float, float]:
    red, green, blue = LEVEL_COLOURS[level]
    return red / 255, green / 255, blue / 255
