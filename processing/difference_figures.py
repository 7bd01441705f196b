"""Where in the discs a subject has changed: follow-up less baseline in atlas space, voxel by voxel."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from processing.atlas import NUCLEUS
from processing.common_voxels import DifferenceMap
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, FloatArray, LabelArray, Level, Quantity

_DPI = 150
_INK, _FAINT, _EMPTY = "#1b2530", "#66727d", "#e7eaed"
#: Neutral, and told apart by the colour-blind: less is blue, more is orange.
_COLOURS = LinearSegmentedColormap.from_list("change", ["#0b4a82", "#7fb2d9", "#ffffff", "#f0b067", "#b45309"])
_LEAST_RANGE_MS = 10.0
_BEYOND = 1.96


def share_beyond(one: DifferenceMap) -> float:
    """The share of voxels whose difference is beyond ±1.96 SD of the fits' noise; 5 % by chance; NaN without any."""
    z = one.z[np.isfinite(one.z)]
    return float((np.abs(z) > _BEYOND).mean()) if z.size else float("nan")


def draw_differences(
    quantity: Quantity,
    visits: Sequence[str],
    maps: Mapping[tuple[str, Level], DifferenceMap],
    regions: Mapping[Level, LabelArray],
) -> tuple[bytes, int, int]:
    """The middle slice of each disc at each visit. PNG, its width and height in pixels.

    Args:
        quantity: what the maps are of.
        visits: in order, without the baseline; one without maps stays empty.
        maps: of a visit and a level.
        regions: of the atlas disc of each level, on the grid of its maps.

    Raises:
        ValueError: there is no map.
    """
    if not maps:
        raise ValueError("there is no difference to show")
    levels = [level for level in reversed(LUMBAR_LEVELS) if level in regions]
    reach = max(_LEAST_RANGE_MS, *(_percentile(one.difference_ms) for one in maps.values()))
    width, height = 1.9 * len(visits) + 1.6, 0.82 * len(levels) + 0.9
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        *(len(levels), len(visits) + 1),
        width_ratios=(*[1.0] * len(visits), 0.06),
        left=0.6 / width,
        right=1 - 0.75 / width,
        top=1 - 0.65 / height,
        bottom=0.25 / height,
        wspace=0.06,
        hspace=0.25,
    )
    for row, level in enumerate(levels):
        for column, visit in enumerate(visits):
            axes = figure.add_subplot(grid[row, column])
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(False)
            if row == 0:
                axes.set_title(visit, fontsize=9, color=_INK, pad=4)
            if column == 0:
                axes.set_ylabel(LEVEL_NAMES[level], fontsize=8, color=_INK, rotation=0, ha="right", va="center")
            _panel(axes, maps.get((visit, level)), regions[level], reach)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-reach, reach), _COLOURS),
        cax=figure.add_subplot(grid[:, -1]),
        label=f"change of {QUANTITY_NAMES[quantity]}, ms",
    )
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.label.set_fontsize(8)
    figure.suptitle(f"{QUANTITY_NAMES[quantity]}: visit less baseline · {RESEARCH_USE_ONLY}", fontsize=9, color=_INK)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": "discnode"})
    return stream.getvalue(), round(width * _DPI), round(height * _DPI)


def _percentile(values: FloatArray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(np.percentile(finite, 98)) if finite.size else 0.0


def _panel(axes: Axes, one: DifferenceMap | None, regions: LabelArray, reach: float) -> None:
    """One disc: its change, edges of disc and nucleus (grey), and voxels beyond the noise of the fits (black)."""
    middle = int((regions > 0).sum(axis=(1, 2)).argmax())
    here = np.pad(regions[middle], 1)
    if one is None:
        axes.imshow(np.where(here > 0, 0.0, np.nan), cmap=ListedColormap([_EMPTY]))
        axes.text(0.5, 0.5, "no map", transform=axes.transAxes, ha="center", va="center", fontsize=7, color=_FAINT)
        return
    change = np.pad(one.difference_ms[middle], 1, constant_values=np.nan)
    axes.imshow(change, cmap=_COLOURS, vmin=-reach, vmax=reach, interpolation="nearest")
    beyond = np.pad(np.abs(np.nan_to_num(one.z[middle])) > _BEYOND, 1)
    for mask, colour, line in ((here > 0, _FAINT, 0.7), (here == NUCLEUS, _FAINT, 0.7), (beyond, "black", 0.5)):
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=colour, linewidths=line)
    share = share_beyond(one)
    if np.isfinite(share):
        mean = round(float(np.nanmean(one.difference_ms)), 1) + 0.0  # no "-0.0"
        text = f"{mean:+.1f} ms, {share:.0%} beyond noise"
        axes.set_xlabel(text, fontsize=6, color=_FAINT, labelpad=1)
