"""Objects as they come: piece by piece, in every transfer syntax, bit by bit as they were sent, however large."""

import contextlib
import hashlib
import itertools
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import dcmsend, need, wait_until
from pydicom.uid import UID, MRImageStorage
from pynetdicom import AE
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from raw_client import DATA, EXPLICIT, MR, RawClient, pdu, store_command, store_message, value
from test_element_walk import encode, image, nested
from test_receiver import OpenNode, open_node

from dicom_io.element_walk import BrokenDataSet, ElementWalk, ObjectIdentity, identify
from dicom_io.file_meta import PREAMBLE, file_head, transfer_syntax_of
from dicom_io.places import Limits, Places
from dicom_io.presentation import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, STORAGE_TRANSFER_SYNTAXES


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OpenNode]:
    opened = open_node(tmp_path)
    yield opened
    opened.receiver.close(drain_s=0.0)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


ENCODED = {
    EXPLICIT: encode(image()),
    IMPLICIT_LITTLE: encode(image(), IMPLICIT_LITTLE),
    DEFLATED: deflated(encode(image())),
}
NESTED = encode(nested(6))


def walked(data: bytes, syntax: str, cuts: list[int]) -> ObjectIdentity | None:
    """What a walk over the pieces finds; None where it finds a fault."""
    walk = ElementWalk(syntax)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(places):
            walk.feed(memoryview(data)[start:end])
        return walk.finish()
    except BrokenDataSet:
        return None


@given(st.sampled_from(sorted(ENCODED)), st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=100, deadline=None)
def test_pieces_of_any_length_are_the_same_data_set(syntax: str, cuts: list[int]) -> None:
    assert walked(ENCODED[syntax], syntax, cuts) == identify(ENCODED[syntax], syntax)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_fault_is_found_however_the_pieces_fall(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([ENCODED[EXPLICIT], NESTED])))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = None
    with contextlib.suppress(BrokenDataSet):
        whole = identify(bytes(content), EXPLICIT)
    assert walked(bytes(content), EXPLICIT, data.draw(st.lists(st.integers(0, 10_000), max_size=12))) == whole


@pytest.mark.parametrize("sop_uid", ["1.2.3.4", "1.2.3.45"])
def test_the_head_of_a_file_is_as_the_libraries_write_it(sop_uid: str) -> None:
    for syntax in STORAGE_TRANSFER_SYNTAXES:
        meta = create_file_meta(sop_class_uid=UID(MR), sop_instance_uid=UID(sop_uid), transfer_syntax=UID(syntax))
        head = file_head(MR, sop_uid, syntax)
        assert head == PREAMBLE + encode_file_meta(meta)
        assert transfer_syntax_of(head) == syntax


@pytest.mark.parametrize("syntax", STORAGE_TRANSFER_SYNTAXES)
def test_what_is_kept_are_the_bits_that_were_sent(node: OpenNode, syntax: str) -> None:
    """Private elements with odd values among them; nothing is decoded."""
    dataset = image()
    block = dataset.private_block(0x0051, "TEST", create=True)
    block.add_new(0x10, "UN", b"\x01\x02\x03\x00")
    explicit = encode(dataset)
    kinds = {IMPLICIT_LITTLE: encode(dataset, IMPLICIT_LITTLE), DEFLATED: deflated(explicit)}
    data = kinds.get(syntax, explicit)
    if syntax == EXPLICIT_BIG:
        data = encode(_without_pixels(), EXPLICIT_BIG)
    with RawClient(node.port).associate(contexts=((1, MR, syntax),)) as client:
        assert client.store("1.2.3.4", data) == 0
    (received,) = node.notebook.received
    content = node.inbox.path(received.name).read_bytes()
    assert content == file_head(MR, "1.2.3.4", syntax) + data
    assert (received.sha256, received.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def _without_pixels() -> object:
    dataset = image()
    del dataset.PixelData
    return dataset


def test_memory_does_not_grow_with_the_object(node: OpenNode) -> None:
    """100 MB, and four at once."""
    pixels = os.urandom(1 << 20)
    head = ENCODED[EXPLICIT]
    at = head.index(b"\xe0\x7f\x10\x00OW")
    n_bytes = 100 << 20
    begin = head[: at + 8] + struct.pack("<I", n_bytes)
    answers: list[int] = []

    def send(number: int) -> None:
        uid = f"1.2.3.{number}"
        with RawClient(node.port, timeout_s=60).associate() as client:
            first = begin.replace(b"1.2.3.4\0", uid.encode() + b"\0")
            client.socket.sendall(pdu(DATA, value(1, 3, store_command(uid))) + pdu(DATA, value(1, 0, first)))
            for _ in range(100):
                for start in range(0, 1 << 20, 1 << 16):
                    client.socket.sendall(pdu(DATA, value(1, 0, pixels[start : start + (1 << 16)])))
            answers.append(client.status_of(client.ask(pdu(DATA, value(1, 2, b"")))))

    send(5)
    before = psutil.Process().memory_info().rss
    peak = before
    senders = [threading.Thread(target=send, args=(number,)) for number in (6, 7, 8, 9)]
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        peak = max(peak, psutil.Process().memory_info().rss)
        senders[0].join(0.02)
    assert answers == [0] * 5
    assert peak - before < 20_000_000


@pytest.mark.peers
def test_dcmsend_and_pynetdicom_store_all_they_have(node: OpenNode, tmp_path: Path) -> None:
    need("dcmsend")
    paths = []
    for number in range(5):
        path = tmp_path / f"{number}.dcm"
        image(SOPInstanceUID=f"1.2.3.{number + 1}").save_as(path, enforce_file_format=True)
        paths.append(path)
    report = tmp_path / "report.txt"
    assert dcmsend(node.port, paths, report).returncode == 0
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(MRImageStorage, [EXPLICIT, IMPLICIT_LITTLE])
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", node.port, ae_title="DISCNODE")
    assert association.is_established
    assert association.send_c_echo().Status == 0
    assert [association.send_c_store(path).Status for path in paths] == [0] * 5
    association.release()
    assert association.is_released
    assert len({one.sha256 for one in node.notebook.received}) == 5


def test_messages_one_after_the_other_without_waiting_for_answers(node: OpenNode) -> None:
    """No window for it was negotiated; but what comes early is in the buffer already."""
    messages = b"".join(
        store_message(f"1.2.3.{number}", ENCODED[EXPLICIT].replace(b"1.2.3.4\0", b"1.2.3.%d\0" % number))
        for number in range(5, 9)
    )
    with RawClient(node.port).associate() as client:
        client.socket.sendall(messages)
        assert [client.status_of(client.receive()) for _ in range(4)] == [0] * 4


# --- places -----------------------------------------------------------------------------------------------------------


def test_one_host_cannot_take_the_last_places_from_all_others() -> None:
    places = Places(Limits(waiting=32, associations=2, associations_per_host=2))
    taken = [place for place in (places.enter("hostile") for _ in range(40)) if place is not None]
    assert len(taken) == 30
    assert places.enter("scanner") is not None
    assert places.enter("node itself") is not None
    assert places.enter("pacs") is None
    taken[0].leave()
    assert places.enter("hostile") is None
    assert places.enter("pacs") is not None


def test_places_are_counted_over_processes_that_share_them_and_freed_for_a_dead_one() -> None:
    places = Places(Limits(waiting=3, associations=2, associations_per_host=2), processes=2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        places.belong_to(1)
        one, two = places.enter("a"), places.enter("b")
        os.write(writer, bytes([one is not None and one.associate() and two is not None]))
        threading.Event().wait(60)
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"\x01"
        assert (places.associations, places.waiting) == (1, 1)
        mine = places.enter("a")
        assert mine is not None
        assert mine.associate()
        third = places.enter("c")
        assert third is not None
        assert not third.associate()
        assert places.enter("d") is not None
        assert places.enter("e") is None
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    places.free_all_of(1)
    wait_until(lambda: places.associations == 1, "its places")
    assert third.associate()
    third.leave()
    assert places.associations == 1
