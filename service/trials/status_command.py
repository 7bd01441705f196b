"""``discnode trial status``, ``freeze`` and ``unfreeze``."""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Settings
from models.registry import ModelError
from service.database import open_database
from service.release_command import add_signature, signing_of
from service.signatures import CannotSign
from service.trials.freeze_actions import freeze, unfreeze
from service.trials.freezing import NAMES
from service.trials.people import CannotDecide
from service.trials.plans import take_plans
from service.trials.registry import trials_of
from service.trials.status import status_of, status_text

_OK, _REFUSED = 0, 3


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the actions."""
    status = actions.add_parser("status", help="who came when, what is held and why, what is due")
    status.add_argument("trial", nargs="?", default="", metavar="TRIAL", help="ClinicalTrialProtocolID; default: all")
    status.add_argument("--json", action="store_true")
    status.set_defaults(command=lambda options: _status(options, load))
    cold = actions.add_parser("freeze", help="from now on only results of this program, weights, atlas and plan count")
    warm = actions.add_parser("unfreeze", help="takes a freeze back")
    for action, needs_reason in ((cold, False), (warm, True)):
        action.add_argument("trial", metavar="TRIAL", help="ClinicalTrialProtocolID")
        add_signature(action, needs_reason=needs_reason)
    cold.set_defaults(command=lambda options: _freeze(options, load))
    warm.set_defaults(command=lambda options: _unfreeze(options, load))
    for action in (status, cold, warm):
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")


def _status(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    settings, now = load(options.config), datetime.now(UTC)
    database = open_database(settings)
    with database.write() as connection:
        problems = take_plans(connection, settings.trials_dir, now).problems
        trials = [one for one in trials_of(connection) if options.trial in ("", one.protocol_id)]
        found = [status_of(connection, one, now) for one in trials]
    database.close()
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if options.trial and not found:
        sys.stderr.write(f"no trial {options.trial!r}\n")
        return _REFUSED
    if options.json:
        sys.stdout.write(json.dumps([one.as_dict() for one in found], indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(status_text(one) for one in found) or "no trial\n")
    return _OK


def _freeze(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    settings = load(options.config)
    database = open_database(settings)
    try:
        frozen = freeze(database, settings, options.trial, signing_of(options))
    except (CannotSign, CannotDecide, ModelError) as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    finally:
        database.close()
    versions = frozen["versions"]
    assert isinstance(versions, dict)
    sys.stdout.write(f"{options.trial} is frozen: plan {frozen['plan_sha256']}\n")
    for name, text in NAMES.items():
        sys.stdout.write(f"  {text}: {versions[name]}\n")
    return _OK


def _unfreeze(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    settings = load(options.config)
    database = open_database(settings)
    try:
        unfreeze(database, settings, options.trial, signing_of(options))
    except (CannotSign, CannotDecide) as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    finally:
        database.close()
    sys.stdout.write(f"{options.trial} is no longer frozen\n")
    return _OK
