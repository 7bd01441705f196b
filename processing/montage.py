"""The overview picture of an exam: discs outlined on the anatomy, maps in colour, mean values, and what is in doubt."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS, LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import Affine, DiscMeasurement, ExamResult, LabelArray, Level, Quantity, Region, Verdict
from processing.volume import spacing_mm

_WIDTH_PX, _HEIGHT_PX, _DPI = 1600, 1200, 100
_BACKGROUND, _TEXT, _FAINT = "#101418", "#f2f4f5", "#9aa5ad"
_VERDICT_COLOURS = {Verdict.OK: "#5fd38d", Verdict.NEEDS_REVIEW: "#ffc857", Verdict.REFUSED: "#ff6b6b"}
_VERDICT_WORDS = {Verdict.OK: "no doubts", Verdict.NEEDS_REVIEW: "needs review", Verdict.REFUSED: "refused"}
_COLOUR_MAP = "viridis"  # even steps of lightness, and readable with every common colour blindness
_CROP_MARGIN_MM = 14.0
_MAX_SLICES_SHOWN = 12
_HALO = [withStroke(linewidth=2.5, foreground="#101418")]  # keeps writing readable on bright anatomy
_QUANTITY_NAMES = {Quantity.T1RHO: "T1ρ", Quantity.T2: "T2"}


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


def draw_montage(result: ExamResult) -> npt.NDArray[np.uint8]:
    """The overview of one exam, (1200, 1600, 3) uint8 sRGB. It shows nothing that tells who the patient is.

    Raises:
        ValueError: the result has no disc to show.
    """
    mask = result.mask
    if mask is None or not mask.found:
        raise ValueError("a result without a disc has no overview")
    midline = midline_slice(mask.levels)
    whole = _view(mask.levels, result.background.affine, cropped=False)
    crop = _view(mask.levels, result.background.affine, cropped=True)
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
        _draw_map(figure, figure.add_subplot(top[place]), result, quantity, midline, crop)
    if not quantities:
        _draw_zoom(figure.add_subplot(top[1]), result, midline, crop)
    _draw_slices(figure, rows[1], result, midline, crop)
    bottom = rows[2].subgridspec(1, 2, width_ratios=(1.6, 1.0), wspace=0.04)
    _draw_table(figure.add_subplot(bottom[0]), result, quantities)
    _draw_flags(figure.add_subplot(bottom[1]), result)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def midline_slice(levels: LabelArray) -> int:
    """The slice in the middle of the discs: the median of their voxels along the slice axis. ``levels`` has a disc."""
    return int(np.median(np.nonzero(levels)[0]))


def _view(levels: LabelArray, affine: Affine, *, cropped: bool) -> View:
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


def _window(result: ExamResult) -> Normalize:
    """Grey range: the 1st to 99.7th percentile of the anatomy."""
    low, high = np.percentile(result.background.array, (1.0, 99.7))
    return Normalize(float(low), float(max(high, low + 1e-6)))


def _show_anatomy(axes: Axes, result: ExamResult, slice_index: int, view: View) -> None:
    image = result.background.array[slice_index, view.rows, view.columns]
    axes.imshow(image, cmap="gray", norm=_window(result), extent=view.extent, interpolation="bilinear", aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _outline(axes: Axes, result: ExamResult, slice_index: int, view: View, *, width: float) -> None:
    """Contours of the discs that this slice cuts, each in its level's colour."""
    assert result.mask is not None
    levels = result.mask.levels[slice_index]
    x = np.arange(levels.shape[1]) * view.column_mm
    y = np.arange(levels.shape[0]) * view.row_mm
    for level in result.mask.found:
        inside = (levels == level).astype(np.float32)
        if inside.any():
            axes.contour(x, y, inside, levels=[0.5], colors=[_colour(level)], linewidths=width)
    left, right, bottom, top = view.extent
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _name_discs(axes: Axes, result: ExamResult, slice_index: int, view: View) -> None:
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
                color=_colour(level),
                fontsize=11,
                fontweight="bold",
                path_effects=_HALO,
            )


def _letter_edges(axes: Axes, view: View) -> None:
    places = ((0.025, 0.5), (0.975, 0.5), (0.5, 0.975), (0.5, 0.025))
    for (x, y), letter in zip(places, (*view.column_ends, *view.row_ends), strict=True):
        style: dict[str, Any] = {"color": _TEXT, "fontsize": 10, "ha": "center", "va": "center", "path_effects": _HALO}
        axes.text(x, y, letter, transform=axes.transAxes, **style)


def _scale_bar(axes: Axes, view: View, length_mm: float) -> None:
    left, right, bottom, top = view.extent
    x, y = right - 0.06 * (right - left) - length_mm, bottom - 0.05 * (bottom - top)
    axes.plot([x, x + length_mm], [y, y], color=_TEXT, linewidth=3, solid_capstyle="butt", path_effects=_HALO)
    style: dict[str, Any] = {"color": _TEXT, "fontsize": 10, "ha": "center", "va": "bottom", "path_effects": _HALO}
    axes.text(x + length_mm / 2, y - 0.014 * (bottom - top), f"{length_mm:g} mm", **style)


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
    _show_anatomy(axes, result, midline, whole)
    _outline(axes, result, midline, whole, width=1.6)
    _name_discs(axes, result, midline, whole)
    _letter_edges(axes, whole)
    _scale_bar(axes, whole, 50.0)
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
    _show_anatomy(axes, result, midline, view)
    _outline(axes, result, midline, view, width=1.2)
    _letter_edges(axes, view)
    _scale_bar(axes, view, 20.0)
    axes.set_title("Discs, larger", color=_TEXT, fontsize=13, loc="left")


def _draw_map(figure: Figure, axes: Axes, result: ExamResult, quantity: Quantity, midline: int, view: View) -> None:
    _show_anatomy(axes, result, midline, view)
    values = np.ma.masked_invalid(result.maps[quantity].time_ms[midline, view.rows, view.columns])
    colours = Normalize(*DISPLAY_RANGES_MS[quantity])
    axes.imshow(values, cmap=_COLOUR_MAP, norm=colours, extent=view.extent, interpolation="nearest", aspect="equal")
    _outline(axes, result, midline, view, width=0.8)
    _letter_edges(axes, view)
    _scale_bar(axes, view, 20.0)
    axes.set_title(f"{_QUANTITY_NAMES[quantity]} map", color=_TEXT, fontsize=13, loc="left")
    beside = axes.inset_axes((1.03, 0.0, 0.04, 1.0))
    bar = figure.colorbar(ScalarMappable(colours, _COLOUR_MAP), cax=beside, extend="both", extendfrac=0.03)
    bar.set_label(f"{_QUANTITY_NAMES[quantity]} (ms)", color=_TEXT, fontsize=12)
    bar.ax.tick_params(colors=_TEXT, labelsize=11)
    bar.outline.set_visible(False)


def _draw_slices(figure: Figure, place: SubplotSpec, result: ExamResult, midline: int, view: View) -> None:
    """All slices through the discs, or as many as fit, evenly chosen, so that a slip in a side slice is seen."""
    assert result.mask is not None
    cut = np.flatnonzero(result.mask.levels.any(axis=(1, 2)))
    shown = cut
    if len(cut) > _MAX_SLICES_SHOWN:
        shown = cut[np.linspace(0, len(cut) - 1, _MAX_SLICES_SHOWN).round().astype(int)]
    cells = place.subgridspec(1, max(len(shown), 5), wspace=0.03)
    for index, slice_index in enumerate(shown.tolist()):
        axes = figure.add_subplot(cells[index])
        _show_anatomy(axes, result, slice_index, view)
        _outline(axes, result, slice_index, view, width=0.9)
        style: dict[str, Any] = {"color": _TEXT, "fontweight": "bold"} if slice_index == midline else {"color": _FAINT}
        axes.set_title(f"slice {slice_index + 1}", fontsize=10, **style)


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
        name = _QUANTITY_NAMES[quantity]
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
            cell.get_text().set_color(_colour(tuple(reversed(result.mask.found))[row_index - 1]))
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


def _colour(level: Level) -> tuple[float, float, float]:
    red, green, blue = LEVEL_COLOURS[level]
    return red / 255, green / 255, blue / 255
