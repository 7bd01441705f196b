"""Figures of registration for print: values before and after it (Fig 4), and one disc carried onto an atlas in several
ways: by its mask or by grey values (S2), onto one atlas or another (S10, S11). Who writes them puts below what they are
for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage

from processing.display import LEVEL_NAMES, QUANTITY_NAMES
from processing.preservation import bandwidth_ms, common_axis, density
from processing.results import Affine, Alignment, AtlasDisc, FloatArray, Level, Quantity
from processing.transform_points import patient_index
from processing.volume import spacing_mm

_INK, _FAINT, _BEFORE, _AFTER = "#1b2530", "#66727d", "#9aa5ad", "#1f5f99"
_ATLAS, _PATIENT = "#1f9ae0", "#e07b00"
_JACOBIAN, _JACOBIAN_COLOURS = LogNorm(0.25, 4.0), "PuOr_r"
_BAR_MM, _MARGIN_MM = 10.0, 4.0
_Bool = npt.NDArray[np.bool_]
_Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BeforeAfter:
    """One quantity of one disc. Arrays (slices, rows, columns) in ms, NaN outside the disc; spacing in mm."""

    level: Level
    quantity: Quantity
    before_ms: FloatArray
    before_spacing_mm: tuple[float, float, float]
    after_ms: FloatArray
    after_spacing_mm: tuple[float, float, float]

    @property
    def values(self) -> tuple[_Float, _Float]:
        """All values before and after."""
        before, after = (one[np.isfinite(one)].astype(np.float64) for one in (self.before_ms, self.after_ms))
        return before, after


def before_after_figure(discs: Sequence[BeforeAfter], heading: str) -> Figure:
    """Fig 4: for each disc and quantity the middle slice in the patient, the same in the atlas, and all values."""
    quantities = [one for one in Quantity if any(disc.quantity is one for disc in discs)]
    levels = sorted({disc.level for disc in discs}, reverse=True)
    by_place = {(disc.level, disc.quantity): disc for disc in discs}
    view, norms = _view_of(discs), {quantity: _times_shown(discs, quantity) for quantity in quantities}
    figure = Figure(figsize=(1.0 + 6.2 * len(quantities), 1.25 * len(levels) + 1.15), dpi=150, layout="constrained")
    figure.suptitle(heading, fontsize=10, color=_INK)
    grid = figure.subplots(len(levels), 3 * len(quantities), squeeze=False, width_ratios=(1, 1, 1.1) * len(quantities))
    for row, level in enumerate(levels):
        for place, quantity in enumerate(quantities):
            native, registered, histogram = grid[row, 3 * place : 3 * place + 3]
            disc = by_place.get((level, quantity))
            if disc is None:
                for axes in (native, registered, histogram):
                    axes.axis("off")
                continue
            _show_map(native, disc.before_ms, disc.before_spacing_mm, norms[quantity], view)
            _show_map(registered, disc.after_ms, disc.after_spacing_mm, norms[quantity], view)
            _show_values(histogram, disc, 1.15 * float(norms[quantity].vmax or 0), is_last=row == len(levels) - 1)
            if row == 0:
                native.set_title("in the patient", fontsize=8, color=_INK)
                registered.set_title("in the atlas", fontsize=8, color=_INK)
                histogram.set_title(f"all values, {QUANTITY_NAMES[quantity]}", fontsize=8, color=_INK)
            if place == 0:
                _write(native, -0.06, 0.5, LEVEL_NAMES[level], ha="right", va="center", fontsize=9)
    for place, quantity in enumerate(quantities):
        shown = ScalarMappable(norms[quantity], "viridis")
        below = [axes for row in grid for axes in row[3 * place : 3 * place + 2]]
        bar = figure.colorbar(shown, ax=below, location="bottom", shrink=0.5, aspect=30, pad=0.02, extend="both")
        bar.set_label(f"{QUANTITY_NAMES[quantity]} (ms); bar {_BAR_MM:g} mm", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    handles = [
        Patch(color=_BEFORE, label="before"),
        Line2D([], [], color=_AFTER, label="after (lines: kernel density)"),
    ]
    _legend(figure, handles, "outside lower right")
    return figure


@dataclass(frozen=True, slots=True)
class _View:
    """The window that all panels show, so that all have one scale."""

    width_mm: float
    height_mm: float


def _show_map(
    axes: Axes, values: FloatArray, spacing: tuple[float, float, float], norm: Normalize, view: _View
) -> None:
    """The middle slice that shows the disc, its middle in the middle of the panel."""
    k = _middle_slice(values)
    rows, columns = np.nonzero(np.isfinite(values[k]))
    extent = (
        -0.5 * spacing[2],
        (values.shape[2] - 0.5) * spacing[2],
        (values.shape[1] - 0.5) * spacing[1],
        -0.5 * spacing[1],
    )
    shown = np.ma.masked_invalid(values[k])
    axes.imshow(shown, cmap="viridis", norm=norm, extent=extent, interpolation="nearest")
    x, y = (columns.min() + columns.max()) / 2 * spacing[2], (rows.min() + rows.max()) / 2 * spacing[1]
    axes.set_xlim(x - view.width_mm / 2, x + view.width_mm / 2)
    axes.set_ylim(y + view.height_mm / 2, y - view.height_mm / 2)
    right, low = x + view.width_mm / 2 - 1, y + view.height_mm / 2 - 1
    axes.plot([right - _BAR_MM, right], [low, low], color=_INK, linewidth=1.5)
    axes.axis("off")


def _view_of(discs: Sequence[BeforeAfter]) -> _View:
    sizes = []
    for disc in discs:
        for values, spacing in ((disc.before_ms, disc.before_spacing_mm), (disc.after_ms, disc.after_spacing_mm)):
            places = np.nonzero(np.isfinite(values[_middle_slice(values)]))
            sizes.append([(np.ptp(one) + 1) * mm for one, mm in zip(places, spacing[1:], strict=True)])
    high, wide = np.max(sizes, axis=0)
    return _View(float(wide) + 2 * _MARGIN_MM, float(high) + 2 * _MARGIN_MM)


def _middle_slice(values: FloatArray) -> int:
    slices = np.nonzero(np.isfinite(values).any(axis=(1, 2)))[0]
    return int(slices[len(slices) // 2])


def _times_shown(discs: Sequence[BeforeAfter], quantity: Quantity) -> Normalize:
    """From the 2nd to the 98th percentile of all values, in whole tens."""
    everything = np.concatenate([one for disc in discs if disc.quantity is quantity for one in disc.values])
    low, high = np.percentile(everything, (2, 98))
    return Normalize(float(np.floor(low / 10) * 10), float(np.ceil(high / 10) * 10))


def _show_values(axes: Axes, disc: BeforeAfter, high: float, *, is_last: bool) -> None:
    before, after = disc.values
    edges = np.linspace(0, high, 36).tolist()
    axes.hist(before, edges, density=True, color=_BEFORE, alpha=0.6)
    axes.hist(after, edges, density=True, histtype="step", color=_AFTER, linewidth=0.8)
    if min(len(before), len(after)) > 1:
        at_ms, width_ms = common_axis(before, after), bandwidth_ms(before, after)
        axes.plot(at_ms, density(before, at_ms, width_ms), color=_FAINT, linewidth=1.2)
        axes.plot(at_ms, density(after, at_ms, width_ms), color=_AFTER, linewidth=1.2)
    axes.set_xlim(0, high)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=7, colors=_INK, labelbottom=is_last)
    _write(axes, 0.98, 0.95, f"{before.mean():.1f} → {after.mean():.1f} ms", ha="right", va="top", fontsize=7)
    if is_last:
        axes.set_xlabel(f"{QUANTITY_NAMES[disc.quantity]} (ms)", fontsize=8)


# -- one disc, several ways -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PatientDisc:
    """A disc where it lies: ``mask`` and ``image`` (slices, rows, columns) with their LPS mm affine."""

    name: str
    mask: npt.NDArray[np.uint8]
    image: FloatArray
    affine: Affine


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """One registration of a disc; ``alignment`` None where it failed, with the reason in ``failure``."""

    atlas: AtlasDisc
    alignment: Alignment | None
    failure: str = ""


def carried_figure(
    rows: Sequence[tuple[PatientDisc, Mapping[str, Carried]]], heading: str, *, jacobian: bool
) -> Figure:
    """A row for each disc: the disc itself, then each way of carrying it onto an atlas disc.

    The atlas' edge is blue, the edge of the patient's carried mask orange; behind them the carried image, or, with
    ``jacobian``, det J.
    """
    ways = list(rows[0][1])
    figure = Figure(figsize=(2.7 * (1 + len(ways)) + 0.3, 1.75 * len(rows) + 1.0), dpi=150, layout="constrained")
    figure.suptitle(heading, fontsize=10, color=_INK)
    grid = figure.subplots(len(rows), 1 + len(ways), squeeze=False)
    for (disc, carried), cells in zip(rows, grid, strict=True):
        _show_disc(cells[0], disc)
        for way, axes in zip(ways, cells[1:], strict=True):
            _show_carried(axes, disc, carried[way], way, jacobian=jacobian)
    if jacobian:
        shown = ScalarMappable(_JACOBIAN, _JACOBIAN_COLOURS)
        below = [axes for row in grid for axes in row[1:]]
        bar = figure.colorbar(shown, ax=below, location="bottom", shrink=0.5, aspect=36, pad=0.02, extend="both")
        ticks = (0.25, 0.5, 1.0, 2.0, 4.0)
        bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
        bar.ax.tick_params(labelsize=7)
        bar.set_label("det J: volume in the patient per volume in the atlas", fontsize=8)
    handles = [
        Line2D([], [], color=_ATLAS, label="edge of the atlas disc"),
        Line2D([], [], color=_PATIENT, label="edge of the patient's disc"),
        Line2D([], [], color=_INK, linewidth=2, label=f"bar: {_BAR_MM:g} mm"),
    ]
    _legend(figure, handles, "outside lower right")
    return figure


def _show_disc(axes: Axes, disc: PatientDisc) -> None:
    k = int(np.median(np.nonzero(disc.mask)[0]))
    _, row_mm, column_mm = spacing_mm(disc.affine)
    height, width = disc.mask.shape[1] * row_mm, disc.mask.shape[2] * column_mm
    low, high = np.percentile(disc.image[k], (1, 99.5))
    extent = (0.0, width, height, 0.0)
    axes.imshow(disc.image[k], cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    _edge(axes, disc.mask[k] > 0, extent, _PATIENT)
    _frame(axes, extent, disc.name)


def _show_carried(axes: Axes, disc: PatientDisc, one: Carried, way: str, *, jacobian: bool) -> None:
    if one.alignment is None:
        axes.axis("off")
        axes.text(0.5, 0.5, f"{way}\nfailed: {one.failure}", ha="center", va="center", fontsize=7, wrap=True)
        return
    atlas, alignment = one.atlas, one.alignment
    k = atlas.mask.shape[0] // 2
    _, row_mm, column_mm = spacing_mm(atlas.affine)
    n_rows, n_columns = atlas.mask.shape[1:]
    extent = (0.0, n_columns * column_mm, n_rows * row_mm, 0.0)
    inside = atlas.mask[k] > 0
    carried, image = _carried_slice(disc, atlas, alignment, k)
    if jacobian:
        shown = np.ma.masked_where(~inside, np.clip(alignment.jacobian[k], 0.05, None))
        axes.imshow(shown, cmap=_JACOBIAN_COLOURS, norm=_JACOBIAN, extent=extent, interpolation="nearest")
    else:
        low, high = np.percentile(disc.image, (1, 99.5))
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    _edge(axes, inside, extent, _ATLAS)
    _edge(axes, carried, extent, _PATIENT)
    folded = f", {alignment.n_folded} folded" if alignment.n_folded else ""
    _frame(axes, extent, f"{way}\nDice {alignment.dice:.3f}, SD det J {alignment.sd_jacobian:.2f}{folded}")


def _carried_slice(disc: PatientDisc, atlas: AtlasDisc, alignment: Alignment, k: int) -> tuple[_Bool, _Float]:
    """The patient's mask and image in one slice of the atlas."""
    shape = atlas.mask.shape[1:]
    i, j = np.indices(shape).reshape(2, -1)
    index = np.stack([np.full(i.shape, k), i, j]).astype(np.float64)
    place = patient_index(alignment, atlas, disc.affine, index)
    inside = ndimage.map_coordinates((disc.mask > 0).astype(np.float32), place, order=1).reshape(shape) >= 0.5
    image = ndimage.map_coordinates(disc.image, place, order=1, mode="nearest").reshape(shape)
    return inside, image.astype(np.float64)


def _edge(axes: Axes, inside: _Bool, extent: tuple[float, float, float, float], colour: str) -> None:
    if not inside.any() or inside.all():
        return
    left, right, bottom, top = extent
    x = left + (np.arange(inside.shape[1]) + 0.5) * (right - left) / inside.shape[1]
    y = top + (np.arange(inside.shape[0]) + 0.5) * (bottom - top) / inside.shape[0]
    axes.contour(x, y, inside.astype(np.float32), levels=[0.5], colors=[colour], linewidths=1.2)


def _frame(axes: Axes, extent: tuple[float, float, float, float], title: str) -> None:
    _, right, bottom, _ = extent
    axes.plot([right - 1 - _BAR_MM, right - 1], [bottom + 1.2] * 2, color=_INK, linewidth=1.5, clip_on=False)
    axes.set_xlim(0, right)
    axes.set_ylim(bottom + 1.5, 0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize=7.5, color=_INK)


def _write(axes: Axes, x: float, y: float, text: str, *, ha: str, va: str, fontsize: float) -> None:
    """A text at shares of the panel's width and height."""
    axes.text(x, y, text, transform=axes.transAxes, ha=ha, va=va, fontsize=fontsize, color=_INK)


def _legend(figure: Figure, handles: Sequence[Artist], place: str) -> None:
    """Below the panels."""
    figure.legend(handles=handles, loc=place, fontsize=7, ncols=len(handles), frameon=False)
