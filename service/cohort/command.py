"""``discnode cohort``: check a plan, run it, make its report again, tell the power of a trial."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from config.cohort_plans import CohortPlan, cohort_plan_sha256, load_cohort_plan
from config.settings import Settings
from processing.cohort.design import DesignError
from service.cohort.power_options import add_power
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
    report = actions.add_parser("report", help="the report of a finished run anew, from its folder; computes nothing")
    report.add_argument("run", type=Path, help="folder that 'cohort run' filled")
    report.set_defaults(command=_report)
    add_power(actions)
    add_actions(actions)


def _read(path: Path) -> tuple[CohortPlan, CohortTable]:
    plan = load_cohort_plan(path)
    return plan, read_table(plan.table)


def _check(options: argparse.Namespace) -> int:
    from service.cohort.run_folder import check_all

    try:
        plan, table = _read(options.plan)
        notes = check_all(plan, table)
    except (CohortError, DesignError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    print(f"{options.plan}: in order (sha256 {cohort_plan_sha256(options.plan)[:16]}); {len(table.scans)} scans")
    for note in notes:
        print(f"  {note}")
    return _OK


def _run(options: argparse.Namespace) -> int:
    from service.cohort.run_folder import check_all, run_to_folder
    from service.progress import show_progress

    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        print(f"{options.out}: is no empty folder", file=sys.stderr)
        return _USAGE
    try:
        plan, table = _read(options.plan)
        check_all(plan, table)
        with show_progress("cohort") as progress:
            outcome = run_to_folder(options.plan, plan, table, options.out, progress)
    except (CohortError, DesignError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    for warning in outcome.warnings:
        print(f"note: {warning}", file=sys.stderr)
    models = f", {outcome.n_models} models" if outcome.n_models else ""
    print(f"{outcome.n_analyses} analyses{models} in {options.out}")
    return _OK


def _report(options: argparse.Namespace) -> int:
    from service.cohort.run_folder import report_again

    try:
        report_again(options.run)
    except CohortError as error:
        print(error, file=sys.stderr)
        return _USAGE
    print(f"{options.run / 'report.html'}, {options.run / 'report.pdf'}")
    return _OK
