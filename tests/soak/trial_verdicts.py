"""What a node says of every visit of a simulated trial, beside what it must say, and how often it is right."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sqlalchemy import select

from config.settings import Settings
from config.trial_plans import load_plans
from processing.results import Level, Quantity, Region
from processing.visits import Cell, Change, ChangeVerdict
from service import database as node
from service import trial_tables as db
from service.database import Database
from service.trials.history import SubjectHistory, read_history
from tests.soak.campaign import Check

SENSITIVITY_FROM = 1.7  # times the limit: the planned change is twice it, and is not imaged to the last percent
NULL_UNTIL = 0.35  # times the limit: a change of the hour alone

_CHANGED = (str(ChangeVerdict.INCREASE), str(ChangeVerdict.DECREASE))


@dataclass(frozen=True, slots=True)
class Found:
    """What the record says of one exam or visit; "" where it is silent."""

    state: str = ""
    code: str = ""
    detail: str = ""
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    expected: Mapping[str, str]
    first: Found
    last: Found
    change: Change | None

    @property
    def verdict(self) -> str:
        return "" if self.change is None else str(self.change.verdict)

    @property
    def faults(self) -> tuple[str, ...]:
        """In what it is not as it must be."""
        one = self.expected
        wrong = []
        if (self.first.state, self.first.code) != (one["first_state"], one["first_code"]):
            wrong.append("first")
        if (self.last.state, self.last.code) != (one["state"], one["code"]):
            wrong.append("state")
        if one["deviation"] and one["deviation"] not in self.last.deviations:
            wrong.append("deviation")
        if one["verdicts"] and self.verdict not in one["verdicts"].split("|"):
            wrong.append("verdict")
        return tuple(wrong)


def read_expected(folder: Path) -> list[dict[str, str]]:
    """The rows of expected.csv."""
    with (folder / "expected.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_scans(folder: Path) -> list[dict[str, str]]:
    """The rows of scans.csv, in the order of arrival."""
    with (folder / "scans.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def states_of(database: Database, scans: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], Found]:
    """(subject, visit) as they were sent -> what the record says of that exam."""
    exam, visit, seen = node.exam, db.visit, db.trial_exam
    query = (
        select(exam.c.study_uid, visit.c.state, visit.c.code, visit.c.detail, visit.c.deviations)
        .add_columns(seen.c.code.label("door_code"), seen.c.detail.label("door_detail"), seen.c.subject_id)
        .outerjoin(visit, visit.c.exam_id == exam.c.id)
        .outerjoin(seen, seen.c.exam_id == exam.c.id)
    )
    with database.read() as connection:
        rows = {row.study_uid: row for row in connection.execute(query)}
    found = {}
    for scan in scans:
        row = rows.get(scan["study_uid"])
        if row is None:
            continue
        if row.state is None:  # at the door: of no subject
            found[scan["subject"], scan["visit"]] = Found(
                "held" if row.door_code else "", row.door_code or "", row.door_detail or ""
            )
            continue
        deviations = tuple(one["what"] for one in row.deviations or ())
        found[scan["subject"], scan["visit"]] = Found(row.state, row.code or "", row.detail or "", deviations)
    return found


def read_histories(database: Database, settings: Settings) -> dict[str, SubjectHistory]:
    """Subject -> everything that a report would show, the treated level with it."""
    ((_, plan),) = load_plans(settings.trials_dir)
    with database.read() as connection:
        subjects = connection.execute(select(db.subject)).all()
    return {
        one.subject_id: read_history(database, settings, plan, one, show_treated_level=True)  # type: ignore[call-arg]
        for one in subjects
    }


def table_of(
    expected: Sequence[Mapping[str, str]],
    first: Mapping[tuple[str, str], Found],
    last: Mapping[tuple[str, str], Found],
    histories: Mapping[str, SubjectHistory],
) -> list[Line]:
    """One line for each expected row."""
    lines = []
    for one in expected:
        key = (one["subject"], one["visit"])
        change = None
        if one["level"] and one["subject"] in histories:
            cell = Cell(Level[one["level"]], Region(one["region"]), Quantity(one["quantity"]))
            changes = histories[one["subject"]].changes
            change = next((each for each in changes if each.cell == cell and each.visit == one["visit"]), None)
        lines.append(Line(one, first.get(key, Found()), last.get(key, Found()), change))
    return lines


def write_table(lines: Sequence[Line], path: Path) -> None:
    """Expected beside found, as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            (
                *("subject", "visit", "fault", "at first: expected", "found", "at the end: expected", "found", "why"),
                *("level", "true %", "measured %", "limits %", "verdict: expected", "found", "right"),
            )
        )
        writer.writerows(_cells(line) for line in lines)


def _cells(line: Line) -> tuple[str, ...]:
    one, change = line.expected, line.change
    return (
        *(one["subject"], one["visit"], one["fault"]),
        *(f"{one['first_state']} {one['first_code']}".strip(), f"{line.first.state} {line.first.code}".strip()),
        *(f"{one['state']} {one['code']}".strip(), f"{line.last.state} {line.last.code}".strip(), line.last.detail),
        one["level"],
        _percent(float(one["true_log_change"])) if one["true_log_change"] else "",
        _percent(_log_change(change)),
        _limits(change),
        *(one["verdicts"], line.verdict),
        "yes" if not line.faults else f"NO: {', '.join(line.faults)}",
    )


def _percent(log_change: float | None) -> str:
    return "" if log_change is None else f"{100 * math.expm1(log_change):+.1f}"


def _limits(change: Change | None) -> str:
    if change is None or change.lower_limit_ms is None or change.upper_limit_ms is None or not change.baseline_ms:
        return ""
    return " ".join(f"{100 * one / change.baseline_ms:+.1f}" for one in (change.lower_limit_ms, change.upper_limit_ms))


def _log_change(change: Change | None) -> float | None:
    if change is None or not change.baseline_ms or not change.value_ms:
        return None
    return math.log(change.value_ms / change.baseline_ms)


# --- how often it is right --------------------------------------------------------------------------------------------


def checks_of(lines: Sequence[Line], histories: Mapping[str, SubjectHistory]) -> Iterator[Check]:
    """The figures of the campaign."""
    planted = [line for line in lines if line.expected["fault"]]
    kinds = {line.expected["fault"] for line in planted}
    wrong = [line for line in lines if line.faults]
    yield Check("visits and primary cells", str(len(lines)))
    yield _all("planted faults that end as expected", planted, f", of {len(kinds)} kinds")
    yield _all("visits without a fault that end as expected", [one for one in lines if not one.expected["fault"]])
    for line in wrong[:12]:
        what = f"  {line.expected['subject']} {line.expected['visit']} {line.expected['fault']}"
        yield Check(what, f"{', '.join(line.faults)}: {line.last.state} {line.last.code} {line.verdict}", "", False)
    yield from _rates(lines, histories)


def _all(what: str, lines: Sequence[Line], more: str = "") -> Check:
    right = sum(not line.faults for line in lines)
    return Check(what, f"{right} of {len(lines)}{more}", "all", right == len(lines))


def _rates(lines: Sequence[Line], histories: Mapping[str, SubjectHistory]) -> Iterator[Check]:
    judged = [one for one in lines if one.verdict in (*_CHANGED, str(ChangeVerdict.WITHIN))]
    judged = [one for one in judged if one.expected["true_log_change"]]
    sizes = [(abs(float(one.expected["true_log_change"])) / float(one.expected["limit_log"]), one) for one in judged]
    large = [one for size, one in sizes if size >= SENSITIVITY_FROM]
    null = [one for size, one in sizes if size <= NULL_UNTIL]
    seen = sum(one.verdict == _direction(one) for one in large)
    yield _rate("primary cells changed by 2 limits and found so", seen, len(large), ">= 90 %", at_least=0.9)
    false = sum(one.verdict in _CHANGED for one in null)
    yield _rate('unchanged primary cells called "changed"', false, len(null), "<= 5 %", at_most=0.05)
    errors = [
        error - float(one.expected["true_log_change"])
        for one in judged
        if (error := _log_change(one.change)) is not None
    ]
    if len(errors) > 1:
        yield Check(
            "error of a measured change: bias, SD", f"{100 * np.mean(errors):+.1f}, {100 * np.std(errors):.1f} %"
        )
    treated = {(one.expected["subject"], one.expected["level"]) for one in lines if one.expected["level"]}
    others = [
        change
        for name, history in histories.items()
        for change in history.changes
        if change.verdict.is_judged and (name, change.cell.level.name) not in treated
    ]
    flagged = sum(str(change.verdict) in _CHANGED for change in others)
    yield _rate('cells of untreated discs called "changed" (hours differ)', flagged, len(others), "")


def _direction(line: Line) -> str:
    return _CHANGED[0] if float(line.expected["true_log_change"]) > 0 else _CHANGED[1]


def _rate(
    what: str, hits: int, n: int, limit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Check:
    """A share with its exact (Clopper-Pearson) 95 % interval."""
    if n == 0:
        return Check(what, "none to judge", limit)
    interval = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    text = f"{hits} of {n} = {hits / n:.1%} (95 % CI {interval.low:.1%} to {interval.high:.1%})"
    ok = None
    if at_least is not None:
        ok = hits / n >= at_least
    elif at_most is not None:
        ok = hits / n <= at_most
    return Check(what, text, limit, ok)


def print_lines(lines: Sequence[Line]) -> None:
    """The verdict table for people: what is expected, then what was found."""
    rows: list[tuple[Any, ...]] = [("subject", "visit", "planted", "expected", "found", "change: true, found", "")]
    for line in lines:
        one = line.expected
        measured = _percent(_log_change(line.change))
        true = _percent(float(one["true_log_change"])) if one["true_log_change"] else ""
        rows.append(
            (
                *(one["subject"], one["visit"], one["fault"] or "-"),
                one["verdicts"].replace(" beyond measurement error", "").replace("within measurement error", "within")
                or f"{one['state']} {one['code']}".strip(),
                f"{line.last.state or '-'} {line.last.code} {line.verdict}".replace(" beyond measurement error", "")
                .replace("within measurement error", "within")
                .strip(),
                f"{true} {measured}".strip(),
                "" if not line.faults else f"NO: {', '.join(line.faults)}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
