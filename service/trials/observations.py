"""What every place of a subject was at every visit: values from the results, or the reason why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.trial_plans import TrialPlan
from dicom_io.result_reader import UnreadableResult, read_atlas_maps
from processing import common_voxels
from processing.common_voxels import AtlasDiscMaps, VisitMaps
from processing.display import LEVEL_NAMES
from processing.refusal import UnsuitableInput
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


@dataclass(frozen=True, slots=True)
class Observed:
    """Every cell that any visit measured, one observation for each visit, and what is to be told of how it was read.

    ``are_common``: means are over the voxels that have a value at all visits; else over those of each visit.
    """

    cells: dict[Cell, tuple[Observation, ...]]
    are_common: bool
    warning: str = ""


def observe(visits: Sequence[VisitRecord], non_evaluable: Mapping[Level, tuple[str, str]], plan: TrialPlan) -> Observed:
    """Every cell that any visit measured, at every visit in their order; means in ms.

    A value that does not exist, or does not count, is None with a reason: it is never filled in.

    Args:
        visits: in order.
        non_evaluable: level -> first visit from which it is not evaluated, and why.
        plan: whether over common voxels, and from which share of voxels without a value on a mean does not count.
    """
    if plan.change.voxels == "each":
        return Observed(_each(visits, non_evaluable, plan.acceptance.max_excluded_share), are_common=False)
    try:
        maps = [_maps(one, non_evaluable, visits) for one in visits]
    except (UnreadableResult, UnsuitableInput):
        cells = _each(visits, non_evaluable, plan.acceptance.max_excluded_share)
        text = "The maps of a visit are no longer there: each mean is over the voxels of its own visit."
        return Observed(cells, are_common=False, warning=text if cells else "")
    not_compared = [one.name for one in visits if any(each.hard for each in one.differences)]
    found = common_voxels.observe(maps, left_out=not_compared, max_excluded_share=plan.acceptance.max_excluded_share)
    cells = {
        cell: tuple(
            one if (why := _why_not(cell.level, visit, visits, non_evaluable)) is None else _none(visit, why)
            for visit, one in zip(visits, found[cell], strict=True)
        )
        for cell in CELLS
        if cell in found
    }
    return Observed(cells, are_common=True)


def compared_maps(
    visits: Sequence[VisitRecord], non_evaluable: Mapping[Level, tuple[str, str]]
) -> tuple[VisitMaps, ...]:
    """The discs in atlas space of the visits that are compared; none where retention has taken any of them."""
    compared = [one for one in visits if not any(each.hard for each in one.differences)]
    try:
        return tuple(_maps(one, non_evaluable, visits) for one in compared)
    except (UnreadableResult, UnsuitableInput):
        return ()


def _maps(
    visit: VisitRecord, non_evaluable: Mapping[Level, tuple[str, str]], visits: Sequence[VisitRecord]
) -> VisitMaps:
    """A visit's discs in atlas space; those that do not count take no voxels from other visits."""
    why = _why_not(None, visit, visits, non_evaluable)
    if why is not None or visit.folder is None:
        return VisitMaps(visit.name, _day(visit), reason=why or NO_SCAN)
    found = read_atlas_maps(visit.folder)
    _check_complete(visit, found)
    discs = {level: maps for level, maps in found.items() if _why_not(level, visit, visits, non_evaluable) is None}
    atlas = str((visit.result or {}).get("versions", {}).get("atlas_sha256", ""))
    return VisitMaps(visit.name, _day(visit), discs, atlas)


def _check_complete(visit: VisitRecord, found: Mapping[Level, AtlasDiscMaps]) -> None:
    """Pass if there is a map of all that the result says was measured in atlas space.

    Raises:
        UnreadableResult: there is not; retention may have taken it.
    """
    for disc in (visit.result or {}).get("discs", ()):
        level = Level[disc["level"]]
        if level not in LUMBAR_LEVELS or not disc.get("registration"):
            continue
        measured = {one for one, key in _KEYS.items() if disc["regions"][Region.NUCLEUS.value].get(key)}
        if level not in found or measured - set(found[level].times_ms):
            raise UnreadableResult(f"the maps of {level.name} are not there")


def _each(
    visits: Sequence[VisitRecord], non_evaluable: Mapping[Level, tuple[str, str]], max_excluded_share: float
) -> dict[Cell, tuple[Observation, ...]]:
    """From each visit's result.json."""
    measured = {quantity for one in visits for quantity in _quantities(one)}
    return {
        cell: tuple(_observation(cell, visit, visits, non_evaluable, max_excluded_share) for visit in visits)
        for cell in CELLS
        if cell.quantity in measured
    }


def _day(visit: VisitRecord) -> int:
    """Of the scan; of one that did not come the planned day."""
    if visit.day is not None:
        return visit.day
    return visit.planned.day if visit.planned is not None else 0


def _none(visit: VisitRecord, why: str) -> Observation:
    return Observation(visit.name, _day(visit), None, reason=why)


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
    if (why := _why_not(cell.level, visit, visits, non_evaluable)) is not None:
        return _none(visit, why)
    found = statistics_of(visit.result or {}, cell)
    if found is None:
        return _none(visit, f"{LEVEL_NAMES[cell.level]} was not found")
    day, n, n_excluded = _day(visit), int(found.get("n", 0)), int(found.get("n_excluded", 0))
    value, sd = found.get("mean"), found.get("sd")
    if value is None or n == 0:
        return Observation(visit.name, day, None, None, n, n_excluded, "no voxel has a value")
    if n_excluded > max_excluded_share * (n + n_excluded):
        reason = f"{n_excluded / (n + n_excluded):.0%} of the voxels have no value"
        return Observation(visit.name, day, None, None, n, n_excluded, reason)
    return Observation(visit.name, day, float(value), None if sd is None else float(sd), n, n_excluded)


def _why_not(
    level: Level | None,
    visit: VisitRecord,
    visits: Sequence[VisitRecord],
    non_evaluable: Mapping[Level, tuple[str, str]],
) -> str | None:
    if not visit.is_measured:
        state = _NOT_COUNTED.get(visit.state, "no result")
        return f"{state} ({visit.code})" if visit.state is not None and visit.code else state
    if level is not None and level in non_evaluable:
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
