"""Who is in each analysis of a plan, in which order, and as which numbers: all checked before anything is computed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from config.cohort_plans import BetweenMaps, ByGroup, ByVariable, CohortPlan, OverTime, OverVisits
from processing.cohort.association import ranked
from processing.cohort.design import Design, FloatArray, make_design
from processing.cohort.exchange import Orders, Signs, orders_of
from service.cohort.asked import Question
from service.cohort.chosen import Chosen, check_alike, choose, lines_of
from service.cohort.table import CohortError, CohortTable, Scan

#: Of the variable's spread that its covariates leave; a subject that holds more is named.
_HEAVY = 0.4

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A question with its scans. ``before``: the baselines of the same subjects, where it is of a change.

    ``course``: all scans of the subjects, subject by subject, where it is of slopes; ``scans`` are the first ones then.

    ``design``: None where only maps are looked at. ``blocks``: within which subjects change places.
    ``left_out``: scans that are not in it, with the reason; ``notes``: what a reader must know.
    """

    question: Question
    scans: tuple[Scan, ...]
    before: tuple[Scan, ...]
    course: tuple[Scan, ...]
    design: Design | None
    blocks: IntArray | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


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
    chosen = choose(plan, table, question, has_map)
    kept, unknown = [], []
    for place, (one, told) in enumerate(zip(chosen.scans, chosen.told, strict=True)):
        missing = _missing(question, one, told)
        if missing:
            unknown.append(missing)
        else:
            kept.append(place)
    chosen = chosen.only(kept)
    left_out = (*chosen.left_out, *unknown)
    if len(kept) < plan.min_n:
        few = "; ".join(left_out[:5])
        raise CohortError(f"{len(kept)} subjects have all values; min_n is {plan.min_n}{f' ({few})' if few else ''}")
    check_alike(plan, question, chosen)
    blocks = _blocks(plan, chosen.told)
    values = _values(question, chosen) if question.has_variable else None
    notes = _exchangeable(plan, question, chosen, values, blocks)
    if blocks is not None:
        notes += _sites(plan, question, blocks)
    design = None
    if values is not None:
        design = _design(plan, question, chosen, values)
        _check_groups(question, design)
        notes += _leverage(design)
    course = tuple(scan for one in chosen.courses for scan in one)
    return Prepared(question, chosen.scans, chosen.before, course, design, blocks, left_out, notes)


def describe(prepared: Prepared) -> str:
    """What an analysis will be of, for who checks a plan."""
    question, n = prepared.question, len(prepared.scans)
    what = "subjects with both scans" if prepared.before else "subjects"
    told = f"{question.asked.name} at {question.level.name}: {n} {what}"
    if prepared.course:
        told += f" with {len(prepared.course)} scans"
    if isinstance(question.asked, ByGroup) and prepared.design is not None:
        second = int(prepared.design.variable.sum())
        told += f" ({n - second} and {second})"
    if prepared.left_out:
        more = f"; and {len(prepared.left_out) - 5} more" if len(prepared.left_out) > 5 else ""
        told += f", {len(prepared.left_out)} left out ({'; '.join(prepared.left_out[:5])}{more})"
    return "; ".join((told, *prepared.notes))


def _missing(question: Question, scan: Scan, told: Scan) -> str:
    """What a subject lacks, in words; empty where it has all."""
    words, later = question.column_of_words, question.later_column
    lacks = [
        (one, column)
        for column in question.columns
        for one in ((scan,) if column == later else (told,))
        if (one.is_empty(column) if column == words else math.isnan(one.number(column)))
    ]
    if question.change_of is not None and math.isnan(told.number(question.change_of)):
        lacks.append((told, question.change_of))
    if not lacks:
        return ""
    columns = ", ".join(dict.fromkeys(column for _, column in lacks))
    return f"{lines_of([one for one, _ in lacks])}: {scan.subject}: no {columns}"


def _values(question: Question, chosen: Chosen) -> list[float]:
    """The variable of interest, a number for each scan; 1 for the second group."""
    asked, told = question.asked, chosen.told
    match asked:
        case ByVariable(variable=variable) | OverVisits(variable=str() as variable):
            return [one.number(question.column(variable)) for one in told]
        case ByGroup(column=column, above=float() as above):
            return [float(one.number(question.column(column)) > above) for one in told]
        case ByGroup(column=column, second=second):
            return _in_second(question.column(column), second, told)
        case OverTime(column=str() as column, second=second) | OverVisits(column=str() as column, second=second):
            return _in_second(question.column(column), second, told)
        case OverTime(variable=str()) if question.later_column is not None:
            later = [one.number(question.later_column) for one in chosen.scans]
            if question.change_of is None:
                return later
            return [value - one.number(question.change_of) for value, one in zip(later, told, strict=True)]
        case _:
            raise TypeError(f"{type(asked).__name__} has no variable")


def _in_second(column: str, second: str, scans: Sequence[Scan]) -> list[float]:
    words = [one.values[column].strip() for one in scans]
    if second not in words:
        there = ", ".join(sorted(set(words))[:8])
        raise CohortError(f"{column}: no row has {second!r}; there are {there}")
    return [float(word == second) for word in words]


def _design(plan: CohortPlan, question: Question, chosen: Chosen, values: list[float]) -> Design:
    """The numbers of a question. In paper mode every scan is a unit of its own, as published."""
    units = [unit_name(one, plan.paper) for one in chosen.scans]
    covariates = {
        question.column(name): [one.number(question.column(name)) for one in chosen.told]
        for name in getattr(question.asked, "covariates", ())
    }
    name = question.columns[0]
    if name in covariates:
        raise CohortError(f"{name}: is a covariate, too: a column is a combination of itself")
    for column, numbers in covariates.items():
        _check_spread(column, numbers, chosen.told)
    told = name if question.change_of is None else f"change of {question.change_of}"
    _check_spread(told, values, chosen.told if question.later_column is None else chosen.scans)
    if plan.site is not None:  # else the P values of no permutation would know that sites differ
        sites = [one.values[plan.site].strip() for one in chosen.told]
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


def _sites(plan: CohortPlan, question: Question, blocks: IntArray) -> tuple[str, ...]:
    """Whether sites are adjusted for.

    Raises:
        CohortError: there is nothing to adjust for, or nothing is left.
    """
    n_sites = len(np.unique(blocks))
    if question.is_mean_change:
        told = f"{plan.site} is not adjusted for: the mean is that of all subjects, each with the same weight"
        return (told,) if n_sites > 1 else ()
    if n_sites == 1:
        raise CohortError(f"{plan.site}: the same for all {len(blocks)} subjects: leave site out of the plan")
    if isinstance(question.asked, BetweenMaps) and len(blocks) < n_sites + 2:
        raise CohortError(f"{len(blocks)} subjects are too few for {n_sites} sites: at least {n_sites + 2} are needed")
    return ()


def _exchangeable(
    plan: CohortPlan, question: Question, chosen: Chosen, values: Sequence[float] | None, blocks: IntArray | None
) -> tuple[str, ...]:
    """Notes about permutations that are few.

    Raises:
        CohortError: no subject can change places with another.
    """
    if plan.paper or not plan.inference.permutations:
        return ()
    n, asked, is_mirrored = len(chosen.scans), plan.inference.permutations, True
    ways: Orders | Signs = Signs(n, asked, plan.seed)
    if values is not None:
        names = getattr(question.asked, "covariates", ())
        columns = [[one.number(question.column(name)) for one in chosen.told] for name in names]
        ways = orders_of(np.column_stack([values, *columns]), asked, plan.seed, blocks)
        ranks = isinstance(question.asked, ByVariable) and question.asked.ranks
        is_mirrored = not names and _is_mirrored(rankdata(values) if ranks else np.asarray(values), blocks)
    elif isinstance(question.asked, BetweenMaps):
        ways = orders_of(np.arange(n, dtype=np.float64)[:, None], asked, plan.seed, blocks)
        is_mirrored = blocks is not None and np.bincount(blocks).max() <= 2  # what is left of two is one, negated
    if ways.n_distinct == 1 and len(set(values or (0, 1))) > 1:
        raise CohortError(
            f"within {plan.site} no two subjects differ that could change places: leave {plan.site} out of the plan, or"
            " set inference: permutations: 0 and headline: fdr_bh"
        )
    notes = _few(ways, is_mirrored, plan.inference.alpha)
    if blocks is not None and not isinstance(ways, Signs):
        alone = [one.subject for one, block in zip(chosen.scans, blocks, strict=True) if (blocks == block).sum() == 1]
        if alone:
            notes.append(f"alone at their {plan.site}, and never exchanged: {', '.join(alone[:5])}")
    return tuple(notes)


def _is_mirrored(values: FloatArray, blocks: IntArray | None) -> bool:
    """Whether some order gives every t with the other sign: two-sided, the data are then as rare as their mirror."""
    for block in np.unique(blocks) if blocks is not None else (None,):
        mine = np.sort(values if block is None else values[blocks == block])
        if np.ptp(mine + mine[::-1]) > 1e-9 * np.ptp(values):
            return False
    return True


def _few(ways: Orders | Signs, is_mirrored: bool, alpha: float) -> list[str]:
    """The smallest P that so many permutations can give, where they are few."""
    least = (2 if is_mirrored and ways.is_exact else 1) / ways.n_made
    if not ways.is_exact and least <= alpha:
        return []
    made = f"{ways.n_made} permutations"
    told = f"only {made} differ: all are made" if ways.is_exact else f"only {made} are made"
    beyond = f", and alpha is {alpha:g}: no permutation can show anything" if least > alpha else ""
    return [f"{told}, P is not below {least:.3g}{beyond}"]
