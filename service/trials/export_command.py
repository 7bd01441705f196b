"""``discnode trial export`` and ``differences``: a trial's data for others, and in what two sets of results differ."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Settings
from service.database import open_database
from service.quarantine_command import person
from service.trials.exports.trial_export import Format

_OK, _USAGE, _DIFFERS = 0, 2, 3

Load = Callable[[Path | None], Settings]


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Load) -> None:
    """Add the actions on exports."""
    export = actions.add_parser("export", help="a trial's data for statisticians, archives and other programs")
    export.add_argument("--config", type=Path, help="settings file of the node (YAML)")
    export.add_argument("--trial", required=True, metavar="ID", help="ClinicalTrialProtocolID")
    export.add_argument("--out", type=Path, required=True, help="folder that must not exist yet")
    export.add_argument(
        "--format", type=Format, nargs="+", choices=list(Format), default=[Format.TIDY], help="default: tidy"
    )
    export.add_argument("--by", default="", metavar="WHO", help="who asks (default: the system's user)")
    export.set_defaults(command=lambda options: _export(options, load(options.config)))
    differences = actions.add_parser(
        "differences", help="what two sets of results of the same exams differ in, e.g. made with other weights"
    )
    differences.add_argument("before", type=Path, help="folder with results (result.json at any depth)")
    differences.add_argument("after", type=Path, help="another one, of the same exams")
    differences.add_argument(
        "--versions", type=int, nargs=2, metavar=("N", "M"), help="which versions of each exam, in folders of a node"
    )
    differences.add_argument("--out", type=Path, required=True, help="folder for the report; must not exist yet")
    differences.set_defaults(command=_differences)


def _export(options: argparse.Namespace, settings: Settings) -> int:
    from service.trials.exports.trial_export import export_trial

    database = open_database(settings)
    try:
        by = options.by or person()
        done = export_trial(
            database, settings, options.trial, options.out, options.format, by=by, now=datetime.now(UTC)
        )
    except LookupError as error:
        sys.stderr.write(f"{error.args[0]}\n")
        return _USAGE
    finally:
        database.close()
    sys.stdout.write(f"{done.folder}: {done.n_subjects} subjects, {done.n_files} files (research use only)\n")
    for note in done.notes:
        sys.stdout.write(f"  not in it: {note}\n")
    return _OK


def _differences(options: argparse.Namespace) -> int:
    from service.trials.exports.result_differences import compare_results, write_differences

    versions = None if options.versions is None else (options.versions[0], options.versions[1])
    found = compare_results(options.before, options.after, versions)
    write_differences(found, options.out)
    for line in found.summary():
        sys.stdout.write(f"{line}\n")
    return _DIFFERS if found.has_differences else _OK
