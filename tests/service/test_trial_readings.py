"""Blinded readings: a random order, copies that tell nothing, and discs that come back to their own exam."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corrected_masks import edited, frames_of, put_frames, write_automatic
from desk import Desk, open_desk
from pydicom import Dataset, dcmread
from records import NOW
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import insert, select, update

from dicom_io.headers import read_facts
from processing.refusal import UnsuitableInput
from service import jobs
from service import trial_tables as trials
from service.cli import main
from service.states import JobState, VisitState
from service.trials import readings
from service.trials.readings import NoReading, export_next, finish, list_readings, reading_order

SHAPE = (5, 54, 40)
#: What a reader must not learn from any byte of a copy.
CANARIES = {
    "PatientName": "Canary^Patricia",
    "PatientID": "CANARY-4711",
    "PatientBirthDate": "19610304",
    "PatientAge": "064Y",
    "InstitutionName": "Canary Hospital",
    "StationName": "CANARYMR1",
    "DeviceSerialNumber": "CANARY-SERIAL",
    "SoftwareVersions": "CANARY-27",
    "StudyDescription": "CANARY M12 follow-up",
    "AccessionNumber": "CANARY-ACC",
    "StudyID": "CANARY-M12",
    "StudyDate": "20270211",
    "AcquisitionDate": "20270211",
    "ClinicalTrialProtocolID": "DISC-1",
    "ClinicalTrialSiteID": "CANARYSITE",
    "ClinicalTrialSubjectID": "CANARYSUBJ",
    "ClinicalTrialTimePointID": "CANARYM12",
}
TELLING = ("CANARY", "Canary", "20270211", "19610304")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = write_mapss(tmp_path_factory.mktemp("scanner"), mapss_signal(*SHAPE))
    for path in paths:
        dataset = dcmread(path)
        for keyword, value in CANARIES.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return paths


@pytest.fixture(scope="module")
def automatic(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_automatic(images, tmp_path_factory.mktemp("own") / "seg.dcm")


@pytest.fixture
def desk(tmp_path: Path, images: list[Path], automatic: Path) -> Iterator[Desk]:
    """A node that has measured an exam, which is a visit of a trial."""
    with open_desk(tmp_path, completion={"idle_s": 30.0}) as opened:
        opened.arrive_all(images)
        opened.sweep(1)
        opened.run_job()
        folder = opened.settings.storage_dir / jobs.exam_folder(1) / "v1"
        (folder / "dicom").mkdir(parents=True)
        shutil.copy(automatic, folder / "dicom" / "seg.dcm")
        uid = str(dcmread(automatic, stop_before_pixels=True).SOPInstanceUID)
        made = [{"kind": "seg", "path": "dicom/seg.dcm", "sop_class_uid": "1.2", "sop_instance_uid": uid}]
        (folder / "result.json").write_text(json.dumps({"objects": made}))
        with opened.database.write() as connection:
            trial = {"protocol_id": "DISC-1", "plan": "", "plan_sha256": "", "file": "", "registered_at": NOW}
            connection.execute(insert(trials.trial).values(id=1, **trial))
            subject = {"trial_id": 1, "subject_id": "CANARYSUBJ", "site_id": "S1", "state": "active"}
            connection.execute(insert(trials.subject).values(id=1, **subject, created_at=NOW))
            visit = {"subject_id": 1, "name": "M12", "exam_id": 1, "job_id": 1, "state": str(VisitState.MEASURED)}
            connection.execute(insert(trials.visit).values(id=1, **visit, assigned_by="date", changed_at=NOW))
        yield opened


def copies(folder: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(folder.iterdir())]


def redrawn(folder: Path, out: Path) -> Path:
    """A reader takes a column of voxels away and saves, as a viewer does."""
    (path,) = folder.glob("discs-*.dcm")
    dataset = edited(dcmread(path))
    frames = frames_of(dataset)
    frames[:, :, 12] = 0
    put_frames(dataset, frames, dataset.PerFrameFunctionalGroupsSequence)
    dataset.save_as(out)
    return out


@pytest.mark.parametrize("seed", range(20))
def test_the_order_has_every_visit_and_a_share_twice(seed: int) -> None:
    order = reading_order(range(100, 140), 0.1, seed)
    counts = Counter(visit for visit, _ in order)
    assert set(counts) == set(range(100, 140))
    assert sorted(counts.values()) == [1] * 36 + [2] * 4
    assert [visit for visit, is_repeat in order if is_repeat] == [
        visit for place, (visit, _) in enumerate(order) if visit in [one for one, _ in order[:place]]
    ]
    assert order == reading_order(range(100, 140), 0.1, seed)
    assert order != reading_order(range(100, 140), 0.1, seed + 1)


def test_the_order_is_random() -> None:
    """Over many seeds each visit is as often in the first half as in the second."""
    first = Counter(itertools.chain.from_iterable(reading_order(range(8), 0.0, seed)[:4] for seed in range(2000)))
    counts = [first[one, False] for one in range(8)]
    assert sum(counts) == 8000
    assert all(abs(number - 1000) < 4.5 * np.sqrt(2000 * 0.25) for number in counts)


def test_copies_tell_nothing_but_the_pictures(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    assert readings.assign(desk.database, "DISC-1", "ann", repeat_share=0.0, seed=3) == 1
    out = tmp_path / "reading"
    reading = export_next(desk.database, "ann", out)
    assert len(list(out.glob("image-*.dcm"))) == len(images)
    for path in out.iterdir():
        content = path.read_bytes()
        for word in TELLING:
            assert word.encode() not in content, (path.name, word)
    pixels = {dcmread(path).PixelData for path in images}
    for dataset in copies(out):
        assert dataset.PatientID == dataset.ClinicalTrialSubjectReadingID == reading.reading_id
        assert "ClinicalTrialTimePointID" not in dataset
        assert "ClinicalTrialSubjectID" not in dataset
        assert dataset.StudyDate == ""
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
        assert dataset.Modality == "SEG" or dataset.PixelData in pixels
    stacks = [facts for path in out.glob("image-*.dcm") for facts in read_facts(path)]
    assert len({one.series_uid for one in stacks}) == len({dcmread(path).SeriesInstanceUID for path in images})


def test_one_visit_at_a_time(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(NoReading, match="no trial"):
        readings.assign(desk.database, "DISC-9", "ann", repeat_share=0.0, seed=3)
    assert readings.assign(desk.database, "DISC-1", "ann", repeat_share=1.0, seed=3) == 2
    assert readings.assign(desk.database, "DISC-1", "ann", repeat_share=1.0, seed=3) == 0
    first = export_next(desk.database, "ann", tmp_path / "a")
    assert export_next(desk.database, "ann", tmp_path / "b").reading_id == first.reading_id
    with pytest.raises(FileExistsError):
        export_next(desk.database, "ann", tmp_path / "a")
    for reader, reading_id in (("bob", first.reading_id), ("ann", "R-AAAAAAAA")):
        with pytest.raises(NoReading, match="no open reading"):
            finish(desk.database, reader, reading_id, None)
    assert finish(desk.database, "ann", first.reading_id, None) == "the discs stay as they are"
    second = export_next(desk.database, "ann", tmp_path / "c")
    assert (first.is_repeat, second.is_repeat) == (False, True)
    assert second.reading_id != first.reading_id
    once, again = copies(tmp_path / "b")[0], copies(tmp_path / "c")[0]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "FrameOfReferenceUID"):
        assert once.get(keyword) is None or once.get(keyword) != again.get(keyword)
    finish(desk.database, "ann", second.reading_id, None)
    with pytest.raises(NoReading, match="nothing left"):
        export_next(desk.database, "ann", tmp_path / "d")


def test_drawn_discs_come_back_to_their_own_exam(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    readings.assign(desk.database, "DISC-1", "ann", repeat_share=1.0, seed=3)
    reading = export_next(desk.database, "ann", tmp_path / "reading")
    drawn = redrawn(tmp_path / "reading", tmp_path / "drawn.dcm")
    said = finish(desk.database, "ann", reading.reading_id, drawn)
    assert said == "the discs go to the exam, to be measured"
    desk.sweep(60)
    assert desk.cases == []
    first, second = desk.jobs
    assert (second.exam_id, second.version, second.state) == (first.exam_id, 2, JobState.QUEUED)
    assert second.correction is not None
    back = dcmread(desk.database.inbox_dir / second.correction)
    assert back.PatientID == CANARIES["PatientID"]
    assert back.StudyInstanceUID == dcmread(images[0]).StudyInstanceUID
    assert "ClinicalTrialSubjectReadingID" not in back

    again = export_next(desk.database, "ann", tmp_path / "again")  # the automatic discs, not the ones just drawn
    assert again.is_repeat
    drawn = redrawn(tmp_path / "again", tmp_path / "drawn-again.dcm")
    assert "not measured" in finish(desk.database, "ann", again.reading_id, drawn)
    desk.sweep(90)
    assert len(desk.jobs) == 2
    assert (desk.database.storage_dir / "readings" / again.reading_id / "discs.dcm").is_file()


def test_discs_of_another_reading_are_refused(desk: Desk, images: list[Path], automatic: Path, tmp_path: Path) -> None:
    readings.assign(desk.database, "DISC-1", "ann", repeat_share=1.0, seed=3)
    first = export_next(desk.database, "ann", tmp_path / "first")
    drawn = redrawn(tmp_path / "first", tmp_path / "drawn.dcm")
    finish(desk.database, "ann", first.reading_id, None)
    second = export_next(desk.database, "ann", tmp_path / "second")
    for wrong in (drawn, images[0], automatic):
        with pytest.raises(UnsuitableInput):
            finish(desk.database, "ann", second.reading_id, wrong)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(drawn.read_bytes()[:500])
    with pytest.raises(UnsuitableInput):
        finish(desk.database, "ann", second.reading_id, broken)
    assert [one.done_at is None for one in list_readings(desk.database, "ann")] == [False, True]


def test_what_is_held_is_not_read(desk: Desk) -> None:
    with desk.database.write() as connection:
        connection.execute(update(trials.visit).values(state=str(VisitState.HELD)))
    assert readings.assign(desk.database, "DISC-1", "ann", repeat_share=0.5, seed=1) == 0


def test_the_commands(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(json.dumps({"storage_dir": str(desk.settings.storage_dir)}))

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["trial", "readings", *words, "--config", str(config)])
        said = capsys.readouterr()
        return status, said.out, said.err

    assert run("assign", "--trial", "DISC-1", "--reader", "ann", "--seed", "1")[:2] == (0, "1 readings for ann\n")
    assert run("assign", "--trial", "DISC-1", "--reader", "bob", "--seed", "1", "--repeat-share", "2")[0] == 2
    status, said, _ = run("next", "--reader", "ann", "--out", str(tmp_path / "reading"))
    reading_id = said.partition(":")[0]
    assert status == 0
    listed = run("list")[1]
    assert listed == f"ann     1  {reading_id}  open\n"
    assert "CANARY" not in listed
    wrong = tmp_path / "wrong.dcm"
    wrong.write_bytes(b"x")
    assert run("done", reading_id, "--reader", "ann", "--seg", str(wrong))[0] == 3
    assert run("done", reading_id, "--reader", "ann")[0] == 0
    assert run("next", "--reader", "ann", "--out", str(tmp_path / "more"))[0] == 3
    with desk.database.read() as connection:
        assert connection.execute(select(trials.reading.c.done_at)).scalar_one() is not None
