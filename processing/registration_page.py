"""One page about the registration of an exam, as the paper's Fig 4: per disc the maps before and after, how the values
are distributed before and after, det J, the deformed mask on the atlas and the deformed image against the atlas' edge.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec, SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage

from processing.display import DISPLAY_RANGES_MS, LEVEL_COLOURS, LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.measurements import measured_levels
from processing.preservation import bandwidth_ms, common_axis, density, native_regions, overlap, values_in
from processing.results import AtlasDisc, DiscMask, ExamResult, Level, Quantity, RegisteredDisc
from processing.transform_points import patient_index
from processing.volume import spacing_mm

_WIDTH_PX, _HEIGHT_PX, _DPI = 2000, 1500, 100
_BACKGROUND, _TEXT, _FAINT, _EDGE = "#101418", "#f2f4f5", "#9aa5ad", "#ffffff"
_NUCLEUS, _ANNULUS, _MIDLINE, _FOLDED = "#ffb000", "#64a8ff", "#ff5cad", "#ff0000"
_QUANTITY_NAMES = {Quantity.T1RHO: "T1ρ", Quantity.T2: "T2"}
_MAP_COLOURS, _JACOBIAN_COLOURS = "viridis", "PuOr_r"
_JACOBIAN = LogNorm(0.25, 4.0)
_BAR_MM = 10.0
_MARGIN_MM = 4.0
_TILE_MM = 4.0
#: Deformed mask against the atlas: neither, the atlas alone, the patient alone, both.
_OVERLAY = ListedColormap(["#101418", "#64a8ff", "#ffb000", "#59636b"])
_PARTS = (("nucleus", _NUCLEUS, (1,)), ("annulus", _ANNULUS, (2, 3)))
_Bool = npt.NDArray[np.bool_]
_Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """One slice of a grid with its edges in mm (left, right, bottom, top), as imshow takes them."""

    slice_index: int
    rows: slice
    columns: slice
    extent: tuple[float, float, float, float]

    def cut(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array[self.slice_index, self.rows, self.columns]


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
    native = _native_grid(mask, level)
    for row, quantity in enumerate(quantities):
        of = slice(None) if len(quantities) == 1 else row
        _draw_native(figure.add_subplot(cells[of, 1]), result, mask, level, quantity, native)
        if disc is not None and quantity in disc.maps:
            _draw_registered(figure.add_subplot(cells[of, 2]), disc, quantity)
    if disc is None:
        _draw_missing(figure.add_subplot(cells[:, 2:]), result, level)
        return
    _draw_distributions(figure, cells, result, mask, disc, quantities)
    deformed_mask, deformed_echo = _deformed(disc, result, mask)
    _draw_jacobian(figure.add_subplot(cells[0, 4]), disc)
    _draw_overlay(figure.add_subplot(cells[1, 4]), disc, deformed_mask)
    _draw_chequers(figure.add_subplot(cells[0, 5]), disc, deformed_echo)


def _draw_heading(figure: Figure, result: ExamResult) -> None:
    figure.text(0.012, 0.967, "discnode", color=_TEXT, fontsize=20, fontweight="bold", va="center")
    about = f"{result.versions.get('discnode', '')}   {result.versions.get('protocol', '')}"
    figure.text(0.085, 0.966, f"Registration   {about}", color=_FAINT, fontsize=12, va="center")
    atlas = f"atlas: {result.versions.get('atlas', 'not named')}"
    figure.text(0.5, 0.967, atlas, color=_TEXT, fontsize=14, va="center", ha="center")
    loud: dict[str, Any] = {"fontsize": 16, "fontweight": "bold", "va": "center"}
    figure.text(0.985, 0.967, RESEARCH_USE_ONLY.upper(), color="#ff8f6b", ha="right", **loud)
    headings = ("native map", "map in atlas space", "distribution of values", "det J · mask", "first image · means")
    for x, text in zip((0.175, 0.352, 0.538, 0.727, 0.9), headings, strict=True):
        figure.text(x, 0.934, text, color=_FAINT, fontsize=13, ha="center", va="center")


def _draw_name(axes: Axes, result: ExamResult, level: Level, disc: RegisteredDisc | None) -> None:
    axes.set_axis_off()
    axes.text(0.1, 0.82, LEVEL_NAMES[level], color=_colour(level), fontsize=18, fontweight="bold", va="center")
    if disc is None:
        return
    one = disc.alignment
    lines = [f"Dice {one.dice:.3f}", f"(centroid {one.dice_after_centroid:.2f})", f"SD det J {one.sd_jacobian:.3f}"]
    lines += [f"min det J {one.min_jacobian:.2f}", f"folded {one.n_folded}"]
    axes.text(0.1, 0.6, "\n".join(lines), color=_TEXT, fontsize=10.5, va="top", linespacing=1.3)


def _draw_missing(axes: Axes, result: ExamResult, level: Level) -> None:
    """Why a disc was not registered, in the words of the result."""
    axes.set_axis_off()
    names = (level.name, LEVEL_NAMES[level])
    said = [f"{one.code.value}: {one.detail}" for one in result.reasons if any(name in one.detail for name in names)]
    text = "Not registered. " + (" ".join(said) or "The result gives no reason.")
    wrapped = "\n".join(textwrap.wrap(text, 100)[:6])
    axes.text(0.04, 0.6, wrapped, color="#ffc857", fontsize=13, va="center", linespacing=1.4)


# -- cells ------------------------------------------------------------------------------------------------------------


def _native_grid(mask: DiscMask, level: Level) -> _Grid:
    """The middle slice of a disc, cropped around it."""
    own = mask.levels == level
    slice_index = int(np.median(np.nonzero(own)[0]))
    if not own[slice_index].any():  # between two slices
        slice_index = int(np.nonzero(own)[0][0])
    _, row_mm, column_mm = spacing_mm(mask.affine)
    i, j = np.nonzero(own[slice_index])
    margin_i, margin_j = int(np.ceil(_MARGIN_MM / row_mm)), int(np.ceil(_MARGIN_MM / column_mm))
    rows = slice(max(int(i.min()) - margin_i, 0), int(i.max()) + margin_i + 1)
    columns = slice(max(int(j.min()) - margin_j, 0), int(j.max()) + margin_j + 1)
    height, width = own[slice_index, rows, columns].shape
    return _Grid(slice_index, rows, columns, (0.0, width * column_mm, height * row_mm, 0.0))


def _atlas_grid(atlas: AtlasDisc) -> _Grid:
    """The middle slice of an atlas disc; mm towards posterior and inferior from its centroid."""
    slices, n_rows, n_columns = atlas.mask.shape
    _, row_mm, column_mm = spacing_mm(atlas.affine)
    left = atlas.affine[1, 3] - column_mm / 2
    top = -atlas.affine[2, 3] - row_mm / 2
    extent = (left, left + n_columns * column_mm, top + n_rows * row_mm, top)
    return _Grid(slices // 2, slice(None), slice(None), extent)


def _frame(axes: Axes, grid: _Grid, title: str) -> None:
    """No ticks; a scale bar and a title."""
    left, right, bottom, top = grid.extent
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#000000")
    for spine in axes.spines.values():
        spine.set_visible(False)
    x, y = right - 1.0 - _BAR_MM, bottom - 0.05 * (bottom - top)
    axes.plot([x, x + _BAR_MM], [y, y], color=_TEXT, linewidth=2, solid_capstyle="butt")
    axes.set_title(title, color=_TEXT, fontsize=9, pad=2.5, loc="left")


def _contour(axes: Axes, inside: npt.NDArray[Any], grid: _Grid, colour: str, *, width: float = 1.1) -> None:
    if not (inside.any() and min(inside.shape) > 1):
        return
    left, right, bottom, top = grid.extent
    n_rows, n_columns = inside.shape
    x = left + (np.arange(n_columns) + 0.5) * (right - left) / n_columns
    y = top + (np.arange(n_rows) + 0.5) * (bottom - top) / n_rows
    axes.contour(x, y, inside.astype(np.float32), levels=[0.5], colors=[colour], linewidths=width)


def _show_times(axes: Axes, values: npt.NDArray[Any], quantity: Quantity, grid: _Grid) -> None:
    colours = Normalize(*DISPLAY_RANGES_MS[quantity])
    shown = np.ma.masked_invalid(values)
    axes.imshow(shown, cmap=_MAP_COLOURS, norm=colours, extent=grid.extent, interpolation="nearest")


def _draw_native(axes: Axes, result: ExamResult, mask: DiscMask, level: Level, quantity: Quantity, grid: _Grid) -> None:
    image = grid.cut(result.background.array)
    low, high = np.percentile(result.background.array, (1.0, 99.7))
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=grid.extent, interpolation="nearest")
    own = grid.cut(mask.levels) == level
    _show_times(axes, np.where(own, grid.cut(result.maps[quantity].time_ms), np.nan), quantity, grid)
    _contour(axes, own, grid, _EDGE)
    _frame(axes, grid, f"{_QUANTITY_NAMES[quantity]}, slice {grid.slice_index + 1} of {len(mask.levels)}")


def _draw_registered(axes: Axes, disc: RegisteredDisc, quantity: Quantity) -> None:
    grid = _atlas_grid(disc.atlas)
    _show_times(axes, grid.cut(disc.maps[quantity].time_ms), quantity, grid)
    _draw_parts(axes, disc.atlas, grid)
    title = f"{_QUANTITY_NAMES[quantity]}, slice {grid.slice_index + 1} of {len(disc.atlas.mask)}"
    _frame(axes, grid, title)


def _draw_parts(axes: Axes, atlas: AtlasDisc, grid: _Grid) -> None:
    """Outline of the disc and of its nucleus, and the midline as far as the disc goes."""
    _contour(axes, grid.cut(atlas.mask) > 0, grid, _EDGE)
    _contour(axes, grid.cut(atlas.regions) == 1, grid, _NUCLEUS)
    heights = np.flatnonzero(grid.cut(atlas.mask).any(axis=1))
    if len(heights):
        row_mm = spacing_mm(atlas.affine)[1]
        top = grid.extent[3]
        ends = [top + heights[0] * row_mm, top + (heights[-1] + 1) * row_mm]
        axes.plot([atlas.midline_mm] * 2, ends, color=_MIDLINE, linewidth=1.2, linestyle=(0, (4, 2)))


def _deformed(disc: RegisteredDisc, result: ExamResult, mask: DiscMask) -> tuple[_Bool, _Float]:
    """The patient's mask and image in the middle slice of the atlas: (rows, columns) each."""
    grid = _atlas_grid(disc.atlas)
    shape = disc.atlas.mask.shape[1:]
    i, j = np.indices(shape).reshape(2, -1)
    index = np.stack([np.full(i.shape, grid.slice_index), i, j]).astype(np.float64)
    place = patient_index(disc.alignment, disc.atlas, mask.affine, index)
    own = (mask.levels == disc.alignment.level).astype(np.float32)
    inside = ndimage.map_coordinates(own, place, order=1).reshape(shape) >= 0.5
    image = ndimage.map_coordinates(result.background.array, place, order=1).reshape(shape)
    return inside, image.astype(np.float64)


def _draw_jacobian(axes: Axes, disc: RegisteredDisc) -> None:
    grid = _atlas_grid(disc.atlas)
    inside = grid.cut(disc.atlas.mask) > 0
    jacobian = grid.cut(disc.alignment.jacobian)
    shown = np.ma.masked_where(~inside, np.clip(jacobian, 0.05, None))
    axes.imshow(shown, cmap=_JACOBIAN_COLOURS, norm=_JACOBIAN, extent=grid.extent, interpolation="nearest")
    _mark_folding(axes, inside & (jacobian <= 0), grid)
    _contour(axes, inside, grid, _EDGE)
    everywhere = disc.alignment.jacobian[disc.atlas.mask > 0]
    _frame(axes, grid, f"det J, mean {everywhere.mean():.2f}, {everywhere.min():.2f} to {everywhere.max():.2f}")


def _mark_folding(axes: Axes, folded: _Bool, grid: _Grid) -> None:
    """A red cross on every voxel that the transform turns over."""
    left, right, bottom, top = grid.extent
    i, j = np.nonzero(folded)
    x = left + (j + 0.5) * (right - left) / folded.shape[1]
    y = top + (i + 0.5) * (bottom - top) / folded.shape[0]
    axes.plot(x, y, "x", color=_FOLDED, markersize=5, markeredgewidth=1.6)


def _draw_overlay(axes: Axes, disc: RegisteredDisc, deformed: _Bool) -> None:
    grid = _atlas_grid(disc.atlas)
    inside = grid.cut(disc.atlas.mask) > 0
    kinds = inside + 2 * deformed.astype(int)
    axes.imshow(kinds, cmap=_OVERLAY, vmin=0, vmax=3, extent=grid.extent, interpolation="nearest")
    _frame(axes, grid, f"deformed mask on the atlas, Dice {disc.alignment.dice:.3f}")


def _draw_chequers(axes: Axes, disc: RegisteredDisc, image: _Float) -> None:
    """Tiles of the deformed first image between tiles of the atlas disc; the atlas' edge runs through both."""
    grid = _atlas_grid(disc.atlas)
    inside = grid.cut(disc.atlas.mask) > 0
    low, high = np.percentile(image, (1, 99))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    _, row_mm, column_mm = spacing_mm(disc.atlas.affine)
    i, j = np.indices(inside.shape)
    tile = (np.floor(i * row_mm / _TILE_MM) + np.floor(j * column_mm / _TILE_MM)) % 2 == 0
    picture = np.where(tile, grey, 0)[..., None] * np.ones(3)
    picture[~tile & inside] = np.array([0.39, 0.66, 1.0]) * 0.75
    axes.imshow(picture, extent=grid.extent, interpolation="nearest")
    _contour(axes, inside, grid, _EDGE)
    _frame(axes, grid, "first image and atlas, alternating")


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
    axes.text(0.0, 1.05, text, color=_TEXT, fontsize=9.5, va="top", linespacing=1.35, transform=axes.transAxes)


def _change(name: str, quantity: Quantity, before: _Float, after: _Float) -> str:
    if not (len(before) and len(after)):
        return f"{_QUANTITY_NAMES[quantity]} {name}: no values"
    old, new = before.mean(), after.mean()
    share = f"{_QUANTITY_NAMES[quantity]} {name} {old:.1f} → {new:.1f} ({100 * (new / old - 1):+.1f} %)"
    return f"{share}, {overlap(before, after):.2f}"


def _draw_histogram(axes: Axes, values: Mapping[str, tuple[_Float, _Float]], quantity: Quantity) -> None:
    """Whole disc as histograms (before filled, after as a line); parts as densities, each as large as its share."""
    before, after = (np.concatenate([pair[side] for pair in values.values()]) for side in (0, 1))
    axes.set_facecolor(_BACKGROUND)
    axes.set_yticks([])
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(_FAINT)
    axes.tick_params(colors=_FAINT, labelsize=8, pad=1, length=2)
    high = DISPLAY_RANGES_MS[quantity][1]
    high = max(high, float(np.percentile(np.concatenate([before, after]), 99.5)) + 10) if len(before) else high
    axes.set_xlim(0, high)
    if min(len(before), len(after)) < 2:
        return
    edges = np.linspace(0, high, 41).tolist()
    axes.hist(before, edges, density=True, color="#59636b")
    axes.hist(after, edges, density=True, histtype="step", color=_TEXT, linewidth=1.0)
    at_ms = common_axis(before, after)
    for name, colour, _ in _PARTS:
        old, new = values[name]
        width_ms = bandwidth_ms(old, new)
        axes.plot(at_ms, density(old, at_ms, width_ms) * len(old) / len(before), "--", color=colour, linewidth=1.2)
        axes.plot(at_ms, density(new, at_ms, width_ms) * len(new) / len(after), "-", color=colour, linewidth=1.2)
    axes.text(
        0.01,
        0.95,
        f"{_QUANTITY_NAMES[quantity]} (ms)",
        color=_FAINT,
        fontsize=9,
        ha="left",
        va="top",
        transform=axes.transAxes,
    )


# -- footer -----------------------------------------------------------------------------------------------------------


def _draw_footer(figure: Figure, result: ExamResult) -> None:
    names = [_QUANTITY_NAMES[quantity] for quantity in Quantity if quantity in result.maps]
    low, high = DISPLAY_RANGES_MS[Quantity.T1RHO]
    _draw_bar(figure, 0.10, ScalarMappable(Normalize(low, high), _MAP_COLOURS), f"{' and '.join(names)} (ms)", None)
    _draw_bar(figure, 0.655, ScalarMappable(_JACOBIAN, _JACOBIAN_COLOURS), "det J", (0.25, 0.5, 1.0, 2.0, 4.0))
    handles = [
        Patch(color="#59636b", label="disc before"),
        Line2D([], [], color=_TEXT, linewidth=1, label="disc after"),
        Line2D([], [], color=_NUCLEUS, label="nucleus (dashed: before)"),
        Line2D([], [], color=_ANNULUS, label="annulus (dashed: before)"),
        Line2D([], [], color=_MIDLINE, linestyle="--", label="midline of the atlas"),
        Line2D([], [], color=_FOLDED, marker="x", linestyle="", label="folded"),
        Patch(color="#64a8ff", label="atlas alone"),
        Patch(color="#ffb000", label="patient alone"),
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.46, 0.022),
        ncols=4,
        fontsize=9,
        labelcolor=_TEXT,
        facecolor=_BACKGROUND,
        edgecolor=_BACKGROUND,
    )
    note = (
        f"Bars: {_BAR_MM:g} mm. Before: the native map, parts of the atlas pulled back onto it. After: fitted to the"
        " deformed echoes. Overlap: area under the smaller density, 1 = alike. det J: volume in the patient per volume"
        " in the atlas. Not for diagnosis."
    )
    figure.text(0.012, 0.012, note, color=_FAINT, fontsize=9.5, va="center")


def _draw_bar(figure: Figure, left: float, colours: ScalarMappable, name: str, ticks: tuple[float, ...] | None) -> None:
    axes = figure.add_axes((left, 0.055, 0.17, 0.012))
    bar = figure.colorbar(colours, cax=axes, orientation="horizontal", extend="both", extendfrac=0.03)
    if ticks is not None:
        bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
    bar.ax.tick_params(colors=_TEXT, labelsize=9, pad=1)
    bar.outline.set_visible(False)
    bar.ax.set_title(name, color=_TEXT, fontsize=10, pad=3)


def _colour(level: Level) -> tuple[float, float, float]:
    red, green, blue = LEVEL_COLOURS[level]
    return red / 255, green / 255, blue / 255
