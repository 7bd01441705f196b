"""A database with exams and jobs in it, for tests that need no images."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert, select

from config.settings import Settings
from service import database as db
from service import jobs
from service.database import Database, open_database
from service.states import ExamState

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def settings_in(folder: Path, **changes: object) -> Settings:
    return Settings.model_validate({"storage_dir": folder / "node", **changes})


def add_exam(database: Database, study_uid: str = "1.2.3") -> int:
    """An exam whose job is about to be queued."""
    with database.write() as connection:
        result = connection.execute(
            insert(db.exam).values(
                study_uid=study_uid,
                state=str(ExamState.QUEUED),
                has_news=False,
                first_arrival_at=NOW,
                last_arrival_at=NOW,
            )
        )
        assert result.inserted_primary_key is not None
        return int(result.inserted_primary_key[0])


def add_job(database: Database, exam_id: int, *, digest: str = "d", calling_ae: str = "SCANNER") -> int:
    with database.write() as connection:
        request = jobs.JobRequest(exam_id, ("objects/00/a.dcm",), digest, calling_ae, "ge-mapss")
        return jobs.enqueue(connection, request, NOW)


def exam_state(database: Database, exam_id: int) -> ExamState:
    with database.read() as connection:
        return ExamState(connection.execute(select(db.exam.c.state).where(db.exam.c.id == exam_id)).scalar_one())


__all__ = ["NOW", "add_exam", "add_job", "exam_state", "later", "open_database", "settings_in"]
