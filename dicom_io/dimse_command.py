"""DIMSE command sets (PS3.7 E): read and written here, implicit little-endian as they always are."""

import struct
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct("<HHI")
_US = struct.Struct("<H")
_NO_DATA_SET = 0x0101
_IS_RESPONSE = 0x8000


class CommandField(IntEnum):
    """The requests and responses that concern a storage SCP."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_ACTION_RQ = 0x0130
    C_CANCEL_RQ = 0x0FFF


class BrokenCommand(Exception):
    """The bytes are not a command set."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command set, as far as it matters here. Texts are empty and numbers zero where an element is absent."""

    field: int
    message_id: int
    responded_to: int
    has_data_set: bool
    sop_class_uid: str  # affected or requested
    sop_instance_uid: str
    action_type: int
    status: int

    @property
    def is_response(self) -> bool:
        """Whether it answers one of ours."""
        return bool(self.field & _IS_RESPONSE)


def read_command(data: bytes) -> Command:
    """Decode a command set.

    Raises:
        BrokenCommand: it is cut short, or says not what it is.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise BrokenCommand("an element is cut short")
        group, element, length = _HEAD.unpack_from(data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise BrokenCommand("an element has no place in a command set")
        elements[element] = data[at : at + length]
        at += length

    def number(element: int) -> int:
        value = elements.get(element, b"")
        return int(_US.unpack(value)[0]) if len(value) == 2 else 0

    def text(*tags: int) -> str:
        value = next((elements[one] for one in tags if one in elements), b"")
        return value.decode("latin-1").rstrip("\x00 ")

    if len(elements.get(0x0100, b"")) != 2 or len(elements.get(0x0800, b"")) != 2:
        raise BrokenCommand("command field or data set type are missing")
    return Command(
        field=number(0x0100),
        message_id=number(0x0110),
        responded_to=number(0x0120),
        has_data_set=number(0x0800) != _NO_DATA_SET,
        sop_class_uid=text(0x0002, 0x0003),
        sop_instance_uid=text(0x1000, 0x1001),
        action_type=number(0x1008),
        status=number(0x0900),
    )


def response_to(command: Command, status: int, comment: str = "") -> bytes:
    """The encoded response to a request; the comment is cut at 64 characters (PS3.7 C)."""
    elements = [
        (0x0002, _uid(command.sop_class_uid)),
        (0x0100, _US.pack(command.field | _IS_RESPONSE)),
        (0x0120, _US.pack(command.message_id)),
        (0x0800, _US.pack(_NO_DATA_SET)),
        (0x0900, _US.pack(status)),
    ]
    if comment:
        elements.append((0x0902, _even(comment[:64].encode("ascii", "replace"), b" ")))
    if command.sop_instance_uid:
        elements.append((0x1000, _uid(command.sop_instance_uid)))
    if command.field == CommandField.N_ACTION_RQ:
        elements.append((0x1008, _US.pack(command.action_type)))
    return _encode(elements)


def event_report(message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int) -> bytes:
    """The encoded command of an N-EVENT-REPORT request with a data set (PS3.7 10.3.1)."""
    return _encode(
        [
            (0x0002, _uid(sop_class_uid)),
            (0x0100, _US.pack(CommandField.N_EVENT_REPORT_RQ)),
            (0x0110, _US.pack(message_id)),
            (0x0800, _US.pack(0x0001)),
            (0x1000, _uid(sop_instance_uid)),
            (0x1002, _US.pack(event_type)),
        ]
    )


def _encode(elements: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(_HEAD.pack(0, element, len(value)) + value for element, value in elements)
    return _HEAD.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def _uid(text: str) -> bytes:
    return _even(text.encode("latin-1", "replace")[:64], b"\x00")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
