"""Storage commitment as the one who asks (PS3.4 J.3): the request to a destination, and the result that it sends back.

The result comes over the same association, or over one that the destination opens to our receiver, now or days later.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicom_io.commitment import ListedObject, commitment_context
from dicom_io.element_walk import is_uid
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.sender import Peer, PeerUnavailable, associate, need_offer

_REQUEST_COMMITMENT = 1  # action type
_EVENT_TYPES = (1, 2)  # all kept, some failed
_SUCCESS, _PROCESSING_FAILURE, _NO_SUCH_EVENT, _INVALID_ARGUMENT = 0x0000, 0x0110, 0x0113, 0x0115
_LOOK_S = 0.1
#: Failure reason of an item that gives none that can be read (PS3.3 C.14.1.1: processing failure).
_UNTOLD = 0x0110


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """What a destination says of the objects of a request: SOP Instance UIDs; ``failed`` with the reason's number."""

    transaction_uid: str
    kept: frozenset[str]
    failed: Mapping[str, int]


#: Writes a result down: result and the AE title it came from -> False where we did not ask that AE title for it.
#: Raises OSError where it cannot be written now.
TakeResult = Callable[[CommitmentResult, str], bool]


def new_transaction_uid() -> str:
    """A UID for one request."""
    return str(generate_uid(prefix=None))


def ask_commitment(
    peer: Peer,
    transaction_uid: str,
    objects: Sequence[ListedObject],
    take: TakeResult,
    *,
    wait_s: float,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Ask a destination to commit itself to objects; True if the result came at once, over the same association.

    Args:
        peer: the destination.
        transaction_uid: of the request; where the result comes later, it is known by it.
        objects: what was sent.
        take: what is done with a result.
        wait_s: how long to wait for the result over the same association.
        stopping: whether the wait is to end.

    Raises:
        NotOffered: the peer takes no part in storage commitment.
        PeerUnavailable: it cannot be asked now, or does not take the request.
    """
    came = threading.Event()

    def on_report(event: evt.Event) -> tuple[int, None]:
        status = _take_event(event, peer.called_ae_title, take)
        if status == _SUCCESS:
            came.set()
        return status, None

    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in objects]
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    with associate([commitment_context()], peer, handlers=handlers) as association:
        need_offer(association, StorageCommitmentPushModel, "storage commitment")
        instance = StorageCommitmentPushModelInstance
        try:
            answer, _ = association.send_n_action(
                information, _REQUEST_COMMITMENT, StorageCommitmentPushModel, instance
            )
        except RuntimeError as error:
            raise PeerUnavailable("the association was lost") from error
        if "Status" not in answer:
            raise PeerUnavailable("no answer to N-ACTION")
        if answer.Status != _SUCCESS:
            raise PeerUnavailable(f"the peer answers N-ACTION with 0x{answer.Status:04X}")
        for _ in range(int(wait_s / _LOOK_S)):
            if came.wait(_LOOK_S) or stopping() or not association.is_established:
                break
    return came.is_set()


def _item(one: ListedObject) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    return item


def report_context() -> PresentationContext:
    """The presentation context in which our receiver takes requests and, from a peer in the SCP's role, results."""
    context = build_context(StorageCommitmentPushModel)
    context.scu_role = context.scp_role = True
    return context


def _take_event(event: evt.Event, sender: str, take: TakeResult) -> int:
    try:
        with quiet_pydicom():
            information = event.event_information
    except PARSE_FAULTS:
        return _INVALID_ARGUMENT
    return take_report(int(event.event_type or 0), information, sender, take)


def take_report(event_type: int, information: Dataset, sender: str, take: TakeResult) -> int:
    """Take the content of an N-EVENT-REPORT request from an AE title; returns the status to answer.

    What is named both as kept and as failed has failed.
    """
    if event_type not in _EVENT_TYPES:
        return _NO_SUCH_EVENT
    try:
        with quiet_pydicom():
            transaction_uid = str(information.get("TransactionUID", ""))
            failed = {
                str(item.get("ReferencedSOPInstanceUID", "")): _reason(item)
                for item in information.get("FailedSOPSequence") or ()
            }
            kept = {
                str(item.get("ReferencedSOPInstanceUID", "")) for item in information.get("ReferencedSOPSequence") or ()
            }
    except PARSE_FAULTS:
        return _INVALID_ARGUMENT
    if not is_uid(transaction_uid):
        return _INVALID_ARGUMENT
    result = CommitmentResult(transaction_uid, frozenset(kept - failed.keys()), failed)
    try:
        return _SUCCESS if take(result, sender) else _INVALID_ARGUMENT
    except OSError:
        return _PROCESSING_FAILURE  # the peer may send it again


def _reason(item: Dataset) -> int:
    reason = item.get("FailureReason")
    return reason if isinstance(reason, int) else _UNTOLD
