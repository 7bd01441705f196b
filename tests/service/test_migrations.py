"""Databases of earlier programs are brought up, once, whole or not at all; those of later ones are left alone."""

import json
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from node_process import Node
from peers import wait_until
from records import open_database, settings_in
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import create_engine

from dicom_io.inbox import Inbox
from service import database as db
from service import jobs
from service.migration import alembic_config, migrate
from service.migrations import DatabaseRefused, known_revisions, newest_revision

SCHEMAS = Path(__file__).parent.parent / "data" / "databases"
ROWS = """
INSERT INTO exam (id, study_uid, state, has_news, detail, version, first_arrival_at, last_arrival_at)
VALUES (1, '1.2.3', 'analysed', 0, '', 1, '2026-03-01 08:00:00.000000', '2026-03-01 08:00:00.000000');
INSERT INTO job (id, exam_id, version, state, inputs, inputs_digest, calling_ae, protocol, attempts, created_at)
VALUES (1, 1, 1, 'done', '["objects/00/a.dcm"]', 'd', 'SCANNER', 'ge-mapss', 1, '2026-03-01 08:00:00.000000');
INSERT INTO delivery (id, job_id, sop_uid, kind, path, destination, state, attempts, not_before)
VALUES (1, 1, '2.25.1', 'seg', 'results/exam-000001/v1/seg.dcm', 'pacs', 'waiting', 3, '2026-03-01 08:00:00.000000');
"""


def make_old(folder: Path, schema: str) -> Path:
    """The database file of an earlier program, with an exam, its job and a delivery."""
    (folder / "node").mkdir()
    path = folder / "node" / "discnode.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript((SCHEMAS / schema).read_text() + ROWS)
    connection.close()
    return path


def differences(path: Path) -> list[object]:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), db.metadata)
    engine.dispose()
    return list(found)


@pytest.mark.parametrize("schema", ["first.sql", "0.1.0.sql"])
def test_an_old_database_is_brought_up_with_its_rows(tmp_path: Path, schema: str) -> None:
    path = make_old(tmp_path, schema)
    settings = settings_in(tmp_path)
    with pytest.raises(DatabaseRefused, match="discnode serve"):
        open_database(settings)
    copy = migrate(settings)
    assert differences(path) == []
    database = open_database(settings)
    (job,) = jobs.list_jobs(database)
    assert (job.state, job.inputs, job.predecessor) == ("done", ("objects/00/a.dcm",), None)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT job_id, attempts FROM delivery").all() == [(1, 3)]
    database.close()
    assert copy is not None
    kept = sqlite3.connect(copy)
    assert kept.execute("SELECT count(*) FROM job").fetchone() == (1,)
    assert kept.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone() == (0,)
    kept.close()
    assert migrate(settings) is None


def test_the_revisions_make_what_the_tables_say(tmp_path: Path) -> None:
    path = tmp_path / "by-revisions.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    engine.dispose()
    assert differences(path) == []
    assert scripts.get_heads() == [newest_revision()]
    assert sorted(one.revision for one in scripts.walk_revisions()) == list(known_revisions())
    migrate(settings_in(tmp_path))  # an empty one gets its tables at once
    assert differences(tmp_path / "node" / "discnode.sqlite") == []


def test_a_database_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    open_database(settings).close()
    path = tmp_path / "node" / "discnode.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for use in (open_database, migrate):
        with pytest.raises(DatabaseRefused, match=r"9999.*newer program"):
            use(settings)
    assert path.read_bytes() == before


def test_a_revision_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = make_old(tmp_path, "first.sql")
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO quarantine SELECT 1, 'MOTION', '', 77, NULL, '', '', '', '', '', 'held', '', ''")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseRefused, match="1 rows refer to nothing"):
        migrate(settings_in(tmp_path))
    connection = sqlite3.connect(path)
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "alembic_version" not in names
    assert "commitment" not in names


def test_without_a_copy_nothing_is_changed(tmp_path: Path) -> None:
    path = make_old(tmp_path, "0.1.0.sql")
    (tmp_path / "node" / "discnode.sqlite.of-revision-none").mkdir()
    with pytest.raises(DatabaseRefused, match="no copy"):
        migrate(settings_in(tmp_path))
    assert "alembic_version" not in path.read_bytes().decode("latin-1")


def test_a_job_in_flight_survives_the_upgrade(tmp_path: Path) -> None:
    """The node was stopped by force while it ran; the new program starts on its folder."""
    path = make_old(tmp_path, "0.1.0.sql")
    (tmp_path / "scan").mkdir()
    inbox = Inbox(tmp_path / "node" / "inbox")
    names = [inbox.store((image.read_bytes(),)).name for image in write_mapss(tmp_path / "scan", mapss_signal())]
    connection = sqlite3.connect(path)
    connection.execute("UPDATE exam SET state = 'queued'")
    connection.execute(
        "UPDATE job SET state = 'running', worker = 'worker-1', lease_until = ?, inputs = ?",
        ("2026-03-01 09:00:00.000000", json.dumps(names)),
    )
    connection.commit()
    connection.close()
    with Node(tmp_path) as node:
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 60)
        assert (node.jobs[0].attempts, node.jobs[0].verdict) == (2, "ok")
    assert "database brought up" in node.log
    assert sorted(one.name for one in (tmp_path / "node").glob("*.of-revision-*")) == [
        "discnode.sqlite.of-revision-none"
    ]
