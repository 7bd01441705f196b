"""Blinded readings: a reader sees one visit at a time, in a random order of their own, under a reading ID.

Nobody's next visit can be told from the ones before: the order is drawn for each reader, some visits come twice, and
the copies tell neither subject nor visit. What a reader draws comes back to its exam as a correction. Of a visit that
is read again it is kept beside, to tell how far a reader agrees with themselves, and is not measured.
"""

import base64
import hmac
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from config.deidentification import read_key, write_new_key
from config.settings import ObjectKind
from dicom_io.inbox import Inbox
from dicom_io.raw_header import RawHeader, parse
from dicom_io.reading_copies import copied_uids, reading_copy, restored_segmentation, uids_in
from dicom_io.received import ReceivedInstance
from service import database as db
from service import trial_tables as trials
from service.arrivals import open_ledger
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.job_records import Job, exam_folder, read_job
from service.own_results import own_objects
from service.states import JobState, VisitState

#: Calling AE title of discs that come back from a reading, as ``corrections.accepted_from`` knows it.
READING_AE = "READING"


class NoReading(Exception):
    """There is nothing to read, or not what was asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A visit as a reader sees it. ``place``: in the reader's order, from 1."""

    id: int
    visit_id: int
    reader: str
    reading_id: str
    place: int
    is_repeat: bool
    opened_at: datetime | None
    done_at: datetime | None


def assign(database: Database, protocol_id: str, reader: str, *, repeat_share: float, seed: int) -> int:
    """Put the measured visits of a trial that a reader does not have yet in a random order behind those they have.

    A share of the new ones comes twice. The same seed gives the same order; reading IDs are random all the same, for
    who knows the seed must not know them. Returns how many readings were added.

    Raises:
        NoReading: there is no such trial.
        ValueError: the share is not between 0 and 1, or the reader has no name.
    """
    if not 0.0 <= repeat_share <= 1.0:
        raise ValueError(f"a share lies between 0 and 1, not {repeat_share}")
    if not reader.strip() or len(reader) > 64:
        raise ValueError("a reader has a name of at most 64 characters")
    visit, subject, trial, table = trials.visit, trials.subject, trials.trial, trials.reading
    now = datetime.now(UTC)
    with database.write() as connection:
        trial_id = connection.execute(select(trial.c.id).where(trial.c.protocol_id == protocol_id)).scalar()
        if trial_id is None:
            raise NoReading(f"no trial {protocol_id!r} is registered here")
        of_trial = select(visit.c.id).join(subject, subject.c.id == visit.c.subject_id)
        known = select(table.c.visit_id).where(table.c.reader == reader)
        measured = (subject.c.trial_id == trial_id, visit.c.state == str(VisitState.MEASURED))
        query = of_trial.where(*measured, visit.c.id.not_in(known)).order_by(visit.c.id)
        new = list(connection.execute(query).scalars())
        last = connection.execute(select(func.max(table.c.place)).where(table.c.reader == reader)).scalar() or 0
        order = reading_order(new, repeat_share, seed)
        for place, (visit_id, is_repeat) in enumerate(order, last + 1):
            values = {"visit_id": visit_id, "reader": reader, "reading_id": _new_id(), "place": place}
            connection.execute(insert(table).values(**values, is_repeat=is_repeat))
        detail = f"{len(order)} readings assigned, {len(order) - len(new)} of them again; seed {seed}"
        note(connection, AuditEvent(AuditKind.TRIAL, now, by=reader, detail=detail))
        return len(order)


def reading_order(visits: Sequence[int], repeat_share: float, seed: int) -> list[tuple[int, bool]]:
    """Visits in random order, some of them (rounded) a second time, always after the first; (visit, is a repeat)."""
    chance = random.Random(seed)
    again = chance.sample(list(visits), round(repeat_share * len(visits)))
    order = [*visits, *again]
    chance.shuffle(order)
    seen: set[int] = set()
    found = []
    for one in order:
        found.append((one, one in seen))
        seen.add(one)
    return found


def _new_id() -> str:
    return f"R-{base64.b32encode(secrets.token_bytes(5)).decode()}"


def list_readings(database: Database, reader: str = "") -> list[Reading]:
    """Readings in the readers' orders; of one reader, or of all."""
    table = trials.reading
    query = select(table).order_by(table.c.reader, table.c.place)
    with database.read() as connection:
        rows = connection.execute(query if not reader else query.where(table.c.reader == reader)).all()
    return [_record_of(row) for row in rows]


def export_next(database: Database, reader: str, out: Path) -> Reading:
    """Write the images and the automatic discs of a reader's next visit into a new folder, and note that it is open.

    While a reading is open it is that one again: one visit at a time. The discs are the automatic ones, also where
    another reader's are measured by now, so that readings are independent.

    Raises:
        NoReading: all are done, or the visit's images or result are no longer here.
        FileExistsError: the folder is not empty.
        UnsuitableInput: the images cannot be de-identified.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: is not empty")
    reading = next((one for one in list_readings(database, reader) if one.done_at is None), None)
    if reading is None:
        raise NoReading(f"{reader} has nothing left to read")
    protocol_id, job = _visit_of(database, reading)
    key = _key_of(database, reading)
    images = _images_of(database, job)
    files = [(path, False) for path in images] + [(path, True) for path in _automatic_discs(database, job)]
    made = {}
    for number, (path, is_own) in enumerate(files, 1):
        copy = reading_copy(path.read_bytes(), protocol_id, reading.reading_id, key, is_own=is_own)
        made[f"discs-{number:04d}.dcm" if is_own else f"image-{number:04d}.dcm"] = copy
    out.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (out / name).write_bytes(content)
    now = datetime.now(UTC)
    with database.write() as connection:
        table = trials.reading
        is_new = (table.c.id == reading.id, table.c.opened_at.is_(None))
        connection.execute(update(table).where(*is_new).values(opened_at=now))
        detail = f"reading {reading.reading_id}: {len(images)} images"
        note(connection, AuditEvent(AuditKind.EXPORTED, now, by=reader, studies=(job.study_uid,), detail=detail))
    return reading


def finish(database: Database, reader: str, reading_id: str, segmentation: Path | None) -> str:
    """A reader is done with a reading, with discs of their own or content with those there were; says what follows.

    The discs go to the exam as a correction (:mod:`service.corrections`), as if they had been sent. Of a repeated
    reading they are kept beside.

    Raises:
        NoReading: it is not the reader's open reading, or its images are no longer here.
        UnsuitableInput: the file is no segmentation of this reading.
        OSError: it cannot be read, or kept.
    """
    found = [one for one in list_readings(database, reader) if one.reading_id == reading_id]
    if not found or found[0].opened_at is None or found[0].done_at is not None:
        raise NoReading(f"{reading_id} is no open reading of {reader}")
    (reading,) = found
    said = "the discs stay as they are"
    if segmentation is not None:
        said = _take_back(database, reading, segmentation.read_bytes())
    now = datetime.now(UTC)
    with database.write() as connection:
        connection.execute(update(trials.reading).where(trials.reading.c.id == reading.id).values(done_at=now))
        detail = f"reading {reading.reading_id} done: {said}"
        note(connection, AuditEvent(AuditKind.TRIAL, now, by=reader, detail=detail))
    return said


def _take_back(database: Database, reading: Reading, content: bytes) -> str:
    protocol_id, job = _visit_of(database, reading)
    image = _images_of(database, job)[0].read_bytes()
    uids = _uids_of(database, job)
    originals = copied_uids(uids, protocol_id, reading.reading_id, _key_of(database, reading))
    restored = restored_segmentation(content, originals, image)
    if reading.is_repeat:
        folder = database.storage_dir / "readings" / reading.reading_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "discs.dcm").write_bytes(restored)
        return "read again: the discs are kept beside and not measured"
    header = RawHeader(parse(restored))
    stored = Inbox(database.inbox_dir).store((restored,))
    received = ReceivedInstance(
        sop_class_uid=header.text("SOPClassUID"),
        sop_instance_uid=header.text("SOPInstanceUID"),
        study_uid=header.text("StudyInstanceUID"),
        series_uid=header.text("SeriesInstanceUID"),
        transfer_syntax=str(header.dataset.file_meta.TransferSyntaxUID),
        name=stored.name,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        has_pixels=True,
        calling_ae=READING_AE,
        received_at=datetime.now(UTC),
    )
    open_ledger(database).record(received)
    return "the discs go to the exam, to be measured"


def _uids_of(database: Database, job: Job) -> set[str]:
    found: set[str] = set()
    for path in [*_images_of(database, job), *_automatic_discs(database, job)]:
        found |= uids_in(path.read_bytes())
    return found


def _key_of(database: Database, reading: Reading) -> bytes:
    """The key of one reading, which follows from the node's."""
    path = database.storage_dir / "readings.key"
    if not path.exists():
        write_new_key(path)
    return hmac.digest(read_key(path), reading.reading_id.encode(), "sha256")


def _visit_of(database: Database, reading: Reading) -> tuple[str, Job]:
    """The trial, and the result of the reading's visit."""
    visit, subject, trial = trials.visit, trials.subject, trials.trial
    query = select(visit.c.job_id, trial.c.protocol_id).join(subject, subject.c.id == visit.c.subject_id)
    query = query.join(trial, trial.c.id == subject.c.trial_id).where(visit.c.id == reading.visit_id)
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
        job = None if row is None or row.job_id is None else read_job(connection, row.job_id)
    if row is None or job is None:
        raise NoReading(f"the visit of {reading.reading_id} has no result any more")
    return str(row.protocol_id), job


def _images_of(database: Database, job: Job) -> list[Path]:
    paths = [database.inbox_dir / name for name in job.inputs]
    if not paths or not all(path.is_file() for path in paths):
        raise NoReading("the visit's images are no longer here")
    return paths


def _automatic_discs(database: Database, job: Job) -> list[Path]:
    """The segmentations of the newest version that is no person's; of the visit's own result where there is none."""
    table = db.job
    newest = select(func.max(table.c.version)).where(
        table.c.exam_id == job.exam_id, table.c.state == str(JobState.DONE), table.c.correction.is_(None)
    )
    with database.read() as connection:
        version = connection.execute(newest).scalar() or job.version
    found = own_objects(database.storage_dir / exam_folder(job.exam_id))
    return [one.path for one in found if one.version == version and one.kind is ObjectKind.SEG and one.path.is_file()]


def _record_of(row: Row[Any]) -> Reading:
    return Reading(**{name: row._mapping[name] for name in Reading.__slots__})
