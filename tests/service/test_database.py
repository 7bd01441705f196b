import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from records import NOW, add_exam, open_database, settings_in
from sqlalchemy import select, update

from service import database as db
from service.database import Database, move
from service.states import ExamState, ForbiddenMove


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(settings_in(tmp_path))
    yield opened
    opened.close()


def test_an_acknowledged_row_is_flushed_to_disk(database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_times_come_back_aware_and_naive_ones_are_refused(database: Database) -> None:
    exam_id = add_exam(database)
    elsewhere = datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    with database.write() as connection:
        connection.execute(update(db.exam).values(last_arrival_at=elsewhere))
    with database.read() as connection:
        found = connection.execute(select(db.exam.c.last_arrival_at).where(db.exam.c.id == exam_id)).scalar_one()
        # compared as times in the database, too
        assert connection.execute(select(db.exam.c.id).where(db.exam.c.last_arrival_at > NOW)).scalar_one() == exam_id
    assert found == elsewhere
    assert found.tzinfo is UTC
    with pytest.raises(Exception, match="time zone"), database.write() as connection:
        connection.execute(update(db.exam).values(last_arrival_at=datetime(2026, 3, 1)))


def test_a_forbidden_move_changes_nothing(database: Database) -> None:
    exam_id = add_exam(database)

    def change() -> None:
        with database.write() as connection:
            connection.execute(update(db.exam).values(detail="changed"))
            move(connection, db.exam, exam_id, ExamState.INCOMPLETE)

    with pytest.raises(ForbiddenMove):
        change()
    with database.read() as connection:
        row = connection.execute(select(db.exam.c.state, db.exam.c.detail)).one()
    assert (row.state, row.detail) == ("queued", "")
    with pytest.raises(LookupError), database.write() as connection:
        move(connection, db.exam, 99, ExamState.COLLECTING)


COUNT_UP = """
import sys
from pathlib import Path
from sqlalchemy import select, update
from config.settings import Settings
from service import database as db
from service.database import open_database
database = open_database(Settings(storage_dir=Path(sys.argv[1])))
for _ in range(50):
    with database.write() as connection:  # reads, then writes: two processes must not both read the same number
        version = connection.execute(select(db.exam.c.version)).scalar_one()
        connection.execute(update(db.exam).values(version=version + 1))
"""


def test_several_processes_write_without_losing_anything(database: Database, tmp_path: Path) -> None:
    add_exam(database)
    command = [sys.executable, "-c", COUNT_UP, str(tmp_path / "node")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with database.read() as connection:
        assert connection.execute(select(db.exam.c.version)).scalar_one() == 150
