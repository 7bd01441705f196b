"""The table of scans: a row for each, checked before anything is computed; faults name row, column and rule."""

import csv
import hashlib
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NEEDED = ("subject", "visit", "result")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "."})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
_FAULTS_TOLD = 20


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

    def is_empty(self, column: str) -> bool:
        """Nothing stands there, or a word for nothing."""
        return self.values[column].strip().lower() in _MISSING

    def number(self, column: str) -> float:
        """A number of the row; NaN where it is missing.

        Raises:
            CohortError: something stands there that is no number.
        """
        text = self.values[column].strip()
        if text.lower() in _MISSING:
            return math.nan
        if not _NUMBER.fullmatch(text):
            rule = "; write a point, not a comma" if _NUMBER.fullmatch(text.replace(",", ".")) else ""
            raise CohortError(f"line {self.line}: {column}: {text[:40]!r} is not a number{rule}")
        value = float(text)
        if not math.isfinite(value):
            raise CohortError(f"line {self.line}: {column}: {text!r} is not a finite number")
        return value


@dataclass(frozen=True, slots=True)
class CohortTable:
    """All rows, and the names of the further columns; ``sha256`` of the file as it was read, if it was one."""

    scans: tuple[Scan, ...]
    columns: tuple[str, ...]
    sha256: str = ""

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
    """Read a table (CSV, UTF-8, commas). Folders of results are taken from the table's folder.

    Raises:
        CohortError: naming the line and what is wrong.
    """
    content = _content(path)
    names, rows = _cells(path, content)
    _check_names(path, names)
    if not rows:
        raise CohortError(f"{path}: holds no row")
    faults, scans, beside = [], [], path.resolve().parent
    for line, row in rows:
        if len(row) != len(names):
            faults.append(f"line {line}: has another number of cells than the first line")
            continue
        cells = dict(zip(names, row, strict=True))
        subject, result = cells["subject"].strip(), cells["result"].strip()
        if not subject or not result:
            faults.append(f"line {line}: subject and result must be given")
            continue
        folder = beside / result
        if (folder / "result.json").is_file():
            folder = folder.resolve()
        else:
            faults.append(f"line {line}: {result}: holds no result.json")
        others = {name: value for name, value in cells.items() if name not in _NEEDED}
        scans.append(Scan(line, subject, cells["visit"].strip(), folder, others))
    faults += _twice(scans)
    if faults:
        told = [f"{path}: {fault}" for fault in faults[:_FAULTS_TOLD]]
        if len(faults) > _FAULTS_TOLD:
            told.append(f"{path}: and {len(faults) - _FAULTS_TOLD} more")
        raise CohortError("\n".join(told))
    further = tuple(name for name in names if name not in _NEEDED)
    return CohortTable(tuple(scans), further, hashlib.sha256(content).hexdigest())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CohortError(f"{path}: cannot be read: {error.strerror}") from error


def _cells(path: Path, content: bytes) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Names of the columns; every further row that is not empty, with its line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CohortError(f"{path}: line {line}: is not UTF-8; save the table as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = tuple(name.strip() for name in next(reader, ()))
        return names, [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise CohortError(f"{path}: line {reader.line_num}: is not CSV: {error}") from error


def _check_names(path: Path, names: tuple[str, ...]) -> None:
    if len(names) == 1 and (mark := next((one for one in ";\t|" if one in names[0]), None)):
        raise CohortError(f"{path}: line 1: columns are separated by {mark!r}; save the table with commas")
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise CohortError(f"{path}: lacks the column {', '.join(missing)}; needed are {', '.join(_NEEDED)}")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise CohortError(f"{path}: two columns are called {', '.join(map(repr, doubled))}")


def _twice(scans: Sequence[Scan]) -> list[str]:
    """What is there a second time: a visit of a subject, a result, a subject in other letters."""
    faults = []
    visits: dict[tuple[str, str], int] = {}
    results: dict[Path, int] = {}
    spelt: dict[str, Scan] = {}
    for one in scans:
        before = visits.setdefault((one.subject, one.visit), one.line)
        if before != one.line:
            faults.append(f"line {one.line}: {one.subject} has the visit {one.visit!r} in line {before}, too")
        before = results.setdefault(one.result, one.line)
        if before != one.line:
            faults.append(f"line {one.line}: {one.result.name}: is the result of line {before}, too")
        first = spelt.setdefault(unicodedata.normalize("NFKC", one.subject).casefold(), one)
        if first.subject != one.subject:
            faults.append(f"line {one.line}: {one.subject!r} is written {first.subject!r} in line {first.line}")
    return faults
