"""Storage commitment over an association that a sender has opened: its requests, and our report while it stays open."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicom_io.commitment import CommitmentDesk, CommitmentRequest, event_of, judge_request
from dicom_io.dimse_command import Command, CommandField, event_report
from dicom_io.negotiation import Context
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.receive_data import Answer

_log = logging.getLogger(__name__)

_CLASS_NOT_SUPPORTED, _RESOURCE_LIMITATION, _SUCCESS = 0x0118, 0x0213, 0x0000
_MOST_BYTES = 32 << 20  # 100,000 objects of two UIDs each need 18 MB
_LOOK_AFTER_S = (0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class _Waiting:
    """A request whose report may still go over this association."""

    request: CommitmentRequest
    context_id: int
    context: Context
    not_before_s: float
    looks: int = 0


class CommitmentService:
    """The storage commitment of one association. Used by its thread alone.

    Args:
        desk: what becomes of requests.
        calling_ae: who asks.
        send: sends a command and the fragments of its data set over a context.
        max_pdu_bytes: the longest PDU that the peer takes.
    """

    def __init__(
        self,
        desk: CommitmentDesk,
        calling_ae: str,
        send: Callable[[int, bytes, tuple[bytes, ...]], None],
        max_pdu_bytes: int,
    ) -> None:
        self._desk = desk
        self._calling_ae = calling_ae
        self._send = send
        self._fragment_bytes = max(max_pdu_bytes - 6, 128)
        self._waiting: list[_Waiting] = []
        self._sent: dict[int, CommitmentRequest] = {}  # by message ID

    @property
    def has_reports(self) -> bool:
        """Whether something may be to report soon."""
        return bool(self._waiting)

    def begin(self, command: Command, context_id: int, context: Context) -> "CommitmentTurn":
        """An N-ACTION request has come; its data set follows."""
        return CommitmentTurn(lambda data: self._answer(command, context_id, context, data))

    def _answer(self, command: Command, context_id: int, context: Context, data: bytes) -> Answer:
        """Answer an N-ACTION request: Success once it is recorded."""
        if command.sop_class_uid != str(StorageCommitmentPushModel):
            return Answer(_CLASS_NOT_SUPPORTED)
        status, request = judge_request(
            command.action_type, command.sop_instance_uid, _decoded(data, context), self._calling_ae
        )
        if request is None:
            return Answer(status)
        try:
            self._desk.note(request)
        except OSError as error:
            _log.error("commitment request not recorded", extra={"error": type(error).__name__})
            return Answer(_RESOURCE_LIMITATION, "cannot be recorded now")
        self._waiting.append(_Waiting(request, context_id, context, time.monotonic() + _LOOK_AFTER_S[0]))
        return Answer(status)

    def report_if_due(self) -> None:
        """Send what can be reported now: over the sender's own association only if everything is kept."""
        for one in list(self._waiting):
            if time.monotonic() < one.not_before_s:
                continue
            try:
                report = self._desk.report(one.request)
            except OSError as error:
                _log.warning("commitment not reported", extra={"error": type(error).__name__})
                report = None
            one.looks += 1
            if report is not None:
                information, event_type, sop_class, sop_instance = event_of(report)
                message_id = len(self._sent) % 0xFFFF + 1
                self._sent[message_id] = one.request
                self._send(
                    one.context_id,
                    event_report(message_id, sop_class, sop_instance, event_type),
                    _fragments(_encoded(information, one.context), self._fragment_bytes),
                )
            if report is not None or one.looks == len(_LOOK_AFTER_S):
                self._waiting.remove(one)
            else:
                one.not_before_s = time.monotonic() + _LOOK_AFTER_S[one.looks]

    def take_response(self, command: Command) -> None:
        """The sender has answered a report."""
        request = self._sent.get(command.responded_to)
        if command.field != CommandField.N_EVENT_REPORT_RSP or request is None or command.status != _SUCCESS:
            return
        try:
            self._desk.reported(request)
        except OSError as error:  # it will be told again, which does no harm
            _log.warning("commitment report not recorded", extra={"error": type(error).__name__})


class CommitmentTurn:
    """One N-ACTION request whose data set is coming."""

    def __init__(self, answer: Callable[[bytes], Answer]) -> None:
        self._answer = answer
        self._data = bytearray()
        self.size_bytes = 0

    def take(self, piece: memoryview) -> None:
        """The next piece of the data set."""
        self.size_bytes += len(piece)
        if self.size_bytes <= _MOST_BYTES:
            self._data += piece

    def finish(self) -> Answer:
        """The data set has ended."""
        if self.size_bytes > _MOST_BYTES:
            return Answer(_RESOURCE_LIMITATION, "the list is too long")
        return self._answer(bytes(self._data))

    def settle(self) -> None:
        """Nothing is left to do after the answer."""

    def abandon(self) -> None:
        """It will not be finished."""
        self._data.clear()


def _decoded(data: bytes, context: Context) -> Dataset | None:
    syntax = UID(context.transfer_syntax)
    try:
        with quiet_pydicom():
            found: Dataset = decode(BytesIO(data), syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
            return found
    except PARSE_FAULTS:
        return None


def _encoded(information: Dataset, context: Context) -> bytes:
    syntax = UID(context.transfer_syntax)
    encoded: bytes | None = encode(information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert encoded is not None  # our own data set
    return encoded


def _fragments(data: bytes, size_bytes: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size_bytes] for at in range(0, len(data), size_bytes))
