"""``discnode trial readings``: visits for blinded readers, one at a time, and the way back of what they drew."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from config.settings import Settings
from processing.refusal import UnsuitableInput
from service.database import Database, open_database
from service.trials import readings

_OK, _USAGE, _REFUSED = 0, 2, 3


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the actions on readings."""
    of_readings = actions.add_parser("readings", help="visits for blinded readers: assign, next, done, list")
    group = of_readings.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Callable[[argparse.Namespace, Database], int], text: str) -> argparse.ArgumentParser:
        action = group.add_parser(name, help=text)
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
        action.set_defaults(command=lambda options: _run(run, options, load))
        return action

    give = add("assign", _assign, "puts measured visits that a reader does not have yet in a random order")
    give.add_argument("--trial", required=True, metavar="ID", help="ClinicalTrialProtocolID")
    give.add_argument("--repeat-share", type=float, default=0.1, help="share of the visits that come twice (0.1)")
    give.add_argument("--seed", type=int, required=True, help="of the order; keep it from the readers")
    then = add("next", _next, "writes the next visit's images and discs, without subject, visit, date or site")
    then.add_argument("--out", type=Path, required=True, help="new folder")
    done = add("done", _done, "closes a reading; the discs that were drawn go to the exam")
    done.add_argument("reading", metavar="READING", help="reading ID, such as R-4K2QZ7AB")
    done.add_argument("--seg", type=Path, help="the reader's discs: a DICOM Segmentation (default: none were changed)")
    listing = add("list", _list, "who has what to read, and how far they are; not whose it is")
    for action in (give, then, done):
        action.add_argument("--reader", required=True, metavar="WHO")
    listing.add_argument("--reader", default="", metavar="WHO")


def _run(
    run: Callable[[argparse.Namespace, Database], int],
    options: argparse.Namespace,
    load: Callable[[Path | None], Settings],
) -> int:
    try:
        return run(options, open_database(load(options.config)))
    except readings.NoReading as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    except UnsuitableInput as refusal:
        sys.stderr.write(f"{refusal.reason.code}: {refusal.reason.detail}\n")
        return _REFUSED
    except (ValueError, FileExistsError) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE


def _assign(options: argparse.Namespace, database: Database) -> int:
    share, seed = options.repeat_share, options.seed
    n_readings = readings.assign(database, options.trial, options.reader, repeat_share=share, seed=seed)
    sys.stdout.write(f"{n_readings} readings for {options.reader}\n")
    return _OK


def _next(options: argparse.Namespace, database: Database) -> int:
    reading = readings.export_next(database, options.reader, options.out)
    sys.stdout.write(f"{reading.reading_id}: {options.out}\n")
    return _OK


def _done(options: argparse.Namespace, database: Database) -> int:
    said = readings.finish(database, options.reader, options.reading, options.seg)
    sys.stdout.write(f"{options.reading} is done: {said}\n")
    return _OK


def _list(options: argparse.Namespace, database: Database) -> int:
    for one in readings.list_readings(database, options.reader):
        state = "done" if one.done_at else "open" if one.opened_at else "waits"
        sys.stdout.write(f"{one.reader}  {one.place:4d}  {one.reading_id}  {state}\n")
    return _OK
