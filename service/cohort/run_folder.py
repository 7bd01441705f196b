"""The folder of a run: everything that ``discnode cohort run`` writes, and its report made again from it."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config.cohort_plans import CohortPlan, cohort_plan_sha256, load_cohort_plan
from service.cohort.maps import check_results, load_maps
from service.cohort.model_tables import write_models
from service.cohort.models import ModelFinding, check_models, run_models, store_models, stored_models
from service.cohort.report import RunFacts, write_report
from service.cohort.run import CohortFinding, check_plan, prepare_tasks, run_plan
from service.cohort.stored import store_analyses, stored_analyses
from service.cohort.table import CohortError, CohortTable
from service.cohort.tables import write_clusters, write_maps, write_regions, write_summary

#: Whose versions a report tells: what they were when the numbers were made.
_PACKAGES = ("discnode", "numpy", "scipy", "statsmodels", "scikit-image")
_PLAN, _RUN, _RECORD, _MODELS = "plan.yaml", "run.json", "record", "models.json"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run made: how many analyses of maps, how many models, and what a reader must bear in mind."""

    n_analyses: int
    n_models: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRun:
    """A run as it lies in its folder; its findings hold no map of a subject."""

    plan: CohortPlan
    findings: tuple[CohortFinding, ...]
    facts: RunFacts


def check_all(plan: CohortPlan, table: CohortTable) -> tuple[str, ...]:
    """Everything that can be told before maps are read; returns notes in words.

    Raises:
        CohortError: what is wrong, one fault a line.
    """
    notes: list[str] = []
    faults: list[str] = []
    for check in (check_plan, check_models, _check_results):
        try:
            notes += check(plan, table)
        except CohortError as error:
            faults.append(str(error))
    if faults:
        raise CohortError("\n".join(faults))
    return tuple(notes)


def _check_results(_plan: CohortPlan, table: CohortTable) -> tuple[str, ...]:
    return check_results(table.scans)


def run_to_folder(
    path: Path,
    plan: CohortPlan,
    table: CohortTable,
    out: Path,
    tell: Callable[[str, float], None] = lambda _what, _share: None,
) -> RunOutcome:
    """Run a plan that was checked. Models come first: they are quick, and may be refused.

    Args:
        path: of the plan's file, which is kept with the results.
        plan: what it holds.
        table: of its scans.
        out: folder, made where it is not there.
        tell: is told what is done and the finished share.

    Raises:
        CohortError: an analysis cannot be made; the message names it and the rule.
    """
    maps = load_maps(table.scans, plan, lambda share: tell("read maps", 0.3 * share))
    prepare_tasks(plan, table, maps)  # what is wrong is told before anything is computed or written
    models = tuple(run_models(plan, table, maps))
    out.mkdir(parents=True, exist_ok=True)
    (out / "maps").mkdir()
    findings = []
    for one in run_plan(plan, table, maps, lambda name, share: tell(name, 0.3 + 0.7 * share)):
        write_maps(one, out / "maps")
        findings.append(one)
    write_summary(findings, out / "summary.csv", plan.inference.alpha, models)
    if findings:
        write_regions(findings, out / "regions.csv")
        write_clusters(findings, out / "clusters.csv")
    if models:
        write_models(models, out)
    store_analyses(findings, out / _RECORD)
    store_models(models, out / _RECORD / _MODELS)
    shutil.copyfile(path, out / _PLAN)
    packages = {name: version(name) for name in _PACKAGES}
    run = {
        "plan": plan.name,
        "plan_sha256": cohort_plan_sha256(path),
        "table_sha256": table.sha256,
        "precision_sha256": _own_precision(plan),
        "seed": plan.seed,
        "paper_mode": plan.paper,
        "discnode": packages["discnode"],
        "packages": packages,
        "made_of": maps.versions,
        "models": [told for one in models for told in _in_short(one)],
        "warnings": list(maps.warnings),
    }
    (out / _RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    write_report(plan, findings, out, facts=_facts(run), models=models)
    return RunOutcome(len(findings), len(models), maps.warnings)


def report_again(folder: Path) -> None:
    """Make the report and its figures of a finished run anew; nothing is computed.

    Raises:
        CohortError: the folder is not of a finished run, or its plan is not the one that was run.
    """
    one = finished_run(folder)
    models = stored_models(folder / _RECORD / _MODELS)
    write_report(one.plan, one.findings, folder, facts=one.facts, models=models)


def is_finished_run(folder: Path) -> bool:
    """Whether a folder holds a finished run that this version can read."""
    try:
        _read_run(folder)
    except CohortError:
        return False
    return True


def finished_run(folder: Path) -> FinishedRun:
    """What a finished run found in maps, as it lies in its folder.

    Raises:
        CohortError: the folder is not of a finished run, or its plan is not the one that was run.
    """
    run = _read_run(folder)
    return FinishedRun(load_cohort_plan(folder / _PLAN), stored_analyses(folder / _RECORD), _facts(run))


def models_of(folder: Path) -> tuple[ModelFinding, ...]:
    """The models of a finished run.

    Raises:
        CohortError: the folder is not of a finished run.
    """
    _read_run(folder)
    return stored_models(folder / _RECORD / _MODELS)


def _read_run(folder: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        sha256 = cohort_plan_sha256(folder / _PLAN)
    except (OSError, ValueError) as error:
        raise CohortError(f"{folder}: is no folder of a finished run ({type(error).__name__})") from error
    if run.get("plan_sha256") != sha256 or not {"packages", "table_sha256"} <= run.keys():
        raise CohortError(f"{folder}: {_PLAN} is not the plan that was run, or the run is of an older version")
    return run


def _own_precision(plan: CohortPlan) -> dict[str, str]:
    """SHA-256 of the site's own files of precision, by name; shipped profiles are of the version of discnode."""
    files = (one.responders.own_precision for one in plan.models if one.responders is not None)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path is not None}


def _facts(run: dict[str, Any]) -> RunFacts:
    return RunFacts(
        run["plan_sha256"],
        tuple(run["warnings"]),
        run["packages"],
        run["made_of"],
        run["table_sha256"],
        run["precision_sha256"],
    )


def _in_short(one: ModelFinding) -> Iterator[dict[str, Any]]:
    """What the model was asked first, of each group."""
    told: dict[str, Any] = {
        "model": one.name,
        "level": one.level,
        "quantity": one.quantity,
        "region": one.region,
        "subjects": one.n_subjects,
        "values": one.n_values,
    }
    for target in one.targets:
        yield told | {
            "what": target.kind,
            "group": target.group,
            "reference": target.reference,
            "visit": target.visit,
            "estimate_ms": target.estimate.estimate,
            "low_ms": target.estimate.low,
            "high_ms": target.estimate.high,
            "df": target.estimate.df,
            "p": _known(target.estimate.p),
            "p_holm": _known(target.p_holm),
        }


def _known(p: float) -> float | None:
    """None where there is none: JSON knows no NaN."""
    return None if math.isnan(p) else p
