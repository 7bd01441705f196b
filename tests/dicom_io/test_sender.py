import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from peers import Orthanc, Storescp, free_port, run_tool
from pynetdicom.association import Association
from small_mr_exam import mr_dataset, write_mapss

from dicom_io import sender
from dicom_io.presentation import describe, is_stored, proposed_contexts
from dicom_io.sender import AssociationRejected, Peer, PeerUnavailable, SendOutcome, echo, send_files

pytestmark = pytest.mark.peers


def peer_of(scp: Storescp | Orthanc, *, timeout_s: float = 10.0) -> Peer:
    return Peer("127.0.0.1", scp.port, scp.ae_title, "DISCNODE", timeout_s)


def images(folder: Path) -> list[Path]:
    return write_mapss(folder, np.arange(7 * 2 * 30, dtype=np.uint16).reshape(7, 2, 6, 5))


def test_files_arrive_as_they_are(storescp: Storescp, tmp_path: Path) -> None:
    paths = images(tmp_path)
    outcomes = send_files(paths, peer_of(storescp))

    assert [(one.path, one.stored, one.status) for one in outcomes] == [(path, True, 0) for path in paths]
    sent = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in paths}
    received = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, storescp.files)}
    assert received == sent


def test_files_of_two_transfer_syntaxes_in_one_association(orthanc: Orthanc, tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    pixels = np.arange(30, dtype=np.uint16).reshape(6, 5)
    mr_dataset(pixels).save_as(plain, enforce_file_format=True)
    mr_dataset(pixels, SOPInstanceUID="1.2.3.5").save_as(tmp_path / "other.dcm", enforce_file_format=True)
    assert run_tool("dcmcjpls", "+un", tmp_path / "other.dcm", packed).returncode == 0

    assert [one.stored for one in send_files([plain, packed], peer_of(orthanc))] == [True, True]
    assert orthanc.sop_instance_uids == ["1.2.3.4", "1.2.3.5"]


def test_a_class_that_the_peer_refuses_does_not_stop_the_others(tmp_path: Path) -> None:
    pixels = np.arange(30, dtype=np.uint16).reshape(6, 5)
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    mr_dataset(pixels).save_as(plain, enforce_file_format=True)
    assert run_tool("dcmcjpls", "+un", plain, packed).returncode == 0
    with Storescp(tmp_path / "scp") as peer:  # accepts uncompressed only, unless told otherwise
        first, second = send_files([packed, plain], peer_of(peer))
    assert not first.stored
    assert first.status is None
    assert "transfer syntax" in first.detail
    assert second.stored


# pynetdicom 3.0 leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")
def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(PeerUnavailable, match="no association"):
        send_files(images(tmp_path)[:1], Peer("127.0.0.1", free_port(), "NOBODY", "DISCNODE", timeout_s=2.0))


def test_a_rejected_association_is_told_apart(tmp_path: Path) -> None:
    with Storescp(tmp_path / "scp", "--refuse") as peer, pytest.raises(AssociationRejected):
        echo(peer_of(peer))


def test_a_peer_that_aborts_gives_no_status(tmp_path: Path) -> None:
    paths = images(tmp_path)[:3]
    with Storescp(tmp_path / "scp", "--abort-during") as peer:
        outcomes = send_files(paths, peer_of(peer, timeout_s=1.0))
    assert [one.stored for one in outcomes] == [False] * 3
    assert {one.status for one in outcomes} == {None}


def test_echo_of_a_real_peer_until_it_is_gone(orthanc: Orthanc) -> None:
    echo(peer_of(orthanc))
    orthanc.stop()
    with pytest.raises(PeerUnavailable):
        echo(peer_of(orthanc))


@pytest.mark.parametrize(
    ("status", "stored"),
    [
        (0x0000, True),
        (0xB000, True),
        (0xB007, True),
        (0xA700, False),
        (0xA900, False),
        (0xC000, False),
        (0x0110, False),
        (0x0124, False),
    ],
)
def test_what_a_status_means(status: int, stored: bool) -> None:
    assert is_stored(status) is stored
    assert describe(status).startswith(f"0x{status:04X} ")


def test_too_many_kinds_for_one_association() -> None:
    with pytest.raises(ValueError, match="128"):
        proposed_contexts((f"1.2.{number}", "1.2.840.10008.1.2") for number in range(129))


def test_the_librarys_reactor_takes_no_answer_away(
    storescp: Storescp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under load: its loop is past its checkpoint, and looks for messages, whenever an answer comes."""
    paths = images(tmp_path)
    stop = threading.Event()

    def look(association: Association) -> None:
        while not stop.is_set():
            association._serve_request = lambda message, context_id: None  # what it does with an answer: drops it
            context_id, message = association.dimse.get_msg(block=False)
            if message:
                association._serve_request(message, context_id)
            time.sleep(0.0001)

    original = sender._send

    def send_beside_the_reactor(association: Association, path: Path, *, message_id: int) -> SendOutcome:
        if message_id == 1:
            threading.Thread(target=look, args=(association,), daemon=True).start()
        return original(association, path, message_id=message_id)

    monkeypatch.setattr(sender, "_send", send_beside_the_reactor)
    try:
        assert all(one.stored for one in send_files(paths, peer_of(storescp, timeout_s=20.0)))
    finally:
        stop.set()
