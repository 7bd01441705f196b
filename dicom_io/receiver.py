"""The storage SCP: C-ECHO, C-STORE answered with Success only once the object is durable and recorded, commitment."""

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dsutils import encode_file_meta

from config.settings import Peer, Settings
from dicom_io.commitment import CommitmentDesk, answer_commitment_request, commitment_context
from dicom_io.commitment_scu import TakeResult, answer_report, report_context
from dicom_io.element_walk import BrokenDataSet, ObjectIdentity, identify, is_uid
from dicom_io.inbox import Inbox, StoredFile
from dicom_io.presentation import StoreStatus, accepted_contexts
from processing.refusal import ReasonCode, UnsuitableInput

_log = logging.getLogger(__name__)

MAX_PDU_BYTES = 131_072
NETWORK_TIMEOUT_S = 60.0  # an association on which nothing arrives is dropped
SOCKET_TIMEOUT_S = 20.0  # a peer that falls silent in the middle of a PDU is dropped
ACSE_TIMEOUT_S = 30.0
DIMSE_TIMEOUT_S = 60.0

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

    def __init__(self, ae: AE, server: Any) -> None:
        self._ae = ae
        self._server = server

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._server.server_address[1])

    def close(self, drain_s: float = 10.0) -> None:
        """Stop accepting, let associations finish for ``drain_s`` seconds, abort the rest."""
        # AE.shutdown() would abort at once; objects in flight deserve a moment.
        self._server.socket.settimeout(0.1)
        waiting = threading.Event()
        deadline_steps = int(drain_s / 0.1)
        for _ in range(deadline_steps):
            if not self._server.active_associations:
                break
            waiting.wait(0.1)
        self._ae.shutdown()


def open_receiver(
    settings: Settings,
    inbox: Inbox,
    ledger: Ledger,
    commitments: CommitmentDesk | None = None,
    results: TakeResult | None = None,
) -> Receiver:
    """Listen on the settings' address; associations are served in threads until :meth:`Receiver.close`.

    Calls to another AE title than ours, from AE titles that are not among the peers and sources, and beyond
    ``max_associations`` are rejected.

    Raises:
        OSError: the address cannot be bound.
    """
    peers = settings.peers and (
        *settings.peers,
        *(Peer(ae_title=one.ae_title, host=one.host) for one in settings.sources),
        *(
            Peer(ae_title=one.reports_as or one.ae_title, host=one.host)
            for one in settings.destinations
            if one.ae_title is not None
        ),
    )
    ae = AE(ae_title=settings.ae_title)
    ae.supported_contexts = list(accepted_contexts())
    ae.require_called_aet = True
    ae.require_calling_aet = sorted({peer.ae_title for peer in peers})
    ae.maximum_associations = settings.max_associations
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.network_timeout = NETWORK_TIMEOUT_S
    ae.acse_timeout = ACSE_TIMEOUT_S
    ae.dimse_timeout = DIMSE_TIMEOUT_S
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, _tune_socket),
        (evt.EVT_REQUESTED, _check_address, [peers]),
        (evt.EVT_REJECTED, _note_rejection, [settings]),
        (evt.EVT_C_ECHO, lambda event: 0x0000),
        (evt.EVT_C_STORE, answer_store, [inbox, ledger]),
    ]
    if commitments is not None:
        ae.supported_contexts = [*ae.supported_contexts, commitment_context() if results is None else report_context()]
        handlers.append((evt.EVT_N_ACTION, answer_commitment_request, [commitments]))
        if results is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, answer_report, [results]))
    server = ae.start_server((settings.bind, settings.port), block=False, evt_handlers=handlers)
    return Receiver(ae, server)


def _tune_socket(event: evt.Event) -> None:
    """No delayed answers, and no thread that waits for ever inside one PDU."""
    wrapped = event.assoc.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped.socket.settimeout(SOCKET_TIMEOUT_S)


def _check_address(event: evt.Event, peers: tuple[Peer, ...]) -> None:
    """Reject a configured AE title that calls from another host than the configured one (PS3.8 9.3.4)."""
    calling = event.assoc.requestor.primitive.calling_ae_title.strip()  # requestor.ae_title is not set yet
    hosts = [peer.host for peer in peers if peer.ae_title == calling]
    if not hosts or None in hosts:
        return  # an unknown title is rejected by require_calling_aet
    address = event.assoc.requestor.address
    if not any(address in _addresses(host) for host in hosts if host is not None):
        _log.warning("association rejected: wrong host", extra={"calling_ae": calling, "address": address})
        event.assoc.acse.send_reject(0x01, 0x01, 0x03)
        event.assoc.kill()


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _note_rejection(event: evt.Event, settings: Settings) -> None:
    calling = event.assoc.requestor.primitive.calling_ae_title.strip()
    address = event.assoc.requestor.address
    if calling == settings.ae_title and address in ("127.0.0.1", "::1", settings.bind):
        return  # the node's own question whether its receiver lives; a rejection is an answer
    _log.warning("association rejected", extra={"calling_ae": calling, "address": address})


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
