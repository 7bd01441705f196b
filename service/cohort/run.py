"""From a plan and its table to the analyses: who is in each, in which order, and what they are asked."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from config.cohort_plans import Asked, BetweenMaps, ByGroup, ByVariable, CohortPlan, OverTime, OverVisits
from processing.cohort.analysis import (
    LevelMaps,
    MapAnalysis,
    between_maps,
    by_group,
    by_variable,
    changes,
    mean_change,
    over_time,
)
from processing.cohort.design import Design, DesignError, make_design
from processing.cohort.inference import InferenceRules
from processing.cohort.slopes import subject_slopes
from processing.results import Level, Quantity
from service.cohort.maps import CohortMaps, key_of
from service.cohort.table import CohortError, CohortTable, Scan


@dataclass(frozen=True, slots=True, eq=False)
class CohortFinding:
    """One analysis of the plan at one level; ``left_out``: scans that are not in it, with the reason."""

    name: str
    level: Level
    quantity: str
    analysis: MapAnalysis
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One analysis at one level: the columns it asks for, and what it is called."""

    asked: Asked
    level: Level

    def column(self, name: str) -> str:
        """A column's name at this level."""
        return name.replace("{level}", self.level.name)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns it needs."""
        match self.asked:
            case ByVariable(variable=variable, covariates=covariates):
                names = (variable, *covariates)
            case ByGroup(column=column, covariates=covariates):
                names = (column, *covariates)
            case OverTime(variable=variable, column=column, covariates=covariates):
                bare = None if variable is None else variable.removesuffix("-baseline")
                names = tuple(one for one in (bare, column) if one is not None) + covariates
            case OverVisits(time=time, variable=variable, column=column, covariates=covariates):
                names = (time, *(one for one in (variable, column) if one is not None), *covariates)
            case _:
                names = ()
        return tuple(self.column(name) for name in names)


def check_plan(plan: CohortPlan, table: CohortTable) -> tuple[str, ...]:
    """Everything that can be told before maps are read: columns, visits, designs; returns notes in words.

    Raises:
        CohortError: what is wrong, one fault a line.
    """
    faults, notes = [], []
    if plan.site is not None:
        table.check_columns([plan.site])
    for question in questions(plan):
        try:
            table.check_columns(question.columns)
            notes.append(_described(plan, table, question))
        except (CohortError, DesignError) as error:
            faults.append(f"{question.asked.name} at {question.level.name}: {error}")
    if faults:
        raise CohortError("\n".join(faults))
    return tuple(notes)


def questions(plan: CohortPlan) -> tuple[Question, ...]:
    """Every analysis at every level."""
    return tuple(Question(asked, Level[level]) for asked in plan.analyses for level in plan.levels)


def run_plan(
    plan: CohortPlan,
    table: CohortTable,
    maps: CohortMaps,
    progress: Callable[[str, float], None] = lambda _name, _share: None,
) -> Iterator[CohortFinding]:
    """All analyses, one after the other.

    Raises:
        CohortError: an analysis cannot be made; the message names it and the rule.
    """
    rules = rules_of(plan)
    todo = questions(plan)
    for number, question in enumerate(todo):
        quantities = (Quantity(plan.quantities[0]),) if isinstance(question.asked, BetweenMaps) else plan.quantities
        for quantity in (Quantity(one) for one in quantities):
            progress(f"{question.asked.name} {question.level.name} {quantity.value}", number / len(todo))
            here = maps.maps.get((question.level, quantity))
            if here is None:
                continue
            try:
                yield _answer(plan, table, maps, question, here, rules)
            except (CohortError, DesignError) as error:
                raise CohortError(f"{question.asked.name} at {question.level.name}: {error}") from error
    progress("done", 1.0)


def rules_of(plan: CohortPlan) -> InferenceRules:
    """The plan's multiplicity as the statistics take it; paper mode makes none."""
    asked = plan.inference
    return InferenceRules(
        alpha=asked.alpha,
        forming_p=asked.forming_p,
        n_permutations=0 if plan.paper else asked.permutations,
        seed=plan.seed,
        threshold_free=asked.threshold_free and not plan.paper,
        random_fields=asked.random_fields and not plan.paper,
    )


def _answer(
    plan: CohortPlan, table: CohortTable, maps: CohortMaps, question: Question, here: LevelMaps, rules: InferenceRules
) -> CohortFinding:
    asked = question.asked
    name, level, quantity = asked.name, question.level, here.quantity
    if isinstance(asked, BetweenMaps):
        second = maps.maps.get((level, Quantity.T2 if quantity == Quantity.T1RHO.value else Quantity.T1RHO))
        if second is None:
            raise CohortError("the other quantity was not measured")
        chosen = _with_map(_scans(plan, table, asked.visit), here)
        units = tuple(key_of(one) for one in chosen)
        found = between_maps(
            _named(plan, here.of(units), chosen), _named(plan, second.of(units), chosen), rules, min_n=plan.min_n
        )
        return CohortFinding(name, level, quantity, found, ())
    if isinstance(asked, OverTime):
        return _over_time(plan, table, question, asked, here, rules)
    if isinstance(asked, OverVisits):
        return _over_visits(plan, table, question, asked, here, rules)
    present = _with_map(_scans(plan, table, asked.visit), here)
    kept, left_out = _with_values(present, question)
    design = _design(plan, question, kept)
    maps_here = _named(plan, here.of(tuple(key_of(one) for one in kept)), kept)
    blocks = _blocks(plan, kept)
    if isinstance(asked, ByVariable):
        title = f"{quantity} by {_without_level(asked.variable)}"
        found = by_variable(maps_here, design, rules, ranks=asked.ranks, min_n=plan.min_n, blocks=blocks, title=title)
    else:
        found = by_group(maps_here, design, rules, equal_variances=asked.equal_variances, min_n=2, blocks=blocks)
    return CohortFinding(name, level, quantity, found, left_out)


def _over_time(
    plan: CohortPlan,
    table: CohortTable,
    question: Question,
    asked: OverTime,
    here: LevelMaps,
    rules: InferenceRules,
) -> CohortFinding:
    first = {one.subject: one for one in _with_map(table.at(asked.baseline), here)}
    second = {one.subject: one for one in _with_map(table.at(asked.later), here)}
    both = [subject for subject in first if subject in second]
    left_out = tuple(f"{subject}: has not both scans" for subject in sorted(first.keys() ^ second.keys()))
    later = tuple(second[subject] for subject in both)
    kept, unknown = _with_values(later, question)
    before = tuple(first[one.subject] for one in kept)
    maps_before = _named(plan, here.of(tuple(key_of(one) for one in before)), before)
    maps_later = _named(plan, here.of(tuple(key_of(one) for one in kept)), kept)
    if asked.variable is None and asked.column is None:
        found = over_time(maps_before, maps_later, rules, min_n=plan.min_n)
    else:
        difference = changes(maps_before, maps_later)
        design = _design(plan, question, kept, before)
        analyse = by_variable if asked.variable is not None else by_group
        found = analyse(difference, design, rules, min_n=plan.min_n, blocks=_blocks(plan, kept))
    return CohortFinding(asked.name, question.level, here.quantity, found, left_out + unknown)


def _over_visits(
    plan: CohortPlan,
    table: CohortTable,
    question: Question,
    asked: OverVisits,
    here: LevelMaps,
    rules: InferenceRules,
) -> CohortFinding:
    scans, firsts, left_out = _courses(table, question, asked, here)
    slopes = subject_slopes(
        here.of(tuple(key_of(one) for one in scans)),
        [one.subject for one in scans],
        [one.number(asked.time) for one in scans],
        asked.time,
    )
    slopes = _named(plan, slopes, firsts)
    if asked.variable is None and asked.column is None:
        found = mean_change(slopes, rules, min_n=plan.min_n)
    else:
        design = _design(plan, question, firsts)
        analyse = by_variable if asked.variable is not None else by_group
        found = analyse(slopes, design, rules, min_n=plan.min_n, blocks=_blocks(plan, firsts))
    return CohortFinding(asked.name, question.level, here.quantity, found, left_out)


def _courses(
    table: CohortTable, question: Question, asked: OverVisits, here: LevelMaps | None = None
) -> tuple[tuple[Scan, ...], tuple[Scan, ...], tuple[str, ...]]:
    """Scans of the subjects that have a slope, subject by subject; the first scan of each; who is left out."""
    for visit in asked.visits:
        table.at(visit)
    chosen = [one for one in table.scans if not asked.visits or one.visit in asked.visits]
    timed = [one for one in chosen if not math.isnan(one.number(asked.time))]
    left_out = [f"{one.subject} {one.visit}: no {asked.time}" for one in chosen if one not in timed]
    if here is not None:
        timed = list(_with_map(timed, here))
    courses: dict[str, list[Scan]] = {}
    for one in sorted(timed, key=lambda one: one.number(asked.time)):
        courses.setdefault(one.subject, []).append(one)
    firsts, unknown = _with_values([course[0] for course in courses.values()], question)
    several = tuple(
        one
        for one in firsts
        if courses[one.subject][0].number(asked.time) < courses[one.subject][-1].number(asked.time)
    )
    left_out += [*unknown, *(f"{one.subject}: no two scans at different times" for one in firsts if one not in several)]
    return tuple(scan for one in several for scan in courses[one.subject]), several, tuple(left_out)


def _scans(plan: CohortPlan, table: CohortTable, visit: str) -> tuple[Scan, ...]:
    """Of a visit; in paper mode all scans, as published, those of one subject as if they were independent."""
    if plan.paper and not visit:
        return table.scans
    return table.at(visit)


def _with_map(scans: Sequence[Scan], maps: LevelMaps) -> tuple[Scan, ...]:
    return tuple(one for one in scans if key_of(one) in maps.units)


def _with_values(scans: Sequence[Scan], question: Question) -> tuple[tuple[Scan, ...], tuple[str, ...]]:
    """Scans with everything that the question asks for; the others are left out of this analysis and told."""
    kept, left_out = [], []
    text = question.asked.column if isinstance(question.asked, ByGroup) and question.asked.second else None
    if isinstance(question.asked, OverTime | OverVisits):
        text = question.asked.column
    for one in scans:
        missing = [
            column
            for column in question.columns
            if (not one.values[column].strip() if column == text else math.isnan(one.number(column)))
        ]
        if missing:
            left_out.append(f"{one.subject}: no {', '.join(missing)}")
        else:
            kept.append(one)
    return tuple(kept), tuple(left_out)


def _design(
    plan: CohortPlan, question: Question, scans: Sequence[Scan], before: Sequence[Scan] | None = None
) -> Design:
    """The numbers of a question. In paper mode every scan is a unit of its own, as published."""
    asked = question.asked
    units = [_unit_name(one, plan.paper) for one in scans]
    covariates = {
        question.column(name): [one.number(question.column(name)) for one in scans]
        for name in getattr(asked, "covariates", ())
    }
    match asked:
        case ByVariable(variable=variable):
            column = question.column(variable)
            values = [one.number(column) for one in scans]
        case ByGroup(column=column, second=second, above=above):
            column = question.column(column)
            values = [
                float(one.values[column].strip() == second) if above is None else float(one.number(column) > above)
                for one in scans
            ]
        case OverTime(variable=str() as variable):
            column = question.column(variable.removesuffix("-baseline"))
            values = [one.number(column) for one in scans]
            if variable.endswith("-baseline") and before is not None:
                values = [value - one.number(column) for value, one in zip(values, before, strict=True)]
                column = f"change of {column}"
        case OverVisits(variable=str() as variable):
            column = question.column(variable)
            values = [one.number(column) for one in scans]
        case OverTime(column=str() as column, second=second) | OverVisits(column=str() as column, second=second):
            values = [float(one.values[column].strip() == second) for one in scans]
        case _:
            raise TypeError(f"{type(asked).__name__} has no design")
    return make_design(values, covariates, units=units, variable_name=column)


def _described(plan: CohortPlan, table: CohortTable, question: Question) -> str:
    """What an analysis will be of, checked as far as the table tells."""
    asked = question.asked
    if isinstance(asked, BetweenMaps):
        return f"{asked.name} at {question.level.name}: {len(_scans(plan, table, asked.visit))} scans"
    if isinstance(asked, OverTime):
        first, second = ({one.subject: one for one in table.at(visit)} for visit in (asked.baseline, asked.later))
        both = [subject for subject in first if subject in second]
        if len(both) < 3:
            raise CohortError(
                f"{len(both)} subjects have both {asked.baseline} and {asked.later}; at least 3 are needed"
            )
        kept, _ = _with_values([second[one] for one in both], question)
        if asked.variable is not None or asked.column is not None:
            _design(plan, question, kept, [first[one.subject] for one in kept])
        return f"{asked.name} at {question.level.name}: {len(kept)} subjects with both scans"
    if isinstance(asked, OverVisits):
        scans, firsts, _ = _courses(table, question, asked)
        if len(firsts) < 3:
            raise CohortError(f"{len(firsts)} subjects have scans at two times of {asked.time}; at least 3 are needed")
        if asked.variable is not None or asked.column is not None:
            _design(plan, question, firsts)
        return f"{asked.name} at {question.level.name}: {len(firsts)} subjects with {len(scans)} scans"
    kept, left_out = _with_values(_scans(plan, table, asked.visit), question)
    design = _design(plan, question, kept)
    if isinstance(asked, ByGroup):
        n = int(design.variable.sum())
        for label, count in (("first", design.n - n), ("second", n)):
            if count < 2:
                raise CohortError(f"the {label} group has {count} subjects; at least 2 are needed")
    if design.n < plan.min_n:
        raise CohortError(f"{design.n} subjects have all values; min_n is {plan.min_n}")
    told = f", {len(left_out)} left out ({'; '.join(left_out[:3])})" if left_out else ""
    return f"{asked.name} at {question.level.name}: {design.n} subjects{told}"


def _named(plan: CohortPlan, maps: LevelMaps, scans: Sequence[Scan]) -> LevelMaps:
    """The same rows under the names of their units."""
    return replace(maps, units=tuple(_unit_name(one, plan.paper) for one in scans))


def _without_level(column: str) -> str:
    return column.replace("_{level}", "").replace("{level}", "")


def _unit_name(scan: Scan, paper: bool) -> str:
    """A subject; in paper mode a scan is a unit of its own."""
    return f"{scan.subject} {scan.visit}".strip() if paper else scan.subject


def _blocks(plan: CohortPlan, scans: Sequence[Scan]) -> npt.NDArray[np.int64] | None:
    if plan.site is None:
        return None
    sites = sorted({one.values[plan.site] for one in scans})
    return np.array([sites.index(one.values[plan.site]) for one in scans])
