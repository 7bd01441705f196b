"""The cells of the page about registration: one disc's maps, det J, masks and images in one slice, with a scale bar."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from scipy import ndimage

from processing.display import DISPLAY_RANGES_MS
from processing.results import AtlasDisc, DiscMask, ExamResult, Level, Quantity, RegisteredDisc
from processing.transform_points import patient_index
from processing.volume import spacing_mm

TEXT, FAINT = "#f2f4f5", "#9aa5ad"
NUCLEUS_COLOUR, ANNULUS_COLOUR, MIDLINE_COLOUR, FOLDED_COLOUR = "#ffb000", "#64a8ff", "#ff5cad", "#ff0000"
QUANTITY_NAMES = {Quantity.T1RHO: "T1ρ", Quantity.T2: "T2"}
MAP_COLOURS, JACOBIAN_COLOURS = "viridis", "PuOr_r"
JACOBIAN = LogNorm(0.25, 4.0)
BAR_MM = 10.0
_EDGE = "#ffffff"
_MARGIN_MM = 4.0
_TILE_MM = 4.0
#: Deformed mask against the atlas: neither, the atlas alone, the patient alone, both.
_OVERLAY = ListedColormap(["#101418", "#64a8ff", "#ffb000", "#59636b"])
_Bool = npt.NDArray[np.bool_]
_Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """One slice of a grid with its edges in mm (left, right, bottom, top), as imshow takes them."""

    slice_index: int
    rows: slice
    columns: slice
    extent: tuple[float, float, float, float]

    def cut(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of an array (slices, rows, columns) that is shown."""
        return array[self.slice_index, self.rows, self.columns]


def native_grid(mask: DiscMask, level: Level) -> Grid:
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
    return Grid(slice_index, rows, columns, (0.0, width * column_mm, height * row_mm, 0.0))


def _atlas_grid(atlas: AtlasDisc) -> Grid:
    """The middle slice of an atlas disc; mm towards posterior and inferior from its centroid."""
    slices, n_rows, n_columns = atlas.mask.shape
    _, row_mm, column_mm = spacing_mm(atlas.affine)
    left = atlas.affine[1, 3] - column_mm / 2
    top = -atlas.affine[2, 3] - row_mm / 2
    extent = (left, left + n_columns * column_mm, top + n_rows * row_mm, top)
    return Grid(slices // 2, slice(None), slice(None), extent)


def _frame(axes: Axes, grid: Grid, title: str) -> None:
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
    x, y = right - 1.0 - BAR_MM, bottom - 0.05 * (bottom - top)
    axes.plot([x, x + BAR_MM], [y, y], color=TEXT, linewidth=2, solid_capstyle="butt")
    axes.set_title(title, color=TEXT, fontsize=9, pad=2.5, loc="left")


def _contour(axes: Axes, inside: npt.NDArray[Any], grid: Grid, colour: str, *, width: float = 1.1) -> None:
    if not (inside.any() and min(inside.shape) > 1):
        return
    left, right, bottom, top = grid.extent
    n_rows, n_columns = inside.shape
    x = left + (np.arange(n_columns) + 0.5) * (right - left) / n_columns
    y = top + (np.arange(n_rows) + 0.5) * (bottom - top) / n_rows
    axes.contour(x, y, inside.astype(np.float32), levels=[0.5], colors=[colour], linewidths=width)


def _show_times(axes: Axes, values: npt.NDArray[Any], quantity: Quantity, grid: Grid) -> None:
    colours = Normalize(*DISPLAY_RANGES_MS[quantity])
    shown = np.ma.masked_invalid(values)
    axes.imshow(shown, cmap=MAP_COLOURS, norm=colours, extent=grid.extent, interpolation="nearest")


def draw_native(axes: Axes, result: ExamResult, mask: DiscMask, level: Level, quantity: Quantity, grid: Grid) -> None:
    """The native map of a disc on the image, with the outline of its mask."""
    image = grid.cut(result.background.array)
    low, high = np.percentile(result.background.array, (1.0, 99.7))
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=grid.extent, interpolation="nearest")
    own = grid.cut(mask.levels) == level
    _show_times(axes, np.where(own, grid.cut(result.maps[quantity].time_ms), np.nan), quantity, grid)
    _contour(axes, own, grid, _EDGE)
    _frame(axes, grid, f"{QUANTITY_NAMES[quantity]}, slice {grid.slice_index + 1} of {len(mask.levels)}")


def draw_registered(axes: Axes, disc: RegisteredDisc, quantity: Quantity) -> None:
    """The map fitted in atlas space, with the parts of the atlas and its midline."""
    grid = _atlas_grid(disc.atlas)
    _show_times(axes, grid.cut(disc.maps[quantity].time_ms), quantity, grid)
    _draw_parts(axes, disc.atlas, grid)
    title = f"{QUANTITY_NAMES[quantity]}, slice {grid.slice_index + 1} of {len(disc.atlas.mask)}"
    _frame(axes, grid, title)


def _draw_parts(axes: Axes, atlas: AtlasDisc, grid: Grid) -> None:
    """Outline of the disc and of its nucleus, and the midline as far as the disc goes."""
    _contour(axes, grid.cut(atlas.mask) > 0, grid, _EDGE)
    _contour(axes, grid.cut(atlas.regions) == 1, grid, NUCLEUS_COLOUR)
    heights = np.flatnonzero(grid.cut(atlas.mask).any(axis=1))
    if len(heights):
        row_mm = spacing_mm(atlas.affine)[1]
        top = grid.extent[3]
        ends = [top + heights[0] * row_mm, top + (heights[-1] + 1) * row_mm]
        axes.plot([atlas.midline_mm] * 2, ends, color=MIDLINE_COLOUR, linewidth=1.2, linestyle=(0, (4, 2)))


def deformed_slice(disc: RegisteredDisc, result: ExamResult, mask: DiscMask) -> tuple[_Bool, _Float]:
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


def draw_jacobian(axes: Axes, disc: RegisteredDisc) -> None:
    """det J over the atlas disc, a colour scale that is logarithmic about 1; folded voxels are crossed."""
    grid = _atlas_grid(disc.atlas)
    inside = grid.cut(disc.atlas.mask) > 0
    jacobian = grid.cut(disc.alignment.jacobian)
    shown = np.ma.masked_where(~inside, np.clip(jacobian, 0.05, None))
    axes.imshow(shown, cmap=JACOBIAN_COLOURS, norm=JACOBIAN, extent=grid.extent, interpolation="nearest")
    _mark_folding(axes, inside & (jacobian <= 0), grid)
    _contour(axes, inside, grid, _EDGE)
    everywhere = disc.alignment.jacobian[disc.atlas.mask > 0]
    _frame(axes, grid, f"det J, mean {everywhere.mean():.2f}, {everywhere.min():.2f} to {everywhere.max():.2f}")


def _mark_folding(axes: Axes, folded: _Bool, grid: Grid) -> None:
    """A red cross on every voxel that the transform turns over."""
    left, right, bottom, top = grid.extent
    i, j = np.nonzero(folded)
    x = left + (j + 0.5) * (right - left) / folded.shape[1]
    y = top + (i + 0.5) * (bottom - top) / folded.shape[0]
    axes.plot(x, y, "x", color=FOLDED_COLOUR, markersize=5, markeredgewidth=1.6)


def draw_overlay(axes: Axes, disc: RegisteredDisc, deformed: _Bool) -> None:
    """Where the deformed mask and the atlas agree, and where one is alone."""
    grid = _atlas_grid(disc.atlas)
    inside = grid.cut(disc.atlas.mask) > 0
    kinds = inside + 2 * deformed.astype(int)
    axes.imshow(kinds, cmap=_OVERLAY, vmin=0, vmax=3, extent=grid.extent, interpolation="nearest")
    _frame(axes, grid, f"deformed mask on the atlas, Dice {disc.alignment.dice:.3f}")


def draw_chequers(axes: Axes, disc: RegisteredDisc, image: _Float) -> None:
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
