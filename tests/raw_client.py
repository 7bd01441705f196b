"""A DICOM client of bare sockets: as fast as can be, and as badly behaved as a test wants."""

import socket
import struct
from collections.abc import Sequence
from typing import Self

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

VERIFICATION = "1.2.840.10008.1.1"
MR = str(MRImageStorage)
EXPLICIT = str(ExplicitVRLittleEndian)
RQ, AC, RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)


class Closed(Exception):
    """The server has ended the connection."""


def associate_rq(
    called: str = "DISCNODE",
    calling: str = "SCANNER",
    contexts: Sequence[tuple[int, str, str]] = ((1, MR, EXPLICIT), (3, VERIFICATION, EXPLICIT)),
    max_pdu_bytes: int = 131_072,
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts: ID, abstract and transfer syntax."""
    items = [_item(0x10, b"1.2.840.10008.3.1.1.1")]
    for number, abstract, transfer in contexts:
        inner = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        items.append(_item(0x20, struct.pack(">BBBB", number, 0, 0, 0) + inner))
    items.append(_item(0x50, _item(0x51, struct.pack(">I", max_pdu_bytes)) + _item(0x52, b"1.2.3.4")))
    body = struct.pack(">HH", 1, 0) + called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    return pdu(RQ, body + b"".join(items))


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(content)) + content


def value(context: int, control: int, fragment: bytes) -> bytes:
    """A presentation data value."""
    return struct.pack(">IBB", len(fragment) + 2, context, control) + fragment


def command(elements: Sequence[tuple[int, bytes]]) -> bytes:
    """An encoded command set."""
    body = b"".join(struct.pack("<HHI", 0, tag, len(one)) + one for tag, one in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def store_command(sop_uid: str, sop_class: str = MR, message: int = 1, *, has_data: bool = True) -> bytes:
    return command(
        [
            (0x0002, uid(sop_class)),
            (0x0100, struct.pack("<H", 0x0001)),
            (0x0110, struct.pack("<H", message)),
            (0x0700, struct.pack("<H", 0)),
            (0x0800, struct.pack("<H", 0x0001 if has_data else 0x0101)),
            (0x1000, uid(sop_uid)),
        ]
    )


def store_message(sop_uid: str, data: bytes, *, sop_class: str = MR, context: int = 1, step: int = 131_066) -> bytes:
    """A whole C-STORE request as P-DATA-TF PDUs."""
    pdus = [pdu(DATA, value(context, 3, store_command(sop_uid, sop_class)))]
    for at in range(0, max(len(data), 1), step):
        is_last = at + step >= len(data)
        pdus.append(pdu(DATA, value(context, 2 if is_last else 0, data[at : at + step])))
    return b"".join(pdus)


class RawClient:
    """A connection. ``host``: the address it calls from."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(host, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.step = 131_066  # the longest fragment that the server takes

    def associate(self, **how: object) -> Self:
        kind, content = self.ask(associate_rq(**how))  # type: ignore[arg-type]
        if kind != AC:
            raise Closed(f"PDU {kind}: {content.hex()}")
        at = content.rindex(b"\x51\x00\x00\x04")
        self.step = min(int.from_bytes(content[at + 4 : at + 8], "big") or 131_072, 131_072) - 6
        return self

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """Send bytes; type and content of the PDU that comes back."""
        self.socket.sendall(data)
        return self.receive()

    def receive(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def store(self, sop_uid: str, data: bytes, **how: object) -> int:
        """The status that an object is answered with."""
        return self.status_of(self.ask(store_message(sop_uid, data, **{"step": self.step, **how})))  # type: ignore[arg-type]

    def echo(self) -> int:
        elements = [
            (0x0002, uid(VERIFICATION)),
            (0x0100, struct.pack("<H", 0x30)),
            (0x0110, struct.pack("<H", 7)),
            (0x0800, struct.pack("<H", 0x0101)),
        ]
        return self.status_of(self.ask(pdu(DATA, value(3, 3, command(elements)))))

    @staticmethod
    def status_of(answer: tuple[int, bytes]) -> int:
        """The status in a response."""
        kind, content = answer
        if kind != DATA:
            raise Closed(f"PDU {kind}: {content.hex()}")
        at = content.index(struct.pack("<HHI", 0, 0x0900, 2))
        return int(struct.unpack_from("<H", content, at + 8)[0])

    def release(self) -> None:
        self.ask(pdu(RELEASE_RQ, bytes(4)))
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End it with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _exactly(self, n_bytes: int) -> bytes:
        parts = bytearray()
        while len(parts) < n_bytes:
            try:
                came = self.socket.recv(n_bytes - len(parts))
            except ConnectionError as error:
                raise Closed(type(error).__name__) from error
            if not came:
                raise Closed("end of stream")
            parts += came
        return bytes(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
