"""``discnode trial key``, ``deidentify``, ``reidentify``: what leaves the hospital without a name, and who may ask."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from config.deidentification import read_key, write_new_key
from config.settings import Settings, SettingsError
from config.trial_plans import TrialPlan, load_plan
from service.quarantine_command import person
from service.trials.windows import UNSCHEDULED

_OK, _REFUSED, _USAGE = 0, 3, 2


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the actions on keys and identities."""
    key = actions.add_parser("key", help="the secret from which a trial's pseudonyms follow")
    of_key = key.add_subparsers(required=True, metavar="ACTION")
    new = of_key.add_parser("new", help="writes a new key to a file that only its owner can read")
    new.add_argument("file", type=Path)
    new.set_defaults(command=_new_key)
    show = of_key.add_parser("show", help="the key's short name, which tells nothing of it")
    show.add_argument("file", type=Path)
    show.set_defaults(command=_show_key)

    clean = actions.add_parser("deidentify", help="writes de-identified copies of the images of a visit")
    clean.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders searched to any depth")
    clean.add_argument("--out", required=True, type=Path, help="new folder; appears whole or not at all")
    clean.add_argument("--subject", required=True, help="the subject's ID in the trial")
    clean.add_argument("--visit", required=True, help=f"name of the visit in the plan, or {UNSCHEDULED}")
    clean.add_argument("--site", default="", help="the site's ID; needed where the plan has several")
    clean.add_argument("--table", type=Path, help="file to which the pseudonym table is added (CSV); keep it apart")
    clean.add_argument("--pixels-seen-by", default="", metavar="WHO", help="who has looked for text in the pixels")
    _add_trial(clean)
    clean.set_defaults(command=lambda options: _deidentify(options, load))

    ask = actions.add_parser("reidentify", help="says who a pseudonym is; the request is recorded")
    who = ask.add_mutually_exclusive_group(required=True)
    who.add_argument("--subject", help="a subject's ID in the trial")
    who.add_argument("--uid", help="a UID of a de-identified study, series or object")
    ask.add_argument("--reason", required=True, help="why it must be known")
    ask.add_argument("--by", default="", metavar="WHO", help="who asks; the system user if not said")
    ask.add_argument("--table", type=Path, help="a pseudonym table to look in, beside the node's own record")
    _add_trial(ask)
    ask.set_defaults(command=lambda options: _reidentify(options, load))


def _add_trial(action: argparse.ArgumentParser) -> None:
    action.add_argument("--plan", required=True, type=Path, help="the trial's plan (YAML)")
    action.add_argument("--key", type=Path, help="the trial's key; else deidentification.key_file of the plan")
    action.add_argument("--config", type=Path, help="settings file of the node (YAML)")


def _new_key(options: argparse.Namespace) -> int:
    write_new_key(options.file)
    print(f"{options.file}: a new key; whoever has it can find identities again, and without it nobody can")
    return _OK


def _show_key(options: argparse.Namespace) -> int:
    from dicom_io.pseudonyms import key_name

    print(f"{options.file}: key {key_name(read_key(options.file))}")
    return _OK


def _deidentify(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    from config.protocol_cards import load_cards
    from dicom_io.deidentified_files import deidentify_exam
    from processing.refusal import UnsuitableInput
    from service.trials.pseudonym_table import append_rows
    from service.trials.trial_identity import identity_in

    settings, plan = load(options.config), load_plan(options.plan)
    key = read_key(_key_file(options, plan))
    identity = identity_in(plan, options.subject, options.visit, options.site)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        print(f"{options.out}: exists already", file=sys.stderr)
        return _USAGE
    if options.table is not None and options.table.resolve().is_relative_to(options.out.resolve()):
        raise SettingsError("--table: must not lie in --out, which others receive")
    try:
        files = deidentify_exam(
            options.paths,
            options.out,
            identity,
            key,
            settings=plan.deidentification,
            cards=load_cards(settings.protocols_dir),
            pixels_seen=bool(options.pixels_seen_by),
        )
    except UnsuitableInput as refusal:
        print(f"refused: {refusal.reason.code}: {refusal.reason.detail}", file=sys.stderr)
        return _REFUSED
    except OSError as error:
        print(f"cannot be read or written: {error.strerror or type(error).__name__}", file=sys.stderr)
        return _USAGE
    if options.table is not None:
        append_rows(options.table, identity, files, key)
    print(f"{options.out}: {len(files)} files of {identity.subject_id}, {identity.time_point_id}")
    return _OK


def _reidentify(options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    from service.database import open_database
    from service.trials.reidentification import Request, reidentify

    settings, plan = load(options.config), load_plan(options.plan)
    request = Request(
        plan.protocol_id, options.subject or "", options.uid or "", options.reason, options.by or person()
    )
    if not request.reason.strip():
        raise SettingsError("--reason: must say why")
    key = read_key(_key_file(options, plan))
    found = reidentify(open_database(settings), request, key, options.table, datetime.now(UTC))
    for line in found:
        print(line)
    if not found:
        print("not found in the node's record, nor in a table", file=sys.stderr)
    return _OK if found else _REFUSED


def _key_file(options: argparse.Namespace, plan: TrialPlan) -> Path:
    path: Path | None = options.key or plan.deidentification.key_file
    if path is None:
        raise SettingsError(f"{options.plan}: deidentification.key_file: is not set; or name the key by --key")
    return path
