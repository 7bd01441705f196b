"""What a coordinator wants to see of a trial on one screen: who came when, what is held and why, what is due."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from processing.refusal import ReasonCode
from service import trial_tables as db
from service.states import SubjectState, VisitState
from service.trials.freezing import NAMES
from service.trials.missing import Expected, expected_visits
from service.trials.people import ADVICE
from service.trials.registry import Trial
from service.trials.windows import UNSCHEDULED

#: One letter or sign a visit; the legend is printed with them.
SYMBOLS = {
    VisitState.MEASURED: "M",
    VisitState.AWAITED: "a",
    VisitState.HELD: "H",
    VisitState.NOT_EVALUABLE: "N",
}
TO_COME, IN_WINDOW, MISSED, UNKNOWN = ".", "w", "-", "?"
_LEGEND = (
    "M measured  a awaits its result  H held  N not evaluable  w in its window now  . to come  - did not come"
    "  ? day zero not known"
)
_STRENGTH = (VisitState.MEASURED, VisitState.HELD, VisitState.AWAITED, VisitState.NOT_EVALUABLE)
_NEXT_DAYS = 30


@dataclass(frozen=True, slots=True)
class HeldExam:
    """An exam that a person must look at. ``subject``: "" where it is of none."""

    exam_id: int
    subject: str
    visit: str
    scan_date: str
    code: str
    detail: str
    advice: str


@dataclass(frozen=True, slots=True)
class DueVisit:
    """A planned visit of which no scan came."""

    subject: str
    visit: str
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class SubjectLine:
    """One subject. ``visits``: name -> symbol."""

    subject: str
    site: str
    state: str
    day_zero: str
    levels: str
    visits: dict[str, str]
    n_unscheduled: int
    not_evaluable: dict[str, str]  # level -> from visit


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """All of it."""

    protocol_id: str
    name: str
    plan_sha256: str
    frozen: str
    versions: dict[str, str]
    deviation: str
    subjects: tuple[SubjectLine, ...]
    held: tuple[HeldExam, ...]
    due: tuple[DueVisit, ...]
    missed: tuple[DueVisit, ...]
    phantoms: tuple[str, ...]
    visit_names: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For printing as JSON."""
        return asdict(self)


def status_of(connection: Connection, trial: Trial, now: datetime) -> TrialStatus:
    """A trial as it stands."""
    today = now.date()
    table = db.subject
    query = select(table).where(table.c.trial_id == trial.id).order_by(table.c.site_id, table.c.subject_id)
    subjects = connection.execute(query).all()
    visits: dict[int, list[Row[Any]]] = {}
    of_trial = select(db.visit).join(table, table.c.id == db.visit.c.subject_id).where(table.c.trial_id == trial.id)
    for row in connection.execute(of_trial.order_by(db.visit.c.scanned_at)):
        visits.setdefault(row.subject_id, []).append(row)
    discs = _not_evaluable(connection, trial)
    lines, due, missed = [], [], []
    for subject in subjects:
        rows = [row for row in visits.get(subject.id, []) if row.state != VisitState.SET_ASIDE]
        came = frozenset(row.name for row in rows)
        is_active = subject.state == SubjectState.ACTIVE
        expected = expected_visits(trial.plan, subject.day_zero, came) if is_active else ()
        lines.append(_line(trial, subject, rows, expected, today, discs.get(subject.id, {})))
        for one in expected:
            entry = DueVisit(subject.subject_id, one.visit.name, one.first.isoformat(), one.last.isoformat())
            if one.told_on <= today:
                missed.append(entry)
            elif (one.first - today).days <= _NEXT_DAYS:
                due.append(entry)
    names = {subject.id: subject.subject_id for subject in subjects}
    frozen = f"frozen on {trial.frozen_at:%Y-%m-%d} by {trial.frozen_by}" if trial.is_frozen else ""
    return TrialStatus(
        protocol_id=trial.protocol_id,
        name=trial.plan.name,
        plan_sha256=trial.plan_sha256,
        frozen=frozen,
        versions={name: trial.freeze["versions"][name] for name in NAMES} if trial.freeze else {},
        deviation=deviation_of(trial),
        subjects=tuple(lines),
        held=tuple(_held(connection, trial, names, visits)),
        due=tuple(sorted(due, key=lambda one: one.last)),
        missed=tuple(sorted(missed, key=lambda one: one.last)),
        phantoms=tuple(_phantoms(connection)),
        visit_names=tuple(one.name for one in trial.plan.visits),
    )


def deviation_of(trial: Trial) -> str:
    """What is wrong with the plan's file, with its reason code where results are held for it."""
    code = f"{ReasonCode.PROTOCOL_DEVIATION}: " if trial.deviates_since is not None else ""
    return f"{code}{trial.deviation}" if trial.deviation else ""


def _line(
    trial: Trial,
    subject: Row[Any],
    rows: list[Row[Any]],
    expected: tuple[Expected, ...],
    today: date,
    discs: dict[str, str],
) -> SubjectLine:
    symbols = {}
    for visit in trial.plan.visits:
        states = [VisitState(row.state) for row in rows if row.name == visit.name]
        best = next((state for state in _STRENGTH if state in states), None)
        waiting = next((one for one in expected if one.visit.name == visit.name), None)
        if best is not None:
            symbols[visit.name] = SYMBOLS[best]
        elif waiting is None:
            symbols[visit.name] = UNKNOWN if subject.state == SubjectState.ACTIVE else " "
        elif waiting.told_on <= today:
            symbols[visit.name] = MISSED
        else:
            symbols[visit.name] = IN_WINDOW if waiting.first <= today <= waiting.last else TO_COME
    return SubjectLine(
        subject=subject.subject_id,
        site=subject.site_id,
        state=subject.state,
        day_zero="" if subject.day_zero is None else subject.day_zero.isoformat(),
        levels=subject.lowest_disc or "",
        visits=symbols,
        n_unscheduled=sum(row.name == UNSCHEDULED for row in rows),
        not_evaluable=discs,
    )


def _not_evaluable(connection: Connection, trial: Trial) -> dict[int, dict[str, str]]:
    table, subject = db.non_evaluable, db.subject
    query = (
        select(table.c.subject_id, table.c.level, table.c.from_visit)
        .join(subject, subject.c.id == table.c.subject_id)
        .where(subject.c.trial_id == trial.id, table.c.withdrawn_at.is_(None))
    )
    found: dict[int, dict[str, str]] = {}
    for row in connection.execute(query.order_by(table.c.id)):
        found.setdefault(row.subject_id, {})[row.level] = row.from_visit
    return found


def _held(
    connection: Connection, trial: Trial, names: dict[int, str], visits: dict[int, list[Row[Any]]]
) -> Iterator[HeldExam]:
    table = db.trial_exam
    doors = select(table).where(
        table.c.trial_id == trial.id, table.c.subject_id.is_(None), table.c.set_aside.is_(False)
    )
    for row in connection.execute(doors.order_by(table.c.exam_id)):
        day = "" if row.study_date is None else row.study_date.isoformat()
        yield HeldExam(row.exam_id, "", row.visit_label or "", day, row.code or "", row.detail or "", _advice(row.code))
    for subject_id, rows in visits.items():
        for row in rows:
            if row.state == VisitState.HELD:
                day = "" if row.scan_date is None else row.scan_date.isoformat()
                told = (row.code or "", row.detail or "", _advice(row.code))
                yield HeldExam(row.exam_id, names[subject_id], row.name, day, *told)


def _advice(code: str | None) -> str:
    return ADVICE.get(ReasonCode(code), "") if code and code in ReasonCode.__members__ else ""


def _phantoms(connection: Connection) -> Iterator[str]:
    """The newest scan of the QC phantom of each scanner."""
    table = db.phantom_scan
    newest: dict[str, Row[Any]] = {}
    for row in connection.execute(select(table).order_by(table.c.scan_date, table.c.id)):
        newest[row.scanner] = row
    for scanner, row in sorted(newest.items()):
        accepted = f", accepted by {row.accepted_by}" if row.accepted_by else ""
        yield f"{scanner}: {row.verdict} on {row.scan_date}{accepted}"


# --- in words ---------------------------------------------------------------------------------------------------------


def status_text(status: TrialStatus) -> str:
    """The screen. For research use only."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: TrialStatus) -> Iterator[str]:
    yield f"{status.protocol_id}  {status.name}  (research use only)".replace("    ", "  ")
    yield f"plan {status.plan_sha256[:16]}; {status.frozen or 'not frozen'}"
    if status.versions:
        yield "  " + ", ".join(f"{NAMES[name]} {value[:16]}" for name, value in status.versions.items())
    if status.deviation:
        yield f"!! {status.deviation}"
    yield ""
    yield from _table(status)
    yield from _section("held: a person must look", [_held_text(one) for one in status.held])
    yield from _section("did not come", [_due_text(one) for one in status.missed])
    yield from _section(f"due within {_NEXT_DAYS} days", [_due_text(one) for one in status.due])
    yield from _section("QC phantoms", list(status.phantoms))


def _table(status: TrialStatus) -> Iterator[str]:
    if not status.subjects:
        yield "no subject yet"
        return
    head = ["subject", "site", "day zero", "lowest disc", *status.visit_names, "other", ""]
    rows = []
    for one in status.subjects:
        notes = [f"{level} not evaluable from {visit}" for level, visit in one.not_evaluable.items()]
        notes += [one.state] if one.state != SubjectState.ACTIVE else []
        cells = [one.subject, one.site, one.day_zero or "?", one.levels or "to be confirmed"]
        cells += [one.visits[name] for name in status.visit_names]
        rows.append([*cells, str(one.n_unscheduled or ""), "; ".join(notes)])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield _LEGEND


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield f"{title} ({len(lines)})"
        yield from (f"  {line}" for line in lines)


def _held_text(one: HeldExam) -> str:
    whose = f"{one.subject} {one.visit}".strip() or "no subject"
    advice = f"\n      -> {one.advice}" if one.advice else ""
    return f"exam {one.exam_id}, {whose}, {one.scan_date or 'no date'}: {one.code}: {one.detail}{advice}"


def _due_text(one: DueVisit) -> str:
    return f"{one.subject} {one.visit}: {one.first} to {one.last}"
