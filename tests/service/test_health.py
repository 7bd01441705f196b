"""The node says the truth of itself: not ready within ten seconds of a fault, ready again after the repair, at once."""

import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_rules import check
from node_process import Node
from peers import free_port, need, storescu, wait_until
from prometheus_client.parser import text_string_to_metric_families
from records import NOW, add_exam, add_job, later, open_database, settings_in
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import insert, update

from config.settings import SegmentationSettings, Settings
from models.registry import PACKAGED_FOLDER
from service import cli
from service import database as db
from service.audit_chain import read_lines
from service.checks import disk_check, networks_check, outbox_check
from service.health import Health, HealthMonitor, Probe
from service.metrics import Metrics, Running
from service.tally import DEATHS, REFUSED_CALLS, count, counts

WITHIN_S = 10.0


class Asked:
    """Answers of a node's HTTP server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.waits_s: list[float] = []

    @property
    def median_s(self) -> float:
        """Of the waits for an answer: the machine of the tests may be busy with something else."""
        return statistics.median(self.waits_s)

    def ready(self) -> dict[str, Any]:
        """What /health/ready says; empty if nobody answers."""
        start_s = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health/ready", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                found = json.load(error) if error.code == 503 else {}
        except OSError:
            return {}
        self.waits_s.append(time.monotonic() - start_s)
        return found

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            return samples(answer.read())


def samples(text: bytes) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Asked, Path]]:
    folder = tmp_path_factory.mktemp("health")
    weights = folder / "weights"
    shutil.copytree(PACKAGED_FOLDER, weights)
    port = free_port()
    one = Node(folder, web={"port": port}, segmentation={"weights_dir": str(weights)}, logs={"format": "json"})
    one.start(ready='"event": "ready"')
    asked = Asked(port)
    wait_until(lambda: asked.ready().get("ready"), "the node to be ready", 60)
    yield one, asked, weights
    one.__exit__()


def is_told(asked: Asked, check: str) -> dict[str, Any]:
    """That the node is not ready for this reason; fails if it takes too long to say so."""
    start_s = time.monotonic()
    found: dict[str, Any] = wait_until(
        lambda: (now := asked.ready()).get(check) is False and not now["ready"] and now, f"{check} to be told", 60
    )
    assert time.monotonic() - start_s < WITHIN_S
    assert check in found["failed"]
    return found


def is_well(asked: Asked) -> None:
    wait_until(lambda: asked.ready().get("ready"), "the node to be ready again", 90)


def test_a_receiver_that_hangs_or_is_killed_is_told_and_replaced(node: tuple[Node, Asked, Path]) -> None:
    one, asked, _ = node
    receiver = one.process("reception")
    receiver.suspend()
    try:
        is_told(asked, "receiver")
        assert asked.metrics()["discnode_ready"] == 0.0
    finally:
        receiver.resume()
    is_well(asked)
    receiver.kill()
    is_told(asked, "receiver")
    is_well(asked)
    assert asked.metrics()["discnode_process_deaths_total{kind=receiver}"] == 1.0
    assert asked.median_s < 1.0


def test_a_database_locked_by_another_program_is_told_at_once(node: tuple[Node, Asked, Path]) -> None:
    one, asked, _ = node
    asked.waits_s.clear()
    other = sqlite3.connect(one.settings.storage_dir / "discnode.sqlite", isolation_level=None, timeout=30)
    other.execute("BEGIN EXCLUSIVE")
    try:
        found = is_told(asked, "database")
        assert "database" in found["failed"]
        for _ in range(20):
            assert asked.ready()["database"] is False
        assert asked.median_s < 1.0
    finally:
        other.execute("ROLLBACK")
        other.close()
    is_well(asked)


def test_networks_that_are_gone_or_changed_are_told(node: tuple[Node, Asked, Path]) -> None:
    _, asked, weights = node
    victim = min(weights.glob("*.onnx"))
    kept = victim.read_bytes()
    victim.unlink()
    assert victim.name in is_told(asked, "networks")["failed"]["networks"]
    victim.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    time.sleep(2)
    assert "SHA-256" in is_told(asked, "networks")["failed"]["networks"]
    victim.write_bytes(kept)
    is_well(asked)


def test_what_the_node_did_is_in_its_audit_trail_and_every_log_line_is_an_object(
    node: tuple[Node, Asked, Path], tmp_path: Path
) -> None:
    need("storescu")
    one, asked, _ = node
    images = write_mapss(tmp_path, mapss_signal())
    storescu(one.port, images)
    storescu(one.port, images[:1], called="WRONG")
    wait_until(lambda: asked.metrics()["discnode_received_objects_total"] == len(images), "all to be on record")
    figures = asked.metrics()
    assert figures["discnode_database_readable"] == 1.0
    assert one.stop() == 0
    messages = {line.kind: check(line.message) for line in read_lines(one.settings.storage_dir / "audit")}
    assert set(messages) == {"started", "received", "call_refused", "stopped"}
    assert messages["received"].find(".//SOPClass").get("NumberOfInstances") == str(len(images))
    assert one.ask(counts)[REFUSED_CALLS, "it calls another AE title"] == 1
    assert cli.main(["audit", "verify", "--config", str(one.config)]) == 0
    for line in one.log.splitlines():
        content = json.loads(line)
        assert {"time", "level", "process", "event"} <= set(content)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_told_and_the_trail_goes_on_after_it(small_disk: Path) -> None:
    port = free_port()
    with Node(small_disk, web={"port": port}) as node:
        asked = Asked(port)
        wait_until(lambda: asked.ready().get("ready"), "the node to be ready", 60)
        ballast = small_disk / "ballast"
        _fill(ballast)
        assert "MB free" in is_told(asked, "disk")["failed"]["disk"]
        time.sleep(3)  # the node goes on, and meets the full disk wherever it writes
        ballast.unlink()
        is_well(asked)
    assert cli.main(["audit", "verify", "--config", str(node.config)]) == 0
    assert [line.kind for line in read_lines(small_disk / "node" / "audit")][-1] == "stopped"


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 65_536)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_has_failed_and_holds_nobody_up() -> None:
    release = threading.Event()
    monitor = HealthMonitor([Probe("stuck", lambda: release.wait(30) and "")], every_s=0.05, stale_s=0.3)
    assert monitor.look().failed == {"stuck": "not yet checked"}
    monitor.start()
    release.set()
    wait_until(lambda: monitor.look().is_ready, "the first check", 5)
    release.clear()
    wait_until(lambda: not monitor.look().is_ready, "the stuck check", 5)
    assert monitor.look().failed["stuck"].startswith("no answer for")
    release.set()
    wait_until(lambda: monitor.look().is_ready, "the check to come back", 5)
    monitor.close()


def test_what_is_not_vital_does_not_make_the_node_unready() -> None:
    monitor = HealthMonitor([Probe("good", lambda: ""), Probe("outbox", lambda: "3 wait", vital=False)], every_s=0.05)
    monitor.start()
    wait_until(lambda: monitor.look().is_ready, "the checks", 5)
    wait_until(lambda: monitor.look().degraded == {"outbox": "3 wait"}, "the other check", 5)
    assert monitor.look().as_dict() | {"checked_s_ago": 0} == {
        "ready": True,
        "good": True,
        "outbox": False,
        "failed": {},
        "degraded": {"outbox": "3 wait"},
        "checked_s_ago": 0,
    }
    monitor.close()


def test_a_full_disk_is_told_and_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path)
    check = disk_check(settings)
    assert "cannot be" in check()  # there is no folder yet
    settings.storage_dir.mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))  # type: ignore[attr-defined]
    assert check() == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 3 * 10**8))  # type: ignore[attr-defined]
    assert check() == "300 MB free where the storage folder is, less than 1024: objects are refused"


def test_networks_are_read_again_only_when_they_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(PACKAGED_FOLDER, folder)
    settings = Settings(segmentation=SegmentationSettings(weights_dir=folder))
    check = networks_check(settings)
    assert check() == ""
    reads: list[str] = []
    monkeypatch.setattr("service.checks.load_model", lambda *arguments: reads.append("read"))
    assert [check(), check(), reads] == ["", "", []]
    os.utime(min(folder.glob("*.onnx")), (1, 1))
    assert [check(), check(), reads] == ["", "", ["read"]]


def test_an_ageing_outbox_is_told_by_destination(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, health={"outbox_age_s": 60})
    database = open_database(settings)
    job = add_job(database, add_exam(database))
    with database.write() as connection:
        connection.execute(update(db.job).values(finished_at=NOW))
        for number, state in enumerate(("waiting", "waiting", "sent")):
            values = {"job_id": job, "sop_uid": f"1.{number}", "kind": "sr", "path": "x", "attempts": 0}
            connection.execute(insert(db.delivery).values(destination="pacs", state=state, not_before=NOW, **values))
    stray = ", which is not in the settings: give it back its name, or 'discnode deliveries give-up'"
    assert outbox_check(database, settings)() == f"2 objects wait for pacs{stray}"
    known = {"name": "pacs", "ae_title": "P", "host": "p", "port": 104}
    knowing = settings_in(tmp_path, health={"outbox_age_s": 60}, destinations=[known])
    assert outbox_check(database, knowing)() == "2 objects wait for pacs"
    patient = settings_in(tmp_path, health={"outbox_age_s": 2_592_000.0})
    with database.write() as connection:
        connection.execute(update(db.job).values(finished_at=later(0) + timedelta(days=3650)))
    assert outbox_check(database, patient)() == ""
    database.close()


# --- metrics ----------------------------------------------------------------------------------------------------------


def measured(tmp_path: Path) -> tuple[Metrics, Any]:
    settings = settings_in(tmp_path)
    database = open_database(settings)
    running = Running({"worker": 2}, {"worker": 1}, {"intake": 3.5})
    return Metrics(database, settings, lambda: Health(()), lambda: running), database


def test_metrics_count_what_is_there_without_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.metrics.KEEP_S", -1.0)
    metrics, database = measured(tmp_path)
    before = samples(metrics.text())
    assert before["discnode_received_objects_total"] == 0
    exam = add_exam(database, "1.2.840.99")
    job = add_job(database, exam)
    with database.write() as connection:
        for number in range(3):
            values = {"sop_class_uid": "1.2", "study_uid": "1.2.840.99", "series_uid": "1", "transfer_syntax": "1"}
            values |= {"path": "x", "calling_ae": "DOE_JANE", "state": "indexed", "sha256": str(number)}
            connection.execute(
                insert(db.instance).values(sop_uid=f"1.{number}", size_bytes=500, received_at=NOW, **values)
            )
        ended = later(0) + timedelta(days=3650)
        connection.execute(
            update(db.job).values(started_at=ended - timedelta(seconds=25), finished_at=ended, state="done")
        )
        values = {"job_id": job, "sop_uid": "1", "kind": "sr", "path": "x", "attempts": 0, "not_before": NOW}
        connection.execute(insert(db.delivery).values(destination="pacs", state="waiting", **values))
        count(connection, REFUSED_CALLS, "unknown AE title", 4)
        count(connection, REFUSED_CALLS, "unknown AE title")
        count(connection, DEATHS, "worker")
    text = metrics.text()
    after = samples(text)
    expected: Mapping[str, float] = {
        "discnode_exams{state=queued}": 1,
        "discnode_exams{state=held}": 0,
        "discnode_jobs{state=done}": 1,
        "discnode_outbox{destination=pacs,state=waiting}": 1,
        "discnode_received_objects_total": 3,
        "discnode_received_bytes_total": 1500,
        "discnode_refused_associations_total{reason=unknown AE title}": 5,
        "discnode_process_deaths_total{kind=worker}": 1,
        "discnode_processes_up{kind=worker}": 1,
        "discnode_processes_wanted{kind=worker}": 2,
        "discnode_schedule_lag_seconds{task=intake}": 3.5,
        "discnode_job_duration_seconds_bucket{le=20.0}": 0,
        "discnode_job_duration_seconds_bucket{le=30.0}": 1,
        "discnode_job_duration_seconds_count": 1,
        "discnode_job_duration_seconds_sum": 25.0,
    }
    assert {name: after[name] for name in expected} == expected
    assert samples(metrics.text())["discnode_job_duration_seconds_count"] == 1  # counted once
    assert 0 < after["discnode_disk_free_bytes"] <= after["discnode_disk_total_bytes"]
    for word in (b"1.2.840.99", b"DOE_JANE"):
        assert word not in text
    database.close()


def test_metrics_answer_when_the_database_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.metrics.KEEP_S", -1.0)
    metrics, database = measured(tmp_path)
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE tally")
    found = samples(metrics.text())
    assert found["discnode_database_readable"] == 0
    assert "discnode_exams{state=queued}" not in found
    assert found["discnode_processes_up{kind=worker}"] == 1
    database.close()
