"""The storage SCU: sends files to a destination, byte for byte, and says what the peer answered to each."""

import socket
import ssl
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config, build_context, evt
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification

from config.sections import SettingsError
from config.tls import ClientTLS
from dicom_io.presentation import describe, is_stored, proposed_contexts
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.tls import open_client_context

MAX_PDU_BYTES = 131_072
UNREADABLE = "its file cannot be read"

_config.LOG_HANDLER_LEVEL = "none"
# Files go out as they lie on disk, in pieces: nothing is decoded, and memory does not grow with the object.
_config.STORE_SEND_CHUNKED_DATASET = True

_open_associations: set[Any] = set()  # to end them when the process is to end


class PeerUnavailable(Exception):
    """The destination cannot be talked to now; try again later."""


class AssociationRejected(PeerUnavailable):
    """The destination answers, but refuses the association (for instance an unknown AE title)."""


class NotOffered(PeerUnavailable):
    """The destination answers, but has no such service."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A storage SCP, and as whom we call it. ``timeout_s``: for connecting, and for each answer; ``tls``: if by TLS."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout_s: float = 30.0
    tls: ClientTLS | None = None


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of one file. ``status`` is None if the peer gave no answer; ``tried``: it was offered to the peer."""

    path: Path
    stored: bool
    status: int | None
    detail: str
    tried: bool = True
    is_loss: bool = False  # no answer came, and the connection is gone


def send_files(paths: Sequence[Path], peer: Peer) -> tuple[SendOutcome, ...]:
    """Send files over one association; one outcome for each. Errors as in :func:`send_each`."""
    return tuple(send_each(paths, peer))


def send_each(paths: Sequence[Path], peer: Peer) -> Generator[SendOutcome, None, None]:
    """Send files over one association; yields each outcome as the peer answers.

    A file that the peer refuses, or that cannot be read, does not stop the others. When the association breaks, the
    remaining files get an outcome that says that they were not tried.

    Raises:
        PeerUnavailable: no association could be opened (nothing was sent).
    """
    kinds: dict[Path, tuple[str, str]] = {}
    for path in paths:
        kind = _kind_of(path)
        if kind is None:
            yield SendOutcome(path, False, None, UNREADABLE)
        else:
            kinds[path] = kind
    if not kinds:
        return
    with associate(proposed_contexts(kinds.values()), peer) as association:
        accepted = {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in association.accepted_contexts}
        for number, path in enumerate(kinds):
            if not association.is_established:
                yield SendOutcome(path, False, None, "association lost", tried=False)
            elif kinds[path] not in accepted:
                yield SendOutcome(path, False, None, "the peer does not accept this SOP class in this transfer syntax")
            else:
                yield _send(association, path, message_id=number % 65_535 + 1)


def _send(association: Any, path: Path, *, message_id: int) -> SendOutcome:
    try:
        answer = association.send_c_store(path, msg_id=message_id)
    except RuntimeError:  # it has ended since it was last looked at
        return SendOutcome(path, False, None, "association lost", tried=False)
    except OSError:  # the peer may have a part of it
        association.abort()
        return SendOutcome(path, False, None, UNREADABLE, is_loss=True)
    if "Status" not in answer:
        return SendOutcome(path, False, None, "no answer", is_loss=True)
    status = int(answer.Status)
    return SendOutcome(path, is_stored(status), status, describe(status))


def echo(peer: Peer) -> None:
    """Ask a peer for life (C-ECHO).

    Raises:
        AssociationRejected: it answers, but does not accept our call.
        PeerUnavailable: it cannot be reached or does not answer Success.
    """
    with associate((build_context(Verification),), peer) as association:
        answer = association.send_c_echo()
        if "Status" not in answer or answer.Status != 0:
            raise PeerUnavailable("no answer to C-ECHO")


@contextmanager
def associate(
    contexts: Sequence[Any], peer: Peer, *, handlers: Sequence[Any] = (), roles: Sequence[Any] = ()
) -> Iterator[Any]:
    """An open association, released when the block ends. ``roles``: SCP/SCU role selections (PS3.7 D.3.3.4).

    Raises:
        PeerUnavailable: it cannot be opened; :class:`AssociationRejected` where the peer says so.
    """
    ae = AE(ae_title=peer.calling_ae_title)
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = peer.timeout_s
    try:
        address = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise PeerUnavailable("the host name cannot be resolved") from error
    association = ae.associate(
        str(address),
        peer.port,
        contexts=list(contexts),
        ae_title=peer.called_ae_title,
        max_pdu=MAX_PDU_BYTES,
        ext_neg=list(roles),
        tls_args=_tls_arguments(peer),
        evt_handlers=[(evt.EVT_CONN_OPEN, _tune_socket), *handlers],
    )
    if association.is_rejected:
        raise AssociationRejected("the peer rejects the association")
    if not association.is_established:
        if association.rejected_contexts and not association.accepted_contexts:
            raise NotOffered("the peer accepts nothing of what it was offered")
        raise PeerUnavailable("no association")
    _leave_answers(association)
    _open_associations.add(association)
    try:
        yield association
    finally:
        _open_associations.discard(association)
        if association.is_established:
            association.release()


def need_offer(association: Any, sop_class: str, name: str) -> None:
    """Pass if the peer has accepted a SOP class.

    Raises:
        NotOffered: it has not.
    """
    if not any(str(one.abstract_syntax) == str(sop_class) for one in association.accepted_contexts):
        raise NotOffered(f"the peer does not offer {name}")


def _tls_arguments(peer: Peer) -> tuple[ssl.SSLContext, str] | None:
    if peer.tls is None:
        return None
    try:
        return open_client_context(peer.tls).current(), peer.tls.server_name or peer.host
    except SettingsError as error:
        raise PeerUnavailable(str(error)) from error


def abort_associations() -> None:
    """Abort what :func:`associate` has open in any thread of this process, so that none waits for a peer's answer."""
    for association in list(_open_associations):
        if association.is_established:
            association.abort(block=False)
            association.dimse.msg_queue.put((None, None))  # who waits for an answer is told that none will come


def _leave_answers(association: Any) -> None:
    """Keep pynetdicom's reactor from taking the answer that a request of ours waits for.

    Its loop may pass its own checkpoint in the moment in which a request is sent. It then takes the answer off the
    queue as an unexpected request and drops it, and the request waits in vain until its timeout and aborts.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        if not block:  # only the reactor asks so
            _, message = association.dimse.peek_msg()
            if message is None or not message.is_valid_request:
                return None, None  # nothing, an answer, or the mark that wakes a waiting request after an abort
        return take(block=block)

    association.dimse.get_msg = get_msg


def _tune_socket(event: evt.Event) -> None:
    wrapped = event.assoc.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _kind_of(path: Path) -> tuple[str, str] | None:
    """SOP class and transfer syntax of a DICOM file, from its file meta information; None where it cannot be read."""
    meta = file_meta_of(path)
    return None if meta is None else (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))


def file_meta_of(path: Path) -> Any | None:
    """The file meta information of a DICOM file; None where it cannot be read, or names no object."""
    try:
        with quiet_pydicom():
            meta, _ = split_dataset(path)
            uids = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID
    except PARSE_FAULTS:
        return None
    return meta if all(uids) else None
