import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from peers import Orthanc, free_port, need
from small_mr_exam import mr_dataset

from dicom_io.sender import PeerUnavailable, SendOutcome
from dicom_io.stow import WebService, store_each

UIDS = [f"1.2.3.{number}" for number in range(3)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number, uid in enumerate(UIDS):
        paths.append(tmp_path / f"{number}.dcm")
        image = mr_dataset(np.full((6, 5), number, dtype=np.uint16), SOPInstanceUID=uid)
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


Answer = tuple[int, object]


class Misbehaving:
    """A DICOMweb service that answers as it is told; it remembers the requests."""

    def __init__(self, answer: Callable[[int], Answer], *, reads: bool = True) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])) if reads else b""
                service.requests.append(({"path": self.path, **self.headers}, body))
                status, content = answer(len(service.requests) - 1)
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                if not reads:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@contextmanager
def serving(service: Misbehaving) -> Iterator[str]:
    thread = threading.Thread(target=service.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{service.port}/dicom-web/"
    finally:
        service.server.shutdown()
        service.server.server_close()
        thread.join()


def referenced(uid: str, **more: object) -> dict[str, object]:
    return {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}, **more}]}}


def failed(uid: str, reason: int) -> dict[str, object]:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def store(paths: list[Path], url: str, **more: object) -> list[SendOutcome]:
    return list(store_each(paths, WebService(url, timeout_s=5.0, **more)))  # type: ignore[arg-type]


@pytest.mark.peers
def test_a_real_archive_gives_back_the_same_bytes(orthanc: Orthanc, files: list[Path]) -> None:
    outcomes = store(files, orthanc.dicomweb_url)
    assert [(one.path, one.stored, one.status) for one in outcomes] == [(path, True, 0) for path in files]
    assert [orthanc.file_of(uid) for uid in UIDS] == [path.read_bytes() for path in files]
    assert [one.stored for one in store(files, orthanc.dicomweb_url)] == [True] * 3  # a second time does no harm
    assert orthanc.sop_instance_uids == UIDS


@pytest.mark.peers
def test_what_is_no_object_is_refused_and_stops_no_other(orthanc: Orthanc, files: list[Path]) -> None:
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: whole.index(b"DICM") + 200])  # file meta information, and no data set
    outcomes = store(files, orthanc.dicomweb_url)
    assert [one.stored for one in outcomes] == [True, False, True]
    assert orthanc.sop_instance_uids == [UIDS[0], UIDS[2]]


def test_each_object_has_the_outcome_that_the_service_tells(files: list[Path]) -> None:
    answers: list[Answer] = [
        (200, referenced(UIDS[0], **{"00081196": {"vr": "US", "Value": [0xB000]}})),
        (409, failed(UIDS[1], 0xA700)),
        (202, [failed(UIDS[2], 0x0122)]),
    ]
    service = Misbehaving(lambda number: answers[number])
    with serving(service) as url:
        outcomes = store(files, url, headers={"Authorization": "Bearer secret"})
    assert [(one.stored, one.status) for one in outcomes] == [(True, 0xB000), (False, 0xA700), (False, 0x0122)]
    assert [one.detail for one in outcomes][1:] == [
        "0xA700 refused: out of resources",
        "0x0122 refused: SOP class not supported",
    ]
    for (header, body), path in zip(service.requests, files, strict=True):
        assert header["path"] == "/dicom-web/studies"
        assert header["Authorization"] == "Bearer secret"
        assert header["Accept"] == "application/dicom+json"
        boundary = header["Content-Type"].partition("boundary=")[2].encode()
        start, end = body.index(b"\r\n\r\n") + 4, body.rindex(b"\r\n--" + boundary + b"--")
        assert body.startswith(b"--" + boundary + b"\r\nContent-Type: application/dicom")
        assert body[start:end] == path.read_bytes()


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"<html>please log in</html>"),
        (200, {}),
        (200, referenced("1.2.3.99")),
        (200, {"00081199": {"vr": "SQ", "Value": [{}]}}),
        (200, b"[]"),
        (400, b"no"),
        (413, b"too large"),
        (500, b""),
    ],
)
def test_only_an_object_that_is_named_counts_as_stored(files: list[Path], answer: Answer) -> None:
    with serving(Misbehaving(lambda _: answer)) as url:
        outcomes = store(files, url)
    assert [(one.stored, one.status) for one in outcomes] == [(False, None)] * 3
    assert all(one.detail.startswith(f"the DICOMweb service answers {answer[0]}") for one in outcomes)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 429, 503])
def test_a_service_that_lets_nobody_in_is_tried_later(files: list[Path], status: int) -> None:
    service = Misbehaving(lambda number: (200, referenced(UIDS[0])) if number == 0 else (status, b""))
    outcomes = []
    with serving(service) as url, pytest.raises(PeerUnavailable, match=f"answers {status}"):  # noqa: PT012 - one by one
        for outcome in store_each(files, WebService(url, 5.0)):
            outcomes.append(outcome)  # noqa: PERF402
    assert [one.stored for one in outcomes] == [True]


def test_a_refusal_before_everything_was_read_is_understood(files: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.dcm"
    image = mr_dataset(np.zeros((4000, 4000), dtype=np.uint16), SOPInstanceUID="1.2.3.9")
    image.save_as(large, enforce_file_format=True)
    service = Misbehaving(lambda number: (413, b"") if number == 0 else (200, referenced(UIDS[0])), reads=False)
    with serving(service) as url:
        outcomes = store([large, files[0]], url)
    assert [one.stored for one in outcomes] == [False, True]


def test_nobody_there(files: list[Path]) -> None:
    with pytest.raises(PeerUnavailable, match="cannot be reached"):
        store(files, f"http://127.0.0.1:{free_port()}/dicom-web")


def test_a_certificate_is_checked(files: list[Path], tmp_path: Path) -> None:
    need("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run([*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    service = Misbehaving(lambda number: (200, referenced(UIDS[number])))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    service.server.socket = context.wrap_socket(service.server.socket, server_side=True)
    with serving(service) as url:
        url = url.replace("http:", "https:")
        with pytest.raises(PeerUnavailable, match="certificate is not trusted"):
            store(files, url)
        assert service.requests == []
        assert [one.stored for one in store(files, url, ca_file=certificate)] == [True] * 3
        with pytest.raises(PeerUnavailable, match="trusted authorities"):
            store(files, url, ca_file=tmp_path / "absent.pem")


def test_what_opens_the_door_is_not_shown() -> None:
    assert "secret" not in repr(WebService("http://h/d", headers={"Authorization": "secret"}))
