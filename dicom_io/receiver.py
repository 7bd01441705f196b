"""The storage SCP: C-ECHO, C-STORE answered with Success only once the object is durable and recorded, commitment."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dsutils import encode_file_meta

from config.settings import Settings
from dicom_io.access import Admission, Call, DenialLog, Refused, admission_by
from dicom_io.commitment import CommitmentDesk, answer_commitment_request, commitment_context
from dicom_io.element_walk import BrokenDataSet, ObjectIdentity, identify, is_uid
from dicom_io.inbox import Inbox, StoredFile
from dicom_io.presentation import StoreStatus, accepted_contexts
from dicom_io.tls import RenewedContext, open_server_context, peer_certificate, why_no_handshake
from processing.refusal import ReasonCode, UnsuitableInput

_log = logging.getLogger(__name__)

MAX_PDU_BYTES = 131_072
NETWORK_TIMEOUT_S = 60.0  # an association on which nothing arrives is dropped
SOCKET_TIMEOUT_S = 20.0  # a peer that falls silent in the middle of a PDU is dropped
ACSE_TIMEOUT_S = 30.0
DIMSE_TIMEOUT_S = 60.0
HANDSHAKE_TIMEOUT_S = 5.0

# The library decodes and logs every message by default; our own line per object says what is needed, without identity.
_config.LOG_HANDLER_LEVEL = "none"


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An object that lies durably in the inbox. ``name`` is relative to the inbox folder."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    name: str
    sha256: str
    size_bytes: int
    has_pixels: bool
    calling_ae: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class BrokenObject:
    """Bytes that came by C-STORE but are not a usable object; they are kept for a person to look at."""

    sop_instance_uid: str  # as the command named it; empty if that was not a UID
    name: str
    sha256: str
    code: ReasonCode
    detail: str
    calling_ae: str
    received_at: datetime


class Recorded(StrEnum):
    """What the record of received objects says of a new one."""

    NEW = "new"
    KNOWN = "known"  # the same bytes came before
    CONFLICT = "conflict"  # the same SOP Instance UID came before with other bytes; both are kept


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where the receiver writes down what it holds. Both calls return only when the entry is durable."""

    record: Callable[[ReceivedInstance], Recorded]
    record_broken: Callable[[BrokenObject], None]


class Receiver:
    """An open storage SCP. Use :func:`open_receiver`."""

    def __init__(self, ae: AE, servers: list[Any], denials: DenialLog) -> None:
        self._ae = ae
        self._servers = servers
        self._denials = denials

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._servers[0].server_address[1])

    def close(self, drain_s: float = 10.0) -> None:
        """Stop accepting, let associations finish for ``drain_s`` seconds, abort the rest."""
        # AE.shutdown() would abort at once; objects in flight deserve a moment.
        for server in self._servers:
            server.socket.settimeout(0.1)
        waiting = threading.Event()
        deadline_steps = int(drain_s / 0.1)
        for _ in range(deadline_steps):
            if not any(server.active_associations for server in self._servers):
                break
            waiting.wait(0.1)
        self._ae.shutdown()
        self._denials.flush()


def open_receiver(
    settings: Settings,
    inbox: Inbox,
    ledger: Ledger,
    commitments: CommitmentDesk | None = None,
    *,
    on_refused: Callable[[str, str, str], None] = lambda calling_ae, address, why: None,
) -> Receiver:
    """Listen on the settings' address; associations are served in threads until :meth:`Receiver.close`.

    Calls that :func:`dicom_io.access.admit` does not let in, and beyond ``max_associations``, are rejected;
    ``on_refused`` is told who called, from where, and why it was refused.

    Raises:
        OSError: the address cannot be bound.
        SettingsError: the files of ``tls`` cannot be used, or a peer's SOP class is unknown.
    """
    admit, denials = admission_by(settings), DenialLog(on_refused)
    ae = AE(ae_title=settings.ae_title)
    ae.supported_contexts = list(accepted_contexts())
    ae.maximum_associations = settings.max_associations
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.network_timeout = NETWORK_TIMEOUT_S
    ae.acse_timeout = ACSE_TIMEOUT_S
    ae.dimse_timeout = DIMSE_TIMEOUT_S
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, _tune_socket),
        (evt.EVT_REQUESTED, _check_call, [admit, denials]),
        (evt.EVT_REJECTED, _note_rejection, [denials]),
        (evt.EVT_C_ECHO, lambda event: 0x0000),
        (evt.EVT_C_STORE, answer_store, [inbox, ledger]),
    ]
    if commitments is not None:
        ae.supported_contexts = [*ae.supported_contexts, commitment_context()]
        handlers.append((evt.EVT_N_ACTION, answer_commitment_request, [commitments]))
    context = None if settings.tls is None else _Handshakes(open_server_context(settings.tls), denials)
    servers = [ae.start_server((settings.bind, settings.port), block=False, evt_handlers=handlers)]
    if settings.tls is not None:
        address = (settings.bind, settings.tls.port)
        try:
            servers.append(ae.start_server(address, block=False, evt_handlers=handlers, ssl_context=context))
        except OSError:
            ae.shutdown()
            raise
    return Receiver(ae, servers, denials)


class _Handshakes:
    """Stands where pynetdicom looks for a context: each handshake is made by the files as they are then."""

    def __init__(self, context: RenewedContext, denials: DenialLog) -> None:
        self._context, self._denials = context, denials

    def wrap_socket(self, connection: socket.socket, *, server_side: bool) -> ssl.SSLSocket:
        """One handshake; a peer that stays silent in it is dropped, for it is made while others wait."""
        address = str(connection.getpeername()[0])
        connection.settimeout(HANDSHAKE_TIMEOUT_S)
        try:
            return self._context.current().wrap_socket(connection, server_side=server_side)
        except OSError as error:
            self._denials.note("", address, f"TLS: {why_no_handshake(error)}")
            raise


def _tune_socket(event: evt.Event) -> None:
    """No delayed answers, and no thread that waits for ever inside one PDU."""
    wrapped = event.assoc.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped.socket.settimeout(SOCKET_TIMEOUT_S)


def _check_call(event: evt.Event, admit: Callable[[Call], Admission], denials: DenialLog) -> None:
    """Reject a call that is not let in (PS3.8 9.3.4), and offer others only what they may send."""
    association = event.assoc
    request = association.requestor.primitive  # requestor.ae_title is not set yet
    connection = association.dul.socket.socket
    by_tls = isinstance(connection, ssl.SSLSocket)
    call = Call(
        request.calling_ae_title.strip(),
        request.called_ae_title.strip(),
        association.requestor.address,
        peer_certificate(connection) if by_tls else None,
        by_tls,
    )
    try:
        admission = admit(call)
    except Refused as refusal:
        denials.note(call.calling_ae, call.address, refusal.why)
        association.acse.send_reject(refusal.result, refusal.source, refusal.reason)
        association.kill()
        return
    offered = association.acceptor.supported_contexts
    association.acceptor.supported_contexts = [one for one in offered if admission.permits(str(one.abstract_syntax))]


def _note_rejection(event: evt.Event, denials: DenialLog) -> None:
    calling = event.assoc.requestor.primitive.calling_ae_title.strip()
    denials.note(calling, event.assoc.requestor.address, "too many associations")


def answer_store(event: evt.Event, inbox: Inbox, ledger: Ledger, sender: str | None = None) -> int | Dataset:
    """Answer one C-STORE request. Whatever happens here, the association lives on.

    Args:
        event: the request.
        inbox: where the object goes.
        ledger: where it is written down.
        sender: whose object it is; None: the AE title that opened the association.
    """
    calling = sender or event.assoc.requestor.ae_title.strip()
    try:
        return take_object(
            event.encoded_dataset(include_meta=False),
            encode_file_meta(event.file_meta),
            ObjectName(
                str(event.request.AffectedSOPClassUID),
                str(event.request.AffectedSOPInstanceUID),
                str(event.context.transfer_syntax),
            ),
            calling,
            inbox,
            ledger,
        )
    except OSError as error:
        _log.error("not stored", extra={"calling_ae": calling, "error": type(error).__name__, "errno": error.errno})
        return _answer(StoreStatus.OUT_OF_RESOURCES, "cannot store now")
    except Exception as error:  # noqa: BLE001 - the one broad except of the receive path: the sender must get an answer
        _log.error(
            "not stored: internal error", extra={"calling_ae": calling, "error": type(error).__name__}, exc_info=True
        )
        return _answer(StoreStatus.PROCESSING_FAILURE, "internal error, not stored")


@dataclass(frozen=True, slots=True)
class ObjectName:
    """What an object is said to be by whoever hands it over."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str


def take_object(
    data: bytes, meta: bytes, name: ObjectName, calling: str, inbox: Inbox, ledger: Ledger
) -> int | Dataset:
    """The one way into the node: store an object durably, check that it is whole and what it is said to be, record it.

    Args:
        data: the encoded data set.
        meta: the encoded file meta information.
        name: what it is said to be.
        calling: AE title of who hands it over.
        inbox: where the object goes.
        ledger: where it is written down.

    Returns:
        The status of a C-STORE response: a number, or with an Error Comment.

    Raises:
        OSError: it cannot be stored or recorded now.
    """
    stored = inbox.store((b"\x00" * 128 + b"DICM", meta, data))
    try:
        identity = identify(data, name.transfer_syntax)
        _check_identity(identity, name.sop_class_uid, name.sop_instance_uid)
    except (BrokenDataSet, UnsuitableInput) as fault:
        mismatch = isinstance(fault, UnsuitableInput)
        detail = fault.reason.detail if isinstance(fault, UnsuitableInput) else str(fault)
        uid = name.sop_instance_uid if is_uid(name.sop_instance_uid) else ""
        ledger.record_broken(
            BrokenObject(uid, stored.name, stored.sha256, ReasonCode.UNREADABLE, detail, calling, datetime.now(UTC))
        )
        _log.warning(
            "quarantined",
            extra={"code": ReasonCode.UNREADABLE, "detail": detail, "sop_uid": uid, "calling_ae": calling},
        )
        return _answer(StoreStatus.DATA_SET_DOES_NOT_MATCH if mismatch else StoreStatus.CANNOT_UNDERSTAND, detail)
    outcome = ledger.record(_received(identity, stored, name.transfer_syntax, calling))
    _log.info(
        "stored",
        extra={
            "sop_uid": name.sop_instance_uid,
            "study_uid": identity.study_uid,
            "calling_ae": calling,
            "outcome": outcome,
        },
    )
    if outcome is Recorded.CONFLICT:
        return _answer(StoreStatus.KEPT_WITH_WARNING, "UID known with other content")
    return int(StoreStatus.SUCCESS)


def _received(identity: ObjectIdentity, stored: StoredFile, syntax: str, calling: str) -> ReceivedInstance:
    return ReceivedInstance(
        sop_class_uid=identity.sop_class_uid,
        sop_instance_uid=identity.sop_instance_uid,
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        transfer_syntax=syntax,
        name=stored.name,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        has_pixels=identity.has_pixels,
        calling_ae=calling,
        received_at=datetime.now(UTC),
    )


def _check_identity(identity: ObjectIdentity, sop_class: str, sop_instance: str) -> None:
    """The data set must be the object that the command announced, and its UIDs must be UIDs.

    Raises:
        BrokenDataSet: a UID is missing or malformed.
        UnsuitableInput: the command names another object (PS3.4 B.2.3: A900).
    """
    named = (
        ("SOP Class UID", identity.sop_class_uid),
        ("SOP Instance UID", identity.sop_instance_uid),
        ("Study Instance UID", identity.study_uid),
        ("Series Instance UID", identity.series_uid),
    )
    for name, uid in named:
        if not is_uid(uid):
            raise BrokenDataSet(f"{name} is missing or not a UID")
    if (identity.sop_class_uid, identity.sop_instance_uid) != (sop_class, sop_instance):
        raise UnsuitableInput(ReasonCode.UNREADABLE, "command and data set name different objects")


def _answer(status: StoreStatus, comment: str) -> Dataset:
    """A status with an Error Comment, at most 64 characters (PS3.7 C)."""
    answer = Dataset()
    answer.Status = int(status)
    answer.ErrorComment = comment[:64]
    return answer
