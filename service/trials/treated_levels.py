"""The treated levels of a trial: a file of its own, which only who may show them opens."""

import csv
from pathlib import Path

from config.sections import SettingsError
from processing.results import LUMBAR_LEVELS, Level


def treated_level(path: Path | None, subject_id: str) -> Level | None:
    """The treated level of a subject (CSV with the columns subject and level); None where the file does not tell.

    Raises:
        SettingsError: the file cannot be read, a column is missing, a level is none, or a subject has two. It names the
            file and the line, never a level.
    """
    if path is None:
        return None
    found: dict[str, Level] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            missing = {"subject", "level"} - set(rows.fieldnames or ())
            if missing:
                raise SettingsError(f"{path}: the column {', '.join(sorted(missing))} is missing")
            for row in rows:
                name, subject = _plain(row["level"]), (row["subject"] or "").strip()
                level = {one.name: one for one in LUMBAR_LEVELS}.get(name)
                if level is None:
                    allowed = ", ".join(one.name for one in LUMBAR_LEVELS)
                    raise SettingsError(f"{path}: line {rows.line_num}: no level; allowed: {allowed}")
                if found.setdefault(subject, level) is not level:
                    raise SettingsError(f"{path}: line {rows.line_num}: {subject} has another level before")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: is not a CSV file in UTF-8") from error
    return found.get(subject_id)


def _plain(level: str | None) -> str:
    """``L5/S1``, ``l5-s1`` and ``L5S1`` are one."""
    return "".join(letter for letter in (level or "").upper() if letter.isalnum())
