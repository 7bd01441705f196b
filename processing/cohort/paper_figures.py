"""Maps of one question on the spine, ways of analysis below each other: as published, and with its correction.

Every panel names its colour scale; the voxels that a row's control leaves are outlined in black.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from processing.cohort.design import FloatArray
from processing.cohort.figures import Scale, draw_level, draw_spine
from processing.cohort.lattice import BoolArray
from processing.cohort.level_maps import LevelMaps
from processing.results import Level

_PANEL_IN = (1.75, 3.9)
_HEAD_IN, _ROW_IN = 0.35, 0.95

#: The scales of the paper's Fig 7: what lies below .5, or above .005, is shown as the end of the scale.
CLOSE_EFFECT = Scale("r", "viridis", Normalize(0.5, 1.0))
CLOSE_P = Scale("P", "viridis_r", Normalize(0.0, 0.005))


@dataclass(frozen=True, slots=True, eq=False)
class ShownLevel:
    """One level of a panel: ``values`` (voxels,) on the grid of ``maps``; ``survives`` (voxels,), None: no outline."""

    maps: LevelMaps
    values: FloatArray
    survives: BoolArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One quantity at all levels; it takes as many spines as slices are shown."""

    title: str
    scale: Scale
    levels: Mapping[Level, ShownLevel]
    extend: str = "neither"


@dataclass(frozen=True, slots=True, eq=False)
class PanelRow:
    """One way of analysis."""

    title: str
    panels: tuple[Panel, ...]


def draw_rows(rows: Sequence[PanelRow], *, n_slices: int, heading: str) -> Figure:
    """A figure of ways that have the same number of panels; who writes it puts what it is for below.

    Args:
        rows: one below the other; side by side where one slice is shown.
        n_slices: central slices of each panel, side by side: 1 for maps of one slice, else usually 2.
        heading: over the figure.
    """
    width = len(rows[0].panels) * n_slices
    across, down = (len(rows), 1) if n_slices == 1 else (1, len(rows))
    size = (max(_PANEL_IN[0] * width * across + 0.4, 5.0), (_PANEL_IN[1] + _ROW_IN) * down + _HEAD_IN)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(heading, fontsize=10)
    parts = figure.subfigures(down, across, squeeze=False, wspace=0.03).ravel()
    for row, part in zip(rows, parts, strict=True):
        part.suptitle(row.title, fontsize=8.5, x=0.01, ha="left")
        _draw_row(row, part, n_slices)
    return figure


def _draw_row(row: PanelRow, part: SubFigure, n_slices: int) -> None:
    """The panels of one way; neighbours of one scale have one bar."""
    axes = list(part.subplots(1, len(row.panels) * n_slices, squeeze=False)[0])
    shown = [(panel, axes[k * n_slices : (k + 1) * n_slices]) for k, panel in enumerate(row.panels)]
    for place, (panel, own) in enumerate(shown):
        _draw_panel(own, panel, names=place == 0)
    for _, same in groupby(shown, key=lambda one: id(one[0].scale)):
        group = list(same)
        panel, below = group[0][0], [one for _, own in group for one in own]
        bar = part.colorbar(
            ScalarMappable(panel.scale.norm, panel.scale.colours),
            ax=below,
            location="bottom",
            extend=panel.extend,
            shrink=0.85 if len(below) < 3 else 0.5,
            aspect=26,
            pad=0.01,
        )
        bar.set_label("\n".join(wrap(panel.scale.label, 15 * len(below))), fontsize=8)
        bar.ax.tick_params(labelsize=7)


def _draw_panel(axes: Sequence[Axes], panel: Panel, *, names: bool) -> None:
    for index, one in enumerate(axes):
        draw_spine(one)
        for level in panel.levels.values():
            name = names and index == 0
            draw_level(one, level.maps, level.values, panel.scale, index, len(axes), level.survives, name=name)
        for voxels in one.collections:  # thousands; edges, outlines and letters stay lines
            voxels.set_rasterized(isinstance(voxels, PolyCollection))
        part = f"\nslice {index + 1} of {len(axes)}" if len(axes) > 1 else ""
        one.set_title(f"{panel.title}{part}", fontsize=7)
