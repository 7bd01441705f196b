"""Figures of a trial's models: estimated means over visits, and the difference of groups by delta."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from processing.cohort.missing_data import MissingDataResult
from processing.cohort.visit_models import MeanRow
from processing.display import RESEARCH_USE_ONLY

#: Okabe and Ito (2008): told apart with every common colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_PANEL_IN = (2.7, 2.9)


def draw_visits(
    panels: Mapping[str, Sequence[MeanRow]], *, heading: str, label: str, zero: bool, confidence: float = 0.95
) -> Figure:
    """Estimated means of each group with their intervals over visits, a panel a level; n under each visit.

    Args:
        panels: rows of one level each, by the name shown over it.
        heading: over the figure.
        label: of the ordinate.
        zero: draw the line of no change.
        confidence: of the intervals, for the heading.
    """
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    groups = list(dict.fromkeys(row.group for rows in panels.values() for row in rows))
    width, height = _PANEL_IN[0] * max(n_columns, 1.6), _PANEL_IN[1] * n_rows + 0.5 + 0.13 * len(groups) * n_rows
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for place, (name, rows) in enumerate(panels.items()):
        _draw_panel(axes[place], rows, groups, zero=zero)
        axes[place].set_title(name, fontsize=8)
        if place % n_columns == 0:
            axes[place].set_ylabel(label, fontsize=8)
    for spare in axes[len(panels) :]:
        spare.axis("off")
    figure.suptitle(f"{heading}\nestimated means, {100 * confidence:g} % intervals", fontsize=9)
    _sign(figure)
    return figure


def draw_deltas(results: Sequence[MissingDataResult], names: Sequence[str], *, heading: str, alpha: float) -> Figure:
    """Pooled difference with its interval by delta, a panel a result; the tipping point as a line."""
    n_columns = min(len(results), 3)
    n_rows = -(-len(results) // n_columns)
    figure = Figure(
        figsize=(_PANEL_IN[0] * max(n_columns, 1.6), _PANEL_IN[1] * n_rows + 0.55), dpi=150, layout="constrained"
    )
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel, one, name in zip(axes, results, names, strict=False):
        delta = np.array([row.delta_ms for row in one.deltas])
        value, low, high = (
            np.array([getattr(row.pooled, key) for row in one.deltas]) for key in ("estimate", "low", "high")
        )
        panel.errorbar(
            delta, value, np.stack([value - low, high - value]), fmt="o-", ms=3.5, lw=1, capsize=2, color=_COLOURS[0]
        )
        panel.axhline(0, color="0.5", lw=0.8)
        if not one.n_imputed[0]:
            panel.set_title(f"{name}\nnothing to be imputed in {one.group}", fontsize=8)
        elif one.tipping_ms is not None:
            panel.axvline(one.tipping_ms, color=_COLOURS[1], lw=1, ls="--")
            panel.set_title(f"{name}\nP crosses {alpha:g} at {one.tipping_ms:.1f} ms", fontsize=8)
        else:
            panel.set_title(f"{name}\nP does not cross {alpha:g} within ±{one.searched_ms:.0f} ms", fontsize=8)
        panel.set_xlabel(f"delta added to imputed values of {one.group} (ms)", fontsize=7)
        panel.set_ylabel(f"{one.group} less {one.reference} (ms)", fontsize=8)
        _tidy(panel)
    for spare in axes[len(results) :]:
        spare.axis("off")
    interval = f"{100 * (1 - alpha):g} % intervals"
    figure.suptitle(f"{heading}\npooled differences, {interval}", fontsize=9)
    _sign(figure)
    return figure


def _draw_panel(axes: Axes, rows: Sequence[MeanRow], groups: Sequence[str], *, zero: bool) -> None:
    visits = list(dict.fromkeys(row.visit for row in rows))
    if zero:
        axes.axhline(0, color="0.6", lw=0.8)
    for index, group in enumerate(groups):
        mine = [row for row in rows if row.group == group]
        at = np.array([visits.index(row.visit) for row in mine]) + 0.12 * (index - (len(groups) - 1) / 2)
        value = np.array([row.estimate.estimate for row in mine])
        low, high = (np.array([getattr(row.estimate, key) for row in mine]) for key in ("low", "high"))
        colour = _COLOURS[index % len(_COLOURS)]
        axes.errorbar(
            at,
            value,
            np.stack([value - low, high - value]),
            fmt=f"{_MARKERS[index % len(_MARKERS)]}-",
            ms=4,
            lw=1.1,
            capsize=2.5,
            color=colour,
            label=group or None,
        )
        for place, row in enumerate(mine):
            axes.annotate(
                f"n = {row.n}",
                (place, 0),
                (0, -20 - 8 * index),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=6,
                color=colour,
                annotation_clip=False,
            )
    axes.set_xticks(range(len(visits)), visits)
    axes.set_xlim(-0.4, len(visits) - 0.6)
    if any(groups):
        axes.legend(fontsize=7, frameon=False)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _sign(figure: Figure) -> None:
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        foot = 0.13 / figure.get_figheight()
        engine.set(rect=(0, foot, 1, 1 - foot))
    figure.text(0.995, 0.005, RESEARCH_USE_ONLY, ha="right", va="bottom", fontsize=5, color="0.4")
