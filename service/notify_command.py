"""``discnode notify test``."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Settings


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of ``discnode notify``."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    test = actions.add_parser("test", help="sends a test message over each channel, now")
    test.add_argument("--config", type=Path, required=True, help="settings file of the node (YAML)")
    test.set_defaults(command=lambda options: _test(load(options.config)))


def _test(settings: Settings) -> int:
    from service.notify import NotificationDesk

    desk = NotificationDesk(settings)
    if not desk.channels:
        print("notifications: neither webhooks nor emails are configured", file=sys.stderr)
        return 2
    outcomes = desk.send_test(datetime.now(UTC))
    for name, wrong in outcomes.items():
        print(f"{name}: {wrong or 'taken'}", file=sys.stderr if wrong else sys.stdout)
    return 1 if any(outcomes.values()) else 0
