"""Pfirrmann grades that a site gives its annotated discs."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from processing.results import Level

#: (subject, visit or "" for all visits, level) -> grade.
Grades = Mapping[tuple[str, str, Level], int]


def read_grades(path: Path) -> dict[tuple[str, str, Level], int]:
    """Pfirrmann grades of a CSV file with the columns subject, level, grade and, if wanted, visit.

    ``level``: a name (L5S1, L5/S1, L5-S1) or the number 1 (L5S1) to 6; no visit: all visits of the subject.

    Raises:
        ValueError: naming the line and what is wrong with it.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    grades: dict[tuple[str, str, Level], int] = {}
    for number, line in enumerate(lines, start=2):
        try:
            key = (line["subject"].strip(), (line.get("visit") or "").strip(), _level(line["level"]))
            grade = int(line["grade"])
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: subject, level (L5S1 .. or 1 ..) and grade expected") from error
        if not 1 <= grade <= 8:
            raise ValueError(f"{path}, line {number}: grade {grade} is not 1 to 5 or, modified, 1 to 8")
        if grades.setdefault(key, grade) != grade:
            raise ValueError(f"{path}, line {number}: a second grade for the same disc")
    if not grades:
        raise ValueError(f"{path}: holds no grade")
    return grades


def _level(text: str) -> Level:
    name = re.sub(r"[\s/_-]", "", text).upper()
    return Level(int(name)) if name.isdigit() else Level[name] if name in Level.__members__ else Level(0)
