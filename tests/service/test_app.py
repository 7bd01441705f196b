"""What the supervisor does when a part of it fails."""

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from records import add_exam, add_job, settings_in

from service import database, jobs
from service.app import _Node


def test_a_worker_that_dies_while_the_database_is_locked_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its job was to be released at once; the error ended the supervisor, and with it the receiver."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    node = _Node(settings_in(tmp_path), "tiny_analysis:analyse", threading.Event())
    record = node._database
    add_job(record, add_exam(record))
    assert jobs.claim(record, "worker-1", datetime.now(UTC), -1.0) is not None
    other = sqlite3.connect(tmp_path / "node" / "discnode.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    node._on_worker_death("worker-1", -9)
    assert "not released yet" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    node._sweep_leases()
    assert [job.state for job in jobs.list_jobs(record)] == ["queued"]
    record.close()
