"""What ``discnode cohort run`` left in its folder, read back: maps of effects and P, region means, and its plan."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config.cohort_plans import (
    BetweenMaps,
    ByGroup,
    ByVariable,
    CohortPlan,
    OverTime,
    cohort_plan_sha256,
    load_cohort_plan,
)
from processing.cohort.analysis import LevelMaps
from processing.cohort.design import FloatArray
from processing.cohort.inference import Control
from processing.cohort.lattice import BoolArray
from processing.results import Level
from service.cohort.reproduction.item_files import ItemUnavailable

Question = ByVariable | ByGroup | BetweenMaps | OverTime


@dataclass(frozen=True, slots=True, eq=False)
class FoundMap:
    """One analysis at one level. ``effect`` and each of ``p`` (voxels,); ``maps`` tells the grid and holds no subject.

    ``means`` (2, voxels) of the two groups, ms; None where no groups were compared. ``regions``: rows of regions.csv.
    """

    name: str
    level: Level
    quantity: str
    kind: str
    maps: LevelMaps
    effect: FloatArray
    n: FloatArray
    p: Mapping[Control, FloatArray]
    means: FloatArray | None
    regions: tuple[Mapping[str, str], ...]

    def survives(self, control: Control, alpha: float) -> BoolArray:
        """Where the P value of a control is at most ``alpha``."""
        with np.errstate(invalid="ignore"):
            kept: BoolArray = self.p[control] <= alpha
        return kept


@dataclass(frozen=True, slots=True, eq=False)
class FoundRun:
    """One run of a plan."""

    name: str
    plan: CohortPlan
    plan_sha256: str
    seed: int
    warnings: tuple[str, ...]
    found: tuple[FoundMap, ...]

    def answers(self, question: Question, quantity: str) -> dict[Level, FoundMap]:
        """What the run found of a question in maps of one quantity, by level."""
        return {one.level: one for one in self.found if (one.name, one.quantity) == (question.name, quantity)}

    def control_of(self, answers: Iterable[FoundMap]) -> Control:
        """The control that the plan asks for; the false discovery rate where it was not made (no permutation)."""
        if self.plan.paper:
            return Control.UNCORRECTED
        asked = Control(self.plan.inference.headline)
        return asked if all(asked in one.p for one in answers) else Control.FDR_BH


def read_run(folder: Path) -> FoundRun:
    """A run's folder, its plan found beside it by its SHA-256.

    Raises:
        ItemUnavailable: the run or its plan is not there.
    """
    if not (folder / "run.json").is_file():
        raise ItemUnavailable(f"the run {folder.name} is not there")
    run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    regions = _rows(folder / "regions.csv")
    found = tuple(_found_map(folder, row, regions) for row in _rows(folder / "summary.csv"))
    plan = _plan_of(folder, run["plan_sha256"])
    return FoundRun(folder.name, plan, run["plan_sha256"], int(run["seed"]), tuple(run["warnings"]), found)


def _plan_of(folder: Path, sha256: str) -> CohortPlan:
    for path in sorted((*folder.glob("*.yaml"), *folder.parent.glob("*.yaml"), *folder.parent.glob("plans/*.yaml"))):
        if cohort_plan_sha256(path) == sha256:
            return load_cohort_plan(path)
    raise ItemUnavailable(f"the plan of {folder.name} (SHA-256 {sha256[:16]}…) does not lie beside it")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _found_map(folder: Path, row: Mapping[str, str], regions: Iterable[Mapping[str, str]]) -> FoundMap:
    name, level, quantity = row["analysis"], Level[row["level"]], row["quantity"]
    own = tuple(
        one for one in regions if (one["analysis"], one["level"], one["quantity"]) == (name, level.name, quantity)
    )
    with np.load(folder / "maps" / f"{name}_{level.name}_{quantity.replace(' ', '_')}.npz") as held:
        labels = held["regions"]
        inside = labels > 0
        slices, rows, columns = (float(mm) for mm in held["spacing_mm"])
        maps = LevelMaps(level, quantity, labels, (slices, rows, columns), np.empty((0, int(inside.sum()))), ())
        p = {one: held[f"p_{one}"][inside].astype(np.float64) for one in Control if f"p_{one}" in held.files}
        means = None
        if "first_means" in held.files:
            means = np.stack([held[f"{which}_means"][inside] for which in ("first", "second")]).astype(np.float64)
        return FoundMap(
            name=name,
            level=level,
            quantity=quantity,
            kind=own[0]["kind"] if own else "r",
            maps=maps,
            effect=held["effect"][inside].astype(np.float64),
            n=held["n"][inside].astype(np.float64),
            p=p,
            means=means,
            regions=own,
        )
