import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from desk import IDLE_S, Desk, open_desk
from records import NOW, later
from small_mr_exam import mapss_signal, mr_dataset, write_mapss
from sqlalchemy import select, update

from config.protocol_cards import load_cards
from dicom_io.headers import read_facts
from dicom_io.receiver import BrokenObject, Recorded
from dicom_io.series import AssemblyState, ExamAssembly, assemble_exam
from processing.refusal import Reason, ReasonCode
from processing.results import Verdict
from service import database as db
from service import jobs, quarantine
from service.arrivals import open_ledger
from service.intake import Intake, Step, decide
from service.states import ExamState, InstanceState, JobState


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}) as opened:
        yield opened


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A whole MAPSS exam, seven times at four slices, with the announced count."""
    folder = tmp_path / "scanner"
    folder.mkdir()
    return write_mapss(folder, mapss_signal())


def fse_image(folder: Path, number: int = 0, **attributes: object) -> Path:
    path = folder / f"fse-{number}.dcm"
    values: dict[str, object] = {
        "SOPInstanceUID": f"1.2.3.2.{number}",
        "SeriesInstanceUID": "1.2.3.2",
        "SeriesNumber": 3,
        "SeriesDescription": "SAG T2 FSE",
        "EchoTime": 102.4,
        "ImagePositionPatient": [20 - 4 * number, -100, 100],
    }
    mr_dataset(np.full((6, 5), 7 + number, dtype=np.uint16), **(values | attributes)).save_as(
        path, enforce_file_format=True
    )
    return path


# --- the decision -----------------------------------------------------------------------------------------------------

INCOMPLETE = Reason(ReasonCode.SERIES_INCOMPLETE, "27/28 images")
SEVERAL_PATIENTS = Reason(ReasonCode.IDENTITY_CONFLICT, "images of 2 patients")
IRREGULAR = Reason(ReasonCode.GEOMETRY_INCONSISTENT, "slice 3")


@pytest.mark.parametrize(
    ("state", "reasons", "silent", "step"),
    [
        (AssemblyState.COMPLETE, (), False, Step.ENQUEUE),
        (AssemblyState.COMPLETE_WITHOUT_EVIDENCE, (), False, Step.WAIT),
        (AssemblyState.COMPLETE_WITHOUT_EVIDENCE, (), True, Step.ENQUEUE),
        (AssemblyState.INCOMPLETE, (INCOMPLETE,), False, Step.WAIT),
        (AssemblyState.INCOMPLETE, (INCOMPLETE,), True, Step.MARK_INCOMPLETE),
        (AssemblyState.REFUSED, (SEVERAL_PATIENTS,), False, Step.HOLD),
        (AssemblyState.REFUSED, (IRREGULAR,), False, Step.WAIT),  # a slice that is still on its way leaves a gap
        (AssemblyState.REFUSED, (IRREGULAR,), True, Step.REFUSE),
        (AssemblyState.UNKNOWN, (), False, Step.WAIT),
        (AssemblyState.UNKNOWN, (), True, Step.REFUSE),
    ],
)
def test_evidence_decides_first_and_silence_last(
    state: AssemblyState, reasons: tuple[Reason, ...], silent: bool, step: Step
) -> None:
    assert decide(ExamAssembly(state, reasons), (), silent=silent).step is step


def test_a_conflicting_object_holds_even_a_complete_exam() -> None:
    held = (Reason(ReasonCode.INSTANCE_CONFLICT, "1.2.3 came before"),)
    assert decide(ExamAssembly(AssemblyState.COMPLETE), held, silent=False).step is Step.HOLD


# --- whole exams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_complete_exam_is_one_job_at_once_in_whatever_order_it_came(
    desk: Desk, images: list[Path], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(images))
    for position, number in enumerate(order):
        desk.arrive(images[number], position * 0.1)
        desk.sweep(position * 0.1)
        assert len(desk.jobs) == (position == len(images) - 1)
    (job,) = desk.jobs
    assert (job.study_uid, job.protocol, job.calling_ae, len(job.inputs)) == ("1.2.3", "ge-mapss", "SCANNER", 28)
    assert all((desk.database.inbox_dir / name).is_file() for name in job.inputs)
    assert desk.exam.state == ExamState.QUEUED


def test_images_sent_again_make_no_second_job(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    assert {desk.arrive(path, 2) for path in images} == {Recorded.KNOWN}
    desk.sweep(3)
    assert len(desk.jobs) == 1
    desk.run_job()
    desk.arrive_all(images, 4)
    desk.sweep(5)
    assert (len(desk.jobs), desk.exam.state) == (1, ExamState.ANALYSED)


def test_an_exam_sent_again_in_another_transfer_syntax_is_no_conflict(
    desk: Desk, images: list[Path], tmp_path: Path
) -> None:
    desk.arrive_all(images)
    for path in images:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        again = tmp_path / "again.dcm"
        dataset.save_as(again, implicit_vr=True, little_endian=True, enforce_file_format=True)
        assert again.read_bytes() != path.read_bytes()
        assert desk.arrive(again, 1) is Recorded.KNOWN
        assert desk.arrive(again, 2) is Recorded.KNOWN
    desk.sweep(3)
    assert desk.exam.state == ExamState.QUEUED
    assert desk.cases == []
    assert len(desk.jobs[0].inputs) == 28


def test_a_late_supporting_series_makes_no_second_job(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    desk.arrive(fse_image(tmp_path), 2)
    desk.sweep(3)
    assert (len(desk.jobs), desk.exam.state) == (1, ExamState.QUEUED)
    desk.run_job()
    desk.arrive(fse_image(tmp_path, 1), 4)
    desk.sweep(5)
    assert (len(desk.jobs), desk.exam.state) == (1, ExamState.ANALYSED)


def test_without_an_announced_count_silence_decides(desk: Desk, tmp_path: Path) -> None:
    desk.arrive_all(write_mapss(tmp_path, mapss_signal(), ImagesInAcquisition=None))
    desk.sweep(IDLE_S - 1)
    assert desk.jobs == []
    desk.sweep(IDLE_S)
    assert len(desk.jobs) == 1


def test_anatomy_alone_is_a_job_after_long_silence_since_relaxometry_may_follow(desk: Desk, tmp_path: Path) -> None:
    desk.arrive_all([fse_image(tmp_path, number) for number in range(4)])
    desk.sweep(1)
    assert desk.jobs == []
    desk.sweep(10 * IDLE_S - 1)
    assert desk.jobs == []
    desk.sweep(10 * IDLE_S)
    assert [(job.protocol, len(job.inputs)) for job in desk.jobs] == [("t2-fse", 4)]


def test_a_missing_image_is_named_and_a_late_one_heals(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images[:-1])
    desk.sweep(IDLE_S + 1)
    assert desk.exam.state == ExamState.INCOMPLETE
    assert desk.cases == [("SERIES_INCOMPLETE", "held")]
    assert "27/28" in desk.exam.detail
    assert desk.refusal["status"] == "refused"
    assert desk.refusal["reasons"][0]["code"] == "SERIES_INCOMPLETE"

    desk.arrive(images[-1], 3600)
    desk.sweep(3601)
    assert len(desk.jobs) == 1
    assert desk.cases == [("SERIES_INCOMPLETE", "resolved")]


def test_more_slices_after_the_analysis_are_a_new_version(desk: Desk, tmp_path: Path) -> None:
    signal = mapss_signal(5)
    paths = write_mapss(tmp_path, signal, ImagesInAcquisition=None)
    edge = [path for path in paths if path.name.endswith("-4")]
    desk.arrive_all([path for path in paths if path not in edge])
    desk.sweep(IDLE_S)
    desk.run_job()
    desk.arrive_all(edge, 100)
    desk.sweep(101 + IDLE_S)
    assert [(job.version, len(job.inputs)) for job in desk.jobs] == [(1, 28), (2, 35)]


def test_two_patients_in_one_study_are_held(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    desk.arrive_all(images[:5])
    desk.arrive(fse_image(tmp_path, PatientID="SOMEONE-ELSE"))
    desk.sweep(1)
    assert desk.exam.state == ExamState.HELD
    assert desk.cases == [("IDENTITY_CONFLICT", "held")]
    assert "SOMEONE" not in json.dumps(desk.refusal)
    assert desk.refusal["reasons"][0]["code"] == "IDENTITY_CONFLICT"


def test_an_unknown_protocol_is_refused_with_what_was_seen(desk: Desk, tmp_path: Path) -> None:
    desk.arrive(fse_image(tmp_path, SeriesDescription="AX DWI"))
    desk.sweep(IDLE_S)
    assert desk.exam.state == ExamState.REFUSED
    assert desk.cases == [("PROTOCOL_UNKNOWN", "held")]
    assert "AX DWI" in desk.refusal["reasons"][0]["detail"]


def test_an_object_that_is_no_mr_image_is_held_beside_the_exam(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    ct = fse_image(tmp_path, SOPClassUID=pydicom.uid.CTImageStorage, Modality="CT")
    desk.arrive(ct)
    desk.arrive_all(images)
    desk.sweep(1)
    assert desk.cases == [("UNSUPPORTED_OBJECT", "held")]
    assert len(desk.jobs) == 1


def test_an_exam_of_unreadable_objects_only_says_why(desk: Desk, tmp_path: Path) -> None:
    desk.arrive(fse_image(tmp_path, SOPClassUID=pydicom.uid.CTImageStorage, Modality="CT"))
    desk.sweep(IDLE_S)
    assert desk.exam.state == ExamState.REFUSED
    assert [reason["code"] for reason in desk.refusal["reasons"]] == ["UNSUPPORTED_OBJECT"]
    assert desk.cases == [("UNSUPPORTED_OBJECT", "held")]


def test_phase_images_go_with_the_job_because_the_announced_count_holds_for_them_too(
    desk: Desk, tmp_path: Path
) -> None:
    for number, kind in enumerate(("M", "P")):
        folder = tmp_path / kind
        folder.mkdir()
        signal = mapss_signal()
        paths = write_mapss(folder, signal, ImageType=["ORIGINAL", "PRIMARY", kind], ImagesInAcquisition=2 * 28)
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.{number}"
            dataset.save_as(path)
        desk.arrive_all(paths)
    desk.sweep(1)
    (job,) = desk.jobs
    as_the_worker_sees_it = assemble_exam(
        [one for name in job.inputs for one in read_facts(desk.inbox.path(name))], load_cards(None)
    )
    assert as_the_worker_sees_it.state is AssemblyState.COMPLETE
    assert len(as_the_worker_sees_it.images) == 28


@pytest.mark.parametrize("seconds", [1.0, IDLE_S])
def test_an_image_that_arrives_between_reading_and_judging_is_not_lost(
    desk: Desk, images: list[Path], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """It must neither wait for silence nor lie beside an exam that was called incomplete."""
    desk.arrive_all(images[:-1])
    judge = desk.intake._judge

    def arrive_then_judge(*arguments: Any, **options: Any) -> None:
        desk.arrive(images[-1], seconds)
        judge(*arguments, **options)

    monkeypatch.setattr(desk.intake, "_judge", arrive_then_judge)
    desk.sweep(seconds)
    monkeypatch.undo()
    desk.sweep(seconds + 0.1)
    assert desk.exam.state == ExamState.QUEUED
    assert len(desk.jobs) == 1


def test_a_conflict_stops_a_job_that_waits_or_runs_until_it_is_settled(
    desk: Desk, images: list[Path], tmp_path: Path
) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    running = jobs.claim(desk.database, "w", NOW, 60.0)
    assert running is not None
    desk.arrive(changed(images[0], tmp_path), 2)
    desk.sweep(3)
    assert desk.exam.state == ExamState.HELD
    assert not jobs.heartbeat(desk.database, running, NOW, 60.0)
    with pytest.raises(jobs.LeaseLost):
        jobs.finish(desk.database, running, Verdict.OK, (), (), NOW)
    (item,) = [one for one in quarantine.list_items(desk.database, only_held=True) if one.what == "object"]
    quarantine.discard(desk.database, item.id, reason="sent by mistake")
    desk.sweep(4)
    assert [job.state for job in desk.jobs] == [JobState.SUPERSEDED, JobState.QUEUED]


def refuse_job(desk: Desk) -> None:
    job = jobs.claim(desk.database, "w", NOW, 60.0)
    assert job is not None
    reason = Reason(ReasonCode.LEVELS_AMBIGUOUS, "six discs")
    jobs.finish(desk.database, job, Verdict.REFUSED, (reason,), (), later(5))


def test_a_late_series_does_not_hide_why_the_exam_was_refused(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    refuse_job(desk)
    desk.arrive(fse_image(tmp_path), 6)
    desk.sweep(7)
    assert desk.exam.state == ExamState.REFUSED
    assert "LEVELS_AMBIGUOUS" in desk.exam.detail
    assert desk.cases == [("LEVELS_AMBIGUOUS", "held")]
    assert len(desk.jobs) == 1


def test_a_refused_exam_that_is_released_is_analysed_again(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    refuse_job(desk)
    (item,) = quarantine.list_items(desk.database)
    assert quarantine.release(desk.database, item.id)
    desk.sweep(7)
    assert [job.state for job in desk.jobs] == [JobState.DONE, JobState.QUEUED]
    assert desk.exam.state == ExamState.QUEUED


# --- conflicts, release, discard --------------------------------------------------------------------------------------


def changed(path: Path, folder: Path) -> Path:
    """The same object with other pixels."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(reversed(dataset.PixelData))
    other = folder / "changed.dcm"
    dataset.save_as(other, enforce_file_format=True)
    return other


def test_one_uid_with_two_contents_holds_the_exam_and_keeps_both(
    desk: Desk, images: list[Path], tmp_path: Path
) -> None:
    desk.arrive_all(images[1:])
    desk.arrive(images[0])
    assert desk.arrive(changed(images[0], tmp_path), 1) is Recorded.CONFLICT
    desk.sweep(2)
    assert desk.exam.state == ExamState.HELD
    assert desk.jobs == []
    assert ("INSTANCE_CONFLICT", "held") in desk.cases
    assert len(list(desk.inbox.folder.rglob("*.dcm"))) == 29


@pytest.mark.parametrize("action", ["release", "discard"])
def test_a_person_settles_a_conflict(desk: Desk, images: list[Path], tmp_path: Path, action: str) -> None:
    desk.arrive_all(images)
    other = changed(images[0], tmp_path)
    desk.arrive(other, 1)
    desk.sweep(2)
    (item,) = [one for one in quarantine.list_items(desk.database, only_held=True) if one.what == "object"]
    if action == "release":
        assert quarantine.release(desk.database, item.id)
        used = other
    else:
        assert quarantine.discard(desk.database, item.id, reason="sent by mistake")
        used = images[0]
    desk.sweep(3)

    (job,) = desk.jobs
    contents = {(desk.database.inbox_dir / name).read_bytes() for name in job.inputs}
    assert used.read_bytes() in contents
    assert len(contents) == 28
    assert desk.exam.state == ExamState.QUEUED
    assert len(list(desk.inbox.folder.rglob("*.dcm"))) == (29 if action == "release" else 28)
    assert all(state != "held" for _, state in desk.cases)
    assert not quarantine.release(desk.database, item.id)


def test_of_contents_released_one_after_the_other_the_last_is_used(
    desk: Desk, images: list[Path], tmp_path: Path
) -> None:
    """The first was not read yet when the second was released: both were used, and the exam was held for ever."""
    desk.arrive_all(images)
    for number, content in enumerate((b"\1\0", b"\2\0")):
        dataset = pydicom.dcmread(images[0])
        dataset.PixelData = content * (len(dataset.PixelData) // 2)
        dataset.save_as(tmp_path / f"content-{number}")
        desk.arrive(tmp_path / f"content-{number}", 1)
    desk.sweep(2)
    for item in quarantine.list_items(desk.database, only_held=True):
        if item.what == "object":
            assert quarantine.release(desk.database, item.id)
    desk.sweep(3)
    (job,) = desk.jobs
    contents = {(desk.database.inbox_dir / name).read_bytes() for name in job.inputs}
    assert len(contents) == 28
    assert (tmp_path / "content-1").read_bytes() in contents


def test_a_released_exam_is_judged_again(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images[:-1])
    desk.sweep(IDLE_S)
    (item,) = quarantine.list_items(desk.database)
    assert (item.what, item.study_uid) == ("exam", "1.2.3")
    assert quarantine.release(desk.database, item.id)
    assert desk.exam.state == ExamState.COLLECTING
    desk.sweep(IDLE_S + 1)
    assert desk.exam.state == ExamState.INCOMPLETE
    assert desk.cases == [("SERIES_INCOMPLETE", "released"), ("SERIES_INCOMPLETE", "held")]


def test_bytes_that_are_no_object_can_only_be_discarded(desk: Desk) -> None:
    stored = desk.inbox.store((b"junk",))
    broken = BrokenObject("", stored.name, stored.sha256, ReasonCode.UNREADABLE, "cut short", "SCANNER", NOW)
    for _ in range(2):
        open_ledger(desk.database).record_broken(broken)
    (item,) = quarantine.list_items(desk.database)
    with pytest.raises(quarantine.CannotRelease):
        quarantine.release(desk.database, item.id)
    assert quarantine.discard(desk.database, item.id, reason="noise")
    assert not desk.inbox.path(stored.name).exists()
    again = quarantine.get_item(desk.database, item.id)
    assert again is not None
    assert (again.state, again.resolved_reason) == ("discarded", "noise")
    json.dumps(again.as_dict())


# --- crashes and races ------------------------------------------------------------------------------------------------


def test_silence_while_nothing_could_come_is_no_silence(desk: Desk, images: list[Path]) -> None:
    """The node was down in the middle of an exam; its first look at the start gave the exam up."""
    desk.arrive_all(images[:-1])
    starts = 20 * IDLE_S
    desk.intake.sweep(later(starts), later(starts))
    assert desk.exam.state == ExamState.COLLECTING
    desk.intake.sweep(later(starts + IDLE_S - 1), later(starts))
    assert desk.exam.state == ExamState.COLLECTING
    desk.intake.sweep(later(starts + IDLE_S), later(starts))
    assert desk.exam.state == ExamState.INCOMPLETE


def test_a_look_that_a_crash_interrupted_is_taken_again(desk: Desk, images: list[Path]) -> None:
    def crash(*_: object, **__: object) -> ExamAssembly:
        raise KeyboardInterrupt

    desk.arrive_all(images)
    dying = Intake(desk.database, desk.settings, assemble=crash)
    with pytest.raises(KeyboardInterrupt):
        dying.sweep(later(1))
    Intake(desk.database, desk.settings).sweep(later(2))
    assert len(desk.jobs) == 1


def test_a_bug_met_by_one_exam_holds_that_exam_and_not_the_others(
    desk: Desk, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object, **__: object) -> ExamAssembly:
        raise ZeroDivisionError

    desk.arrive_all(images)
    Intake(desk.database, desk.settings, assemble=bug).sweep(later(1))
    (item,) = quarantine.list_items(desk.database)
    assert item.code == ReasonCode.INTERNAL
    assert desk.exam.state == ExamState.HELD
    assert "ZeroDivisionError" in caplog.text


def test_an_image_that_arrives_during_the_look_is_not_lost(desk: Desk, images: list[Path]) -> None:
    """The look sees 27 images and silence; the 28th arrives before the decision is written."""
    desk.arrive_all(images[:-1])

    def slow_assembly(*_: object, **__: object) -> ExamAssembly:
        desk.arrive(images[-1], IDLE_S)
        return ExamAssembly(AssemblyState.INCOMPLETE, (INCOMPLETE,))

    Intake(desk.database, desk.settings, assemble=slow_assembly).sweep(later(IDLE_S))
    assert desk.exam.state == ExamState.COLLECTING
    desk.sweep(IDLE_S + 1)
    assert len(desk.jobs) == 1
    assert desk.cases == []


def test_headers_are_kept_as_facts(desk: Desk, images: list[Path]) -> None:
    desk.arrive(images[0])
    desk.sweep(1)
    with desk.database.read() as connection:
        row = connection.execute(select(db.instance.c.state, db.instance.c.facts)).one()
    assert row.state == InstanceState.INDEXED
    assert "Phantom" not in row.facts
    assert "P-17" not in row.facts


def test_a_job_parked_after_failures_marks_the_exam(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    for _ in range(3):
        job = jobs.claim(desk.database, "w", NOW, 60.0)
        assert job is not None
        jobs.fail(desk.database, job, "bug", NOW + timedelta(seconds=1), 3)
    assert desk.exam.state == ExamState.FAILED
    assert desk.jobs[0].state is JobState.FAILED


def test_a_lost_file_of_one_exam_does_not_keep_the_others_waiting(desk: Desk, images: list[Path]) -> None:
    """Its facts are of an earlier version, so it is read anew: each sweep ended there, with all exams behind it."""
    desk.arrive_all(images[:20])
    desk.sweep(0)
    with desk.database.write() as connection:
        connection.execute(update(db.instance).values(facts=json.dumps({"rows": 6})))
        path = connection.execute(select(db.instance.c.path)).scalars().first()
    (desk.database.inbox_dir / str(path)).unlink()
    later_exam = []
    for number, image in enumerate(images):
        dataset = pydicom.dcmread(image)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = "1.2.4", "1.2.4.1", "P-18"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.4.1.{number}"
        later_exam.append(image.with_name(f"later-{number}.dcm"))
        dataset.save_as(later_exam[-1])
    desk.arrive_all([images[20], *later_exam], 1)
    desk.sweep(2)
    assert [job.study_uid for job in desk.jobs] == ["1.2.4"]
    with desk.database.read() as connection:
        states = {row.study_uid: row.state for row in connection.execute(select(db.exam))}
    assert states == {"1.2.3": ExamState.HELD, "1.2.4": ExamState.QUEUED}
    assert ("INTERNAL", "held") in desk.cases
