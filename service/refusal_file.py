"""The ``result.json`` of an exam that was not analysed. Free of the writers' libraries: the supervisor writes it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processing.display import RESEARCH_USE_ONLY
from processing.refusal import Reason
from processing.results import Verdict


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
    """Write ``result.json`` into the exam's folder, replacing it whole; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    final, temporary = folder / "result.json", folder / ".result.json.new"
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(refusal_document(reasons, series_uids), stream, indent=2, ensure_ascii=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, final)
    return final
