"""A table of a report as a figure, for those who need it as SVG, PDF or PNG."""

import textwrap

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from service.reports.document import Table

_SIZE_PT = 7.5
_CHAR_IN, _LINE_IN, _GAP_IN = 0.0605, 0.165, 0.18
_LONGEST = 58  # letters of a cell before it is broken
_INK, _FAINT = "#1b2530", "#5a6670"


def draw_table(table: Table) -> Figure:
    """The table: headings above a line, names at the left, numbers at the right, its note below."""
    heads = [one.heading for one in table.columns]
    cells = [[_broken(cell) for cell in (row.name, *row.cells)] for row in table.rows]
    widths = [
        max(_width_in(line) for cell in (head, *column) for line in cell.split("\n")) + _GAP_IN
        for head, column in zip(heads, zip(*cells, strict=True), strict=True)
    ]
    heights = [max(cell.count("\n") + 1 for cell in row) * _LINE_IN + 0.06 for row in cells]
    width = max(sum(widths), 4.5)
    note = textwrap.wrap(table.note, int(width / _CHAR_IN * 1.12))
    title = textwrap.wrap(table.heading, int(width / _CHAR_IN * 0.85))
    grouped = bool(table.groups)
    above = len(title) * 0.2 + (0.24 if grouped else 0.04) + 0.26
    height = above + sum(heights) + len(note) * 0.145 + 0.2
    figure = Figure(figsize=(width, height), dpi=150)
    figure.text(0, 1, "\n".join(title), fontsize=9, fontweight="bold", va="top", color=_INK)
    lefts = [sum(widths[:k]) / width for k in range(len(widths))]
    y = 1 - above / height
    if grouped:
        at = 0
        for name, span in table.groups:
            middle = (lefts[at] + (sum(widths[: at + span]) / width)) / 2
            figure.text(middle, y + 0.3 / height, name, fontsize=_SIZE_PT, ha="center", va="bottom", color=_INK)
            at += span
    for k, head in enumerate(heads):
        _place(figure, head, lefts[k], widths[k] / width, y + 0.05 / height, left=k == 0 or table.columns[k].is_text)
    _rule(figure, y, 0.8)
    for row, tall in zip(cells, heights, strict=True):
        for k, cell in enumerate(row):
            left = k == 0 or table.columns[k].is_text
            _place(figure, cell, lefts[k], widths[k] / width, y - 0.055 / height, left=left, top=True)
        y -= tall / height
    _rule(figure, y, 0.5)
    figure.text(0, y - 0.06 / height, "\n".join(note), fontsize=6.5, va="top", color=_FAINT)
    return figure


def _place(figure: Figure, text: str, x: float, width: float, y: float, *, left: bool, top: bool = False) -> None:
    figure.text(
        x if left else x + width,
        y,
        text,
        fontsize=_SIZE_PT,
        ha="left" if left else "right",
        va="top" if top else "bottom",
        color=_INK if top else _FAINT,
    )


def _rule(figure: Figure, y: float, width: float) -> None:
    figure.add_artist(Line2D((0, 1), (y, y), color=_FAINT, linewidth=width))


def _width_in(line: str) -> float:
    return sum(1.3 if letter.isupper() else 1.0 for letter in line) * _CHAR_IN


def _broken(cell: str) -> str:
    return "\n".join(textwrap.wrap(cell, _LONGEST)) or cell
