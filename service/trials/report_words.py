"""Changes in the words of a subject's report. Neutral: nothing is called better or worse."""

from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.visits import Cell, Change, ChangeVerdict
from service.reports.words import NONE, number
from service.trials.history import VisitRecord

#: Behind a change in a table; explained below it.
MARKS = {
    ChangeVerdict.DECREASE: "▼",
    ChangeVerdict.WITHIN: "",
    ChangeVerdict.INCREASE: "▲",
    ChangeVerdict.NOT_COMPARABLE: "n/c",
    ChangeVerdict.NOT_EVALUABLE: "n/e",
    ChangeVerdict.MISSING: NONE,
}
MARKS_NOTE = (
    "▲ ▼ beyond measurement error, n/c not comparable with the baseline, n/e not evaluable. Limits: of measurement"
    " error around no change."
)


def cell_name(cell: Cell) -> str:
    """``T2, nucleus, L4/L5``."""
    return f"{QUANTITY_NAMES[cell.quantity]}, {REGION_NAMES[cell.region]}, {LEVEL_NAMES[cell.level]}"


def signed(value: float | None, digits: int = 1) -> str:
    """A number with its sign, a true minus, and a dash for what does not exist."""
    if value is None:
        return NONE
    text = number(abs(value), digits)
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def limits_text(change: Change) -> str:
    """``−8.5 to +9.2``."""
    if change.lower_limit_ms is None or change.upper_limit_ms is None:
        return NONE
    return f"{signed(change.lower_limit_ms)} to {signed(change.upper_limit_ms)}"


def change_text(change: Change) -> str:
    """The change in ms with its mark, or why there is none."""
    if not change.verdict.is_judged:
        return MARKS[change.verdict]
    return f"{signed(change.delta_ms)} {MARKS[change.verdict]}".strip()


def state_text(visit: VisitRecord, *, is_over: bool) -> str:
    """What became of a visit, in a few words."""
    if visit.state is None:
        return "no scan; its window is over" if is_over else "no scan yet"
    if visit.is_measured:
        return "measured"
    state = visit.state.value.replace("_", " ")
    return f"{state} ({visit.code})" if visit.code else state
