"""What is looked at in a compressed image before a decoder is trusted with it.

Decoders take the size of the image from the compressed bytes: one spoilt byte, and they fill the memory.
"""

import struct

_END_OF_IMAGE, _SCAN, _JPEG_LS_FRAME = 0xD9, 0xDA, 0xF7
#: Start of frame of JPEG (ITU-T T.81 B.1.1.3) and of JPEG-LS (T.87 C.1.1).
_FRAMES = frozenset((*range(0xC0, 0xD0), _JPEG_LS_FRAME)) - {0xC4, 0xC8, 0xCC}
#: Start of codestream and of its SIZ segment (T.800 A.5.1), also within a JP2 file.
_JPEG_2000 = b"\xff\x4f\xff\x51"


def check_codestream(content: bytes, shape: tuple[int, int]) -> None:
    """Check that a JPEG, JPEG-LS, JPEG 2000 or HTJ2K image is of ``shape`` (rows, columns) and of one component.

    Raises:
        ValueError: it is not, or it does not say, or a JPEG-LS image is cut short.
        struct.error: it is cut short.
    """
    begin = content.find(_JPEG_2000)
    if begin >= 0:
        right, bottom, left, top = struct.unpack(">4I", content[begin + 8 : begin + 24])
        (n_components,) = struct.unpack(">H", content[begin + 40 : begin + 42])
        found = (bottom - top, right - left, n_components)
    else:
        found = _size_of_jpeg(content)
    if found != (*shape, 1):
        raise ValueError(f"an image of {found} instead of {(*shape, 1)}")


def _size_of_jpeg(content: bytes) -> tuple[int, int, int]:
    if content[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    place = 2
    while True:
        marker, segment, place = marker_segment(content, place)
        if marker == _JPEG_LS_FRAME and not content.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise ValueError("no end of image")  # for which CharLS 2.4 would look for ever
        if marker in _FRAMES:
            _, rows, columns, n_components = struct.unpack(">BHHB", segment[:6])
            return rows, columns, n_components
        if marker == _SCAN:
            raise ValueError("a scan before its frame")


def marker_segment(content: bytes, place: int) -> tuple[int, bytes, int]:
    """The marker at a place, what its segment holds, and the place after it (T.81 B.1.1)."""
    while content[place : place + 2] == b"\xff\xff":  # fill bytes
        place += 1
    prefix, marker, length = struct.unpack(">BBH", content[place : place + 4])
    if prefix != 0xFF or marker == _END_OF_IMAGE or length < 2:
        raise ValueError(f"no marker segment at byte {place}")
    segment = content[place + 4 : place + 2 + length]
    if len(segment) != length - 2:
        raise ValueError("a marker segment is cut short")
    return marker, segment, place + 2 + length
