"""``discnode trial init`` and ``check``: a new plan, and what is wrong with one."""

import argparse
import shutil
import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from config.protocol_cards import load_cards
from config.settings import Settings, SettingsError
from config.trial_plans import load_plan, plan_sha256
from processing.precision_profile import read_precision


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
    if plan.protocol not in cards:
        raise SettingsError(f"{options.file}: protocol: no card {plan.protocol!r}; allowed: {', '.join(cards)}")
    precision = read_precision(plan.change.precision)
    names = [destination.name for destination in settings.destinations]
    for name in plan.destinations:
        if name not in names:
            allowed = ", ".join(names) or "none"
            raise SettingsError(f"{options.file}: destinations: {name!r} is not configured; allowed: {allowed}")
    visits = ", ".join(f"{one.name} (day {one.first_day} to {one.last_day})" for one in plan.visits)
    print(f"{options.file}: in order (sha256 {plan_sha256(options.file)[:16]})")
    print(f"  {plan.protocol_id}: {len(plan.sites)} sites, visits {visits}")
    print(f"  compared with {plan.baseline.name}; {len(plan.primary)} primary cells declared")
    borrowed = ", borrowed" if precision.borrowed else ""
    print(f"  limits at {plan.change.confidence:.0%} from the precision {precision.name}{borrowed}")
    print(f"  releases {plan.release}; sends to {', '.join(plan.destinations) or 'nobody'}")
    return 0
