"""The analyses of the paper as plans, each as published and corrected; and running them as a user would."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from config.cohort_plans import load_cohort_plan
from processing.results import LUMBAR_LEVELS
from service.cohort.reproduction.effects import quantities_of
from service.cohort.reproduction.records import Cohort, table_path
from service.cohort.reproduction.subjects import BASELINE, FOLLOW_UP
from service.cohort.run_folder import is_finished_run
from service.cohort.table import CohortError, read_table
from service.progress import Progress

#: The two ways in which a cohort is analysed.
PAPER, CORRECTED = "paper", "corrected"

_ADJUSTED = {Cohort.A: ("age", "female", "bmi", "lbp"), Cohort.B: ("age", "female", "bmi")}  # all of B are patients
_HEAD = """# Reproduction on simulated data. For research use only.
# {about}
"""
_ABOUT = {
    PAPER: "As published: scans of one subject count as independent, P values are not corrected for voxels.",
    CORRECTED: "One scan for each subject; family-wise error is controlled within each map.",
}


class PlanFailed(Exception):
    """A plan could not be run; the message is what ``discnode cohort run`` said."""


def runs_of(cohorts: Sequence[Cohort] = tuple(Cohort)) -> tuple[str, ...]:
    """Names of the plans and of the folders with what came of them: A-paper, A-corrected, B-paper, B-corrected."""
    return tuple(f"{cohort}-{way}" for cohort in cohorts for way in (PAPER, CORRECTED))


def plan_content(cohort: Cohort, way: str, *, seed: int, permutations: int, has_follow_up: bool) -> dict[str, Any]:
    """A plan of :mod:`config.cohort_plans`, its table beside it."""
    visit = "" if way == PAPER else BASELINE
    analyses = [{**one, "visit": visit} if visit else one for one in _questions(cohort)]
    if cohort is Cohort.B and way == CORRECTED and has_follow_up:
        analyses.append({"kind": "time", "name": "change", "baseline": BASELINE, "later": FOLLOW_UP})
    return {
        "name": f"{cohort}-{way}",
        "table": table_path(Path(), cohort).name,
        "levels": [level.name for level in LUMBAR_LEVELS],
        "quantities": [quantity.value for quantity in quantities_of(cohort)],
        "analyses": analyses,
        "min_n": 4,
        "inference": {"permutations": permutations} | ({} if permutations else {"headline": "fdr_bh"}),
        "paper": way == PAPER,
        "seed": seed,
    }


def _questions(cohort: Cohort) -> list[dict[str, Any]]:
    """The paper's, and the same asked better: the ODI adjusted for the grade, and what nothing was planted for."""
    adjusted = list(_ADJUSTED[cohort])

    def by(name: str, variable: str, covariates: Sequence[str] = ()) -> dict[str, Any]:
        return {"kind": "variable", "name": name, "variable": variable, "covariates": list(covariates)}

    asked = [
        by("grade", "grade_{level}"),
        by("grade-adjusted", "grade_{level}", adjusted),
        by("odi", "odi"),
        by("odi-graded", "odi", ["grade_{level}"]),
        by("odi-adjusted", "odi", ["grade_{level}", *adjusted]),
        {"kind": "group", "name": "odi-over-40", "column": "odi", "above": 40},
    ]
    if cohort is Cohort.A:
        return [*asked, by("sf36-mental", "sf36_mental")]
    return [
        *asked,
        by("grade-fat", "grade_{level}", ["fat_{level}"]),
        by("odi-fat", "odi", ["grade_{level}", "fat_{level}"]),
        by("ipaq", "ipaq"),
        {"kind": "between", "name": "t1rho-t2"},
    ]


def write_plans(folder: Path, *, seed: int, permutations: int, has_follow_up: bool) -> tuple[Path, ...]:
    """Write NAME.yaml for each of :func:`runs_of` beside the tables."""
    paths = []
    for cohort in Cohort:
        for way in (PAPER, CORRECTED):
            content = plan_content(cohort, way, seed=seed, permutations=permutations, has_follow_up=has_follow_up)
            path = folder / f"{content['name']}.yaml"
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
            path.write_text(_HEAD.format(about=_ABOUT[way]) + text, encoding="utf-8")
            paths.append(path)
    return tuple(paths)


def run_plans(plans: Sequence[Path], *, workers: int, tell: Progress) -> None:
    """Run plans side by side with ``discnode cohort run``; each fills, whole, the folder of its name beside it.

    A plan that was run on the same table and the same results is not run again.

    Raises:
        PlanFailed: one of them was refused.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        running = {pool.submit(_run, plan): plan for plan in plans}
        for n_done, future in enumerate(as_completed(running), 1):
            future.result()
            tell(f"analysed {running[future].stem}", n_done / len(plans))


def _run(plan: Path) -> None:
    out, partial = plan.with_suffix(""), plan.with_suffix(".partial")
    stamp, ran_on = plan.with_suffix(".sha256"), digest_of(plan)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == ran_on and is_finished_run(out):
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "service.cli", "cohort", "run", str(plan), "--out", str(partial)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # they run side by side
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | one_thread)
    if ran.returncode != 0:
        raise PlanFailed(f"{plan.name}: {ran.stderr[-2000:]}")
    (plan.parent / f"{plan.stem}.log").write_text(ran.stderr, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    stamp.write_text(ran_on, encoding="utf-8")


def digest_of(plan: Path) -> str:
    """Of everything that a run follows from: the plan, its table, the results in it, the version of discnode.

    Raises:
        PlanFailed: the table or a result is not there.
    """
    held = [plan.read_bytes(), version("discnode").encode()]
    try:
        table = read_table(load_cohort_plan(plan).table)
        held += [load_cohort_plan(plan).table.read_bytes()]
        held += [(one.result / "result.json").read_bytes() for one in table.scans]
    except (CohortError, OSError) as error:
        raise PlanFailed(f"{plan.name}: {error}") from error
    return hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in held)).hexdigest()
