"""`discnode release`: what is held, and what a person decides about it, signed; and the recall of what was sent."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from config.settings import Settings
from service import queries, recall, release
from service.database import Database, open_database
from service.quarantine_command import person
from service.rejection_notes import put_rejection_notes
from service.signatures import CannotSign, QueryCode, RejectCode, Resolution, Signing
from service.states import QueryState

_OK, _USAGE, _REFUSED = 0, 2, 3

Load = Callable[[Path | None], Settings]


def add_arguments(parser: argparse.ArgumentParser, load: Load) -> None:
    """The actions of ``discnode release``. ``load`` reads a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Callable[[argparse.Namespace, Database], int], text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text)
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
        action.set_defaults(command=lambda options: _run(run, options, load))
        return action

    add("list", _list, "what is held, and why, oldest first").add_argument("--json", action="store_true")
    show = add("show", _show, "one result or report (JSON): what holds it, its signatures, its digest")
    approve = add("approve", _approve, "let it go, by a signature with its meaning")
    reject = add("reject", _reject, "never let it go, by a signature with a coded reason")
    reject.add_argument("--code", choices=list(RejectCode), required=True)
    ask = add("query", _query, "ask the site: a coded reason, a question and a date; it is not released meanwhile")
    ask.add_argument("--code", choices=list(QueryCode), required=True)
    ask.add_argument("--due", type=date.fromisoformat, metavar="DATE", help="YYYY-MM-DD (default: in 14 days)")
    for action in (show, approve, reject, ask):
        action.add_argument("target", type=_target, metavar="ID", help="number of a job, such as 12, or report-3")
    resolve = add("resolve", _resolve, "close a query")
    resolve.add_argument("query", type=int, metavar="QUERY")
    resolve.add_argument("--code", choices=list(Resolution), required=True)
    asked = add("queries", _queries, "questions to sites, oldest first")
    asked.add_argument("--all", action="store_true", help="also those that are resolved")
    asked.add_argument("--json", action="store_true")
    back = add("recall", partial(_recall, load), "stop what waits, send nothing again, and list all that was ever sent")
    _add_selection(back)
    for action, needs_reason in ((approve, False), (reject, True), (ask, True), (resolve, True), (back, False)):
        add_signature(action, needs_reason=needs_reason)
    approve.add_argument("--sha256", default="", metavar="DIGEST", help="what you looked at (content_sha256 of show)")


def _add_selection(back: argparse.ArgumentParser) -> None:
    back.add_argument("--job", type=int, metavar="N")
    back.add_argument("--study", default="", metavar="UID", help="Study Instance UID: all versions of its results")
    back.add_argument("--subject", default="", metavar="ID", help="of a trial: all visits and reports")
    back.add_argument("--trial", default="", metavar="ID", help="ClinicalTrialProtocolID: all subjects")
    back.add_argument("--code", choices=list(RejectCode), default="")
    back.add_argument("--format", choices=("csv", "json"), default="csv")
    back.add_argument("--out", type=Path, help="file for the list (default: standard output)")
    back.add_argument(
        "--notes", action="store_true", help="also send rejection notes (Key Object Selection) to where it is"
    )
    back.add_argument("--dry-run", action="store_true", help="only list what was sent; change nothing")


def add_signature(action: argparse.ArgumentParser, *, needs_reason: bool) -> None:
    """The arguments of a signature, on the command line."""
    action.add_argument("--by", default="", metavar="WHO", help="who signs (default: the system's user)")
    action.add_argument("--meaning", default="", help="e.g. 'I reviewed the segmentation and approve release'")
    action.add_argument("--reason", default="", required=needs_reason, help="why; no identity in it")


def _target(text: str) -> release.Target:
    try:
        return release.parse_target(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run(run: Callable[[argparse.Namespace, Database], int], options: argparse.Namespace, load: Load) -> int:
    try:
        return run(options, open_database(load(options.config)))
    except (CannotSign, release.CannotDecide, queries.NoSuchQuery, recall.NothingThere) as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED


def signing_of(options: argparse.Namespace) -> Signing:
    """What the arguments say, with the system's user."""
    user = person()
    return Signing(
        by=options.by or user,
        via=f"command line as {user}",
        at=datetime.now(UTC),
        meaning=options.meaning,
        reason=options.reason,
        code=getattr(options, "code", "") or "",
        content_sha256=getattr(options, "sha256", ""),
    )


def _list(options: argparse.Namespace, database: Database) -> int:
    items = release.list_held(database)
    if options.json:
        sys.stdout.write(json.dumps([item.as_dict() for item in items], indent=2) + "\n")
        return _OK
    rows = [("id", "objects", "trial", "subject", "visit", "verdict", "held for")] if items else []
    for item in items:
        name = str(item.target.number) if item.target.kind == "job" else f"report-{item.target.number}"
        whose = item.trial or "-", item.subject or "-", item.visit or "-"
        query = "; a query is open" if item.n_open_queries else ""
        rows.append((name, str(len(item.held)), *whose, item.verdict, "; ".join(item.holds.values()) + query))
    widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[6]]).rstrip() + "\n")
    return _OK


def _show(options: argparse.Namespace, database: Database) -> int:
    item = release.get_item(database, options.target)
    if item is None:
        sys.stderr.write(f"there is no {options.target}\n")
        return _USAGE
    sys.stdout.write(json.dumps(release.describe(database, item), indent=2) + "\n")
    return _OK


def _approve(options: argparse.Namespace, database: Database) -> int:
    n_objects = release.approve(database, options.target, signing_of(options))
    item = release.get_item(database, options.target)
    left = "" if item is None or not item.holds else f"; the others stay held: {'; '.join(item.holds.values())}"
    sys.stdout.write(f"{options.target} approved: {n_objects} objects go{left}\n")
    return _OK


def _reject(options: argparse.Namespace, database: Database) -> int:
    n_objects = release.reject(database, options.target, signing_of(options))
    sys.stdout.write(f"{options.target} rejected: {n_objects} objects will never be sent\n")
    return _OK


def _query(options: argparse.Namespace, database: Database) -> int:
    due_on = options.due or datetime.now(UTC).date() + timedelta(days=14)
    number = release.ask_site(database, options.target, signing_of(options), due_on)
    sys.stdout.write(f"query {number} about {options.target}, to be answered by {due_on}\n")
    return _OK


def _resolve(options: argparse.Namespace, database: Database) -> int:
    queries.resolve(database, options.query, signing_of(options))
    sys.stdout.write(f"query {options.query} resolved\n")
    return _OK


def _queries(options: argparse.Namespace, database: Database) -> int:
    found = queries.list_queries(database, None if options.all else QueryState.OPEN)
    if options.json:
        sys.stdout.write(json.dumps([asdict(one) for one in found], indent=2) + "\n")
        return _OK
    today = datetime.now(UTC).date().isoformat()
    for one in found:
        late = " OVERDUE" if one.state is QueryState.OPEN and (one.due_on or today) < today else ""
        state = one.state if one.resolution is None else f"{one.state} ({one.resolution})"
        sys.stdout.write(f"{one.id:5d}  exam {one.exam_id}  {state}  due {one.due_on}{late}  {one.code}: {one.text}\n")
    return _OK


def _recall(load: Load, options: argparse.Namespace, database: Database) -> int:
    chosen = recall.Selection(options.job, options.study, options.subject, options.trial)
    kinds = [options.job is not None, bool(options.study), bool(options.subject or options.trial)]
    if sum(kinds) != 1:
        sys.stderr.write("name one: --job, --study, --subject (and --trial), or --trial\n")
        return _USAGE
    found = (
        recall.list_sent(database, chosen) if options.dry_run else recall.recall(database, chosen, signing_of(options))
    )
    text = found.to_csv() if options.format == "csv" else found.to_json()
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    if options.notes and not options.dry_run:
        n_notes, n_lacking = put_rejection_notes(database, load(options.config), found, options.code, datetime.now(UTC))
        lacking = f"; for {n_lacking} none can be made: no file of it is here" if n_lacking else ""
        sys.stderr.write(f"{n_notes} rejection notes are on their way{lacking}\n")
    done = "would be stopped" if options.dry_run else "stopped or never sent"
    sys.stderr.write(f"{chosen}: {len(found.sent)} objects were sent; {len(found.stopped)} {done}\n")
    return _OK
