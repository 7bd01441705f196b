"""TLS with dcmtk on the other side: what connects, what is refused, and certificates that change meanwhile."""

import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from certificates import Authority, Issued
from peers import Storescp, echoscu, free_port, need, run_tool, wait_until
from test_receiver import OpenNode, image, open_node

from config.settings import Settings, SettingsError
from config.tls import TLS, ClientTLS, TLSProfile
from dicom_io.sender import Peer, PeerUnavailable, echo, send_files
from dicom_io.tls import client_context, open_client_context, server_context
from dicom_io.upper_layer import Deadlines

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node_pair(authority: Authority) -> Issued:
    return authority.issue("node")


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Issued:
    return authority.issue("scanner.hospital.example")


class TLSNode:
    """A receiver with a TLS port, to which SCANNER's certificate is bound."""

    def __init__(self, folder: Path, authority: Authority, pair: Issued, scanner: Issued, **tls: object) -> None:
        self.folder, self.authority = folder, authority
        self.certificate_file, self.key_file = folder / "node.crt", folder / "node.key"
        self.install(pair)
        self.tls_port = free_port()
        files = {"certificate_file": self.certificate_file, "key_file": self.key_file, "ca_file": authority.ca_file}
        peers = [
            {"ae_title": "SCANNER", "host": "127.0.0.1", "certificate": scanner.sha256},
            {"ae_title": "NAMED", "host": "127.0.0.1", "certificate": "scanner.hospital.example"},
            {"ae_title": "OTHER", "host": "127.0.0.1", "certificate": "other.hospital.example"},
        ]
        settings = Settings.model_validate({"tls": {"port": self.tls_port, **files, **tls}, "peers": peers})
        self.open: OpenNode = open_node(folder, tls=settings.tls, peers=settings.peers)

    def install(self, pair: Issued) -> None:
        """Put certificate and key in place as an administrator's script does."""
        for source, target in ((pair.certificate_file, self.certificate_file), (pair.key_file, self.key_file)):
            building = target.with_suffix(".new")
            shutil.copy2(source, building)
            building.replace(target)

    def echoscu(self, shown: Issued, *options: str, calling: str = "SCANNER", ca_file: Path | None = None) -> bool:
        need("echoscu")
        command: list[str | Path] = ["echoscu", "-aet", calling, "-aec", "DISCNODE", "-to", "5"]
        command += ["+tls", shown.key_file, shown.certificate_file, "+cf", ca_file or self.authority.ca_file, *options]
        return run_tool(*command, "127.0.0.1", str(self.tls_port)).returncode == 0

    def handshake(self, context: ssl.SSLContext) -> str:
        """The protocol version that was agreed; raises what the handshake raises."""
        with (
            socket.create_connection(("127.0.0.1", self.tls_port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="node") as connection,
        ):
            version = connection.version()
            assert version is not None
            # TLS 1.3 tells a client that it is refused only after its own part is over.
            connection.settimeout(0.5)
            try:
                connection.recv(1)
            except TimeoutError:
                return version
            raise ConnectionResetError("closed")

    def served_serial(self, scanner: Issued) -> str:
        context = client_context(client_tls(self.authority, scanner))
        with (
            socket.create_connection(("127.0.0.1", self.tls_port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="node") as connection,
        ):
            shown = connection.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


@pytest.fixture
def node(tmp_path: Path, authority: Authority, node_pair: Issued, scanner: Issued) -> Iterator[TLSNode]:
    opened = TLSNode(tmp_path, authority, node_pair, scanner)
    yield opened
    opened.open.receiver.close(drain_s=1.0)


def client_tls(authority: Authority, shown: Issued | None = None, **more: object) -> ClientTLS:
    files = {} if shown is None else {"certificate_file": shown.certificate_file, "key_file": shown.key_file}
    return ClientTLS.model_validate({"ca_file": authority.ca_file, **files, **more})


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
@pytest.mark.parametrize("ours", list(TLSProfile))
def test_every_bcp195_profile_of_dcmtk_connects(
    tmp_path: Path, authority: Authority, node_pair: Issued, scanner: Issued, ours: TLSProfile, profile: str
) -> None:
    node = TLSNode(tmp_path, authority, node_pair, scanner, profile=ours)
    try:
        assert node.echoscu(scanner, profile)
    finally:
        node.open.receiver.close(drain_s=1.0)


def test_an_object_arrives_byte_for_byte(node: TLSNode, scanner: Issued) -> None:
    need("storescu")
    path = node.folder / "image.dcm"
    image().save_as(path, enforce_file_format=True)
    files = ["+tls", scanner.key_file, scanner.certificate_file, "+cf", node.authority.ca_file]
    titles = ["-aet", "SCANNER", "-aec", "DISCNODE"]
    assert run_tool("storescu", *titles, *files, "127.0.0.1", str(node.tls_port), path).returncode == 0
    (received,) = node.open.notebook.received
    assert pydicom.dcmread(node.open.inbox.path(received.name)) == pydicom.dcmread(path)


def test_who_is_not_bound_to_the_ae_title_is_refused(
    node: TLSNode, scanner: Issued, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert node.echoscu(scanner)
    assert node.echoscu(scanner, calling="NAMED")
    assert not node.echoscu(scanner, calling="OTHER")
    assert not node.echoscu(scanner, calling="STRANGER")
    assert not node.echoscu(node.authority.issue("thief"))
    expired = node.authority.issue("scanner.hospital.example.old", is_expired=True)
    assert not node.echoscu(expired, calling="NAMED")
    elsewhere = Authority(tmp_path / "elsewhere", "Other CA").issue("scanner.hospital.example")
    assert not node.echoscu(elsewhere, calling="NAMED")
    assert not echoscu(node.open.port, calling="SCANNER")  # the port without TLS
    assert not echoscu(node.tls_port, calling="SCANNER")
    assert node.echoscu(scanner)
    node.open.receiver._house.tell_refusals()
    lines = [record for record in caplog.records if record.message == "association rejected"]
    whys = {record.why for record in lines}  # type: ignore[attr-defined]
    assert {
        "its certificate is not bound to its AE title",
        "it must call by TLS",
        "its AE title is not a peer's",
    } < whys
    assert sum(record.times for record in lines) == 7  # type: ignore[attr-defined]
    assert {record.calling_ae for record in lines} == {"", "OTHER", "STRANGER", "SCANNER"}  # type: ignore[attr-defined]


def test_no_certificate_no_service(node: TLSNode) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        node.handshake(client_context(client_tls(node.authority)))
    result = run_tool("echoscu", "-to", "5", "-aec", "DISCNODE", "+tla", "-ic", "127.0.0.1", str(node.tls_port))
    assert result.returncode != 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(node: TLSNode, scanner: Issued, version: ssl.TLSVersion) -> None:
    context = client_context(client_tls(node.authority, scanner))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionResetError), match=r"(?i)version|closed|reset"):
        node.handshake(context)


def test_new_versions_are_agreed_on_and_weak_suites_are_not(node: TLSNode, scanner: Issued) -> None:
    context = client_context(client_tls(node.authority, scanner))
    assert node.handshake(context) == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert node.handshake(context) == "TLSv1.2"
    for suites in ("AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES256-GCM-SHA384", "aNULL"):
        context.set_ciphers(f"{suites}:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            node.handshake(context)


def test_the_modified_profile_is_a_fixed_list_with_dhe(
    tmp_path: Path, authority: Authority, node_pair: Issued, scanner: Issued
) -> None:
    node = TLSNode(tmp_path, authority, node_pair, scanner, profile="bcp195-modified")
    context = client_context(client_tls(authority, scanner))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        for suite in ("DHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"):
            context.set_ciphers(suite)
            assert node.handshake(context) == "TLSv1.2"
        context.set_ciphers("ECDHE-RSA-CHACHA20-POLY1305")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            node.handshake(context)
    finally:
        node.open.receiver.close(drain_s=1.0)


def test_certificates_change_while_the_node_runs(
    node: TLSNode, scanner: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicom_io.tls")
    first = node.served_serial(scanner)
    node.install(node.authority.issue("node"))
    second = node.served_serial(scanner)
    assert second != first
    node.key_file.write_text("not a key")
    assert node.served_serial(scanner) == second
    assert node.echoscu(scanner)
    messages = [record.message for record in caplog.records]
    assert "certificates renewed" in messages
    assert messages.count("certificates not renewed, the ones before stay in use") == 1
    node.install(node.authority.issue("node"))
    assert node.served_serial(scanner) not in (first, second)


def test_the_renewed_context_says_what_is_wrong_with_its_files(
    tmp_path: Path, authority: Authority, scanner: Issued
) -> None:
    own = authority.issue("renewed")
    renewed = open_client_context(client_tls(authority, own))
    assert renewed.fault == ""
    own.key_file.chmod(0o644)
    assert "its mode is 0644" in renewed.fault
    own.key_file.chmod(0o600)
    assert renewed.fault == ""
    own.certificate_file.unlink()
    assert "renewed.crt" in renewed.fault
    own.certificate_file.write_bytes(scanner.certificate_file.read_bytes())  # of another key
    assert "renewed.key" in renewed.fault


def test_files_that_cannot_be_used_are_named_and_not_told(
    tmp_path: Path, authority: Authority, scanner: Issued
) -> None:
    def tls(**files: Path) -> TLS:
        usual = {
            "certificate_file": scanner.certificate_file,
            "key_file": scanner.key_file,
            "ca_file": authority.ca_file,
        }
        return TLS(**(usual | files))

    secret = tmp_path / "secret.pem"
    secret.touch(0o600)
    secret.write_text("TOPSECRET")
    locked = tmp_path / "locked.pem"
    command = ["openssl", "rsa", "-aes128", "-passout", "pass:x", "-in", str(scanner.key_file), "-out", str(locked)]
    need("openssl")
    subprocess.run(command, check=True, capture_output=True)
    for files, fault in (
        ({"key_file": tmp_path / "absent"}, "absent: cannot be read"),
        ({"key_file": secret}, "secret.pem: cannot be used"),
        ({"key_file": locked}, "locked.pem: has a password"),
        ({"ca_file": secret}, "secret.pem: cannot be used"),
        ({"certificate_file": authority.ca_file}, "ca.pem"),
    ):
        with pytest.raises(SettingsError, match=fault) as told:
            server_context(tls(**files))
        assert "TOPSECRET" not in str(told.value)
    server_context(tls())
    weak = authority.issue("weak", key_bits=1024)
    with pytest.raises(SettingsError, match="weak"):
        server_context(tls(certificate_file=weak.certificate_file, key_file=weak.key_file))


def test_silent_handshakes_hold_up_nobody(node: TLSNode, scanner: Issued) -> None:
    with ExitStack() as silent:
        for _ in range(10):
            silent.enter_context(socket.create_connection(("127.0.0.1", node.tls_port)))
        started_s = time.monotonic()
        assert node.echoscu(scanner)
        assert time.monotonic() - started_s < Deadlines().request_s


# --- the node calls ---------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path, authority: Authority) -> Iterator[Storescp]:
    """dcmtk's storage SCP by TLS; it asks for a certificate of our authority."""
    need("storescp")
    own = authority.issue("archive.hospital.example")
    files = ["+tls", str(own.key_file), str(own.certificate_file), "+cf", str(authority.ca_file)]
    with Storescp(tmp_path / "archive", *files) as peer:
        yield peer


def to(archive: Storescp, tls: ClientTLS | None) -> Peer:
    return Peer("127.0.0.1", archive.port, archive.ae_title, "DISCNODE", 5.0, tls)


def test_results_are_sent_by_tls(archive: Storescp, authority: Authority, node_pair: Issued, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    image().save_as(path, enforce_file_format=True)
    for tls in (
        client_tls(authority, node_pair),
        client_tls(authority, node_pair, server_name="archive.hospital.example"),
        client_tls(authority, node_pair, verify="authority"),
        client_tls(authority, node_pair, profile="bcp195-modified"),
    ):
        (outcome,) = send_files([path], to(archive, tls))
        assert outcome.stored
    assert len(archive.files) == 1


def test_a_peer_that_cannot_prove_itself_is_not_sent_anything(
    archive: Storescp, authority: Authority, node_pair: Issued, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path / "strangers", "Other CA")
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for tls in (
        client_tls(strangers, node_pair),
        client_tls(strangers, node_pair, verify="authority"),
        client_tls(authority, node_pair, server_name="other.hospital.example"),
        client_tls(authority),  # it asks for ours
        ClientTLS(ca_file=broken),
        None,
    ):
        with pytest.raises(PeerUnavailable):
            echo(to(archive, tls))
    echo(to(archive, client_tls(authority, node_pair)))


def test_a_certificate_of_ours_that_changes_is_shown_from_the_next_call_on(
    archive: Storescp, authority: Authority, tmp_path: Path
) -> None:
    own = authority.issue("changing")
    tls = client_tls(authority, own)
    echo(to(archive, tls))
    strangers = Authority(tmp_path / "strangers", "Other CA").issue("changing")
    own.certificate_file.write_bytes(strangers.certificate_file.read_bytes())
    own.key_file.write_bytes(strangers.key_file.read_bytes())
    with pytest.raises(PeerUnavailable):
        echo(to(archive, tls))
    authority.issue("changing")
    wait_until(lambda: open_client_context(tls).fault == "", "the new certificate")
    echo(to(archive, tls))


def test_many_threads_renew_once(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dicom_io.tls")
    own = authority.issue("threads")
    renewed = open_client_context(client_tls(authority, own))
    authority.issue("threads")
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(id(renewed.current()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert [record.message for record in caplog.records].count("certificates renewed") == 1
