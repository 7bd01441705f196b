"""From a plan and its table to the analyses, one after the other; all are prepared before the first is computed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.cohort_plans import BetweenMaps, ByGroup, ByVariable, CohortPlan, OverVisits
from processing.cohort.analysis import (
    MapAnalysis,
    between_maps,
    by_group,
    by_variable,
    mean_change,
    over_time,
)
from processing.cohort.design import DesignError
from processing.cohort.inference import InferenceRules
from processing.cohort.level_maps import LevelMaps, changes
from processing.cohort.slopes import subject_slopes
from processing.results import Level, Quantity
from service.cohort.asked import Question, questions
from service.cohort.maps import CohortMaps, key_of
from service.cohort.questions import Prepared, describe, prepare, unit_name
from service.cohort.table import CohortError, CohortTable, Scan

#: A subject that lacks more than this share of a level's voxels is named: no voxel that it lacks is corrected.
_LACKING = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class CohortFinding:
    """One analysis of the plan at one level; ``left_out``: scans that are not in it, with the reason, and notes."""

    name: str
    level: Level
    quantity: str
    analysis: MapAnalysis
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A question of one quantity, with its maps; ``second``: the other quantity, where it is of both."""

    prepared: Prepared
    maps: LevelMaps
    second: LevelMaps | None = None


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
            notes.append(describe(prepare(plan, table, question)))
        except (CohortError, DesignError) as error:
            faults.append(f"{question.asked.name} at {question.level.name}: {error}")
    if faults:
        raise CohortError("\n".join(faults))
    return tuple(notes)


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
    tasks = prepare_tasks(plan, table, maps)
    for number, task in enumerate(tasks):
        question = task.prepared.question
        name = f"{question.asked.name} {question.level.name} {task.maps.quantity}"

        def tell(share: float, number: int = number, name: str = name) -> None:
            progress(name, (number + share) / len(tasks))

        tell(0.0)
        yield _answer(plan, task, rules, tell)
    progress("done", 1.0)


def prepare_tasks(plan: CohortPlan, table: CohortTable, maps: CohortMaps) -> tuple[Task, ...]:
    """Every analysis with the scans whose maps hold anything.

    Raises:
        CohortError: what is wrong, one fault a line.
    """
    tasks, faults = [], []
    for question in questions(plan):
        wanted = plan.quantities[:1] if isinstance(question.asked, BetweenMaps) else plan.quantities
        for quantity in (Quantity(one) for one in wanted):
            here = maps.maps.get((question.level, quantity))
            if here is None:
                continue  # a warning of the maps tells it
            try:
                tasks.append(_task(plan, table, maps, question, here))
            except (CohortError, DesignError) as error:
                faults.append(f"{question.asked.name} at {question.level.name}, {quantity.value}: {error}")
    if faults:
        raise CohortError("\n".join(faults))
    if plan.analyses and not tasks:
        raise CohortError(f"no scan has any map that is asked for: {'; '.join(maps.warnings[-3:])}")
    return tuple(tasks)


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


def _task(plan: CohortPlan, table: CohortTable, maps: CohortMaps, question: Question, here: LevelMaps) -> Task:
    held = _held(here)
    second = None
    if isinstance(question.asked, BetweenMaps):
        other = Quantity.T2 if here.quantity == Quantity.T1RHO.value else Quantity.T1RHO
        second = maps.maps.get((question.level, other))
        if second is None:
            raise CohortError(f"{other.value} was not measured")
        held &= _held(second)
    return Task(prepare(plan, table, question, lambda scan: key_of(scan) in held), here, second)


def _held(maps: LevelMaps) -> set[str]:
    """The scans whose map has any value."""
    return {unit for unit, values in zip(maps.units, maps.values, strict=True) if np.isfinite(values).any()}


def _answer(plan: CohortPlan, task: Task, rules: InferenceRules, tell: Callable[[float], None]) -> CohortFinding:
    prepared = task.prepared
    asked, design, blocks = prepared.question.asked, prepared.design, prepared.blocks
    mine = _named(plan, task.maps, prepared.scans)
    if prepared.before:
        before = _named(plan, task.maps, prepared.before, names=mine.units)
        if design is None:
            found = over_time(before, mine, rules, min_n=plan.min_n, progress=tell)
            return _finding(plan, task, found)
        mine = changes(before, mine)
    if isinstance(asked, OverVisits):
        mine = _slopes(task, asked, names=mine.units)
        if design is None:
            return _finding(plan, task, mean_change(mine, rules, min_n=plan.min_n, progress=tell))
    if task.second is not None:
        second = _named(plan, task.second, prepared.scans)
        found = between_maps(mine, second, rules, min_n=plan.min_n, blocks=blocks, progress=tell)
    elif design is None:
        raise TypeError(f"{asked.name} has no design")
    elif isinstance(asked, ByGroup) or prepared.question.column_of_words is not None:
        equal = isinstance(asked, ByGroup) and asked.equal_variances
        found = by_group(mine, design, rules, equal_variances=equal, min_n=plan.min_n, blocks=blocks, progress=tell)
    elif isinstance(asked, ByVariable):
        title = f"{task.maps.quantity} by {_without_level(asked.variable)}"
        found = by_variable(
            mine, design, rules, ranks=asked.ranks, min_n=plan.min_n, blocks=blocks, title=title, progress=tell
        )
    else:
        found = by_variable(mine, design, rules, min_n=plan.min_n, blocks=blocks, progress=tell)
    return _finding(plan, task, found)


def _finding(plan: CohortPlan, task: Task, found: MapAnalysis) -> CohortFinding:
    prepared = task.prepared
    notes = _by_reason(prepared.left_out)
    if not np.isfinite(found.effect).any():
        notes.append(f"no voxel can be tested: fewer than {plan.min_n} subjects have it, or it is the same in all")
    lacking = 1 - np.isfinite(found.maps.values).mean(axis=1)
    notes += [
        f"{unit} lacks {share:.0%} of the voxels"
        for unit, share in zip(found.maps.units, lacking, strict=True)
        if share > _LACKING
    ]
    notes += [note for note in prepared.notes if not note.startswith("only")]  # the analysis tells of few permutations
    return CohortFinding(prepared.question.asked.name, prepared.question.level, task.maps.quantity, found, tuple(notes))


def _by_reason(left_out: Sequence[str]) -> list[str]:
    """Who is left out for one reason, in one note."""
    reasons: dict[str, list[str]] = {}
    for one in left_out:
        who, _, reason = one.rpartition(": ")
        reasons.setdefault(reason, []).append(who)
    return [f"{', '.join(who)}: {reason}" for reason, who in reasons.items()]


def _named(plan: CohortPlan, maps: LevelMaps, scans: Sequence[Scan], names: tuple[str, ...] | None = None) -> LevelMaps:
    """The maps of some scans under the names of their units."""
    chosen = maps.of(tuple(key_of(one) for one in scans))
    return replace(chosen, units=names or tuple(unit_name(one, plan.paper) for one in scans))


def _slopes(task: Task, asked: OverVisits, names: tuple[str, ...]) -> LevelMaps:
    course = task.prepared.course
    maps = task.maps.of(tuple(key_of(one) for one in course))
    times = [one.number(asked.time) for one in course]
    return replace(subject_slopes(maps, [one.subject for one in course], times, asked.time), units=names)


def _without_level(column: str) -> str:
    return column.replace("_{level}", "").replace("{level}", "")
