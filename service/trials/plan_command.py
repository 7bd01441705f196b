"""``discnode trial init`` and ``check``: a new plan, and what is wrong with one."""

import argparse
import csv
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

from config.deidentification import read_key
from config.protocol_cards import load_cards
from config.settings import Settings, SettingsError
from config.trial_plans import TrialPlan, load_plan, plan_sha256
from processing.precision_profile import read_precision
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Cell, PrecisionProfile
from service.trials.blinding import check_no_arm


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the actions on plans."""
    init = actions.add_parser("init", help="writes a commented plan to change")
    init.add_argument("file", type=Path)
    init.set_defaults(command=_init)
    check = actions.add_parser("check", help="says what is wrong in a plan, where, and what is allowed")
    check.add_argument("file", type=Path)
    check.add_argument("--config", type=Path, help="settings file of the node (YAML)")
    check.set_defaults(command=lambda options: _check(options, load))


def _init(options: argparse.Namespace) -> int:
    if options.file.exists():
        print(f"{options.file}: exists already", file=sys.stderr)
        return 2
    with as_file(files("config") / "trials" / "example.yaml") as example:
        shutil.copyfile(example, options.file)
    print(f"{options.file}: an example; change it, then discnode trial check {options.file}")
    return 0


def _check(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    settings = load(options.config)
    plan = load_plan(options.file)
    cards = [card.name for card in load_cards(settings.protocols_dir)]
    for card in plan.protocol.split(" + "):  # of T1rho and T2 as two scans there are two
        if card not in cards:
            raise SettingsError(f"{options.file}: protocol: no card {card!r}; allowed: {', '.join(cards)}")
    precision = read_precision(plan.change.precision)
    _check_primary(options.file, plan, precision)
    names = [destination.name for destination in settings.destinations]
    for name in plan.destinations:
        if name not in names:
            allowed = ", ".join(names) or "none"
            raise SettingsError(f"{options.file}: destinations: {name!r} is not configured; allowed: {allowed}")
    of_plan = [one for one in settings.destinations if one.name in plan.destinations]
    if any(one.deidentify for one in of_plan) and plan.deidentification.key_file is None:
        raise SettingsError(
            f"{options.file}: deidentification.key_file: is not set, but a destination takes de-identified copies only"
        )
    if plan.deidentification.key_file is not None:
        read_key(plan.deidentification.key_file)
    if plan.treated_levels is not None and plan.treated_levels.is_file():
        with plan.treated_levels.open(encoding="utf-8-sig", newline="") as file:
            check_no_arm(next(csv.reader(file), []))
    visits = ", ".join(f"{one.name} (day {one.first_day} to {one.last_day})" for one in plan.visits)
    print(f"{options.file}: in order (sha256 {plan_sha256(options.file)[:16]})")
    print(f"  {plan.protocol_id}: {len(plan.sites)} sites, visits {visits}")
    print(f"  compared with {plan.baseline.name}; {len(plan.primary)} primary cells declared")
    borrowed = ", borrowed" if precision.borrowed else ""
    print(f"  limits at {plan.change.confidence:.0%} from the precision {precision.name}{borrowed}")
    if any(one.between_sd_log is None for one in precision.entries):
        print("  no limits after a change of scanner, software or coil where the precision has no between_cv")
    print(f"  releases {plan.release}; sends to {', '.join(plan.destinations) or 'nobody'}")
    if settings.trials_dir is not None and options.file.resolve().parent == settings.trials_dir.resolve():
        _register(settings)
    return 0


def _check_primary(file: Path, plan: TrialPlan, precision: PrecisionProfile) -> None:
    """Pass if every primary cell can be judged.

    Raises:
        SettingsError: the precision has none of one.
    """
    for one in plan.primary:
        levels = LUMBAR_LEVELS if one.level == "treated" else (Level[one.level],)
        cells = [Cell(level, Region(one.region), Quantity(one.quantity)) for level in levels]
        if any(precision.of(cell) is None for cell in cells):
            raise SettingsError(
                f"{file}: primary: {one.quantity} {one.region} {one.level} could never be judged: the precision"
                f" {precision.name} (change.precision) has none of it"
            )


def _register(settings: Settings) -> None:
    """A plan in the node's folder is registered, or compared with what is on record, and what is wrong is told."""
    from service.database import open_database
    from service.trials.plans import take_plans
    from service.trials.registry import trials_of
    from service.trials.status import deviation_of

    database = open_database(settings)
    with database.write() as connection:
        problems = take_plans(connection, settings.trials_dir, datetime.now(UTC)).problems
        found = [f"{one.protocol_id}: {deviation_of(one)}" for one in trials_of(connection) if one.deviation]
    database.close()
    for text in (*problems, *found):
        print(f"  !! {text}")
