"""Segmentations that come back to a node: matched, checked, queued as the next version, or held with a reason."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corrected_masks import EDITOR, VARIANTS, edited, frames_of, put_frames, write_automatic
from desk import IDLE_S, Desk, open_desk
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from records import NOW
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import select

from config.corrections import CorrectionSettings
from config.protocol_cards import load_cards
from config.settings import Repeats
from dicom_io.receiver import Recorded
from processing.refusal import Reason, ReasonCode
from processing.results import Verdict
from service import database as db
from service import jobs, quarantine
from service.outbox import Parcel, put_in_outbox
from service.quarantine_details import describe_item
from service.states import ExamState, InstanceState, JobState

SHAPE = (5, 54, 40)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_mapss(tmp_path_factory.mktemp("scanner"), mapss_signal(*SHAPE))


@pytest.fixture(scope="module")
def automatic(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_automatic(images, tmp_path_factory.mktemp("own") / "seg.dcm")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}) as opened:
        yield opened


def publish(desk: Desk, version: int, segmentation: Path) -> None:
    """Leave a result with this segmentation, as a worker does."""
    folder = desk.settings.storage_dir / jobs.exam_folder(1) / f"v{version}"
    (folder / "dicom").mkdir(parents=True)
    shutil.copy(segmentation, folder / "dicom" / "seg.dcm")
    uid = str(dcmread(segmentation, stop_before_pixels=True).SOPInstanceUID)
    made = [{"kind": "seg", "path": "dicom/seg.dcm", "sop_class_uid": "1.2", "sop_instance_uid": uid}]
    (folder / "result.json").write_text(json.dumps({"objects": made}))


@pytest.fixture
def analysed(desk: Desk, images: list[Path], automatic: Path) -> Desk:
    """A node that has measured the exam."""
    desk.arrive_all(images)
    desk.sweep(1)
    desk.run_job()
    publish(desk, 1, automatic)
    return desk


def change(automatic: Path, out: Path, **attributes: Any) -> Path:
    """The automatic segmentation with a column of voxels taken away, signed by another program."""
    dataset = edited(dcmread(automatic))
    frames = frames_of(dataset)
    frames[:, :, 12] = 0
    put_frames(dataset, frames, dataset.PerFrameFunctionalGroupsSequence)
    return saved(dataset, out, **attributes)


def saved(dataset: Dataset, out: Path, **attributes: Any) -> Path:
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(out)
    return out


def states_of_segmentations(desk: Desk) -> list[str]:
    with desk.database.read() as connection:
        table = db.instance
        is_image = table.c.sop_class_uid == "1.2.840.10008.5.1.4.1.1.4"
        return list(connection.execute(select(table.c.state).where(~is_image).order_by(table.c.id)).scalars())


# --- accepted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_corrected_segmentation_is_the_next_version_of_its_exam(
    name: str, analysed: Desk, automatic: Path, images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "corrected.dcm"
    VARIANTS[name](automatic, images, path)
    with caplog.at_level(logging.INFO):
        assert analysed.arrive(path, 5) is Recorded.NEW
        assert analysed.exam.state == ExamState.ANALYSED  # whether the images are whole is not asked again
        analysed.sweep(5)
    first, second = analysed.jobs
    assert (second.version, second.state, second.inputs) == (2, JobState.QUEUED, first.inputs)
    assert second.correction is not None
    assert (analysed.database.inbox_dir / second.correction).is_file()
    assert (analysed.exam.state, analysed.exam.version) == (ExamState.QUEUED, 2)
    assert (analysed.cases, states_of_segmentations(analysed)) == ([], ["correction"])
    analysed.run_job()
    assert analysed.jobs[1].predecessor == 1
    assert EDITOR not in caplog.text


def test_it_may_refer_to_a_series_that_the_node_made(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    """A viewer shows results on the node's derived series, and draws there."""
    path = change(automatic, tmp_path / "corrected.dcm")
    dataset = dcmread(path)
    dataset.ReferencedSeriesSequence = dataset.ReferencedSeriesSequence[:1]
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = dcmread(automatic).SeriesInstanceUID
    analysed.arrive(saved(dataset, path), 5)
    analysed.sweep(5)
    assert (len(analysed.jobs), analysed.cases) == (2, [])


def test_it_is_measured_with_the_images_that_were_measured(
    analysed: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    analysed.arrive(change(automatic, tmp_path / "corrected.dcm"), 5)
    analysed.sweep(5)
    analysed.run_job()
    assert analysed.exam.state == ExamState.ANALYSED
    for seconds in (6, 7, 60):
        analysed.sweep(seconds)
    assert len(analysed.jobs) == 2


def test_of_several_corrections_the_last_one_counts(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    analysed.arrive(change(automatic, tmp_path / "one.dcm"), 5)
    analysed.sweep(5)
    other = edited(dcmread(automatic))
    frames = frames_of(other)
    frames[:, :, 14] = 0
    put_frames(other, frames, other.PerFrameFunctionalGroupsSequence)
    analysed.arrive(saved(other, tmp_path / "two.dcm"), 6)
    analysed.sweep(6)
    assert [(job.version, job.state) for job in analysed.jobs] == [(1, "done"), (2, "superseded"), (3, "queued")]
    newest = analysed.jobs[2].correction
    assert newest is not None
    assert dcmread(analysed.database.inbox_dir / newest).SOPInstanceUID == other.SOPInstanceUID


def test_a_person_may_draw_discs_that_the_networks_could_not_name(
    desk: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    job = jobs.claim(desk.database, "w", NOW, 60.0)
    assert job is not None
    refusal = Reason(ReasonCode.LEVELS_AMBIGUOUS, "six discs, no sacrum")
    jobs.finish(desk.database, job, Verdict.REFUSED, (refusal,), (), NOW)
    assert (desk.exam.state, desk.cases) == (ExamState.REFUSED, [("LEVELS_AMBIGUOUS", "held")])
    desk.arrive(change(automatic, tmp_path / "drawn.dcm"), 5)
    desk.sweep(5)
    assert (desk.exam.state, desk.cases) == (ExamState.QUEUED, [("LEVELS_AMBIGUOUS", "resolved")])
    assert desk.jobs[1].correction is not None


def test_it_may_come_before_the_images(desk: Desk, automatic: Path, images: list[Path], tmp_path: Path) -> None:
    desk.arrive(change(automatic, tmp_path / "corrected.dcm"), 0)
    desk.sweep(1)
    desk.arrive_all(images, 2)
    desk.sweep(3)
    desk.sweep(4)
    assert [job.correction is not None for job in desk.jobs] == [False, True]
    assert [job.state for job in desk.jobs] == ["superseded", "queued"]


def test_one_that_was_held_for_want_of_its_exam_is_taken_up_when_the_exam_is_there(
    desk: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    desk.arrive(change(automatic, tmp_path / "corrected.dcm"), 0)
    desk.sweep(1)
    assert desk.cases == []
    desk.sweep(IDLE_S + 1)
    assert desk.cases == [("SERIES_INCOMPLETE", "held")]
    desk.arrive_all(images, 100)
    desk.sweep(101)
    desk.sweep(102)
    assert desk.cases == [("SERIES_INCOMPLETE", "resolved")]
    assert desk.jobs[-1].correction is not None


def test_when_more_images_come_the_correction_still_holds(
    analysed: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    analysed.arrive(change(automatic, tmp_path / "corrected.dcm"), 5)
    analysed.sweep(5)
    analysed.run_job()
    before = analysed.jobs[1].correction
    folder = tmp_path / "again"
    folder.mkdir()
    signal = mapss_signal(*SHAPE) + 1
    again = write_mapss(folder, signal, SeriesInstanceUID="1.2.3.7", SeriesNumber=7)
    for number, path in enumerate(again):
        saved(dcmread(path), path, SOPInstanceUID=f"1.2.3.7.{number}")
    repeats = analysed.settings.completion.model_copy(update={"repeats": Repeats.LATEST})
    settings = analysed.settings.model_copy(update={"completion": repeats})
    analysed.intake = type(analysed.intake)(analysed.database, settings)
    analysed.arrive_all(again, 10)
    analysed.sweep(11)
    analysed.sweep(100)
    assert [job.version for job in analysed.jobs] == [1, 2, 3]
    assert analysed.jobs[2].inputs != analysed.jobs[1].inputs
    assert analysed.jobs[2].correction == before


# --- nothing new ------------------------------------------------------------------------------------------------------


def test_our_own_segmentation_that_comes_back_starts_nothing(
    analysed: Desk, automatic: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        analysed.arrive(automatic, 5)
        analysed.sweep(6)
    assert (len(analysed.jobs), analysed.cases, states_of_segmentations(analysed)) == (1, [], ["set_aside"])
    assert "segmentation ignored" in caplog.text
    analysed.arrive(saved(edited(dcmread(automatic)), tmp_path / "renamed.dcm"), 7)  # other UIDs, the same discs
    analysed.sweep(8)
    assert (len(analysed.jobs), analysed.cases) == (1, [])


def test_the_same_correction_sent_twice_is_one_version(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    path = change(automatic, tmp_path / "corrected.dcm")
    analysed.arrive(path, 5)
    analysed.sweep(5)
    assert analysed.arrive(path, 6) is Recorded.KNOWN
    analysed.arrive(saved(dcmread(path), tmp_path / "again.dcm", SOPInstanceUID=generate_uid()), 7)
    analysed.sweep(8)
    assert len(analysed.jobs) == 2
    assert states_of_segmentations(analysed) == ["correction", "set_aside"]


def test_the_segmentation_of_a_corrected_version_starts_nothing_either(
    analysed: Desk, automatic: Path, tmp_path: Path
) -> None:
    path = change(automatic, tmp_path / "corrected.dcm")
    analysed.arrive(path, 5)
    analysed.sweep(5)
    analysed.run_job()
    ours = saved(dcmread(path), tmp_path / "v2.dcm", SOPInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid())
    publish(analysed, 2, ours)
    analysed.arrive(ours, 10)
    analysed.sweep(11)
    analysed.arrive(automatic, 12)  # a PACS that sends everything again
    analysed.sweep(13)
    assert (len(analysed.jobs), analysed.cases) == (2, [])


# --- held -------------------------------------------------------------------------------------------------------------


def _other_frame(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.99.9"


def _other_grid(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.0, 1.0]


def _other_images(dataset: Dataset) -> None:
    for number, series in enumerate(dataset.ReferencedSeriesSequence):
        series.SeriesInstanceUID = f"1.2.99.{number}"


def _unknown_level(dataset: Dataset) -> None:
    segment = dataset.SegmentSequence[1]
    segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "360499006"
    segment.SegmentLabel, segment.TrackingUID = "Segment_6", generate_uid()


def _fractional(dataset: Dataset) -> None:
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"


def _overlapping(dataset: Dataset) -> None:
    frames = frames_of(dataset)
    frames[:, 3:6, 14:17] = 1
    put_frames(dataset, frames, dataset.PerFrameFunctionalGroupsSequence)


def _our_uid(dataset: Dataset, automatic: Path) -> None:
    dataset.SOPInstanceUID = dcmread(automatic, stop_before_pixels=True).SOPInstanceUID


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_other_frame, "GEOMETRY_INCONSISTENT"),
        (_other_grid, "GEOMETRY_INCONSISTENT"),
        (_other_images, "IDENTITY_CONFLICT"),
        (_unknown_level, "LEVELS_AMBIGUOUS"),
        (_fractional, "UNSUPPORTED_OBJECT"),
        (_overlapping, "UNSUPPORTED_OBJECT"),
    ],
)
def test_one_that_does_not_fit_is_held_and_spoils_nothing(
    spoil, code: str, analysed: Desk, automatic: Path, tmp_path: Path
) -> None:
    dataset = dcmread(change(automatic, tmp_path / "corrected.dcm"))
    spoil(dataset)
    analysed.arrive(saved(dataset, tmp_path / "spoilt.dcm"), 5)
    analysed.sweep(6)
    assert analysed.cases == [(code, "held")]
    assert (analysed.exam.state, len(analysed.jobs)) == (ExamState.ANALYSED, 1)
    (item,) = quarantine.list_items(analysed.database)
    assert item.what == "object"
    assert quarantine.release(analysed.database, item.id)  # a person may have it judged again
    analysed.sweep(IDLE_S + 10)
    assert analysed.cases == [(code, "released"), (code, "held")]
    assert (analysed.exam.state, len(analysed.jobs)) == (ExamState.ANALYSED, 1)


def test_one_of_a_study_that_is_not_here_waits_and_is_held(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    analysed.arrive(change(automatic, tmp_path / "corrected.dcm", StudyInstanceUID="1.2.99"), 5)
    analysed.sweep(6)
    assert analysed.cases == []
    analysed.sweep(IDLE_S + 6)
    assert analysed.cases == [("SERIES_INCOMPLETE", "held")]
    assert analysed.exam.version == 1  # and there is no second exam


def test_other_discs_under_the_uid_of_ours_are_held(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    dataset = dcmread(change(automatic, tmp_path / "corrected.dcm"))
    _our_uid(dataset, automatic)
    analysed.arrive(saved(dataset, tmp_path / "same-uid.dcm"), 5)
    analysed.sweep(6)
    assert analysed.cases == [("INSTANCE_CONFLICT", "held")]
    assert analysed.exam.state == ExamState.ANALYSED


def test_two_contents_under_one_uid_are_held_and_the_exam_goes_on(
    analysed: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    path = change(automatic, tmp_path / "corrected.dcm")
    analysed.arrive(path, 5)
    analysed.sweep(5)
    other = dcmread(path)
    other.SeriesDescription = "again"
    assert analysed.arrive(saved(other, tmp_path / "other.dcm"), 6) is Recorded.CONFLICT
    analysed.sweep(7)
    assert analysed.cases == [("INSTANCE_CONFLICT", "held")]
    analysed.run_job()
    assert analysed.exam.state == ExamState.ANALYSED


def test_a_correction_that_no_longer_fits_is_held_and_the_exam_measured_without_it(
    analysed: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    analysed.arrive(change(automatic, tmp_path / "corrected.dcm"), 5)
    analysed.sweep(5)
    analysed.run_job()
    folder = tmp_path / "again"
    folder.mkdir()
    again = write_mapss(folder, mapss_signal(5, 20, 20), SeriesInstanceUID="1.2.3.7", SeriesNumber=7)
    for number, path in enumerate(again):
        saved(dcmread(path), path, SOPInstanceUID=f"1.2.3.7.{number}")
    repeats = analysed.settings.completion.model_copy(update={"repeats": Repeats.LATEST})
    settings = analysed.settings.model_copy(update={"completion": repeats})
    analysed.intake = type(analysed.intake)(analysed.database, settings)
    analysed.arrive_all(again, 10)
    analysed.sweep(11)
    analysed.sweep(100)
    assert analysed.jobs[-1].correction is None
    assert ("GEOMETRY_INCONSISTENT", "held") in analysed.cases
    assert InstanceState.HELD in states_of_segmentations(analysed)


def test_what_a_peer_sends_that_may_not_correct_waits_for_a_person(
    analysed: Desk, automatic: Path, tmp_path: Path
) -> None:
    """Anyone who may send images could have changed a result."""
    asked = {"accepted_from": ("READING",)}
    settings = analysed.settings.model_copy(update={"corrections": CorrectionSettings.model_validate(asked)})
    analysed.intake = type(analysed.intake)(analysed.database, settings)
    analysed.arrive(change(automatic, tmp_path / "corrected.dcm"), 5)
    analysed.arrive(automatic, 5)  # ours, sent on by an archive: no case
    analysed.sweep(6)
    assert (analysed.cases, len(analysed.jobs)) == ([("REVIEW_REQUIRED", "held")], 1)
    (item,) = quarantine.list_items(analysed.database)
    described = describe_item(analysed.database, item, load_cards(None), Repeats.HOLD)
    assert "release it" in described["suggestion"]
    assert quarantine.release(analysed.database, item.id)
    analysed.sweep(7)
    analysed.sweep(IDLE_S + 10)
    assert (analysed.cases, len(analysed.jobs)) == ([("REVIEW_REQUIRED", "released")], 2)


def test_one_whose_sender_may_correct_is_measured(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    sender = analysed.jobs[0].calling_ae
    accepting = CorrectionSettings(accepted_from=("READING", sender))
    settings = analysed.settings.model_copy(update={"corrections": accepting})
    analysed.intake = type(analysed.intake)(analysed.database, settings)
    analysed.arrive(change(automatic, tmp_path / "corrected.dcm"), 5)
    analysed.sweep(5)
    assert (analysed.cases, len(analysed.jobs)) == ([], 2)


def test_a_held_segmentation_tells_what_helps(analysed: Desk, automatic: Path, tmp_path: Path) -> None:
    dataset = dcmread(change(automatic, tmp_path / "corrected.dcm"))
    _other_grid(dataset)
    analysed.arrive(saved(dataset, tmp_path / "spoilt.dcm"), 5)
    analysed.sweep(6)
    (item,) = quarantine.list_items(analysed.database)
    described = describe_item(analysed.database, item, load_cards(None), Repeats.HOLD)
    assert "source geometry" in described["suggestion"]
    assert EDITOR not in json.dumps(described)
    assert quarantine.discard(analysed.database, item.id, reason="drawn on other images")
    assert analysed.exam.state in (ExamState.ANALYSED, ExamState.COLLECTING)
    analysed.sweep(IDLE_S + 10)
    assert (analysed.exam.state, len(analysed.jobs)) == (ExamState.ANALYSED, 1)


def test_other_results_of_ours_that_come_back_are_no_news(
    analysed: Desk, automatic: Path, images: list[Path], tmp_path: Path
) -> None:
    report = dcmread(images[0])
    report.SeriesInstanceUID = "1.2.3.50"
    path = saved(report, tmp_path / "mr.dcm", SOPInstanceUID="1.2.3.50.1")
    with analysed.database.write() as connection:
        put_in_outbox(connection, 1, [Parcel("1.2.3.50.1", "mr", "results/mr.dcm", "pacs")], NOW)
    assert analysed.arrive(path, 5) is Recorded.KNOWN
    assert (analysed.exam.state, analysed.exam.has_news) == (ExamState.ANALYSED, False)
    analysed.sweep(IDLE_S + 10)
    assert (len(analysed.jobs), analysed.cases) == (1, [])
