"""Maps of one question on the spine, ways of analysis below each other: as published, and with its correction.

Every panel names its colour scale; the voxels that a row's control leaves are outlined in black.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from processing.cohort.analysis import LevelMaps
from processing.cohort.design import FloatArray
from processing.cohort.figures import Scale, draw_level, draw_spine
from processing.cohort.lattice import BoolArray
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
    """A figure of rows that have the same number of panels; who writes it puts what it is for below.

    Args:
        rows: one below the other.
        n_slices: central slices of each panel, side by side: 1 for maps of one slice, else usually 2.
        heading: over the figure.
    """
    width = len(rows[0].panels) * n_slices
    size = (max(_PANEL_IN[0] * width + 0.4, 5.0), (_PANEL_IN[1] + _ROW_IN) * len(rows) + _HEAD_IN)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(heading, fontsize=10)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for row, part in zip(rows, parts, strict=True):
        part.suptitle(row.title, fontsize=9, x=0.01, ha="left")
        axes = list(part.subplots(1, width, squeeze=False)[0])
        for place, panel in enumerate(row.panels):
            _draw_panel(axes[place * n_slices : (place + 1) * n_slices], panel, names=place == 0)
        shown = [(panel, axes[k * n_slices : (k + 1) * n_slices]) for k, panel in enumerate(row.panels)]
        for _, same in groupby(shown, key=lambda one: id(one[0].scale)):
            group = list(same)
            below = [one for _, own in group for one in own]
            bar = part.colorbar(
                ScalarMappable(group[0][0].scale.norm, group[0][0].scale.colours),
                ax=below,
                location="bottom",
                shrink=0.85 if len(below) < 3 else 0.5,
                aspect=26,
                pad=0.01,
                extend=group[0][0].extend,
            )
            bar.set_label(group[0][0].scale.label, fontsize=8)
            bar.ax.tick_params(labelsize=7)
    return figure


def _draw_panel(axes: Sequence[Axes], panel: Panel, *, names: bool) -> None:
    for index, one in enumerate(axes):
        draw_spine(one)
        for level in panel.levels.values():
            name = names and index == 0
            draw_level(one, level.maps, level.values, panel.scale, index, len(axes), level.survives, name=name)
        part = f", slice {index + 1} of the {len(axes)} central" if len(axes) > 1 else ""
        one.set_title(f"{panel.title}{part}", fontsize=7)
