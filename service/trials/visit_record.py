"""One visit of a subject, as reports and exports see it."""

from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from config.trial_plans import Visit
from processing.visits import Acquisition, Difference
from service.states import VisitState


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
    def clock(self) -> datetime | None:
        """``scanned_at`` where a header tells the time of day, too; a date alone is kept as its midnight."""
        known = self.acquisition is not None and self.acquisition.acquired_at is not None
        if self.scanned_at is None or (self.scanned_at.time() == time.min and not known):
            return None
        return self.scanned_at

    @property
    def is_measured(self) -> bool:
        """Whether its numbers count."""
        return self.state is VisitState.MEASURED and self.result is not None
