"""``discnode trial phantoms``: scans of QC phantoms, their control charts, and what a person decides about a hold."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from config.settings import Settings
from service.database import Database, open_database
from service.quarantine_command import person
from service.trials import phantom_scans
from service.trials.phantom_scans import NoSuchScan, PhantomScan, chart_of, rules_of, scans_of
from service.trials.phantoms import expected_scans, free_reports
from service.trials.registry import trials_of

_OK, _USAGE, _REFUSED = 0, 2, 3

Load = Callable[[Path | None], Settings]


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Load) -> None:
    """Add the actions on phantoms."""
    phantoms = actions.add_parser("phantoms", help="QC phantoms: scans, control charts, holds")
    of_phantoms = phantoms.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Callable[[argparse.Namespace, Database], int], text: str) -> argparse.ArgumentParser:
        action = of_phantoms.add_parser(name, help=text)
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
        action.set_defaults(command=lambda options: _run(run, options, load))
        return action

    add("list", _list, "all scans, oldest first, and when the next are due").add_argument("--json", action="store_true")
    show = add("show", _show, "one scan (JSON): what each vial read, and what the chart says")
    accept = add("accept", _accept, "you looked into a hold: reports of that scanner go on")
    aside = add(
        "set-aside", _set_aside, "the scan does not count, as the phantom stood wrongly: its chart is made anew"
    )
    note = add("note", _note, "write down how warm the phantom was")
    note.add_argument("--temperature", type=float, required=True, metavar="CELSIUS")
    for action in (show, accept, aside, note):
        action.add_argument("scan", type=int, metavar="SCAN")
    for action in (accept, aside):
        action.add_argument("--reason", required=True, help="why; no identity in it")
    for action in (accept, aside, note):
        action.add_argument("--by", default="", metavar="WHO", help="who decides (default: the system's user)")
    chart = add("chart", _chart, "the control charts as pages (HTML)")
    chart.add_argument("--out", type=Path, required=True, help="folder for them")


def _run(run: Callable[[argparse.Namespace, Database], int], options: argparse.Namespace, load: Load) -> int:
    database = open_database(load(options.config))
    try:
        phantom_scans.take_scans(database, datetime.now(UTC))
        return run(options, database)
    except (NoSuchScan, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    finally:
        database.close()


def _list(options: argparse.Namespace, database: Database) -> int:
    with database.read() as connection:
        scans = scans_of(connection)
        expected = expected_scans(connection)
    if options.json:
        due = [{"device_serial": one.device_serial, "due_by": one.by.isoformat()} for one in expected]
        sys.stdout.write(json.dumps({"scans": [_as_dict(one) for one in scans], "expected": due}, indent=2) + "\n")
        return _OK
    for one in scans:
        verdict = "set aside" if one.is_set_aside else f"{one.verdict}{', accepted' if one.accepted_by else ''}"
        sys.stdout.write(f"{one.id:5d}  {one.scan_date}  {verdict:16s}  {one.scanner}  {one.detail}\n")
    today = datetime.now(UTC).date()
    for awaited in expected:
        word = "OVERDUE since" if awaited.is_overdue(today) else "due by"
        sys.stdout.write(f"next of scanner {awaited.device_serial or 'unknown'}: {word} {awaited.by}\n")
    return _OK


def _show(options: argparse.Namespace, database: Database) -> int:
    with database.read() as connection:
        scan = phantom_scans.get_scan(connection, options.scan)
    sys.stdout.write(json.dumps(_as_dict(scan), indent=2) + "\n")
    return _OK


def _accept(options: argparse.Namespace, database: Database) -> int:
    by = options.by or person()
    scan = phantom_scans.accept_scan(database, options.scan, by, options.reason, datetime.now(UTC))
    freed = _free(database)
    sys.stdout.write(f"phantom scan {scan.id} ({scan.detail}) is accepted by {by}; {freed} objects of reports go on\n")
    return _OK


def _set_aside(options: argparse.Namespace, database: Database) -> int:
    by = options.by or person()
    scan = phantom_scans.set_scan_aside(database, options.scan, by, options.reason, datetime.now(UTC))
    freed = _free(database)
    text = f"phantom scan {scan.id} is set aside by {by}; its chart was made anew; {freed} objects of reports go on\n"
    sys.stdout.write(text)
    return _OK


def _free(database: Database) -> int:
    with database.write() as connection:
        return free_reports(connection)


def _note(options: argparse.Namespace, database: Database) -> int:
    by = options.by or person()
    scan = phantom_scans.note_temperature(database, options.scan, options.temperature, by, datetime.now(UTC))
    sys.stdout.write(f"phantom scan {scan.id}: {scan.temperature_c} °C\n")
    return _OK


def _chart(options: argparse.Namespace, database: Database) -> int:
    from service.reports.html import html_page
    from service.reports.phantom_chart import chart_page

    options.out.mkdir(parents=True, exist_ok=True)
    with database.read() as connection:
        trials = trials_of(connection)
        everything = scans_of(connection)
        due = {one.device_serial: one.by for one in expected_scans(connection)}
        for number, scanner in enumerate(dict.fromkeys(one.scanner for one in everything), start=1):
            scans, chart = chart_of(connection, scanner, rules_of(trials, scanner.rsplit(" / ", 1)[-1]))
            if not scans:
                continue
            aside = [one for one in everything if one.scanner == scanner and one.is_set_aside]
            page = chart_page(scanner, scans, chart, due[scans[-1].device_serial], aside, version("discnode"))
            path = options.out / f"chart-{number:02d}.html"
            path.write_text(html_page(page), encoding="utf-8")
            sys.stdout.write(f"{path}: {scanner}, {len(scans)} scans\n")
    return _OK


def _as_dict(scan: PhantomScan) -> dict[str, object]:
    values = asdict(scan)
    values["scan_date"] = scan.scan_date.isoformat()
    values["told_at"] = None if scan.told_at is None else scan.told_at.isoformat()
    values["vials"] = [
        {"vial": vial, "quantity": quantity, "mean_ms": mean} for (vial, quantity), mean in scan.vials.items()
    ]
    return values
