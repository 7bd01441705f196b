"""``discnode trial unblind``: lets the reports go that the trial's blinding withholds."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from config.settings import Settings
from service.database import open_database
from service.release_command import add_signature, signing_of
from service.signatures import CannotSign
from service.trials.blinding import CannotUnblind, unblind


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the action."""
    action = actions.add_parser("unblind", help="lets the reports go that are withheld until now; once, and signed")
    action.add_argument("trial", metavar="TRIAL", help="ClinicalTrialProtocolID")
    action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
    add_signature(action, needs_reason=True)
    action.set_defaults(command=lambda options: _unblind(options, load))


def _unblind(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    try:
        n_objects = unblind(open_database(load(options.config)), options.trial, signing_of(options))
    except (CannotSign, CannotUnblind) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(f"{options.trial} is unblinded: {n_objects} objects go; what a person must approve stays held\n")
    return 0
