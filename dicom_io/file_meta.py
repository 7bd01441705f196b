"""The head of a DICOM file (PS3.10 7.1): preamble, prefix and file meta information."""

import struct
from functools import cache

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

#: Bytes of preamble and prefix.
FILE_HEAD = 132
PREAMBLE = b"\x00" * 128 + b"DICM"

_SHORT = struct.Struct("<HH2sH")


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> bytes:
    """What stands before the data set of a received object, the same for the same object however it came."""
    content = b"".join(
        (
            b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
            _uid(0x0002, sop_class_uid),
            _uid(0x0003, sop_instance_uid),
            _implementation(transfer_syntax),
        )
    )
    return PREAMBLE + _SHORT.pack(2, 0, b"UL", 4) + struct.pack("<I", len(content)) + content


def transfer_syntax_of(head: bytes) -> str:
    """The Transfer Syntax UID in the head of a file; empty if there is none."""
    at = FILE_HEAD
    while at + 8 <= len(head):
        group, element, vr, length = _SHORT.unpack_from(head, at)
        at += 8
        if vr in (b"OB", b"UN"):
            length = int.from_bytes(head[at : at + 4], "little")
            at += 4
        if (group, element) == (2, 0x0010):
            return head[at : at + length].decode("ascii", "replace").rstrip("\x00 ")
        at += length
    return ""


@cache
def _implementation(transfer_syntax: str) -> bytes:
    version: bytes = PYNETDICOM_IMPLEMENTATION_VERSION.encode()
    version += b" " * (len(version) % 2)
    name = _SHORT.pack(2, 0x0013, b"SH", len(version)) + version
    return _uid(0x0010, transfer_syntax) + _uid(0x0012, str(PYNETDICOM_IMPLEMENTATION_UID)) + name


def _uid(element: int, text: str) -> bytes:
    value = text.encode("latin-1", "replace")
    value += b"\x00" * (len(value) % 2)
    return _SHORT.pack(2, element, b"UI", len(value)) + value
