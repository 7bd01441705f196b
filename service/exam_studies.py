"""Which studies make up an exam: an anonymiser may give each spin-lock time a study of its own."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update

from service import database as db
from service.database import move
from service.states import ExamState


@dataclass(frozen=True, slots=True)
class Fragment:
    """Another exam that may be a part of one that is not whole."""

    exam_id: int
    study_uid: str
    last_arrival_at: datetime


def note_subject(connection: Connection, exam_id: int, patient_key: str, study_date: str) -> None:
    """Remember whose exam it is and of which day, inside the caller's transaction."""
    connection.execute(
        update(db.exam).where(db.exam.c.id == exam_id).values(patient_key=patient_key, study_date=study_date)
    )


def fragments_beside(connection: Connection, exam_id: int, patient_key: str, study_date: str) -> list[Fragment]:
    """Other exams of the subject on that day that are not whole, oldest first."""
    table = db.exam
    query = (
        select(table.c.id, table.c.study_uid, table.c.last_arrival_at)
        .where(
            table.c.patient_key == patient_key,
            table.c.study_date == study_date,
            table.c.id != exam_id,
            table.c.state.in_([str(ExamState.COLLECTING), str(ExamState.INCOMPLETE)]),
        )
        .order_by(table.c.id)
    )
    return [Fragment(row.id, row.study_uid, row.last_arrival_at) for row in connection.execute(query)]


def join(connection: Connection, exam_id: int, owner_id: int) -> None:
    """Measure an exam's images with those of another exam, inside the caller's transaction."""
    table = db.exam
    state = connection.execute(select(table.c.state).where(table.c.id == exam_id)).scalar_one()
    if state != ExamState.COLLECTING:
        move(connection, table, exam_id, ExamState.COLLECTING)
    detail = f"measured with exam {owner_id}"
    move(connection, table, exam_id, ExamState.JOINED, joined_to=owner_id, has_news=False, detail=detail)


def reopen(connection: Connection, exam_id: int) -> None:
    """There is news of an exam: it is judged again, and so are all that were measured with it.

    Inside the caller's transaction. Whether they are joined again is found out anew.
    """
    table = db.exam
    owner = connection.execute(select(table.c.joined_to).where(table.c.id == exam_id)).scalar_one() or exam_id
    group = select(table.c.id, table.c.state).where((table.c.id == owner) | (table.c.joined_to == owner))
    for row in connection.execute(group).all():
        if row.state == ExamState.JOINED:
            move(connection, table, row.id, ExamState.COLLECTING, detail="")
        elif row.state != ExamState.COLLECTING:
            move(connection, table, row.id, ExamState.COLLECTING)
        connection.execute(update(table).where(table.c.id == row.id).values(has_news=True, joined_to=None))
