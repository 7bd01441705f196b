"""A control chart as a picture: all vials together with their weighted mean, and each vial, over the days."""

import io
from collections.abc import Sequence
from datetime import date

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from processing.control_chart import Chart, PhantomVerdict, common_half_widths, ewma_half_widths
from processing.display import QUANTITY_NAMES
from processing.results import Quantity

_DPI = 120
_INK, _FAINT, _BAND = "#1b2530", "#66727d", "#56b4e9"
_EWMA = "#0072b2"
_LOOKS = {
    PhantomVerdict.OK: ("o", "#1b2530", "ok"),
    PhantomVerdict.WARNING: ("^", "#e69f00", "warning"),
    PhantomVerdict.HOLD: ("s", "#d55e00", "hold"),
}
_VIAL_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000")


def draw_chart(chart: Chart, days: Sequence[date], events: Sequence[tuple[date, str]] = ()) -> tuple[bytes, int, int]:
    """A PNG of the chart, its width and height in pixels: one row for each quantity.

    Args:
        chart: of at least one scan.
        days: one for each scan, in order.
        events: days on which something was changed, with words.

    Raises:
        ValueError: no scans.
    """
    quantities = sorted(chart.common, reverse=True, key=lambda one: one == Quantity.T1RHO.value)
    if not quantities:
        raise ValueError("a chart without scans has no picture")
    at_days = [float(date2num(day)) for day in days]
    at_events = [(float(date2num(day)), words) for day, words in events]
    height_in = 3.1 * len(quantities)
    figure = Figure(figsize=(11.0, height_in), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(quantities), 2, squeeze=False, sharex=True)
    figure.subplots_adjust(
        left=0.07, right=0.985, top=1 - 0.32 / height_in, bottom=0.4 / height_in, wspace=0.16, hspace=0.28
    )
    for (left, right), quantity in zip(panels, quantities, strict=True):
        name = QUANTITY_NAMES[Quantity(quantity)]
        _draw_common(left, chart, quantity, at_days)
        left.set_title(f"{name}: mean of all vials", fontsize=10, color=_INK, loc="left")
        _draw_vials(right, chart, quantity, at_days)
        right.set_title(f"{name}: each vial", fontsize=10, color=_INK, loc="left")
        for axes in (left, right):
            _finish(axes, at_events)
    panels[0][0].legend(fontsize=7, loc="best", frameon=False, ncols=2)
    canvas.draw()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": "discnode"})
    columns, rows = canvas.get_width_height()
    return stream.getvalue(), columns, rows


def _draw_common(axes: Axes, chart: Chart, quantity: str, days: Sequence[float]) -> None:
    percent = 100 * (chart.common[quantity] - 1)
    limits = chart.common_limits.get(quantity)
    n = chart.rules.min_scans
    if limits is not None and len(days) > n:
        later = days[n:]
        middle = 100 * (limits.mean - 1)
        for half, alpha, words in zip(common_half_widths(chart, quantity), (0.28, 0.14), ("2 SD", "3 SD"), strict=True):
            span = [later[0], later[-1]]
            axes.fill_between(
                span, middle - 100 * half, middle + 100 * half, color=_BAND, alpha=alpha, lw=0, label=words
            )
        ewma = 100 * (chart.ewma[quantity][n:] - 1)
        axes.plot(later, ewma, color=_EWMA, lw=1.6, label="weighted mean")
        held = 100 * np.array(ewma_half_widths(chart, quantity))
        axes.plot(later, middle + held, color=_EWMA, lw=0.8, ls=":", label="its 3 SD")
        axes.plot(later, middle - held, color=_EWMA, lw=0.8, ls=":")
    axes.plot(days, percent, color=_FAINT, lw=0.7, zorder=2)
    for verdict, (marker, colour, words) in _LOOKS.items():
        chosen = [at for at, one in enumerate(chart.judgements) if one.verdict is verdict]
        if chosen:
            axes.scatter(
                [days[at] for at in chosen], percent[chosen], marker=marker, color=colour, s=22, zorder=3, label=words
            )
    if len(days) >= n:
        axes.axvspan(days[0], days[n - 1], color=_FAINT, alpha=0.08, lw=0)
        axes.annotate(
            "sets the limits",
            (days[0], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -9),
            textcoords="offset points",
            fontsize=7,
            color=_FAINT,
        )


def _draw_vials(axes: Axes, chart: Chart, quantity: str, days: Sequence[float]) -> None:
    n = chart.rules.min_scans
    vials = [key for key in chart.values if key[1] == quantity]
    for at, key in enumerate(vials):
        values = chart.values[key]
        percent = 100 * (values / values[: n if len(values) >= n else len(values)].mean() - 1)
        axes.plot(days, percent, marker=".", ms=4, lw=0.8, color=_VIAL_COLOURS[at % len(_VIAL_COLOURS)], label=key[0])
    for share, style in ((chart.rules.warn_share, "--"), (chart.rules.hold_share, "-")):
        for sign in (-1, 1):
            axes.axhline(sign * 100 * share, color=_LOOKS[PhantomVerdict.HOLD][1], lw=0.8, ls=style)
    axes.legend(fontsize=7, loc="upper left", frameon=False, ncols=min(len(vials), 6))


def _finish(axes: Axes, events: Sequence[tuple[float, str]]) -> None:
    axes.axhline(0, color=_FAINT, lw=0.6)
    axes.set_ylabel("% from the mean", fontsize=8, color=_INK)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -1.0), max(high, 1.0) + 0.12 * (max(high, 1.0) - min(low, -1.0)))
    axes.tick_params(labelsize=8, colors=_INK, labelbottom=True)
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for day, words in events:
        axes.axvline(day, color=_INK, lw=0.8, ls="-.")
        axes.annotate(words, (day, 0.02), xycoords=("data", "axes fraction"), fontsize=6, rotation=90, color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
