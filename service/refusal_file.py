"""``result.json`` and report of an exam that was not analysed. Without heavy libraries: the supervisor writes it."""

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from processing.display import RESEARCH_USE_ONLY
from processing.refusal import Reason
from processing.results import Verdict

#: The files of a report in a result's folder.
REPORT_FILES = ("report.html", "report.pdf")


def refusal_document(reasons: Sequence[Reason], series_uids: Sequence[str]) -> dict[str, Any]:
    """A ``discnode.result/1`` document with status refused."""
    return {
        "schema": "discnode.result/1",
        "use": RESEARCH_USE_ONLY,
        "status": str(Verdict.REFUSED),
        "reasons": [{"code": str(reason.code), "detail": reason.detail} for reason in reasons],
        "inputs": [{"series_uid": uid} for uid in series_uids],
        "discs": [],
        "objects": [],
        "timings_s": {},
        "versions": {},
    }


def write_exam_refusal(folder: Path, reasons: Sequence[Reason], series_uids: Sequence[str]) -> Path:
    """Write report and ``result.json`` into the exam's folder, each replaced whole; returns the path of the latter."""
    from service.reports.refusal_report import refusal_report  # 30 MB, for a node that refuses something
    from service.reports.rendering import render

    folder.mkdir(parents=True, exist_ok=True)
    report = render(refusal_report(reasons, series_uids, version("discnode")))
    for name, content in report.files().items():
        _replace(folder / name, content)
    document = refusal_document(reasons, series_uids)
    final = folder / "result.json"
    _replace(final, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    return final


def remove_exam_refusal(folder: Path) -> None:
    """Take the report of a refusal away from the exam's folder; to be called once there is a result."""
    for name in REPORT_FILES:
        (folder / name).unlink(missing_ok=True)


def _replace(final: Path, content: bytes) -> None:
    temporary = final.with_name(f".{final.name}.new")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, final)
