"""Lossless JPEG (ITU-T T.81 process 14, as DICOM uses it: one component), decoded with numpy.

Our own, because what pydicom offers for it is either under the GPL (pylibjpeg-libjpeg) or ends the whole process on a
spoilt file (GDCM), which a receiver of other people's files cannot have.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_io.codestream import marker_segment

_SOF3, _DHT, _SOS, _DRI = 0xC3, 0xC4, 0xDA, 0xDD
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {_SOF3, _DHT, 0xC8, 0xCC}
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")

_Samples = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Tables:
    """What the markers before the entropy-coded bytes tell."""

    precision: int = 0
    shape: tuple[int, int] = (0, 0)
    restart_interval: int = 0
    huffman: "dict[int, _Huffman] | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class _Huffman:
    """For every 16 bits that may come next: bits of the code they begin with, 0 for none, and what it stands for."""

    code_bits: npt.NDArray[np.uint8]
    category: npt.NDArray[np.uint8]


def decode_jpeg_lossless(content: bytes, shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """The samples (rows, columns) of one image.

    Raises:
        ValueError: the bytes are no lossless JPEG image of this shape, or broken.
        struct.error: a marker segment is cut short.
    """
    if content[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    tables, place = _Tables(huffman={}), 2
    while True:
        marker, segment, place = marker_segment(content, place)
        if marker == _SOS:
            break
        _note(tables, marker, segment)
    if tables.shape != shape:
        raise ValueError(f"an image of {tables.shape} instead of {shape}")
    n_components, _, table, predictor, _, point_transform = struct.unpack(">6B", segment)
    huffman = (tables.huffman or {}).get(table >> 4)
    if n_components != 1 or huffman is None or not 1 <= predictor <= 7 or point_transform >= tables.precision:
        raise ValueError("no scan of lossless JPEG")
    end = _SCAN_END.search(content, place)
    parts = _RESTART.split(content[place : end.start() if end else len(content)])
    first = 1 << (tables.precision - point_transform - 1)
    samples, row = np.zeros(shape, np.uint16), 0
    for n_rows, part in zip(_rows_of_parts(tables, shape), parts, strict=True):
        differences = _differences(part.replace(b"\xff\x00", b"\xff"), n_rows * shape[1], huffman)
        lines = _predict(differences.reshape(n_rows, shape[1]), predictor, first)
        samples[row : row + n_rows] = lines << point_transform
        row += n_rows
    return samples


def _note(tables: _Tables, marker: int, segment: bytes) -> None:
    if marker in _OTHER_FRAMES:
        raise ValueError(f"a JPEG image of another kind (frame marker {marker:02X})")
    if marker == _SOF3:
        tables.precision, rows, columns, n_components = struct.unpack(">BHHB", segment[:6])
        tables.shape = rows, columns
        if n_components != 1 or not 2 <= tables.precision <= 16:
            raise ValueError(f"{n_components} components of {tables.precision} bits")
    elif marker == _DRI:
        (tables.restart_interval,) = struct.unpack(">H", segment)
    elif marker == _DHT and tables.huffman is not None:
        while segment:
            destination, counts = segment[0] & 0x0F, segment[1:17]
            n_codes = sum(counts)
            if len(segment) < 17 + n_codes:
                raise ValueError("a Huffman table is cut short")
            tables.huffman[destination] = _huffman(counts, segment[17 : 17 + n_codes])
            segment = segment[17 + n_codes :]


def _huffman(counts: bytes, categories: bytes) -> _Huffman:
    """T.81 annex C: codes ascend within a length; all 16-bit words that begin with a code are next to each other."""
    code_bits, category = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    begin = index = 0
    for n_bits, count in enumerate(counts, start=1):
        for _ in range(count):
            end = begin + (1 << (16 - n_bits))
            if end > 1 << 16 or categories[index] > 16:
                raise ValueError("an impossible Huffman table")
            code_bits[begin:end], category[begin:end] = n_bits, categories[index]
            begin, index = end, index + 1
    return _Huffman(code_bits, category)


def _rows_of_parts(tables: _Tables, shape: tuple[int, int]) -> list[int]:
    rows, columns = shape
    if not tables.restart_interval:
        return [rows]
    each, rest = divmod(tables.restart_interval, columns)  # T.81 H.1.1: whole lines
    if rest or not each:
        raise ValueError("a restart interval that is no whole lines")
    return [min(each, rows - begin) for begin in range(0, rows, each)]


def _differences(content: bytes, n: int, huffman: _Huffman) -> _Samples:
    """The first ``n`` coded differences.

    What would be decoded at a bit is found for all bits at once; then only the chain from code to code is followed.
    """
    content = content[: 4 * n + 4]  # no difference takes more than 32 bits
    n_bits = 8 * len(content)
    padded = np.frombuffer(content + bytes(8), np.uint8).astype(np.uint32)
    words = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]
    windows = ((words[:, None] >> (16 - np.arange(8, dtype=np.uint32))) & 0xFFFF).astype(np.uint16).ravel()
    code_bits, category = huffman.code_bits[windows], huffman.category[windows]
    value_bits = np.where(category == 16, 0, category)  # 16 stands for 32,768 itself
    following = np.minimum(np.arange(len(windows)) + code_bits + value_bits, n_bits)
    places = _follow(following, n)
    if (code_bits[places] == 0).any() or following[places[-1]] == places[-1] or (places >= n_bits).any():
        raise ValueError("the coded differences are broken or cut short")
    bits = value_bits[places].astype(np.int64)
    values = windows[places + code_bits[places]].astype(np.int64) >> (16 - bits)
    values = np.where(values < (1 << bits) >> 1, values - (1 << bits) + 1, values)  # T.81 F.2.2.1, EXTEND
    values[bits == 0] = 0
    return np.where(category[places] == 16, 1 << 15, values)


def _follow(following: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    links, place = following.data, 0  # a memoryview, whose single items are read faster than those of the array
    places = np.empty(n, np.int64)
    chain = places.data
    for index in range(n):
        chain[index] = place
        place = links[place]
    return places


def _predict(differences: _Samples, predictor: int, first: int) -> _Samples:
    """Undo the prediction of the samples of some lines (T.81 H.1.2.1); sums are modulo 2^16."""
    samples = np.zeros_like(differences)
    samples[0] = (first + np.cumsum(differences[0])) & 0xFFFF
    samples[:, 0] = (first + np.cumsum(differences[:, 0])) & 0xFFFF
    for row in range(1, len(samples)):
        above, line, change = samples[row - 1], samples[row], differences[row]
        match predictor:
            case 1:
                line[1:] = line[0] + np.cumsum(change[1:])
            case 2:
                line[1:] = above[1:] + change[1:]
            case 3:
                line[1:] = above[:-1] + change[1:]
            case 4:
                line[1:] = line[0] + np.cumsum(above[1:] - above[:-1] + change[1:])
            case 5:
                line[1:] = line[0] + np.cumsum(((above[1:] - above[:-1]) >> 1) + change[1:])
            case _:
                line[:] = _predict_one_by_one(above.tolist(), int(line[0]), change.tolist(), predictor)
        line &= 0xFFFF
    return samples


def _predict_one_by_one(above: list[int], left: int, change: list[int], predictor: int) -> list[int]:
    line = [left]
    for column in range(1, len(change)):
        average = (left + above[column]) >> 1
        predicted = above[column] + ((left - above[column - 1]) >> 1) if predictor == 6 else average
        left = (predicted + change[column]) & 0xFFFF
        line.append(left)
    return line
