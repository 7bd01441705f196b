import errno
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
from peers import echoscu, free_port, need, run_tool, statuses, storescu
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config
from pynetdicom.dsutils import encode_file_meta
from small_mr_exam import mr_dataset, write_mapss
from test_element_walk import encode

from config.settings import Peer, Settings
from dicom_io.inbox import Inbox
from dicom_io.receiver import BrokenObject, Ledger, ReceivedInstance, Receiver, Recorded, open_receiver
from processing.refusal import ReasonCode

pytestmark = pytest.mark.peers


@pytest.fixture(autouse=True)
def _send_files_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@dataclass
class Notebook:
    """A ledger in memory."""

    received: list[ReceivedInstance] = field(default_factory=list)
    broken: list[BrokenObject] = field(default_factory=list)
    fail_with: Exception | None = None

    def record(self, one: ReceivedInstance) -> Recorded:
        if self.fail_with is not None:
            raise self.fail_with
        known = [other for other in self.received if other.sop_instance_uid == one.sop_instance_uid]
        self.received.append(one)
        if any(other.sha256 == one.sha256 for other in known):
            return Recorded.KNOWN
        return Recorded.CONFLICT if known else Recorded.NEW


@dataclass
class OpenNode:
    receiver: Receiver
    inbox: Inbox
    notebook: Notebook

    @property
    def port(self) -> int:
        return self.receiver.port


def open_node(folder: Path, **settings: object) -> OpenNode:
    notebook, inbox = Notebook(), Inbox(folder / "inbox")
    receiver = open_receiver(
        Settings(port=free_port(), **settings), inbox, Ledger(notebook.record, notebook.broken.append)
    )
    return OpenNode(receiver, inbox, notebook)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OpenNode]:
    opened = open_node(tmp_path)
    yield opened
    opened.receiver.close(drain_s=2.0)


def image(**attributes: object) -> pydicom.FileDataset:
    return mr_dataset(np.arange(30, dtype=np.uint16).reshape(6, 5), **attributes)


def send_bytes(
    node: OpenNode, *data: bytes, sop_uid: str = "1.2.3.4", sop_class: str = MRImageStorage, calling: str = "SCANNER"
) -> list[Dataset]:
    """Send encoded data sets as they are over one association, whatever is in them; returns the answers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(sop_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ae = AE(ae_title=calling)
    ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", node.port, ae_title="DISCNODE")
    assert association.is_established
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "object")
        for one in data:
            path.write_bytes(b"\0" * 128 + b"DICM" + encode_file_meta(meta) + one)
            answers.append(association.send_c_store(path))
    association.release()
    return answers


def test_echo(node: OpenNode) -> None:
    need("echoscu")
    assert echoscu(node.port)


def test_a_call_to_another_ae_title_is_rejected(node: OpenNode) -> None:
    need("echoscu")
    assert not echoscu(node.port, called="SOMEONE")


def test_only_configured_peers_may_call(tmp_path: Path) -> None:
    need("echoscu")
    peers = (Peer(ae_title="SCANNER"), Peer(ae_title="AWAY", host="192.0.2.1"), Peer(ae_title="HERE", host="127.0.0.1"))
    node = open_node(tmp_path, peers=peers)
    try:
        assert echoscu(node.port, calling="SCANNER")
        assert echoscu(node.port, calling="HERE")
        assert not echoscu(node.port, calling="STRANGER")
        assert not echoscu(node.port, calling="AWAY")
        assert echoscu(node.port, calling="SCANNER")
    finally:
        node.receiver.close(drain_s=2.0)


def test_stored_bytes_are_the_bytes_that_were_sent(node: OpenNode, tmp_path: Path) -> None:
    need("storescu")
    path = tmp_path / "image.dcm"
    image().save_as(path, enforce_file_format=True)
    assert statuses(storescu(node.port, [path])) == ["Success"]

    (received,) = node.notebook.received
    stored = pydicom.dcmread(node.inbox.path(received.name))
    assert stored == pydicom.dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == received.transfer_syntax
    assert received.calling_ae == "SCANNER"
    assert received.received_at.tzinfo is not None


def test_compressed_objects_are_kept_undecoded(node: OpenNode, tmp_path: Path) -> None:
    need("dcmcjpls", "storescu")
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    image().save_as(plain, enforce_file_format=True)
    assert run_tool("dcmcjpls", plain, packed).returncode == 0
    assert statuses(storescu(node.port, [packed], "-xt")) == ["Success"]
    assert node.notebook.received[0].transfer_syntax == "1.2.840.10008.1.2.4.80"


def test_the_same_bytes_again_are_one_copy(node: OpenNode) -> None:
    data = encode(image())
    assert [answer.Status for answer in send_bytes(node, data, data)] == [0, 0]
    assert len({one.name for one in node.notebook.received}) == 1


def test_other_bytes_under_the_same_uid_are_both_kept(node: OpenNode) -> None:
    answers = send_bytes(node, encode(image()), encode(image(PatientID="P-18")))
    assert [answer.Status for answer in answers] == [0, 0xB000]
    assert len({one.name for one in node.notebook.received}) == 2


def test_bad_objects_do_not_end_the_association(node: OpenNode) -> None:
    whole = encode(image())
    bomb = struct.pack("<HH2sHI", 0x40, 0xA043, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    answers = send_bytes(node, whole[:-20], b"no DICOM at all, only text", bomb * 2000, whole)

    assert [answer.Status for answer in answers] == [0xC000, 0xC000, 0xC000, 0]
    assert "20 bytes" in answers[0].ErrorComment
    assert len(node.notebook.received) == 1
    assert [one.code for one in node.notebook.broken] == [ReasonCode.UNREADABLE] * 3
    kept = node.inbox.path(node.notebook.broken[0].name).read_bytes()
    assert kept.endswith(whole[:-20])


def test_an_object_other_than_announced_is_refused(node: OpenNode) -> None:
    (answer,) = send_bytes(node, encode(image(SOPInstanceUID="1.2.3.5")))
    assert answer.Status == 0xA900
    (answer,) = send_bytes(node, encode(image()), sop_class=CTImageStorage)
    assert answer.Status == 0xA900


@pytest.mark.parametrize("uid", ["../../EVIL", "/tmp/EVIL", "1.2.3/4"])
def test_a_uid_that_is_a_path_stays_inside_the_inbox(node: OpenNode, tmp_path: Path, uid: str) -> None:
    data = encode(image(StudyInstanceUID="9.9.9.99999")).replace(b"9.9.9.99999\0", uid.encode().ljust(12, b"\0"))
    (answer,) = send_bytes(node, data)

    assert answer.Status == 0xC000
    assert list(tmp_path.iterdir()) == [node.inbox.folder]


def test_a_full_disk_is_told_and_survived(node: OpenNode) -> None:
    node.notebook.fail_with = OSError(errno.ENOSPC, "No space left on device")
    assert send_bytes(node, encode(image()))[0].Status == 0xA700
    node.notebook.fail_with = RuntimeError("a bug")
    assert send_bytes(node, encode(image()))[0].Status == 0x0110
    node.notebook.fail_with = None
    assert send_bytes(node, encode(image()))[0].Status == 0


def test_success_is_answered_only_after_the_record(node: OpenNode) -> None:
    entered, go_on = threading.Event(), threading.Event()
    record = node.notebook.record

    def slow_record(one: ReceivedInstance) -> Recorded:
        assert node.inbox.path(one.name).stat().st_size == one.size_bytes
        entered.set()
        assert go_on.wait(10)
        return record(one)

    node.notebook.record = slow_record  # type: ignore[method-assign]
    opened = open_receiver(Settings(port=free_port()), node.inbox, Ledger(slow_record, node.notebook.broken.append))
    answers: list[Dataset] = []
    other = OpenNode(opened, node.inbox, node.notebook)
    sender = threading.Thread(target=lambda: answers.extend(send_bytes(other, encode(image()))))
    sender.start()
    assert entered.wait(10)
    time.sleep(0.2)
    assert answers == []
    go_on.set()
    sender.join(10)
    assert [answer.Status for answer in answers] == [0]
    opened.close(drain_s=0.0)


def test_several_senders_at_once(node: OpenNode, tmp_path: Path) -> None:
    need("storescu")
    signal = np.arange(7 * 4 * 30, dtype=np.uint16).reshape(7, 4, 6, 5)
    paths = write_mapss(tmp_path, signal)
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda part=paths[start::4]: results.append(statuses(storescu(node.port, part))))
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [status for part in results for status in part] == ["Success"] * 28
    assert len({one.sop_instance_uid for one in node.notebook.received}) == 28


def test_a_peer_that_goes_away_inside_an_object_leaves_nothing(node: OpenNode, tmp_path: Path) -> None:
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", node.port, ae_title="DISCNODE")
    raw = association.dul.socket.socket
    context = association.accepted_contexts[0].context_id
    # a P-DATA-TF whose one fragment (data set, not the last) is half there (PS3.8 9.3.5)
    raw.sendall(struct.pack(">BBIIBB", 4, 0, 106, 102, context, 0) + b"x" * 50)
    raw.shutdown(socket.SHUT_RDWR)
    association.abort()

    assert send_bytes(node, encode(image()))[0].Status == 0
    assert list((node.inbox.folder / "incoming").iterdir()) == []
    assert len(node.notebook.received) == 1
