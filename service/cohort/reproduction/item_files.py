"""The files of an item of the paper: a figure as SVG, PDF and PNG, numbers as CSV; the label stands on each of them."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from processing.display import RESEARCH_USE_ONLY
from service.cohort.reproduction.records import LABEL
from service.cohort.reproduction.table_picture import draw_table
from service.reports.document import Picture, Table

#: Stands under every figure and in every caption and table.
LINE = f"{LABEL}. {RESEARCH_USE_ONLY}."

_PNG_DPI, _FILE_DPI = 150, 300  # of the report; of what is a picture within SVG and PDF
_GAP_IN, _LABEL_PT, _LABEL_IN = 0.06, 7, 3.2


class ItemUnavailable(Exception):
    """An item that cannot be made of this reproduction; the message says why, in words of the report."""


@dataclass(frozen=True, slots=True)
class ItemFolder:
    """Where the files of all items lie; a file's name begins with its item's key, as in ``fig5_A_T1rho.svg``."""

    path: Path

    def figure(self, name: str, figure: Figure, caption: str) -> Picture:
        """Write a figure in its three forms; returns it for the report, its caption labelled."""
        how: dict[str, Any] = {"bbox_inches": _signed(figure), "pad_inches": 0}
        with rc_context({"svg.hashsalt": "discnode"}):  # the same figure gives the same bytes
            figure.savefig(self.path / f"{name}.svg", metadata={"Date": None}, dpi=_FILE_DPI, **how)
        figure.savefig(self.path / f"{name}.pdf", metadata={"CreationDate": None}, dpi=_FILE_DPI, **how)
        held = io.BytesIO()
        figure.savefig(held, format="png", dpi=_PNG_DPI, metadata={"Software": "discnode"}, **how)
        (self.path / f"{name}.png").write_bytes(held.getvalue())
        with Image.open(held) as image:
            width, height = image.size
        said = f"{caption} {LINE}"
        return Picture(held.getvalue(), width, height, said, f"{said} Files: {name}.svg, .pdf, .png.")

    def table(self, name: str, table: Table) -> Table:
        """Write a table as a figure; returns it for the report, its note labelled. Its numbers: :meth:`numbers`."""
        self.figure(name, draw_table(table), table.heading)
        return replace(table, note=f"{table.note} {LINE} Files: {name}.csv, .svg, .pdf, .png.".lstrip())

    def numbers(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows as CSV; what is undefined stays empty. The last column says what the numbers are of."""
        held = list(rows)
        names = [*dict.fromkeys(name for row in held for name in row), "label"]
        with (self.path / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
            writer.writeheader()
            for row in held:
                writer.writerow({key: _text(value) for key, value in row.items()} | {"label": LINE})


def _signed(figure: Figure) -> Bbox:
    """Put the label below everything that is drawn; returns what is to be written, in inches.

    The layout is settled once: each of the three forms would do it again otherwise.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:  # held by the figure's edge: what is written is larger, and would move them
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    drawn = figure.get_tightbbox()
    assert drawn is not None  # a figure always has an edge
    y = (drawn.y0 - _GAP_IN) / figure.get_figheight()
    figure.text(0.005, y, LINE, ha="left", va="top", fontsize=_LABEL_PT, color="0.35")
    room = _GAP_IN + 1.5 * _LABEL_PT / 72
    return Bbox.from_extents(
        drawn.x0 - _GAP_IN, drawn.y0 - room - _GAP_IN, max(drawn.x1, _LABEL_IN) + _GAP_IN, drawn.y1 + _GAP_IN
    )


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value
