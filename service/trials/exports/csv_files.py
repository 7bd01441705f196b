"""Tables as CSV files (RFC 4180, UTF-8): yes and no as words, what is not there as an empty cell."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.trials.exports.columns import Row


def write_table(path: Path, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Write one table with a header; the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(row[name]) for name in names] for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)
