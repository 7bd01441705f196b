"""A storage commitment request is an inventory of the exam, and is answered with what is truly kept."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from desk import IDLE_S, Desk, open_desk
from peers import Orthanc, free_port, need, storescu, wait_until
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import MRImageStorage, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from records import later
from small_mr_exam import mapss_signal, mr_dataset, write_mapss
from sqlalchemy import select

from dicom_io.commitment import CommitmentRequest, FailureReason, ListedObject
from dicom_io.receiver import open_receiver
from service import database as db
from service.arrivals import open_ledger
from service.commitments import open_commitment_desk, report_due, report_on
from service.states import CommitmentState, ExamState

N_SLICES = 4


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}) as opened:
        yield opened


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A MAPSS exam without announced count, slice by slice: after each slice it looks whole."""
    (tmp_path / "scanner").mkdir()
    paths = write_mapss(tmp_path / "scanner", mapss_signal(N_SLICES), ImagesInAcquisition=None)
    return sorted(paths, key=lambda path: (path.name.split("-")[2], path.name))


def uid_of(path: Path) -> str:
    _, echo, slice_index = path.name.split("-")
    return f"1.2.3.1.{slice_index}.{int(echo) + 1}"


def request_of(paths: list[Path], *more: str, seconds: float = 0, transaction: str = "1.2.77") -> CommitmentRequest:
    uids = [*(uid_of(path) for path in paths), *more]
    objects = tuple(ListedObject(str(MRImageStorage), uid) for uid in uids)
    return CommitmentRequest(transaction, "SCANNER", objects, later(seconds))


def ask(desk: Desk, request: CommitmentRequest) -> None:
    open_commitment_desk(desk.database, desk.settings).note(request)


def test_a_list_of_which_all_has_come_starts_the_job_at_once(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images)
    desk.sweep(1)
    assert desk.jobs == []
    ask(desk, request_of(images, seconds=2))
    desk.sweep(2)
    assert len(desk.jobs) == 1


def test_what_is_listed_and_has_not_come_is_awaited_however_whole_the_exam_looks(
    desk: Desk, images: list[Path]
) -> None:
    """The last slice, seven images, is missing: the grid of the other three is full."""
    desk.arrive_all(images[:21])
    ask(desk, request_of(images))
    desk.sweep(IDLE_S + 1)
    assert (desk.exam.state, desk.jobs) == (ExamState.INCOMPLETE, [])
    assert "21/28" in desk.exam.detail
    desk.arrive_all(images[21:], IDLE_S + 2)
    desk.sweep(IDLE_S + 2)
    assert len(desk.jobs) == 1


def test_what_is_listed_beside_two_series_is_awaited_and_named(desk: Desk, images: list[Path], tmp_path: Path) -> None:
    """Which series lacks it is not known, so neither list of the two counts as evidence."""
    localiser = tmp_path / "localiser"
    attributes = {"SeriesInstanceUID": "1.2.3.8", "SOPInstanceUID": "1.2.3.8.1", "SeriesDescription": "LOC"}
    image_type = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    mr_dataset(mapss_signal()[0, 0], ImageType=image_type, **attributes).save_as(localiser, enforce_file_format=True)
    desk.arrive_all([*images[:21], localiser])
    ask(desk, request_of(images[:21], "1.2.3.8.1", "1.2.3.99"))
    desk.sweep(1)
    assert desk.jobs == []
    desk.sweep(IDLE_S + 1)
    assert desk.exam.state == ExamState.INCOMPLETE
    assert "22/23 objects" in desk.exam.detail
    assert "1.2.3.99" in desk.exam.detail


def stranger_exam(folder: Path, n_slices: int) -> tuple[list[Path], list[str]]:
    """Another subject's exam, and its UIDs."""
    folder.mkdir()
    paths = write_mapss(folder, mapss_signal(n_slices), ImagesInAcquisition=None, StudyInstanceUID="1.2.4")
    uids = []
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.4"
        dataset.SeriesInstanceUID = "1.2.4.1"
        dataset.save_as(path)
        uids.append(str(dataset.SOPInstanceUID))
    return paths, uids


def test_what_is_missing_of_a_list_over_two_exams_may_belong_to_either(
    desk: Desk, images: list[Path], tmp_path: Path
) -> None:
    """The smaller exam lacks its last slice; the list was taken as proof that its three slices are all."""
    others, other_uids = stranger_exam(tmp_path / "stranger", 6)
    desk.arrive_all([*images[:21], *others])
    ask(desk, request_of(images, *other_uids))
    desk.sweep(1)
    assert desk.jobs == []
    desk.sweep(IDLE_S + 1)
    assert desk.jobs == []
    desk.arrive_all(images[21:], IDLE_S + 2)
    desk.sweep(IDLE_S + 3)
    assert [(job.study_uid, len(job.inputs)) for job in desk.jobs] == [("1.2.3", 28), ("1.2.4", 42)]


def test_what_is_listed_and_is_no_mr_image_is_not_awaited(desk: Desk, images: list[Path]) -> None:
    """A presentation state, say, that the node does not take: the exam was called incomplete for ever."""
    desk.arrive_all(images)
    request = request_of(images)
    presentation_state = ListedObject("1.2.840.10008.5.1.4.1.1.11.1", "1.2.3.88")
    ask(desk, replace(request, objects=(*request.objects, presentation_state)))
    desk.sweep(1)
    assert len(desk.jobs) == 1


def test_a_list_that_came_first_is_remembered(desk: Desk, images: list[Path]) -> None:
    ask(desk, request_of(images))
    for number, path in enumerate(images):
        desk.arrive(path, number)
        desk.sweep(number)
        assert len(desk.jobs) == (number == len(images) - 1)


def test_a_part_that_was_listed_alone_does_not_start_while_more_has_come(desk: Desk, images: list[Path]) -> None:
    """Four associations with a request each: after the first, its own images are not all that have come."""
    desk.arrive_all(images)
    for number in range(4):
        desk.sweep(number)
        assert desk.jobs == []
        ask(desk, request_of(images[number::4], transaction=f"1.2.77.{number}"))
    desk.sweep(4)
    assert len(desk.jobs) == 1


def test_the_report_tells_what_is_kept_and_why_not(desk: Desk, images: list[Path]) -> None:
    desk.arrive_all(images)
    rows = desk.database.inbox_dir.rglob("*.dcm")
    next(iter(sorted(rows))).write_bytes(b"rotten")
    request = request_of(images, "1.2.3.99")
    wrong_class = ListedObject("1.2.840.10008.5.1.4.1.1.2", uid_of(images[0]))
    report = report_on(desk.database, CommitmentRequest("1.2.77", "S", (*request.objects, wrong_class), later(0)))
    assert len(report.kept) == 27
    reasons = {one.sop_instance_uid: reason for one, reason in report.failed}
    assert reasons["1.2.3.99"] is FailureReason.NO_SUCH_OBJECT_INSTANCE
    assert list(reasons.values()).count(FailureReason.NO_SUCH_OBJECT_INSTANCE) == 2
    assert reasons[uid_of(images[0])] is FailureReason.CLASS_INSTANCE_CONFLICT


def test_a_sender_without_address_is_not_told_and_that_is_said(desk: Desk, images: list[Path]) -> None:
    ask(desk, request_of(images))
    report_due(desk.database, desk.settings, later(1))
    assert states(desk) == [CommitmentState.WAITING]
    report_due(desk.database, desk.settings, later(IDLE_S + 4))
    assert states(desk) == [CommitmentState.UNREPORTABLE]


def states(desk: Desk) -> list[str]:
    with desk.database.read() as connection:
        return list(connection.execute(select(db.commitment.c.state)).scalars())


# --- over the network -------------------------------------------------------------------------------------------------


@pytest.fixture
def open_node(desk: Desk) -> Iterator[int]:
    """Port of a receiver that records into the desk."""
    settings = desk.settings.model_copy(update={"port": free_port()})
    receiver = open_receiver(
        settings, desk.inbox, open_ledger(desk.database), open_commitment_desk(desk.database, settings)
    )
    yield receiver.port
    receiver.close(0.1)


def n_action(association: Any, transaction: str, uids: list[str], action: int = 1) -> int | None:
    information = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, uid
        information.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(
        information, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return None if "Status" not in status else int(status.Status)


def test_the_result_comes_over_the_senders_own_association(desk: Desk, images: list[Path], open_node: int) -> None:
    desk.arrive_all(images)
    reports: list[tuple[int, Dataset]] = []
    came = threading.Event()

    def on_report(event: evt.Event) -> tuple[int, None]:
        reports.append((event.event_type, event.event_information))
        came.set()
        return 0, None

    ae = AE("SCANNER")
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate(
        "127.0.0.1", open_node, ae_title="DISCNODE", evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]
    )
    assert association.is_established
    assert n_action(association, "1.2.77", [uid_of(path) for path in images]) == 0
    assert not came.wait(1.0)  # the receiver reads no files
    report_due(desk.database, desk.settings, _received_at(desk))
    assert came.wait(10)
    wait_until(lambda: states(desk) == [CommitmentState.REPORTED], "the report to be recorded")
    ((event_type, information),) = reports
    assert (event_type, information.TransactionUID, len(information.ReferencedSOPSequence)) == (1, "1.2.77", 28)
    assert n_action(association, "1.2.78", []) == 0x0115
    assert n_action(association, "", ["1.2.3"]) == 0x0115
    assert n_action(association, "1.2.78", ["1.2.3"], action=2) == 0x0123
    association.release()


def test_a_file_that_has_changed_is_not_reported_over_the_senders_association(
    desk: Desk, images: list[Path], open_node: int
) -> None:
    desk.arrive_all(images)
    next(iter(sorted(desk.database.inbox_dir.rglob("*.dcm")))).write_bytes(b"rotten")
    request = request_of(images, seconds=1)
    opened = open_commitment_desk(desk.database, desk.settings)
    opened.note(request)
    report_due(desk.database, desk.settings, later(1))
    assert opened.report(request) is None
    other = request_of(images[2:4], transaction="1.2.78", seconds=1)
    opened.note(other)
    assert opened.report(other) is None  # nobody has looked yet
    report_due(desk.database, desk.settings, later(1))
    report = opened.report(other)
    assert report is not None
    assert (report.kept, report.failed) == (other.objects, ())


def test_what_is_not_yet_recorded_after_a_restart_is_not_reported_missing(desk: Desk, images: list[Path]) -> None:
    open_commitment_desk(desk.database, desk.settings).note(request_of(images, seconds=1))
    starts = later(20 * IDLE_S)
    report_due(desk.database, desk.settings, starts, hearing_since=starts)
    assert states(desk) == [CommitmentState.WAITING]
    end = later(21 * IDLE_S + 10)
    report_due(desk.database, desk.settings, end, hearing_since=starts)
    assert states(desk) == [CommitmentState.UNREPORTABLE]


@pytest.mark.peers
def test_orthanc_is_told_over_a_new_association(tmp_path: Path, images: list[Path]) -> None:
    """Orthanc asks about 28 objects of which the node gets 27, and then all."""
    need("Orthanc", "storescu")
    port = free_port()
    with (
        Orthanc(tmp_path / "orthanc", modalities={"DISCNODE": port}) as pacs,
        open_desk(
            tmp_path,
            completion={"idle_s": IDLE_S},
            port=port,
            peers=[{"ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs.port}, {"ae_title": "SCANNER"}],
        ) as desk,
    ):
        receiver = open_receiver(
            desk.settings, desk.inbox, open_ledger(desk.database), open_commitment_desk(desk.database, desk.settings)
        )
        assert storescu(pacs.port, images, called="ORTHANC").returncode == 0
        assert storescu(port, images[1:]).returncode == 0
        _ask_for_commitment(pacs, images)
        received_at = _received_at(desk)
        report_due(desk.database, desk.settings, received_at)
        assert states(desk) == [CommitmentState.WAITING]  # the 28th may still come
        later_on = received_at.replace(year=received_at.year + 1)
        report_due(desk.database, desk.settings, later_on)
        assert states(desk) == [CommitmentState.REPORTED]
        failed = _result(pacs)
        assert (failed["Status"], [one["SOPInstanceUID"] for one in failed["Failures"]]) == (
            "Failure",
            [uid_of(images[0])],
        )
        assert storescu(port, images[:1]).returncode == 0
        _ask_for_commitment(pacs, images)
        report_due(desk.database, desk.settings, later_on)
        assert _result(pacs)["Status"] == "Success"
        receiver.close(0.1)


def _ask_for_commitment(pacs: Orthanc, images: list[Path]) -> None:
    content = {"DicomInstances": [[str(MRImageStorage), uid_of(path)] for path in images]}
    answer = _post(pacs, "/modalities/DISCNODE/storage-commitment", content)
    pacs.transaction = answer["ID"]  # type: ignore[attr-defined]


def _result(pacs: Orthanc) -> dict[str, Any]:
    found: dict[str, Any] = pacs.get(f"/storage-commitment/{pacs.transaction}")  # type: ignore[attr-defined]
    return found


def _post(pacs: Orthanc, path: str, content: Any) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{pacs.http_port}{path}", json.dumps(content).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def _received_at(desk: Desk) -> Any:
    with desk.database.read() as connection:
        return connection.execute(select(db.commitment.c.received_at)).scalar_one()
