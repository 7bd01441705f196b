"""Stored values are read to the last bit, whatever form and transfer syntax they come in."""

import logging
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from enhanced_object import group
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from small_enhanced_exam import frame_pixels, mapss_object
from small_mr_exam import mr_dataset

from config.protocol_cards import ScalingRule
from dicom_io.headers import read_facts
from dicom_io.pixels import read_image, read_images
from processing.refusal import ReasonCode, UnsuitableInput

DATA = Path(__file__).parent.parent / "data"
FORMS = [(8, 8), (16, 10), (16, 12), (16, 16), (32, 32)]


def random_values(bits_allocated: int, bits_stored: int, *, signed: bool) -> np.ndarray:
    """(43, 37) values over the whole range of the stored bits."""
    low, high = (-(1 << (bits_stored - 1)), (1 << (bits_stored - 1)) - 1) if signed else (0, (1 << bits_stored) - 1)
    kind = f"{'i' if signed else 'u'}{bits_allocated // 8}"
    values = np.random.default_rng(bits_stored).integers(low, high, (43, 37), endpoint=True).astype(kind)
    values[0, :2] = low, high
    return values


def write(path: Path, values: np.ndarray, bits_stored: int, **attributes: object) -> Path:
    bits = values.dtype.itemsize * 8
    form = {"BitsAllocated": bits, "BitsStored": bits_stored, "HighBit": bits_stored - 1}
    dataset = mr_dataset(values, **(form | attributes))
    dataset.PixelData += b"\0" * (len(dataset.PixelData) % 2)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_encapsulated(path: Path, values: np.ndarray, bits_stored: int, frame: bytes, syntax: str) -> Path:
    dataset = dcmread(write(path, values, bits_stored))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


def stored_in(path: Path) -> np.ndarray:
    (facts,) = read_facts(path)
    return read_image(facts, ScalingRule.RAW)[0]


def dcmtk(*command: str | Path) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_native_values(tmp_path: Path, form: tuple[int, int], signed: bool) -> None:
    values = random_values(*form, signed=signed)
    assert np.array_equal(stored_in(write(tmp_path / "image", values, form[1])), values.astype(np.float32))


@pytest.mark.parametrize("signed", [False, True])
def test_what_lies_above_the_stored_bits_is_no_signal(tmp_path: Path, signed: bool) -> None:
    values = random_values(16, 12, signed=signed)
    for junk in (0x0000, 0xF000, 0x5000):
        path = write(tmp_path / "image", values.astype(np.uint16) & 0x0FFF | junk, 12, PixelRepresentation=int(signed))
        assert np.array_equal(stored_in(path), values)


def test_values_in_the_upper_bits_are_shifted_down(tmp_path: Path) -> None:
    values = random_values(16, 12, signed=False)
    path = write(tmp_path / "image", values << 4 | 0x000A, 12, HighBit=15)
    assert np.array_equal(stored_in(path), values)


def test_big_endian_values(tmp_path: Path) -> None:
    values = random_values(16, 12, signed=True)
    assert np.array_equal(stored_in(write(tmp_path / "image", values, 12, transfer_syntax=ExplicitVRBigEndian)), values)


def test_impossible_bits_are_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "image", random_values(16, 16, signed=False), 16, HighBit=16)
    with pytest.raises(UnsuitableInput, match="16 bits up to bit 16 cannot lie in 16 bits"):
        stored_in(path)


# ---- compressed

LOSSLESS = {
    "RLE": ["dcmcrle"],
    "JPEG lossless, first-order prediction": ["dcmcjpeg", "+e1"],
    "JPEG lossless, predictor 4": ["dcmcjpeg", "+el", "+sv", "4"],
    "JPEG lossless, predictor 7": ["dcmcjpeg", "+el", "+sv", "7"],
    "JPEG-LS": ["dcmcjpls", "+el"],
    "deflated": ["dcmconv", "+td"],
}


@pytest.mark.peers
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("form", FORMS[:-1])
@pytest.mark.parametrize("name", LOSSLESS)
def test_values_that_dcmtk_compressed_without_loss(
    tmp_path: Path, name: str, form: tuple[int, int], signed: bool
) -> None:
    values = random_values(*form, signed=signed)
    dcmtk(*LOSSLESS[name], write(tmp_path / "image", values, form[1]), tmp_path / "compressed")
    assert np.array_equal(stored_in(tmp_path / "compressed"), values)
    assert not read_facts(tmp_path / "compressed")[0].lossy_compressed


@pytest.mark.peers
@pytest.mark.parametrize(
    "command",
    [
        *(["dcmcrle"], ["dcmcrle", "-ot"], ["dcmcjpls"], ["dcmcjpls", "-ot"], ["dcmcjpeg", "+e1"]),
        *(["dcmcjpeg", "+e1", "-ot"], ["dcmcjpeg", "+e1", "+fs", "1"]),  # without offset table; many fragments a frame
    ],
    ids=str,
)
def test_frames_that_dcmtk_compressed(tmp_path: Path, command: list[str]) -> None:
    mapss_object().save_as(tmp_path / "image", enforce_file_format=True)
    dcmtk(*command, tmp_path / "image", tmp_path / "compressed")
    facts = read_facts(tmp_path / "compressed")
    assert len({one.pixel_sha256 for one in facts}) == 28
    signals = [signal for signal, _ in read_images(facts[::-1], ScalingRule.RAW)]
    assert np.array_equal(signals[::-1], frame_pixels())


@pytest.mark.peers
@pytest.mark.parametrize(
    ("command", "is_lossy"),
    [(["dcmcjpeg", "+eb"], True), (["dcmcjpls", "+en"], True), (["dcmcjpls", "+el"], False)],
    ids=str,
)
def test_loss_is_told(tmp_path: Path, command: list[str], is_lossy: bool) -> None:
    dcmtk(*command, write(tmp_path / "image", random_values(8, 8, signed=False), 8), tmp_path / "compressed")
    (facts,) = read_facts(tmp_path / "compressed")
    assert facts.lossy_compressed == is_lossy
    assert read_image(facts, ScalingRule.RAW)[0].shape == (43, 37)


@pytest.mark.parametrize("told", ["00", "01", None])
@pytest.mark.parametrize("syntax", [JPEG2000, JPEGLSNearLossless, JPEG2000Lossless])
def test_in_a_syntax_of_either_kind_lossless_must_be_said(tmp_path: Path, syntax: str, told: str | None) -> None:
    dataset = mr_dataset(random_values(16, 16, signed=False), LossyImageCompression=told)
    dataset.PixelData = encapsulate([b"\0" * 10])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "image")
    expected = {JPEG2000: told != "00", JPEGLSNearLossless: True, JPEG2000Lossless: told == "01"}[syntax]
    assert read_facts(tmp_path / "image")[0].lossy_compressed == expected


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("form", FORMS[:-1])
def test_jpeg_2000(tmp_path: Path, form: tuple[int, int], signed: bool) -> None:
    values = random_values(*form, signed=signed)
    frame = encode_array(values, bits_stored=form[1], photometric_interpretation=2)
    path = write_encapsulated(tmp_path / "image", values, form[1], bytes(frame), JPEG2000Lossless)
    assert np.array_equal(stored_in(path), values)


def test_high_throughput_jpeg_2000(tmp_path: Path) -> None:
    values = (np.arange(12 * 9) * 37 % 4096).astype(np.int16).reshape(12, 9) - 2048
    frame = (DATA / "htj2k_signed_12_bit.j2c").read_bytes()  # of these values, by OpenJPH
    path = write_encapsulated(tmp_path / "image", values, 12, frame, HTJ2KLossless)
    assert np.array_equal(stored_in(path), values)


@pytest.mark.peers
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_spoilt_compressed_pixels_are_read_or_refused_by_name(
    spoilt_sources: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(spoilt_sources[data.draw(st.sampled_from(sorted(spoilt_sources)))])
    pixels = content.rindex(bytes.fromhex("e07f1000"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(pixels, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "spoilt"
    path.write_bytes(content)
    try:
        signals = [signal for signal, _ in read_images(read_facts(path), ScalingRule.RAW)]
    except UnsuitableInput as refusal:
        code = refusal.reason.code
    else:
        assert all(signal.dtype == np.float32 for signal in signals)
        return
    assert code in (ReasonCode.UNREADABLE, ReasonCode.UNSUPPORTED_OBJECT)


@pytest.fixture(scope="module")
def spoilt_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    images = {"one": write(folder / "one", random_values(16, 12, signed=False), 12), "many": folder / "many"}
    mapss_object().save_as(images["many"], enforce_file_format=True)
    made = {}
    for kind, path in images.items():
        for name, command in {"rle": ["dcmcrle"], "jpeg": ["dcmcjpeg", "+e1"], "jpls": ["dcmcjpls"]}.items():
            dcmtk(*command, path, folder / "compressed")
            made[f"{kind} {name}"] = (folder / "compressed").read_bytes()
    return made


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_a_decoder_that_fails_says_nothing_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], syntax: UID
) -> None:
    values = random_values(16, 16, signed=False)
    path = write_encapsulated(tmp_path / "image", values, 16, b"nothing of the kind ", syntax)
    with caplog.at_level(logging.DEBUG), pytest.raises(UnsuitableInput, match="cannot be decoded") as caught:
        stored_in(path)
    assert syntax.name in caught.value.reason.detail
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.peers
def test_jpeg_of_12_bits_is_named_as_not_decodable(tmp_path: Path) -> None:
    path = write(tmp_path / "image", random_values(16, 12, signed=False), 12)
    dcmtk("dcmcjpeg", "+ee", path, tmp_path / "compressed")
    with pytest.raises(UnsuitableInput, match="JPEG Extended") as caught:
        stored_in(tmp_path / "compressed")
    assert caught.value.reason.code is ReasonCode.UNSUPPORTED_OBJECT


# ---- Modality LUT


def with_lut(path: Path, values: np.ndarray, descriptor: list[int], data: bytes, vr: str = "US") -> Path:
    dataset = mr_dataset(values)
    item = group(ModalityLUTType="US")
    item.add_new("LUTDescriptor", vr, descriptor)
    item.add_new("LUTData", "OW", data)
    dataset.ModalityLUTSequence = [item]
    dataset.save_as(path, enforce_file_format=True)
    return path


def table(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def test_a_modality_lut_takes_the_place_of_slope_and_intercept(tmp_path: Path) -> None:
    values = np.array([[9, 10, 11], [12, 13, 14]], np.uint16)
    path = with_lut(tmp_path / "image", values, [4, 10, 16], table(100, 200, 400, 65_535))
    assert stored_in(path).tolist() == [[100, 100, 200], [400, 65_535, 65_535]]


def test_a_modality_lut_of_signed_values(tmp_path: Path) -> None:
    values = np.array([[-3, -2, -1], [0, 1, 5]], np.int16)
    path = with_lut(tmp_path / "image", values, [3, -2, 8], bytes([7, 8, 9, 0]), "SS")
    assert stored_in(path).tolist() == [[7, 7, 8], [9, 9, 9]]


def test_different_modality_luts_are_told_apart(tmp_path: Path) -> None:
    values = np.array([[1, 2]], np.uint16)

    def digest(*numbers: int, first: int = 0) -> str:
        path = with_lut(tmp_path / "image", values, [len(numbers), first, 16], table(*numbers))
        return read_facts(path)[0].modality_lut_sha256

    assert digest(1, 2, 3) == digest(1, 2, 3) != ""
    assert len({digest(1, 2, 3), digest(1, 2, 4), digest(1, 2, 3, first=1)}) == 3


@pytest.mark.parametrize(
    ("descriptor", "data", "text"),
    [
        ([3, 0, 16], table(1, 2), "holds 4 bytes for 3 values"),
        ([0, 0, 16], table(1, 2), "holds 4 bytes for 65536 values"),
        ([2, 0, 32], table(1, 2), "of 32 bits"),
        ([2, 0], table(1, 2), "has not three values"),
    ],
)
def test_a_broken_modality_lut_is_unreadable(tmp_path: Path, descriptor: list[int], data: bytes, text: str) -> None:
    with pytest.raises(UnsuitableInput, match=text):
        read_facts(with_lut(tmp_path / "image", np.array([[1, 2]], np.uint16), descriptor, data))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_an_image_of_another_size_is_not_given_to_a_decoder(tmp_path: Path, syntax: str) -> None:
    values = random_values(16, 12, signed=False)
    if syntax == JPEG2000Lossless:
        frame = bytes(encode_array(values, bits_stored=12, photometric_interpretation=2))
    else:
        dataset = mr_dataset(values, BitsStored=12, HighBit=11)
        dataset.compress(syntax, generate_instance_uid=False)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    for shape in ((42, 37), (43, 38)):
        other = np.zeros(shape, np.uint16)
        with pytest.raises(UnsuitableInput, match="cannot be decoded"):
            stored_in(write_encapsulated(tmp_path / "image", other, 12, frame, syntax))
    half = frame[: len(frame) // 2]  # CharLS would look for the end of this for ever
    with pytest.raises(UnsuitableInput, match="cannot be decoded"):
        stored_in(write_encapsulated(tmp_path / "image", values, 12, half, syntax))
    assert np.array_equal(stored_in(write_encapsulated(tmp_path / "image", values, 12, frame, syntax)), values)


def test_compressed_values_in_the_upper_bits_were_cut_off(tmp_path: Path) -> None:
    """RLE keeps whole pixel cells; of other syntaxes it is not known where the bits lie."""
    values = random_values(16, 12, signed=False)
    for syntax, is_known in ((RLELossless, True), (JPEGLSLossless, False)):
        dataset = dcmread(write(tmp_path / "native", values << 4 | 0x000A, 12, HighBit=15))
        dataset.BitsStored, dataset.HighBit = 16, 15  # for the encoder
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.BitsStored = 12
        dataset.save_as(tmp_path / "image")
        if is_known:
            assert np.array_equal(stored_in(tmp_path / "image"), values)
        else:
            with pytest.raises(UnsuitableInput, match="where they lie is not known"):
                stored_in(tmp_path / "image")


@pytest.mark.parametrize("wrong", [{"Rows": 41}, {"Columns": 36}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}])
def test_a_size_that_is_not_that_of_the_pixels_was_read_shifted(tmp_path: Path, wrong: dict[str, int]) -> None:
    path = write(tmp_path / "image", random_values(16, 16, signed=False), 16)
    dataset = dcmread(path)
    for keyword, value in wrong.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    with pytest.raises(UnsuitableInput, match="bytes, 3182 are there") as caught:
        stored_in(path)
    assert caught.value.reason.code is ReasonCode.UNREADABLE


def test_values_beyond_all_numbers_were_measured(tmp_path: Path) -> None:
    path = write(tmp_path / "image", random_values(16, 16, signed=False), 16, RescaleSlope="1e300", RescaleIntercept=0)
    (facts,) = read_facts(path)
    with pytest.raises(UnsuitableInput) as caught:
        read_image(facts, ScalingRule.RESCALE_PER_IMAGE)
    assert caught.value.reason.code is ReasonCode.SCALING_UNKNOWN
