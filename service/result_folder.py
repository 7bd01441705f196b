"""A result's folder: it appears whole or not at all; and how numbers, texts and reports are written into it."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.refusal_file import REPORT_FILES
from service.reports.rendering import RenderedReport
from service.reports.stored_document import FILE_NAME as DOCUMENT_FILE

_OUR_FILES = (
    *("result.json", "discs.csv", "vials.csv", *REPORT_FILES, DOCUMENT_FILE),
    *("qc.png", "qc_registration.png", "dicom"),
)


def json_number(value: float | None) -> float | None:
    """A JSON number with six decimals; null for what does not exist (JSON has no NaN)."""
    return round(float(value), 6) if value is not None and math.isfinite(value) else None


def write_report(folder: Path, report: RenderedReport) -> None:
    """Write both forms of a report."""
    for name, content in report.files().items():
        (folder / name).write_bytes(content)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document that has no NaN in it."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place when the block is done, and vanishes when it fails.

    Where ``folder`` already holds something, our files in it are replaced, ``result.json`` last: whoever finds that
    file finds the rest.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    partial.chmod(0o755)  # mkdtemp's 0700 would hide the results from their readers
    try:
        yield partial
        try:
            os.replace(partial, folder)  # works for an empty folder, too
        except OSError:
            if not folder.is_dir():
                raise
            _replace_our_files(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_our_files(partial: Path, folder: Path) -> None:
    for name in _OUR_FILES:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in reversed(_OUR_FILES):
        if (partial / name).exists():
            os.replace(partial / name, folder / name)
