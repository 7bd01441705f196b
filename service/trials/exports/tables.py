"""The rows of an export, from subjects' histories. No free text of a person, no date, no UID comes into them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from processing.results import Level
from processing.visits import Acquisition, Cell, Change, Difference, Observation
from service.states import VisitState
from service.trials.exports.columns import SCAN_DATE, TIDY, TREATED_LEVEL, VISITS, WORDS, Column, Row, Status
from service.trials.history import SubjectHistory
from service.trials.observations import CELLS
from service.trials.phantoms import PhantomState
from service.trials.visit_record import VisitRecord

_STATUS = {
    None: Status.NO_SCAN,
    VisitState.HELD: Status.HELD,
    VisitState.AWAITED: Status.AWAITED,
    VisitState.NOT_EVALUABLE: Status.VISIT_NOT_EVALUABLE,
    VisitState.SET_ASIDE: Status.SET_ASIDE,
}
_VERSIONS = ("discnode", "model_sha256", "atlas_sha256", "settings_digest")


@dataclass(frozen=True, slots=True, eq=False)
class ExportSubject:
    """A subject of an export. ``phantoms``: for each measured visit by its name."""

    history: SubjectHistory
    phantoms: dict[str, PhantomState]


@dataclass(frozen=True, slots=True)
class Shown:
    """What an export may show beyond the usual."""

    real_dates: bool = False
    treated_level: bool = False

    def columns(self, usual: tuple[Column, ...]) -> tuple[Column, ...]:
        """The columns of a table with what may be shown."""
        more = [SCAN_DATE] if self.real_dates else []
        more += [TREATED_LEVEL] if self.treated_level else []
        return (*usual, *more)


def tidy_rows(subjects: Sequence[ExportSubject], shown: Shown) -> list[Row]:
    """Every cell at every visit of every subject, in the order of subjects, visits and cells."""
    names = [column.name for column in shown.columns(TIDY)]
    rows = []
    for subject in subjects:
        history = subject.history
        changes = {(one.cell, one.visit): one for one in history.changes}
        for at, visit in enumerate(history.visits):
            for cell in CELLS:
                of_cell = history.observations.get(cell)
                observation = None if of_cell is None else of_cell[at]
                row = _tidy_row(history, visit, cell, observation, changes.get((cell, visit.name)))
                row |= _extras(history, visit)
                rows.append({name: row[name] for name in names})
    return rows


def visit_rows(subjects: Sequence[ExportSubject], shown: Shown) -> list[Row]:
    """Every planned and unscheduled visit of every subject, and the scans that do not count."""
    names = [column.name for column in shown.columns(VISITS)]
    rows = []
    for subject in subjects:
        history = subject.history
        for visit in (*history.visits, *history.set_aside):
            phantom = subject.phantoms.get(visit.name) if visit.is_measured else None
            row = _visit_row(history, visit, phantom) | _extras(history, visit)
            rows.append({name: row[name] for name in names})
    return rows


def status_of(history: SubjectHistory, visit: VisitRecord, level: Level, observation: Observation | None) -> Status:
    """Whether a place has a value at a visit, and why not."""
    if not visit.is_measured:
        return _STATUS.get(visit.state, Status.AWAITED)
    if level in history.non_evaluable:
        names = [one.name for one in history.visits]
        first = history.non_evaluable[level][0]
        if first not in names or names.index(visit.name) >= names.index(first):
            return Status.NOT_EVALUABLE
    return Status.NO_VALUE if observation is None or observation.value_ms is None else Status.MEASURED


def number(value: float | None, digits: int) -> float | None:
    """Rounded; None stays None, and a negative zero loses its sign."""
    return None if value is None else round(float(value), digits) + 0.0


def _tidy_row(
    history: SubjectHistory, visit: VisitRecord, cell: Cell, observation: Observation | None, change: Change | None
) -> Row:
    status = status_of(history, visit, cell.level, observation)
    measured = observation if status is Status.MEASURED else None
    disc = _disc(visit, cell.level) if visit.is_measured else {}
    return {
        **_who(history, visit),
        "level": cell.level.name,
        "region": cell.region.value,
        "quantity": cell.quantity.value,
        "value_ms": None if measured is None else number(measured.value_ms, 4),
        "sd_ms": None if measured is None else number(measured.sd_ms, 4),
        "n_voxels": None if observation is None else observation.n,
        "n_excluded": None if observation is None else observation.n_excluded,
        "voxels": "common" if history.are_common else "each",
        **_why(status, visit),
        "change_ms": None if change is None else number(change.delta_ms, 4),
        "change_percent": None if change is None else number(change.delta_percent, 3),
        "lower_limit_ms": None if change is None else number(change.lower_limit_ms, 4),
        "upper_limit_ms": None if change is None else number(change.upper_limit_ms, 4),
        "verdict": "" if change is None else change.verdict.value,
        "is_primary": _is_primary(history, visit, cell),
        "volume_mm3": number(disc.get("volume_mm3"), 2),
        "registration_dice": number((disc.get("registration") or {}).get("dice"), 4),
        **_made_with(history, visit),
    }


def _is_primary(history: SubjectHistory, visit: VisitRecord, cell: Cell) -> bool | None:
    """Whether the plan declared it; None where the answer would tell the treated level."""
    answers: list[bool | None] = []
    for one in history.plan.primary:
        if (one.quantity, one.region) != (cell.quantity.value, cell.region.value):
            continue
        if visit.name not in (one.visits or [each.name for each in history.plan.visits if not each.baseline]):
            continue
        if one.level != "treated":
            answers.append(one.level == cell.level.name)
        else:
            answers.append(None if history.treated_level is None else history.treated_level is cell.level)
    return True if True in answers else None if None in answers else False


def _visit_row(history: SubjectHistory, visit: VisitRecord, phantom: PhantomState | None) -> Row:
    status = Status.MEASURED if visit.is_measured else _STATUS.get(visit.state, Status.AWAITED)
    acquisition = visit.acquisition or Acquisition()
    planned = visit.planned
    verdict = "" if phantom is None else "none" if phantom.scan is None else str(phantom.scan.verdict)
    return {
        **_who(history, visit),
        "window_first_day": None if planned is None else planned.first_day,
        "window_last_day": None if planned is None else planned.last_day,
        "hour": _hour(visit.clock),
        **_why(status, visit),
        "deviations": "; ".join(_deviation(one) for one in visit.differences),
        "phantom": verdict,
        "manufacturer": acquisition.manufacturer,
        "model": acquisition.model,
        "device_serial": acquisition.device_serial,
        "software_versions": acquisition.software_versions,
        "receive_coil": acquisition.receive_coil,
        "protocol": acquisition.protocol,
        "field_strength_t": number(acquisition.field_strength_t, 4),
        "spin_lock_hz": number(acquisition.spin_lock_hz, 3),
        "t1rho_times_ms": ";".join(f"{time:g}" for time in acquisition.t1rho_times_ms),
        "t2_times_ms": ";".join(f"{time:g}" for time in acquisition.t2_times_ms),
        "n_slices": acquisition.n_slices,
        **_made_with(history, visit),
    }


def _deviation(one: Difference) -> str:
    return f"{one.what} ({'hard' if one.hard else 'limits' if one.widens else 'soft'})"


def _who(history: SubjectHistory, visit: VisitRecord) -> Row:
    return {
        "trial": history.plan.protocol_id,
        "site": history.site_id,
        "subject": history.subject_id,
        "visit": visit.name,
        "planned_day": None if visit.planned is None else visit.planned.day,
        "day": visit.day,
    }


def _why(status: Status, visit: VisitRecord) -> Row:
    has_code = status in (Status.HELD, Status.VISIT_NOT_EVALUABLE, Status.SET_ASIDE, Status.AWAITED)
    return {"status": status.value, "reason_code": visit.code if has_code else "", "reason": WORDS[status]}


def _made_with(history: SubjectHistory, visit: VisitRecord) -> Row:
    versions = (visit.result or {}).get("versions", {}) if visit.is_measured else {}
    return {name: str(versions.get(name, "")) for name in _VERSIONS} | {"plan_sha256": history.plan_sha256}


def _extras(history: SubjectHistory, visit: VisitRecord) -> Row:
    return {
        "scan_date": "" if visit.scan_date is None else visit.scan_date.isoformat(),
        "treated_level": "" if history.treated_level is None else history.treated_level.name,
    }


def _hour(moment: datetime | None) -> float | None:
    return None if moment is None else round(moment.hour + moment.minute / 60, 2)


def _disc(visit: VisitRecord, level: Level) -> dict[str, Any]:
    found: dict[str, Any] = next(
        (one for one in (visit.result or {}).get("discs", ()) if one["level"] == level.name), {}
    )
    return found
