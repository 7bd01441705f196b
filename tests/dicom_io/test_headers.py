"""What is read from a header is what stands in it, and an odd header is refused by name."""

import hashlib
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRColorImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from small_mr_exam import image_facts, mr_dataset

from dicom_io.headers import ImageFacts, facts_from_bytes, facts_from_json, facts_to_json, read_facts
from processing.refusal import Reason, ReasonCode, UnsuitableInput

PIXELS = np.arange(30, dtype=np.uint16).reshape(6, 5) * 1000


def file_bytes(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


WHOLE = file_bytes(mr_dataset(PIXELS))


def facts_of(content: bytes) -> ImageFacts:
    (facts,) = facts_from_bytes(content, Path("kept-here"))
    return facts


def refusal_of(content: bytes) -> UnsuitableInput:
    with pytest.raises(UnsuitableInput) as caught:
        facts_of(content)
    return caught.value


def with_raw_value(keyword: str, value: bytes) -> bytes:
    """A file whose attribute holds bytes that pydicom would refuse to write."""
    dataset = mr_dataset(PIXELS)
    marker = b"75315975.15975.1"
    dataset.add_new(keyword, "LO", marker.decode())
    buffer = BytesIO()
    dataset.save_as(buffer)  # without file meta made from the marker
    content = buffer.getvalue()
    assert content.count(marker) == 1
    return content.replace(marker, value + b" " * (len(marker) - len(value)))


def test_facts_are_those_of_the_header(tmp_path: Path) -> None:
    dataset = mr_dataset(
        PIXELS,
        EchoTime="12.847",
        ImagesInAcquisition=84,
        RescaleSlope=2,
        RescaleIntercept=-10,
        SpacingBetweenSlices=4.4,
        AcquisitionDate="20261122",
        AcquisitionTime="101112.5",
        ProtocolName="LUMBAR",
    )
    path = tmp_path / "image"
    path.write_bytes(file_bytes(dataset))
    (facts,) = read_facts(path)
    assert facts.path == path
    assert (facts.rows, facts.columns, facts.bits_allocated, facts.pixel_representation) == (6, 5, 16, 0)
    assert facts.echo_time_ms == 12.847
    assert facts.echo_numbers == (1,)
    assert facts.images_in_acquisition == 84
    assert (facts.rescale_slope, facts.rescale_intercept) == (2.0, -10.0)
    assert facts.orientation == (0, 1, 0, 0, 0, -1)
    assert facts.position == (20, -100, 100)
    assert facts.pixel_spacing_mm == (0.8, 0.6)
    assert (facts.slice_thickness_mm, facts.spacing_between_slices_mm) == (4.0, 4.4)
    assert facts.image_type == ("ORIGINAL", "PRIMARY", "OTHER")
    assert facts.acquisition_time == "20261122101112.5"
    assert facts.protocol_name == "LUMBAR"
    assert facts.pixel_sha256 == hashlib.sha256(PIXELS.tobytes()).hexdigest()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_give_the_same_facts(syntax: str) -> None:
    expected = facts_of(file_bytes(mr_dataset(PIXELS)))
    facts = facts_of(file_bytes(mr_dataset(PIXELS, transfer_syntax=syntax)))
    assert {**as_dict(facts), "transfer_syntax_uid": ""} == {**as_dict(expected), "transfer_syntax_uid": ""}


def test_big_endian_sizes_are_read() -> None:
    dataset = mr_dataset(PIXELS, transfer_syntax=ExplicitVRBigEndian)
    facts = facts_of(file_bytes(dataset))
    assert (facts.rows, facts.columns, facts.bits_allocated) == (6, 5, 16)


def as_dict(facts: ImageFacts) -> dict[str, object]:
    return {name: getattr(facts, name) for name in ImageFacts.__slots__}


def test_json_round_trip_is_exact() -> None:
    facts = facts_of(file_bytes(mr_dataset(PIXELS, EchoTime="51.4")))
    assert facts_from_json(facts_to_json([facts]), facts.path) == (facts,)
    assert facts_from_json(facts_to_json([image_facts()]), Path("elsewhere")) == (image_facts(path=Path("elsewhere")),)


def test_identity_is_only_kept_as_a_digest() -> None:
    facts = facts_of(file_bytes(mr_dataset(PIXELS, PatientID="ID-4711", IssuerOfPatientID="CLINIC")))
    assert not any(text in facts_to_json([facts]) for text in ("4711", "CLINIC", "Phantom", "1980"))


def test_patient_key_tells_patients_apart_and_ignores_padding() -> None:
    def key(**changes: str) -> str:
        return facts_of(file_bytes(mr_dataset(PIXELS, **changes))).patient_key

    assert key() == key(PatientID="P-17 ") == key(PatientName="Other^Spelling")
    assert len({key(), key(PatientID="P-18"), key(PatientBirthDate="19800201"), key(IssuerOfPatientID="X")}) == 4


def test_description_in_another_character_set_is_text() -> None:
    facts = facts_of(file_bytes(mr_dataset(PIXELS, SpecificCharacterSet="ISO_IR 126", SeriesDescription="MAPSS T1ρ")))
    assert facts.series_description == "MAPSS T1ρ"
    facts = facts_of(file_bytes(mr_dataset(PIXELS, SpecificCharacterSet="ISO_IR 192", SeriesDescription="MAPSS T1ρ")))
    assert facts.series_description == "MAPSS T1ρ"


@pytest.mark.parametrize(
    ("part", "expected"), [((0x0043, 0x0010, "GEMS_PARM_01"), 1), ((0x0043, 0x0010, "SOMEBODY ELSE"), None)]
)
def test_ge_phase_images_are_told_by_the_private_element_of_ge_alone(
    part: tuple[int, int, str], expected: int | None
) -> None:
    dataset = mr_dataset(PIXELS)
    dataset.add_new((part[0], part[1]), "LO", part[2])
    dataset.add_new((0x0043, 0x102F), "SS", 1)
    assert facts_of(file_bytes(dataset)).ge_complex_part == expected


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_missing_or_impossible_uids_are_unreadable(keyword: str) -> None:
    dataset = mr_dataset(PIXELS)
    del dataset[keyword]
    content = BytesIO()
    dataset.save_as(content)
    refusal = refusal_of(content.getvalue())
    assert refusal.reason.code is ReasonCode.UNREADABLE
    assert refusal.reason.detail == f"{keyword} is missing"
    traversal = with_raw_value(keyword, b"../../etc/passwd")
    assert refusal_of(traversal).reason.detail == f"{keyword} is not a UID"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("EchoTime", b"abc"),
        ("EchoTime", b"nan"),
        ("EchoTime", b"1,5"),
        ("RescaleSlope", b"inf"),
        ("ImagesInAcquisition", b"12.5"),
        ("ImagePositionPatient", b"0\\0\\x"),
        ("ImagePositionPatient", b"1\\2"),
        ("ImageOrientationPatient", b"1\\0\\0"),
        ("PixelSpacing", b"0.5\\\\0.5"),
        ("EchoTime", b"1\\2"),
    ],
)
def test_a_value_of_the_wrong_form_is_unreadable_and_named(keyword: str, value: bytes) -> None:
    refusal = refusal_of(with_raw_value(keyword, value))
    assert refusal.reason.code is ReasonCode.UNREADABLE
    assert keyword in refusal.reason.detail


def test_whole_number_written_as_decimal_is_accepted() -> None:
    assert facts_of(with_raw_value("InstanceNumber", b"7.0")).instance_number == 7


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SOPClassUID": CTImageStorage}, "CT Image Storage is not read"),
        ({"SOPClassUID": EnhancedMRColorImageStorage}, "Enhanced MR Color Image Storage is not read"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not a greyscale image"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"BitsAllocated": 1}, "1 bits"),
    ],
)
def test_other_objects_are_unsupported(changes: dict[str, object], text: str) -> None:
    refusal = refusal_of(file_bytes(mr_dataset(PIXELS, **changes)))
    assert refusal.reason.code is ReasonCode.UNSUPPORTED_OBJECT
    assert text in refusal.reason.detail


def test_image_without_pixels_is_unsupported() -> None:
    dataset = mr_dataset(PIXELS)
    del dataset.PixelData
    assert refusal_of(file_bytes(dataset)).reason.code is ReasonCode.UNSUPPORTED_OBJECT
    dataset.PixelData = b""
    assert refusal_of(file_bytes(dataset)).reason.code is ReasonCode.UNSUPPORTED_OBJECT


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
def test_image_without_size_is_unreadable(keyword: str) -> None:
    dataset = mr_dataset(PIXELS)
    del dataset[keyword]
    assert refusal_of(file_bytes(dataset)).reason.detail == f"{keyword} is missing"


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_no_prefix_of_a_file_is_taken_for_a_whole_image(syntax: str | None) -> None:
    dataset = mr_dataset(PIXELS, **({"transfer_syntax": syntax} if syntax else {}))
    content = file_bytes(dataset)
    for length in range(len(content)):
        reason = refusal_of(content[:length]).reason
        # a cut exactly between two elements cannot be told from an object without pixels
        assert reason.code is ReasonCode.UNREADABLE or reason.detail == "MR image without pixel data", length


def test_pixels_shorter_than_the_matrix_are_unreadable() -> None:
    dataset = mr_dataset(PIXELS, Rows=7)
    assert "7 x 5 pixels need 70 bytes, 60 are there" in refusal_of(file_bytes(dataset)).reason.detail


def test_trailing_padding_is_harmless() -> None:
    dataset = mr_dataset(PIXELS)
    dataset.DataSetTrailingPadding = b"\0" * 64
    assert facts_of(file_bytes(dataset)).rows == 6


def test_endless_nesting_is_refused() -> None:
    item = bytes.fromhex("feff00e0 ffffffff") + bytes.fromhex("08001111") + b"SQ\0\0" + b"\xff" * 4
    bomb = bytes.fromhex("fcff0000") + b"SQ\0\0" + b"\xff" * 4 + item * 5000
    refusal = refusal_of(WHOLE + bomb)
    assert refusal.reason == Reason(ReasonCode.UNREADABLE, "sequences are nested too deeply")


def test_deep_nesting_of_known_length_is_left_alone() -> None:
    nested = b""
    for _ in range(2000):
        nested = bytes.fromhex("feff00e0") + struct.pack("<I", len(nested)) + nested
        nested = bytes.fromhex("fcff0000") + b"SQ\0\0" + struct.pack("<I", len(nested)) + nested
    assert facts_of(WHOLE + nested).rows == 6


def test_plain_value_hidden_in_a_sequence_is_refused() -> None:
    dataset = mr_dataset(PIXELS, EchoTime=None)
    # (0018,0081) with VR SQ of undefined length, in the place where EchoTime belongs
    content = file_bytes(dataset)
    place = content.index(bytes.fromhex("18008600"))  # EchoNumbers follows
    bogus = bytes.fromhex("18008100") + b"SQ\0\0" + b"\xff" * 4 + bytes.fromhex("feffdde0 00000000")
    assert "EchoTime" in refusal_of(content[:place] + bogus + content[place:]).reason.detail


def test_a_broken_file_meta_does_not_log_the_patient(caplog: pytest.LogCaptureFixture) -> None:
    transfer_syntax = WHOLE.index(b"1.2.840.10008.1.2.1\0")
    overrunning = WHOLE[: transfer_syntax - 2] + struct.pack("<H", 400) + WHOLE[transfer_syntax:]
    refusal_of(overrunning)
    assert "Phantom" not in caplog.text


def test_nothing_is_warned_from_several_threads_at_once() -> None:
    contents = [with_raw_value("StudyDescription", b"x" * 16), with_raw_value("PatientID", b"\xff\xfe\xfd")] * 40
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        keys = {facts.patient_key for facts in threads.map(facts_of, contents)}
    assert len(keys) == 2
    assert warnings.filters == filters


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_are_refused_by_name(content: bytes) -> None:
    refusal_of(content)
    refusal_of(WHOLE[:132] + content)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_mutated_files_give_facts_or_a_named_refusal(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(132, len(content) - 1))
        match data.draw(st.sampled_from(["set", "insert", "delete", "length"])):
            case "set":
                content[place] = data.draw(st.integers(0, 255))
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del content[place : place + data.draw(st.integers(1, 8))]
            case _:
                content[place : place + 4] = b"\xff\xff\xff\xff"
        if len(content) <= 140:
            break
    try:
        facts = facts_of(bytes(content))
    except UnsuitableInput as refusal:
        reason: Reason = refusal.reason
        event(reason.code)
    else:
        event("facts")
        assert facts_from_json(facts_to_json([facts]), facts.path) == (facts,)
        return
    assert reason.code in (ReasonCode.UNREADABLE, ReasonCode.UNSUPPORTED_OBJECT)
