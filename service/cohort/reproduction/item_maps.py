"""Maps of associations on the spine, as published and corrected: Figs 5, 6, 7, S5 and S6 of the paper."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from config.cohort_plans import BetweenMaps, ByGroup, ByVariable, OverTime
from processing.cohort.figures import Scale, effect_scale_of, p_scale, times_scale
from processing.cohort.inference import CONTROL_NAMES, Control
from processing.cohort.paper_figures import CLOSE_EFFECT, CLOSE_P, Panel, PanelRow, ShownLevel, draw_rows
from processing.display import LEVEL_NAMES, QUANTITY_NAMES, REGION_NAMES
from processing.results import Level, Quantity, Region
from service.cohort.reproduction.found_maps import FoundMap, FoundRun, Question
from service.cohort.reproduction.item_files import ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_sources import WAYS, ItemSources
from service.cohort.reproduction.records import Cohort
from service.reports import words
from service.reports.document import Block, Column, Row, Table, Text

Answers = dict[Level, FoundMap]
#: A question as both ways of analysis asked it: way -> run and what it found.
Asked = dict[str, tuple[FoundRun, Answers]]


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
                asked = _asked(runs, name, quantity)
                if asked:
                    yield from _draw(files, key, cohort, name, quantity, asked)
                    n_made += 1
    if not n_made:
        raise ItemUnavailable("no run of a plan asked this question and found a map")


def _asked(runs: Mapping[str, FoundRun], name: str, quantity: Quantity) -> Asked:
    found = {}
    for way, run in runs.items():
        question = next((one for one in run.plan.analyses if one.name == name), None)
        answers = run.answers(question, quantity.value) if question is not None else {}
        if answers:
            found[way] = (run, answers)
    return found


def _draw(files: ItemFolder, key: str, cohort: Cohort, name: str, quantity: Quantity, asked: Asked) -> Iterator[Block]:
    run, answers = next(iter(asked.values()))
    question = next(one for one in run.plan.analyses if one.name == name)
    stem = f"fig{key}_{cohort}_{name}_{quantity.value}"
    heading = f"Fig {key}, cohort {cohort}: {_in_words(question, quantity)}"
    n_slices = min(2, max(one.maps.regions.shape[0] for one in answers.values()))
    if isinstance(question, ByGroup):
        figure = draw_rows(_group_rows(question, asked), n_slices=n_slices, heading=heading)
    else:
        close = isinstance(question, BetweenMaps)
        figure = draw_rows(
            [_row(way, *one, close=close) for way, one in asked.items()], n_slices=n_slices, heading=heading
        )
    rest = "" if len(asked) == len(WAYS) else f" Only {', '.join(asked)}: the other way did not ask it."
    yield files.figure(stem, figure, f"{heading}. {_explained(question, asked)}{rest}")
    files.numbers(stem, _lines(cohort, asked))
    yield _region_table(heading, asked)


def _row(way: str, run: FoundRun, answers: Answers, *, close: bool) -> PanelRow:
    control, alpha = run.control_of(answers.values()), run.plan.inference.alpha
    effect = CLOSE_EFFECT if close else effect_scale_of(next(iter(answers.values())).kind, _effects(answers))
    probability = CLOSE_P if close else p_scale()
    shown = _p_scale_named(probability, control)
    panels = (
        Panel(
            "r" if next(iter(answers.values())).kind == "r" else "difference",
            effect,
            _shown(answers, control, alpha, None),
            "min" if close else "neither",
        ),
        Panel("P", shown, _shown(answers, control, alpha, control), "max" if close else "min"),
    )
    return PanelRow(_row_title(way, answers, control, alpha), panels)


def _group_rows(question: ByGroup, asked: Asked) -> list[PanelRow]:
    """Means of both groups on one scale, then P."""
    everything = np.concatenate(
        [one.means.ravel() for _, own in asked.values() for one in own.values() if one.means is not None]
    )
    scale = times_scale(everything)
    rows = []
    for way, (run, answers) in asked.items():
        control, alpha = run.control_of(answers.values()), run.plan.inference.alpha
        first, second = (
            {level: ShownLevel(one.maps, one.means[k]) for level, one in answers.items() if one.means is not None}
            for k in (0, 1)
        )
        names = _group_names(question)
        panels = (
            Panel(names[0], scale, first, "both"),
            Panel(names[1], scale, second, "both"),
            Panel("P", _p_scale_named(p_scale(), control), _shown(answers, control, alpha, control), "min"),
        )
        rows.append(PanelRow(_row_title(way, answers, control, alpha), panels))
    return rows


def _group_names(question: ByGroup) -> tuple[str, str]:
    if question.above is not None:
        return f"{question.column.upper()} 0–{question.above:g}", f"{question.column.upper()} > {question.above:g}"
    return f"not {question.second}", question.second


def _shown(answers: Answers, control: Control, alpha: float, p_of: Control | None) -> dict[Level, ShownLevel]:
    return {
        level: ShownLevel(one.maps, one.effect if p_of is None else one.p[p_of], one.survives(control, alpha))
        for level, one in answers.items()
    }


def _effects(answers: Answers) -> np.ndarray[Any, Any]:
    return np.concatenate([one.effect for one in answers.values()])


def _p_scale_named(scale: Scale, control: Control) -> Scale:
    what = "P of the voxel, not corrected" if control is Control.UNCORRECTED else f"P, {CONTROL_NAMES[control]}"
    return Scale(what, scale.colours, scale.norm)


def _row_title(way: str, answers: Answers, control: Control, alpha: float) -> str:
    n = sorted({int(np.nanmax(one.n)) for one in answers.values()})
    counts = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    told = WAYS[way] if way == "paper" else f"{WAYS[way]}: {CONTROL_NAMES[control]}"
    return f"{told} ({counts}; outlined: P ≤ {alpha:g})"


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
    return f"{question.name}, {shown}"


def _plain(column: str) -> str:
    text = column.replace("_{level}", "").replace("{level}", "").replace("_", " ")
    return text.upper() if text.lower() in ("odi", "bmi", "ipaq", "vas") else text


def _explained(question: Question, asked: Asked) -> str:
    left = "Left: means of the groups" if isinstance(question, ByGroup) else "Left: correlation of each voxel"
    control = next((run.control_of(own.values()) for way, (run, own) in asked.items() if way != "paper"), None)
    text = f"{left}; right: P. Each level by itself, on a cut spine seen from the left. Above: as published."
    if isinstance(question, BetweenMaps):
        text += " Scales as in the paper: r from .5 to 1, P from 0 to .005. No permutation is made between maps."
    return text if control is None else f"{text} Below: P by {CONTROL_NAMES[control]}, one independent scan a subject."


def _lines(cohort: Cohort, asked: Asked) -> Iterator[dict[str, Any]]:
    """A line for each level and way: what the map holds, and the same question asked of the disc's means."""
    for way, (run, answers) in asked.items():
        control, alpha = run.control_of(answers.values()), run.plan.inference.alpha
        for level, one in sorted(answers.items()):
            whole = next((row for row in one.regions if row["region"] == Region.WHOLE_DISC.value), None)
            yield {
                **{"cohort": cohort.value, "way": way, "level": level.name, "quantity": one.quantity},
                **{"kind": one.kind, "n": int(np.nanmax(one.n)), "voxels": len(one.effect)},
                **{"lowest_effect": float(np.nanmin(one.effect)), "highest_effect": float(np.nanmax(one.effect))},
                "lowest_p_uncorrected": float(np.nanmin(one.p[Control.UNCORRECTED])),
                **{"control": control.value, "voxels_surviving": int(one.survives(control, alpha).sum())},
                "voxels_uncorrected": int(one.survives(Control.UNCORRECTED, alpha).sum()),
                **{f"disc_mean_{name}": whole[name] for name in ("effect", "low", "high", "p") if whole is not None},
                "plan_sha256": run.plan_sha256,
            }


def _region_table(heading: str, asked: Asked) -> Table:
    """The whole disc's mean against the same variable, and how many voxels survive, side by side."""
    rows = []
    for way, (run, answers) in asked.items():
        control, alpha = run.control_of(answers.values()), run.plan.inference.alpha
        for level, one in sorted(answers.items()):
            whole = next((row for row in one.regions if row["region"] == Region.WHOLE_DISC.value), None)
            cells = (words.NONE,) * 3
            if whole is not None:
                effect, low, high, p = (float(whole[key] or "nan") for key in ("effect", "low", "high", "p"))
                cells = (
                    words.number(effect, 2),
                    f"{words.number(low, 2)} to {words.number(high, 2)}",
                    "< .0001" if p < 1e-4 else words.number(p, 4),
                )
            count = f"{int(one.survives(control, alpha).sum()):,} of {len(one.effect):,}"
            rows.append(Row(f"{LEVEL_NAMES[level]}, {way}", (*cells, count)))
    unit = "r" if next(iter(next(iter(asked.values()))[1].values())).kind == "r" else "difference (ms)"
    heads = (
        "level, way",
        f"{unit} of the {REGION_NAMES[Region.WHOLE_DISC]}'s mean",
        "95 % interval",
        "P",
        "voxels that survive",
    )
    note = "P of the means: each by itself, not corrected. Voxels: by the control of their row."
    return Table(
        "Beside it: the mean of the disc", tuple(Column(one) for one in heads), tuple(rows), note, is_dense=True
    )
