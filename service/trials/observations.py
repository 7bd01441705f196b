"""What every place of a subject was at every visit: values from the results, or the reason why there is none."""

from collections.abc import Mapping, Sequence
from typing import Any

from processing.display import LEVEL_NAMES
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import NO_SCAN, Cell, Observation
from service.states import VisitState
from service.trials.visit_record import VisitRecord

_KEYS = {Quantity.T1RHO: "t1rho_ms", Quantity.T2: "t2_ms"}

#: Every place that is followed, from above, as the pictures show them.
CELLS = tuple(
    Cell(level, region, quantity) for quantity in Quantity for region in Region for level in reversed(LUMBAR_LEVELS)
)

_NOT_COUNTED = {
    None: NO_SCAN,
    VisitState.HELD: "held",
    VisitState.AWAITED: "not measured yet",
    VisitState.NOT_EVALUABLE: "not evaluable",
    VisitState.SET_ASIDE: "set aside",
}


def observe(
    visits: Sequence[VisitRecord], non_evaluable: Mapping[Level, tuple[str, str]], max_excluded_share: float
) -> dict[Cell, tuple[Observation, ...]]:
    """Every cell that any visit measured, at every visit in their order; means over the voxels with a value, in ms.

    A value that does not exist, or does not count, is None with a reason: it is never filled in.

    Args:
        visits: in order.
        non_evaluable: level -> first visit from which it is not evaluated, and why.
        max_excluded_share: of the voxels of a region; with more of them without a value, its mean does not count.
    """
    measured = {quantity for one in visits for quantity in _quantities(one)}
    return {
        cell: tuple(_observation(cell, visit, visits, non_evaluable, max_excluded_share) for visit in visits)
        for cell in CELLS
        if cell.quantity in measured
    }


def _quantities(visit: VisitRecord) -> set[Quantity]:
    discs = (visit.result or {}).get("discs", ()) if visit.is_measured else ()
    return {quantity for quantity, key in _KEYS.items() for disc in discs if disc.get(key)}


def _observation(
    cell: Cell,
    visit: VisitRecord,
    visits: Sequence[VisitRecord],
    non_evaluable: Mapping[Level, tuple[str, str]],
    max_excluded_share: float,
) -> Observation:
    day = visit.day if visit.day is not None else (visit.planned.day if visit.planned else 0)
    if (why := _why_not(cell.level, visit, visits, non_evaluable)) is not None:
        return Observation(visit.name, day, None, reason=why)
    found = statistics_of(visit.result or {}, cell)
    if found is None:
        return Observation(visit.name, day, None, reason=f"{LEVEL_NAMES[cell.level]} was not found")
    n, n_excluded = int(found.get("n", 0)), int(found.get("n_excluded", 0))
    value, sd = found.get("mean"), found.get("sd")
    if value is None or n == 0:
        return Observation(visit.name, day, None, None, n, n_excluded, "no voxel has a value")
    if n_excluded > max_excluded_share * (n + n_excluded):
        reason = f"{n_excluded / (n + n_excluded):.0%} of the voxels have no value"
        return Observation(visit.name, day, None, None, n, n_excluded, reason)
    return Observation(visit.name, day, float(value), None if sd is None else float(sd), n, n_excluded)


def _why_not(
    level: Level,
    visit: VisitRecord,
    visits: Sequence[VisitRecord],
    non_evaluable: Mapping[Level, tuple[str, str]],
) -> str | None:
    if not visit.is_measured:
        state = _NOT_COUNTED.get(visit.state, "no result")
        return f"{state} ({visit.code})" if visit.state is not None and visit.code else state
    if level in non_evaluable:
        first, why = non_evaluable[level]
        names = [one.name for one in visits]
        if first not in names or names.index(visit.name) >= names.index(first):
            return f"not evaluable from {first} on: {why}"
    return None


def statistics_of(result: Mapping[str, Any], cell: Cell) -> Mapping[str, Any] | None:
    """A cell's entry in the content of a result.json; None where its disc is not there, or was not measured."""
    for disc in result.get("discs", ()):
        if disc["level"] == cell.level.name:
            place = disc if cell.region is Region.WHOLE_DISC else disc["regions"].get(cell.region.value, {})
            found: Mapping[str, Any] = place.get(_KEYS[cell.quantity]) or {}
            return found or None
    return None
