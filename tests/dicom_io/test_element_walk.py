import contextlib
import struct
import zlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from small_mr_exam import mr_dataset

from dicom_io.element_walk import MAX_DEPTH, BrokenDataSet, identify, is_uid
from dicom_io.presentation import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE

JPEG_2000 = "1.2.840.10008.1.2.4.90"


def encode(dataset: Dataset, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """The data set without file meta information, as it travels in a C-STORE."""
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian = syntax != EXPLICIT_BIG
    buffer.is_implicit_VR = syntax == IMPLICIT_LITTLE
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def image(**attributes: object) -> Dataset:
    return mr_dataset(np.arange(30, dtype=np.uint16).reshape(6, 5), **attributes)


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_a_whole_image_is_identified(syntax: str) -> None:
    found = identify(encode(image(), syntax), syntax)

    assert (found.sop_class_uid, found.sop_instance_uid) == ("1.2.840.10008.5.1.4.1.1.4", "1.2.3.4")
    assert (found.study_uid, found.series_uid) == ("1.2.3", "1.2.3.1")
    assert found.has_pixels


def test_big_endian_and_deflated_are_walked_too() -> None:
    big = Dataset()
    big.SOPInstanceUID, big.Rows = "1.2.3.4", 6
    assert identify(encode(big, EXPLICIT_BIG), EXPLICIT_BIG).sop_instance_uid == "1.2.3.4"

    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = packer.compress(encode(image())) + packer.flush()
    assert identify(deflated, DEFLATED).sop_instance_uid == "1.2.3.4"
    with pytest.raises(BrokenDataSet, match="cut short"):
        identify(deflated[:-5], DEFLATED)


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_every_truncation_is_noticed(syntax: str) -> None:
    data = encode(image(), syntax)
    whole_lengths = []
    for length in range(len(data)):
        try:
            found = identify(data[:length], syntax)
        except BrokenDataSet:
            continue
        assert not found.has_pixels  # cut exactly between two elements: the image is recognisably not all there
        whole_lengths.append(length)
    assert len(whole_lengths) < 50


def test_pixel_data_shorter_than_the_image_are_noticed() -> None:
    dataset = image()
    dataset.PixelData = dataset.PixelData[:-2]
    with pytest.raises(BrokenDataSet, match="58 of 60 bytes"):
        identify(encode(dataset), EXPLICIT_LITTLE)


def test_compressed_pixel_data_are_walked_by_fragment() -> None:
    dataset = image()
    dataset.PixelData = encapsulate([b"\xff\x4f" + b"j" * 20, b"k" * 10])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    data = encode(dataset)

    assert identify(data, JPEG_2000).has_pixels
    for length in (len(data) - 1, len(data) - 8, len(data) - 12):
        with pytest.raises(BrokenDataSet):
            identify(data[:length], JPEG_2000)


def nested(depth: int) -> Dataset:
    inner = Dataset()
    inner.CodeValue = "x"
    for _ in range(depth):
        outer = Dataset()
        outer.ConceptNameCodeSequence = Sequence([inner])
        outer["ConceptNameCodeSequence"].is_undefined_length = True
        outer.ConceptNameCodeSequence[0].is_undefined_length_sequence_item = True
        inner = outer
    return inner


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_nested_sequences_of_undefined_length(syntax: str) -> None:
    assert identify(encode(nested(5), syntax), syntax).sop_instance_uid == ""


def test_a_bomb_of_nested_sequences_is_refused_without_recursion_error() -> None:
    start = struct.pack("<HH2sHI", 0x0040, 0xA043, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(BrokenDataSet, match=f"deeper than {MAX_DEPTH}"):
        identify(start * 100_000, EXPLICIT_LITTLE)


@pytest.mark.parametrize("junk", [b"\0", b"hello, this is no DICOM at all", b"\xff" * 64, b"\0" * 64])
@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED])
def test_junk_is_refused(junk: bytes, syntax: str) -> None:
    with pytest.raises(BrokenDataSet):
        identify(junk, syntax)


@given(st.binary(max_size=300), st.sampled_from([EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_an_identity_or_a_refusal(data: bytes, syntax: str) -> None:
    with contextlib.suppress(BrokenDataSet):
        identify(data, syntax)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_one_changed_byte_never_crashes_the_walk(data: st.DataObject) -> None:
    content = bytearray(encode(image()))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BrokenDataSet):
        identify(bytes(content), EXPLICIT_LITTLE)


def test_what_pydicom_writes_is_whole_for_real_private_sequences() -> None:
    dataset = image()
    block = dataset.private_block(0x0051, "TEST", create=True)
    block.add_new(0x10, "SQ", Sequence([nested(2), nested(1)]))
    assert identify(encode(dataset), EXPLICIT_LITTLE).has_pixels
    assert pydicom.dcmread(BytesIO(encode(dataset)), force=True).SOPInstanceUID == "1.2.3.4"


@pytest.mark.parametrize("text", ["", "1..2", ".1", "1.2.", "../../etc", "1.2\x00", "1" * 65, "a.b"])
def test_not_a_uid(text: str) -> None:
    assert not is_uid(text)
