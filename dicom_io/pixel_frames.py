"""Pixel data as the bytes of each image: native or encapsulated, one frame or many (PS3.5 8.2, A.4)."""

from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from dicom_io.raw_header import PARSE_FAULTS, RawHeader
from dicom_io.raw_values import element_of
from processing.refusal import ReasonCode, UnsuitableInput

_UNDEFINED_LENGTH = 0xFFFFFFFF


def is_encapsulated(transfer_syntax: str) -> bool:
    """Whether pixel data are compressed; taken for true where the transfer syntax is private or unknown."""
    syntax = UID(transfer_syntax, IGNORE)
    return syntax.is_private or not syntax.is_transfer_syntax or syntax.is_encapsulated


def split_frames(header: RawHeader, n_frames: int) -> tuple[memoryview, ...]:
    """The bytes of each frame, compressed as they came.

    Args:
        header: of an object whose Rows, Columns and BitsAllocated were checked, with one sample per pixel.
        n_frames: how many frames the object says it has.

    Raises:
        UnsuitableInput: UNREADABLE, when there are fewer bytes or frames than that, or more than padding.
    """
    content = header.raw("PixelData") or b""
    element = element_of(header.dataset, "PixelData")
    undefined_length = isinstance(element, RawDataElement) and element.length == _UNDEFINED_LENGTH
    if is_encapsulated(header.transfer_syntax):
        return _encapsulated_frames(header, content, n_frames)
    if undefined_length:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "pixels are encapsulated, which the transfer syntax denies")
    rows, columns, bits = header.positive("Rows"), header.positive("Columns"), header.positive("BitsAllocated")
    n_bytes = rows * columns * bits // 8
    if len(content) < n_bytes * n_frames:
        what = f"{rows} x {columns} pixels" if n_frames == 1 else f"{n_frames} frames of {rows} x {columns} pixels"
        text = f"cut short: {what} need {n_bytes * n_frames} bytes, {len(content)} are there"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    if len(content) - n_bytes * n_frames > max(1, min(rows, columns) * bits // 8):
        # More than a row is no padding: size or bits are not those of these pixels, which would be read shifted.
        what = f"{rows} x {columns} pixels of {bits} bits in {n_frames} frame(s)"
        text = f"{what} need {n_bytes * n_frames} bytes, {len(content)} are there"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    view = memoryview(content)
    return tuple(view[index * n_bytes : (index + 1) * n_bytes] for index in range(n_frames))


def _encapsulated_frames(header: RawHeader, content: bytes, n_frames: int) -> tuple[memoryview, ...]:
    offsets, lengths = header.raw("ExtendedOffsetTable"), header.raw("ExtendedOffsetTableLengths")
    table = (offsets, lengths) if offsets and lengths else None
    if n_frames > len(content) // 8:  # each fragment has a header of 8 bytes
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"{n_frames} frames cannot lie in {len(content)} bytes")
    try:
        frames = tuple(generate_frames(content, number_of_frames=n_frames, extended_offsets=table))
    except PARSE_FAULTS as error:
        text = f"the compressed pixels cannot be told apart as {n_frames} frames ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
    if len(frames) != n_frames:
        text = f"{len(frames)} compressed frames are there instead of {n_frames}"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    return tuple(memoryview(frame) for frame in frames)
