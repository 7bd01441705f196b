"""How the values of one subject's discs run over the visits, with the limits of measurement error as a band."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Change, ChangeVerdict, Observation

_DPI = 150
_WIDTH_IN = 10.6
_ROW_IN = 1.75
_INK, _FAINT, _LINE = "#1b2530", "#5a6670", "#d5dce2"
_BLUE, _BAND, _ORANGE = "#1f5f99", "#c6dbef", "#d9730d"  # told apart with every common colour blindness
_FROM_ABOVE = tuple(reversed(LUMBAR_LEVELS))
_BEYOND = (ChangeVerdict.DECREASE, ChangeVerdict.INCREASE)


@dataclass(frozen=True, slots=True)
class Course:
    """One disc's values: ``observations`` in the order of the visits, ``changes`` of those after the baseline."""

    level: Level
    quantity: Quantity
    region: Region
    observations: tuple[Observation, ...]
    changes: tuple[Change, ...]


def draw_courses(courses: Sequence[Course], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """A row of panels for each quantity and region, levels from above at the left; (rows, 1590, 3) uint8 sRGB.

    The band is where a value lies within measurement error of the baseline; it is as wide as the limits of each visit.
    A visit without a value breaks the line and is marked at its day.

    Args:
        courses: of any levels, quantities and regions.
        names: of the visits, in order, written at the lowest row.
    """
    kinds = list(dict.fromkeys((one.quantity, one.region) for one in courses))
    height_in = 0.52 + _ROW_IN * len(kinds)
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, facecolor="#ffffff")
    canvas = FigureCanvasAgg(figure)
    cells = figure.subplots(
        len(kinds),
        len(_FROM_ABOVE),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={
            "left": 0.058,
            "right": 0.995,
            "top": 1 - 0.26 / height_in,
            "bottom": 0.44 / height_in,
            "wspace": 0.06,
            "hspace": 0.12,
        },
    )
    for row, (quantity, region) in enumerate(kinds):
        for column, level in enumerate(_FROM_ABOVE):
            axes = cells[row][column]
            own = [one for one in courses if (one.level, one.quantity, one.region) == (level, quantity, region)]
            _frame(axes, is_first=column == 0)
            if own:
                _draw(axes, own[0])
            if row == 0:
                axes.set_title(LEVEL_NAMES[level], fontsize=11, color=_INK, fontweight="bold", pad=4)
            if column == 0:
                label = f"{QUANTITY_NAMES[quantity]}, {REGION_NAMES[region]} (ms)"
                axes.set_ylabel(label, fontsize=9, color=_INK)
        _name_visits(cells[row], courses, names, last=row == len(kinds) - 1)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _frame(axes: Axes, *, is_first: bool) -> None:
    axes.tick_params(colors=_FAINT, labelsize=8.5, length=2)
    axes.tick_params(axis="y", length=2 if is_first else 0)
    axes.grid(visible=True, axis="y", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(_LINE)


def _draw(axes: Axes, course: Course) -> None:
    judged = {one.visit: one for one in course.changes}
    _band(axes, course, judged)
    # NaN breaks the line: nobody shall read a course into a visit that was not there
    days = [one.day for one in course.observations]
    values = [np.nan if one.value_ms is None else one.value_ms for one in course.observations]
    axes.plot(days, values, color=_BLUE, linewidth=1.3, zorder=3)
    for one in course.observations:
        if one.value_ms is None:
            place = axes.get_xaxis_transform()
            axes.plot([one.day], [0.06], marker="x", color=_FAINT, markersize=5, transform=place, clip_on=False)
            continue
        change = judged.get(one.visit)
        axes.plot([one.day], [one.value_ms], zorder=4, **_mark(change))


def _mark(change: Change | None) -> dict[str, Any]:
    """Filled blue: baseline or within the limits; orange diamond: beyond them, whichever way; hollow: not judged."""
    if change is None or change.verdict is ChangeVerdict.WITHIN:
        return {"marker": "o", "color": _BLUE, "markersize": 5}
    if change.verdict in _BEYOND:
        return {"marker": "D", "color": _ORANGE, "markersize": 6}
    return {"marker": "o", "color": _BLUE, "markersize": 6, "markerfacecolor": "#ffffff"}


def _band(axes: Axes, course: Course, judged: dict[str, Change]) -> None:
    """From the baseline on, as wide at each visit as its limits; a step half-way to the next one."""
    baseline = next((one.baseline_ms for one in course.changes if one.baseline_ms is not None), None)
    if baseline is None:
        return
    bounds = [
        (one.day, baseline + change.lower_limit_ms, baseline + change.upper_limit_ms)
        for one in course.observations
        if (change := judged.get(one.visit)) is not None
        and change.lower_limit_ms is not None
        and change.upper_limit_ms is not None
    ]
    axes.axhline(baseline, color=_FAINT, linewidth=0.7, linestyle=(0, (3, 3)), zorder=2)
    if not bounds:
        return
    days = [one.day for one in course.observations]
    edges = [min(days), *((one[0] + other[0]) / 2 for one, other in pairwise(bounds)), max(days)]
    for (_, low, high), (start, end) in zip(bounds, pairwise(edges), strict=True):
        axes.fill_between([start, end], [low, low], [high, high], color=_BAND, linewidth=0, zorder=1)


def _name_visits(cells: Sequence[Axes], courses: Sequence[Course], names: Sequence[str], *, last: bool) -> None:
    """The visits' names below the lowest row, at their days; one that would lie on its neighbour stands lower."""
    days = {one.visit: one.day for course in courses for one in course.observations}
    shown = sorted((name for name in names if name in days), key=days.__getitem__)
    span = max(max(days.values()) - min(days.values()), 1) if days else 1
    labels: list[str] = []
    for at, name in enumerate(shown):
        is_near = at > 0 and days[name] - days[shown[at - 1]] < 0.16 * span and not labels[-1].startswith("\n")
        labels.append(("\n" if is_near else "") + _short(name))
    for axes in cells:
        axes.set_xticks([days[name] for name in shown], labels if last else [""] * len(shown))
        axes.set_xlim(min(days.values()) - 0.07 * span, max(days.values()) + 0.07 * span)


def _short(name: str) -> str:
    """A visit's name as it fits below an axis; unscheduled ones as u, u2, u3."""
    if name.startswith("unscheduled"):
        return f"u{name.removeprefix('unscheduled').strip()}"
    return name if len(name) <= 7 else f"{name[:6]}…"
