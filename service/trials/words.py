"""What people said of an exam: whose it is, which visit, that it does not count, or that a doubt is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from service import trial_tables as db


@dataclass(frozen=True, slots=True)
class Words:
    """Empty where nobody said anything. ``accepted``: kinds of doubt that a person lets pass, with why."""

    trial_id: int | None = None
    subject_id: str = ""
    visit: str = ""
    set_aside: bool = False
    not_evaluable: str = ""
    accepted: Mapping[str, str] = field(default_factory=dict)
    by: str = ""
    reason: str = ""
    at: datetime | None = None


NO_WORDS = Words()


def as_words(row: Row[Any]) -> Words:
    """What stands in a row of ``trial_exam``."""
    return Words(
        trial_id=row.trial_id,
        subject_id=row.said_subject or "",
        visit=row.said_visit or "",
        set_aside=bool(row.set_aside),
        not_evaluable=row.not_evaluable or "",
        accepted=dict(row.accepted or {}),
        by=row.said_by or "",
        reason=row.said_reason or "",
        at=row.said_at,
    )


def words_on(connection: Connection, exam_id: int) -> Words:
    """What was said of an exam so far."""
    row = connection.execute(select(db.trial_exam).where(db.trial_exam.c.exam_id == exam_id)).one_or_none()
    return NO_WORDS if row is None else as_words(row)
