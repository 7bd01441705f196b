"""Maps of associations on the spine, as published and corrected: Figs 5, 6, 7, S5 and S6 of the paper."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.cohort_plans import Asked, BetweenMaps, ByGroup, ByVariable, OverTime, OverVisits
from processing.cohort.analysis import MapAnalysis, RegionRow
from processing.cohort.design import FloatArray
from processing.cohort.figures import Scale, effect_scale_of, p_scale, times_scale
from processing.cohort.inference import CONTROL_NAMES, Control
from processing.cohort.paper_figures import CLOSE_EFFECT, CLOSE_P, Panel, PanelRow, ShownLevel, draw_rows
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import Level, Quantity, Region
from service.cohort.reproduction.item_files import LINE, ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_sources import WAYS, ItemSources
from service.cohort.reproduction.records import Cohort
from service.cohort.run_folder import FinishedRun
from service.reports import words
from service.reports.document import Block, Column, Row, Table, Text

#: What an item that is none of the paper's figures is called.
_ITEM = {"time": "Over time"}
_OF_MEANS = ("effect", "low", "high", "p")
Question = Asked


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What one way of analysis found of a question, level by level. ``control``: the one that its plan asks for."""

    way: str
    run: FinishedRun
    question: Question
    answers: dict[Level, MapAnalysis]

    @property
    def control(self) -> Control:
        """None as published; the false discovery rate where the plan's control was not made (no permutation)."""
        if self.run.plan.paper:
            return Control.UNCORRECTED
        asked = Control(self.run.plan.inference.headline)
        return asked if all(asked in one.inference.p for one in self.answers.values()) else Control.FDR_BH

    @property
    def alpha(self) -> float:
        """Of the control."""
        return self.run.plan.inference.alpha

    @property
    def kind(self) -> str:
        """r, or ms."""
        return next(iter(self.answers.values())).kind

    @property
    def n_slices(self) -> int:
        """How many central slices are shown."""
        return min(2, max(len(one.maps.regions) for one in self.answers.values()))

    def shown(self, values: Callable[[MapAnalysis], FloatArray]) -> dict[Level, ShownLevel]:
        """Values of each level with what survives."""
        return {
            level: ShownLevel(one.maps, values(one), one.inference.survives(self.control, self.alpha))
            for level, one in self.answers.items()
        }


def figure_5(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Voxel by grade, both cohorts, T1rho and, in B, T2."""
    yield from _by_question(sources, files, "5", _is_grade, tuple(Quantity))


def figure_6(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Voxel by ODI, and the means of ODI 0-40 and > 40, T1rho."""
    yield from _by_question(sources, files, "6", _is_odi, (Quantity.T1RHO,))


def figure_s5(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """The same as Fig 6 of T2."""
    yield from _by_question(sources, files, "S5", _is_odi, (Quantity.T2,))


def figure_7(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """T1rho by T2, voxel by voxel, on the paper's scales."""
    yield from _by_question(sources, files, "7", lambda one: isinstance(one, BetweenMaps), (Quantity.T1RHO,))


def figure_s6(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """Voxel by fat fraction of the muscles, or with it as a covariate."""
    yield from _by_question(sources, files, "S6", _is_fat, tuple(Quantity))


def figure_over_time(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """The change from baseline to follow-up; the paper names it and does not compute it."""
    yield from _by_question(sources, files, "time", lambda one: isinstance(one, OverTime), tuple(Quantity))


def _is_grade(one: Question) -> bool:
    return isinstance(one, ByVariable) and "grade" in one.variable.lower() and not _is_fat(one)


def _is_odi(one: Question) -> bool:
    if isinstance(one, ByGroup):
        return "odi" in one.column.lower()
    return isinstance(one, ByVariable) and "odi" in one.variable.lower() and not _is_fat(one)


def _is_fat(one: Question) -> bool:
    return isinstance(one, ByVariable) and any("fat" in name.lower() for name in (one.variable, *one.covariates))


def _by_question(
    sources: ItemSources,
    files: ItemFolder,
    key: str,
    wanted: Callable[[Question], bool],
    quantities: tuple[Quantity, ...],
) -> Iterator[Block]:
    """A figure for each question, cohort and quantity; what a run lacks is told."""
    n_made = 0
    for cohort in Cohort:
        runs = {way: run for way in WAYS if (run := sources.runs.get((cohort, way))) is not None}
        for way in (one for one in WAYS if one not in runs):
            yield Text(f"Cohort {cohort}, {way}", (f"Not there: {sources.missing[cohort, way]}.",))
        names = dict.fromkeys(one.name for run in runs.values() for one in run.plan.analyses if wanted(one))
        for name in names:
            for quantity in quantities:
                found = _found(runs, name, quantity)
                if found:
                    yield from _draw(files, key, cohort, quantity, found)
                    n_made += 1
    if not n_made:
        raise ItemUnavailable("no run of a plan asked this question and found a map")


def _found(runs: Mapping[str, FinishedRun], name: str, quantity: Quantity) -> list[Found]:
    """Of the ways that asked this question and had maps."""
    found = []
    for way, run in runs.items():
        answers = {
            one.level: one.analysis for one in run.findings if (one.name, one.quantity) == (name, quantity.value)
        }
        if answers:
            question = next(one for one in run.plan.analyses if one.name == name)
            found.append(Found(way, run, question, answers))
    return found


def _draw(files: ItemFolder, key: str, cohort: Cohort, quantity: Quantity, found: Sequence[Found]) -> Iterator[Block]:
    first = found[0]
    stem = f"fig{key}_{cohort}_{first.question.name}_{quantity.value}"
    heading = f"{_ITEM.get(key, f'Fig {key}')}, cohort {cohort}: {_in_words(first.question, quantity)}"
    rows = _group_rows(first.question, found) if isinstance(first.question, ByGroup) else _rows(found)
    figure = draw_rows(rows, n_slices=first.n_slices, heading=heading)
    yield files.figure(stem, figure, f"{heading}. {_explained(found)}")
    files.numbers(stem, _lines(cohort, quantity, found))
    yield _region_table(found)


def _rows(found: Sequence[Found]) -> list[PanelRow]:
    """Effect and P of each way; the effects of all ways on one scale."""
    is_close = isinstance(found[0].question, BetweenMaps)
    everything = np.concatenate([one.effect for way in found for one in way.answers.values()])
    effect = CLOSE_EFFECT if is_close else effect_scale_of(found[0].kind, everything)
    title, beyond = ("r", "neither") if found[0].kind == "r" else ("difference", "both")
    return [
        PanelRow(
            _row_title(one),
            (
                Panel(title, effect, one.shown(lambda level: level.effect), "min" if is_close else beyond),
                _p_panel(one, CLOSE_P, "max") if is_close and one.run.plan.paper else _p_panel(one, p_scale(), "min"),
            ),
        )
        for one in found
    ]


def _group_rows(question: ByGroup, found: Sequence[Found]) -> list[PanelRow]:
    """Means of both groups on one scale, then P."""
    means = [one.groups.means for way in found for one in way.answers.values() if one.groups is not None]
    scale = times_scale(np.concatenate([one.ravel() for one in means]))
    first, second = _group_names(question)
    return [
        PanelRow(
            _row_title(one),
            (_mean_panel(one, 0, first, scale), _mean_panel(one, 1, second, scale), _p_panel(one, p_scale(), "min")),
        )
        for one in found
    ]


def _mean_panel(one: Found, k: int, name: str, scale: Scale) -> Panel:
    """The mean maps of the ``k``-th group."""
    groups = {level: (answer.maps, answer.groups) for level, answer in one.answers.items() if answer.groups is not None}
    n = _counts([int(group.ns[k].max()) for _, group in groups.values()])
    values = {level: ShownLevel(maps, group.means[k]) for level, (maps, group) in groups.items()}
    return Panel(f"{name} (n = {n})", scale, values, "both")


def _p_panel(one: Found, scale: Scale, extend: str) -> Panel:
    """P by the control of its way, on its own named scale."""
    control = one.control
    named = "P of the voxel, not corrected" if control is Control.UNCORRECTED else f"P, {CONTROL_NAMES[control]}"
    values = one.shown(lambda level: level.inference.p[control])
    return Panel("P", Scale(named, scale.colours, scale.norm), values, extend)


def _group_names(question: ByGroup) -> tuple[str, str]:
    name = _plain(question.column)
    if question.above is not None:
        return f"{name} 0–{question.above:g}", f"{name} > {question.above:g}"
    return f"not {question.second}", question.second


def _row_title(one: Found) -> str:
    told = WAYS[one.way] if one.run.plan.paper else f"{WAYS[one.way]}: {CONTROL_NAMES[one.control]}"
    n = _counts([int(np.nanmax(level.n)) for level in one.answers.values()])
    return f"{told}\nn = {n}; outlined: P ≤ {one.alpha:g}"


def _counts(n: Sequence[int]) -> str:
    return f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"


def _in_words(question: Question, quantity: Quantity) -> str:
    shown = QUANTITY_NAMES[quantity]
    match question:
        case ByVariable(variable=variable, covariates=covariates):
            adjusted = f", adjusted for {words.listed([_plain(one) for one in covariates])}" if covariates else ""
            return f"{shown} by {_plain(variable)}{adjusted}"
        case ByGroup():
            return f"{shown} of {words.listed(_group_names(question))}"
        case BetweenMaps():
            return "T1ρ by T2, voxel by voxel"
        case OverTime(baseline=baseline, later=later):
            return f"change of {shown} from {baseline} to {later}"
        case OverVisits(time=time):
            return f"slope of {shown} over {_plain(time)}"


def _plain(column: str) -> str:
    text = column.replace("_{level}", "").replace("{level}", "").replace("_", " ")
    return text.upper() if text.lower() in ("odi", "bmi", "ipaq", "vas") else text


def _explained(found: Sequence[Found]) -> str:
    question = found[0].question
    match question:
        case ByGroup():
            left = "Left: means of the groups"
        case OverTime():
            left = "Left: mean change"
        case _:
            left = "Left: correlation of each voxel"
    text = f"{left}; right: P. Each level by itself, on a cut spine seen from the left, the central slices."
    for one in found:
        how = "" if one.run.plan.paper else f": P by {CONTROL_NAMES[one.control]}, one scan a subject"
        text += f" {WAYS[one.way]}{how}."
    if isinstance(question, BetweenMaps):
        text += " Scales as in the paper: r from .5 to 1, uncorrected P from 0 to .005."
    lacking = [way for way in WAYS if way not in [one.way for one in found]]
    return f"{text} Not asked {' and '.join(lacking)}." if lacking else text


def _whole(one: MapAnalysis) -> RegionRow | None:
    return next((row for row in one.regions if row.region is Region.WHOLE_DISC), None)


def _lines(cohort: Cohort, quantity: Quantity, found: Sequence[Found]) -> Iterator[dict[str, Any]]:
    """A line for each level and way: what the map holds, and the same question asked of the disc's means."""
    for way in found:
        for level, one in sorted(way.answers.items()):
            whole, p = _whole(one), one.inference.p[Control.UNCORRECTED]
            yield {
                **{"cohort": cohort.value, "way": way.way, "level": level.name, "quantity": quantity.value},
                **{"kind": one.kind, "n": int(np.nanmax(one.n)), "voxels": len(one.effect)},
                **{"lowest_effect": float(np.nanmin(one.effect)), "highest_effect": float(np.nanmax(one.effect))},
                "lowest_p_uncorrected": float(np.nanmin(p)),
                "voxels_uncorrected": int(one.inference.survives(Control.UNCORRECTED, way.alpha).sum()),
                "control": way.control.value,
                "voxels_surviving": int(one.inference.survives(way.control, way.alpha).sum()),
                **({} if whole is None else {f"disc_mean_{name}": getattr(whole, name) for name in _OF_MEANS}),
                "plan_sha256": way.run.facts.plan_sha256,
            }


def _region_table(found: Sequence[Found]) -> Table:
    """The whole disc's mean against the same variable, and how many voxels survive, side by side."""
    rows = []
    for way in found:
        for level, one in sorted(way.answers.items()):
            whole = _whole(one)
            cells = (words.NONE,) * 3
            if whole is not None:
                between = f"{words.number(whole.low, 2)} to {words.number(whole.high, 2)}"
                cells = (words.number(whole.effect, 2), between, _p(whole.p))
            survive = int(one.inference.survives(way.control, way.alpha).sum())
            rows.append(Row(f"{LEVEL_NAMES[level]}, {way.way}", (*cells, f"{survive:,} of {len(one.effect):,}")))
    unit = "r" if found[0].kind == "r" else "difference (ms)"
    whole_name = REGION_NAMES[Region.WHOLE_DISC]
    heads = ("level, way", f"{unit} of the {whole_name}'s mean", "95 % interval", "P", "voxels that survive")
    note = "P of the means: each by itself, not corrected. Voxels: by the control of their way."
    columns = tuple(Column(one) for one in heads)
    return Table("Beside it: the mean of the disc", columns, tuple(rows), f"{note} {LINE}", is_dense=True)


def _p(p: float) -> str:
    return "< .0001" if p < 1e-4 else words.number(p, 4)
