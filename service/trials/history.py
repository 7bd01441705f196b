"""A subject's visits as reports and exports see them: what was planned, what came, and what was measured."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from config.trial_plans import TrialPlan, Visit
from processing.results import Level
from processing.visits import Acquisition, Change, Difference, Observation
from service.states import SubjectState, VisitState


@dataclass(frozen=True, slots=True)
class VisitRecord:
    """One visit. ``planned`` None: unscheduled. ``state`` None: no scan came.

    ``result``: the content of result.json of the result that counts, ``folder`` where it lies. ``scanned_at``: local
    time of the scanner.
    """

    name: str
    planned: Visit | None
    state: VisitState | None
    exam_id: int | None = None
    job_id: int | None = None
    day: int | None = None
    scan_date: date | None = None
    scanned_at: datetime | None = None
    folder: Path | None = None
    result: dict[str, Any] | None = None
    acquisition: Acquisition | None = None
    differences: tuple[Difference, ...] = ()
    code: str = ""
    detail: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether its numbers count."""
        return self.state is VisitState.MEASURED and self.result is not None


@dataclass(frozen=True, slots=True)
class SubjectHistory:
    """Everything about one subject that a report or an export may show.

    ``treated_level``: None where it is not known, or may not be shown. ``non_evaluable``: level -> (from visit,
    reason). ``observations``: of every cell, in the order of the visits. ``warnings``: in words.
    """

    plan: TrialPlan
    plan_sha256: str
    subject_id: str
    site_id: str
    state: SubjectState
    day_zero: date | None
    levels_confirmed: str  # who and when, in words; "" where nobody has
    treated_level: Level | None
    visits: tuple[VisitRecord, ...]
    non_evaluable: dict[Level, tuple[str, str]]
    observations: tuple[tuple[Observation, ...], ...]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    freeze: dict[str, Any] | None
