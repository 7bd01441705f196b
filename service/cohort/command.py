"""``discnode cohort``: check a plan, run it."""

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from config.cohort_plans import CohortPlan, cohort_plan_sha256, load_cohort_plan
from config.settings import Settings
from processing.cohort.design import DesignError
from service.cohort.reproduction.command import add_actions
from service.cohort.table import CohortError, CohortTable, read_table

_OK, _USAGE = 0, 2


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of ``discnode cohort``."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="says what is wrong in a plan and its table, before anything is computed")
    check.add_argument("plan", type=Path, help="plan (YAML)")
    check.set_defaults(command=_check)
    run = actions.add_parser("run", help="all analyses of a plan: maps, tables, figures and a report")
    run.add_argument("plan", type=Path, help="plan (YAML)")
    run.add_argument("--out", type=Path, required=True, help="folder for what it makes; must not exist, or be empty")
    run.set_defaults(command=_run)
    add_actions(actions)


def _read(path: Path) -> tuple[CohortPlan, CohortTable]:
    plan = load_cohort_plan(path)
    return plan, read_table(plan.table)


def _check(options: argparse.Namespace) -> int:
    from service.cohort.run import check_plan

    try:
        plan, table = _read(options.plan)
        notes = check_plan(plan, table)
    except (CohortError, DesignError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    print(f"{options.plan}: in order (sha256 {cohort_plan_sha256(options.plan)[:16]}); {len(table.scans)} scans")
    for note in notes:
        print(f"  {note}")
    return _OK


def _run(options: argparse.Namespace) -> int:
    from service.cohort.maps import load_maps
    from service.cohort.report import write_report
    from service.cohort.run import check_plan, run_plan
    from service.cohort.tables import write_clusters, write_maps, write_regions, write_summary
    from service.progress import show_progress

    if options.out.exists() and any(options.out.iterdir()):
        print(f"{options.out}: is not empty", file=sys.stderr)
        return _USAGE
    try:
        plan, table = _read(options.plan)
        check_plan(plan, table)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "maps").mkdir()
        with show_progress("cohort") as progress:
            maps = load_maps(table.scans, plan, lambda share: progress("read maps", 0.3 * share))
            findings = []
            for one in run_plan(plan, table, maps, lambda name, share: progress(name, 0.3 + 0.7 * share)):
                write_maps(one, options.out / "maps")
                findings.append(one)
    except (CohortError, DesignError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    write_summary(findings, options.out / "summary.csv", plan.inference.alpha)
    write_regions(findings, options.out / "regions.csv")
    write_clusters(findings, options.out / "clusters.csv")
    sha256 = cohort_plan_sha256(options.plan)
    write_report(plan, findings, options.out, plan_sha256=sha256, warnings=maps.warnings)
    run = {
        "plan": plan.name,
        "plan_sha256": sha256,
        "seed": plan.seed,
        "paper_mode": plan.paper,
        "discnode": version("discnode"),
        "made_of": maps.versions,
        "warnings": list(maps.warnings),
    }
    (options.out / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    for warning in maps.warnings:
        print(f"note: {warning}", file=sys.stderr)
    print(f"{len(findings)} analyses in {options.out}")
    return _OK
