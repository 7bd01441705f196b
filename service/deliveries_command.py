"""`discnode deliveries` and `discnode reconcile`: what is on its way to whom, and whether it is there."""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import Settings
from service.states import DeliveryState

if TYPE_CHECKING:
    from service.reconciliation import Reconciliation

_OK, _USAGE, _DIFFERS = 0, 2, 3

Load = Callable[[Path | None], Settings]


def add_deliveries(parser: argparse.ArgumentParser, load: Load) -> None:
    """The actions of ``discnode deliveries``. ``load`` reads a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="what goes where, and whether it is there, oldest first")
    listing.add_argument("--state", type=DeliveryState, choices=list(DeliveryState), help="only those in this state")
    listing.add_argument("--destination", metavar="NAME", help="only those to this destination")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(command=lambda options: list_rows(options, load(options.config)))

    retry = actions.add_parser(
        "retry", help="send objects again at once, or try and ask at once about all of a destination"
    )
    retry.add_argument("id", type=_number, nargs="*", metavar="ID", help="an object, even if it was confirmed")
    retry.add_argument("--destination", metavar="NAME", help="all that waits, and all that is not confirmed")
    retry.set_defaults(command=lambda options: retry_rows(options, load(options.config)))
    for action in (listing, retry):
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")


def add_reconcile(parser: argparse.ArgumentParser, load: Load) -> None:
    """The arguments of ``discnode reconcile``."""
    parser.add_argument("--destination", metavar="NAME", help="only this one (default: all)")
    parser.add_argument("--days", type=_number, help="what was sent in so many days (default: reconciliation.days)")
    parser.add_argument(
        "--send-many", action="store_true", help="send again what is missing even if that is more than half of it"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config", type=Path, help="settings file of the node (YAML)")
    parser.set_defaults(command=lambda options: reconcile_all(options, load(options.config)))


def _number(text: str) -> int:
    number = int(text)
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError("not between 1 and 2147483647")
    return number


def list_rows(options: argparse.Namespace, settings: Settings) -> int:
    """Print the deliveries; returns the exit status."""
    from service.database import open_database
    from service.deliveries import list_deliveries

    found = list_deliveries(open_database(settings), state=options.state, destination=options.destination)
    if options.json:
        sys.stdout.write(json.dumps([one.as_dict() for one in found], indent=2) + "\n")
        return _OK
    known = {one.name for one in settings.destinations}
    rows = [("id", "job", "state", "by", "tried", "kind", "destination", "object", "remark")] if found else []
    for one in found:
        where = one.destination if one.destination in known else f"{one.destination} (not in the settings)"
        numbers = str(one.id), str(one.job_id), str(one.state), one.confirmed_by or "-", str(one.attempts)
        rows.append((*numbers, one.kind, where, one.sop_uid, one.held_for or one.last_error or ""))
    widths = [max(len(row[column]) for row in rows) for column in range(8)] if rows else []
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[8]]).rstrip() + "\n")
    return _OK


def retry_rows(options: argparse.Namespace, settings: Settings) -> int:
    """Let deliveries be tried at once; returns the exit status."""
    from service.database import open_database
    from service.deliveries import NotReleased, send_again, send_now

    if not options.id and options.destination is None:
        sys.stderr.write("name deliveries by their numbers, or a destination with --destination\n")
        return _USAGE
    if options.destination is not None and options.destination not in {one.name for one in settings.destinations}:
        sys.stderr.write(f"{options.destination} is not in the settings: nothing is sent to it\n")
        return _USAGE
    database = open_database(settings)
    now = datetime.now(UTC)
    is_wrong = False
    for number in options.id:
        try:
            fault = "" if send_again(database, number, now) else f"no delivery with number {number}"
        except NotReleased as error:
            fault = str(error)
        except FileNotFoundError:
            fault = f"the file of delivery {number} is no longer there: it cannot be sent again"
        if fault:
            is_wrong = True
            sys.stderr.write(f"{fault}\n")
    if options.destination is not None:
        n_objects = send_now(database, options.destination, now)
        sys.stdout.write(f"{n_objects} objects for {options.destination} are tried or asked about at once\n")
    return _USAGE if is_wrong else _OK


def reconcile_all(options: argparse.Namespace, settings: Settings) -> int:
    """Compare what was sent with what destinations have; exit status 3 where they differ or cannot be compared."""
    from service.database import open_database
    from service.reconciliation import reconcile

    chosen = [one for one in settings.destinations if options.destination in (None, one.name)]
    if not chosen:
        allowed = ", ".join(one.name for one in settings.destinations) or "none"
        sys.stderr.write(f"no destination {options.destination!r}; allowed: {allowed}\n")
        return _USAGE
    database = open_database(settings)
    found = [reconcile(database, one, settings, days=options.days, send_many=options.send_many) for one in chosen]
    results = [one for one in found if one is not None]
    if options.json:
        sys.stdout.write(json.dumps([one.as_dict() for one in results], indent=2) + "\n")
    else:
        for one in results:
            sys.stdout.write(_summary(one) + "\n")
    return _OK if all(one.agrees for one in results) else _DIFFERS


def _summary(one: "Reconciliation") -> str:
    if one.error is not None:
        return f"{one.destination}: could not be compared: {one.error}"
    lines = [f"{one.destination}: {one.n_compared} compared, {one.n_there} there, {one.n_waiting} wait"]
    lines += [f"  {one.n_confirmed} found there and confirmed"] if one.n_confirmed else []
    if one.is_held_back:
        lines.append("  so many are missing that they are not sent again without --send-many")
    lists = (
        (one.missing, "not there" if one.is_held_back else "not there, sent again"),
        (one.strangers, "there, and not sent by this node"),
        (one.without_file, "sent, and its file is gone here"),
    )
    lines += [f"  {uid}  {what}" for uids, what in lists for uid in uids]
    return "\n".join(lines)
