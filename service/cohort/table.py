"""The table of scans: a row for each, checked before anything is computed; faults name row, column and rule."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NEEDED = ("subject", "visit", "result")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "."})


class CohortError(Exception):
    """The cohort cannot be analysed as it is; one fault a line."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One row: ``line`` of the file, whose scan, which visit, where its result lies, and what else is known of it."""

    line: int
    subject: str
    visit: str
    result: Path
    values: dict[str, str]

    def number(self, column: str) -> float:
        """A number of the row; NaN where it is missing.

        Raises:
            CohortError: something stands there that is no number.
        """
        text = self.values[column].strip()
        if text.lower() in _MISSING:
            return math.nan
        try:
            value = float(text)
        except ValueError as error:
            raise CohortError(f"line {self.line}: {column}: {text!r} is not a number") from error
        if not math.isfinite(value):
            raise CohortError(f"line {self.line}: {column}: {text!r} is not a finite number")
        return value


@dataclass(frozen=True, slots=True)
class CohortTable:
    """All rows, and the names of the further columns."""

    scans: tuple[Scan, ...]
    columns: tuple[str, ...]

    def at(self, visit: str) -> tuple[Scan, ...]:
        """The scans of a visit, or all where ``visit`` is empty; one for each subject.

        Raises:
            CohortError: no scan, or a subject has two: they are not independent.
        """
        found = tuple(one for one in self.scans if not visit or one.visit == visit)
        if not found:
            visits = ", ".join(sorted({one.visit for one in self.scans if one.visit})) or "none named"
            raise CohortError(f"no scan of the visit {visit!r}; there are {visits}")
        lines: dict[str, list[int]] = {}
        for one in found:
            lines.setdefault(one.subject, []).append(one.line)
        twice = [f"{subject} (lines {', '.join(map(str, at))})" for subject, at in lines.items() if len(at) > 1]
        if twice:
            rule = "scans of one subject are not independent: name a visit, or set paper: true to do as published"
            raise CohortError(f"more than one scan of {'; '.join(twice)}: {rule}")
        return found

    def check_columns(self, columns: Sequence[str]) -> None:
        """Pass if all are there.

        Raises:
            CohortError: one is not.
        """
        for column in columns:
            if column not in self.columns:
                raise CohortError(f"unknown column {column!r}; there are {', '.join(self.columns) or 'none'}")


def read_table(path: Path) -> CohortTable:
    """Read a table (CSV, UTF-8). Folders of results are taken from the table's folder.

    Raises:
        CohortError: naming the line and what is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = tuple(name.strip() for name in reader.fieldnames or ())
            rows = [(reader.line_num, dict(row)) for row in reader]
    except OSError as error:
        raise CohortError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise CohortError(f"{path}: is not CSV in UTF-8: {error}") from error
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise CohortError(f"{path}: lacks the column {', '.join(missing)}; needed are {', '.join(_NEEDED)}")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise CohortError(f"{path}: two columns are called {', '.join(doubled)}")
    if not rows:
        raise CohortError(f"{path}: holds no row")
    faults, scans = [], []
    for line, row in rows:
        if None in row or any(value is None for value in row.values()):
            faults.append(f"line {line}: has another number of cells than the first line")
            continue
        cells = {name.strip(): value for name, value in row.items()}
        subject, result = cells["subject"].strip(), cells["result"].strip()
        if not subject or not result:
            faults.append(f"line {line}: subject and result must be given")
            continue
        folder = path.resolve().parent / result
        if not (folder / "result.json").is_file():
            faults.append(f"line {line}: {result}: holds no result.json")
        others = {name: value for name, value in cells.items() if name not in _NEEDED}
        scans.append(Scan(line, subject, cells["visit"].strip(), folder, others))
    seen: dict[tuple[str, str], int] = {}
    for one in scans:
        before = seen.setdefault((one.subject, one.visit), one.line)
        if before != one.line:
            faults.append(f"line {one.line}: {one.subject} has the visit {one.visit!r} in line {before}, too")
    if faults:
        raise CohortError("\n".join(f"{path}: {fault}" for fault in faults))
    return CohortTable(tuple(scans), tuple(name for name in names if name not in _NEEDED))
