"""Bland-Altman plots of scans and rescans, one panel for each quantity and region."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from processing.display import LEVEL_COLOURS, LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES, RESEARCH_USE_ONLY
from processing.precision import Repeatability, Values
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region

_DPI = 180
_INK, _FAINT = "#1b2530", "#66727d"
_PANEL_INCHES = (2.3, 2.1)


def draw_repeats(
    values: Mapping[tuple[Quantity, Region], Values],
    levels: Mapping[tuple[Quantity, Region], Sequence[Level]],
    found: Sequence[Repeatability],
) -> tuple[bytes, int, int]:
    """PNG, its width and height in pixels: second less first scan over their mean, in ms, with limits of agreement.

    Args:
        values: (discs, scans) of each cell.
        levels: of each row.
        found: the results of the same cells, all levels together.
    """
    quantities = [one for one in Quantity if any(quantity is one for quantity, _ in values)]
    regions = [one for one in Region if any(region is one for _, region in values)]
    width, height = _PANEL_INCHES[0] * len(regions) + 0.6, _PANEL_INCHES[1] * len(quantities) + 1.0
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(quantities), len(regions), squeeze=False)
    by_cell = {(one.quantity, one.region): one for one in found if one.level is None}
    for row, quantity in enumerate(quantities):
        for column, region in enumerate(regions):
            axes = panels[row][column]
            cell = (quantity, region)
            if cell not in by_cell:
                axes.set_axis_off()
                continue
            _panel(axes, values[cell], levels[cell], by_cell[cell])
            axes.set_title(f"{QUANTITY_NAMES[quantity]}, {REGION_NAMES[region]}", color=_INK, fontsize=9)
            if column == 0:
                axes.set_ylabel("second − first scan, ms", fontsize=8, color=_INK)
            if row == len(quantities) - 1:
                axes.set_xlabel("mean of both, ms", fontsize=8, color=_INK)
    shown = [level for level in LUMBAR_LEVELS if any(level in one for one in levels.values())]
    handles = [
        panels[0][0].scatter([], [], s=22, color=[np.array(LEVEL_COLOURS[level]) / 255], label=LEVEL_NAMES[level])
        for level in shown
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(shown), frameon=False, fontsize=8)
    figure.suptitle(f"Scan and rescan · {RESEARCH_USE_ONLY}", fontsize=10, color=_INK)
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": "discnode"})
    return stream.getvalue(), round(width * _DPI), round(height * _DPI)


def _panel(axes: Axes, values: Values, levels: Sequence[Level], found: Repeatability) -> None:
    means, differences = values[:, :2].mean(axis=1), values[:, 1] - values[:, 0]
    colours = [np.array(LEVEL_COLOURS[level]) / 255 for level in levels]
    axes.axhline(0, color=_FAINT, linewidth=0.6)
    axes.scatter(means, differences, s=9, c=colours, alpha=0.85, linewidths=0.4, edgecolors="white")
    agreement = found.bland_altman
    for limit, style in (
        (agreement.bias_ms, "-"),
        (agreement.lower_limit_ms, "--"),
        (agreement.upper_limit_ms, "--"),
    ):
        if np.isfinite(limit.value):
            axes.axhline(limit.value, color=_INK, linewidth=1.0, linestyle=style)
        if np.isfinite(limit.low):
            axes.axhspan(limit.low, limit.high, color=_FAINT, alpha=0.13, linewidth=0)
    reach = 1.25 * max(
        np.abs(differences).max(), *(abs(one) for one in (agreement.lower_limit_ms.low, agreement.upper_limit_ms.high))
    )
    if np.isfinite(reach) and reach > 0:
        axes.set_ylim(-reach, reach)
    axes.tick_params(labelsize=7, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
