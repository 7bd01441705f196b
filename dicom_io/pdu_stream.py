"""PDUs from a socket (PS3.8 9.3), each whole, each within its time, none longer than agreed."""

import socket
import struct
import time
from enum import IntEnum

_HEADER = struct.Struct(">BxI")
_HEADER_BYTES = 6
_NEVER_S = float("inf")


class PduType(IntEnum):
    """PS3.8 table 9-11 ff."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


_KINDS = frozenset(int(kind) for kind in PduType)


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class PeerGone(Exception):
    """The connection has ended."""


class TooSlow(Exception):
    """The peer has let a deadline pass."""


class ProtocolFault(Exception):
    """The peer sends what no DICOM peer may send; the association must be aborted."""

    def __init__(self, reason: AbortReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class PduStream:
    """A connection as a row of PDUs.

    Args:
        connection: a connected socket, plain or TLS.
        max_pdu_bytes: a longer one is a fault; it is not read.
        pdu_s: seconds within which a PDU that has begun must be there.
    """

    def __init__(self, connection: socket.socket, max_pdu_bytes: int, pdu_s: float) -> None:
        self._connection = connection
        self._max_pdu_bytes = max_pdu_bytes
        self._pdu_s = pdu_s
        self._buffer = bytearray(_HEADER_BYTES + max_pdu_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0  # of what has come and was not yet given out
        self._end = 0
        self._began_at_s = 0.0
        self.waited_s = 0.0  # for the peer, in all
        self.ends_at_s = _NEVER_S  # by the monotonic clock: what has not come by then is too late
        self._timeout_s: float | None = -1.0

    def next_pdu(self, wait_s: float) -> tuple[int, memoryview] | None:
        """Type and content of the next PDU; None if none has begun after ``wait_s``. Valid until the next call.

        Raises:
            PeerGone: the connection has ended.
            TooSlow: a PDU has begun and does not end.
            ProtocolFault: it is longer than agreed, or of no known type.
        """
        if self._start == self._end:
            self._start = self._end = 0
            if not self._receive(wait_s):
                return None
        self._began_at_s = time.monotonic()
        self._fill(_HEADER_BYTES)
        kind, length = _HEADER.unpack_from(self._buffer, self._start)
        if kind not in _KINDS:
            raise ProtocolFault(AbortReason.UNRECOGNISED_PDU, f"PDU of type 0x{kind:02X}")
        if length > self._max_pdu_bytes:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, f"PDU of {length} bytes")
        self._fill(_HEADER_BYTES + length)
        content = self._view[self._start + _HEADER_BYTES : self._start + _HEADER_BYTES + length]
        self._start += _HEADER_BYTES + length
        return kind, content

    def has_all_the_time(self) -> None:
        """From here on only the single PDU has a deadline."""
        self.ends_at_s = _NEVER_S

    def _fill(self, n_bytes: int) -> None:
        """Receive until so many bytes are there."""
        if self._start + n_bytes > len(self._buffer):
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while self._end - self._start < n_bytes:
            left_s = min(self._began_at_s + self._pdu_s, self.ends_at_s) - time.monotonic()
            if left_s <= 0:
                raise TooSlow("a PDU does not end")
            self._receive(min(1.0, left_s + 0.01))

    def _receive(self, wait_s: float) -> bool:
        """Take what has come; False if nothing came."""
        if wait_s != self._timeout_s:
            self._connection.settimeout(wait_s)
            self._timeout_s = wait_s
        asked_at_s = time.monotonic()
        try:
            n_bytes = self._connection.recv_into(self._view[self._end :])
        except TimeoutError:
            return False
        except OSError as error:  # ssl.SSLError is one
            raise PeerGone(type(error).__name__) from error
        finally:
            self.waited_s += time.monotonic() - asked_at_s
        if n_bytes == 0:
            raise PeerGone("end of stream")
        self._end += n_bytes
        return True

    def send(self, data: bytes, within_s: float = 10.0) -> None:
        """Send all of it.

        Raises:
            PeerGone: the connection has ended.
            TooSlow: the peer does not take it.
        """
        self._connection.settimeout(within_s)
        self._timeout_s = within_s
        try:
            self._connection.sendall(data)
        except TimeoutError as error:
            raise TooSlow("an answer is not taken") from error
        except OSError as error:
            raise PeerGone(type(error).__name__) from error
