"""``discnode trial``: each group of actions in a module of its own."""

import argparse
from collections.abc import Callable
from pathlib import Path

from config.settings import Settings
from service.trials import (
    blinding_command,
    deidentify_command,
    export_command,
    phantom_command,
    plan_command,
    precision_command,
    readings_command,
    report_command,
    simulate_command,
    status_command,
    subjects_command,
    visits_command,
)

Load = Callable[[Path | None], Settings]


def add_arguments(parser: argparse.ArgumentParser, load: Load) -> None:
    """The actions of ``discnode trial``."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    plan_command.add_actions(actions, load)
    status_command.add_actions(actions, load)
    subjects_command.add_actions(actions, load)
    visits_command.add_actions(actions, load)
    phantom_command.add_actions(actions, load)
    blinding_command.add_actions(actions, load)
    simulate_command.add_actions(actions, load)
    report_command.add_actions(actions, load)
    export_command.add_actions(actions, load)
    precision_command.add_actions(actions, load)
    deidentify_command.add_actions(actions, load)
    readings_command.add_actions(actions, load)
