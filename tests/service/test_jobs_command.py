"""`discnode jobs` and the API: why a job failed, and an analysis made anew for a reason."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from records import NOW, add_exam, add_job, later, open_database, settings_in

from processing.results import Verdict
from service import jobs
from service.cli import main
from service.database import Database
from service.health import Health
from service.web import build_web
from service.web_api import build_api


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text(json.dumps({"storage_dir": "node"}))
    return path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(settings_in(tmp_path))
    image = opened.inbox_dir / "objects" / "00" / "a.dcm"
    image.parent.mkdir(parents=True)
    image.touch()
    add_job(opened, add_exam(opened))
    yield opened
    opened.close()


def finish(database: Database) -> None:
    job = jobs.claim(database, "w", NOW, 60.0)
    assert job is not None
    jobs.finish(database, job, Verdict.OK, (), (), later(9))


def test_a_failed_job_is_shown_with_where_it_failed(
    database: Database, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = jobs.claim(database, "w", datetime.now(UTC), 60.0)
    assert job is not None
    jobs.fail(database, job, "  service.worker, line 7, in f\nKeyError", NOW, 1)
    assert main(["jobs", "show", "1", "--config", str(config)]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["state"] == "failed"
    assert shown.err.splitlines()[-2:] == ["  service.worker, line 7, in f", "KeyError"]
    assert main(["jobs", "list", "--config", str(config)]) == 0
    assert "KeyError" in capsys.readouterr().out
    assert main(["jobs", "retry", "1", "--config", str(config)]) == 0
    assert main(["jobs", "retry", "1", "--config", str(config)]) == 2


def test_a_done_job_is_made_anew_by_command(
    database: Database, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(database)
    with pytest.raises(SystemExit):
        main(["jobs", "reprocess", "1", "--config", str(config)])
    assert main(["jobs", "reprocess", "1", "--reason", "weights of May", "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "job 2"
    made = jobs.get_job(database, 2)
    assert made is not None
    assert (made.version, made.reason, made.state) == (2, "weights of May", "queued")
    assert made.requested_by
    assert main(["jobs", "reprocess", "1", "--reason", "x", "--config", str(config)]) == 2
    assert main(["jobs", "reprocess", "9", "--reason", "x", "--config", str(config)]) == 2


def test_a_done_job_is_made_anew_by_http(database: Database, tmp_path: Path) -> None:
    finish(database)
    settings = settings_in(tmp_path)
    api = build_api(database, (), settings)
    app = build_web(lambda: Health(True, True, True), api)

    def post(path: str, reason: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.post(f"/api/jobs/{path}", json={"reason": reason})

        return asyncio.run(ask())

    assert post("1/reprocess", "").status_code == 422
    assert post("7/reprocess", "x").status_code == 404
    made = post("1/reprocess", "weights of May")
    assert (made.status_code, made.json()["id"], made.json()["reason"]) == (200, 2, "weights of May")
    assert post("1/reprocess", "x").status_code == 409
    assert post("1/retry", "").status_code == 409


def test_the_database_of_a_newer_program_is_told(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_database(settings_in(tmp_path))
    with opened.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    opened.close()
    assert main(["jobs", "list", "--config", str(config)]) == 2
    assert "newer program" in capsys.readouterr().err


def test_retention_by_command_tells_and_deletes_nothing(
    database: Database, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(database)
    config.write_text(json.dumps({"storage_dir": "node", "retention": {"images_days": 0, "results_days": 0}}))
    assert main(["retention", "--dry-run", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "would be deleted: 0 images, 0 results" in out
    assert "kept: 1 exams: was sent nowhere" in out
