"""Figures of a cohort: maps of effects and of P on the spine, significance as an outline, subjects told.

Figures are vector graphics where they are lines and voxels; the spine behind them is a picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from processing.cohort.analysis import MapAnalysis
from processing.cohort.design import FloatArray
from processing.cohort.inference import CONTROL_NAMES, Control
from processing.cohort.level_maps import LevelMaps
from processing.cohort.spine import SpineView, spine_view
from processing.display import LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import Level

_EFFECTS = "RdBu_r"
_PROBABILITIES = "viridis_r"
_TIMES = "magma"
_SMALLEST_P = 1e-4
_PANEL_IN = (1.75, 4.1)


@dataclass(frozen=True, slots=True)
class Scale:
    """How values become colours."""

    label: str
    colours: str
    norm: Normalize


def effect_scale(analyses: Sequence[MapAnalysis]) -> Scale:
    """r from -1 to 1; ms symmetric about zero, as far as 98 % of the voxels go."""
    return effect_scale_of(analyses[0].kind, np.concatenate([one.effect for one in analyses]))


def effect_scale_of(kind: str, effects: FloatArray) -> Scale:
    """The same of effects of any number of voxels; ``kind``: r, or ms."""
    if kind == "r":
        return Scale("r", _EFFECTS, Normalize(-1, 1))
    values = np.abs(effects[np.isfinite(effects)])
    most = float(np.quantile(values, 0.98)) if len(values) else 1.0
    return Scale("difference (ms)", _EFFECTS, Normalize(-max(most, 1e-3), max(most, 1e-3)))


def times_scale(times_ms: FloatArray) -> Scale:
    """Means of groups in ms, as far as the middle 96 % of the voxels go."""
    low, high = (float(one) for one in np.nanquantile(times_ms, (0.02, 0.98)))
    return Scale("mean (ms)", _TIMES, Normalize(low, max(high, low + 1)))


def p_scale() -> Scale:
    """P from 1e-4 to 1, on a logarithmic scale; smaller ones are shown as 1e-4."""
    return Scale("P", _PROBABILITIES, LogNorm(_SMALLEST_P, 1.0))


def draw_maps(
    analyses: Mapping[Level, MapAnalysis],
    control: Control,
    *,
    alpha: float = 0.05,
    n_slices: int = 2,
    heading: str = "",
) -> Figure:
    """Effect and P of one question at all levels, in the central slices, on the spine.

    Voxels that survive ``control`` are outlined in black.

    Args:
        analyses: of one quantity, by level.
        control: whose survivors are outlined.
        alpha: of the control.
        n_slices: 1 for maps of one slice, else the central two are usual.
        heading: over the figure.
    """
    ordered = [analyses[level] for level in sorted(analyses)]
    scales = (effect_scale(ordered), p_scale())
    if control is Control.UNCORRECTED:
        outlined = f"outline: P ≤ {alpha:g}, NOT corrected for the number of voxels"
    else:
        outlined = f"outline: P ≤ {alpha:g}, {CONTROL_NAMES[control]}"
    slices = range(min(n_slices, max(one.maps.regions.shape[0] for one in ordered)))
    figure = Figure(figsize=(_PANEL_IN[0] * 2 * len(slices) + 1.2, _PANEL_IN[1] + 1.0), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2 * len(slices), squeeze=False)[0]
    for place, scale in enumerate(scales):
        group = panels[place * len(slices) : (place + 1) * len(slices)]
        for index, axes in enumerate(group):
            draw_spine(axes)
            for analysis in ordered:
                values = analysis.effect if place == 0 else analysis.inference.p[Control.UNCORRECTED]
                survives = analysis.inference.survives(control, alpha) if control in analysis.inference.p else None
                draw_level(axes, analysis.maps, values, scale, index, len(slices), survives, name=index == 0)
        figure.colorbar(
            ScalarMappable(scale.norm, scale.colours),
            ax=list(group),
            location="bottom",
            shrink=0.8,
            aspect=28,
            pad=0.01,
        ).set_label(scale.label if place == 0 else "P of the voxel, uncorrected", fontsize=8)
    n = sorted({int(one.n.max()) for one in ordered})
    counts = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    figure.suptitle(f"{heading or ordered[0].title}\n{counts}; {outlined}", fontsize=9)
    sign(figure)
    return figure


def draw_groups(
    analyses: Mapping[Level, MapAnalysis], names: tuple[str, str], *, n_slices: int = 1, heading: str = ""
) -> Figure:
    """Mean maps of two groups side by side, in ms, on one scale.

    Raises:
        ValueError: no groups were compared.
    """
    ordered = [analyses[level] for level in sorted(analyses)]
    groups = [one.groups for one in ordered]
    known = [one for one in groups if one is not None]
    if len(known) < len(ordered):
        raise ValueError("no groups were compared")
    scale = times_scale(np.concatenate([one.means.ravel() for one in known]))
    figure = Figure(figsize=(_PANEL_IN[0] * 2 * n_slices + 0.8, _PANEL_IN[1] + 0.9), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2 * n_slices, squeeze=False)[0]
    for place, axes in enumerate(panels):
        draw_spine(axes)
        which, index = divmod(place, n_slices)
        for analysis, group in zip(ordered, known, strict=True):
            draw_level(axes, analysis.maps, group.means[which], scale, index, n_slices, None, name=place == 0)
        n = sorted({int(one.ns[which].max()) for one in known})
        axes.set_title(f"{names[which]} (n = {n[0]}{f' to {n[-1]}' if len(n) > 1 else ''})", fontsize=8)
    figure.colorbar(
        ScalarMappable(scale.norm, scale.colours), ax=list(panels), location="bottom", shrink=0.6, label=scale.label
    )
    figure.suptitle(heading or ordered[0].title, fontsize=9)
    sign(figure)
    return figure


def draw_spine(axes: Axes) -> None:
    """The cut spine behind the maps."""
    view = spine_view()
    shown = np.where(np.isnan(view.grey), 1.0, view.grey)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=view.extent_mm, interpolation="bilinear", rasterized=True)
    axes.set_xlim(view.extent_mm[0] - 4, view.extent_mm[1] - 22)
    axes.set_ylim(-118, 72)
    axes.set_aspect("equal")
    axes.axis("off")


def draw_level(
    axes: Axes,
    maps: LevelMaps,
    values: FloatArray,
    scale: Scale,
    index: int,
    n_slices: int,
    survives: npt.NDArray[np.bool_] | None,
    *,
    name: bool,
) -> None:
    """The voxels of one level on the spine, survivors outlined: slice ``index`` of the ``n_slices`` central ones."""
    view = spine_view()
    regions = maps.regions
    middle = (regions.shape[0] - 1) / 2
    at = int(np.clip(round(middle - (n_slices - 1) / 2 + index), 0, regions.shape[0] - 1))
    picture = np.full(regions.shape, np.nan)
    picture[regions > 0] = values
    inside = regions[at] > 0
    corners = _corners(maps, view)
    rows, columns = np.nonzero(inside & np.isfinite(picture[at]))
    squares = np.stack([corners[rows + i, columns + j] for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))], axis=1)
    axes.add_collection(
        PolyCollection(
            list(squares),
            array=picture[at][rows, columns],
            cmap=scale.colours,
            norm=scale.norm,
            edgecolors="face",
            linewidths=0.2,
        )
    )
    axes.add_collection(LineCollection(_edges(inside, corners), colors="0.35", linewidths=0.4))
    if survives is not None and survives.any():
        chosen = np.zeros(regions.shape, bool)
        chosen[regions > 0] = survives
        axes.add_collection(LineCollection(_edges(chosen[at], corners), colors="black", linewidths=1.0))
    if name:
        front = corners[regions.shape[1] // 2, 0]
        axes.annotate(
            LEVEL_NAMES[maps.level], front, (-2, 0), textcoords="offset points", ha="right", va="center", fontsize=6
        )


def _corners(maps: LevelMaps, view: SpineView) -> FloatArray:
    """Corners of a slice's voxels in the picture: (rows + 1, columns + 1, 2). The grid's middle is the disc's."""
    _, n_rows, n_columns = maps.regions.shape
    _, row_mm, column_mm = maps.spacing_mm
    inside = np.argwhere(maps.regions > 0)
    centre = inside.mean(axis=0)
    rows = (np.arange(n_rows + 1) - 0.5 - centre[1]) * row_mm
    columns = (np.arange(n_columns + 1) - 0.5 - centre[2]) * column_mm
    local = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    return view.on_disc(maps.level, local)


def _edges(inside: npt.NDArray[np.bool_], corners: FloatArray) -> list[FloatArray]:
    """Sides of voxels between in and out."""
    padded = np.pad(inside, 1)
    lines = [
        np.stack([corners[i, j], corners[i, j + 1]]) for i, j in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    ]
    lines += [
        np.stack([corners[i, j], corners[i + 1, j]]) for i, j in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    ]
    return lines


def sign(figure: Figure) -> None:
    """What stands on every figure."""
    figure.text(0.995, 0.005, RESEARCH_USE_ONLY, ha="right", va="bottom", fontsize=5, color="0.4")
