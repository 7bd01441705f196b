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
from PIL import Image

from processing.display import RESEARCH_USE_ONLY
from service.cohort.reproduction.records import LABEL
from service.cohort.reproduction.table_picture import draw_table
from service.reports.document import Picture, Table

#: Stands under every figure and in every caption and table.
LINE = f"{LABEL}. {RESEARCH_USE_ONLY}."

_PNG_DPI = 150
_GAP_IN = 0.06


class ItemUnavailable(Exception):
    """An item that cannot be made of this reproduction; the message says why, in words of the report."""


@dataclass(frozen=True, slots=True)
class ItemFolder:
    """Where the files of all items lie; a file's name begins with its item's key, as in ``fig5_A_T1rho.svg``."""

    path: Path

    def figure(self, name: str, figure: Figure, caption: str) -> Picture:
        """Write a figure in its three forms; returns it for the report, its caption labelled."""
        _sign(figure)
        how: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.06}
        with rc_context({"svg.hashsalt": "discnode"}):  # the same figure gives the same bytes
            figure.savefig(self.path / f"{name}.svg", metadata={"Date": None}, **how)
        figure.savefig(self.path / f"{name}.pdf", metadata={"CreationDate": None}, **how)
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


def _sign(figure: Figure) -> None:
    """The label below everything that is drawn."""
    figure.draw_without_rendering()
    lowest_in = figure.get_tightbbox().y0  # inches
    y = (lowest_in - _GAP_IN) / figure.get_figheight()
    figure.text(0.005, y, LINE, ha="left", va="top", fontsize=7, color="0.35", in_layout=False)


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value
