"""Who is in each analysis of a plan, in which order, and as which numbers: all checked before anything is computed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from config.cohort_plans import BetweenMaps, ByGroup, ByVariable, CohortPlan, OverTime
from processing.cohort.association import ranked
from processing.cohort.design import Design, make_design
from processing.cohort.exchange import Orders, Signs, orders_of
from processing.results import Level
from service.cohort.table import CohortError, CohortTable, Scan

#: Of the variable's spread that its covariates leave; a subject that holds more is named.
_HEAVY = 0.4

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """One analysis at one level: the columns it asks for, and what it is called."""

    asked: ByVariable | ByGroup | BetweenMaps | OverTime
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
            case _:
                names = ()
        return tuple(self.column(name) for name in names)

    @property
    def has_variable(self) -> bool:
        """Maps are held against a column of the table.

        Raises:
            CohortError: covariates, and nothing that they could be adjusted for.
        """
        if isinstance(self.asked, OverTime) and self.asked.variable is None and self.asked.column is None:
            if self.asked.covariates:
                raise CohortError("covariates without variable or column: a mean change is not adjusted")
            return False
        return not isinstance(self.asked, BetweenMaps)

    @property
    def column_of_words(self) -> str | None:
        """The column that names groups, not numbers."""
        if isinstance(self.asked, ByGroup):
            return self.column(self.asked.column) if self.asked.second else None
        if isinstance(self.asked, OverTime) and self.asked.column is not None:
            return self.column(self.asked.column)
        return None

    @property
    def change_of(self) -> str | None:
        """The column whose change from baseline is asked for."""
        variable = self.asked.variable if isinstance(self.asked, OverTime) else None
        is_change = variable is not None and variable.endswith("-baseline")
        return self.column(variable.removesuffix("-baseline")) if is_change and variable is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A question with its scans. ``before``: the baselines of the same subjects, where it is of a change.

    ``design``: None where only maps are looked at. ``blocks``: within which subjects change places.
    ``left_out``: scans that are not in it, with the reason; ``notes``: what a reader must know.
    """

    question: Question
    scans: tuple[Scan, ...]
    before: tuple[Scan, ...]
    design: Design | None
    blocks: IntArray | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def questions(plan: CohortPlan) -> tuple[Question, ...]:
    """Every analysis at every level."""
    return tuple(Question(asked, Level[level]) for asked in plan.analyses for level in plan.levels)


def unit_name(scan: Scan, paper: bool) -> str:
    """A subject; in paper mode a scan is a unit of its own."""
    return f"{scan.subject} {scan.visit}".strip() if paper else scan.subject


def prepare(
    plan: CohortPlan, table: CohortTable, question: Question, has_map: Callable[[Scan], bool] = lambda _: True
) -> Prepared:
    """Everything of a question that can be told without values of maps.

    Args:
        plan, table, question: what is asked.
        has_map: whether a scan has a map of the level with any value in it.

    Raises:
        CohortError, DesignError: what is wrong, with the rule and the row or column.
    """
    table.check_columns(question.columns)
    scans, before, left_out = _chosen(plan, table, question, has_map)
    by_subject = {one.subject: one for one in before}
    kept, unknown = [], []
    for one in scans:
        missing = _missing(question, one, by_subject.get(one.subject))
        if missing:
            unknown.append(f"line {one.line}: {one.subject}: no {', '.join(missing)}")
        else:
            kept.append(one)
    found = tuple(kept)
    earlier = tuple(by_subject[one.subject] for one in found) if before else ()
    if len(found) < plan.min_n:
        few = "; ".join((*left_out, *unknown)[:5])
        raise CohortError(f"{len(found)} subjects have all values; min_n is {plan.min_n}{f' ({few})' if few else ''}")
    blocks = _blocks(plan, found)
    values = _values(question, found, earlier) if question.has_variable else None
    notes = _exchangeable(plan, question, found, values, blocks)
    design = None
    if values is not None:
        design = _design(plan, question, found, values)
        _check_groups(question, design)
        notes += _leverage(design)
    return Prepared(question, found, earlier, design, blocks, (*left_out, *unknown), notes)


def describe(prepared: Prepared) -> str:
    """What an analysis will be of, for who checks a plan."""
    question, n = prepared.question, len(prepared.scans)
    what = "subjects with both scans" if prepared.before else "subjects"
    told = f"{question.asked.name} at {question.level.name}: {n} {what}"
    if isinstance(question.asked, ByGroup) and prepared.design is not None:
        second = int(prepared.design.variable.sum())
        told += f" ({n - second} and {second})"
    if prepared.left_out:
        more = f"; and {len(prepared.left_out) - 5} more" if len(prepared.left_out) > 5 else ""
        told += f", {len(prepared.left_out)} left out ({'; '.join(prepared.left_out[:5])}{more})"
    return "; ".join((told, *prepared.notes))


def _chosen(
    plan: CohortPlan, table: CohortTable, question: Question, has_map: Callable[[Scan], bool]
) -> tuple[tuple[Scan, ...], tuple[Scan, ...], tuple[str, ...]]:
    """The scans that are asked for and have maps, their baselines, and who is left out so far."""
    asked = question.asked
    left_out: list[str] = []

    def with_map(scans: Sequence[Scan]) -> list[Scan]:
        left_out.extend(
            f"line {one.line}: {one.subject} {one.visit}: no map".replace(" :", ":")
            for one in scans
            if not has_map(one)
        )
        return [one for one in scans if has_map(one)]

    if not isinstance(asked, OverTime):
        scans = with_map(table.scans if plan.paper and not asked.visit else table.at(asked.visit))
        return tuple(scans), (), tuple(left_out)
    first = {one.subject: one for one in with_map(table.at(asked.baseline))}
    second = {one.subject: one for one in with_map(table.at(asked.later))}
    both = [subject for subject in first if subject in second]
    left_out.extend(f"{subject}: not both scans" for subject in sorted(first.keys() ^ second.keys()))
    if len(both) < 3:
        raise CohortError(f"{len(both)} subjects have both {asked.baseline} and {asked.later}; at least 3 are needed")
    return tuple(second[one] for one in both), tuple(first[one] for one in both), tuple(left_out)


def _missing(question: Question, scan: Scan, before: Scan | None) -> list[str]:
    words = question.column_of_words
    missing = [
        column
        for column in question.columns
        if (scan.is_empty(column) if column == words else math.isnan(scan.number(column)))
    ]
    if question.change_of is not None and before is not None and math.isnan(before.number(question.change_of)):
        missing.append(f"{question.change_of} at {before.visit}")
    return missing


def _values(question: Question, scans: Sequence[Scan], before: Sequence[Scan]) -> list[float]:
    """The variable of interest, a number for each scan; 1 for the second group."""
    asked = question.asked
    match asked:
        case ByVariable(variable=variable):
            return [one.number(question.column(variable)) for one in scans]
        case ByGroup(column=column, above=float() as above):
            return [float(one.number(question.column(column)) > above) for one in scans]
        case ByGroup(column=str() as column, second=second) | OverTime(column=str() as column, second=second):
            return _in_second(question.column(column), second, scans)
        case OverTime(variable=str() as variable):
            later = [one.number(question.column(variable.removesuffix("-baseline"))) for one in scans]
            if question.change_of is None:
                return later
            return [value - one.number(question.change_of) for value, one in zip(later, before, strict=True)]
        case _:
            raise TypeError(f"{type(asked).__name__} has no variable")


def _in_second(column: str, second: str, scans: Sequence[Scan]) -> list[float]:
    words = [one.values[column].strip() for one in scans]
    if second not in words:
        there = ", ".join(sorted(set(words))[:8])
        raise CohortError(f"{column}: no row has {second!r}; there are {there}")
    return [float(word == second) for word in words]


def _design(plan: CohortPlan, question: Question, scans: Sequence[Scan], values: list[float]) -> Design:
    """The numbers of a question. In paper mode every scan is a unit of its own, as published."""
    units = [unit_name(one, plan.paper) for one in scans]
    covariates = {
        question.column(name): [one.number(question.column(name)) for one in scans]
        for name in getattr(question.asked, "covariates", ())
    }
    name = question.columns[0]
    if name in covariates:
        raise CohortError(f"{name}: is a covariate, too: a column is a combination of itself")
    for column, numbers in covariates.items():
        _check_spread(column, numbers, scans)
    told = name if question.change_of is None else f"change of {question.change_of}"
    _check_spread(told, values, scans)
    if plan.site is not None:  # else the P values of no permutation would know that sites differ
        sites = [one.values[plan.site].strip() for one in scans]
        for site in sorted(set(sites))[1:]:
            covariates[f"{plan.site} {site}"] = [float(one == site) for one in sites]
    design = make_design(values, covariates, units=units, variable_name=told)
    if isinstance(question.asked, ByVariable) and question.asked.ranks:
        of = ranked(design)
        columns = {f"ranks of {one}": of.covariates[:, i].tolist() for i, one in enumerate(of.names)}
        make_design(of.variable.tolist(), columns, units=units, variable_name=f"ranks of {told}")
    return design


def _check_spread(column: str, numbers: Sequence[float], scans: Sequence[Scan]) -> None:
    if len(set(numbers)) == 1:
        lines = f"lines {scans[0].line} to {scans[-1].line}"
        raise CohortError(f"{column}: the same value ({numbers[0]:g}) for all {len(scans)} subjects ({lines})")


def _check_groups(question: Question, design: Design) -> None:
    if question.column_of_words is None and not isinstance(question.asked, ByGroup):
        return
    second = design.variable > 0.5
    for label, mine in (("first", ~second), ("second", second)):
        if mine.sum() < 2:
            who = ", ".join(unit for unit, one in zip(design.units, mine, strict=True) if one) or "nobody"
            raise CohortError(f"the {label} group has {int(mine.sum())} subjects ({who}); at least 2 are needed")


def _leverage(design: Design) -> tuple[str, ...]:
    """Subjects whose own value decides the effect: P without permutations is too small then where maps are skewed."""
    basis = np.linalg.qr(design.nuisance)[0]
    rest = design.variable - basis @ (basis.T @ design.variable)
    share = rest**2 / (rest @ rest)
    heavy = [f"{unit} ({one:.0%})" for unit, one in zip(design.units, share, strict=True) if one > _HEAVY]
    return (f"{design.variable_name} hangs on {', '.join(heavy)}: trust permutations or ranks only",) if heavy else ()


def _blocks(plan: CohortPlan, scans: Sequence[Scan]) -> IntArray | None:
    if plan.site is None:
        return None
    names = [one.values[plan.site].strip() for one in scans]
    nowhere = [one for one in scans if one.is_empty(plan.site)]
    if nowhere:
        raise CohortError("; ".join(f"line {one.line}: {one.subject}: no {plan.site}" for one in nowhere[:5]))
    sites = sorted(set(names))
    return np.array([sites.index(name) for name in names])


def _exchangeable(
    plan: CohortPlan,
    question: Question,
    scans: Sequence[Scan],
    values: Sequence[float] | None,
    blocks: IntArray | None,
) -> tuple[str, ...]:
    """Notes about permutations that are few.

    Raises:
        CohortError: no subject can change places with another.
    """
    if plan.paper or not plan.inference.permutations:
        return ()
    ways: Orders | Signs = Signs(len(scans), plan.inference.permutations, plan.seed)
    if values is not None:
        names = getattr(question.asked, "covariates", ())
        columns = [[one.number(question.column(name)) for one in scans] for name in names]
        ways = orders_of(np.column_stack([values, *columns]), plan.inference.permutations, plan.seed, blocks)
    elif isinstance(question.asked, BetweenMaps):
        ways = orders_of(
            np.arange(len(scans), dtype=np.float64)[:, None], plan.inference.permutations, plan.seed, blocks
        )
    if ways.n_distinct == 1 and len(set(values or (0, 1))) > 1:
        raise CohortError(
            f"within {plan.site} no two subjects differ that could change places: leave {plan.site} out of the plan, or"
            " set inference: permutations: 0"
        )
    notes = []
    if ways.is_exact:
        notes.append(f"only {ways.n_distinct} permutations differ: all are made, P is not below {1 / ways.n_made:.3g}")
    if blocks is not None and not isinstance(ways, Signs):
        alone = [one.subject for one, block in zip(scans, blocks, strict=True) if (blocks == block).sum() == 1]
        if alone:
            notes.append(f"alone at their {plan.site}, and never exchanged: {', '.join(alone[:5])}")
    return tuple(notes)
