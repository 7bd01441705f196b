"""What the supervisor does when a part of it fails."""

import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from records import add_exam, add_job, settings_in

from service import app, database, jobs
from service.app import _Node
from service.leases import running_leases


def test_a_worker_that_dies_while_the_database_is_locked_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its job was to be released at once; the error ended the supervisor, and with it the receiver."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    node = _Node(settings_in(tmp_path), "tiny_analysis:analyse", threading.Event())
    record = node._database
    add_job(record, add_exam(record))
    assert jobs.claim(record, "worker-1", datetime.now(UTC), 60.0) is not None
    node._leases.overdue(running_leases(record), time.monotonic() - 86_400.0)  # seen first a day ago
    other = sqlite3.connect(tmp_path / "node" / "discnode.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    node._on_worker_death("worker-1", -9)
    assert "not released yet" in caplog.text
    node._sweep_leases()
    assert "leases cannot be judged now" in caplog.text
    assert node._silent_workers.empty()  # nobody can prolong a lease now
    other.execute("ROLLBACK")
    other.close()
    node._sweep_leases()
    assert [job.state for job in jobs.list_jobs(record)] == ["running"]  # it has its time again
    node._leases.forget()
    node._leases.overdue(running_leases(record), time.monotonic() - 86_400.0)
    node._sweep_leases()
    assert node._silent_workers.get_nowait() == "worker-1"
    assert [job.state for job in jobs.list_jobs(record)] == ["queued"]
    record.close()


def test_nothing_is_taken_for_silent_before_the_receiver_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it acknowledged before a restart is recorded before it listens."""
    node = _Node(settings_in(tmp_path), "tiny_analysis:analyse", threading.Event())
    monkeypatch.setattr(app, "echo", lambda peer: None)
    now = datetime.now(UTC)
    assert node._hears_since(now) == now
    node._echo_receiver()
    since = node._hears_since(datetime.now(UTC))
    assert now <= since <= datetime.now(UTC)
    node._echo_receiver()
    assert abs(node._hears_since(datetime.now(UTC)) - since) < timedelta(milliseconds=100)
    node._on_receiver_death("receiver-1", -9)
    assert node._hears_since(now) == now
    node._database.close()


def test_a_database_that_another_program_holds_at_the_start_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_in(tmp_path)
    _Node(settings, "tiny_analysis:analyse", threading.Event())._database.close()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    other = sqlite3.connect(tmp_path / "node" / "discnode.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert app.run_node(settings, analysis="tiny_analysis:analyse") == 1
    other.close()
    told = capfd.readouterr().err
    assert "another program holds it" in told
    assert "Traceback" not in told
