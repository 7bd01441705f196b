"""The audit trail at a repository by syslog over TLS: framed right, sent again after a fault, nothing lost."""

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_rules import check
from certificates import Authority
from peers import free_port, wait_until
from records import NOW, later

from config.audit import Syslog
from service import audit_chain, audit_repository
from service.audit import AuditEvent, AuditKind
from service.audit_chain import NewLine
from service.audit_messages import AuditSite, messages_of
from service.audit_repository import AuditRepository

SITE = AuditSite("DISCNODE", "node.example", "disc-1", "")


class Repository:
    """A syslog-TLS receiver. ``breaks_after``: it resets connections after so many bytes."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self.port = port
        self.breaks_after: int | None = None
        self.received: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    self._read(tls)
            except OSError:
                continue

    def _read(self, tls: ssl.SSLSocket) -> None:
        data = b""
        while chunk := tls.recv(65536):
            data += chunk
            if self.breaks_after is not None and len(data) > self.breaks_after:
                tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                raise ConnectionResetError
        while data:
            length, _, rest = data.partition(b" ")
            self.received.append(rest[: int(length)])
            data = rest[int(length) :]
        tls.unwrap()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    issued = authority.issue("audit.example")
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(issued.certificate_file, issued.key_file)
    return found


@pytest.fixture
def repository(context: ssl.SSLContext) -> Iterator[Repository]:
    one = Repository(context, free_port())
    yield one
    one.close()


def sender(folder: Path, port: int, authority: Authority, **changes: object) -> AuditRepository:
    values = {"host": "127.0.0.1", "port": port, "ca_file": authority.ca_file, "timeout_s": 3, **changes}
    return AuditRepository(Syslog.model_validate(values), folder, "node.example")


def write(folder: Path, number: int) -> None:
    for _ in range(number):
        event = AuditEvent(AuditKind.RELEASED, NOW, by="Änne", studies=("1.2.3",))
        xml = messages_of(event, SITE)[0].to_xml()
        audit_chain.append(folder, [NewLine("released", xml)], NOW)


def test_messages_arrive_framed_as_the_standards_say(
    repository: Repository, authority: Authority, tmp_path: Path
) -> None:
    write(tmp_path, 3)
    assert sender(tmp_path, repository.port, authority).send_due(NOW) == 3
    assert len(repository.received) == 3
    found = re.fullmatch(
        rb"<85>1 2026-03-01T08:00:00\.000Z node\.example discnode \d+ DICOM\+RFC3881 - \xef\xbb\xbf(<.*>)",
        repository.received[0],
    )
    assert found is not None
    assert check(found[1].decode()).find("ActiveParticipant").get("UserID") == "Änne"


def test_a_message_of_a_megabyte_arrives_whole(repository: Repository, authority: Authority, tmp_path: Path) -> None:
    audit_chain.append(tmp_path, [NewLine("alert", "<x>" + "y" * 1_000_000 + "</x>")], NOW)
    assert sender(tmp_path, repository.port, authority).send_due(NOW) == 1
    assert repository.received[0].endswith(b"y</x>")
    assert len(repository.received[0]) > 1_000_000


def test_what_happened_while_the_repository_was_down_is_sent_when_it_is_back(
    context: ssl.SSLContext, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_repository, "_LOT", 4)
    port = free_port()
    write(tmp_path, 5)
    one = sender(tmp_path, port, authority)
    assert one.send_due(NOW) == 0
    assert "Connection refused" in one.wrong()  # the messages are old by the clock of this machine
    assert one.send_due(later(1)) == 0
    write(tmp_path, 5)
    repository = Repository(context, port)
    try:
        one = sender(tmp_path, port, authority)  # the node was started again
        assert one.send_due(later(10)) == 10
        assert one.send_due(later(11)) == 0
        assert one.wrong() == ""
        write(tmp_path, 1)
        assert sender(tmp_path, port, authority).send_due(later(20)) == 1
    finally:
        repository.close()
    assert len(repository.received) == 11


def test_a_repository_that_breaks_off_gets_all_of_it_again(
    repository: Repository, authority: Authority, tmp_path: Path
) -> None:
    write(tmp_path, 40)
    one = sender(tmp_path, repository.port, authority)
    repository.breaks_after = 5000
    assert one.send_due(NOW) == 0
    repository.breaks_after = None
    assert one.send_due(later(60)) == 40
    wait_until(lambda: len(repository.received) >= 40, "all messages")


def test_a_repository_with_a_strange_certificate_gets_nothing(
    repository: Repository, authority: Authority, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    stranger = Authority(tmp_path / "other")
    one = sender(tmp_path, repository.port, stranger)
    assert one.send_due(NOW) == 0
    assert "certificate verify failed" in one.wrong()
    assert repository.received == []


def test_a_repository_that_asks_for_a_certificate_has_not_taken_what_came_without(
    authority: Authority, tmp_path: Path
) -> None:
    """With TLS 1.3 it says so after the handshake; the message was counted as taken."""
    issued, own = authority.issue("strict.example"), authority.issue("node.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate_file, issued.key_file)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    write(tmp_path, 3)
    repository = Repository(context, free_port())
    try:
        one = sender(tmp_path, repository.port, authority)
        assert one.send_due(NOW) == 0
        assert "certificate required" in one.wrong().lower()
        shown = {"certificate_file": own.certificate_file, "key_file": own.key_file}
        assert sender(tmp_path, repository.port, authority, **shown).send_due(NOW) == 3
    finally:
        repository.close()
    assert len(repository.received) == 3


def test_a_repository_that_closes_without_a_word_has_taken_what_it_read(
    context: ssl.SSLContext, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl.SSLSocket, "unwrap", lambda tls: tls)
    write(tmp_path, 3)
    repository = Repository(context, free_port())
    try:
        assert sender(tmp_path, repository.port, authority).send_due(NOW) == 3
    finally:
        repository.close()
    assert len(repository.received) == 3


def test_a_repository_of_another_name_gets_nothing(
    repository: Repository, authority: Authority, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    one = sender(tmp_path, repository.port, authority, host="localhost")
    assert one.send_due(NOW) == 0
    assert "certificate verify failed" in one.wrong()
