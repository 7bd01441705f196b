"""What decides what a report shows, as one digest: the same inputs make no new version."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from service.trials.history import SubjectHistory, VisitRecord
from service.trials.report_contents import VisitQuality

#: Raised when the same inputs are to be shown in another way.
FORMAT = 1


def inputs_digest(history: SubjectHistory, quality: Mapping[str, VisitQuality], software: str) -> str:
    """SHA-256, in hex, of all that a report shows, and of what makes it; not of when it is made, nor of signatures."""
    shown = {
        "format": FORMAT,
        "software": software,
        "plan": history.plan_sha256,
        "subject": [history.plan.protocol_id, history.site_id, history.subject_id, str(history.state)],
        "day_zero": str(history.day_zero),
        "levels": history.levels_confirmed,
        "treated": None if history.treated_level is None else history.treated_level.name,
        "freeze": history.freeze,
        "visits": [_visit(one) for one in history.visits],
        "set_aside": [_visit(one) for one in history.set_aside],
        "non_evaluable": {level.name: words for level, words in history.non_evaluable.items()},
        "changes": [repr(one) for one in history.changes],
        "notes": [*history.assessment.notes, *history.assessment.warnings, *history.warnings],
        "quality": {name: repr(one) for name, one in sorted(quality.items())},
    }
    return hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()


def _visit(one: VisitRecord) -> dict[str, Any]:
    result = {} if one.result is None else {key: value for key, value in one.result.items() if key != "timings_s"}
    return {
        "name": one.name,
        "state": str(one.state),
        "exam": one.exam_id,
        "job": one.job_id,
        "day": one.day,
        "scanned": [str(one.scan_date), str(one.scanned_at)],
        "why": [one.code, one.detail],
        "differences": [asdict(each) for each in one.differences],
        "result": result,
    }
