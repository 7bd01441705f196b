import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from records import NOW, add_exam, add_job, exam_state, later, open_database, settings_in

from processing.refusal import Reason, ReasonCode
from processing.results import Level, Verdict
from service import jobs
from service.database import Database
from service.delivery import list_deliveries
from service.jobs import Job, LeaseLost
from service.leases import LeaseWatch, running_leases
from service.outbox import Parcel
from service.quarantine import list_items
from service.reprocessing import CannotReprocess, Request, reprocess, retry
from service.states import ExamState, JobState

PARCELS = (Parcel("2.25.1", "seg", "results/exam-000001/v1/seg.dcm", "archive"),)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(settings_in(tmp_path))
    yield opened
    opened.close()


def claimed(database: Database, worker: str = "w1", seconds: float = 0.0) -> Job:
    job = jobs.claim(database, worker, later(seconds), lease_s=60.0)
    assert job is not None
    return job


def state(database: Database, job_id: int) -> JobState:
    job = jobs.get_job(database, job_id)
    assert job is not None
    return job.state


def test_the_oldest_job_is_claimed_once(database: Database) -> None:
    first, second = add_job(database, add_exam(database)), add_job(database, add_exam(database, "1.2.4"))

    assert claimed(database).id == first
    assert claimed(database, "w2").id == second
    assert jobs.claim(database, "w3", NOW, 60.0) is None


def test_many_workers_never_share_a_job(database: Database) -> None:
    for number in range(20):
        add_job(database, add_exam(database, f"1.2.{number}"))
    taken: list[int] = []

    def work(name: str) -> None:
        while (job := jobs.claim(database, name, NOW, 60.0)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 21))


def test_a_finished_job_fills_the_outbox_and_settles_the_exam_at_once(database: Database) -> None:
    exam_id = add_exam(database)
    add_job(database, exam_id)
    job = claimed(database)
    jobs.finish(database, job, Verdict.OK, (), PARCELS, later(9))

    assert state(database, job.id) is JobState.DONE
    assert exam_state(database, exam_id) is ExamState.ANALYSED
    assert [(one.sop_uid, one.destination) for one in list_deliveries(database)] == [("2.25.1", "archive")]


def test_what_a_person_takes_back_is_known_to_be_analysed_again(database: Database) -> None:
    """Its objects would have had the UIDs of those sent before, and would not have been sent as the newest."""
    exam_id = add_exam(database)
    job_id = add_job(database, exam_id)
    found = []
    for lowest in (None, Level.L5S1, Level.L4L5, Level.L5S1):
        if lowest is not None:
            assert retry(database, job_id, lowest_disc=lowest)
        job = claimed(database)
        job_id = job.id
        found.append(jobs.was_done_before(database, job))
        jobs.finish(database, job, Verdict.OK, (), (), later(9))
    assert found == [False, False, False, True]


def test_a_refusal_has_no_objects_whose_uids_are_taken(database: Database) -> None:
    exam_id = add_exam(database)
    add_job(database, exam_id)
    jobs.finish(database, claimed(database), Verdict.REFUSED, (Reason(ReasonCode.INTERNAL, "x"),), (), later(9))
    add_job(database, exam_id)
    assert not jobs.was_done_before(database, claimed(database))


def test_the_same_object_is_put_in_the_outbox_once(database: Database) -> None:
    exam_id = add_exam(database)
    add_job(database, exam_id)
    jobs.finish(database, claimed(database), Verdict.OK, (), PARCELS, later(9))
    add_job(database, exam_id, digest="other")
    jobs.finish(database, claimed(database), Verdict.OK, (), PARCELS, later(19))
    assert len(list_deliveries(database)) == 1


def test_a_refusal_is_quarantined_with_its_reasons(database: Database) -> None:
    exam_id = add_exam(database)
    add_job(database, exam_id)
    reasons = (Reason(ReasonCode.ECHO_UNRESOLVED, "one echo time"), Reason(ReasonCode.MOTION, "4 mm"))
    jobs.finish(database, claimed(database), Verdict.REFUSED, reasons, (), later(9))

    assert exam_state(database, exam_id) is ExamState.REFUSED
    assert [item.code for item in list_items(database)] == ["ECHO_UNRESOLVED", "MOTION"]


def test_a_failing_job_is_tried_again_then_parked_with_its_traceback(database: Database) -> None:
    exam_id = add_exam(database)
    job_id = add_job(database, exam_id)
    for attempt in (1, 2):
        job = claimed(database)
        assert job.attempts == attempt
        assert jobs.fail(database, job, f"Traceback {attempt}\nValueError: x", later(attempt), 3) is JobState.QUEUED
    assert jobs.fail(database, claimed(database), "Traceback 3\nValueError: last", later(3), 3) is JobState.FAILED

    job_now = jobs.get_job(database, job_id)
    assert job_now is not None
    assert job_now.error_summary == "ValueError: last"
    assert exam_state(database, exam_id) is ExamState.FAILED
    assert jobs.claim(database, "w", NOW, 60.0) is None

    assert retry(database, job_id)
    assert exam_state(database, exam_id) is ExamState.QUEUED
    assert claimed(database).attempts == 1
    assert not retry(database, job_id)
    assert not retry(database, 99)


def test_a_silent_worker_loses_its_job_and_may_not_finish_it(database: Database) -> None:
    add_job(database, add_exam(database))
    lost = claimed(database)
    watch = LeaseWatch(60.0)
    assert watch.overdue(running_leases(database), 0.0) == []
    assert watch.overdue(running_leases(database), 59.0) == []
    silent = watch.overdue(running_leases(database), 61.0)
    assert [job.id for job in jobs.release_lost(database, later(61), 3, silent=silent)] == [lost.id]

    assert not jobs.heartbeat(database, lost, later(62), 60.0)
    with pytest.raises(LeaseLost):
        jobs.finish(database, lost, Verdict.OK, (), PARCELS, later(62))
    with pytest.raises(LeaseLost):
        jobs.fail(database, lost, "late", later(62), 3)
    assert list_deliveries(database) == []
    again = claimed(database, "w2", 63)
    assert (again.id, again.attempts, again.created_at) == (lost.id, 2, lost.created_at)


def test_a_heartbeat_prolongs_the_lease(database: Database) -> None:
    add_job(database, add_exam(database))
    job = claimed(database)
    watch = LeaseWatch(60.0)
    assert watch.overdue(running_leases(database), 0.0) == []
    assert jobs.heartbeat(database, job, later(50), 60.0)
    assert watch.overdue(running_leases(database), 61.0) == []
    (late,) = watch.overdue(running_leases(database), 122.0)
    assert jobs.heartbeat(database, job, later(123), 60.0)  # between the look and the act
    assert jobs.release_lost(database, later(124), 3, silent=[late]) == []
    assert jobs.release_lost(database, later(9999), 3) == []


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_takes_no_job_from_its_worker(database: Database, step_s: float) -> None:
    """A step over the lease killed each running analysis once; after one back, a silent worker was never noticed."""
    add_job(database, add_exam(database))
    job = claimed(database)
    watch = LeaseWatch(60.0)
    for second in range(0, 300, 15):
        assert watch.overdue(running_leases(database), float(second)) == []
        clock = later(second + (step_s if second > 100 else 0.0))
        assert jobs.heartbeat(database, job, clock, 60.0)
    assert watch.overdue(running_leases(database), 300.0) == []
    assert len(watch.overdue(running_leases(database), 361.0)) == 1


def test_a_job_that_kills_its_workers_is_parked(database: Database) -> None:
    exam_id = add_exam(database)
    job_id = add_job(database, exam_id)
    for attempt in range(3):
        claimed(database, f"w{attempt}")
        assert len(jobs.release_lost(database, NOW, 3, worker=f"w{attempt}")) == 1
    assert state(database, job_id) is JobState.FAILED
    assert exam_state(database, exam_id) is ExamState.FAILED


def test_an_attempt_that_the_node_itself_ended_does_not_count(database: Database) -> None:
    job_id = add_job(database, add_exam(database))
    for _ in range(5):
        claimed(database)
        jobs.release_lost(database, NOW, 3, worker="w1", forgive=True)
    assert state(database, job_id) is JobState.QUEUED
    assert claimed(database).attempts == 1


def test_more_images_supersede_a_job_that_has_not_run(database: Database) -> None:
    exam_id = add_exam(database)
    first = add_job(database, exam_id)
    second = add_job(database, exam_id, digest="more")
    assert state(database, first) is JobState.SUPERSEDED
    job = claimed(database)
    assert (job.id, job.version) == (second, 2)
    assert str(job.result_folder) == "results/exam-000001/v2"


def test_an_old_version_that_ends_late_does_not_settle_the_exam(database: Database) -> None:
    exam_id = add_exam(database)
    add_job(database, exam_id)
    old = claimed(database)
    add_job(database, exam_id, digest="more")
    jobs.finish(database, old, Verdict.OK, (), PARCELS, later(9))
    assert exam_state(database, exam_id) is ExamState.QUEUED


def test_what_always_fails_waits_longer_each_time_and_lets_others_pass(database: Database) -> None:
    poison = add_job(database, add_exam(database))
    waits = []
    now_s = 0.0
    for _ in range(4):
        job = claimed(database, seconds=now_s)
        assert job.id == poison
        jobs.fail(database, job, "x", later(now_s), 5, retry_s=10.0)
        after = jobs.get_job(database, poison)
        assert after is not None
        waits.append(0.0 if after.not_before is None else (after.not_before - later(now_s)).total_seconds())
        now_s += waits[-1]
    assert waits == [0.0, 10.0, 20.0, 40.0]
    other = add_job(database, add_exam(database, "1.2.4"))
    assert claimed(database, "w2", now_s - 1).id == other
    assert claimed(database, "w1", now_s).id == poison


def test_a_job_is_not_parked_because_of_power_cuts(database: Database) -> None:
    job_id = add_job(database, add_exam(database))
    for _ in range(10):
        claimed(database)
        assert len(jobs.release_lost(database, NOW, 3, everyone=True)) == 1
    assert state(database, job_id) is JobState.QUEUED
    for _ in range(20):
        if jobs.claim(database, "w", NOW, 60.0) is not None:
            jobs.release_lost(database, NOW, 3, everyone=True)
    assert state(database, job_id) is JobState.FAILED  # one that takes the machine down each time


@pytest.mark.parametrize("ends", [JobState.DONE, JobState.FAILED])
def test_a_person_has_an_analysis_made_anew_for_a_reason(database: Database, ends: JobState) -> None:
    """A version of its own, which names the result before it; who wanted it and why stay with the job."""
    image = database.inbox_dir / "objects" / "00" / "a.dcm"
    image.parent.mkdir(parents=True)
    image.touch()
    exam_id = add_exam(database)
    first = add_job(database, exam_id)
    jobs.finish(database, claimed(database), Verdict.OK, (), PARCELS, later(9))
    if ends is JobState.FAILED:
        first = reprocess(database, first, Request("new model", "ann"))
        jobs.fail(database, claimed(database), "x", NOW, 1)
    assert state(database, first) is ends
    for wrong in ("", " "):
        with pytest.raises(CannotReprocess, match="a reason is needed"):
            reprocess(database, first, Request(wrong, "ann"))
    new = reprocess(database, first, Request("weights of version 3", "ann"))
    with pytest.raises(CannotReprocess, match="not the newest"):
        reprocess(database, first, Request("again", "ann"))
    assert exam_state(database, exam_id) is ExamState.QUEUED
    job = claimed(database)
    assert (job.id, job.reason, job.requested_by, job.predecessor) == (new, "weights of version 3", "ann", 1)
    assert jobs.was_done_before(database, job)  # so its objects get UIDs of their own
    assert job.result_folder.name == f"v{job.version}"
    assert job.version == (2 if ends is JobState.DONE else 3)
    jobs.finish(database, job, Verdict.OK, (), (), later(19))
    image.unlink()
    with pytest.raises(CannotReprocess, match="1 of the 1 files"):
        reprocess(database, new, Request("again", "ann"))
