"""The verdict: was what was planted found where it is, and how often was something found where nothing is."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from processing.cohort.inference import CONTROL_NAMES, Control
from processing.display import RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, Level, Quantity
from service.cohort.reproduction.effects import PLANTED_SHARE, TRACE_SHARE, Planted, planted_effects, quantities_of
from service.cohort.reproduction.plans import CORRECTED, PAPER
from service.cohort.reproduction.records import LABEL, Cohort

ALPHA = 0.05
NEEDED_DICE = 0.6

#: Which questions of a plan ask for what was planted, and which for something that is nowhere.
_ASKING = {
    "grade": ("grade", "grade-adjusted", "grade-fat"),
    "odi": ("odi", "odi-graded", "odi-adjusted", "odi-fat", "odi-over-40"),
}
_NOWHERE = {Cohort.A: ("sf36-mental",), Cohort.B: ("ipaq",)}

#: Of an effect, in the order of what is told of it; the first that a run has is its headline.
_HEADLINES = {PAPER: Control.UNCORRECTED, CORRECTED: Control.MAX_T}


@dataclass(frozen=True, slots=True)
class EffectFound:
    """One planted effect as one question of one run found it by one control.

    ``significant``: voxels; ``right``: those with the planted sign; ``beside``: those where nothing of it is.
    ``dice``: of the planted region with the significant voxels of the planted sign. ``p_disc``, ``p_region``: of the
    mean of the whole disc, and the smallest of a part of it, uncorrected. ``effect``: mean r, or ms, where planted.
    """

    run: str
    question: str
    level: str
    quantity: str
    control: str
    planted: int
    significant: int
    right: int
    beside: int
    dice: float
    effect: float
    p_disc: float
    p_region: float
    told: str

    @property
    def is_not_seen_by_disc(self) -> bool:
        """The claim of the paper: the average of the disc does not show it, voxels do."""
        return self.right > 0 and self.p_disc > ALPHA


@dataclass(frozen=True, slots=True)
class FalseFindings:
    """Of ``tests`` maps where nothing was planted, ``found`` have a surviving voxel; ``expected`` of them by chance.

    ``up_to``: so many are still chance (upper end of the binomial's 95 %), were the maps independent.
    """

    run: str
    question: str
    control: str
    tests: int
    found: int
    expected: float
    up_to: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything about what was planted."""

    effects: tuple[EffectFound, ...]
    elsewhere: tuple[FalseFindings, ...]


def judge(folder: Path, cohorts: Sequence[Cohort] = tuple(Cohort), ways: Sequence[str] = (PAPER, CORRECTED)) -> Verdict:
    """Compare the runs in the folder of a reproduction with what was planted.

    Raises:
        OSError: a run lacks its maps.
    """
    effects: list[EffectFound] = []
    elsewhere: list[FalseFindings] = []
    for cohort in cohorts:
        planted = planted_effects(cohort)
        for way in ways:
            run = folder / f"{cohort}-{way}"
            regions = _regions(run / "regions.csv")
            for one in planted:
                for question in _ASKING[one.variable]:
                    effects += effect_found(one, run, question, regions)
            elsewhere += _elsewhere(run, cohort, planted)
    return Verdict(tuple(effects), tuple(elsewhere))


def effect_found(
    planted: Planted, run: Path, question: str, regions: Mapping[tuple[str, str, str], Mapping[str, float]]
) -> Iterator[EffectFound]:
    """One row for each control that a run has; none where it did not ask this question."""
    maps = _maps(run, question, planted.level, planted.quantity)
    if maps is None:
        return
    there = planted.share >= PLANTED_SHARE
    if there.shape != maps["effect"].shape:
        raise ValueError(f"{run.name}: the maps of {planted.level.name} do not lie on the atlas that was planted on")
    p_of = regions.get((question, planted.level.name, planted.quantity.value), {})
    parts = [p for region, p in p_of.items() if region != "whole_disc" and not math.isnan(p)]
    for control in _controls(maps):
        survives = _survives(maps, control)
        right = survives & (np.sign(maps["effect"]) == planted.sign)
        both = int((right & there).sum())
        yield EffectFound(
            run=run.name,
            question=question,
            level=planted.level.name,
            quantity=planted.quantity.value,
            control=control.value,
            planted=int(there.sum()),
            significant=int(survives.sum()),
            right=both,
            beside=int((survives & (planted.share < TRACE_SHARE)).sum()),
            dice=2 * both / max(int(right.sum()) + int(there.sum()), 1),
            effect=float(np.nanmean(maps["effect"][there])),
            p_disc=p_of.get("whole_disc", math.nan),
            p_region=min(parts, default=math.nan),
            told=planted.told,
        )


def _elsewhere(run: Path, cohort: Cohort, planted: Sequence[Planted]) -> Iterator[FalseFindings]:
    """Of each question, the maps where nothing was planted for it."""
    occupied = {(one.variable, one.level, one.quantity) for one in planted}
    asked = [(name, variable) for variable, names in _ASKING.items() for name in names]
    asked += [(name, name) for name in _NOWHERE[cohort]]
    for question, variable in asked:
        counts: dict[Control, list[bool]] = {}
        for level in LUMBAR_LEVELS:
            for quantity in quantities_of(cohort):
                if (variable, level, quantity) in occupied:
                    continue
                maps = _maps(run, question, level, quantity)
                if maps is None:
                    continue
                for control in _controls(maps):
                    counts.setdefault(control, []).append(bool(_survives(maps, control).any()))
        for control, found in counts.items():
            up_to = int(stats.binom.ppf(0.95, len(found), ALPHA))
            yield FalseFindings(run.name, question, control.value, len(found), sum(found), ALPHA * len(found), up_to)


def _maps(run: Path, question: str, level: Level, quantity: Quantity) -> dict[str, npt.NDArray[Any]] | None:
    path = run / "maps" / f"{question}_{level.name}_{quantity.value}.npz"
    if not path.is_file():
        return None
    with np.load(path) as held:
        return {name: held[name] for name in held.files}


def _controls(maps: Mapping[str, npt.NDArray[Any]]) -> tuple[Control, ...]:
    return tuple(one for one in Control if f"p_{one.value}" in maps)


def _survives(maps: Mapping[str, npt.NDArray[Any]], control: Control) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        survives: npt.NDArray[np.bool_] = maps[f"p_{control.value}"] <= ALPHA
    return survives


def _regions(path: Path) -> dict[tuple[str, str, str], dict[str, float]]:
    """Analysis, level and quantity -> region -> P."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            key = (row["analysis"], row["level"], row["quantity"])
            found.setdefault(key, {})[row["region"]] = float(row["p"]) if row["p"] else math.nan
    return found


def write_verdict(verdict: Verdict, folder: Path) -> None:
    """Write verdict.csv (effects), false-findings.csv (elsewhere) and verdict.json (both)."""
    effects = [{**_row(one), "not_seen_by_disc": one.is_not_seen_by_disc} for one in verdict.effects]
    elsewhere = [_row(one) for one in verdict.elsewhere]
    _write_table(folder / "verdict.csv", effects)
    _write_table(folder / "false-findings.csv", elsewhere)
    document = {"label": LABEL, "use": RESEARCH_USE_ONLY, "alpha": ALPHA, "effects": effects, "elsewhere": elsewhere}
    text = json.dumps(_without_nan(document), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "verdict.json").write_text(text + "\n", encoding="utf-8")


def _row(one: EffectFound | FalseFindings) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        names = list(rows[0]) if rows else []
        writer.writerow([*names, "use"])
        for row in rows:
            writer.writerow([*(_cell(row[name]) for name in names), f"{LABEL}; {RESEARCH_USE_ONLY.lower()}"])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def verdict_lines(verdict: Verdict) -> Iterable[str]:
    """The verdict for a terminal: the headline control of each run, then what was found elsewhere by every control."""
    yield f"{LABEL}. {RESEARCH_USE_ONLY}."
    yield ""
    yield (
        f"{'run':12s} level  {'question':20s} {'quantity':8s} {'planted':>8s} {'found':>7s}"
        f" {'beside':>7s}  {'Dice':>5s}  {'P of disc':>9s}  {'of a part':>9s}"
    )
    for one in verdict.effects:
        if one.control != headline(one.run).value:
            continue
        mark = "  not by the disc" if one.is_not_seen_by_disc else ""
        yield (
            f"{one.run:12s} {one.level:5s}  {one.question:20s} {one.quantity:8s} {one.planted:8d} {one.right:7d}"
            f" {one.beside:7d}  {one.dice:5.2f}  {one.p_disc:9.4f}  {one.p_region:9.4f}{mark}"
        )
    yield ""
    yield f"Maps without an effect that show something at {ALPHA:g}"
    for run in dict.fromkeys(one.run for one in verdict.elsewhere):
        for control in Control:
            rows = [one for one in verdict.elsewhere if one.run == run and one.control == control.value]
            if rows:
                tests, found = sum(one.tests for one in rows), sum(one.found for one in rows)
                yield f"{run:12s} {found:3d} of {tests:3d} (by chance {ALPHA * tests:.1f})  {CONTROL_NAMES[control]}"


def headline(run: str) -> Control:
    """The control that is told of a run first: none as published, the largest t corrected."""
    return _HEADLINES[run.split("-", 1)[1]]
