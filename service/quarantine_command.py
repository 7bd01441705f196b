"""`discnode quarantine`: what the node holds back, why, what helps, and what a person decides about it."""

import argparse
import json
import os
import pwd
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from config.protocol_cards import asked_elements, load_cards
from config.settings import Settings
from processing.refusal import ReasonCode
from service.states import QuarantineState

if TYPE_CHECKING:
    from service.quarantine import QuarantineItem

_OK, _USAGE = 0, 2


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of the command. ``load`` reads a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="all cases, oldest first")
    listing.add_argument(
        "--state", type=QuarantineState, choices=list(QuarantineState), help="only those in this state"
    )
    listing.add_argument("--code", type=ReasonCode, choices=list(ReasonCode), help="only those with this reason code")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(command=lambda options: list_cases(options, load(options.config)))

    show = actions.add_parser("show", help="one case: reason, what helps, header without identity (JSON)")
    show.add_argument("id", type=_case_number)
    show.set_defaults(command=lambda options: show_case(options, load(options.config)))

    release = actions.add_parser("release", help="judge it again; of two contents with one UID, use this one")
    release.add_argument("id", type=_case_number)
    release.set_defaults(command=lambda options: release_case(options, load(options.config)))

    discard = actions.add_parser(
        "discard", help="close it for good; a held object is deleted, a held exam's images stay"
    )
    discard.add_argument("id", type=_case_number)
    discard.add_argument("--reason", required=True, help="why the data are not needed")
    discard.add_argument("--series", default="", metavar="UID", help="of a held exam: set only this series aside")
    discard.add_argument(
        "--patient",
        default="",
        metavar="LETTER",
        help="of a held exam: set only this patient's images aside (see show)",
    )
    discard.set_defaults(command=lambda options: discard_case(options, load(options.config)))
    for action in (listing, show, release, discard):
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")


def _case_number(text: str) -> int:
    number = int(text)
    if abs(number) >= 2**31:
        raise argparse.ArgumentTypeError("no case has such a number")
    return number


def list_cases(options: argparse.Namespace, settings: Settings) -> int:
    """Print the cases; returns the exit status."""
    from service import quarantine
    from service.database import open_database

    items = quarantine.list_items(open_database(settings), state=options.state, code=options.code)
    if options.json:
        sys.stdout.write(json.dumps([item.as_dict() for item in items], indent=2) + "\n")
        return _OK
    rows = [("id", "state", "age", "code", "what", "sender", "detail")] if items else []
    rows += [_row(item, datetime.now(UTC)) for item in items]
    widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[6]])
        sys.stdout.write("".join(sign if sign.isprintable() else "?" for sign in line) + "\n")
    return _OK


def _row(item: "QuarantineItem", now: datetime) -> tuple[str, str, str, str, str, str, str]:
    age = _age(now - item.created_at)
    return str(item.id), str(item.state), age, item.code, item.what, item.calling_ae or "-", item.detail


def _age(age: timedelta) -> str:
    """Such as "12 min", "5 h", "3 d"."""
    minutes = max(0, int(age.total_seconds() // 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


def show_case(options: argparse.Namespace, settings: Settings) -> int:
    """Print one case with all that helps to decide about it; returns the exit status."""
    from service import quarantine
    from service.database import open_database
    from service.quarantine_details import describe_item

    database = open_database(settings)
    item = quarantine.get_item(database, options.id)
    if item is None:
        return _unknown("quarantined item", options.id)
    described = describe_item(database, item, load_cards(settings.protocols_dir), settings.completion.repeats)
    sys.stdout.write(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return _OK


def release_case(options: argparse.Namespace, settings: Settings) -> int:
    """Put a held thing back into the intake; returns the exit status."""
    from service import quarantine
    from service.database import open_database

    try:
        done = quarantine.release(open_database(settings), options.id, by=person())
    except quarantine.CannotRelease as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    return _OK if done else _unknown("held item", options.id)


def discard_case(options: argparse.Namespace, settings: Settings) -> int:
    """Close a case, or set a group of images of a held exam aside; returns the exit status."""
    from service import quarantine
    from service.database import open_database
    from service.exam_groups import CannotDiscard, discard_group

    if not options.reason.strip():
        sys.stderr.write("--reason: say why the data are not needed\n")
        return _USAGE
    database = open_database(settings)
    if not options.series and not options.patient:
        done = quarantine.discard(database, options.id, reason=options.reason, by=person())
        return _OK if done else _unknown("held item", options.id)
    item = quarantine.get_item(database, options.id)
    if item is None:
        return _unknown("held item", options.id)
    elements = asked_elements(load_cards(settings.protocols_dir))
    chosen = {"series_uid": options.series, "patient": options.patient}
    try:
        n_objects = discard_group(database, item, elements, reason=options.reason, by=person(), **chosen)
    except CannotDiscard as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    sys.stdout.write(f"{n_objects} objects set aside; the exam is judged again\n")
    return _OK


def person() -> str:
    """Who gives the command, for the record: by the kernel's word, not by an environment variable."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number without a name
        return f"user {os.getuid()}"


def _unknown(what: str, number: int) -> int:
    sys.stderr.write(f"no {what} with number {number}\n")
    return _USAGE
