"""A walk over an encoded data set that decodes nothing: is it whole, and which object is it?

The receiver answers Success only for a data set whose elements end exactly where its bytes end (PS3.5 7.1, 7.5).
"""

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_io.presentation import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE

MAX_DEPTH = 32
MAX_INFLATED_BYTES = 1 << 30

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_VRS = frozenset(
    (
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
        b"ST",
        b"TM",
        b"UI",
        b"UL",
        b"US",
    )
)
_KEPT = {
    0x00080016: "sop_class_uid",
    0x00080018: "sop_instance_uid",
    0x0020000D: "study_uid",
    0x0020000E: "series_uid",
    0x00280002: "samples",
    0x00280008: "frames",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280100: "bits",
}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class BrokenDataSet(Exception):
    """The bytes are not a whole data set; the message says where and why, without any value."""


@dataclass(frozen=True, slots=True)
class ObjectIdentity:
    """Which object a data set is. Empty text where the element is absent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    has_pixels: bool


def is_uid(text: str) -> bool:
    """True for digits and single dots, 1 to 64 characters (PS3.5 9.1; leading zeros are tolerated)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def identify(data: bytes, transfer_syntax: str) -> ObjectIdentity:
    """Walk over all elements of an encoded data set (without file meta information).

    Raises:
        BrokenDataSet: the data set is cut short, does not end at its last byte, is nested too deeply, or its native
            pixel data are shorter than rows x columns x samples x bits x frames demand.
    """
    if transfer_syntax == DEFLATED:
        data = _inflate(data)
    walk = _Walk(data, implicit=transfer_syntax == IMPLICIT_LITTLE, big=transfer_syntax == EXPLICIT_BIG)
    end = walk.elements(0, len(data), 0, stop=None)
    if end != len(data):
        raise BrokenDataSet(f"elements end at byte {end} of {len(data)}")
    values = walk.values
    _check_pixel_length(values, walk.native_pixel_bytes, big=walk.big)

    def text(name: str) -> str:
        return values.get(name, b"").decode("ascii", "replace").rstrip("\x00 ")

    return ObjectIdentity(
        text("sop_class_uid"), text("sop_instance_uid"), text("study_uid"), text("series_uid"), walk.has_pixels
    )


def _inflate(data: bytes) -> bytes:
    """PS3.5 A.5: raw deflate of an explicit little-endian data set."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise BrokenDataSet("deflated data cannot be inflated") from error
    if not inflater.eof:
        raise BrokenDataSet("deflated data are cut short or too large")
    return inflated


def _check_pixel_length(values: Mapping[str, bytes], found: int | None, *, big: bool) -> None:
    """Native pixel data must be as long as the image they describe (PS3.5 8.1.1)."""
    if found is None:
        return
    sizes = []
    for name in ("rows", "columns", "samples", "bits"):
        raw = values.get(name, b"")
        if len(raw) != 2:
            return  # not described here; the header is judged when it is read
        sizes.append(int.from_bytes(raw, "big" if big else "little"))
    frames_text = values.get("frames", b"1").strip(b" \x00") or b"1"
    frames = int(frames_text) if frames_text.isdigit() else 1
    rows, columns, samples, bits = sizes
    needed = (rows * columns * samples * bits * frames + 7) // 8
    if found < needed:
        raise BrokenDataSet(f"pixel data hold {found} of {needed} bytes")


class _Walk:
    """One pass over a buffer: positions in bytes from its start."""

    def __init__(self, data: bytes, *, implicit: bool, big: bool) -> None:
        self.data = data
        self.implicit = implicit
        self.big = big
        self.values: dict[str, bytes] = {}
        self.has_pixels = False
        self.native_pixel_bytes: int | None = None
        order = ">" if big else "<"
        self._tag = struct.Struct(order + "HH")
        self._u16 = struct.Struct(order + "H")
        self._u32 = struct.Struct(order + "I")

    def elements(self, position: int, end: int, depth: int, *, stop: int | None, implicit: bool | None = None) -> int:
        """Walk elements up to ``end`` (or the ``stop`` delimiter); returns the position after them."""
        if depth > MAX_DEPTH:
            raise BrokenDataSet(f"sequences are nested deeper than {MAX_DEPTH}")
        implicit = self.implicit if implicit is None else implicit
        while position < end:
            start = position
            tag, vr, length, position = self._header(position, end, implicit=implicit)
            if tag == stop:
                return position
            if tag >> 16 in (0x0000, 0x0002, 0xFFFE):  # command, file meta and item groups have no place in a data set
                raise BrokenDataSet(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no place at byte {start}")
            if depth == 0:
                self._note(tag, length, position)
            if length == _UNDEFINED:
                position = self._items(tag, vr, position, end, depth, implicit=implicit)
            else:
                position += length
                if position > end:
                    raise BrokenDataSet(
                        f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is cut short: {position - end} bytes are missing"
                    )
        if stop is not None:
            raise BrokenDataSet("an item of undefined length has no end")
        return position

    def _note(self, tag: int, length: int, position: int) -> None:
        name = _KEPT.get(tag)
        if name is not None and length <= 1024:
            self.values[name] = self.data[position : position + length]
        if tag in _PIXEL_TAGS and length > 0:
            self.has_pixels = True
            if tag == _PIXEL_DATA and length != _UNDEFINED:
                self.native_pixel_bytes = length

    def _header(self, position: int, end: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty if implicit), value length and position of the value."""
        if position + 8 > end:
            raise BrokenDataSet(f"an element header is cut short at byte {position}")
        group, element = self._tag.unpack_from(self.data, position)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, b"", self._u32.unpack_from(self.data, position + 4)[0], position + 8
        vr = self.data[position + 4 : position + 6]
        if vr in _SHORT_VRS:
            return tag, vr, self._u16.unpack_from(self.data, position + 6)[0], position + 8
        if vr not in _LONG_VRS:
            raise BrokenDataSet(f"element ({group:04X},{element:04X}) has an unknown value representation")
        if position + 12 > end:
            raise BrokenDataSet(f"an element header is cut short at byte {position}")
        return tag, vr, self._u32.unpack_from(self.data, position + 8)[0], position + 12

    def _items(self, tag: int, vr: bytes, position: int, end: int, depth: int, *, implicit: bool) -> int:
        """Items of a sequence of undefined length, or the fragments of compressed pixel data (PS3.5 7.5, A.4)."""
        fragments = tag in _PIXEL_TAGS
        # PS3.5 6.2.2 note 2: a sequence of unknown VR (UN) is encoded implicitly.
        inner_implicit = implicit or vr == b"UN"
        while True:
            item, _, length, position = self._header(position, end, implicit=inner_implicit)
            if item == _SEQUENCE_END:
                return position
            if item != _ITEM:
                raise BrokenDataSet(
                    f"sequence ({tag >> 16:04X},{tag & 0xFFFF:04X}) holds something that is not an item"
                )
            if length == _UNDEFINED:
                if fragments:
                    raise BrokenDataSet("a pixel data fragment has no length")
                position = self.elements(position, end, depth + 1, stop=_ITEM_END, implicit=inner_implicit)
            else:
                position += length
                if position > end:
                    raise BrokenDataSet(f"an item of ({tag >> 16:04X},{tag & 0xFFFF:04X}) is cut short")
