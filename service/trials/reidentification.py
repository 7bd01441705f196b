"""Who a pseudonym is: asked by a person, with a reason, recorded before it is answered; impossible without the key.

The node keeps no table of identities: with the key it maps the UIDs of its own record forward and compares. What was
received stays the only place where an identity stands.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import insert, select

from dicom_io.pseudonyms import Pseudonyms, key_name
from dicom_io.raw_header import RawHeader, parse
from processing.refusal import UnsuitableInput
from service import database as db
from service import trial_tables as trials
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.exam_groups import studies_of
from service.trials.pseudonym_table import read_rows


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: of a subject, or of a UID."""

    protocol_id: str
    subject_id: str
    uid: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class _Known:
    """An object of the node's record. ``path``: in the inbox."""

    study_uid: str
    series_uid: str
    sop_uid: str
    path: str


def reidentify(database: Database, request: Request, key: bytes, table: Path | None, now: datetime) -> tuple[str, ...]:
    """Lines that say what is known; empty if nothing is. The request is on record before anything is looked up.

    Raises:
        SettingsError: the table cannot be used.
    """
    _record(database, request, key, now)
    pseudonyms = Pseudonyms(key, request.protocol_id, request.subject_id)
    known = _of_subject(database, request) if request.subject_id else _of_uid(database, request.uid, pseudonyms)
    lines = {_line(database, one) for one in known}
    rows = () if table is None else tuple(read_rows(table))
    for row in rows:
        is_subject = request.subject_id and row["subject_id"] == request.subject_id
        is_uid = request.uid and request.uid in (
            *(row["deidentified_study_uid"], row["deidentified_series_uid"], row["deidentified_sop_instance_uid"]),
        )
        if row["protocol_id"] == request.protocol_id and (is_subject or is_uid):
            lines.add(f"PatientID {row['patient_id']}, study {row['study_uid']}, visit {row['visit']} (table)")
    if request.subject_id:
        days = -pseudonyms.shift.days
        lines.add(f"dates of {request.subject_id} were shifted by {days} days: add them")
    return tuple(sorted(lines))


def _record(database: Database, request: Request, key: bytes, now: datetime) -> None:
    what = f"subject {request.subject_id}" if request.subject_id else f"UID {request.uid[:64]}"
    content = f"{request.protocol_id}\n{what}\n{key_name(key)}"
    with database.write() as connection:
        connection.execute(
            insert(trials.signature).values(
                subject_of="identity",
                subject_key=0,
                decision="reidentified",
                meaning=f"asked who {what} of {request.protocol_id} is",
                reason=request.reason,
                signed_by=request.by,
                signed_at=now,
                content_sha256=hashlib.sha256(content.encode()).hexdigest(),
            )
        )
        detail = f"re-identification of {what} of trial {request.protocol_id} asked"
        note(connection, AuditEvent(AuditKind.REIDENTIFIED, now, by=request.by, detail=detail))


def _of_subject(database: Database, request: Request) -> tuple[_Known, ...]:
    """One object of each study of the subject's visits."""
    visit, subject, trial = trials.visit, trials.subject, trials.trial
    query = (
        select(visit.c.exam_id)
        .join(subject, subject.c.id == visit.c.subject_id)
        .join(trial, trial.c.id == subject.c.trial_id)
        .where(trial.c.protocol_id == request.protocol_id, subject.c.subject_id == request.subject_id)
    )
    table = db.instance
    columns = (table.c.study_uid, table.c.series_uid, table.c.sop_uid, table.c.path)
    found: list[_Known] = []
    with database.read() as connection:
        for exam_id in connection.execute(query).scalars():
            rows = connection.execute(select(*columns).where(table.c.study_uid.in_(studies_of(exam_id))).limit(1))
            found.extend(_Known(*row) for row in rows)
    return tuple(found)


def _of_uid(database: Database, uid: str, pseudonyms: Pseudonyms) -> tuple[_Known, ...]:
    """The first object whose UID, or whose study's or series', becomes the one asked for."""
    table, deliveries = db.instance, db.delivery
    mapped: dict[str, bool] = {}
    with database.read() as connection:
        for row in connection.execute(select(table.c.study_uid, table.c.series_uid, table.c.sop_uid, table.c.path)):
            for one in row[:3]:
                if one not in mapped:
                    mapped[one] = pseudonyms.uid(one) == uid
                if mapped[one]:
                    return (_Known(*row),)
        results = select(deliveries.c.job_id).where(deliveries.c.sop_uid == uid).limit(1)
        job = connection.execute(results).scalar()
        if job is None:
            return ()
        exam = connection.execute(select(db.job.c.exam_id).where(db.job.c.id == job)).scalar()
        rows = select(table.c.study_uid, table.c.series_uid, table.c.sop_uid, table.c.path)
        found = connection.execute(rows.where(table.c.study_uid.in_(studies_of(exam or 0))).limit(1)).first()
    return () if found is None else (_Known(*found),)


def _line(database: Database, known: _Known) -> str:
    try:
        header = RawHeader(parse((database.inbox_dir / known.path).read_bytes()))
    except (OSError, UnsuitableInput):
        return f"study {known.study_uid}; its images are no longer here"
    return f"PatientID {header.text('PatientID')}, study {known.study_uid} of {header.text('StudyDate')}"
