"""Which studies make up an exam: an anonymiser may give each spin-lock time a study of its own."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from dicom_io.headers import NO_PATIENT_KEY
from service import database as db
from service.database import move
from service.states import ExamState


@dataclass(frozen=True, slots=True)
class Fragment:
    """Another exam that may be a part of one that is not whole."""

    exam_id: int
    study_uid: str
    last_arrival_at: datetime
    is_refused: bool


def note_subject(connection: Connection, study_uid: str, patient_key: str, study_date: str) -> None:
    """Remember whose exam it is and of which day, as its first image says; inside the caller's transaction."""
    if not 0 < len(study_date) <= 64 or patient_key in ("", NO_PATIENT_KEY):
        return
    table = db.exam
    is_unknown = (table.c.study_uid == study_uid) & table.c.patient_key.is_(None)
    connection.execute(update(table).where(is_unknown).values(patient_key=patient_key, study_date=study_date))


def fragments_beside(connection: Connection, exam_id: int, patient_key: str, study_date: str) -> list[Fragment]:
    """Other exams of the subject on that day that wait, or could not be measured alone; oldest first."""
    table = db.exam
    waits = table.c.state.in_([str(ExamState.COLLECTING), str(ExamState.INCOMPLETE)])
    never_analysed = (table.c.state == str(ExamState.REFUSED)) & (table.c.version == 0)
    query = (
        select(table.c.id, table.c.study_uid, table.c.state, table.c.last_arrival_at)
        .where(
            table.c.patient_key == patient_key,
            table.c.study_date == study_date,
            table.c.id != exam_id,
            waits | never_analysed,
        )
        .order_by(table.c.id)
    )
    return [
        Fragment(row.id, row.study_uid, row.last_arrival_at, row.state == ExamState.REFUSED)
        for row in connection.execute(query)
    ]


def join(connection: Connection, exam_id: int, owner_id: int) -> None:
    """Measure an exam's images with those of another exam, inside the caller's transaction."""
    table = db.exam
    state = connection.execute(select(table.c.state).where(table.c.id == exam_id)).scalar_one()
    if state != ExamState.COLLECTING:
        move(connection, table, exam_id, ExamState.COLLECTING)
    detail = f"measured with exam {owner_id}"
    move(connection, table, exam_id, ExamState.JOINED, joined_to=owner_id, has_news=False, detail=detail)


def reopen(connection: Connection, exam_id: int, arrived_at: datetime | None = None) -> None:
    """There is news of an exam: it is judged again, and so are all that were measured with it.

    Inside the caller's transaction. Whether they are joined again is found out anew; until then all of them wait.

    Args:
        connection: of the transaction.
        exam_id: any of them.
        arrived_at: when an image came, if that is the news.
    """
    table = db.exam
    owner = connection.execute(select(table.c.joined_to).where(table.c.id == exam_id)).scalar_one() or exam_id
    group = select(table.c.id, table.c.state).where((table.c.id == owner) | (table.c.joined_to == owner))
    for row in connection.execute(group).all():
        if row.state == ExamState.JOINED:
            move(connection, table, row.id, ExamState.COLLECTING, detail="")
        elif row.state != ExamState.COLLECTING:
            move(connection, table, row.id, ExamState.COLLECTING)
        times = {} if arrived_at is None else {"last_arrival_at": arrived_at}
        connection.execute(update(table).where(table.c.id == row.id).values(has_news=True, joined_to=None, **times))
