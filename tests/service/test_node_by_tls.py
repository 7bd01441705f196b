"""A whole node that speaks TLS on both sides, and the refusals of a node with peers, with real peers and processes."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from certificates import Authority
from node_process import Node
from peers import Storescp, echoscu, free_port, need, run_tool, statuses, storescu, wait_until
from pydicom.uid import CTImageStorage
from small_mr_exam import mapss_signal, write_mapss

from dicom_io.dicomweb import fetch_objects
from dicom_io.inbox import Inbox
from dicom_io.receiver import Ledger
from dicom_io.sender import PeerUnavailable
from service.web_tokens import Role, new_token

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_an_exam_comes_and_its_results_go_by_tls(tmp_path: Path, authority: Authority) -> None:
    need("storescu", "storescp")
    own, scanner = authority.issue("node"), authority.issue("scanner.hospital.example")
    archive = authority.issue("archive.hospital.example")
    images = write_mapss(tmp_path, mapss_signal(n_slices=3))
    port, web_port = free_port(), free_port()
    tls = {
        "certificate_file": str(own.certificate_file),
        "key_file": str(own.key_file),
        "ca_file": str(authority.ca_file),
    }
    options = ["+tls", str(archive.key_file), str(archive.certificate_file), "+cf", str(authority.ca_file)]
    with Storescp(tmp_path / "archive", *options) as scp:
        destination = {"name": "archive", "ae_title": scp.ae_title, "host": "127.0.0.1", "port": scp.port, "tls": tls}
        settings: dict[str, Any] = {
            "tls": {"port": port, **tls},
            "peers": [{"ae_title": "SCANNER", "host": "127.0.0.1", "certificate": scanner.sha256}],
            "destinations": [destination],
            "web": {
                "port": web_port,
                "access": "tokens",
                "tokens_file": str(tmp_path / "tokens"),
                "certificate_file": str(own.certificate_file),
                "key_file": str(own.key_file),
            },
        }
        token = new_token(tmp_path / "tokens", "ann", Role.VIEWER)
        with Node(tmp_path, **settings) as node:
            assert not echoscu(node.port)  # without TLS
            command = ["storescu", "-aet", "SCANNER", "-aec", "DISCNODE", "+tls", scanner.key_file]
            command += [scanner.certificate_file, "+cf", authority.ca_file, "127.0.0.1", str(port)]
            assert run_tool(*command, *images).returncode == 0
            wait_until(lambda: len(scp.files) == 2, "the results", 60)
            check_web(f"https://127.0.0.1:{web_port}", authority, token)
            wait_until(lambda: is_ready(f"https://127.0.0.1:{web_port}", authority), "a node that is ready", 30)
            log = node.log
    assert "association rejected" in log
    assert "calling_ae=DISCNODE" not in log  # its own question whether its receiver lives is answered
    assert token not in log


def is_ready(url: str, authority: Authority) -> bool:
    context = ssl.create_default_context(cafile=authority.ca_file)
    return httpx.get(f"{url}/health/ready", verify=context, timeout=30).status_code == 200


def check_web(url: str, authority: Authority, token: str) -> None:
    """By HTTPS, with a token, and with the headers that go with it."""
    context = ssl.create_default_context(cafile=authority.ca_file)
    with httpx.Client(base_url=url, verify=context, timeout=30) as client:
        assert client.get("/api/exams").status_code == 401
        answer = client.get("/api/exams", headers={"Authorization": f"Bearer {token}"})
        assert len(answer.json()) == 1
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        assert "server" not in answer.headers
        assert client.post("/api/quarantine/1/release", headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_what_is_not_on_the_list_is_refused_with_its_reason(tmp_path: Path) -> None:
    need("storescu", "echoscu")
    peers = [
        {"ae_title": "MR", "host": "127.0.0.0/8", "sop_classes": ["MRImageStorage"]},
        {"ae_title": "AWAY", "host": "192.0.2.1"},
    ]
    (image, *_) = write_mapss(tmp_path, mapss_signal(n_slices=1))
    other = pydicom.dcmread(image)
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = CTImageStorage
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.5"
    scan = tmp_path / "ct"
    other.save_as(scan, enforce_file_format=True)
    with Node(tmp_path, peers=peers) as node:
        assert statuses(storescu(node.port, [image], calling="MR")) == ["Success"]
        refused = storescu(node.port, [scan], calling="MR")
        assert statuses(refused) == []
        assert "presentation context" in (refused.stdout + refused.stderr).lower()
        for calling, called, reason in (
            ("MR", "OTHER", "Called AE Title Not Recognized"),
            ("STRANGER", "DISCNODE", "Calling AE Title Not Recognized"),
            ("AWAY", "DISCNODE", "Calling AE Title Not Recognized"),
        ):
            answer = storescu(node.port, [image], calling=calling, called=called)
            said = answer.stdout + answer.stderr
            assert "Rejected Permanent, Source: Service User" in said
            assert reason in said
        for _ in range(20):
            assert not echoscu(node.port, calling="STRANGER")
        assert 1 <= len(lines_about("STRANGER", node)) <= node.settings.reception.processes  # each process has its own
        node.stop()
        lines = lines_about("STRANGER", node)
        assert all("its AE title is not a peer's" in line for line in lines)
        assert sum(int(line.rpartition("times=")[2]) for line in lines) == 21


def lines_about(calling_ae: str, node: Node) -> list[str]:
    return [line for line in node.log.splitlines() if "association rejected" in line and calling_ae in line]


@pytest.fixture
def web_archive(tmp_path: Path, authority: Authority) -> Iterator[str]:
    """A DICOMweb service by HTTPS that has nothing."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    own = authority.issue("archive")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate_file, own.key_file)
    server = HTTPServer(("127.0.0.1", 0), Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/dicom-web"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_source_is_only_asked_by_https_if_its_certificate_is_trusted(
    web_archive: str, tmp_path: Path, authority: Authority
) -> None:
    def ask(ca_file: Path | None) -> None:
        ledger = Ledger(lambda one: pytest.fail("nothing comes"), lambda one: pytest.fail("nothing comes"))
        options = {"sender": "PACS", "inbox": Inbox(tmp_path / "inbox"), "ledger": ledger}
        fetch_objects(web_archive, 5.0, ("1.2", "1.3"), ["1.4"], **options, ca_file=ca_file)

    ask(authority.ca_file)
    for ca_file in (None, Authority(tmp_path / "strangers").ca_file):
        with pytest.raises(PeerUnavailable, match="cannot be read"):
            ask(ca_file)
