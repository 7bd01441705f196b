"""A source PACS is asked what an exam holds, and sends what has not come. The PACS is Orthanc."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from desk import IDLE_S, Desk, open_desk
from peers import Orthanc, free_port, need, storescu
from records import later
from small_mr_exam import mapss_signal, write_mapss

from config.settings import Source
from dicom_io.receiver import open_receiver
from service.arrivals import open_ledger
from service.sources import SourceDesk
from service.states import ExamState

pytestmark = pytest.mark.peers

NODE_PORT = free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    need("Orthanc", "storescu")
    with Orthanc(tmp_path_factory.mktemp("orthanc"), modalities={"DISCNODE": NODE_PORT}) as peer:
        yield peer


class Site:
    """A scanner, a PACS that has the whole exam, and the node's desks."""

    def __init__(self, folder: Path, desk: Desk, pacs: Orthanc, number: int, *, announced: bool) -> None:
        self.desk = desk
        self.pacs = pacs
        study = f"1.2.9.{number}"
        (folder / "scanner").mkdir()
        attributes = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
        if not announced:
            attributes["ImagesInAcquisition"] = None
        self.images = []
        for path in write_mapss(folder / "scanner", mapss_signal(), **attributes):
            self.images.append(_with_own_uid(path, study))
        self.images.sort()

    def source(self, **changes: Any) -> SourceDesk:
        values = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": self.pacs.port, "timeout_s": 5}
        return SourceDesk(
            self.desk.database,
            self.desk.settings,
            Source.model_validate(values | changes),
            judge=lambda: self.desk.intake.sweep(self.now),
        )

    now: datetime = later(0)

    def look(self, source: SourceDesk, seconds: float) -> None:
        self.now = later(seconds)
        source.look(self.now)


def _with_own_uid(path: Path, study: str) -> Path:
    import pydicom

    dataset = pydicom.dcmread(path)
    uid = dataset.SOPInstanceUID.replace("1.2.3", study)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.save_as(path)
    return path


@pytest.fixture
def make_site(tmp_path: Path, pacs: Orthanc, request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    with open_desk(tmp_path, completion={"idle_s": IDLE_S}, port=NODE_PORT) as desk:

        def make(*, announced: bool = False) -> Site:
            return Site(tmp_path, desk, pacs, abs(hash(request.node.name)) % 10**9, announced=announced)

        yield make


@pytest.mark.parametrize("way", ["c-get", "c-move", "wado-rs"])
def test_two_images_that_did_not_come_are_fetched_and_the_exam_is_analysed_once(
    make_site: Callable[..., Site], way: str
) -> None:
    site = make_site(announced=True)
    desk = site.desk
    assert storescu(site.pacs.port, site.images, called="ORTHANC").returncode == 0
    desk.arrive_all([*site.images[:5], *site.images[6:20], *site.images[21:]])
    desk.sweep(IDLE_S)
    assert desk.exam.state == ExamState.INCOMPLETE
    assert desk.exam.detail.count("26/28") == 1
    source = site.source(retrieve=[way], dicomweb_url=f"http://127.0.0.1:{site.pacs.http_port}/dicom-web")
    receiver = open_receiver(desk.settings, desk.inbox, open_ledger(desk.database))
    try:
        site.look(source, IDLE_S + 1)
    finally:
        receiver.close(0.1)
    (job,) = desk.jobs
    assert (len(job.inputs), desk.exam.state) == (28, ExamState.QUEUED)
    assert job.calling_ae == "SCANNER"
    for seconds in (2, 5, 30):
        site.look(source, IDLE_S + seconds)
        desk.sweep(IDLE_S + seconds)
    assert len(desk.jobs) == 1
    assert all(state == "resolved" for _, state in desk.cases)
