"""Enhanced MR: every frame is an image with its own place, time and scaling, and results refer to frames."""

import hashlib
import struct
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from enhanced_object import enhanced_mr, group
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from small_enhanced_exam import OBJECT_UID, SIGNAL, classic_headers, frame_pixels, mapss_object
from small_mr_exam import MAPSS_TIMES_MS, mr_dataset

from config.protocol_cards import ElementAddress, ScalingRule, load_cards
from dicom_io.headers import ImageFacts, facts_from_bytes, facts_from_json, facts_to_json, read_facts
from dicom_io.pixels import read_image, read_images
from dicom_io.series import assemble_exam
from dicom_io.source_attributes import geometry_header
from dicom_io.sources import text_of
from dicom_io.uids import tracking_uid
from dicom_io.volume_reader import read_exam
from processing.refusal import ReasonCode, UnsuitableInput


def file_bytes(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def facts_of(dataset: FileDataset, elements: tuple[ElementAddress, ...] = ()) -> tuple[ImageFacts, ...]:
    return facts_from_bytes(file_bytes(dataset), Path("kept-here"), elements)


def refusal_of(dataset: FileDataset) -> UnsuitableInput:
    with pytest.raises(UnsuitableInput) as caught:
        facts_of(dataset)
    return caught.value


def test_each_frame_is_an_image_with_its_own_place_time_and_pixels() -> None:
    frames = facts_of(mapss_object())
    assert [one.key for one in frames] == [(OBJECT_UID, number) for number in range(1, 29)]
    assert {one.number_of_frames for one in frames} == {28}
    for number, one in enumerate(frames):
        slice_index, echo = divmod(number, 7)
        assert one.echo_time_ms == MAPSS_TIMES_MS[echo]
        assert one.position == (20 - 4 * slice_index, -100, 100)
        assert one.orientation == (0, 1, 0, 0, 0, -1)
        assert (one.pixel_spacing_mm, one.slice_thickness_mm) == ((0.8, 0.6), 4.0)
        assert (one.rescale_slope, one.rescale_intercept) == (1.0, 0.0)
        assert one.image_type == ("ORIGINAL", "PRIMARY", "OTHER", "NONE")
        assert one.complex_component == "MAGNITUDE"
        assert one.acquisition_number == number + 1
        assert one.pixel_sha256 == hashlib.sha256(SIGNAL[echo, slice_index].tobytes()).hexdigest()
    assert facts_from_json(facts_to_json(frames), Path("kept-here")) == frames


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_transfer_syntaxes_give_the_same_facts(syntax: str) -> None:
    def as_dict(facts: ImageFacts) -> dict[str, object]:
        left_out = ("transfer_syntax_uid", "pixel_sha256")
        return {name: getattr(facts, name) for name in ImageFacts.__slots__ if name not in left_out}

    expected = facts_of(mapss_object())
    frames = facts_of(enhanced_mr(classic_headers(), frame_pixels(), OBJECT_UID, syntax))
    assert [as_dict(one) for one in frames] == [as_dict(one) for one in expected]


def test_undefined_lengths_give_the_same_facts() -> None:
    dataset = mapss_object()
    expected = facts_of(dataset)
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        dataset[keyword].is_undefined_length = True
        for item in dataset[keyword].value:
            item.is_undefined_length_sequence_item = True
            for element in item:
                element.is_undefined_length = True
    assert facts_of(dataset) == expected


def test_an_exam_in_one_object_is_read_as_the_same_exam_in_single_images(tmp_path: Path) -> None:
    path = tmp_path / "enhanced"
    mapss_object().save_as(path, enforce_file_format=True)
    exam = read_exam(assemble_exam(read_facts(path), load_cards()))
    t1rho, t2 = exam.stacks
    for stack in (t1rho, t2):
        for echo, time_ms in zip(stack.signal, stack.times_ms, strict=True):
            assert np.array_equal(echo, SIGNAL[MAPSS_TIMES_MS.index(time_ms)])
    assert exam.source.sop_instance_uids == (OBJECT_UID,)
    assert [one.ImagePositionPatient[0] for one in exam.source.grid_instances] == [20, 16, 12, 8]
    assert [one.ReferencedFrameNumber for one in exam.source.grid_instances] == [1, 8, 15, 22]
    assert len(exam.source.all_instances) == 28
    assert not any("PixelData" in one for one in exam.source.all_instances)


def test_two_frames_with_each_others_pixels_are_another_exam(tmp_path: Path) -> None:
    def pixels_sha256(pixels: np.ndarray) -> str:
        path = tmp_path / "enhanced"
        enhanced_mr(classic_headers(), pixels, OBJECT_UID).save_as(path, enforce_file_format=True)
        return read_exam(assemble_exam(read_facts(path), load_cards())).source.pixels_sha256

    exchanged = frame_pixels()
    exchanged[[3, 4]] = exchanged[[4, 3]]
    assert pixels_sha256(frame_pixels()) != pixels_sha256(exchanged)


def test_each_object_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "one", tmp_path / "other"]
    facts = []
    for number, path in enumerate(paths):
        enhanced_mr(classic_headers(), frame_pixels() + number, f"{OBJECT_UID}.{number}").save_as(path)
        facts.append(read_facts(path))
    opened: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    interleaved = [one for pair in zip(*facts, strict=True) for one in pair]
    signals = [signal for signal, _ in read_images(interleaved, ScalingRule.RAW)]
    assert opened == paths
    assert all(np.array_equal(signals[2 * n] + 1, signals[2 * n + 1]) for n in range(28))


def test_a_frame_that_changed_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "enhanced"
    mapss_object().save_as(path, enforce_file_format=True)
    facts = read_facts(path)
    changed = frame_pixels()
    changed[5, 2, 2] += 1
    enhanced_mr(classic_headers(), changed, OBJECT_UID).save_as(path, enforce_file_format=True)
    assert np.array_equal(read_image(facts[4], ScalingRule.RAW)[0], changed[4])
    with pytest.raises(UnsuitableInput, match="has changed since"):
        read_image(facts[5], ScalingRule.RAW)


# ---- where attributes stand


def test_the_frames_own_group_comes_before_that_of_all_frames_and_the_root() -> None:
    dataset = mapss_object()
    dataset.EchoTime = 99
    dataset.PixelSpacing = [9, 9]
    dataset.ImagePositionPatient = [9, 9, 9]
    dataset.SharedFunctionalGroupsSequence[0].MREchoSequence = [group(EffectiveEchoTime=77.0)]
    del dataset.PerFrameFunctionalGroupsSequence[1].MREchoSequence
    frames = facts_of(dataset)
    assert [one.echo_time_ms for one in frames[:3]] == [0.0, 77.0, 12.8]
    assert frames[0].pixel_spacing_mm == (0.8, 0.6)
    del dataset.SharedFunctionalGroupsSequence[0].MREchoSequence
    assert facts_of(dataset)[1].echo_time_ms == 99  # as Hyperfine writes it


def test_a_frame_without_a_position_has_none_rather_than_that_of_the_object() -> None:
    dataset = mapss_object()
    dataset.ImagePositionPatient = [9, 9, 9]
    del dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence = []
    frames = facts_of(dataset)
    assert [one.position for one in frames[2:6]] == [(20, -100, 100), (), (), (20, -100, 100)]


def test_trigger_delay_temporal_position_and_time_of_acquisition_are_of_the_frame() -> None:
    dataset = enhanced_mr(classic_headers(TriggerTime=40), frame_pixels(), OBJECT_UID)
    content = dataset.PerFrameFunctionalGroupsSequence[2].FrameContentSequence[0]
    content.TemporalPositionIndex, content.FrameAcquisitionDateTime = 3, "20261122101112.5"
    one = facts_of(dataset)[2]
    assert (one.trigger_time_ms, one.temporal_position, one.acquisition_time) == (40.0, 3, "20261122101112.5")


def test_inversion_times_and_pulse_sequence_name() -> None:
    dataset = mapss_object()
    dataset.PulseSequenceName = "*mapss3d"
    dataset.PerFrameFunctionalGroupsSequence[0].MRModifierSequence = [group(InversionTimes=[25.0])]
    one = facts_of(dataset)[0]
    assert (one.inversion_time_ms, one.sequence_name) == (25.0, "*mapss3d")


def test_phase_frames_among_magnitude_frames_are_told_by_the_frame() -> None:
    dataset = mapss_object()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "T1", "MIXED"]
    dataset.ComplexImageComponent = "MIXED"
    phase = group(FrameType=["ORIGINAL", "PRIMARY", "T1", "P"], ComplexImageComponent="PHASE")
    dataset.PerFrameFunctionalGroupsSequence[1].MRImageFrameTypeSequence = [phase]
    frames = facts_of(dataset)
    assert [one.complex_component for one in frames[:3]] == ["MAGNITUDE", "PHASE", "MAGNITUDE"]
    assert frames[1].image_type == ("ORIGINAL", "PRIMARY", "T1", "P")
    del dataset.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence
    assert facts_of(dataset)[0].complex_component == "MIXED"


def philips_item(scale_slope: float, trigger_ms: float) -> Dataset:
    item = Dataset()
    block = item.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0E, "FL", scale_slope)
    item.TriggerTime, item.EchoNumbers, item.ScanningSequence = trigger_ms, 2, "GR"
    item.ImagePositionPatient = [1, 2, 3]  # Philips keeps one here that is half a pixel off
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("occupied", [(), (0x10, 0x14)])
def test_philips_private_items_are_found_by_their_creators(syntax: str, occupied: tuple[int, ...]) -> None:
    dataset = enhanced_mr(classic_headers(), frame_pixels(), OBJECT_UID, syntax)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        for block in occupied:  # others came first
            frame.add_new((0x2005, block), "LO", "Philips MR Imaging DD 002")
        philips = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        philips.add_new(0x0F, "SQ", [philips_item(0.001 * (number + 1), number)])
    one = facts_of(dataset)[4]
    assert one.scale_slope == pytest.approx(0.005)
    assert (one.trigger_time_ms, one.echo_numbers, one.scanning_sequence) == (4.0, (2,), "GR")
    assert one.position == (20, -100, 100)


def test_private_items_of_lost_vr_are_found() -> None:
    """As they pass through a system that does not know them: VR UN, implicit inside (PS3.5 6.2.2 note 2)."""

    def implicit(tag: int, value: bytes) -> bytes:
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value

    inner = implicit(0x00181060, b"40") + implicit(0x20050010, b"Philips MR Imaging DD 001 ")
    inner += implicit(0x2005100E, struct.pack("<f", 0.25))
    dataset = mapss_object()
    philips = dataset.PerFrameFunctionalGroupsSequence[2].private_block(
        0x2005, "Philips MR Imaging DD 005", create=True
    )
    philips.add_new(0x0F, "UN", item(inner))
    frames = facts_of(dataset)
    assert [(one.scale_slope, one.trigger_time_ms) for one in frames[1:4]] == [(None, None), (0.25, 40), (None, None)]


def test_a_scale_slope_of_another_creator_is_not_philips() -> None:
    dataset = mr_dataset(SIGNAL[0, 0])
    dataset.private_block(0x2005, "SOMEBODY ELSE", create=True).add_new(0x0E, "FL", 0.5)
    assert facts_of(dataset)[0].scale_slope is None
    dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.25)
    assert facts_of(dataset)[0].scale_slope == 0.25


def test_a_converted_object_keeps_the_times_of_classic_headers() -> None:
    dataset = mapss_object()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.4"
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        del frame.MREchoSequence
        frame.UnassignedPerFrameConvertedAttributesSequence = [group(EchoTime=number, EchoNumbers=number + 1)]
    frames = facts_of(dataset)
    assert [(one.echo_time_ms, one.echo_numbers) for one in frames[:3]] == [(0, (1,)), (1, (2,)), (2, (3,))]


def test_concatenations_are_numbered() -> None:
    dataset = mapss_object()
    assert facts_of(dataset)[0].concatenation == ()
    dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = 2, 3
    assert {one.concatenation for one in facts_of(dataset)} == {(2, 3)}


SPIN_LOCK = ElementAddress(group="0019", creator="SITE SEQUENCE", offset="B0")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_asked_elements_are_found_in_the_frame_in_all_frames_and_at_the_root(syntax: str) -> None:
    asked = (ElementAddress(keyword="InversionTimes"), SPIN_LOCK, ElementAddress(keyword="FlipAngle"))
    dataset = enhanced_mr(classic_headers(), frame_pixels(), OBJECT_UID, syntax)
    dataset.FlipAngle = 60
    dataset.SharedFunctionalGroupsSequence[0].MRModifierSequence = [group(InversionTimes=[25.5])]
    dataset.PerFrameFunctionalGroupsSequence[1].MRModifierSequence = [group(InversionTimes=[40.0, 80.0])]
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.private_block(0x0019, "SITE SEQUENCE", create=True).add_new(0xB0, "DS", str(10 * number))
    first, second = facts_of(dataset, asked)[:2]
    assert dict(first.elements) == {"InversionTimes": "25.5", SPIN_LOCK.name: "0", "FlipAngle": "60.0"}
    assert dict(second.elements) == {"InversionTimes": "40.0\\80.0", SPIN_LOCK.name: "10", "FlipAngle": "60.0"}


def test_different_values_of_an_asked_element_in_one_frame_are_all_told() -> None:
    dataset = mapss_object()
    frame = dataset.PerFrameFunctionalGroupsSequence[0]
    for keyword, value in (("MRModifierSequence", "10"), ("MRTimingAndRelatedParametersSequence", "40")):
        setattr(frame, keyword, [Dataset()])
        frame[keyword][0].private_block(0x0019, "SITE SEQUENCE", create=True).add_new(0xB0, "DS", value)
    assert dict(facts_of(dataset, (SPIN_LOCK,))[0].elements) == {SPIN_LOCK.name: "40\\10"}


def test_asked_elements_of_binary_form_are_text_in_a_classic_image() -> None:
    dataset = mr_dataset(SIGNAL[0, 0])
    block = dataset.private_block(0x0019, "SITE SEQUENCE", create=True)
    for offset, vr, value in ((0xB0, "FL", 12.847), (0xB1, "SS", -3), (0xB2, "OB", b"\1\2"), (0xB3, "UN", b"51.4")):
        block.add_new(offset, vr, value)
    asked = tuple(SPIN_LOCK.model_copy(update={"offset": offset}) for offset in ("B0", "B1", "B2", "B3", "B4"))
    (facts,) = facts_of(dataset, asked)
    assert [value for _, value in facts.elements] == ["12.847", "-3", "51.4"]


def test_asked_elements_hold_no_identity_and_may_be_unknown() -> None:
    dataset = mr_dataset(SIGNAL[0, 0], OperatorsName="Somebody")
    names = ("PatientName", "PatientID", "OperatorsName", "NoSuchThing", "Modality")
    asked = tuple(ElementAddress(keyword=name) for name in names)
    assert facts_of(dataset, asked)[0].elements == (("Modality", "MR"),)


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda one: delattr(one, "NumberOfFrames"), "NumberOfFrames is missing"),
        (lambda one: setattr(one, "NumberOfFrames", 27), "27 frames, but 28 items"),
        (lambda one: setattr(one, "NumberOfFrames", 2**31 - 1), "2147483647 frames, but 28 items"),
        (lambda one: delattr(one, "PerFrameFunctionalGroupsSequence"), "which no functional group tells apart"),
        (lambda one: setattr(one, "Rows", 7), "28 frames of 7 x 5 pixels need 1960 bytes, 1680 are there"),
        (
            lambda one: setattr(one.PerFrameFunctionalGroupsSequence[1], "MREchoSequence", [Dataset(), Dataset()]),
            "MREchoSequence has 2 items",
        ),
        (
            lambda one: setattr(
                one.PerFrameFunctionalGroupsSequence[1].MREchoSequence[0], "EffectiveEchoTime", float("nan")
            ),
            "EffectiveEchoTime is not a number",
        ),
    ],
)
def test_objects_that_contradict_themselves_are_unreadable(change, text: str) -> None:
    dataset = mapss_object()
    change(dataset)
    reason = refusal_of(dataset).reason
    assert reason.code is ReasonCode.UNREADABLE
    assert text in reason.detail


def test_functional_groups_of_a_thousand_levels_are_refused() -> None:
    dataset = mapss_object()
    item = bytes.fromhex("feff00e0 ffffffff") + bytes.fromhex("18001491") + b"SQ\0\0" + b"\xff" * 4
    dataset.PerFrameFunctionalGroupsSequence = []
    content = file_bytes(dataset)
    place = content.index(bytes.fromhex("00523092"))
    assert content[place + 4 : place + 12] == b"SQ" + bytes(6)
    bomb = content[:place] + bytes.fromhex("00523092") + b"SQ\0\0" + b"\xff" * 4 + item * 2000
    with pytest.raises(UnsuitableInput) as caught:
        facts_from_bytes(bomb, Path("kept-here"))
    assert caught.value.reason.code is ReasonCode.UNREADABLE


def test_plain_bytes_in_the_place_of_functional_groups_are_refused() -> None:
    dataset = mapss_object()
    dataset.PerFrameFunctionalGroupsSequence = []
    content = file_bytes(dataset)
    place = content.index(bytes.fromhex("00523092")) + 8
    broken = content[:place] + (12).to_bytes(4, "little") + b"no item here" + content[place + 4 :]
    with pytest.raises(UnsuitableInput, match="PerFrameFunctionalGroupsSequence is no readable sequence"):
        facts_from_bytes(broken, Path("kept-here"))


SMALL = file_bytes(enhanced_mr(classic_headers(TriggerTime=40)[:3], frame_pixels()[:3], OBJECT_UID))
SMALL_IMPLICIT = file_bytes(enhanced_mr(classic_headers()[:3], frame_pixels()[:3], OBJECT_UID, ImplicitVRLittleEndian))


def facts_or_refusal(content: bytes) -> None:
    """Nothing else may come of a file; what comes can be kept."""
    asked = (SPIN_LOCK, ElementAddress(keyword="InversionTimes"), ElementAddress(keyword="PatientName"))
    try:
        facts = facts_from_bytes(content, Path("kept-here"), asked)
    except UnsuitableInput as refusal:
        code = refusal.reason.code
        event(code)
    else:
        event("facts")
        assert facts_from_json(facts_to_json(facts, asked), Path("kept-here"), asked) == facts
        return
    assert code in (ReasonCode.UNREADABLE, ReasonCode.UNSUPPORTED_OBJECT)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_mutated_objects_give_facts_or_a_named_refusal(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([SMALL, SMALL_IMPLICIT])))
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
    facts_or_refusal(bytes(content))


@pytest.mark.parametrize("content", [SMALL, SMALL_IMPLICIT])
def test_no_prefix_of_an_object_is_taken_for_a_whole_one(content: bytes) -> None:
    for length in range(0, len(content), 3):
        with pytest.raises(UnsuitableInput):
            facts_from_bytes(content[:length], Path("kept-here"))


MACROS = [
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "MREchoSequence"),
    *("PixelValueTransformationSequence", "FrameContentSequence", "MRImageFrameTypeSequence", "MRModifierSequence"),
    *("CardiacSynchronizationSequence", "UnassignedPerFrameConvertedAttributesSequence"),
]
ATTRIBUTES = [
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EffectiveEchoTime"),
    *("EchoTime", "TriggerTime", "RescaleSlope", "RescaleIntercept", "TemporalPositionIndex", "InversionTimes"),
    *("FrameAcquisitionNumber", "FrameType", "ComplexImageComponent", "EchoNumbers", "NominalCardiacTriggerDelayTime"),
]
VALUES = st.sampled_from(["FD", "FL", "US", "UL", "SS", "DS", "IS", "CS", "LO", "UN", "OB", "OW"]).flatmap(
    lambda vr: st.tuples(st.just(vr), st.binary(max_size=24).map(lambda value: value + b" " * (len(value) % 2)))
)


def element(tag: int, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in ("OB", "OW", "UN", "SQ"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def item(content: bytes) -> bytes:
    return bytes.fromhex("feff00e0") + struct.pack("<I", len(content)) + content


MACRO = st.dictionaries(st.sampled_from(ATTRIBUTES), VALUES, max_size=3).map(
    lambda values: item(b"".join(element(tag_for_keyword(name), *values[name]) for name in sorted(values)))
)
GROUP = st.dictionaries(st.sampled_from(MACROS), st.lists(MACRO, max_size=2), max_size=4).map(
    lambda macros: item(
        b"".join(element(tag_for_keyword(name), "SQ", b"".join(macros[name])) for name in sorted(macros))
    )
)


def without_groups(n_frames: int) -> bytes:
    whole = mapss_object()
    whole.NumberOfFrames = n_frames
    del whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence
    return file_bytes(whole)


WITHOUT_GROUPS = {n_frames: without_groups(n_frames) for n_frames in (1, 2, 3)}


@settings(max_examples=300, deadline=None)
@given(GROUP, st.lists(GROUP, min_size=1, max_size=3))
def test_groups_of_any_shape_give_facts_or_a_named_refusal(shared: bytes, frames: list[bytes]) -> None:
    content = WITHOUT_GROUPS[len(frames)]
    pixels = content.rindex(bytes.fromhex("e07f1000"))
    groups = element(0x52009229, "SQ", shared) + element(0x52009230, "SQ", b"".join(frames))
    facts_or_refusal(content[:pixels] + groups + content[pixels:])


WHOLE = file_bytes(mapss_object())
CARDS = load_cards()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_spoilt_exam_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(132, len(content) - 1700))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "spoilt"
    path.write_bytes(content)
    try:
        assembly = assemble_exam(read_facts(path), CARDS)
        exam = read_exam(assembly) if assembly.is_complete else None
    except UnsuitableInput as refusal:
        event(refusal.reason.code)
        return
    event("exam" if exam else str(assembly.state))
    if exam:  # what the writers read of it can be read
        assert tracking_uid(exam.source, "L4L5").startswith("2.25.")
        assert len({geometry_header(one, exam.source).SOPInstanceUID for one in exam.source.all_instances}) == 28


@pytest.mark.parametrize("keyword", ["Columns", "PatientID", "StudyInstanceUID"])
def test_an_element_whose_vr_is_none_of_dicoms_is_read_all_the_same(tmp_path: Path, keyword: str) -> None:
    tag = tag_for_keyword(keyword)
    place = WHOLE.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF)) + 4
    path = tmp_path / "image"
    path.write_bytes(WHOLE[:place] + b"L_" + WHOLE[place + 2 :])
    source = read_exam(assemble_exam(read_facts(path), CARDS)).source
    expected = mapss_object()
    header = geometry_header(source.grid_instances[0], source)
    assert (header.Columns, header.StudyInstanceUID) == (expected.Columns, expected.StudyInstanceUID)
    assert text_of(source.grid_instances[0], "PatientID") == expected.PatientID


def test_five_hundred_frames_are_read_within_a_second() -> None:
    headers = classic_headers() * 18
    content = file_bytes(enhanced_mr(headers, np.tile(frame_pixels(), (18, 1, 1)), OBJECT_UID))
    begin = time.process_time()
    assert len(facts_from_bytes(content, Path("kept-here"))) == 504
    assert time.process_time() - begin < 1


PHILIPS_BLOCK = 0x2005, "Philips MR Imaging DD 001"


def test_the_first_of_two_scale_slopes_was_taken() -> None:
    dataset = mr_dataset(SIGNAL[0, 0])
    dataset.private_block(*PHILIPS_BLOCK, create=True).add_new(0x0E, "FL", [1.0, 2.0])
    with pytest.raises(UnsuitableInput, match="2 values instead of 1") as caught:
        facts_of(dataset)
    assert caught.value.reason.code is ReasonCode.UNREADABLE


def test_a_scale_slope_at_the_root_was_taken_for_that_of_all_frames() -> None:
    dataset = mapss_object()
    dataset.private_block(*PHILIPS_BLOCK, create=True).add_new(0x0E, "FL", 0.25)
    assert {one.scale_slope for one in facts_of(dataset)} == {None}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_scale_slope_written_as_text_was_read_as_bytes_of_a_float(syntax: str) -> None:
    dataset = mr_dataset(SIGNAL[0, 0], transfer_syntax=syntax)
    dataset.private_block(*PHILIPS_BLOCK, create=True).add_new(0x0E, "DS", "0.012345")
    assert facts_of(dataset)[0].scale_slope == 0.012345


def test_four_bytes_that_may_be_text_or_float_are_no_scale_slope() -> None:
    dataset = mr_dataset(SIGNAL[0, 0], transfer_syntax=ImplicitVRLittleEndian)
    dataset.private_block(*PHILIPS_BLOCK, create=True).add_new(0x0E, "DS", "0.25")
    with pytest.raises(UnsuitableInput, match="does not tell its form"):
        facts_of(dataset)
