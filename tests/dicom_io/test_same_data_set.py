"""Two files with one UID: the same object in another encoding, or another object?"""

import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)
from small_mr_exam import mr_dataset

from dicom_io.same_data_set import is_same_data_set

LITTLE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


def write(path: Path, syntax: str = ExplicitVRLittleEndian, *, rows: int = 400, **changes: object) -> Path:
    """An image with more pixel data than is read at once, and a sequence."""
    pixels = (np.arange(rows * 400) % 4001).reshape(rows, 400).astype(np.uint16)
    dataset = mr_dataset(pixels, SOPInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3.9"
    dataset.ReferencedImageSequence = [item]
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return path


@pytest.mark.parametrize("first", LITTLE)
@pytest.mark.parametrize("second", LITTLE)
def test_another_transfer_syntax_makes_no_other_object(tmp_path: Path, first: str, second: str) -> None:
    assert is_same_data_set(write(tmp_path / "1", first), write(tmp_path / "2", second))


@pytest.mark.parametrize("syntax", LITTLE)
def test_one_pixel_or_one_letter_makes_another_object(tmp_path: Path, syntax: str) -> None:
    one = write(tmp_path / "1", syntax)
    changed = pydicom.dcmread(one).pixel_array.copy()
    changed[-1, -1] ^= 1
    for number, changes in enumerate(
        (
            {"PixelData": changed.tobytes()},
            {"PatientID": "another"},
            {"ReferencedImageSequence": []},
            {"ImageComments": "one element more"},
        )
    ):
        other = write(tmp_path / f"other-{number}", ExplicitVRLittleEndian, **changes)
        assert not is_same_data_set(one, other)
        assert not is_same_data_set(other, one)


def test_compressed_pixel_data_are_compared_too(tmp_path: Path) -> None:
    """They have no length of their own; what is compared reaches to the end of the file."""
    code = bytes(np.random.default_rng(1).integers(0, 255, 300_000, dtype=np.uint8))
    one, same = (write(tmp_path / name, JPEGLSLossless, PixelData=encapsulate([code])) for name in ("1", "2"))
    other = write(tmp_path / "3", JPEGLSLossless, PixelData=encapsulate([code[:-1] + b"\x01\x02"]))
    longer = write(tmp_path / "4", JPEGLSLossless, PixelData=encapsulate([code, code]))
    assert is_same_data_set(one, same)
    assert not is_same_data_set(one, other)
    assert not is_same_data_set(one, longer)
    assert not is_same_data_set(longer, one)
    assert not is_same_data_set(one, write(tmp_path / "5"))


def test_where_in_doubt_it_is_another(tmp_path: Path) -> None:
    one = write(tmp_path / "1")
    cut = tmp_path / "2"
    cut.write_bytes(one.read_bytes()[:-100])
    junk = tmp_path / "3"
    junk.write_bytes(b"no DICOM")
    for other in (cut, junk):
        assert not is_same_data_set(one, other)
        assert not is_same_data_set(other, one)
    with pytest.raises(FileNotFoundError):
        is_same_data_set(one, tmp_path / "nothing")


def test_large_files_are_not_read_into_memory(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1", rows=40_000), write(tmp_path / "2", ImplicitVRLittleEndian, rows=40_000)
    assert one.stat().st_size > 32e6
    tracemalloc.start()
    assert is_same_data_set(one, other)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 5e6
