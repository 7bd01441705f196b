"""``discnode trial subjects``: who takes part, whose levels are confirmed, whose discs have no value."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from config.settings import Settings
from processing.results import Level
from service import trial_tables as db
from service.database import Database, open_database
from service.release_command import add_signature, signing_of
from service.signatures import CannotSign, Signing, signatures_on
from service.trials.imports import TableRefused, import_subjects
from service.trials.people import CannotDecide
from service.trials.plans import take_plans
from service.trials.priors import fetch_priors
from service.trials.subjects import confirm_levels, get_subject, note_not_evaluable, withdraw

_OK, _REFUSED = 0, 3
_LEVELS = [level.name for level in Level]
Run = Callable[[argparse.Namespace, Database, Settings], str]


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the actions on subjects."""
    parser = actions.add_parser("subjects", help="who takes part; levels, discs without a value, priors")
    inner = parser.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Run, text: str, *, needs_reason: bool | None = None) -> argparse.ArgumentParser:
        action = inner.add_parser(name, help=text)
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
        action.add_argument("--trial", default="", metavar="TRIAL", help="ClinicalTrialProtocolID, if there are more")
        action.set_defaults(command=lambda options: run_action(run, options, load))
        if needs_reason is not None:
            add_signature(action, needs_reason=needs_reason)
        return action

    add("list", _list, "all of them").add_argument("--json", action="store_true")
    show = add("show", _show, "one of them (JSON), with its exams and what people signed")
    take = add("import", _import, "takes the subjects' table (CSV), whole or not at all", needs_reason=False)
    take.add_argument("file", type=Path, help="subject_id, site_id, patient_id, birth_year, sex, day_zero")
    out = add("withdraw", _withdraw, "takes part no longer: no visit is expected", needs_reason=True)
    out.add_argument("--on", type=date.fromisoformat, help="day of the withdrawal (default: today)")
    out.add_argument("--back", action="store_true", help="takes part again")
    levels = add("confirm-levels", _levels, "names the lowest disc in view, once for all visits", needs_reason=False)
    levels.add_argument("--lowest-disc", required=True, choices=_LEVELS)
    disc = add("not-evaluable", _disc, "a disc has no value from a visit on", needs_reason=True)
    prior = add("fetch-priors", _priors, "fetches earlier scans in the windows of visits from the sources")
    for action in (show, out, levels, disc, prior):
        action.add_argument("subject", metavar="SUBJECT")
    disc.add_argument("level", choices=_LEVELS)
    disc.add_argument("--from", dest="visit", default="", metavar="VISIT")
    disc.add_argument("--back", action="store_true", help="it is evaluable after all")


def run_action(run: Run, options: argparse.Namespace, load: Callable[[Path | None], Settings]) -> int:
    """Run an action on the node's record; a refusal goes to standard error."""
    settings = load(options.config)
    database = open_database(settings)
    try:
        with database.write() as connection:
            take_plans(connection, settings.trials_dir, datetime.now(UTC))
        text = run(options, database, settings)
    except (CannotDecide, CannotSign, TableRefused) as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    finally:
        database.close()
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    return _OK


def signed(options: argparse.Namespace, meaning: str) -> Signing:
    """What the arguments say; with this meaning where they give none."""
    signing = signing_of(options)
    return signing if signing.meaning else replace(signing, meaning=meaning)


def _subject(options: argparse.Namespace, database: Database) -> Row[Any]:
    with database.read() as connection:
        return get_subject(connection, options.subject, options.trial)


def _list(options: argparse.Namespace, database: Database, _: Settings) -> str:
    table, trial = db.subject, db.trial
    query = select(table, trial.c.protocol_id).join(trial, trial.c.id == table.c.trial_id)
    query = query.where(trial.c.protocol_id == options.trial) if options.trial else query
    with database.read() as connection:
        rows = connection.execute(query.order_by(trial.c.protocol_id, table.c.subject_id)).all()
    if options.json:
        return json.dumps([_as_dict(row) for row in rows], indent=2)
    lines = [
        f"{row.protocol_id:12s}  {row.subject_id:12s}  site {row.site_id:6s}  {row.state:9s}"
        f"  day zero {row.day_zero or '?'}  lowest disc {row.lowest_disc or 'to be confirmed'}"
        for row in rows
    ]
    return "\n".join(lines) or "no subject"


def _as_dict(row: Row[Any]) -> dict[str, Any]:
    """Without the digest of the PatientID, which is of no use to people."""
    names = ("protocol_id", "subject_id", "site_id", "state", "birth_year", "sex", "lowest_disc", "levels")
    days = ("day_zero", "withdrawn_on", "levels_confirmed_at", "created_at")
    values = {name: row._mapping[name] for name in (*names, "levels_confirmed_by", "is_listed")}
    return values | {name: None if (day := row._mapping[name]) is None else day.isoformat() for name in days}


def _show(options: argparse.Namespace, database: Database, _: Settings) -> str:
    row = _subject(options, database)
    visit, disc = db.visit, db.non_evaluable
    names = ("exam_id", "name", "state", "job_id", "scanned_at", "assigned_by", "code", "detail", "deviations")
    with database.read() as connection:
        visits = connection.execute(
            select(visit).where(visit.c.subject_id == row.id).order_by(visit.c.scanned_at)
        ).all()
        discs = connection.execute(select(disc).where(disc.c.subject_id == row.id).order_by(disc.c.id)).all()
        signatures = signatures_on(connection, "subject", row.id)
        of_exams = {one.exam_id: signatures_on(connection, "exam", one.exam_id) for one in visits}
    shown = _as_dict(row) | {
        "exams": [
            {name: one._mapping[name] for name in names} | {"signatures": of_exams[one.exam_id]} for one in visits
        ],
        "not_evaluable": [
            {
                "level": one.level,
                "from": one.from_visit,
                "reason": one.reason,
                "noted_by": one.noted_by,
                "noted_at": one.noted_at.isoformat(),
                "withdrawn_at": None if one.withdrawn_at is None else one.withdrawn_at.isoformat(),
            }
            for one in discs
        ],
        "signatures": signatures,
    }
    return json.dumps(shown, indent=2)


def _import(options: argparse.Namespace, database: Database, _: Settings) -> str:
    signing = signed(options, "I hand in the subjects' table")
    n_rows, n_new = import_subjects(database, options.trial, options.file, signing)
    return f"{n_rows} subjects, {n_new} of them new"


def _withdraw(options: argparse.Namespace, database: Database, _: Settings) -> str:
    signing = signed(options, "The subject takes part again" if options.back else "The subject was withdrawn")
    on = options.on or signing.at.date()
    return withdraw(database, _subject(options, database), on, signing, back=options.back)


def _levels(options: argparse.Namespace, database: Database, _: Settings) -> str:
    signing = signed(options, "I looked at the levels of this subject and confirm them")
    return confirm_levels(database, _subject(options, database), Level[options.lowest_disc], signing)


def _disc(options: argparse.Namespace, database: Database, _: Settings) -> str:
    signing = signed(options, "This disc has no value" if not options.back else "This disc has a value")
    row = _subject(options, database)
    return note_not_evaluable(database, row, Level[options.level], options.visit, signing, back=options.back)


def _priors(options: argparse.Namespace, database: Database, settings: Settings) -> str:
    fetched = fetch_priors(database, settings, _subject(options, database), datetime.now(UTC))
    for text in fetched.failed:
        sys.stderr.write(f"{text}\n")
    return f"{len(fetched.studies)} studies in the windows of visits were new; {fetched.n_objects} objects came"
