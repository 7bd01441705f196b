"""Rejection notes for what was recalled: one for each study at each destination, sent as results are."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from config.settings import Settings
from dicom_io.rejection_note import PATIENT_SAFETY, QUALITY, write_rejection_note
from service import database as db
from service.database import Database
from service.deliveries import Delivery, record_of
from service.outbox import REJECTION_NOTE as KIND
from service.outbox import Parcel, put_in_outbox
from service.recall import SentList
from service.signatures import RejectCode

#: Coded reasons for which an object must not be seen at all; of the others it is bad, and of the right patient.
_OF_SAFETY = frozenset(
    {RejectCode.WRONG_SUBJECT, RejectCode.WRONG_VISIT, RejectCode.IDENTIFIERS_FOUND, RejectCode.PATIENT_SAFETY}
)


def put_rejection_notes(
    database: Database, settings: Settings, recalled: SentList, code: str, now: datetime
) -> tuple[int, int]:
    """Make the notes and put them on their way to the destinations that are in the settings still.

    Returns how many there are, and for how many studies at destinations none could be made: where no file of the study
    as the destination has it is here any more, nobody can say whose it is.
    """
    title = PATIENT_SAFETY if code in _OF_SAFETY else QUALITY
    known = {one.name for one in settings.destinations}
    n_made = n_lacking = 0
    for destination, study in sorted({(one["destination"], one["study_instance_uid"]) for one in recalled.sent}):
        of_it = {
            one["sop_instance_uid"]
            for one in recalled.sent
            if (one["destination"], one["study_instance_uid"]) == (destination, study) and one["kind"] != KIND
        }
        rows = _rows(database, destination, of_it)
        objects = [one.sent_object for one in rows if one.sent_object is not None]
        file = next((path for one in rows if (path := database.storage_dir / one.path).is_file()), None)
        if destination not in known or not objects or file is None:
            n_lacking += bool(of_it)
            continue
        folder = Path("rejections") / f"job-{rows[0].job_id:06d}"
        (database.storage_dir / folder).mkdir(parents=True, exist_ok=True)
        path = folder / f"{destination}-{now:%Y%m%dT%H%M%S%f}-{rows[0].id}.dcm"
        note = write_rejection_note(objects, file, title, now, database.storage_dir / path)
        if note is None:
            n_lacking += 1
            continue
        with database.write() as connection:
            put_in_outbox(
                connection, rows[0].job_id, [Parcel(note.sop_instance_uid, KIND, str(path), destination)], now
            )
        n_made += 1
    return n_made, n_lacking


def _rows(database: Database, destination: str, sop_uids: set[str]) -> Sequence[Delivery]:
    table = db.delivery
    query = select(table).where(table.c.destination == destination, table.c.sop_uid.in_(sop_uids)).order_by(table.c.id)
    with database.read() as connection:
        return [record_of(row) for row in connection.execute(query).all()]
