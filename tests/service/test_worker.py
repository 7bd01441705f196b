import errno
import json
import logging
import signal
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import tiny_analysis
from peers import wait_until
from records import NOW, later, open_database, settings_in
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from config.settings import Settings
from dicom_io.inbox import Inbox
from processing.refusal import Reason, ReasonCode
from service import database, jobs, worker
from service import database as db
from service.database import Database
from service.delivery import list_deliveries
from service.failure_text import describe_exit
from service.leases import running_leases
from service.progress import Progress
from service.quarantine import list_items
from service.refusal_file import write_exam_refusal
from service.states import ExamState, JobState
from service.worker import load_analysis, run_job

DESTINATIONS = [
    {"name": "all", "ae_title": "A", "host": "127.0.0.1", "port": 104},
    {"name": "pictures", "ae_title": "B", "host": "127.0.0.1", "port": 104, "objects": ["overlay"]},
]


class Bench:
    def __init__(self, folder: Path) -> None:
        self.settings: Settings = settings_in(folder, destinations=DESTINATIONS, jobs={"lease_s": 5, "attempts": 2})
        self.database: Database = open_database(self.settings)
        (folder / "scan").mkdir()
        inbox = Inbox(self.database.inbox_dir)
        names = [inbox.store((path.read_bytes(),)).name for path in write_mapss(folder / "scan", mapss_signal(2))]
        with self.database.write() as connection:
            values = {"study_uid": "1.2.3", "state": str(ExamState.QUEUED), "has_news": False}
            connection.execute(insert(db.exam).values(first_arrival_at=NOW, last_arrival_at=NOW, **values))
            jobs.enqueue(connection, jobs.JobRequest(1, tuple(names), "d", "SCANNER", "ge-mapss"), NOW)

    def claim(self) -> jobs.Job:
        job = jobs.claim(self.database, "w", NOW, 60.0)
        assert job is not None
        return job

    @property
    def job(self) -> jobs.Job:
        return jobs.list_jobs(self.database)[0]

    @property
    def exam_folder(self) -> Path:
        return self.settings.storage_dir / "results" / "exam-000001"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path)
    yield opened
    opened.database.close()


def test_results_are_published_and_queued_for_each_destination(bench: Bench) -> None:
    run_job(bench.database, bench.settings, bench.claim(), tiny_analysis.analyse)

    assert bench.job.state is JobState.DONE
    assert sorted(path.name for path in bench.exam_folder.iterdir()) == ["result.json", "v1"]
    newest = json.loads((bench.exam_folder / "result.json").read_text())
    assert newest["images"] == 14
    assert all((bench.exam_folder / one["path"]).is_file() for one in newest["objects"])
    parcels = [(one.destination, one.kind) for one in list_deliveries(bench.database)]
    assert parcels == [("all", "seg"), ("all", "overlay"), ("pictures", "overlay")]
    assert all((bench.settings.storage_dir / one.path).is_file() for one in list_deliveries(bench.database))


def test_a_bug_is_kept_for_the_operator_and_named_in_the_log_without_data(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for expected in (JobState.QUEUED, JobState.FAILED):
            run_job(bench.database, bench.settings, bench.claim(), tiny_analysis.analyse_with_a_bug)
            assert bench.job.state is expected
    assert bench.job.error is not None
    assert "analyse_with_a_bug" in bench.job.error
    assert bench.job.error_summary == "ZeroDivisionError"
    assert "Phantom" not in bench.job.error
    assert "service.worker, line" in bench.job.error
    assert "Phantom" not in "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert list(bench.exam_folder.iterdir()) == []  # nothing half-written is left


def test_a_full_disk_does_not_park_a_job(bench: Bench) -> None:
    def analyse_without_room(paths: Sequence[Path], out: Path, settings: Settings, produced_at: datetime) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(2):  # as many as a bug has
        run_job(bench.database, bench.settings, bench.claim(), analyse_without_room)
        assert bench.job.state is JobState.QUEUED


def test_a_refusal_is_a_result_and_not_a_failure(bench: Bench) -> None:
    run_job(bench.database, bench.settings, bench.claim(), tiny_analysis.refuse)

    assert (bench.job.state, bench.job.verdict, bench.job.attempts) == (JobState.DONE, "refused", 1)
    content = json.loads((bench.exam_folder / "result.json").read_text())
    assert content["status"] == "refused"
    assert content["reasons"] == [{"code": "LEVELS_AMBIGUOUS", "detail": "six discs, no sacrum"}]
    assert [item.code for item in list_items(bench.database)] == ["LEVELS_AMBIGUOUS"]
    assert list_deliveries(bench.database) == []


def test_the_report_of_an_earlier_refusal_goes_when_there_is_a_result(bench: Bench) -> None:
    write_exam_refusal(bench.exam_folder, (Reason(ReasonCode.SERIES_INCOMPLETE, "slice 2"),), ["1.2"])
    assert sorted(path.name for path in bench.exam_folder.iterdir()) == ["report.html", "report.pdf", "result.json"]
    assert "Images are missing" in (bench.exam_folder / "report.html").read_text(encoding="utf-8")
    run_job(bench.database, bench.settings, bench.claim(), tiny_analysis.analyse)
    assert sorted(path.name for path in bench.exam_folder.iterdir()) == ["result.json", "v1"]


def test_a_doubtful_result_is_delivered(bench: Bench) -> None:
    def doubt(*arguments: object) -> tiny_analysis.TinySummary:
        made = tiny_analysis.analyse(*arguments)  # type: ignore[arg-type]
        return tiny_analysis.TinySummary("needs_review", (Reason(ReasonCode.MOTION, "2 mm"),), made.objects)

    run_job(bench.database, bench.settings, bench.claim(), doubt)  # type: ignore[arg-type]
    assert bench.job.verdict == "needs_review"
    assert len(list_deliveries(bench.database)) == 3


def test_what_a_killed_attempt_left_is_replaced(bench: Bench) -> None:
    (bench.exam_folder / "v1").mkdir(parents=True)
    (bench.exam_folder / "v1" / "half").write_text("x")
    (bench.exam_folder / ".attempts-v1" / "1").mkdir(parents=True)
    run_job(bench.database, bench.settings, bench.claim(), tiny_analysis.analyse)
    assert sorted(path.name for path in bench.exam_folder.rglob("*")) == [
        "overlay.dcm",
        "result.json",
        "result.json",
        "seg.dcm",
        "v1",
    ]


def test_the_outcome_of_a_worker_that_lost_its_job_does_not_count(bench: Bench) -> None:
    slow = bench.claim()
    jobs.release_lost(bench.database, later(61), 3, silent=running_leases(bench.database))
    run_job(bench.database, bench.settings, slow, tiny_analysis.analyse)
    assert bench.job.state is JobState.QUEUED
    assert list_deliveries(bench.database) == []
    assert list(bench.exam_folder.iterdir()) == []


def test_a_worker_that_lost_its_job_at_the_last_moment_replaces_nothing(bench: Bench) -> None:
    """It had asked whether the job is its own, was suspended, and moved its folder over what another had published."""
    slow = bench.claim()

    def lose(*arguments: object) -> tiny_analysis.TinySummary:
        made = tiny_analysis.analyse(*arguments)  # type: ignore[arg-type]
        stage = jobs.note_stage

        def overtaken(database: Database, job: jobs.Job, name: str) -> None:
            stage(database, job, name)
            if name == "publish" and job.attempts == 1:
                jobs.release_lost(database, NOW, 3, worker="w")
                run_job(database, bench.settings, bench.claim(), tiny_analysis.analyse)

        monkeypatch.setattr(jobs, "note_stage", overtaken)
        return made

    with pytest.MonkeyPatch.context() as monkeypatch:
        run_job(bench.database, bench.settings, slow, lose)  # type: ignore[arg-type]
    assert (bench.job.state, bench.job.attempts) == (JobState.DONE, 2)
    published = bench.exam_folder / "v1"
    assert sorted(path.name for path in published.iterdir()) == ["overlay.dcm", "result.json", "seg.dcm"]
    assert len(list_deliveries(bench.database)) == 3


def test_a_lease_is_prolonged_again_after_the_database_was_locked_for_a_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread ended at the first error, and a healthy worker was killed for its silence."""
    job, prolong = bench.claim(), jobs.heartbeat
    beats: list[bool] = []
    came_through = threading.Event()

    def heartbeat(*arguments: Any) -> bool:
        if not beats:
            beats.append(False)
            raise OperationalError("", {}, Exception())
        beats.append(prolong(*arguments))
        came_through.set()
        return beats[-1]

    monkeypatch.setattr(jobs, "heartbeat", heartbeat)
    with worker._leased(bench.database, job, 0.04):
        assert came_through.wait(10.0)
    assert beats[:2] == [False, True]


def test_an_analysis_is_not_thrown_away_because_the_database_is_locked_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was made again after half a minute of a lock, and the stage that could not be noted ended it at once."""
    monkeypatch.setattr(worker, "AGAIN_S", 0.05)
    bench.database.close()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    bench.database = open_database(bench.settings)
    other = sqlite3.connect(
        bench.settings.storage_dir / "discnode.sqlite", isolation_level=None, check_same_thread=False
    )
    calls = []

    def analyse_and_lock(*arguments: Any, progress: Progress) -> tiny_analysis.TinySummary:
        calls.append(1)
        other.execute("BEGIN IMMEDIATE")
        progress("write", 0.9)
        return tiny_analysis.analyse(*arguments)

    job = bench.claim()
    attempt = threading.Thread(target=run_job, args=(bench.database, bench.settings, job, analyse_and_lock))
    attempt.start()
    wait_until(lambda: "outcome not written down yet" in caplog.text, "the worker to wait")
    assert "stage not noted" in caplog.text
    assert not (bench.exam_folder / "v1").exists()
    attempt.join(0.5)
    assert attempt.is_alive()
    other.execute("ROLLBACK")
    attempt.join(30)
    other.close()
    assert (bench.job.state, bench.job.attempts, calls) == (JobState.DONE, 1, [1])
    assert len(list_deliveries(bench.database)) == 3


def test_a_worker_outlives_a_database_that_takes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended with a traceback, was replaced, and ended again, as long as the lock lasted."""
    calls = []

    class Enough(Exception):
        pass

    def claim(*arguments: object) -> None:
        calls.append(1)
        raise Enough if len(calls) == 3 else OperationalError("", {}, Exception("database is locked"))

    monkeypatch.setattr(jobs, "claim", claim)
    monkeypatch.setattr(worker, "POLL_S", 0.01)
    with pytest.raises(Enough):
        worker.run_worker(bench.database, bench.settings, "w", tiny_analysis.analyse)


def test_an_outcome_whose_record_was_undone_after_it_was_in_its_place_is_written_down_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit itself may fail, on a full disk for one."""
    monkeypatch.setattr(worker, "AGAIN_S", 0.05)
    place, faults = worker.publish, []

    def place_and_fail(*folders: Path) -> None:
        place(*folders)
        if not faults:
            faults.append(1)
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(worker, "publish", place_and_fail)
    run_job(bench.database, bench.settings, bench.claim(), tiny_analysis.analyse)
    assert (bench.job.state, bench.job.attempts, faults) == (JobState.DONE, 1, [1])
    assert sorted(path.name for path in bench.exam_folder.iterdir()) == ["result.json", "v1"]
    assert all((bench.settings.storage_dir / one.path).is_file() for one in list_deliveries(bench.database))


def test_the_stage_of_an_attempt_is_known_when_its_worker_dies(bench: Bench) -> None:
    """A crash in native code leaves no traceback."""

    def crash(*arguments: object, progress: Progress) -> tiny_analysis.TinySummary:
        progress("register", 0.5)
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        run_job(bench.database, bench.settings, bench.claim(), crash)  # type: ignore[arg-type]
    jobs.release_lost(bench.database, NOW, 2, worker="w", cause=describe_exit(-signal.SIGSEGV))
    text = "attempt 1: its worker was killed by SIGSEGV (a crash in native code), at stage 'register'"
    assert bench.job.error == text


def test_an_analysis_is_found_by_its_import_path() -> None:
    assert load_analysis("tiny_analysis:analyse") is tiny_analysis.analyse
    with pytest.raises(AttributeError):
        load_analysis("tiny_analysis:nothing")
