"""Recall: every object that was ever sent of a result, a subject or a trial, and the end of what still waits.

The rows of the outbox outlive the files that retention deletes, so the list is whole after it too.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from service import database as db
from service import trial_tables as trials
from service.database import Database
from service.holds import Hold, stop
from service.outbox import REJECTION_NOTE
from service.signatures import Signing, sign
from service.states import DeliveryState, JobState


class NothingThere(Exception):
    """There is no such job, study, subject or trial."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is recalled: one of these. ``subject`` may come with its ``trial``."""

    job_id: int | None = None
    study_uid: str = ""
    subject: str = ""
    trial: str = ""

    def __str__(self) -> str:
        if self.job_id is not None:
            return f"job {self.job_id}"
        if self.study_uid:
            return f"study {self.study_uid}"
        words = ([f"trial {self.trial}"] if self.trial else []) + ([f"subject {self.subject}"] if self.subject else [])
        return ", ".join(words)


#: Columns of the list.
COLUMNS = (
    "destination",
    "state",
    "sop_instance_uid",
    "sop_class_uid",
    "study_instance_uid",
    "series_instance_uid",
    "kind",
    "job",
    "version",
    "report",
    "sent_at",
    "confirmed_at",
    "confirmed_by",
    "never_sent_because",
)


@dataclass(frozen=True, slots=True)
class SentList:
    """What was sent of a selection, oldest first, and what never was and never will be."""

    selection: Selection
    sent: tuple[dict[str, Any], ...]
    stopped: tuple[dict[str, Any], ...]

    def to_csv(self) -> str:
        """All of it, one object for one destination in a row."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*self.sent, *self.stopped])
        return out.getvalue()

    def to_json(self) -> str:
        """All of it."""
        content = {
            "schema": "discnode.recall/1",
            "selection": str(self.selection),
            "sent": list(self.sent),
            "not_sent": list(self.stopped),
            "notice": "For research use only.",
        }
        return json.dumps(content, indent=2) + "\n"


def list_sent(database: Database, selection: Selection) -> SentList:
    """What was ever sent of a selection; changes nothing.

    Raises:
        NothingThere: there is no such thing.
    """
    with database.read() as connection:
        return _list(connection, selection)


def recall(database: Database, selection: Selection, signing: Signing) -> SentList:
    """Stop what still waits of a selection, send nothing of it again, and list what was sent.

    A destination is not told: the list says what is to be removed where. Of results that are made later of the same
    exams nothing goes before a person approves it.

    Raises:
        CannotSign: name, meaning or reason is missing.
        NothingThere: there is no such thing.
    """
    signing.check(needs_reason=True)
    with database.write() as connection:
        rows = _rows(connection, selection)
        keys: dict[tuple[str, int], set[str]] = {}
        for row in rows:
            key = ("job", row.job_id) if row.report_id is None else ("report", row.report_id)
            keys.setdefault(key, set()).add(row.exam_study_uid)
        for key, study in _all_of(connection, selection):  # also of what nothing was put down yet
            keys.setdefault(key, set()).add(study)
        for (kind, number), studies in keys.items():
            sign(connection, kind, number, "recalled", signing, "", studies=tuple(studies))
        code = f": {signing.code}" if signing.code else ""
        open_rows = [row for row in rows if row.state != DeliveryState.REJECTED and row.kind != REJECTION_NOTE]
        stop(connection, open_rows, Hold.RECALLED, f"recalled{code}")
        return _list(connection, selection)


def _list(connection: Connection, selection: Selection) -> SentList:
    lines = [(row.sent_at is not None, _line(row)) for row in _rows(connection, selection)]
    return SentList(
        selection,
        tuple(line for was_sent, line in lines if was_sent),
        tuple(line for was_sent, line in lines if not was_sent),
    )


def _line(row: Row[Any]) -> dict[str, Any]:
    return {
        "destination": row.destination,
        "state": row.state,
        "sop_instance_uid": row.sop_uid,
        "sop_class_uid": row.sop_class_uid or "",
        "study_instance_uid": row.study_uid or row.exam_study_uid,
        "series_instance_uid": row.series_uid or "",
        "kind": row.kind,
        "job": row.job_id,
        "version": row.version,
        "report": row.report_id or "",
        "sent_at": row.sent_at.isoformat() if row.sent_at else "",
        "confirmed_at": row.confirmed_at.isoformat() if row.confirmed_at else "",
        "confirmed_by": row.confirmed_by or "",
        "never_sent_because": "" if row.sent_at else "; ".join((row.holds or {}).values()),
    }


def _rows(connection: Connection, selection: Selection) -> Sequence[Row[Any]]:
    table, job, exam = db.delivery, db.job, db.exam
    query = select(table, job.c.version, exam.c.study_uid.label("exam_study_uid"))
    query = query.join(job, job.c.id == table.c.job_id).join(exam, exam.c.id == job.c.exam_id).order_by(table.c.id)
    if selection.job_id is not None:
        _needs(connection, select(job.c.id).where(job.c.id == selection.job_id), selection)
        return connection.execute(query.where(table.c.job_id == selection.job_id)).all()
    if selection.study_uid:
        _needs(connection, select(exam.c.id).where(exam.c.study_uid == selection.study_uid), selection)
        is_it = (exam.c.study_uid == selection.study_uid) | (table.c.study_uid == selection.study_uid)
        return connection.execute(query.where(is_it)).all()
    ids = _subjects(selection)
    _needs(connection, ids, selection)
    exams = select(trials.visit.c.exam_id).where(trials.visit.c.subject_id.in_(ids))
    reports = select(trials.subject_report.c.id).where(trials.subject_report.c.subject_id.in_(ids))
    is_exam = exam.c.id.in_(exams) & table.c.report_id.is_(None)
    return connection.execute(query.where(is_exam | table.c.report_id.in_(reports))).all()


def _all_of(connection: Connection, selection: Selection) -> list[tuple[tuple[str, int], str]]:
    """The analyses of a selection, and their studies."""
    job, exam = db.job, db.exam
    query = select(job.c.id, exam.c.study_uid).join(exam, exam.c.id == job.c.exam_id).order_by(job.c.id)
    query = query.where(job.c.state != str(JobState.SUPERSEDED))
    if selection.job_id is not None:
        query = query.where(job.c.id == selection.job_id)
    elif selection.study_uid:
        query = query.where(exam.c.study_uid == selection.study_uid)
    else:
        visit = trials.visit
        query = query.where(exam.c.id.in_(select(visit.c.exam_id).where(visit.c.subject_id.in_(_subjects(selection)))))
    return [(("job", row.id), row.study_uid) for row in connection.execute(query).all()]


def _subjects(selection: Selection) -> Select[Any]:
    subject, trial = trials.subject, trials.trial
    ids = select(subject.c.id).join(trial, trial.c.id == subject.c.trial_id)
    ids = ids.where(subject.c.subject_id == selection.subject) if selection.subject else ids
    return ids.where(trial.c.protocol_id == selection.trial) if selection.trial else ids


def _needs(connection: Connection, query: Any, selection: Selection) -> None:
    if connection.execute(query.limit(1)).first() is None:
        raise NothingThere(f"there is no {selection}")
