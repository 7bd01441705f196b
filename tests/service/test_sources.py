"""A source PACS is asked what an exam holds, and sends what has not come. The PACS is Orthanc."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pydicom
import pytest
from desk import IDLE_S, Desk, open_desk
from peers import Orthanc, free_port, need, storescu
from pydicom.uid import SecondaryCaptureImageStorage
from records import later
from small_mr_exam import mapss_signal, mr_dataset, write_mapss
from sqlalchemy import update

from config.settings import Source
from dicom_io.receiver import BrokenObject, open_receiver
from dicom_io.sender import PeerUnavailable
from processing.refusal import ReasonCode
from service import database as db
from service.arrivals import open_ledger
from service.sources import MOST_FETCHES, SourceDesk
from service.states import ExamState

pytestmark = pytest.mark.peers

NODE_PORT = free_port()
_numbers = count(1)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    need("Orthanc", "storescu")
    with Orthanc(tmp_path_factory.mktemp("orthanc"), modalities={"DISCNODE": NODE_PORT}) as peer:
        yield peer


class Site:
    """A scanner's exam that a PACS may have, and the node's desks. The study is the test's own: Orthanc keeps all."""

    def __init__(self, folder: Path, desk: Desk, pacs: Orthanc, study: str) -> None:
        self.desk = desk
        self.pacs = pacs
        self.study = study
        self.folder = folder
        self.now = later(0)

    def scan(self, n_slices: int = 4, **attributes: Any) -> list[Path]:
        """A MAPSS exam, slice by slice: after each slice it looks whole. The count is not announced."""
        self.folder.mkdir()
        own = {"StudyInstanceUID": self.study, "SeriesInstanceUID": f"{self.study}.1", "ImagesInAcquisition": None}
        paths = write_mapss(self.folder, mapss_signal(n_slices), **(own | attributes))
        for path in paths:
            dataset = pydicom.dcmread(path)
            uid = dataset.SOPInstanceUID.replace("1.2.3", self.study)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
            dataset.save_as(path)
        return sorted(paths, key=lambda path: (path.name.split("-")[2], path.name))

    def archive(self, paths: list[Path]) -> None:
        assert storescu(self.pacs.port, paths, called="ORTHANC").returncode == 0

    def source(self, **changes: Any) -> SourceDesk:
        values = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": self.pacs.port, "timeout_s": 5}
        source = Source.model_validate(values | changes)
        return SourceDesk(
            self.desk.database, self.desk.settings, source, judge=lambda: self.desk.intake.sweep(self.now)
        )

    def look(self, source: SourceDesk, seconds: float) -> None:
        self.now = later(seconds)
        self.desk.intake.sweep(self.now)
        source.look(self.now)
        table, soon = db.exam, self.now + timedelta(seconds=0.1)  # what was fetched has come in the time of the test
        with self.desk.database.write() as connection:
            late = update(table).where(table.c.last_arrival_at > soon)
            connection.execute(late.values(last_arrival_at=soon))


@pytest.fixture
def site(tmp_path: Path, pacs: Orthanc) -> Iterator[Site]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}, port=NODE_PORT) as desk:
        yield Site(tmp_path / "scanner", desk, pacs, f"1.2.9.{next(_numbers)}")


@pytest.mark.parametrize("way", ["c-get", "c-move", "wado-rs"])
def test_two_images_that_did_not_come_are_fetched_and_the_exam_is_analysed_once(site: Site, way: str) -> None:
    images = site.scan(ImagesInAcquisition=28)
    desk = site.desk
    site.archive(images)
    desk.arrive_all([*images[:5], *images[6:20], *images[21:]])
    desk.sweep(IDLE_S)
    assert desk.exam.state == ExamState.INCOMPLETE
    assert "26/28" in desk.exam.detail
    source = site.source(retrieve=[way], dicomweb_url=f"http://127.0.0.1:{site.pacs.http_port}/dicom-web")
    receiver = open_receiver(desk.settings, desk.inbox, open_ledger(desk.database))
    try:
        site.look(source, IDLE_S + 1)
    finally:
        receiver.close(0.1)
    (job,) = desk.jobs
    assert (len(job.inputs), desk.exam.state, job.calling_ae) == (28, ExamState.QUEUED, "SCANNER")
    for seconds in (2, 5, 30):
        site.look(source, IDLE_S + seconds)
    assert len(desk.jobs) == 1
    assert all(state == "resolved" for _, state in desk.cases)


def test_as_many_images_as_the_source_has_is_evidence_when_it_said_so_twice(site: Site) -> None:
    images, source = site.scan(), site.source()
    site.archive(images)
    site.desk.arrive_all(images)
    site.look(source, 1.0)
    assert site.desk.jobs == []  # the source may still be receiving
    site.look(source, 2.0)  # too early to count as a second time
    assert site.desk.jobs == []
    site.look(source, 3.1)
    assert len(site.desk.jobs) == 1


def test_a_source_that_is_still_receiving_is_no_evidence(site: Site) -> None:
    """It has just what has come here, slice after slice, since it sends us the exam itself."""
    images, source = site.scan(), site.source()
    for number in range(4):
        some = images[7 * number : 7 * number + 7]
        site.archive(some)
        site.desk.arrive_all(some, 1.5 * number)
        site.look(source, 1.5 * number + 1)
        assert site.desk.jobs == []
    site.look(source, 9)
    site.look(source, 11.1)
    (job,) = site.desk.jobs
    assert len(job.inputs) == 28


def test_what_a_source_said_before_the_last_image_came_is_no_evidence(site: Site) -> None:
    """It had three slices while we had two; now we have three, and it may have four."""
    images, source = site.scan(), site.source()
    site.archive(images[:21])
    site.desk.arrive_all(images[:14])
    for seconds in (1, 3.5):
        site.look(source, seconds)
    site.desk.arrive_all(images[14:21], 4)
    site.desk.sweep(4.1)
    assert site.desk.jobs == []
    site.archive(images[21:])
    site.look(source, 6)
    site.look(source, 8.5)
    assert site.desk.jobs == []


def test_whole_slices_that_only_the_source_has_are_awaited_and_then_fetched(site: Site) -> None:
    images, source = site.scan(), site.source(retrieve=[])
    site.archive(images)
    site.desk.arrive_all(images[:21])
    for seconds in (1, 4, 11, IDLE_S + 1):
        site.look(source, seconds)
    assert (site.desk.exam.state, site.desk.jobs) == (ExamState.INCOMPLETE, [])
    assert "21/28" in site.desk.exam.detail
    fetching = site.source(name="fetching")
    for seconds in (2, 4.5, 7):
        site.look(fetching, IDLE_S + seconds)
    assert [len(job.inputs) for job in site.desk.jobs] == [28]


def test_missing_images_are_fetched_before_the_timer_when_the_source_has_them(site: Site) -> None:
    images, source = site.scan(), site.source()
    site.archive(images)
    site.desk.arrive_all(images[:-1])
    site.look(source, 1)
    assert site.desk.exam.state == ExamState.COLLECTING  # the sender may still be sending
    site.look(source, 10.5)
    site.look(source, 13)
    assert [len(job.inputs) for job in site.desk.jobs] == [28]


def test_a_series_of_which_nothing_came_is_fetched_if_a_card_can_mean_it(site: Site) -> None:
    """One series for each time; that of 40 ms did not come, and the study has a spectroscopy and a CT, too."""
    images = site.scan()
    for path in images:
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = f"{site.study}.2.{dataset.EchoNumbers}"
        dataset.save_as(path)
    site.archive(images)
    others = []
    for number, attributes in enumerate(({"SeriesDescription": "PRESS"}, {"Modality": "CT"}), 5):
        uid = f"{site.study}.{number}"
        path = site.folder / f"other-{number}"
        own = {"StudyInstanceUID": site.study, "SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.1"}
        mr_dataset(mapss_signal()[0, 0], **(own | attributes)).save_as(path, enforce_file_format=True)
        others.append(path)
    site.archive(others)
    site.desk.arrive_all([path for path in images if path.name.split("-")[1] != "4"])
    source = site.source()
    for seconds in (1, 2, 4, 6):
        site.look(source, IDLE_S + seconds)
    assert [len(job.inputs) for job in site.desk.jobs] == [28]
    assert set(site.desk.series_uids) == {f"{site.study}.2.{number}" for number in range(1, 8)}


def test_a_source_is_only_asked_about_exams_that_it_knows(site: Site) -> None:
    images = site.scan()
    site.archive(images)
    site.desk.arrive_all(images[:-1])
    site.look(site.source(calling_ae_titles=["OTHER"]), IDLE_S + 1)
    assert site.desk.exam.state == ExamState.INCOMPLETE
    source = site.source(calling_ae_titles=["OTHER", "SCANNER"])
    site.look(source, IDLE_S + 2)
    site.look(source, IDLE_S + 5)
    assert len(site.desk.jobs) == 1


def test_what_is_no_image_at_the_source_is_not_awaited(site: Site) -> None:
    images, source = site.scan(), site.source()
    site.archive([*images, capture_in(site)])
    site.desk.arrive_all(images)
    for seconds in (1, 3.5):
        site.look(source, seconds)
    assert [len(job.inputs) for job in site.desk.jobs] == [28]


def test_what_is_no_image_and_came_is_not_awaited_either(site: Site) -> None:
    images, source = site.scan(), site.source()
    other = capture_in(site)
    site.archive([*images, other])
    site.desk.arrive_all([*images, other])
    for seconds in (1, 3.5):
        site.look(source, seconds)
    assert [len(job.inputs) for job in site.desk.jobs] == [28]
    assert site.desk.cases == [("UNSUPPORTED_OBJECT", "held")]


def capture_in(site: Site) -> Path:
    """A screenshot that somebody has put into the series."""
    uid = f"{site.study}.1.77"
    own = {"StudyInstanceUID": site.study, "SeriesInstanceUID": f"{site.study}.1", "SOPInstanceUID": uid}
    dataset = mr_dataset(mapss_signal()[0, 0], SOPClassUID=SecondaryCaptureImageStorage, **own)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.save_as(site.folder / "capture", enforce_file_format=True)
    return site.folder / "capture"


def test_a_broken_image_is_fetched_whole(site: Site) -> None:
    """What came cut short lies in quarantine; the source has it as it was."""
    images, source = site.scan(), site.source()
    site.archive(images)
    receiver = open_receiver(site.desk.settings, site.desk.inbox, open_ledger(site.desk.database))
    try:
        storescu(NODE_PORT, images[:-1])
    finally:
        receiver.close(0.1)
    uid = pydicom.dcmread(images[-1]).SOPInstanceUID
    open_ledger(site.desk.database).record_broken(
        BrokenObject(uid, "objects/00/cut.dcm", "0" * 64, ReasonCode.UNREADABLE, "cut short", "SCANNER", later(0))
    )
    site.look(source, 1)
    for seconds in (11, 14, 17):
        site.look(source, seconds)
    assert [len(job.inputs) for job in site.desk.jobs] == [28]


def test_a_source_that_cannot_send_is_asked_a_few_times_and_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its archive is off line: it lists what it does not send."""
    fetches: list[set[str]] = []
    monkeypatch.setattr("service.sources.get_objects", lambda *arguments: fetches.append(arguments[3]))
    images, source = site.scan(), site.source(retrieve=["c-get"])
    site.archive(images)
    site.desk.arrive_all(images[:-2])
    for minutes in range(120):
        site.look(source, IDLE_S + 60 * minutes)
    assert 3 <= len(fetches) <= MOST_FETCHES
    assert all(len(one) == 2 for one in fetches)
    assert site.desk.exam.state == ExamState.INCOMPLETE


def test_a_source_that_does_not_answer_is_left_alone_and_the_timer_decides(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def unavailable(*_: object) -> None:
        calls.append(0)
        raise PeerUnavailable("no association")

    monkeypatch.setattr("service.sources.find_series", unavailable)
    images, source = site.scan(), site.source()
    site.desk.arrive_all(images)
    for number in range(int(IDLE_S * 2)):
        site.look(source, number * 0.5)
    assert site.desk.jobs == []
    assert len(calls) <= 5
    site.look(source, IDLE_S)
    assert len(site.desk.jobs) == 1
