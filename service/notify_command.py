"""``discnode notify test``."""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from config.notifications import secret
from config.sections import SettingsError
from config.settings import Settings


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of ``discnode notify``."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    test = actions.add_parser("test", help="sends a test message over each channel, now")
    test.add_argument("--config", type=Path, required=True, help="settings file of the node (YAML)")
    test.set_defaults(command=lambda options: _test(load(options.config)))


def check_channels(settings: Settings) -> list[str]:
    """The channels of notifications, after their passwords and certificates were found readable.

    Raises:
        SettingsError: one is not; the message names the file or variable.
    """
    rules = settings.notifications
    for hook in rules.webhooks:
        _named(hook.name, hook.authorization_file, hook.authorization_variable, hook.ca_file)
        try:
            hook.address()
        except SettingsError as error:
            raise SettingsError(f"notifications: {hook.name}: {error}") from error
    for mail in rules.emails:
        _named(mail.name, mail.password_file, mail.password_variable, mail.ca_file)
    return [f"{one.name} ({one.url or 'its address is a secret'})" for one in rules.webhooks] + [
        f"{one.name} ({', '.join(one.recipients)})" for one in rules.emails
    ]


def _named(name: str, file: Path | None, variable: str | None, ca_file: Path | None) -> None:
    try:
        secret(file, variable)
    except SettingsError as error:
        raise SettingsError(f"notifications: {name}: {error}") from error
    if ca_file is not None and not os.access(ca_file, os.R_OK):
        raise SettingsError(f"notifications: {name}: {ca_file}: cannot be read")


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
