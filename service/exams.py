"""The exams that the node knows, as a person looks at them: how far each one is, and what it waits for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from service import database as db
from service.database import Database
from service.states import ExamState, InstanceState


@dataclass(frozen=True, slots=True)
class ExamItem:
    """One exam. ``detail``: what it waits for, or why it is not analysed, such as "98/100 images: missing ..."."""

    id: int
    study_uid: str
    state: ExamState
    detail: str
    version: int
    n_objects: int
    first_arrival_at: datetime
    last_arrival_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """For printing as JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def list_exams(database: Database, *, only_waiting: bool = False) -> list[ExamItem]:
    """All exams, oldest first; or only those that have not come to an end."""
    exam, instance = db.exam, db.instance
    n_objects = (
        select(func.count(instance.c.sop_uid.distinct()))
        .where(instance.c.study_uid == exam.c.study_uid, instance.c.state != str(InstanceState.SET_ASIDE))
        .scalar_subquery()
    )
    query = select(exam, n_objects.label("n_objects")).order_by(exam.c.id)
    if only_waiting:
        waiting = (ExamState.COLLECTING, ExamState.INCOMPLETE, ExamState.HELD)
        query = query.where(exam.c.state.in_([str(one) for one in waiting]))
    with database.read() as connection:
        return [
            ExamItem(
                id=row.id,
                study_uid=row.study_uid,
                state=ExamState(row.state),
                detail=(row.awaiting if row.state == ExamState.COLLECTING else row.detail) or "",
                version=row.version,
                n_objects=row.n_objects,
                first_arrival_at=row.first_arrival_at,
                last_arrival_at=row.last_arrival_at,
            )
            for row in connection.execute(query)
        ]
