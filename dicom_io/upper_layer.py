"""One association as acceptor, from its first byte to its last, in a thread of its own (PS3.8, PS3.7).

Every wait has an end; whatever a peer sends or does not send, the thread comes to its end and leaves nothing behind.
"""

import contextlib
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pynetdicom.presentation import PresentationContext

from dicom_io.access import Admission, Call, Refused
from dicom_io.commitment import CommitmentDesk
from dicom_io.commitment_scu import TakeResult
from dicom_io.commitment_service import CommitmentService, CommitmentTurn, result_turn
from dicom_io.dimse_command import BrokenCommand, Command, CommandField, read_command, response_to
from dicom_io.inbox import Inbox
from dicom_io.negotiation import (
    AssociationRequest,
    Context,
    abort_pdu,
    accept,
    read_request,
    reject_pdu,
    release_pdu,
    speaks_dicom,
)
from dicom_io.pdu_stream import AbortReason, PduStream, PduType, PeerGone, ProtocolFault, TooSlow
from dicom_io.places import Place
from dicom_io.presentation import StoreStatus
from dicom_io.receive_data import Answer, IncomingObject, ObjectName
from dicom_io.received import Ledger
from dicom_io.tls import PeerCertificate, peer_certificate, why_no_handshake

_log = logging.getLogger(__name__)

MAX_PDU_BYTES = 131_072
MAX_COMMAND_BYTES = 65_536
_UNRECOGNISED_OPERATION, _CLASS_NOT_SUPPORTED = 0x0211, 0x0122
_LOCAL_LIMIT, _CONGESTION = (2, 3, 2), (2, 3, 1)
_TICK_S, _BUSY_TICK_S = 1.0, 0.1
_DRAIN_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. Until an association is asked for; for one PDU; of silence; and the least average rate of an object."""

    request_s: float = 10.0  # PS3.8 9.1.4: ARTIM; the TLS handshake is within it
    pdu_s: float = 10.0
    idle_s: float = 60.0
    least_bytes_per_s: float = 8192.0
    rate_after_s: float = 30.0


@dataclass(frozen=True, slots=True)
class House:
    """What an association finds here."""

    contexts: tuple[PresentationContext, ...]
    admit: Callable[[Call], Admission]
    note_refusal: Callable[[str, str, str], None]  # calling AE title (empty where none was heard), address, why
    tell_refusals: Callable[[], None]  # those that were only counted, before the process ends
    inbox: Inbox
    ledger: Ledger
    commitments: CommitmentDesk | None
    is_full: Callable[[], bool]  # objects are refused for now
    is_closed: Callable[[], bool]  # associations are refused for now
    largest_object_bytes: int
    deadlines: Deadlines = field(default_factory=Deadlines)
    results: TakeResult | None = None  # of our own commitment requests


class _Stopping(Exception):
    """The node stops; between two messages is the moment for it."""


class _Ignored:
    """A data set that nobody wants, and the answer that is known before it has come."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.size_bytes = 0

    def take(self, piece: memoryview) -> None:
        self.size_bytes += len(piece)

    def finish(self) -> Answer:
        return self._answer

    def settle(self) -> None:
        pass

    def abandon(self) -> None:
        pass


@dataclass(slots=True)
class _Request:
    """A request whose data set is coming."""

    command: Command
    context_id: int
    sink: "IncomingObject | CommitmentTurn | _Ignored"
    waited_s: float  # by the stream's clock, when it began


class Association:
    """One connection. Call :meth:`run` in its thread; :meth:`stop` from any other."""

    def __init__(self, connection: socket.socket, address: str, place: Place, house: House) -> None:
        self._connection = connection
        self._address = address
        self._place = place
        self._house = house
        self._stream = PduStream(connection, MAX_PDU_BYTES, house.deadlines.pdu_s)
        self._contexts: dict[int, Context] = {}
        self._calling_ae = ""
        self._command = bytearray()
        self._command_context = 0
        self._request: _Request | None = None
        self._commitment: CommitmentService | None = None
        self._is_stopping = False
        self._asked_by_s = time.monotonic() + house.deadlines.request_s  # handshake and request within it

    def stop(self) -> None:
        """End it after the message that is under way."""
        self._is_stopping = True

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._connection.shutdown(socket.SHUT_RDWR)

    def run(self, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """Serve it to its end."""
        try:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._shake_hands(tls)
            if self._open():
                self._serve()
        except PeerGone as end:
            self._note(logging.INFO, "association lost", end)
        except TooSlow as fault:
            self._note(logging.WARNING, "association aborted: too slow", fault)
            self._say_farewell(abort_pdu(None))
        except ProtocolFault as fault:
            self._note(logging.WARNING, "association aborted: not DICOM", fault)
            self._say_farewell(abort_pdu(fault.reason))
        except _Stopping:
            self._say_farewell(abort_pdu(None))
        except OSError as error:
            self._note(logging.INFO, "association lost", error)
        finally:
            self._abandon()
            self._place.leave()
            self._connection.close()

    # --- opening ------------------------------------------------------------------------------------------------------

    def _shake_hands(self, tls: Callable[[], ssl.SSLContext]) -> None:
        """In the association's own thread: a peer that stalls here delays nobody else."""
        self._connection.settimeout(self._house.deadlines.request_s)
        try:
            self._connection = tls().wrap_socket(self._connection, server_side=True)
        except (OSError, ValueError) as error:
            why = why_no_handshake(error) if isinstance(error, OSError) else "broken off"
            self._house.note_refusal("", self._address, f"TLS: {why}")
            raise PeerGone("no TLS") from error
        self._stream = PduStream(self._connection, MAX_PDU_BYTES, self._house.deadlines.pdu_s)

    def _open(self) -> bool:
        """Answer the request for an association; False if it is rejected or does not come."""
        self._stream.ends_at_s = self._asked_by_s
        got = self._stream.next_pdu(max(0.01, self._asked_by_s - time.monotonic()))
        if got is None:
            raise TooSlow("no association is asked for")
        self._stream.has_all_the_time()
        kind, content = got
        if kind == PduType.ABORT:
            return False
        if kind != PduType.ASSOCIATE_RQ:
            raise ProtocolFault(AbortReason.UNEXPECTED_PDU, f"PDU of type {kind} before an association")
        data = bytes(content)
        request = read_request(data)
        by_tls = isinstance(self._connection, ssl.SSLSocket)
        call = Call(request.calling_ae, request.called_ae, self._address, self._certificate(), by_tls)
        try:
            admission = self._admit(request, call)
        except Refused as refusal:
            self._house.note_refusal(call.calling_ae, call.address, refusal.why)
            self._say_farewell(reject_pdu(refusal.result, refusal.source, refusal.reason))
            return False
        self._calling_ae = request.calling_ae
        answer, self._contexts = accept(data, self._contexts_of(admission), MAX_PDU_BYTES)
        if self._house.commitments is not None:
            self._commitment = CommitmentService(
                self._house.commitments, request.calling_ae, self._send_message, request.max_pdu_bytes
            )
        self._stream.send(answer)
        return True

    def _admit(self, request: AssociationRequest, call: Call) -> Admission:
        rejection = speaks_dicom(request)
        if rejection is not None:
            raise Refused(*rejection, "not the DICOM application context, version 1")
        admission = self._house.admit(call)
        if self._is_stopping:
            raise Refused(*_CONGESTION, "the node stops")
        if self._house.is_closed():
            raise Refused(*_LOCAL_LIMIT, "no room on disk, or too much is not yet recorded")
        if not self._place.associate():
            raise Refused(*_LOCAL_LIMIT, "too many associations")
        return admission

    def _certificate(self) -> PeerCertificate | None:
        return peer_certificate(self._connection) if isinstance(self._connection, ssl.SSLSocket) else None

    def _contexts_of(self, admission: Admission) -> list[PresentationContext]:
        return [one for one in self._house.contexts if admission.permits(str(one.abstract_syntax))]

    # --- messages -----------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Messages until the peer releases."""
        heard_at_s = time.monotonic()
        while True:
            is_busy = self._commitment is not None and self._commitment.has_reports
            got = self._stream.next_pdu(_BUSY_TICK_S if is_busy else _TICK_S)
            if got is None:
                self._between(heard_at_s)
                continue
            kind, content = got
            if kind == PduType.P_DATA:
                self._take_values(content)
            elif kind == PduType.RELEASE_RQ:
                self._say_farewell(release_pdu())
                return
            elif kind == PduType.ABORT:
                raise PeerGone("aborted by the peer")
            else:
                raise ProtocolFault(AbortReason.UNEXPECTED_PDU, f"PDU of type {kind} in an association")
            heard_at_s = time.monotonic()
            if self._is_stopping and self._is_between_messages:
                raise _Stopping

    @property
    def _is_between_messages(self) -> bool:
        return self._request is None and not self._command

    def _between(self, heard_at_s: float) -> None:
        """Nothing has come for a moment."""
        if self._is_between_messages:
            if self._is_stopping:
                raise _Stopping
            if self._commitment is not None:
                self._commitment.report_if_due()
        if time.monotonic() - heard_at_s > self._house.deadlines.idle_s:
            raise TooSlow("nothing comes")

    def _take_values(self, content: memoryview) -> None:
        """The presentation data values of a P-DATA-TF (PS3.8 9.3.5, annex E)."""
        at = 0
        if not content:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a P-DATA-TF without values")
        while at < len(content):
            if at + 6 > len(content):
                raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a presentation data value is cut short")
            length, context_id, control = struct.unpack_from(">IBB", content, at)
            if length < 2 or at + 4 + length > len(content):
                raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a presentation data value is longer than its PDU")
            if context_id not in self._contexts:
                raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a presentation context that was not accepted")
            fragment = content[at + 6 : at + 4 + length]
            if control & 1:
                self._take_command(context_id, fragment, is_last=bool(control & 2))
            else:
                self._take_data(context_id, fragment, is_last=bool(control & 2))
            at += 4 + length

    def _take_command(self, context_id: int, fragment: memoryview, *, is_last: bool) -> None:
        if self._request is not None or (self._command and context_id != self._command_context):
            raise ProtocolFault(AbortReason.UNEXPECTED_PARAMETER, "a command inside another message")
        self._command += fragment
        self._command_context = context_id
        if len(self._command) > MAX_COMMAND_BYTES:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, "a command without end")
        if not is_last:
            return
        try:
            command = read_command(bytes(self._command))
        except BrokenCommand as fault:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, f"a broken command: {fault}") from fault
        self._command.clear()
        self._begin(command, context_id)

    def _begin(self, command: Command, context_id: int) -> None:
        if command.is_response and self._commitment is not None:
            self._commitment.take_response(command)
        if (command.is_response or command.field == CommandField.C_CANCEL_RQ) and not command.has_data_set:
            return
        sink = self._sink_of(command, context_id)
        self._request = _Request(command, context_id, sink, self._stream.waited_s)
        if not command.has_data_set:
            self._answer()

    def _sink_of(self, command: Command, context_id: int) -> "IncomingObject | CommitmentTurn | _Ignored":
        """Who takes the data set of a request, and answers it."""
        context = self._contexts[context_id]
        if command.field == CommandField.C_ECHO_RQ:
            return _Ignored(Answer(StoreStatus.SUCCESS))
        if command.field == CommandField.N_ACTION_RQ and self._commitment is not None:
            return self._commitment.begin(command, context_id, context)
        if command.field == CommandField.N_EVENT_REPORT_RQ and self._house.results is not None:
            return result_turn(command, context, self._calling_ae, self._house.results)
        if command.field != CommandField.C_STORE_RQ:
            return _Ignored(Answer(_UNRECOGNISED_OPERATION))
        if command.sop_class_uid != context.abstract_syntax:
            return _Ignored(Answer(_CLASS_NOT_SUPPORTED, "the SOP class is not that of the context"))
        if self._house.is_full():
            return _Ignored(Answer(StoreStatus.OUT_OF_RESOURCES, "no room on disk"))
        name = ObjectName(command.sop_class_uid, command.sop_instance_uid, context.transfer_syntax)
        return IncomingObject(name, self._calling_ae, self._house.inbox, self._house.ledger)

    def _take_data(self, context_id: int, fragment: memoryview, *, is_last: bool) -> None:
        request = self._request
        if request is None or context_id != request.context_id:
            raise ProtocolFault(AbortReason.UNEXPECTED_PARAMETER, "a data set without a command")
        request.sink.take(fragment)
        if request.sink.size_bytes > self._house.largest_object_bytes:
            raise ProtocolFault(AbortReason.INVALID_PARAMETER, "an object that is too large")
        waited_s = self._stream.waited_s - request.waited_s
        deadlines = self._house.deadlines
        if waited_s > deadlines.rate_after_s and request.sink.size_bytes < waited_s * deadlines.least_bytes_per_s:
            raise TooSlow("an object trickles in")
        if is_last:
            self._answer()

    def _answer(self) -> None:
        assert self._request is not None
        request = self._request
        answer = request.sink.finish()
        self._request = None
        try:
            if not request.command.is_response:
                self._send_message(request.context_id, response_to(request.command, answer.status, answer.comment))
        finally:
            request.sink.settle()

    def _send_message(self, context_id: int, command: bytes, data: tuple[bytes, ...] = ()) -> None:
        """Send a command, and its data set in fragments that the peer takes."""
        pdus = [_data_pdu(context_id, 3, command)]
        for number, fragment in enumerate(data, 1):
            pdus.append(_data_pdu(context_id, 2 if number == len(data) else 0, fragment))
        self._stream.send(b"".join(pdus))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _abandon(self) -> None:
        """Nothing stays of an object that has not come to its end."""
        if self._request is not None:
            self._request.sink.abandon()
            self._request = None

    def _note(self, level: int, what: str, why: Exception) -> None:
        extra = {"calling_ae": self._calling_ae, "address": self._address, "why": str(why)}
        _log.log(level, what, extra=extra)

    def _say_farewell(self, pdu: bytes) -> None:
        """Send a last PDU and wait a moment for the peer to hang up: a connection closed upon it may never show it."""
        self._abandon()
        try:
            self._stream.send(pdu, within_s=2.0)
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(1.0)
            left_bytes = _DRAIN_BYTES
            until_s = time.monotonic() + 1.0
            while left_bytes > 0 and time.monotonic() < until_s:
                came = self._connection.recv(min(left_bytes, 65_536))
                if not came:
                    return
                left_bytes -= len(came)
        except (OSError, PeerGone, TooSlow):
            return  # the peer has gone already


def _data_pdu(context_id: int, control: int, fragment: bytes) -> bytes:
    head = struct.pack(">BBIIBB", PduType.P_DATA, 0, len(fragment) + 6, len(fragment) + 2, context_id, control)
    return head + fragment
