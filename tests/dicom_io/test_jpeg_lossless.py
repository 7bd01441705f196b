"""Lossless JPEG against an encoder written from T.81; what dcmtk encodes is in test_pixels.py."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_io.jpeg_lossless import decode_jpeg_lossless

CODE_BITS = 5  # for each of the categories 0 to 16 alike


def encode(values: np.ndarray, precision: int, predictor: int, lines_between_restarts: int = 0) -> bytes:
    """T.81 annex H, sample by sample."""
    rows, columns = values.shape
    each = lines_between_restarts or rows
    scans = []
    for begin in range(0, rows, each):
        bits = "".join(code_of(one) for one in differences(values[begin : begin + each].tolist(), precision, predictor))
        bits += "1" * (-len(bits) % 8)
        scan = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
        scans.append(scan.replace(b"\xff", b"\xff\x00"))
    content = b"\xff\xd8" + segment(0xE0, b"anything") + segment(0xC4, table())
    content += segment(0xC3, struct.pack(">BHHB3B", precision, rows, columns, 1, 1, 0x11, 0))
    if lines_between_restarts:
        content += segment(0xDD, struct.pack(">H", lines_between_restarts * columns))
    content += segment(0xDA, bytes([1, 1, 0, predictor, 0, 0])) + scans[0]
    for number, scan in enumerate(scans[1:]):
        content += bytes([0xFF, 0xD0 + number % 8]) + scan
    return content + b"\xff\xd9"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def table() -> bytes:
    counts = [0] * 16
    counts[CODE_BITS - 1] = 17
    return bytes([0, *counts, *range(17)])


def differences(lines: list[list[int]], precision: int, predictor: int) -> list[int]:
    found = []
    for i, line in enumerate(lines):
        for j, value in enumerate(line):
            if i == j == 0:
                predicted = 1 << (precision - 1)
            elif i == 0:
                predicted = line[j - 1]
            elif j == 0:
                predicted = lines[i - 1][0]
            else:
                a, b, c = line[j - 1], lines[i - 1][j], lines[i - 1][j - 1]
                predicted = [a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1][predictor - 1]
            difference = (value - predicted) % 65_536
            found.append(difference - 65_536 if difference > 32_768 else difference)
    return found


def code_of(difference: int) -> str:
    category = abs(difference).bit_length()
    code = f"{category:0{CODE_BITS}b}"
    if category in (0, 16):
        return code
    return code + f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 7), st.integers(2, 16), st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 999)
)
def test_every_predictor_precision_and_restart_interval(
    predictor: int, precision: int, rows: int, columns: int, restart: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << precision, (rows, columns))
    content = encode(values, precision, predictor, restart)
    assert np.array_equal(decode_jpeg_lossless(content, values.shape), values)


def test_the_greatest_difference() -> None:
    values = np.array([[0, 32_768, 0], [65_535, 32_767, 65_535]])
    for predictor in range(1, 8):
        assert np.array_equal(decode_jpeg_lossless(encode(values, 16, predictor), (2, 3)), values)


VALUES = np.arange(35).reshape(5, 7) * 99
WHOLE = encode(VALUES, 12, 1, 2)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no start of image"),
        (WHOLE.replace(b"\xff\xc3", b"\xff\xc0"), "another kind"),
        (WHOLE.replace(b"\xff\xdd\x00\x04\x00\x0e", b"\xff\xdd\x00\x04\x00\x0d"), "no whole lines"),
        (WHOLE.replace(b"\xff\xd1", b""), "argument"),
        (WHOLE[:-20], "broken or cut short|argument"),
        (encode(VALUES[:4], 12, 1), r"\(4, 7\) instead of \(5, 7\)"),
    ],
)
def test_what_is_broken_is_an_error(content: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_jpeg_lossless(content, (5, 7))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_spoilt_images_are_decoded_or_an_error(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "cut", "delete"])):
            case "set":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                content = content[: max(2, place)]
            case _:
                del content[place : place + 3]
        content += b"\xff"
    try:
        decoded = decode_jpeg_lossless(bytes(content), (5, 7))
    except (ValueError, struct.error):
        return
    assert decoded.shape == (5, 7)
