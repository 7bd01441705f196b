"""Elements of a data set as pydicom left them, mostly raw bytes, and what those bytes mean by their VR (PS3.5 6.2)."""

import re
import struct
from collections.abc import Iterable
from typing import Any

from pydicom.datadict import dictionary_VR, private_dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.values import convert_SQ

from processing.refusal import ReasonCode, UnsuitableInput

#: How numbers of binary VRs are unpacked.
BINARY_NUMBERS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
TEXTS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)
_DECIMAL_TEXT = re.compile(rb" *[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?[ \0]*")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM_TAGS = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}
_SEQUENCE_ENDS = {True: b"\xfe\xff\xdd\xe0", False: b"\xff\xfe\xe0\xdd"}


def tag_of(attribute: str | int) -> int:
    """The tag of an attribute that is given by keyword or by tag.

    Raises:
        KeyError: there is no such keyword.
    """
    if isinstance(attribute, int):
        return attribute
    tag = tag_for_keyword(attribute)
    if tag is None:
        raise KeyError(attribute)
    return tag


def name_of(attribute: str | int) -> str:
    """How an attribute is called in texts: its keyword, or its tag."""
    return attribute if isinstance(attribute, str) else f"({attribute >> 16:04X},{attribute & 0xFFFF:04X})"


def element_of(dataset: Any, attribute: str | int) -> Any:
    """The element as pydicom parsed it, most often still raw; None when absent."""
    return dataset.get_item(tag_of(attribute), keep_deferred=True)


def bytes_of(dataset: Any, attribute: str | int) -> bytes | None:
    """The undecoded value; None when absent. File meta values are decoded by pydicom when it reads."""
    element = element_of(dataset, attribute)
    if element is None:
        return None
    value = element.value
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    if value is not None and not isinstance(value, bytes):
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"{name_of(attribute)} is not a plain value")
    if isinstance(element, RawDataElement) and len(value or b"") < element.length != _UNDEFINED_LENGTH:
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"{name_of(attribute)} is cut short")
    return value


def raw_bytes(element: Any) -> bytes:
    """The undecoded value of an element; of one that was decoded already, its texts, joined by backslashes."""
    value = element.value
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    return "\\".join(str(one) for one in parts).encode("utf-8")


def is_little_endian_of(dataset: Any, attribute: str | int) -> bool:
    """The byte order in which the attribute was read; little-endian when that is not known."""
    return bool(getattr(element_of(dataset, attribute), "is_little_endian", True))


def value_representation(element: Any, tag: int, creator: str) -> str:
    """What the file says; where it does not (implicit VR, UN), what the dictionaries say, else UN."""
    if element.VR in BINARY_NUMBERS or element.VR in TEXTS:
        return str(element.VR)
    try:
        vr = private_dictionary_VR(tag, creator) if (tag >> 16) % 2 else dictionary_VR(tag)
    except KeyError:
        return "UN"
    return "US" if vr == "US or SS" else vr


def is_text_by_another_name(element: Any, vr: str, name: str) -> bool:
    """Whether a dictionary says binary numbers of a private value that is a decimal number as text.

    Philips' scale slope is FL in the dictionaries and DS in some files; implicit VR does not tell which.

    Raises:
        UnsuitableInput: UNREADABLE, when the bytes may be the one and the other.
    """
    if vr not in BINARY_NUMBERS or vr == element.VR or not _DECIMAL_TEXT.fullmatch(element.value):
        return False
    if len(element.value) == struct.calcsize(BINARY_NUMBERS[vr]):
        text = f"{name} does not tell its form: its bytes are a number of VR {vr}, and of VR DS"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    return True


def unpack_numbers(element: Any, vr: str, name: str) -> tuple[float, ...]:
    """The numbers of an element of a binary VR; ``name`` is for the refusal of one that is too short or too long."""
    code = BINARY_NUMBERS[vr]
    size = struct.calcsize(code)
    if len(element.value) % size:
        text = f"{name} has {len(element.value)} bytes, which are no numbers of {size} bytes"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    order = "<" if element.is_little_endian else ">"
    return struct.unpack(f"{order}{len(element.value) // size}{code}", element.value)


def items_of(element: Any) -> Iterable[Dataset]:
    """The items of a sequence, their values still raw; raises what pydicom's parser raises on what is none."""
    if not isinstance(element, RawDataElement):
        if element.VR != "SQ":
            raise ValueError("not a sequence")
        return tuple(element.value)
    value = element.value or b""
    if not value:
        return ()
    # PS3.5 6.2.2 note 2: what an application put into VR UN is implicit VR little endian
    as_implicit = element.VR == "UN"
    little_endian = as_implicit or element.is_little_endian
    if value[:4] not in (_ITEM_TAGS[little_endian], _SEQUENCE_ENDS[little_endian]):
        raise ValueError("does not begin with an item")
    return tuple(convert_SQ(value, as_implicit or element.is_implicit_VR, little_endian))


def is_sequence(dataset: Any, tag: int) -> bool:
    """Whether an element holds items, by its VR or, where that was lost, by its first bytes."""
    element = element_of(dataset, tag)
    if element.VR == "SQ":
        return True
    if not isinstance(element, RawDataElement) or element.VR not in (None, "UN"):
        return False
    return bool((element.value or b"")[:4] == _ITEM_TAGS[element.VR == "UN" or element.is_little_endian])


def decode_text(value: bytes | None, codec: str) -> str:
    """Text without padding; bytes that the codec does not know become replacement characters."""
    return (value or b"").decode(codec, "replace").strip(" \0\t\r\n")
