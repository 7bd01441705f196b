"""A source's answers are taken as they come: without counts, twice, about other studies, broken off, or never."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import free_port
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    MRImageStorage,
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)
from small_mr_exam import mr_dataset

from dicom_io.dicomweb import fetch_objects
from dicom_io.inbox import Inbox
from dicom_io.receiver import BrokenObject, Ledger, ReceivedInstance, Recorded
from dicom_io.retriever import find_series, get_objects, list_objects, move_objects
from dicom_io.sender import Peer, PeerUnavailable, abort_associations

STUDY = "1.2.3"


@contextmanager
def scp(*handlers: Any) -> Iterator[Peer]:
    ae = AE("PACS")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_supported_context(MRImageStorage, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    yield Peer("127.0.0.1", server.server_address[1], "PACS", "DISCNODE", 3.0)
    server.shutdown()


def answer(**values: Any) -> Dataset:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def finding(*answers: Dataset, end: int | None = 0) -> Any:
    def on_find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for one in answers:
            yield 0xFF00, one
        if end:
            yield end, None
        if end is None:
            event.assoc.abort()

    return evt.EVT_C_FIND, on_find


def test_series_are_counted_where_the_peer_counts_them() -> None:
    answers = (
        answer(StudyInstanceUID=STUDY, SeriesInstanceUID="1.2.3.1", NumberOfSeriesRelatedInstances=28, Modality="MR"),
        answer(SeriesInstanceUID="1.2.3.2"),
        answer(SeriesInstanceUID="1.2.3.2"),
        answer(SeriesInstanceUID="1.2.3.3", NumberOfSeriesRelatedInstances=5),
        answer(SeriesInstanceUID="1.2.3.3", NumberOfSeriesRelatedInstances=6),
        answer(StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1", NumberOfSeriesRelatedInstances=3),
        answer(Modality="MR"),
    )
    with scp(finding(*answers)) as peer:
        found = find_series(peer, STUDY)
    assert [(one.series_uid, one.n_objects, one.modality) for one in found] == [
        ("1.2.3.1", 28, "MR"),
        ("1.2.3.2", None, ""),
        ("1.2.3.3", None, ""),
    ]


def test_a_peer_that_does_not_know_the_study_has_nothing_of_it() -> None:
    with scp(finding()) as peer:
        assert find_series(peer, STUDY) == ()
        assert list_objects(peer, STUDY, "1.2.3.1") == ()


def test_objects_are_listed_once_each_without_a_class_and_only_of_the_series() -> None:
    answers = (
        answer(SOPInstanceUID="1.2.3.1.2"),
        answer(SOPInstanceUID="1.2.3.1.1", SeriesInstanceUID="1.2.3.1", SOPClassUID=MRImageStorage),
        answer(SOPInstanceUID="1.2.3.1.3", SOPClassUID=SecondaryCaptureImageStorage),
        answer(SOPInstanceUID="1.2.3.1.2"),
        answer(SOPInstanceUID="1.2.3.8.1", SeriesInstanceUID="1.2.3.8"),
        answer(SOPInstanceUID=""),
        answer(Modality="MR"),
    )
    with scp(finding(*answers)) as peer:
        found = list_objects(peer, STUDY, "1.2.3.1")
    assert [(one.sop_uid, one.is_image) for one in found] == [
        ("1.2.3.1.1", True),
        ("1.2.3.1.2", True),
        ("1.2.3.1.3", False),
    ]


@pytest.mark.parametrize("end", [0xA700, 0xFE00, 0xC001, None], ids=["resources", "cancel", "failure", "abort"])
def test_answers_that_do_not_end_well_are_no_answers(end: int | None) -> None:
    found = finding(answer(SeriesInstanceUID="1.2.3.1", NumberOfSeriesRelatedInstances=1), end=end)
    with scp(found) as peer, pytest.raises(PeerUnavailable):
        find_series(peer, STUDY)


def test_a_peer_that_is_not_there_or_lacks_a_service_is_unavailable() -> None:
    nowhere = Peer("127.0.0.1", free_port(), "PACS", "DISCNODE", 2.0)
    with pytest.raises(PeerUnavailable):
        find_series(nowhere, STUDY)
    with scp(finding()) as peer, pytest.raises(PeerUnavailable):
        move_objects(peer, STUDY, "1.2.3.1", ["1.2.3.1.1"])


def test_a_peer_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = Peer("127.0.0.1", silent.getsockname()[1], "PACS", "DISCNODE", 0.5)
        with pytest.raises(PeerUnavailable):
            find_series(peer, STUDY)


# --- fetching ---------------------------------------------------------------------------------------------------------


class Notebook:
    """An inbox, and a record in memory."""

    def __init__(self, folder: Path) -> None:
        self.inbox = Inbox(folder / "inbox")
        self.received: list[ReceivedInstance] = []
        self.broken: list[BrokenObject] = []
        self.ledger = Ledger(self._record, self.broken.append)

    def _record(self, received: ReceivedInstance) -> Recorded:
        self.received.append(received)
        return Recorded.NEW

    @property
    def uids(self) -> list[str]:
        return [one.sop_instance_uid for one in self.received]


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return Notebook(tmp_path)


def image(uid: str) -> Any:
    return mr_dataset(np.arange(30, dtype=np.uint16).reshape(6, 5), SOPInstanceUID=uid)


def test_objects_that_were_not_asked_for_are_refused(notebook: Notebook) -> None:
    def on_get(event: evt.Event) -> Iterator[Any]:
        wanted = event.identifier.SOPInstanceUID
        assert (list(wanted), event.identifier.QueryRetrieveLevel) == (["1.2.3.1.1", "1.2.3.1.2"], "IMAGE")
        yield 3
        for uid in (*wanted, "1.2.3.1.66"):
            yield 0xFF00, image(uid)

    with scp((evt.EVT_C_GET, on_get)) as peer:
        get_objects(peer, STUDY, "1.2.3.1", ["1.2.3.1.2", "1.2.3.1.1"], notebook.inbox, notebook.ledger)
    assert sorted(notebook.uids) == ["1.2.3.1.1", "1.2.3.1.2"]
    assert {one.calling_ae for one in notebook.received} == {"PACS"}


def test_a_source_that_dies_while_it_sends_is_unavailable_and_what_came_is_kept(notebook: Notebook) -> None:
    def on_get(event: evt.Event) -> Iterator[Any]:
        yield 2
        yield 0xFF00, image("1.2.3.1.1")
        event.assoc.abort()
        yield 0xFF00, image("1.2.3.1.2")

    with scp((evt.EVT_C_GET, on_get)) as peer, pytest.raises(PeerUnavailable):
        get_objects(peer, STUDY, "1.2.3.1", ["1.2.3.1.1", "1.2.3.1.2"], notebook.inbox, notebook.ledger)
    assert notebook.uids == ["1.2.3.1.1"]


def file_of(dataset: Any) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


Reply = Callable[[str], tuple[int, str, bytes]]


@contextmanager
def web(reply: Reply) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content_type, body = reply(self.path)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web/"
    server.shutdown()
    server.server_close()


def fetch(url: str, notebook: Notebook, *uids: str) -> None:
    fetch_objects(url, 3.0, (STUDY, "1.2.3.1"), uids, sender="PACS", inbox=notebook.inbox, ledger=notebook.ledger)


def multipart(*contents: bytes, end: bytes = b"--") -> tuple[int, str, bytes]:
    parts = b"".join(b"--x\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in contents)
    return 200, 'multipart/related; type="application/dicom"; boundary="x"', parts + b"--x" + end


def test_an_object_is_read_from_a_multipart_or_a_plain_answer(notebook: Notebook) -> None:
    def reply(path: str) -> tuple[int, str, bytes]:
        uid = path.rpartition("/")[2]
        if uid == "1.2.3.1.9":
            return 404, "text/plain", b"no such object"
        content = file_of(image(uid))
        return multipart(content) if uid == "1.2.3.1.1" else (200, "application/dicom", content)

    with web(reply) as url:
        fetch(url, notebook, "1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.9")
    assert notebook.uids == ["1.2.3.1.1", "1.2.3.1.2"]
    assert notebook.inbox.path(notebook.received[0].name).read_bytes() == file_of(image("1.2.3.1.1"))


def test_another_object_than_the_one_asked_for_is_not_taken(notebook: Notebook) -> None:
    with web(lambda path: multipart(file_of(image("1.2.3.1.66")))) as url:
        fetch(url, notebook, "1.2.3.1.1")
    assert (notebook.uids, notebook.broken) == ([], [])


def test_a_data_set_that_is_cut_short_goes_to_quarantine_as_a_received_one(notebook: Notebook) -> None:
    with web(lambda path: multipart(file_of(image("1.2.3.1.1"))[:-10])) as url:
        fetch(url, notebook, "1.2.3.1.1")
    assert (notebook.uids, len(notebook.broken)) == ([], 1)


@pytest.mark.parametrize(
    "answered",
    [
        (500, "text/plain", b"oops"),
        (401, "text/plain", b"who are you"),
        (200, "text/html", b"<html>log in</html>"),
        (200, "application/dicom", b"not DICOM at all"),
        (200, "application/dicom", b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0\xff\xff\0\0short"),
        (200, 'multipart/related; boundary="x"', b"--x\r\n\r\nno end"),
        multipart(b"", end=b"--"),
        multipart(file_of(image("1.2.3.1.1")), end=b""),
    ],
)
def test_an_answer_that_cannot_be_used_is_unavailability(notebook: Notebook, answered: tuple[int, str, bytes]) -> None:
    with web(lambda path: answered) as url, pytest.raises(PeerUnavailable):
        fetch(url, notebook, "1.2.3.1.1")
    assert (notebook.uids, notebook.broken) == ([], [])


def test_a_service_that_is_not_there_is_unavailable(notebook: Notebook) -> None:
    with pytest.raises(PeerUnavailable):
        fetch(f"http://127.0.0.1:{free_port()}/dicom-web", notebook, "1.2.3.1.1")


def test_a_peer_that_says_nothing_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    """It was waited for two minutes, and so was the end of the node."""
    asked, ended = threading.Event(), threading.Event()
    ledger = Ledger(lambda received: Recorded.NEW, lambda broken: None)

    def hang(event: Any) -> Iterator[int]:
        asked.set()
        ended.wait(60)
        yield 0

    def fetch(peer: Peer) -> None:
        with pytest.raises(PeerUnavailable):
            get_objects(peer, STUDY, f"{STUDY}.1", [f"{STUDY}.1.1"], Inbox(tmp_path / "inbox"), ledger)
        ended.set()

    with scp((evt.EVT_C_GET, hang)) as peer:
        thread = threading.Thread(target=fetch, args=(peer,))
        thread.start()
        assert asked.wait(20)
        abort_associations()
        assert ended.wait(20)
        thread.join()
