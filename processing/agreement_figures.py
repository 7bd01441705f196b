"""Figures of an evaluation, as in the paper: masks and probability (Fig 2), times (Fig 3), by grade (S3, S4)."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from processing.agreement import DiscTimes, times_agreement
from processing.display import LEVEL_COLOURS, LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, LabelArray, Level, Quantity

_DPI = 110
_INK, _FAINT, _POINT, _LINE = "#1b2530", "#66727d", "#1f5f99", "#c0392b"
_QUANTITY_NAMES = {Quantity.T1RHO: "T1ρ", Quantity.T2: "T2"}
_MARGIN_MM = 18.0  # shown around the discs


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The slice of an exam that shows most disc, cut out around its discs; all arrays (rows, columns) uint8.

    ``image`` and ``probability`` 0..255; ``manual`` and ``automatic`` :class:`Level` values; ``pixel_mm`` of rows and
    columns.
    """

    image: LabelArray
    manual: LabelArray
    automatic: LabelArray
    probability: LabelArray
    pixel_mm: tuple[float, float]


@dataclass(frozen=True, slots=True)
class GradedDisc:
    """One disc with its Pfirrmann grade; differences manual - automatic in ms, NaN where not measured."""

    grade: int
    level: Level
    dice: float
    msd_px: float
    difference_ms: dict[Quantity, float]


def take_picture(
    image: npt.NDArray[np.floating],
    manual: LabelArray,
    automatic: LabelArray,
    probability: npt.NDArray[np.floating],
    spacing_mm: tuple[float, float, float],
) -> Picture:
    """The picture of an exam; canonical arrays (slices, rows, columns), a disc L5S1 to L1L2 is in ``manual``."""
    # what lies above the measured discs is not compared
    manual, automatic = (np.where(one <= Level.L1L2, one, 0).astype(np.uint8) for one in (manual, automatic))
    k = int((manual > 0).sum(axis=(1, 2)).argmax())
    rows, columns = np.nonzero((manual[k] > 0) | (automatic[k] > 0))
    margin = [int(np.ceil(_MARGIN_MM / step)) for step in spacing_mm[1:]]
    box = (
        slice(max(int(rows.min()) - margin[0], 0), int(rows.max()) + margin[0]),
        slice(max(int(columns.min()) - margin[1], 0), int(columns.max()) + margin[1]),
    )
    cut = image[k][box].astype(np.float64)
    low, high = np.percentile(cut, (0.5, 99.5))
    grey = np.clip((cut - low) / max(high - low, 1e-9), 0, 1)
    return Picture(
        image=np.round(grey * 255).astype(np.uint8),
        manual=manual[k][box].copy(),
        automatic=automatic[k][box].copy(),
        probability=np.round(np.clip(probability[k][box], 0, 1) * 255).astype(np.uint8),
        pixel_mm=(spacing_mm[1], spacing_mm[2]),
    )


def draw_masks(pictures: Sequence[tuple[str, Picture]]) -> bytes:
    """Fig 2 as PNG: see :func:`masks_figure`."""
    return _png(masks_figure(pictures))


def masks_figure(pictures: Sequence[tuple[str, Picture]], *, reference: str = "manual") -> Figure:
    """Fig 2: one row for each titled picture: image, manual discs, automatic discs, probability of disc.

    ``reference``: what the automatic discs are held against.
    """
    tall = 4.0  # inches of a row; its panels are as wide as the widest cut needs
    shapes = [np.array(picture.image.shape) * picture.pixel_mm for _, picture in pictures]
    width = 4 * 0.95 * tall * max(float(columns_mm / rows_mm) for rows_mm, columns_mm in shapes) + 1.5
    height = tall * len(pictures) + 0.8
    figure = _figure(max(width, 6.0), height, f"Discs: {reference}, automatic and probability")
    grid = figure.add_gridspec(
        len(pictures),
        5,
        width_ratios=(1, 1, 1, 1, 0.08),
        left=0.06,
        right=0.94,
        top=1 - 0.75 / height,
        bottom=0.15 / height,
        wspace=0.04,
        hspace=0.04,
    )
    for row, (title, picture) in enumerate(pictures):
        height, width = (n * mm for n, mm in zip(picture.image.shape, picture.pixel_mm, strict=True))
        extent = (0.0, width, height, 0.0)
        drawn = None
        for column, name in enumerate(("image", reference, "automatic", "probability of disc")):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture.image, cmap="gray", extent=extent, interpolation="bilinear", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(name, color=_INK, fontsize=10)
            if column == 0:
                axes.set_ylabel(title, color=_INK, fontsize=9)
                _scale_bar(axes, width, height)
            if column in (1, 2):
                _outline(axes, picture.manual if column == 1 else picture.automatic, extent)
            if column == 3:
                share = np.ma.masked_less(picture.probability / 255.0, 0.02)
                drawn = axes.imshow(share, cmap="viridis", extent=extent, vmin=0, vmax=1, alpha=0.75)
        if drawn is not None:
            bar = figure.colorbar(drawn, cax=figure.add_subplot(grid[row, 4]))
            bar.ax.tick_params(labelsize=8)
    return figure


def draw_times(times: Sequence[DiscTimes], quantity: Quantity) -> bytes:
    """Fig 3 of one quantity as PNG: see :func:`times_figure`."""
    return _png(times_figure(times, quantity))


def times_figure(times: Sequence[DiscTimes], quantity: Quantity, *, reference: str = "manual") -> Figure:
    """Fig 3 of one quantity: manual against automatic and Bland-Altman, level by level and together."""
    name = _QUANTITY_NAMES[quantity]
    figure = _figure(15.0, 6.2, f"Mean {name} per disc, {reference} against automatic mask")
    grid = figure.add_gridspec(2, 6, left=0.05, right=0.99, top=0.88, bottom=0.1, wspace=0.12, hspace=0.32)
    own = [one for one in times if one.quantity is quantity and np.isfinite([one.manual_ms, one.automatic_ms]).all()]
    values = np.array([(one.manual_ms, one.automatic_ms) for one in own]).reshape(-1, 2)
    low, high = (values.min() - 5, values.max() + 5) if len(values) else (0.0, 1.0)
    differences = values[:, 0] - values[:, 1]
    tallest = max(5.0, 1.15 * float(np.abs(differences).max())) if len(values) else 1.0
    for column, level in enumerate((*LUMBAR_LEVELS, None)):
        chosen = [one for one in own if level in (None, one.level)]
        x, y = np.array([(one.manual_ms, one.automatic_ms) for one in chosen]).reshape(-1, 2).T
        agreement = times_agreement(chosen)
        above, below = figure.add_subplot(grid[0, column]), figure.add_subplot(grid[1, column])
        above.set_title(LEVEL_NAMES[level] if level else "all levels", color=_INK, fontsize=10)
        above.plot((low, high), (low, high), color=_FAINT, linewidth=0.8)
        above.scatter(x, y, s=14, color=_POINT, alpha=0.7, linewidths=0)
        above.set(xlim=(low, high), ylim=(low, high), xlabel=f"{name}, {reference} mask, ms")
        _note(above, f"r = {agreement.r:.3f}, n = {agreement.n}")
        below.scatter((x + y) / 2, x - y, s=14, color=_POINT, alpha=0.7, linewidths=0)
        below.axhline(0, color=_FAINT, linewidth=0.8)
        for height in (agreement.bias_ms, agreement.lower_limit_ms, agreement.upper_limit_ms):
            if np.isfinite(height):
                below.axhline(height, color=_LINE, linewidth=1, linestyle="-" if height == agreement.bias_ms else "--")
        below.set(xlim=(low, high), ylim=(-tallest, tallest), xlabel=f"mean of both {name}, ms")
        limits = f"({agreement.lower_limit_ms:.2f}, {agreement.upper_limit_ms:.2f})"
        _note(below, f"bias {agreement.bias_ms:+.2f} {limits} ms")
        if column == 0:
            above.set_ylabel(f"{name}, automatic mask, ms")
            below.set_ylabel(f"{reference} − automatic, ms")
        else:
            above.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
        _style(above, below)
    return figure


def draw_by_grade(discs: Sequence[GradedDisc]) -> bytes:
    """S3: overlap and surface distance by Pfirrmann grade. PNG."""
    panels = {
        "Dice coefficient": [one.dice for one in discs],
        "symmetric mean surface distance, pixels": [one.msd_px for one in discs],
    }
    return _png(by_grade_figure("Segmentation by Pfirrmann grade", [one.grade for one in discs], panels))


def by_grade_figure(
    title: str, grades: Sequence[int], panels: Mapping[str, Sequence[float]], *, zero: bool = False
) -> Figure:
    """Values of discs by their grade: a panel for each name on an axis; ``zero`` draws a line there."""
    figure = _figure(max(5.0 * len(panels), 5.0), 4.6, title)
    left, gap = 0.4 / len(panels) / 2.5, 0.24
    grid = figure.add_gridspec(1, len(panels), left=left, right=0.985, top=0.86, bottom=0.14, wspace=gap)
    for column, (name, values) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[0, column])
        if zero:
            axes.axhline(0, color=_FAINT, linewidth=0.8)
        _by_grade(axes, grades, values, name)
    return figure


def draw_differences_by_grade(discs: Sequence[GradedDisc]) -> bytes:
    """S4: difference of the measured times by Pfirrmann grade, one panel for each quantity that was measured. PNG."""
    panels = {
        f"{_QUANTITY_NAMES[one]} difference, ms": [disc.difference_ms.get(one, float("nan")) for disc in discs]
        for one in Quantity
        if any(one in disc.difference_ms for disc in discs)
    }
    title = "Manual − automatic time by Pfirrmann grade"
    return _png(by_grade_figure(title, [disc.grade for disc in discs], panels, zero=True))


def _by_grade(axes: Axes, grades: Sequence[int], values: Sequence[float], name: str) -> None:
    """Every disc as a point, with the box of its grade where there are three or more."""
    jitter = np.random.default_rng(0)  # only spreads the points sideways
    present = sorted(set(grades))
    labels = []
    for place, grade in enumerate(present):
        own = np.array([value for value, one in zip(values, grades, strict=True) if one == grade], np.float64)
        own = own[np.isfinite(own)]
        labels.append(f"{grade}\nn = {len(own)}")
        if len(own) >= 3:
            axes.boxplot([own], positions=[place], widths=0.45, showfliers=False, medianprops={"color": _LINE})
        spread = jitter.uniform(-0.15, 0.15, len(own))
        axes.scatter(place + spread, own, s=16, color=_POINT, alpha=0.7, linewidths=0, zorder=3)
    axes.set_xticks(range(len(present)), labels)
    axes.set_xlabel("Pfirrmann grade")
    axes.set_ylabel(name)
    _style(axes)


def _outline(axes: Axes, labels: LabelArray, extent: tuple[float, float, float, float]) -> None:
    """Each level's border in its colour, its name beside the largest ones."""
    for level in (one for one in Level if (labels == one).any()):
        own = labels == level
        colour = tuple(part / 255 for part in LEVEL_COLOURS[level])
        row_mm, column_mm = extent[2] / labels.shape[0], extent[1] / labels.shape[1]
        y = (np.arange(labels.shape[0]) + 0.5) * row_mm
        x = (np.arange(labels.shape[1]) + 0.5) * column_mm
        axes.contour(x, y, own.astype(float), levels=[0.5], colors=[colour], linewidths=1.2)
        rows, columns = np.nonzero(own)
        axes.text(
            float(x[columns.min()]) - 2,
            float(y[int(rows.mean())]),
            LEVEL_NAMES[level],
            color=colour,
            fontsize=7,
            ha="right",
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def _scale_bar(axes: Axes, width: float, height: float) -> None:
    axes.plot((width - 24, width - 4), (height - 5, height - 5), color="white", linewidth=2)
    axes.text(width - 14, height - 7, "20 mm", color="white", fontsize=7, ha="center")


def _note(axes: Axes, text: str) -> None:
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=8, color=_INK)


def _style(*panels: Axes) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=_INK)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.01, 1 - 0.12 / height, title, va="top", fontsize=12, color=_INK)
    figure.text(0.99, 1 - 0.12 / height, RESEARCH_USE_ONLY, va="top", ha="right", fontsize=9, color=_FAINT)
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": "discnode"})
    return stream.getvalue()
