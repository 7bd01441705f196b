"""A subject's visits as reports and exports see them: what was planned, what came, and what was measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from config.settings import Settings
from config.trial_plans import TrialPlan, Visit
from processing.results import Level
from processing.visits import Acquisition, Cell, Change, ChangeTable, Difference, Observation
from service import database as db
from service import trial_tables as tables
from service.database import Database
from service.job_records import exam_folder
from service.states import SubjectState, VisitState
from service.trials.assessment import assess
from service.trials.freezing import NAMES, precision_sha256
from service.trials.observations import observe
from service.trials.phantoms import with_phantom
from service.trials.treated_levels import treated_level
from service.trials.visit_record import VisitRecord as VisitRecord

#: Name in ``trial_visit`` of scans that are none of the plan's visits.
UNSCHEDULED = "unscheduled"

#: Which of several scans of one visit is shown as the visit: the one that counts, then what may yet count.
_RANK = (VisitState.MEASURED, VisitState.NOT_EVALUABLE, VisitState.AWAITED, VisitState.HELD)


@dataclass(frozen=True, slots=True)
class SubjectHistory:
    """Everything about one subject that a report or an export may show.

    ``visits``: every planned one, in the plan's order, whether a scan came or not; unscheduled ones among them by
    their day. ``set_aside``: scans that count for none of them. ``treated_level``: None where it is not known, or
    may not be shown. ``non_evaluable``: level -> (from visit, reason). ``observations``: of every cell, one for
    each of ``visits``; ``are_common``: their means are over the voxels that have a value at all of them.
    ``changes``: those of ``assessment``. ``warnings``: in words.
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
    observations: dict[Cell, tuple[Observation, ...]]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    freeze: dict[str, Any] | None
    assessment: ChangeTable
    are_common: bool = False
    set_aside: tuple[VisitRecord, ...] = ()

    @property
    def baseline(self) -> VisitRecord:
        """The visit that the others are compared with, whether it came or not."""
        return next(one for one in self.visits if one.planned is not None and one.planned.baseline)

    @property
    def newest(self) -> VisitRecord | None:
        """The measured visit with the latest scan; None where nothing is measured."""
        measured = [one for one in self.visits if one.is_measured]
        return max(measured, key=lambda one: (one.scan_date or date.min, one.job_id or 0), default=None)


def read_history(
    database: Database,
    settings: Settings,
    plan: TrialPlan,
    subject_row: Row[Any],
    *,
    show_treated_level: bool | None = None,
) -> SubjectHistory:
    """A subject's history as the record has it now.

    Args:
        database: the node's record.
        settings: of the node.
        plan: the subject's trial.
        subject_row: of ``trial_subject``.
        show_treated_level: as the plan's blinding says, if None. An export for the statistician may show it; then, and
            only then, cells declared for the treated level are marked as primary.

    Raises:
        SettingsError: the file of treated levels cannot be used.
    """
    subject = subject_row._mapping
    with database.read() as connection:
        trial = connection.execute(select(tables.trial).where(tables.trial.c.id == subject["trial_id"])).one()
        rows = connection.execute(_visits_of(subject["id"])).all()
        discs = connection.execute(_non_evaluable_of(subject["id"])).all()
    non_evaluable = {Level[one.level]: (str(one.from_visit), str(one.reason)) for one in discs}
    scans = [_scan(settings, row, plan, subject["day_zero"]) for row in rows]
    day_zero = subject["day_zero"] or _baseline_date(plan, scans)
    scans = [with_phantom(database, plan, replace(one, day=_days(one.scan_date, day_zero))) for one in scans]
    visits, set_aside = _in_order(plan, scans)
    shown = plan.blinding.show_treated_level if show_treated_level is None else show_treated_level
    treated = treated_level(plan.treated_levels, subject["subject_id"]) if shown else None
    observed = observe(visits, non_evaluable, plan)
    assessment = assess(plan, visits, observed.cells, non_evaluable, treated)
    return SubjectHistory(
        plan=plan,
        plan_sha256=trial.plan_sha256,
        subject_id=subject["subject_id"],
        site_id=subject["site_id"],
        state=SubjectState(subject["state"]),
        day_zero=day_zero,
        levels_confirmed=_levels_confirmed(subject),
        treated_level=treated,
        visits=visits,
        non_evaluable=non_evaluable,
        observations=observed.cells,
        are_common=observed.are_common,
        changes=assessment.changes,
        warnings=(
            *([observed.warning] if observed.warning else []),
            *_not_as_agreed(plan, trial.freeze, day_zero, visits),
            *_warnings(plan, visits, _levels_confirmed(subject)),
        ),
        freeze=trial.freeze,
        assessment=assessment,
        set_aside=set_aside,
    )


def _visits_of(subject_id: int) -> Any:
    visit, job = tables.visit, db.job
    columns = (visit, job.c.version.label("job_version"), job.c.files.label("job_files"))
    return (
        select(*columns)
        .select_from(visit.outerjoin(job, job.c.id == visit.c.job_id))
        .where(visit.c.subject_id == subject_id)
        .order_by(visit.c.scan_date, visit.c.scanned_at, visit.c.id)
    )


def _non_evaluable_of(subject_id: int) -> Any:
    found = tables.non_evaluable
    return (
        select(found)
        .where(found.c.subject_id == subject_id, found.c.withdrawn_at.is_(None))
        .order_by(found.c.noted_at, found.c.id)
    )


def _scan(settings: Settings, row: Row[Any], plan: TrialPlan, day_zero: date | None) -> VisitRecord:
    """One exam that was taken for a visit."""
    folder = result = None
    if row.job_version is not None:
        folder = settings.storage_dir / exam_folder(row.exam_id) / f"v{row.job_version}"
        result = _content(folder / "result.json")
    return VisitRecord(
        name=row.name,
        planned=next((one for one in plan.visits if one.name == row.name), None),
        state=VisitState(row.state),
        exam_id=row.exam_id,
        job_id=row.job_id,
        day=_days(row.scan_date, day_zero),
        scan_date=row.scan_date,
        scanned_at=None if row.scanned_at is None else datetime.fromisoformat(row.scanned_at),
        folder=folder,
        result=result,
        acquisition=_acquisition((result or {}).get("acquisition")),
        differences=tuple(_difference(one) for one in row.deviations or ()),
        code=row.code or "",
        detail=row.detail or "",
    )


def _content(path: Path) -> dict[str, Any] | None:
    """What a result.json says; None where retention has taken it."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _acquisition(block: Mapping[str, Any] | None) -> Acquisition | None:
    """The block ``acquisition`` of a result.json; None in results of before there was one."""
    if not block:
        return None
    values = {name: block[name] for name in Acquisition.__slots__ if name in block}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    if values.get("acquired_at"):
        values["acquired_at"] = datetime.fromisoformat(values["acquired_at"])
    return Acquisition(**values)


def _difference(entry: Mapping[str, Any]) -> Difference:
    return Difference(
        what=entry["what"],
        baseline=entry["baseline"],
        visit=entry["visit"],
        hard=bool(entry["hard"]),
        widens=bool(entry.get("widens", False)),
        text=entry["text"],
    )


def _baseline_date(plan: TrialPlan, scans: Sequence[VisitRecord]) -> date | None:
    """Day zero where the plan takes the baseline's scan for it and the record does not have it yet."""
    if plan.day_zero != "baseline_scan":
        return None
    return next((one.scan_date for one in scans if one.name == plan.baseline.name and one.is_measured), None)


def _days(day: date | None, day_zero: date | None) -> int | None:
    return None if day is None or day_zero is None else (day - day_zero).days


def _in_order(plan: TrialPlan, scans: Sequence[VisitRecord]) -> tuple[tuple[VisitRecord, ...], tuple[VisitRecord, ...]]:
    """The visits, each with the scan that stands for it, and the scans that stand for none."""
    standing: list[VisitRecord] = []
    for planned in plan.visits:
        own = [one for one in scans if one.name == planned.name and one.state in _RANK]
        best = min(own, key=lambda one: _RANK.index(one.state or VisitState.HELD), default=None)
        standing.append(best if best is not None else VisitRecord(planned.name, planned, None))
    extra = [one for one in scans if one.planned is None and one.state in _RANK]
    left = tuple(one for one in scans if not any(one is kept for kept in (*standing, *extra)))
    numbered = [
        replace(one, name=UNSCHEDULED if number == 1 else f"{UNSCHEDULED} {number}")
        for number, one in enumerate(extra, start=1)
    ]
    return tuple(sorted((*standing, *numbered), key=_place)), left


def _place(visit: VisitRecord) -> tuple[int, int]:
    """Planned visits by the plan's day, so that their order never depends on when they came; others by their own."""
    if visit.planned is not None:
        return visit.planned.day, 0
    return (visit.day if visit.day is not None else 10**6), 1


def window_of(planned: Visit, day_zero: date | None) -> tuple[date, date] | None:
    """First and last day of a visit's window; None before day zero is known."""
    if day_zero is None:
        return None
    return day_zero + timedelta(days=planned.first_day), day_zero + timedelta(days=planned.last_day)


def _levels_confirmed(subject: Any) -> str:
    if not subject["levels_confirmed_by"] or not subject["levels_confirmed_at"]:
        return ""
    lowest = f"lowest disc {subject['lowest_disc']}, " if subject["lowest_disc"] else ""
    return f"{lowest}by {subject['levels_confirmed_by']} on {subject['levels_confirmed_at']:%Y-%m-%d}"


def _warnings(plan: TrialPlan, visits: Sequence[VisitRecord], levels_confirmed: str) -> Iterator[str]:
    if not levels_confirmed:
        yield "The names of the levels have not been confirmed by a person."
    baseline = next(one for one in visits if one.planned is not None and one.planned.baseline)
    if not baseline.is_measured:
        yield f"The baseline {plan.baseline.name} is not measured: no change can be judged."
    for visit in visits:
        if visit.state is VisitState.HELD:
            yield f"{visit.name} is held: {visit.detail or visit.code}"
        if visit.state is VisitState.NOT_EVALUABLE:
            yield f"{visit.name} cannot be evaluated: {visit.detail or visit.code}"
        if visit.is_measured and (visit.result or {}).get("status") == "needs_review":
            n = len((visit.result or {}).get("reasons", ()))
            yield f"{visit.name}: the result of the exam asks for review ({n} {'doubt' if n == 1 else 'doubts'})."
        differs = _made_otherwise(baseline, visit)
        if differs:
            yield f"{visit.name} was measured with other versions than the baseline: {', '.join(differs)}."
        for one in visit.differences:
            yield f"{visit.name}: {one.text}"


def _not_as_agreed(
    plan: TrialPlan, freeze: Mapping[str, Any] | None, day_zero: date | None, visits: Sequence[VisitRecord]
) -> Iterator[str]:
    """What the plan rests on and is not there, or not as it was when the trial was frozen."""
    frozen = (freeze or {}).get("precision_sha256")
    if frozen and frozen != precision_sha256(plan):
        yield "The precision was edited after the trial was frozen: the limits are not those that were agreed on."
    if plan.day_zero == "given" and day_zero is None and any(one.is_measured for one in visits):
        yield "Day zero is not known: no window can be checked, and slopes are over the planned days."


def _made_otherwise(baseline: VisitRecord, visit: VisitRecord) -> list[str]:
    """What measured a visit and not the baseline, and may move a number: names for people."""
    if not (baseline.is_measured and visit.is_measured):
        return []
    before, now = ((one.result or {}).get("versions", {}) for one in (baseline, visit))
    return [name for key, name in NAMES.items() if key != "protocol" and before.get(key) != now.get(key)]
