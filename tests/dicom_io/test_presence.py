"""What a destination shows in a query, and what it means that it does not."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from archive_of_ones_choice import Archive
from peers import free_port
from small_mr_exam import mr_dataset

from dicom_io import presence
from dicom_io.presence import Presence, SentObject, find_present, read_sent_object, search_present
from dicom_io.sender import NotOffered, Peer, PeerUnavailable
from dicom_io.stow import WebService

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")

SERIES = "/w/studies/1.2.3/series/1.2.3.1/instances"
MR = "1.2.840.10008.5.1.4.1.1.4"
Answer = tuple[int, object]


def objects(*uids: str) -> list[SentObject]:
    return [SentObject(MR, uid, "1.2.3", "1.2.3.1") for uid in uids]


def listed(*uids: str, series: str = "1.2.3.1") -> list[dict[str, object]]:
    return [{"00080018": {"vr": "UI", "Value": [uid]}, "0020000E": {"vr": "UI", "Value": [series]}} for uid in uids]


@contextmanager
def service(answers: Callable[[str], Answer]) -> Iterator[tuple[WebService, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            status, content = answers(self.path)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(0 if status == 204 else len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield WebService(f"http://127.0.0.1:{server.server_address[1]}/w", timeout_s=5.0), asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_is_listed_is_there_and_others_are_told() -> None:
    with service(lambda path: (200, listed("1.1", "1.9"))) as (web, asked):
        assert search_present(web, objects("1.1")) == Presence(frozenset({"1.1"}), frozenset({"1.9"}))
    assert asked == [SERIES]


def test_a_list_that_was_cut_short_is_not_believed() -> None:
    def answer(path: str) -> Answer:
        return (200, listed(path.split("SOPInstanceUID=")[1])) if "?" in path else (200, listed("1.1"))

    with service(answer) as (web, asked):
        assert search_present(web, objects("1.1", "1.2")).asked == {"1.1", "1.2"}
    assert asked == [SERIES, f"{SERIES}?SOPInstanceUID=1.2"]


def test_objects_of_another_series_do_not_count() -> None:
    with service(lambda path: (200, listed("1.1", series="1.2.3.2"))) as (web, _):
        assert search_present(web, objects("1.1")) == Presence(frozenset(), frozenset())


@pytest.mark.parametrize("nothing", [(204, b""), (200, []), (404, b"no such study")])
def test_nothing_is_shown(nothing: Answer) -> None:
    with service(lambda path: nothing if "series" in path else (200, [])) as (web, _):
        assert search_present(web, objects("1.1")).asked == frozenset()


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_service_without_search_is_told_apart(status: int) -> None:
    with service(lambda path: (status, b"")) as (web, _), pytest.raises(NotOffered):
        search_present(web, objects("1.1"))


@pytest.mark.parametrize("answer", [(200, b"<html>"), (200, {"a": 1}), (200, [1]), (500, b""), (401, b""), (302, b"")])
def test_an_answer_that_says_nothing_is_no_answer(answer: Answer) -> None:
    with service(lambda path: answer) as (web, _), pytest.raises(PeerUnavailable):
        search_present(web, objects("1.1"))


def test_an_answer_that_trickles_in_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_WAITS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.02)

        thread = threading.Thread(target=trickle)
        thread.start()
        web = WebService(f"http://127.0.0.1:{listening.getsockname()[1]}/w", timeout_s=3.0)
        with pytest.raises(PeerUnavailable, match="does not come to its end"):
            search_present(web, objects("1.1"))
        thread.join(20)
        assert not thread.is_alive()


def test_nobody_there() -> None:
    with pytest.raises(PeerUnavailable):
        search_present(WebService(f"http://127.0.0.1:{free_port()}/w", timeout_s=2.0), objects("1.1"))
    with pytest.raises(PeerUnavailable):
        find_present(Peer("127.0.0.1", free_port(), "A", "B", 2.0), objects("1.1"))


def test_a_storage_scp_is_asked_series_by_series_over_one_association() -> None:
    with Archive(kept={"1.1", "1.3"}) as archive:
        shown = find_present(Peer("127.0.0.1", archive.port, "ARCHIVE", "DISCNODE", 5.0), objects("1.1", "1.2"))
    assert shown == Presence(frozenset({"1.1"}), frozenset({"1.3"}))
    with Archive(has_query=False) as archive, pytest.raises(NotOffered):
        find_present(Peer("127.0.0.1", archive.port, "ARCHIVE", "DISCNODE", 5.0), objects("1.1"))


def test_what_a_file_holds_is_read_from_its_head(tmp_path: Path) -> None:
    path = tmp_path / "image"
    mr_dataset(np.zeros((6, 5), dtype=np.uint16)).save_as(path, enforce_file_format=True)
    assert read_sent_object(path) == SentObject(MR, "1.2.3.4", "1.2.3", "1.2.3.1")
    path.write_bytes(path.read_bytes()[:200])
    assert read_sent_object(path) is None
    assert read_sent_object(tmp_path / "gone") is None
