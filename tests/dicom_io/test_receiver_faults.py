"""What bad senders do, and what they are answered.

A status at once or an abort, nothing kept that is not whole, and the association, or the node, as usable as before.
"""

import contextlib
import errno
import os
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from certificates import Authority
from peers import free_port, wait_until
from raw_client import (
    ABORT,
    AC,
    DATA,
    EXPLICIT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    Closed,
    RawClient,
    associate_rq,
    command,
    pdu,
    store_command,
    store_message,
    value,
)
from test_element_walk import encode
from test_receiver import Notebook, OpenNode, image

from config.reception import Reception
from config.settings import Peer, Settings
from dicom_io.inbox import Inbox
from dicom_io.receiver import Ledger, open_receiver
from dicom_io.upper_layer import Deadlines

SHORT = Deadlines(request_s=1.0, pdu_s=1.0, idle_s=2.0, rate_after_s=1.0)
UID = "1.2.3.4"
AT_ONCE_S = 1.0
CT = "1.2.840.10008.5.1.4.1.1.2"


def open_node(folder: Path, *, deadlines: Deadlines = SHORT, **settings: object) -> OpenNode:
    notebook, inbox = Notebook(), Inbox(folder / "inbox")
    ledger = Ledger(notebook.record, notebook.broken.append)
    receiver = open_receiver(Settings(port=free_port(), **settings), inbox, ledger, deadlines=deadlines)
    return OpenNode(receiver, inbox, notebook)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OpenNode]:
    opened = open_node(tmp_path)
    yield opened
    opened.receiver.close(drain_s=0.0)


@pytest.fixture
def client(node: OpenNode) -> Iterator[RawClient]:
    with RawClient(node.port).associate() as opened:
        yield opened


def leftovers(node: OpenNode) -> list[Path]:
    return list((node.inbox.folder / "incoming").iterdir())


# --- data sets --------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return (struct.pack("<HH2sHI", 0x40, 0xA043, b"SQ", 0, 0xFFFFFFFF) + item) * 40


def out_of_order() -> bytes:
    """Patient's name before the SOP class."""
    name = struct.pack("<HH2sH", 0x10, 0x10, b"PN", 2) + b"X "
    return name + encode(image())


WHOLE = encode(image())
BAD_DATA_SETS = {
    "truncated": (WHOLE[:-20], 0xC000),
    "truncated in a header": (WHOLE[: WHOLE.index(b"\xe0\x7f\x10\x00") + 5], 0xC000),
    "junk": (b"no DICOM at all, only text" * 20, 0xC000),
    "zeros": (bytes(500), 0xC000),
    "empty": (b"", 0xA900),
    "nested too deeply": (bomb(), 0xC000),
    "out of order": (out_of_order(), 0xC000),
    "unknown VR": (WHOLE.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00??", 1), 0xC000),
    "another instance": (encode(image(SOPInstanceUID="1.2.3.5")), 0xA900),
    "another class": (encode(image(SOPClassUID=CT)), 0xA900),
    "no study": (encode(image(StudyInstanceUID="")), 0xC000),
}


@pytest.mark.parametrize("name", BAD_DATA_SETS)
def test_a_bad_data_set_is_answered_at_once_and_the_next_one_taken(
    node: OpenNode, client: RawClient, name: str
) -> None:
    data, status = BAD_DATA_SETS[name]
    start_s = time.monotonic()
    assert client.store(UID, data) == status
    assert time.monotonic() - start_s < AT_ONCE_S
    assert node.notebook.received == []
    assert leftovers(node) == []
    assert client.store(UID, WHOLE) == 0
    assert len(node.notebook.received) == 1


def test_values_that_are_odd_are_no_reason_to_refuse(client: RawClient) -> None:
    data = WHOLE.replace(b"1.2.3.1\0", b"1.2.3.1\0")
    at = data.index(b"\x18\x00\x50\x00DS")
    (length,) = struct.unpack_from("<H", data, at + 6)
    odd = data[: at + 8] + b"abc".ljust(length) + data[at + 8 + length :]
    assert client.store(UID, odd) == 0


@pytest.mark.parametrize("uid", ["../../EVIL", "/tmp/EVIL", "1.2.3/4", "1" * 70, "1.2\x003"])
def test_a_uid_that_is_none_is_refused_and_names_no_file(
    node: OpenNode, client: RawClient, tmp_path: Path, uid: str
) -> None:
    text = uid.encode()
    text += b"\0" * (len(text) % 2)
    data = WHOLE.replace(struct.pack("<HH2sH", 8, 0x18, b"UI", 8) + b"1.2.3.4\0", b"", 1)
    at = data.index(struct.pack("<HH2s", 8, 0x20, b"DA")) if struct.pack("<HH2s", 8, 0x20, b"DA") in data else None
    place = data.index(b"\x08\x00\x60\x00CS") if at is None else at
    data = data[:place] + struct.pack("<HH2sH", 8, 0x18, b"UI", len(text)) + text + data[place:]
    assert client.store(uid, data) == 0xC000
    assert list(tmp_path.iterdir()) == [node.inbox.folder]
    assert client.store(UID, WHOLE) == 0


def test_a_class_that_is_not_that_of_the_context_is_refused(client: RawClient) -> None:
    assert client.store(UID, WHOLE, sop_class=CT) == 0x0122
    assert client.store(UID, WHOLE) == 0


def test_the_same_again_is_one_copy_and_other_bytes_are_both_kept(node: OpenNode, client: RawClient) -> None:
    other = encode(image(PatientID="P-18"))
    assert [client.store(UID, one) for one in (WHOLE, WHOLE, other)] == [0, 0, 0xB000]
    assert len(list((node.inbox.folder / "objects").rglob("*.dcm"))) == 2


def test_a_command_without_its_data_set_is_answered(client: RawClient) -> None:
    message = pdu(DATA, value(1, 3, store_command(UID, has_data=False)))
    assert client.status_of(client.ask(message)) == 0xA900
    unknown = command([(0x0100, struct.pack("<H", 0x0150)), (0x0110, b"\1\0"), (0x0800, struct.pack("<H", 0x0101))])
    assert client.status_of(client.ask(pdu(DATA, value(1, 3, unknown)))) == 0x0211
    assert client.store(UID, WHOLE) == 0


def test_fragments_of_one_byte_are_put_together(client: RawClient) -> None:
    assert client.store(UID, WHOLE, step=1) == 0


def test_many_values_in_one_pdu_are_taken(client: RawClient) -> None:
    half = len(WHOLE) // 2
    content = value(1, 3, store_command(UID)) + value(1, 0, WHOLE[:half]) + value(1, 2, WHOLE[half:])
    assert client.status_of(client.ask(pdu(DATA, content))) == 0


# --- PDUs -------------------------------------------------------------------------------------------------------------


BAD_PDUS = {
    "unknown type": pdu(0x2A, b"x" * 20),
    "4 GB announced": struct.pack(">BBI", DATA, 0, 0xFFFFFFFF),
    "longer than agreed": struct.pack(">BBI", DATA, 0, 131_073),
    "a second request": associate_rq(),
    "no values": pdu(DATA, b""),
    "value longer than its PDU": pdu(DATA, struct.pack(">IBB", 5000, 1, 3) + b"x" * 10),
    "value of no length": pdu(DATA, struct.pack(">IBB", 0, 1, 3)),
    "cut header of a value": pdu(DATA, b"\0\0\0"),
    "context not accepted": pdu(DATA, value(99, 3, store_command(UID))),
    "data without command": pdu(DATA, value(1, 2, b"x" * 50)),
    "broken command": pdu(DATA, value(1, 3, b"\0\0\x02\0\xff\0\0\0x")),
    "empty command": pdu(DATA, value(1, 3, b"")),
    "a command inside an object": pdu(DATA, value(1, 3, store_command(UID))) * 2,
    "a command of 70 kB": pdu(DATA, value(1, 1, b"x" * 70_000)),
}


@pytest.mark.parametrize("name", BAD_PDUS)
def test_what_is_not_dicom_is_aborted_once_at_once(node: OpenNode, client: RawClient, name: str) -> None:
    start_s = time.monotonic()
    kind, content = client.ask(BAD_PDUS[name])
    assert time.monotonic() - start_s < AT_ONCE_S
    assert (kind, content[2]) == (ABORT, 2)
    with pytest.raises(Closed):
        client.receive()
    with RawClient(node.port).associate() as other:
        assert other.store(UID, WHOLE) == 0
    assert leftovers(node) == []


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", pdu(0x01, b"\0" * 70), pdu(DATA, b"x" * 10), bytes(200)])
def test_what_does_not_begin_as_an_association_is_aborted(node: OpenNode, start: bytes) -> None:
    with RawClient(node.port) as stranger:
        kind, _ = stranger.ask(start)
        assert kind == ABORT
    with RawClient(node.port).associate() as other:
        assert other.echo() == 0


def test_contexts_are_answered_one_by_one(node: OpenNode) -> None:
    contexts = ((1, MR, EXPLICIT), (3, "1.2.3.4.5", EXPLICIT), (5, MR, "1.2.3.4.5"))
    with RawClient(node.port) as stranger:
        kind, content = stranger.ask(associate_rq(contexts=contexts))
    assert kind == AC
    results = [
        content[at + 6]
        for at in range(len(content))
        if content[at : at + 1] == b"\x21" and content[at + 1 : at + 2] == b"\0"
    ]
    assert results[:3] == [0, 3, 4]


def test_rejections_say_why(tmp_path: Path) -> None:
    node = open_node(tmp_path, peers=(Peer(ae_title="SCANNER"), Peer(ae_title="AWAY", host="192.0.2.1")))
    version_2 = bytearray(associate_rq())
    version_2[7] = 2
    other_application = associate_rq().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9")
    cases = {
        associate_rq(called="SOMEONE"): (1, 1, 7),
        associate_rq(calling="STRANGER"): (1, 1, 3),
        associate_rq(calling="AWAY"): (1, 1, 3),
        bytes(version_2): (1, 2, 2),
        other_application: (1, 1, 2),
    }
    try:
        for request, reason in cases.items():
            with RawClient(node.port) as stranger:
                kind, content = stranger.ask(request)
                assert (kind, tuple(content[1:])) == (RJ, reason)
    finally:
        node.receiver.close(0.0)


def test_release_is_answered(client: RawClient) -> None:
    assert client.ask(pdu(RELEASE_RQ, bytes(4)))[0] == RELEASE_RP


# --- slow, silent, gone -----------------------------------------------------------------------------------------------


def half_an_object(client: RawClient) -> None:
    client.socket.sendall(store_message(UID, WHOLE, step=100)[:-150])


def test_a_reset_in_mid_object_leaves_nothing(node: OpenNode, client: RawClient) -> None:
    half_an_object(client)
    wait_until(lambda: leftovers(node), "the object to begin")
    client.reset()
    wait_until(lambda: not leftovers(node) and node.receiver.served == 0, "the association to end")


def test_silence_in_mid_object_and_in_mid_pdu_is_not_waited_for(node: OpenNode) -> None:
    silent = [RawClient(node.port).associate() for _ in range(2)]
    whole_pdus = store_message(UID, WHOLE, step=100)
    silent[0].socket.sendall(whole_pdus[: whole_pdus.rindex(struct.pack(">BB", DATA, 0))])
    silent[1].socket.sendall(whole_pdus[:-3])
    wait_until(lambda: node.receiver.served == 0, "both to be dropped", SHORT.idle_s + SHORT.pdu_s + 5)
    assert leftovers(node) == []
    for one in silent:
        one.close()


def test_an_object_that_trickles_in_is_cut_off(node: OpenNode, client: RawClient) -> None:
    client.socket.sendall(pdu(DATA, value(1, 3, store_command(UID))))
    wait_until(lambda: leftovers(node), "the object to begin")

    def is_cut_off() -> bool:
        try:
            client.socket.sendall(pdu(DATA, value(1, 0, b"xx")))
        except ConnectionError:
            return True
        return False

    wait_until(is_cut_off, "the end of it", 15)
    assert leftovers(node) == []


def test_slow_loris_and_idle_connections_delay_nobody(tmp_path: Path) -> None:
    """30 that send a byte now and then, 200 that send nothing, 99 idle associations: one more is served at once."""
    reception = Reception(associations_per_host=50)
    node = open_node(tmp_path, deadlines=replace(SHORT, request_s=6.0, idle_s=60.0), reception=reception)
    request = associate_rq()
    idle = [RawClient(node.port, host=f"127.0.0.{2 + number // 50}").associate() for number in range(99)]
    silent = [RawClient(node.port) for _ in range(200)]
    loris = [RawClient(node.port) for _ in range(30)]
    stop = threading.Event()

    def trickle() -> None:
        for byte in request:
            for one in loris:
                with contextlib.suppress(OSError):
                    one.socket.sendall(bytes([byte]))
            if stop.wait(0.5):
                return

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        waits_s = []
        for _ in range(3):  # the best of three: the machine of the tests may be busy with something else
            start_s = time.monotonic()
            with RawClient(node.port).associate() as client:
                assert client.store(UID, WHOLE) == 0
                waits_s.append(time.monotonic() - start_s)
            wait_until(lambda: node.receiver.associations == 99, "its end")
        assert min(waits_s) < AT_ONCE_S
        with RawClient(node.port).associate():
            with RawClient(node.port) as too_many:
                kind, content = too_many.ask(request)
                assert (kind, tuple(content[1:])) == (RJ, (2, 3, 2))
            wait_until(lambda: node.receiver.served == 100, "those without association to be dropped", 15)
    finally:
        stop.set()
        trickling.join()
        node.receiver.close(0.0)
        for one in (*idle, *silent, *loris):
            one.close()


def test_too_many_of_one_host_and_too_many_that_wait(tmp_path: Path) -> None:
    node = open_node(tmp_path, reception=Reception(associations_per_host=2, waiting_connections=5))
    try:
        with RawClient(node.port).associate() as one, RawClient(node.port).associate() as two:
            with RawClient(node.port) as three:
                kind, content = three.ask(associate_rq())
                assert (kind, tuple(content[1:])) == (RJ, (2, 3, 2))
            with RawClient(node.port, host="127.0.0.2").associate() as elsewhere:
                assert elsewhere.echo() == 0
            wait_until(lambda: node.receiver.served == 2, "the others to be gone")
            waiting = [RawClient(node.port) for _ in range(5)]
            with RawClient(node.port) as sixth, pytest.raises((Closed, ConnectionError)):
                sixth.ask(associate_rq())
            for one_of_them in waiting:
                one_of_them.close()
            assert (one.echo(), two.echo()) == (0, 0)
    finally:
        node.receiver.close(0.0)


def test_a_huge_pdu_is_not_read(node: OpenNode, client: RawClient) -> None:
    before = psutil.Process().memory_info().rss
    client.socket.sendall(struct.pack(">BBI", DATA, 0, 0xFFFFFFF0))
    n_sent = 0
    with contextlib.suppress(ConnectionError):
        while n_sent < 50_000_000:
            n_sent += client.socket.send(bytes(65_536))
    assert n_sent < 20_000_000  # what the kernel's buffers and the drain take
    assert psutil.Process().memory_info().rss - before < 5_000_000


def test_an_object_that_is_too_large_is_cut_off(tmp_path: Path) -> None:
    node = open_node(tmp_path, reception=Reception(largest_object_mb=1))
    try:
        with RawClient(node.port).associate() as client:
            client.socket.sendall(pdu(DATA, value(1, 3, store_command(UID))))
            kind = DATA
            try:
                for _ in range(40):
                    client.socket.sendall(pdu(DATA, value(1, 0, bytes(100_000))))
                kind, _ = client.receive()
            except OSError:
                kind = ABORT
            assert kind == ABORT
        wait_until(lambda: not leftovers(node), "nothing to be left")
    finally:
        node.receiver.close(0.0)


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_failing_flush_is_no_success(node: OpenNode, client: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert client.store(UID, WHOLE) == 0xA700
    assert node.notebook.received == []
    assert leftovers(node) == []
    assert client.store(UID, WHOLE) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no mounts here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_for_now_and_takes_again(small_disk: Path) -> None:
    node = open_node(small_disk, reception=Reception(full_mb=0, closed_mb=0))
    filling = small_disk / "filling"
    filling.write_bytes(bytes(5_000_000))
    large = encode(image(), EXPLICIT)
    pixels = os.urandom(400_000)
    at = large.index(b"\xe0\x7f\x10\x00OW")
    large = large[: at + 8] + struct.pack("<I", len(pixels)) + pixels
    try:
        with RawClient(node.port).associate() as client:
            answers = {}
            for number in range(15):
                uid = f"1.2.3.{number + 10}"
                answers[uid] = client.store(uid, large.replace(b"1.2.3.4\0", uid.encode().ljust(8, b"\0")))
            assert set(answers.values()) == {0, 0xA700}
            filling.unlink()
            start_s = time.monotonic()
            assert client.store("1.2.3.9", large.replace(b"1.2.3.4\0", b"1.2.3.9\0")) == 0
            assert time.monotonic() - start_s < 2.0
        taken = {uid for uid, status in answers.items() if status == 0} | {"1.2.3.9"}
        assert {one.sop_instance_uid for one in node.notebook.received} == taken
        for one in node.notebook.received:
            assert node.inbox.path(one.name).read_bytes().endswith(pixels)
        assert leftovers(node) == []
        assert len(list((small_disk / "inbox" / "objects").rglob("*.dcm"))) == len(taken)
    finally:
        node.receiver.close(0.0)


def test_objects_and_then_associations_are_refused_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node(tmp_path, reception=Reception(closed_mb=512))
    free_mb = 2000.0
    found = os.statvfs(tmp_path)

    class Found:
        f_frsize = found.f_frsize
        f_blocks = 10**12 // found.f_frsize

        @property
        def f_bavail(self) -> float:
            return free_mb * 1e6 / self.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda folder: Found())
    with RawClient(node.port).associate() as client:
        assert client.store(UID, WHOLE) == 0
        free_mb = 900.0
        wait_until(lambda: client.store(UID, WHOLE) == 0xA700, "objects to be refused", 3)
        assert client.echo() == 0
        free_mb = 400.0

        def is_rejected() -> bool:
            with RawClient(node.port) as other:
                kind, content = other.ask(associate_rq())
                return (kind, tuple(content[1:])) == (RJ, (2, 3, 2))

        wait_until(is_rejected, "associations to be refused", 3)
        free_mb = 2000.0
        wait_until(lambda: client.store(UID, WHOLE) == 0, "objects to be taken again", 2)
    node.receiver.close(0.0)


# --- the end, and TLS -------------------------------------------------------------------------------------------------


def test_a_stop_lets_the_object_under_way_come_in(tmp_path: Path) -> None:
    node = open_node(tmp_path, deadlines=Deadlines())
    message, port = store_message(UID, WHOLE, step=100), node.port
    with RawClient(port).associate() as busy, RawClient(port).associate() as idle:
        busy.socket.sendall(message[:-400])
        wait_until(lambda: leftovers(node), "the object to begin")
        closing = threading.Thread(target=node.receiver.close, args=(10.0,))
        closing.start()
        assert idle.receive()[0] == ABORT
        assert busy.status_of(busy.ask(message[-400:])) == 0
        assert busy.receive()[0] == ABORT
        closing.join(10)
    with pytest.raises(ConnectionRefusedError):
        RawClient(port)
    assert node.receiver.served == 0


def test_tls_is_spoken_on_a_port_of_its_own_and_a_stalled_handshake_delays_nobody(tmp_path: Path) -> None:
    own, port = Authority(tmp_path / "authority").issue("node"), free_port()
    notebook, inbox = Notebook(), Inbox(tmp_path / "inbox")
    files = {"certificate_file": own.certificate_file, "key_file": own.key_file, "client_certificate": "optional"}
    receiver = open_receiver(
        Settings.model_validate({"port": free_port(), "tls": {"port": port, **files}}),
        inbox,
        Ledger(notebook.record, notebook.broken.append),
        deadlines=SHORT,
    )
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        stalled = [RawClient(port) for _ in range(5)]
        start_s = time.monotonic()
        client = RawClient(port)
        client.socket = trusting.wrap_socket(client.socket)
        assert client.associate().store(UID, WHOLE * 1) == 0
        assert time.monotonic() - start_s < AT_ONCE_S
        client.release()
        with RawClient(receiver.port).associate() as plain:
            assert plain.store(UID, WHOLE) == 0
        with RawClient(port) as without, pytest.raises((Closed, ConnectionError)):
            without.associate()
        wait_until(lambda: receiver.served == 0, "the stalled to be dropped")
        for one in stalled:
            one.close()
    finally:
        receiver.close(0.0)


def test_nothing_is_left_of_five_hundred_associations_that_break_off(node: OpenNode) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with RawClient(node.port).associate() as client:
        client.store(UID, WHOLE)
    wait_until(lambda: node.receiver.served == 0, "the first to end")
    n_files, n_threads = open_files(), threading.active_count()
    for number in range(500):
        client = RawClient(node.port)
        if number % 3:
            client.associate()
        if number % 3 == 2:
            half_an_object(client)
        client.reset()
    wait_until(lambda: node.receiver.served == 0, "all to end", 30)
    assert abs(open_files() - n_files) <= 2
    assert abs(threading.active_count() - n_threads) <= 2
    assert leftovers(node) == []
