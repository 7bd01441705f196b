"""Every object of an exam: stored at a real archive, found by QIDO-RS, fetched by WADO-RS, equal."""

import email
import email.policy
import io
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import example_exam
import pydicom
import pytest
from peers import Orthanc

from config.settings import ObjectKind
from dicom_io.sender import Peer, SendOutcome, send_files
from dicom_io.stow import WebService, store_each
from service.result_files import write_result

pytestmark = [pytest.mark.peers, pytest.mark.slow]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, ObjectKind]:
    result = example_exam.exam_result()
    folder = tmp_path_factory.mktemp("exam") / "out"
    summary = write_result(result, example_exam.exam_images(result), folder)
    return {folder / one.path: one.kind for one in summary.objects}


def send(paths: Sequence[Path], archive: Orthanc, service: str) -> list[SendOutcome]:
    if service == "C-STORE":
        return list(send_files(paths, Peer("127.0.0.1", archive.port, archive.ae_title, "DISCNODE")))
    return list(store_each(paths, WebService(archive.dicomweb_url)))


def fetch(archive: Orthanc, header: pydicom.Dataset) -> bytes:
    """An instance by WADO-RS (PS3.18 10.4), read with the standard library's MIME parser."""
    where = f"studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}/instances/{header.SOPInstanceUID}"
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    request = urllib.request.Request(f"{archive.dicomweb_url}/{where}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + answer.read(), policy=email.policy.HTTP)
    (part,) = message.iter_parts()
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


@pytest.mark.parametrize("service", ["C-STORE", "STOW-RS"])
def test_each_kind_comes_back_equal(orthanc: Orthanc, written: dict[Path, ObjectKind], service: str) -> None:
    assert [one.detail for one in send(list(written), orthanc, service) if not one.stored] == []
    headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in written}
    fields = "&".join(f"includefield={tag}" for tag in ("00080016", "0020000E", "0020000D"))
    found = orthanc.qido(f"studies/{example_exam.STUDY_UID}/instances?{fields}")
    assert {one["00080018"]["Value"][0]: one["00080016"]["Value"][0] for one in found} == {
        str(header.SOPInstanceUID): str(header.SOPClassUID) for header in headers.values()
    }
    for path, header in headers.items():
        content = fetch(orthanc, header)
        assert pydicom.dcmread(io.BytesIO(content)) == pydicom.dcmread(path), path.name
        assert data_set_of(content) == data_set_of(path.read_bytes()), path.name
    assert set(written.values()) == set(ObjectKind)


def data_set_of(content: bytes) -> bytes:
    """The bytes after the file meta information (PS3.10 7.1), which an archive may write anew."""
    return content[144 + int.from_bytes(content[140:144], "little") :]
