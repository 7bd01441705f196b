"""``discnode trial visits``: which exam is which visit, as a person says."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from config.settings import Settings
from service import trial_tables as db
from service.database import Database
from service.release_command import add_signature
from service.trials.imports import import_mappings
from service.trials.people import accept, assign, not_evaluable, set_aside
from service.trials.subjects_command import Run, run_action, signed


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the actions on visits."""
    parser = actions.add_parser("visits", help="which exam is which visit, and which counts")
    inner = parser.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, run: Run, text: str, *, needs_reason: bool | None = None) -> argparse.ArgumentParser:
        action = inner.add_parser(name, help=text)
        action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
        action.add_argument("--trial", default="", metavar="TRIAL", help="ClinicalTrialProtocolID, if there are more")
        action.set_defaults(command=lambda options: run_action(run, options, load))
        if needs_reason is not None:
            add_signature(action, needs_reason=needs_reason)
        return action

    add("list", _list, "exams of subjects, oldest scan first").add_argument("--json", action="store_true")
    take = add("import", _import, "takes a table of which study is which visit (CSV)", needs_reason=False)
    take.add_argument("file", type=Path, help="study_uid, or patient_id and study_date; subject_id, visit")
    name = add("assign", _assign, "says which visit an exam is, whatever its day", needs_reason=True)
    name.add_argument("--visit", required=True, metavar="NAME", help="of the plan, or unscheduled")
    name.add_argument("--subject", default="", metavar="SUBJECT", help="whose it is, where that is not known")
    aside = add("set-aside", _set_aside, "does not count; kept", needs_reason=True)
    back = add("take-back", _take_back, "takes back what was said of an exam", needs_reason=True)
    fine = add("accept", _accept, "the doubts for which it is held are none", needs_reason=True)
    without = add("not-evaluable", _not_evaluable, "the visit has no value", needs_reason=True)
    for action in (name, aside, back, fine, without):
        action.add_argument("exam", type=int, metavar="EXAM", help="its number, as in discnode trial status")


def _list(options: argparse.Namespace, database: Database, _: Settings) -> str:
    visit, subject, trial = db.visit, db.subject, db.trial
    query = (
        select(visit, subject.c.subject_id.label("subject"), trial.c.protocol_id)
        .join(subject, subject.c.id == visit.c.subject_id)
        .join(trial, trial.c.id == subject.c.trial_id)
        .order_by(trial.c.protocol_id, subject.c.subject_id, visit.c.scanned_at)
    )
    query = query.where(trial.c.protocol_id == options.trial) if options.trial else query
    with database.read() as connection:
        rows = connection.execute(query).all()
    if options.json:
        names = ("protocol_id", "subject", "name", "exam_id", "job_id", "state", "scanned_at", "assigned_by")
        told = ("code", "detail", "deviations")
        return json.dumps([{name: row._mapping[name] for name in (*names, *told)} for row in rows], indent=2)
    lines = [
        f"exam {row.exam_id:5d}  {row.subject:12s}  {row.name:12s}  {row.state:13s}  {row.scanned_at or 'no date':19s}"
        f"  by {row.assigned_by:10s}  {row.code or ''} {row.detail or ''}".rstrip()
        for row in rows
    ]
    return "\n".join(lines) or "no exam of a subject"


def _import(options: argparse.Namespace, database: Database, _: Settings) -> str:
    signing = signed(options, "I hand in which study is which visit")
    n_rows, n_exams = import_mappings(database, options.trial, options.file, signing)
    return f"{n_rows} rows; {n_exams} exams on record were looked at anew"


def _assign(options: argparse.Namespace, database: Database, _: Settings) -> str:
    signing = signed(options, "I say which visit this exam is")
    return assign(database, options.exam, options.visit, signing, subject_id=options.subject, protocol_id=options.trial)


def _set_aside(options: argparse.Namespace, database: Database, _: Settings) -> str:
    return set_aside(database, options.exam, signed(options, "This exam does not count"))


def _take_back(options: argparse.Namespace, database: Database, _: Settings) -> str:
    return set_aside(database, options.exam, signed(options, "I take back what was said of this exam"), back=True)


def _accept(options: argparse.Namespace, database: Database, _: Settings) -> str:
    return accept(database, options.exam, signed(options, "I looked into these doubts; the exam is the subject's"))


def _not_evaluable(options: argparse.Namespace, database: Database, _: Settings) -> str:
    return not_evaluable(database, options.exam, signed(options, "This visit has no value"))
