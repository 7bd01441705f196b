"""From a plan's table and maps to the visits of each subject, one row a subject, as a model takes them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.cohort_models import VisitModel
from config.cohort_plans import CohortPlan
from processing.cohort.design import FloatArray
from processing.cohort.level_maps import region_means
from processing.cohort.visit_models import Occasion, VisitData
from processing.results import Level, Quantity, Region
from service.cohort.maps import CohortMaps, key_of
from service.cohort.table import CohortError, CohortTable, Scan

#: What a model of the mean over levels calls its level.
MEAN_OF_LEVELS = "mean of levels"


@dataclass(frozen=True, slots=True, eq=False)
class ModelVisits:
    """What a model takes, and who is not in it for want of a scan at the baseline.

    ``left_out``: they, with the reason; ``group_of_left_out`` the places of their groups in ``data.groups``, -1 of a
    subject that no scan tells the group of.
    """

    data: VisitData
    left_out: tuple[str, ...]
    group_of_left_out: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Subjects:
    """Who is in a model: the scans of each subject by visit; and those without a scan at the baseline of a change."""

    scans: dict[str, dict[str, Scan]]
    without_baseline: dict[str, dict[str, Scan]]

    def told_by(self, subject: str, asked: VisitModel) -> Scan:
        """The scan whose columns hold: of the baseline, else the first."""
        mine = self.scans[subject]
        return mine[asked.baseline] if asked.baseline in mine else next(iter(mine.values()))


def levels_of(plan: CohortPlan, asked: VisitModel) -> tuple[tuple[Level, ...], ...]:
    """The levels of each model that is made."""
    levels = tuple(Level[one] for one in (asked.levels or plan.levels))
    return tuple((one,) for one in levels) if asked.levels_as == "each" else (levels,)


def called(asked: VisitModel, levels: Sequence[Level]) -> str:
    """What a model at some levels is called."""
    return f"{asked.name} at {', '.join(one.name for one in levels)}"


def visit_data(
    plan: CohortPlan, table: CohortTable, asked: VisitModel, levels: tuple[Level, ...], maps: CohortMaps | None
) -> ModelVisits:
    """The visits of each subject, and who is left out. Without maps: who has a scan when, every value zero.

    Raises:
        CohortError: an unknown column or visit, a subject of two groups, or a covariate that is missing.
    """
    of_subjects = [one for one in (asked.group, plan.site if asked.site else None) if one is not None]
    columns = [one.replace("{level}", levels[0].name) for one in (*of_subjects, *asked.covariates)]
    table.check_columns(columns)
    chosen = _subjects(table, asked)
    rows = {subject: chosen.told_by(subject, asked) for subject in chosen.scans}
    _check_alike(chosen, columns[: len(of_subjects)])
    _check_given(rows.values(), columns)
    values = _values(table, asked, levels, maps)
    names = [MEAN_OF_LEVELS] if asked.levels_as == "mean" else [one.name for one in levels]
    occasions = tuple(Occasion(level, visit) for level in names for visit in asked.visits)

    def at(subject: str, level: str, visit: str | None) -> float:
        return values.get((subject, level, visit or ""), math.nan)

    subjects = tuple(rows)
    later = np.array([[at(one, level, visit) for level, visit in occasions] for one in subjects])
    baseline = None
    if asked.response == "change":
        baseline = np.array([[at(one, level, asked.baseline) for level, _ in occasions] for one in subjects])
        later = later - baseline
    group, groups = _groups(asked, rows, levels)
    covariates, covariate_names = _covariates(plan, asked, rows, levels)
    data = VisitData(
        subjects,
        occasions,
        later,
        group,
        groups,
        baseline,
        covariates,
        covariate_names,
        asked.baseline or "" if asked.response == "value" else "",
    )
    return _with_left_out(data, asked, chosen, columns)


def _with_left_out(data: VisitData, asked: VisitModel, chosen: _Subjects, columns: Sequence[str]) -> ModelVisits:
    """Beside the data, who has no scan at the baseline, and of which group they are by their first scan that tells."""
    left_out, places = [], []
    for subject, mine in chosen.without_baseline.items():
        telling = [one for one in mine.values() if asked.group and not one.is_empty(columns[0])]
        held = [one.values[columns[0]].strip() for one in telling] if asked.group else [""]
        place = data.groups.index(held[0]) if held and held[0] in data.groups else -1
        places.append(place)
        unknown = f", and no {columns[0]} that is one of the groups" if place < 0 else ""
        left_out.append(f"{subject}: no scan at {asked.baseline}{unknown}")
    return ModelVisits(data, tuple(left_out), np.array(places, np.int64))


def _subjects(table: CohortTable, asked: VisitModel) -> _Subjects:
    """Of a change, subjects with a scan at the baseline; of values, with a scan at any of the visits."""
    wanted = tuple(dict.fromkeys((*((asked.baseline,) if asked.baseline else ()), *asked.visits)))
    for visit in wanted:
        table.at(visit)  # a visit that no scan has
    scans: dict[str, dict[str, Scan]] = {}
    for visit in wanted:
        for one in table.at(visit):
            scans.setdefault(one.subject, {})[visit] = one
    ordered = {one.subject: scans[one.subject] for one in table.scans if one.subject in scans}
    if asked.response == "value":
        return _Subjects(ordered, {})
    kept = {one: mine for one, mine in ordered.items() if asked.baseline in mine}
    return _Subjects(kept, {one: mine for one, mine in ordered.items() if one not in kept})


def _check_alike(chosen: _Subjects, columns: Sequence[str]) -> None:
    """Groups and sites are a subject's: rows of other visits may leave them empty, but not differ."""
    faults = []
    for subject, mine in (chosen.scans | chosen.without_baseline).items():
        for column in columns:
            told: dict[str, int] = {}
            for one in sorted(mine.values(), key=lambda scan: scan.line):
                if not one.is_empty(column):
                    told.setdefault(one.values[column].strip(), one.line)
            if len(told) > 1:
                what = ", ".join(f"{value!r} in line {line}" for value, line in told.items())
                faults.append(f"{column}: {subject} has {what}; a subject has one")
    if faults:
        raise CohortError("\n".join(faults))


def _check_given(scans: Iterable[Scan], columns: Sequence[str]) -> None:
    faults = [
        f"line {one.line}: {column}: no value for {one.subject}"
        for one in scans
        for column in columns
        if one.is_empty(column)
    ]
    if faults:
        raise CohortError("\n".join(faults))


def _values(
    table: CohortTable, asked: VisitModel, levels: tuple[Level, ...], maps: CohortMaps | None
) -> dict[tuple[str, str, str], float]:
    """Mean of the region by subject, level and visit; with ``mean`` over levels, of scans that have all of them."""
    of_level: list[dict[tuple[str, str], float]] = []
    for level in levels:
        if maps is None:
            of_level.append({(one.subject, one.visit): 0.0 for one in table.scans})
            continue
        here = maps.maps.get((level, Quantity(asked.quantity)))
        if here is None:
            raise CohortError(f"no scan has {asked.quantity} at {level.name}")
        means = region_means(here)[:, list(Region).index(Region(asked.region))]
        known = dict(zip(here.units, means, strict=True))
        of_level.append(
            {(one.subject, one.visit): float(known[key_of(one)]) for one in table.scans if key_of(one) in known}
        )
    if asked.levels_as != "mean":
        pairs = zip(levels, of_level, strict=True)
        return {(subject, level.name, visit): ms for level, held in pairs for (subject, visit), ms in held.items()}
    complete = set.intersection(*(set(one) for one in of_level))
    return {
        (subject, MEAN_OF_LEVELS, visit): float(np.mean([one[subject, visit] for one in of_level]))
        for subject, visit in complete
    }


def _groups(
    asked: VisitModel, rows: dict[str, Scan], levels: tuple[Level, ...]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """The place of each subject's group; the reference first."""
    if asked.group is None:
        return np.zeros(len(rows), np.int64), ("",)
    column = asked.group.replace("{level}", levels[0].name)
    held = [one.values[column].strip() for one in rows.values()]
    if asked.reference not in held:
        found = ", ".join(sorted(set(held)))
        raise CohortError(f"{column}: no subject is of the reference {asked.reference!r}; there are {found}")
    names = (asked.reference, *sorted(set(held) - {asked.reference}))
    if len(names) < 2:
        raise CohortError(f"{column}: the same value ({asked.reference}) for all subjects")
    return np.array([names.index(one) for one in held]), names


def _covariates(
    plan: CohortPlan, asked: VisitModel, rows: dict[str, Scan], levels: tuple[Level, ...]
) -> tuple[FloatArray | None, tuple[str, ...]]:
    """Numbers, and sites but the first as 0 and 1."""
    names = [one.replace("{level}", levels[0].name) for one in asked.covariates]
    columns = [[one.number(name) for one in rows.values()] for name in names]
    for name, column in zip(names, columns, strict=True):
        unknown = [one for one, value in zip(rows.values(), column, strict=True) if math.isnan(value)]
        if unknown:
            raise CohortError("\n".join(f"line {one.line}: {name}: no value for {one.subject}" for one in unknown))
    if asked.site and plan.site is not None:
        held = [one.values[plan.site].strip() for one in rows.values()]
        sites = sorted(set(held))
        if len(sites) < 2:
            raise CohortError(f"{plan.site}: the same value ({sites[0]}) for all subjects")
        for site in sites[1:]:
            names.append(f"{plan.site} {site}")
            columns.append([float(one == site) for one in held])
    if not columns:
        return None, ()
    return np.array(columns).T, tuple(names)
