"""The overview picture of an exam: discs outlined on the anatomy, maps in colour, mean values, and what is in doubt."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from processing.anatomy_panels import (
    ON_SCREEN,
    View,
    draw_map,
    draw_slices,
    letter_edges,
    level_colour,
    midline_slice,
    name_discs,
    outline,
    scale_bar,
    show_anatomy,
    view_of,
)
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, RESEARCH_USE_ONLY
from processing.results import DiscMeasurement, ExamResult, Level, Quantity, Region, Verdict

_WIDTH_PX, _HEIGHT_PX, _DPI = 1600, 1200, 100
_BACKGROUND, _TEXT, _FAINT = ON_SCREEN.ground, ON_SCREEN.text, ON_SCREEN.faint
_VERDICT_COLOURS = {Verdict.OK: "#5fd38d", Verdict.NEEDS_REVIEW: "#ffc857", Verdict.REFUSED: "#ff6b6b"}
_VERDICT_WORDS = {Verdict.OK: "no doubts", Verdict.NEEDS_REVIEW: "needs review", Verdict.REFUSED: "refused"}


def draw_montage(result: ExamResult) -> npt.NDArray[np.uint8]:
    """The overview of one exam, (1200, 1600, 3) uint8 sRGB. It shows nothing that tells who the patient is.

    Raises:
        ValueError: the result has no disc to show.
    """
    mask = result.mask
    if mask is None or not mask.found:
        raise ValueError("a result without a disc has no overview")
    midline = midline_slice(mask.levels)
    whole = view_of(mask.levels, result.background.affine, cropped=False)
    crop = view_of(mask.levels, result.background.affine, cropped=True)
    figure = Figure(figsize=(_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    rows = figure.add_gridspec(
        3, 1, height_ratios=(6.2, 2.4, 2.6), left=0.02, right=0.98, top=0.895, bottom=0.03, hspace=0.13
    )
    _draw_heading(figure, result)
    quantities = [quantity for quantity in Quantity if quantity in result.maps]
    top = rows[0].subgridspec(1, 1 + max(len(quantities), 1), wspace=0.02)
    _draw_anatomy(figure.add_subplot(top[0]), result, midline, whole, crop)
    for place, quantity in enumerate(quantities, start=1):
        draw_map(figure, figure.add_subplot(top[place]), result, quantity, midline, crop, ON_SCREEN)
    if not quantities:
        _draw_zoom(figure.add_subplot(top[1]), result, midline, crop)
    draw_slices(figure, rows[1], result, midline, crop, ON_SCREEN)
    bottom = rows[2].subgridspec(1, 2, width_ratios=(1.6, 1.0), wspace=0.04)
    _draw_table(figure.add_subplot(bottom[0]), result, quantities)
    _draw_flags(figure.add_subplot(bottom[1]), result)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_heading(figure: Figure, result: ExamResult) -> None:
    figure.text(0.02, 0.955, "discnode", color=_TEXT, fontsize=20, fontweight="bold", va="center")
    about = f"{result.versions.get('discnode', '')}   {result.versions.get('protocol', '')}"
    figure.text(0.125, 0.9535, about, color=_FAINT, fontsize=12, va="center")
    loud: dict[str, Any] = {"fontsize": 16, "fontweight": "bold", "va": "center"}
    verdict = f"Verdict: {_VERDICT_WORDS[result.verdict]}"
    figure.text(0.5, 0.955, verdict, color=_VERDICT_COLOURS[result.verdict], ha="center", **loud)
    figure.text(0.98, 0.955, RESEARCH_USE_ONLY.upper(), color="#ff8f6b", ha="right", **loud)


def _draw_anatomy(axes: Axes, result: ExamResult, midline: int, whole: View, crop: View) -> None:
    """The whole slice, with the part that is shown larger."""
    show_anatomy(axes, result, midline, whole)
    outline(axes, result, midline, whole, width=1.6)
    name_discs(axes, result, midline, whole)
    letter_edges(axes, whole)
    scale_bar(axes, whole, 50.0)
    name = "Discs" if result.correction is None else "Discs corrected by a person"
    title = f"{name}, slice {midline + 1} of {result.background.array.shape[0]}"
    axes.set_title(title, color=_TEXT, fontsize=13, loc="left")
    left, right, bottom, top = crop.extent
    frame = Rectangle(
        (left, top), right - left, bottom - top, fill=False, edgecolor=_FAINT, linewidth=1, linestyle="--"
    )
    axes.add_patch(frame)


def _draw_zoom(axes: Axes, result: ExamResult, midline: int, view: View) -> None:
    """The discs larger, for an exam without maps."""
    show_anatomy(axes, result, midline, view)
    outline(axes, result, midline, view, width=1.2)
    letter_edges(axes, view)
    scale_bar(axes, view, 20.0)
    axes.set_title("Discs, larger", color=_TEXT, fontsize=13, loc="left")


def _draw_table(axes: Axes, result: ExamResult, quantities: list[Quantity]) -> None:
    """Whole-disc mean and SD of each level, from above (as the picture shows them)."""
    assert result.mask is not None
    axes.set_axis_off()
    whole = {(row.level, row.quantity): row for row in result.measurements if row.region is Region.WHOLE_DISC}
    nucleus = {(row.level, row.quantity): row for row in result.measurements if row.region is Region.NUCLEUS}
    dice = {disc.alignment.level: disc.alignment.dice for disc in result.registered}
    headings = ["Disc", "Volume\n(cm³)"]
    with_members = any(row.n_members is not None for row in whole.values())
    for quantity in quantities:
        name = QUANTITY_NAMES[quantity]
        headings += [f"{name} disc\n(ms)", *(["networks\n± ms"] if with_members else [])]
        headings += [f"{name} nucleus\n(ms)", f"{name}\nvoxels"]
    headings += ["Atlas\nDice"] if dice else []
    rows = []
    for level in reversed(result.mask.found):
        row = [LEVEL_NAMES[level], f"{result.volumes_mm3[level] / 1000:.1f}" if level in result.volumes_mm3 else "–"]
        for quantity in quantities:
            key = (level, quantity)
            row += [_mean_and_sd(whole, key), *([_spread(whole, key)] if with_members else [])]
            row += [_mean_and_sd(nucleus, key), _counts(whole, key)]
        row += ([f"{dice[level]:.2f}"] if level in dice else ["–"]) if dice else []
        rows.append(row)
    widths = [1.2 if heading.endswith("(ms)") else 0.7 for heading in headings]
    table = axes.table(
        cellText=rows, colLabels=headings, colWidths=widths, bbox=Bbox.unit(), cellLoc="center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(11)
    for (row_index, column), cell in table.get_celld().items():
        cell.set_edgecolor("#39434b")
        cell.get_text().set_color(_FAINT if row_index == 0 else _TEXT)
        if row_index == 0:
            cell.get_text().set_fontsize(10)
        elif column == 0:
            cell.get_text().set_color(level_colour(tuple(reversed(result.mask.found))[row_index - 1]))
            cell.get_text().set_fontweight("bold")


_Rows = Mapping[tuple[Level, Quantity], DiscMeasurement]


def _mean_and_sd(rows: _Rows, key: tuple[Level, Quantity]) -> str:
    row = rows.get(key)
    return f"{row.mean_ms:.1f} ± {row.sd_ms:.1f}" if row is not None and row.n > 0 else "–"


def _spread(rows: _Rows, key: tuple[Level, Quantity]) -> str:
    """SD of the mean over the members of the ensemble."""
    row = rows.get(key)
    return f"{row.member_sd_ms:.2f}" if row is not None and row.member_sd_ms is not None else "–"


def _counts(rows: _Rows, key: tuple[Level, Quantity]) -> str:
    row = rows.get(key)
    if row is None:
        return "–"
    return f"{row.n} (+{row.n_excluded})" if row.n_excluded else f"{row.n}"


def _draw_flags(axes: Axes, result: ExamResult) -> None:
    """What a reader should look at, in words."""
    axes.set_axis_off()
    axes.text(0.0, 0.97, "To be checked", color=_FAINT, fontsize=12, va="top", transform=axes.transAxes)
    lines = [f"{reason.code.value}: {reason.detail}" for reason in result.reasons] or [
        "Nothing: every check was passed."
    ]
    wrapped = [part for line in lines for part in _wrap(line, 60)]
    most = 9
    if len(wrapped) > most:
        wrapped = [*wrapped[: most - 1], f"… {len(lines)} in all; the rest is in the report"]
    axes.text(
        0.0, 0.85, "\n".join(wrapped), color=_TEXT, fontsize=11, va="top", linespacing=1.35, transform=axes.transAxes
    )
    note = "Mean ± SD over the voxels with a value (+ excluded ones).\nColours mean the same in all exams."
    if any(row.n_members is not None for row in result.measurements):
        note += "\nNetworks ±: SD of the disc's mean over the single networks' masks."
    axes.text(0.0, 0.0, note, color=_FAINT, fontsize=9, va="bottom", transform=axes.transAxes)


def _wrap(line: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, continuation lines indented."""
    return textwrap.wrap(line, width, subsequent_indent="   ")
