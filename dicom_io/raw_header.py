"""A parsed DICOM file whose values are still raw, and their decoding, without a word of pydicom's about odd values.

Values are decoded from the raw bytes by our own few lines instead of pydicom's conversions: those warn, log and repair
(patient data could reach a log), while here an odd value is an error that names the attribute.
"""

import logging
import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from dicom_io.raw_values import (
    BINARY_NUMBERS,
    TEXTS,
    bytes_of,
    decode_text,
    element_of,
    is_little_endian_of,
    is_sequence,
    is_text_by_another_name,
    items_of,
    name_of,
    tag_of,
    unpack_numbers,
    value_representation,
)
from processing.refusal import ReasonCode, UnsuitableInput

#: What pydicom's parser raises on bytes that are not (whole) DICOM. OSError: it seeks and reads in memory here.
PARSE_FAULTS = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RecursionError,
)

_UID_CHARACTERS = re.compile(r"[0-9.]{1,64}")
_warning_filters = threading.Lock()
_PRINTABLE = re.compile(rb"[\x20-\x7e]*\0?")

_Number = TypeVar("_Number", int, float)


def parse(content: bytes) -> FileDataset:
    """The data set of a DICOM file's bytes, values not yet decoded; nothing is warned about.

    Raises:
        UnsuitableInput: UNREADABLE.
    """
    try:
        with quiet_pydicom():
            return dcmread(BytesIO(content))
    except InvalidDicomError as error:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "not a DICOM file (no 'DICM' at byte 128)") from error
    except RecursionError as error:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "sequences are nested too deeply") from error
    except PARSE_FAULTS as error:
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"broken DICOM file ({type(error).__name__})") from error


def series_uid_of(path: Path) -> str:
    """The SeriesInstanceUID of a DICOM file; empty if it is gone or cannot be read."""
    try:
        with quiet_pydicom():
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (InvalidDicomError, *PARSE_FAULTS):
        return ""
    return str(header.get("SeriesInstanceUID") or "")


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence warnings of pydicom and its decoders about odd values, which we judge ourselves; they may quote patients.

    Warning filters and loggers belong to the whole process, so one thread at a time.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg")]
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)  # counts for the loggers below it too, which "disabled" would not
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class RawItem:
    """Decodes attributes of one data set that is parsed but still raw: a file's, or that of a sequence item.

    An attribute is given by keyword, or by tag where it is private. Every method raises UnsuitableInput UNREADABLE,
    naming the attribute, for a value of the wrong form.
    """

    def __init__(self, dataset: Dataset, codec: str) -> None:
        self.dataset = dataset
        self._codec = codec
        self._single_items: dict[str | int, RawItem | None] = {}
        self._private_blocks: dict[tuple[int, str], list[int]] | None = None

    def raw(self, attribute: str | int) -> bytes | None:
        """The undecoded bytes; None when absent."""
        return bytes_of(self.dataset, attribute)

    def has_value(self, attribute: str | int) -> bool:
        """Whether the attribute is there and not empty; a sequence in the place of a value is not empty."""
        element = element_of(self.dataset, attribute)
        if element is None or element.value is None:
            return False
        if not isinstance(element, RawDataElement):
            return element.value not in ("", b"")
        is_number = value_representation(element, tag_of(attribute), "") in BINARY_NUMBERS
        return bool(element.value if is_number else element.value.strip(b" \0"))

    def text(self, attribute: str | int) -> str:
        """The text without padding; empty when absent."""
        return decode_text(self.raw(attribute), self._codec)

    def texts(self, attribute: str | int) -> tuple[str, ...]:
        """The values of a text attribute."""
        text = self.text(attribute)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def uid(self, keyword: str) -> str:
        """A UID that must be there."""
        text = self.text(keyword)
        if not _UID_CHARACTERS.fullmatch(text):
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} is {'not a UID' if text else 'missing'}")
        return text

    def decimals(self, attribute: str | int, *, count: int | None = None) -> tuple[float, ...]:
        """``count`` finite numbers, or none; any number of them without a ``count``."""
        return self._numbers(attribute, _finite, count=count)

    def decimal(self, attribute: str | int) -> float | None:
        """A finite number; None when absent."""
        return next(iter(self.decimals(attribute, count=1)), None)

    def integers(self, attribute: str | int) -> tuple[int, ...]:
        """Any number of whole numbers."""
        return self._numbers(attribute, _integer, count=None)

    def integer(self, attribute: str | int) -> int | None:
        """A whole number; None when absent."""
        return next(iter(self._numbers(attribute, _integer, count=1)), None)

    def unsigned(self, keyword: str) -> int | None:
        """An unsigned 16-bit value (VR US); None when absent."""
        value = self.raw(keyword)
        if not value:
            return None
        if len(value) != 2:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} has {len(value)} bytes instead of 2")
        return int.from_bytes(value, "little" if self.is_little_endian(keyword) else "big")

    def positive(self, keyword: str) -> int:
        """An unsigned 16-bit value that must be there and above zero."""
        value = self.unsigned(keyword)
        if not value:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} is {'missing' if value is None else 'zero'}")
        return value

    def is_little_endian(self, attribute: str | int) -> bool:
        """The byte order of the attribute's value."""
        return is_little_endian_of(self.dataset, attribute)

    def items(self, attribute: str | int) -> tuple["RawItem", ...]:
        """The items of a sequence; none when it is absent. To be called in :func:`quiet_pydicom`."""
        element = element_of(self.dataset, attribute)
        if element is None:
            return ()
        try:
            datasets = items_of(element)
        except PARSE_FAULTS as error:
            text = f"{name_of(attribute)} is no readable sequence ({type(error).__name__})"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
        return tuple(RawItem(one, self._codec) for one in datasets)

    def item(self, attribute: str | int) -> "RawItem | None":
        """The one item of a sequence; None when it is absent or empty. To be called in :func:`quiet_pydicom`."""
        if attribute not in self._single_items:
            items = self.items(attribute)
            if len(items) > 1:
                text = f"{name_of(attribute)} has {len(items)} items instead of 1"
                raise UnsuitableInput(ReasonCode.UNREADABLE, text)
            self._single_items[attribute] = items[0] if items else None
        return self._single_items[attribute]

    def sequence_tags(self) -> tuple[int, ...]:
        """The tags of all elements that are sequences, also private ones whose VR was lost (PS3.5 6.2.2, VR UN)."""
        return tuple(int(tag) for tag in self.dataset.keys() if is_sequence(self.dataset, int(tag)))  # noqa: SIM118

    def private_tag(self, group: int, creator: str, offset: int) -> int | None:
        """Where a private element stands: its block is the one that its creator has reserved (PS3.5 7.8.1)."""
        if self._private_blocks is None:
            self._private_blocks = self._find_private_blocks()
        for block in self._private_blocks.get((group, creator.casefold()), ()):
            tag = group << 16 | block << 8 | offset
            if tag in self.dataset:
                return tag
        return None

    def private_numbers(self, group: int, creator: str, offset: int) -> tuple[float, ...]:
        """The numbers in a private element; none when it is absent or empty."""
        tag = self.private_tag(group, creator, offset)
        return () if tag is None else self._numbers(tag, _finite, count=None, creator=creator)

    def value_text(self, tag: int, *, creator: str = "") -> str:
        """A value as text, numbers of binary form too; empty when it is absent, or of a form that is not known."""
        element = element_of(self.dataset, tag)
        if element is None or not isinstance(element.value, bytes):
            return ""
        vr = value_representation(element, tag, creator)
        if vr in BINARY_NUMBERS:
            numbers = unpack_numbers(element, vr, name_of(tag))
            return "\\".join(str(np.float32(one)) if vr == "FL" else repr(one) for one in numbers)
        if vr in TEXTS or (vr == "UN" and _PRINTABLE.fullmatch(element.value)):
            return self.text(tag)
        return ""

    def _find_private_blocks(self) -> dict[tuple[int, str], list[int]]:
        blocks: dict[tuple[int, str], list[int]] = {}
        for tag in self.dataset.keys():  # noqa: SIM118 - iterating a Dataset decodes its values
            group, block = int(tag) >> 16, int(tag) & 0xFFFF
            if group % 2 and 0x10 <= block <= 0xFF:
                blocks.setdefault((group, self.text(int(tag)).casefold()), []).append(block)
        return blocks

    def _numbers(
        self,
        attribute: str | int,
        convert: Callable[[str | float], _Number],
        *,
        count: int | None,
        creator: str = "",
    ) -> tuple[_Number, ...]:
        value = self.raw(attribute)
        if not value:
            return ()
        element = element_of(self.dataset, attribute)
        is_raw = isinstance(element, RawDataElement)
        vr = value_representation(element, tag_of(attribute), creator) if is_raw else "LO"
        if creator and is_raw and is_text_by_another_name(element, vr, name_of(attribute)):
            vr = "DS"
        parts: Sequence[str | float]
        parts = unpack_numbers(element, vr, name_of(attribute)) if vr in BINARY_NUMBERS else self.texts(attribute)
        if not any(part != "" for part in parts):
            return ()
        try:
            numbers = tuple(convert(part) for part in parts)
        except (ValueError, OverflowError) as error:
            text = f"{name_of(attribute)} is not a number"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
        if count is not None and len(numbers) != count:
            text = f"{name_of(attribute)} has {len(numbers)} values instead of {count}"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text)
        return numbers


class RawHeader(RawItem):
    """The attributes of a file's data set.

    Raises:
        UnsuitableInput: UNREADABLE, when the file does not name its transfer syntax.
    """

    def __init__(self, dataset: FileDataset) -> None:
        super().__init__(dataset, "latin-1")
        file_meta = getattr(dataset, "file_meta", None)
        self.transfer_syntax = decode_text(bytes_of(file_meta, "TransferSyntaxUID"), "latin-1") if file_meta else ""
        if not _UID_CHARACTERS.fullmatch(self.transfer_syntax):
            raise UnsuitableInput(ReasonCode.UNREADABLE, "TransferSyntaxUID is missing or not a UID")
        charsets = [name for name in self.texts("SpecificCharacterSet") if name]
        if charsets:
            self._codec = str(python_encoding.get(charsets[-1], "latin-1"))


def _finite(value: str | float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _integer(value: str | float) -> int:
    number = _finite(value)  # some writers put '7.0' into an integer string
    if number != int(number):
        raise ValueError(value)
    return int(number)
