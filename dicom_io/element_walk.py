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

_INFLATE_STEP_BYTES = 1 << 20
_LONGEST_KEPT_BYTES = 1024

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
    walk = ElementWalk(transfer_syntax)
    walk.feed(data)
    return walk.finish()


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


@dataclass(slots=True)
class _Inside:
    """What the walk is inside of: a sequence of undefined length (or pixel data fragments), or one item of it."""

    is_item: bool
    tag: int
    is_implicit: bool


class ElementWalk:
    """The same walk over a data set that comes piece by piece; keeps no more of it than an element's header."""

    def __init__(self, transfer_syntax: str) -> None:
        self._implicit = transfer_syntax == IMPLICIT_LITTLE
        self._big = transfer_syntax == EXPLICIT_BIG
        order = ">" if self._big else "<"
        self._tag = struct.Struct(order + "HH")
        self._u16 = struct.Struct(order + "H")
        self._u32 = struct.Struct(order + "I")
        self._inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS) if transfer_syntax == DEFLATED else None
        self._inflated_bytes = 0
        self._inside: list[_Inside] = []
        self._rest = b""  # of the last piece: the beginning of an element
        self._position = 0  # in the data set, of the first byte of the rest
        self._skip = 0  # bytes of a value that are still to come
        self._skipped_tag = 0
        self._last_tag = -1
        self._values: dict[str, bytes] = {}
        self._has_pixels = False
        self._native_pixel_bytes: int | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Walk on.

        Raises:
            BrokenDataSet: these bytes cannot be part of a data set.
        """
        if self._inflater is None:
            self._walk(data)
        else:
            self._inflate(self._inflater, data)

    def _inflate(self, inflater: "zlib._Decompress", data: bytes | memoryview) -> None:
        """PS3.5 A.5: raw deflate of an explicit little-endian data set."""
        while not inflater.eof:
            try:
                inflated = inflater.decompress(data, _INFLATE_STEP_BYTES)
            except zlib.error as error:
                raise BrokenDataSet("deflated data cannot be inflated") from error
            self._inflated_bytes += len(inflated)
            if self._inflated_bytes > MAX_INFLATED_BYTES:
                raise BrokenDataSet("deflated data are cut short or too large")
            self._walk(inflated)
            data = inflater.unconsumed_tail
            if not data and len(inflated) < _INFLATE_STEP_BYTES:
                return

    def finish(self) -> ObjectIdentity:
        """The data set has ended here.

        Raises:
            BrokenDataSet: it should not have.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise BrokenDataSet("deflated data are cut short or too large")
        if self._skip:
            raise BrokenDataSet(f"element {_name(self._skipped_tag)} is cut short: {self._skip} bytes are missing")
        if self._rest:
            raise BrokenDataSet(f"an element is cut short at byte {self._position}")
        if self._inside:
            raise BrokenDataSet("an item of undefined length has no end")
        _check_pixel_length(self._values, self._native_pixel_bytes, big=self._big)

        def text(name: str) -> str:
            return self._values.get(name, b"").decode("ascii", "replace").rstrip("\x00 ")

        return ObjectIdentity(
            text("sop_class_uid"), text("sop_instance_uid"), text("study_uid"), text("series_uid"), self._has_pixels
        )

    def _walk(self, data: bytes | memoryview) -> None:
        if self._skip >= len(data):
            self._skip -= len(data)
            self._position += len(data)
            return
        data = bytes(data[self._skip :]) if not self._rest else self._rest + bytes(data)
        self._position += self._skip
        self._skip = 0
        at = 0
        while at < len(data):
            step = self._element(data, at)
            if step == 0:  # more of it must come first
                break
            at += step
        self._position += min(at, len(data))
        self._skip = max(0, at - len(data))
        self._rest = data[at:]

    def _element(self, data: bytes, at: int) -> int:
        """Bytes of the element or delimiter at a place, its value included unless that is walked; 0: not all there."""
        if not self._inside or self._inside[-1].is_item:
            return self._data_element(data, at)
        return self._item(data, at, self._inside[-1])

    def _data_element(self, data: bytes, at: int) -> int:
        item = self._inside[-1] if self._inside else None
        implicit = self._implicit if item is None else item.is_implicit
        header = self._header(data, at, implicit=implicit)
        if header is None:
            return 0
        tag, vr, length, size = header
        if item is not None and tag == _ITEM_END:
            self._inside.pop()
            return size
        if tag >> 16 in (0x0000, 0x0002, 0xFFFE):  # command, file meta and item groups have no place in a data set
            raise BrokenDataSet(f"element {_name(tag)} has no place at byte {self._position + at}")
        if item is None:
            if not self._note(tag, length, data, at + size):
                return 0
            if tag <= self._last_tag:  # PS3.5 7.1
                raise BrokenDataSet(f"element {_name(tag)} comes after {_name(self._last_tag)}")
            self._last_tag = tag
        if length == _UNDEFINED:
            # PS3.5 6.2.2 note 2: a sequence of unknown VR (UN) is encoded implicitly.
            self._inside.append(_Inside(is_item=False, tag=tag, is_implicit=implicit or vr == b"UN"))
            return size
        self._skipped_tag = tag
        return size + length

    def _item(self, data: bytes, at: int, sequence: _Inside) -> int:
        """Items of a sequence of undefined length, or the fragments of compressed pixel data (PS3.5 7.5, A.4)."""
        header = self._header(data, at, implicit=sequence.is_implicit)
        if header is None:
            return 0
        tag, _, length, size = header
        if tag == _SEQUENCE_END:
            self._inside.pop()
            return size
        if tag != _ITEM:
            raise BrokenDataSet(f"sequence {_name(sequence.tag)} holds something that is not an item")
        if length != _UNDEFINED:
            self._skipped_tag = sequence.tag
            return size + length
        if sequence.tag in _PIXEL_TAGS:
            raise BrokenDataSet("a pixel data fragment has no length")
        if len(self._inside) // 2 >= MAX_DEPTH:
            raise BrokenDataSet(f"sequences are nested deeper than {MAX_DEPTH}")
        self._inside.append(_Inside(is_item=True, tag=sequence.tag, is_implicit=sequence.is_implicit))
        return size

    def _note(self, tag: int, length: int, data: bytes, value_at: int) -> bool:
        """Keep what tells which object it is; False where the value has not come yet."""
        name = _KEPT.get(tag)
        if name is not None and length <= _LONGEST_KEPT_BYTES:
            if value_at + length > len(data):
                return False
            self._values[name] = data[value_at : value_at + length]
        if tag in _PIXEL_TAGS and length > 0:
            self._has_pixels = True
            if tag == _PIXEL_DATA and length != _UNDEFINED:
                self._native_pixel_bytes = length
        return True

    def _header(self, data: bytes, at: int, *, implicit: bool) -> tuple[int, bytes, int, int] | None:
        """Tag, VR (empty if implicit), value length and length of the header; None where it has not all come."""
        if at + 8 > len(data):
            return None
        group, element = self._tag.unpack_from(data, at)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, b"", self._u32.unpack_from(data, at + 4)[0], 8
        vr = data[at + 4 : at + 6]
        if vr in _SHORT_VRS:
            return tag, vr, self._u16.unpack_from(data, at + 6)[0], 8
        if vr not in _LONG_VRS:
            raise BrokenDataSet(f"element {_name(tag)} has an unknown value representation")
        if at + 12 > len(data):
            return None
        return tag, vr, self._u32.unpack_from(data, at + 8)[0], 12


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
