"""Exams that an anonymiser has split over several studies: one for each spin-lock time, or one for each scan."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from desk import IDLE_S, Desk, open_desk
from small_mr_exam import MAPSS_TIMES_MS, mapss_signal, write_mapss
from sqlalchemy import select

from service import database as db
from service import jobs
from service.states import ExamState


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}) as opened:
        yield opened


def scan(folder: Path, number: int = 1, *, is_split: bool = True, **attributes: Any) -> list[Path]:
    """A MAPSS exam time by time; each time a study of its own, or all in one study."""
    folder = folder / f"scan-{number}"
    folder.mkdir()
    common = {"StudyDate": "20260301", "ImagesInAcquisition": None}
    paths = write_mapss(folder, mapss_signal() + number, **(common | attributes))
    for path in paths:
        dataset = pydicom.dcmread(path)
        study = f"1.2.{number}.{dataset.EchoNumbers}" if is_split else f"1.2.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
        uid = f"{study}.1.{dataset.SOPInstanceUID}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.save_as(path)
    return sorted(paths, key=lambda path: path.name.split("-")[1])


def exams(desk: Desk) -> list[tuple[str, str]]:
    with desk.database.read() as connection:
        query = select(db.exam.c.state, db.exam.c.detail).order_by(db.exam.c.id)
        return [(row.state, row.detail) for row in connection.execute(query)]


def states(desk: Desk) -> list[str]:
    return [state for state, _ in exams(desk)]


def test_a_study_for_each_time_is_one_exam(desk: Desk, tmp_path: Path) -> None:
    images = scan(tmp_path)
    desk.arrive_all(images)
    desk.sweep(1)
    assert desk.jobs == []  # nothing says that no more slices will come
    desk.sweep(IDLE_S)
    (job,) = desk.jobs
    assert (job.exam_id, job.study_uid, len(job.inputs)) == (1, "1.2.1.1", 28)
    n_times = len(MAPSS_TIMES_MS)
    assert exams(desk) == [(ExamState.QUEUED, ""), *[(ExamState.JOINED, "measured with exam 1")] * (n_times - 1)]


def test_fragments_that_were_given_up_are_taken_up_by_the_last_one(desk: Desk, tmp_path: Path) -> None:
    images = scan(tmp_path)
    desk.arrive_all(images[:20])
    desk.sweep(IDLE_S)
    assert set(states(desk)) == {ExamState.INCOMPLETE}
    desk.arrive_all(images[20:], IDLE_S + 10)
    desk.sweep(IDLE_S + 11)
    assert desk.jobs == []
    desk.sweep(2 * IDLE_S + 10)
    (job,) = desk.jobs
    assert len(job.inputs) == 28
    assert all(state == "resolved" for _, state in desk.cases)
    desk.run_job()
    assert states(desk) == [ExamState.ANALYSED, *[ExamState.JOINED] * 6]


def test_the_announced_count_of_all_parts_together_is_evidence(desk: Desk, tmp_path: Path) -> None:
    images = scan(tmp_path, ImagesInAcquisition=28)
    for number, path in enumerate(images):
        desk.arrive(path, number * 0.1)
        desk.sweep(number * 0.1)
        assert len(desk.jobs) == (number == 27)


def test_a_late_image_of_any_part_reopens_the_whole_exam(desk: Desk, tmp_path: Path) -> None:
    images = scan(tmp_path)
    late = [path for path in images if path.name.endswith("-3")]  # the fourth slice, at all times
    desk.arrive_all([path for path in images if path not in late])
    desk.sweep(IDLE_S)
    desk.run_job()
    desk.arrive(late[-1], IDLE_S + 5)
    desk.sweep(IDLE_S + 6)
    assert set(states(desk)) == {ExamState.COLLECTING}
    desk.arrive_all(late[:-1], IDLE_S + 7)
    desk.sweep(2 * IDLE_S + 8)
    assert [(job.exam_id, job.version, len(job.inputs)) for job in desk.jobs] == [(1, 1, 21), (1, 2, 28)]
    desk.run_job()
    assert jobs.list_jobs(desk.database)[1].predecessor == 1


def test_the_same_parts_again_change_nothing(desk: Desk, tmp_path: Path) -> None:
    images = scan(tmp_path)
    desk.arrive_all(images)
    desk.sweep(IDLE_S)
    desk.run_job()
    desk.arrive_all(images, IDLE_S + 5)
    desk.sweep(3 * IDLE_S)
    assert len(desk.jobs) == 1


def test_two_whole_exams_of_one_subject_on_one_day_stay_two(desk: Desk, tmp_path: Path) -> None:
    for number in (1, 2):
        desk.arrive_all(scan(tmp_path, number, is_split=False))
    desk.sweep(IDLE_S)
    assert [(job.exam_id, len(job.inputs)) for job in desk.jobs] == [(1, 28), (2, 28)]


def test_a_fragment_beside_a_whole_exam_is_not_joined_to_it(desk: Desk, tmp_path: Path) -> None:
    desk.arrive_all(scan(tmp_path, 1, is_split=False))
    desk.arrive_all(scan(tmp_path, 2, is_split=False)[:20])
    desk.sweep(IDLE_S)
    assert states(desk) == [ExamState.QUEUED, ExamState.INCOMPLETE]


@pytest.mark.parametrize(
    "attributes",
    [{"PatientID": "P-18"}, {"StudyDate": "20260302"}, {"FrameOfReferenceUID": "1.2.3.10"}],
    ids=["another subject", "another day", "another position"],
)
def test_what_does_not_belong_together_is_not_joined(desk: Desk, tmp_path: Path, attributes: dict[str, str]) -> None:
    images = scan(tmp_path)
    for path in images[12:16]:
        dataset = pydicom.dcmread(path)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    desk.arrive_all(images)
    desk.sweep(IDLE_S)
    assert desk.jobs == []
    assert set(states(desk)) == {ExamState.INCOMPLETE}


@pytest.mark.parametrize("missing", ["PatientID", "StudyDate"])
def test_images_of_nobody_or_of_no_day_are_not_joined(desk: Desk, tmp_path: Path, missing: str) -> None:
    empty = {"PatientID": "", "PatientBirthDate": ""} if missing == "PatientID" else {"StudyDate": ""}
    desk.arrive_all(scan(tmp_path, **empty))
    desk.sweep(IDLE_S)
    assert desk.jobs == []


def test_two_split_exams_of_one_day_are_not_mixed(desk: Desk, tmp_path: Path) -> None:
    """Fourteen studies: which seven belong together is not known."""
    for number in (1, 2):
        desk.arrive_all(scan(tmp_path, number))
    desk.sweep(IDLE_S)
    assert desk.jobs == []
    assert set(states(desk)) == {ExamState.INCOMPLETE}


def test_a_conflict_in_one_part_holds_every_part(desk: Desk, tmp_path: Path) -> None:
    images = scan(tmp_path)
    desk.arrive_all(images[:24])
    desk.sweep(IDLE_S)
    dataset = pydicom.dcmread(images[0])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(images[0])
    desk.arrive_all([images[0], *images[24:]], IDLE_S + 1)
    desk.sweep(IDLE_S + 2)
    desk.sweep(3 * IDLE_S)
    assert desk.jobs == []
    assert set(states(desk)) <= {ExamState.HELD, ExamState.INCOMPLETE}
    assert ExamState.HELD in states(desk)


def test_two_exams_of_a_day_in_parts_are_told_apart_by_their_frame_of_reference(desk: Desk, tmp_path: Path) -> None:
    """Morning and afternoon: all four parts lay beside each other, and neither exam was ever measured."""
    morning = scan(tmp_path, 1, FrameOfReferenceUID="1.2.3.9")
    afternoon = scan(tmp_path, 2, FrameOfReferenceUID="1.2.3.10")
    desk.arrive_all([*morning[:20], *afternoon[:20]])
    desk.sweep(IDLE_S)
    assert desk.jobs == []
    desk.arrive_all([*afternoon[20:], *morning[20:]], IDLE_S + 10)
    desk.sweep(2 * IDLE_S + 20)
    assert sorted((job.study_uid[:6], len(job.inputs)) for job in desk.jobs) == [("1.2.1.", 28), ("1.2.2.", 28)]
