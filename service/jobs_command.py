"""`discnode jobs`: the analyses, why one failed, and what a person decides about it."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import Settings
from service.quarantine_command import person

if TYPE_CHECKING:
    from processing.results import Level
    from service.database import Database

_OK, _USAGE = 0, 2


def add_arguments(
    parser: argparse.ArgumentParser,
    load: Callable[[Path | None], Settings],
    add_lowest_disc: Callable[[argparse.ArgumentParser], None],
) -> None:
    """The actions of the command. ``load`` reads a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all of them, oldest first")
    listing.set_defaults(command=lambda options: _list(_open(options, load)))

    show = actions.add_parser("show", help="one of them (JSON); of a failed one also where it failed")
    show.add_argument("id", type=int)
    show.set_defaults(command=lambda options: _show(_open(options, load), options.id))

    again = actions.add_parser("retry", help="try a parked one again")
    again.add_argument("id", type=int)
    add_lowest_disc(again)
    again.set_defaults(command=lambda options: _retry(_open(options, load), options.id, options.lowest_disc))

    anew = actions.add_parser("reprocess", help="make it anew as the exam's next version, also a done one")
    anew.add_argument("id", type=int)
    anew.add_argument("--reason", required=True, help="why; kept with the job")
    anew.set_defaults(command=lambda options: _reprocess(_open(options, load), options.id, options.reason))
    for action in (listing, show, again, anew):
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")


def _open(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> "Database":
    from service.database import open_database

    return open_database(load(options.config))


def _list(database: "Database") -> int:
    from service import jobs

    for job in jobs.list_jobs(database):
        sys.stdout.write(f"{job.id:6d}  {job.state:10s}  tried {job.attempts}  {job.study_uid}  {job.error_summary}\n")
    return _OK


def _show(database: "Database", number: int) -> int:
    from service import jobs

    job = jobs.get_job(database, number)
    if job is None:
        return _refuse(f"no job with number {number}")
    sys.stdout.write(json.dumps(job.as_dict(), indent=2) + "\n")
    if job.error:
        sys.stderr.write(job.error.rstrip() + "\n")
    return _OK


def _retry(database: "Database", number: int, lowest_disc: "Level | None") -> int:
    from service import reprocessing

    if reprocessing.retry(database, number, lowest_disc=lowest_disc, by=person()):
        return _OK
    if lowest_disc is None:
        return _refuse(f"no failed job with number {number}")
    what = "failed job, or finished one that is its exam's newest and was named otherwise,"
    return _refuse(f"no {what} with number {number}")


def _reprocess(database: "Database", number: int, reason: str) -> int:
    from service import reprocessing

    try:
        new = reprocessing.reprocess(database, number, reprocessing.Request(reason, person()))
    except reprocessing.CannotReprocess as error:
        return _refuse(str(error))
    sys.stdout.write(f"job {new}\n")
    return _OK


def _refuse(text: str) -> int:
    sys.stderr.write(text + "\n")
    return _USAGE
