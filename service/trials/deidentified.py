"""De-identified copies of results, for destinations that get nothing else: made when it is known whose an exam is.

Until then nothing of the exam is put down for such a destination, and what is put down points to copies. A worker
makes them while no exam waits for it. They lie beside the results; the same result gives the same copies.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update

from config.deidentification import read_key
from config.protocol_cards import load_cards
from config.settings import Destination, ObjectKind, Settings, SettingsError
from dicom_io.deidentified_files import deidentified_bytes, keeping_of
from dicom_io.identity_words import identity_words
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity
from dicom_io.raw_header import parse, quiet_pydicom
from dicom_io.result_objects import needed_by
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Verdict
from service import database as db
from service import trial_tables as trials
from service.database import Database
from service.failure_text import describe_failure
from service.holds import hold_copies_sent_before, holds_for, release_for, take_place
from service.job_records import exam_folder
from service.outbox import Parcel, put_in_outbox
from service.reports import stored_document
from service.signatures import COPIES
from service.states import VisitState
from service.trials.deidentified_document import deidentified_pdf
from service.trials.registry import Trial, trials_of
from service.trials.trial_identity import identity_in

_log = logging.getLogger(__name__)

FOLDER = COPIES
_LEASE_S = 600.0
_MOST_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class _Due:
    """A result whose copies are to be made. ``subject_row``: number of the subject."""

    trial: Trial
    job_id: int
    exam_id: int
    version: int
    calling_ae: str
    protocol: str
    verdict: str
    subject_row: int
    subject_id: str
    site_id: str
    visit: str
    attempts: int

    @property
    def folder(self) -> Path:
        """Of the result, relative to the storage folder."""
        return exam_folder(self.exam_id) / f"v{self.version}"


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy that was made. ``path`` is relative to the storage folder."""

    kind: ObjectKind
    needed_by: tuple[ObjectKind, ...]
    sop_uid: str
    path: Path

    def goes_with(self, destination: Destination) -> bool:
        """Whether a destination receives it."""
        return any(kind in destination.objects for kind in (self.kind, *self.needed_by))


def make_next_copies(database: Database, settings: Settings, now: datetime) -> bool:
    """Make the copies of one result that counts for a visit; False if none is due. What goes wrong is on record."""
    destinations = tuple(one for one in settings.destinations if one.deidentify)
    if settings.trials_dir is None or not destinations:
        return False
    due = _claim(database, destinations, now)
    if due is None:
        return False
    try:
        copies = _make(settings, due)
    except UnsuitableInput as refusal:
        _note_failure(database, due, refusal.reason.code, refusal.reason.detail, now)
    except SettingsError as error:
        _note_failure(database, due, ReasonCode.REVIEW_REQUIRED, str(error), now)
    except Exception as error:  # noqa: BLE001 - of the worker loop: a bug in one copy must not stop the analyses
        _note_failure(database, due, ReasonCode.INTERNAL, describe_failure(error), now)
    else:
        n_parcels = _put_down(database, settings, due, copies, destinations, now)
        facts = {"job": due.job_id, "objects": len(copies), "deliveries": n_parcels}
        _log.info("de-identified copies made", extra=facts)
    return True


def list_copies(database: Database) -> list[Any]:
    """The rows of ``trial_copy`` with their subjects' IDs, oldest first."""
    copy, subject = trials.deidentified, trials.subject
    query = select(copy, subject.c.subject_id.label("subject")).join(subject, subject.c.id == copy.c.subject_id)
    with database.read() as connection:
        return list(connection.execute(query.order_by(copy.c.id)).all())


def _claim(database: Database, destinations: Sequence[Destination], now: datetime) -> _Due | None:
    """The oldest due result; other workers leave it alone for a while."""
    names = {one.name for one in destinations}
    with database.read() as connection:
        wanted = {one.id: one for one in trials_of(connection) if names & set(one.plan.destinations)}
        if not wanted or _first_due(connection, wanted, now) is None:
            return None
    with database.write() as connection:
        row = _first_due(connection, wanted, now)
        if row is None:
            return None
        table = trials.deidentified
        values = {
            "subject_id": row.subject_row,
            "visit": row.visit,
            "attempts": (row.attempts or 0) + 1,
            "not_before": now + timedelta(seconds=_LEASE_S),
            "made_at": None,
            "code": None,
            "detail": None,
        }
        if row.copy_id is None:
            connection.execute(insert(table).values(job_id=row.job_id, **values))
        else:
            connection.execute(update(table).where(table.c.id == row.copy_id).values(**values))
    return _Due(
        trial=wanted[row.trial_id],
        job_id=row.job_id,
        exam_id=row.exam_id,
        version=row.version,
        calling_ae=row.calling_ae,
        protocol=row.protocol,
        verdict=row.verdict,
        subject_row=row.subject_row,
        subject_id=row.subject_id,
        site_id=row.site_id,
        visit=row.visit,
        attempts=values["attempts"],
    )


def _first_due(connection: Connection, wanted: dict[int, Trial], now: datetime) -> Any:
    visit, subject, copy, job = trials.visit, trials.subject, trials.deidentified, db.job
    is_other: ColumnElement[bool] = or_(copy.c.subject_id != subject.c.id, copy.c.visit != visit.c.name)
    is_open = and_(copy.c.made_at.is_(None), copy.c.not_before <= now)
    query = (
        select(
            *(visit.c.job_id, visit.c.name.label("visit"), subject.c.id.label("subject_row")),
            *(subject.c.subject_id, subject.c.site_id, subject.c.trial_id, copy.c.id.label("copy_id")),
            *(copy.c.attempts, job.c.exam_id, job.c.version, job.c.calling_ae, job.c.protocol, job.c.verdict),
        )
        .join(subject, subject.c.id == visit.c.subject_id)
        .join(job, job.c.id == visit.c.job_id)
        .outerjoin(copy, copy.c.job_id == visit.c.job_id)
        .where(visit.c.state == str(VisitState.MEASURED), subject.c.trial_id.in_(wanted))
        .where(or_(copy.c.id.is_(None), is_other, is_open))
        .order_by(visit.c.id)
        .limit(1)
    )
    return connection.execute(query).first()


def _make(settings: Settings, due: _Due) -> tuple[_Copy, ...]:
    """The copies, in a folder that appears whole.

    Raises:
        UnsuitableInput: something cannot be de-identified.
        SettingsError: the trial's key cannot be used, or the plan does not know the subject, visit or site.
    """
    plan = due.trial.plan
    if plan.deidentification.key_file is None:
        raise SettingsError(f"trial {plan.protocol_id}: deidentification.key_file: is not set")
    key = read_key(plan.deidentification.key_file)
    identity = identity_in(plan, due.subject_id, due.visit, due.site_id)
    keeping = keeping_of(plan.deidentification, load_cards(settings.protocols_dir))
    folder = settings.storage_dir / due.folder
    partial = folder / f".{FOLDER}.{due.attempts}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        copies = []
        objects = json.loads((folder / "result.json").read_text(encoding="utf-8"))["objects"]
        for one in sorted(objects, key=lambda one: one["kind"] != ObjectKind.PDF):  # what may be refused comes first
            kind, path = ObjectKind(one["kind"]), folder / one["path"]
            content = path.read_bytes()
            pdf = _report(folder, content, identity, key) if kind is ObjectKind.PDF else None
            made, header = deidentified_bytes(content, identity, key, keeping=keeping, is_own=True, document=pdf)
            uid = str(header.SOPInstanceUID)
            _write(partial / f"{uid}.dcm", made)
            copies.append(_Copy(kind, needed_by(kind, path), uid, due.folder / FOLDER / f"{uid}.dcm"))
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # made as another subject's or visit's
        os.replace(partial, folder / FOLDER)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return tuple(copies)


def _report(folder: Path, content: bytes, identity: TrialIdentity, key: bytes) -> bytes:
    """The report rendered without identity.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, a report of which only the PDF is there: it was made before there was a
            destination that takes de-identified copies.
    """
    path = folder / stored_document.FILE_NAME
    if not path.is_file():
        text = f"{stored_document.FILE_NAME} is not there: the exam must be analysed again (discnode jobs reprocess)"
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text)
    document = stored_document.from_json(path.read_text(encoding="utf-8"))
    source = parse(content)
    with quiet_pydicom():
        words = identity_words(source)
    pseudonyms = Pseudonyms(key, identity.protocol_id, identity.subject_id)
    return deidentified_pdf(document, identity, pseudonyms, words)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _put_down(
    database: Database,
    settings: Settings,
    due: _Due,
    copies: Sequence[_Copy],
    destinations: Sequence[Destination],
    now: datetime,
) -> int:
    """Put the copies on their way, as the rules of release have it, and note that they are made.

    Nothing of it where the exam is not that subject's visit any more: they are made anew when it is known whose it is.
    """
    table = trials.deidentified
    with database.write() as connection:
        warnings = _warnings_now(connection, due)
        if warnings is None:
            return 0
        parcels = _parcels(settings, due, copies, destinations, warnings)
        put_in_outbox(connection, due.job_id, parcels, now)
        take_place(connection, due.job_id, now)
        hold_copies_sent_before(connection, due.job_id, now)
        values = {"made_at": now, "n_objects": len(copies)}
        connection.execute(update(table).where(table.c.job_id == due.job_id).values(**values))
    return len(parcels)


def _warnings_now(connection: Connection, due: _Due) -> tuple[str, ...] | None:
    """What is to be checked of the visit, as the trial's desk says it of the result; None where it is none any more."""
    visit, result = trials.visit, trials.trial_result
    query = select(visit.c.deviations, result.c.reasons).outerjoin(result, result.c.job_id == visit.c.job_id)
    is_it = (visit.c.subject_id == due.subject_row, visit.c.name == due.visit, visit.c.job_id == due.job_id)
    row = connection.execute(query.where(*is_it, visit.c.state == str(VisitState.MEASURED))).first()
    if row is None:
        return None
    reasons = tuple(f"{one['code']}: {one['detail']}" for one in row.reasons or ())
    return (*reasons, *(str(one["text"]) for one in row.deviations or ()))


def _parcels(
    settings: Settings,
    due: _Due,
    copies: Sequence[_Copy],
    destinations: Sequence[Destination],
    warnings: Sequence[str],
) -> list[Parcel]:
    plan = due.trial.plan
    parcels: list[Parcel] = []
    facts = {"calling_ae": due.calling_ae, "protocol": due.protocol}
    for destination in destinations:
        if destination.name not in plan.destinations:
            continue
        rule = release_for(settings, **facts, trial=plan, destination=destination.name)
        verdict, name = Verdict(due.verdict), destination.name
        holds = holds_for(settings, **facts, verdict=verdict, trial=plan, destination=name, warnings=warnings)
        parcels += [
            Parcel(one.sop_uid, str(one.kind), str(one.path), name, holds, rule)
            for one in copies
            if one.goes_with(destination)
        ]
    return parcels


def _note_failure(database: Database, due: _Due, code: ReasonCode, detail: str, now: datetime) -> None:
    """It is tried again, ever more rarely; until then nothing of it goes to these destinations."""
    wait_s = min(_LEASE_S * 2 ** (due.attempts - 1), _MOST_WAIT_S)
    table = trials.deidentified
    values = {"code": str(code), "detail": detail, "not_before": now + timedelta(seconds=wait_s)}
    with database.write() as connection:
        connection.execute(update(table).where(table.c.job_id == due.job_id).values(**values))
    facts = {"job": due.job_id, "code": str(code), "attempt": due.attempts}
    _log.error("not de-identified; nothing goes to destinations that take only copies", extra=facts)
