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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, TypeVar

from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError

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


def is_same_data_set(one: bytes, other: bytes) -> bool:
    """Whether two DICOM files hold equal elements, perhaps in different transfer syntaxes; False where in doubt."""
    try:
        first, second = parse(one), parse(other)
        with quiet_pydicom():
            return bool(first == second)
    except (UnsuitableInput, *PARSE_FAULTS):
        return False


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings about odd values, which we judge ourselves; they quote values, even patient names.

    Warning filters and loggers belong to the whole process, so one thread at a time.
    """
    logger = logging.getLogger("pydicom")
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled


class RawHeader:
    """Decodes attributes of a parsed but still raw data set.

    Every method raises UnsuitableInput UNREADABLE, naming the attribute, for a value of the wrong form.
    """

    def __init__(self, dataset: FileDataset) -> None:
        self.dataset = dataset
        file_meta = getattr(dataset, "file_meta", None)
        self.transfer_syntax = decode_text(_bytes_of(file_meta, "TransferSyntaxUID"), "latin-1") if file_meta else ""
        if not _UID_CHARACTERS.fullmatch(self.transfer_syntax):
            raise UnsuitableInput(ReasonCode.UNREADABLE, "TransferSyntaxUID is missing or not a UID")
        self._codec = "latin-1"
        charsets = [name for name in self.texts("SpecificCharacterSet") if name]
        if charsets:
            self._codec = str(python_encoding.get(charsets[-1], "latin-1"))

    def raw(self, keyword: str) -> bytes | None:
        """The undecoded bytes; None when absent."""
        return _bytes_of(self.dataset, keyword)

    def text(self, keyword: str) -> str:
        """The text without padding; empty when absent."""
        return decode_text(self.raw(keyword), self._codec)

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a text attribute."""
        text = self.text(keyword)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def uid(self, keyword: str) -> str:
        """A UID that must be there."""
        text = self.text(keyword)
        if not _UID_CHARACTERS.fullmatch(text):
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} is {'not a UID' if text else 'missing'}")
        return text

    def decimals(self, keyword: str, *, count: int) -> tuple[float, ...]:
        """``count`` finite numbers, or none."""
        return self._numbers(keyword, _finite, count=count)

    def decimal(self, keyword: str) -> float | None:
        """A finite number; None when absent."""
        return next(iter(self.decimals(keyword, count=1)), None)

    def integers(self, keyword: str) -> tuple[int, ...]:
        """Any number of whole numbers."""
        return self._numbers(keyword, _integer, count=None)

    def integer(self, keyword: str) -> int | None:
        """A whole number; None when absent."""
        return next(iter(self._numbers(keyword, _integer, count=1)), None)

    def unsigned(self, keyword: str) -> int | None:
        """An unsigned 16-bit value (VR US); None when absent."""
        value = self.raw(keyword)
        if not value:
            return None
        if len(value) != 2:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} has {len(value)} bytes instead of 2")
        # PS3.5 7.3: only the retired big-endian syntax differs
        return int.from_bytes(value, "big" if self.transfer_syntax == "1.2.840.10008.1.2.2" else "little")

    def positive(self, keyword: str) -> int:
        """An unsigned 16-bit value that must be there and above zero."""
        value = self.unsigned(keyword)
        if not value:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} is {'missing' if value is None else 'zero'}")
        return value

    def _numbers(self, keyword: str, convert: Callable[[str], _Number], *, count: int | None) -> tuple[_Number, ...]:
        parts = self.texts(keyword)
        if not any(parts):
            return ()
        try:
            numbers = tuple(convert(part) for part in parts)
        except ValueError as error:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} is not a number: {parts!r:.80}") from error
        if count is not None and len(numbers) != count:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} has {len(numbers)} values instead of {count}")
        return numbers


def _bytes_of(dataset: Any, keyword: str) -> bytes | None:
    """The undecoded value; None when absent. File meta values are decoded by pydicom when it reads."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return None
    value = dataset.get_item(tag, keep_deferred=True).value
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    if value is not None and not isinstance(value, bytes):
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword} is not a plain value")
    return value


def decode_text(value: bytes | None, codec: str) -> str:
    """Text without padding; bytes that the codec does not know become replacement characters."""
    return (value or b"").decode(codec, "replace").strip(" \0\t\r\n")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _integer(text: str) -> int:
    number = _finite(text)  # some writers put '7.0' into an integer string
    if number != int(number):
        raise ValueError(text)
    return int(number)
