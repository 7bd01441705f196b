"""Storage commitment (PS3.4 J): takes a sender's list of what it has sent, and reports which of it is kept here."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicom_io.element_walk import is_uid
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.sender import Peer, PeerUnavailable, associate

_REQUEST_COMMITMENT = 1  # action type
_ALL_KEPT, _SOME_FAILED = 1, 2  # event types
_SUCCESS, _NO_SUCH_INSTANCE, _NO_SUCH_ACTION, _INVALID_ARGUMENT = 0x0000, 0x0112, 0x0123, 0x0115
_MOST_OBJECTS = 100_000


class FailureReason(IntEnum):
    """Why an object is not committed (PS3.3 C.14.1.1)."""

    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


@dataclass(frozen=True, slots=True)
class ListedObject:
    """What a request says of one object."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """A list of objects that the sender wants to be kept."""

    transaction_uid: str
    calling_ae: str
    objects: tuple[ListedObject, ...]
    received_at: datetime


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """Which objects of a request are kept here, and which are not."""

    transaction_uid: str
    kept: tuple[ListedObject, ...]
    failed: tuple[tuple[ListedObject, FailureReason], ...]


@dataclass(frozen=True, slots=True)
class CommitmentDesk:
    """What the receiver does with a request. ``note`` returns only when the request is durably recorded.

    ``report``: the report to send over the sender's own association; None when it is not to be sent there (now).
    ``reported``: the sender has taken it.
    """

    note: Callable[[CommitmentRequest], None]
    report: Callable[[CommitmentRequest], CommitmentReport | None]
    reported: Callable[[CommitmentRequest], None]


def commitment_context() -> PresentationContext:
    """The presentation context of the Push Model SOP class."""
    return build_context(StorageCommitmentPushModel)


def judge_request(
    action_type: int, sop_instance_uid: str, information: Dataset | None, calling_ae: str
) -> tuple[int, CommitmentRequest | None]:
    """The status that an N-ACTION request deserves, and what it asks for if that is Success.

    Args:
        action_type: of the request.
        sop_instance_uid: of the request.
        information: its data set; None if it cannot be read.
        calling_ae: who asks.
    """
    if action_type != _REQUEST_COMMITMENT:
        return _NO_SUCH_ACTION, None
    if sop_instance_uid != str(StorageCommitmentPushModelInstance):
        return _NO_SUCH_INSTANCE, None
    request = None if information is None else _request_of(information, calling_ae)
    return (_INVALID_ARGUMENT, None) if request is None else (_SUCCESS, request)


def _request_of(information: Dataset, calling_ae: str) -> CommitmentRequest | None:
    """The request; None where it names no transaction or no objects, or anything in it is no UID."""
    try:
        with quiet_pydicom():
            transaction_uid = str(information.get("TransactionUID", ""))
            objects = tuple(
                dict.fromkeys(
                    ListedObject(
                        str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", ""))
                    )
                    for item in information.get("ReferencedSOPSequence") or ()
                )
            )
    except PARSE_FAULTS:
        return None
    uids = [transaction_uid, *(uid for one in objects for uid in (one.sop_class_uid, one.sop_instance_uid))]
    if not objects or len(objects) > _MOST_OBJECTS or not all(is_uid(uid) for uid in uids):
        return None
    return CommitmentRequest(transaction_uid, calling_ae, objects, datetime.now(UTC))


def send_report(report: CommitmentReport, peer: Peer) -> None:
    """Send a report over an association of our own, in the SCP's role (PS3.4 J.3.3.1.1).

    Raises:
        PeerUnavailable: it could not be sent, or the peer did not take it.
    """
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
    with associate([commitment_context()], peer, roles=roles) as association:
        try:
            answer, _ = association.send_n_event_report(*event_of(report))
        except RuntimeError as error:
            raise PeerUnavailable("the association was lost") from error
        if "Status" not in answer:
            raise PeerUnavailable("no answer to N-EVENT-REPORT")
        if answer.Status != _SUCCESS:
            raise PeerUnavailable(f"the peer answers N-EVENT-REPORT with 0x{answer.Status:04X}")


def event_of(report: CommitmentReport) -> tuple[Dataset, int, str, str]:
    """Event information and type, and the SOP class and instance it is about."""
    information = Dataset()
    information.TransactionUID = report.transaction_uid
    if report.kept:
        information.ReferencedSOPSequence = [_item(one) for one in report.kept]
    if report.failed:
        information.FailedSOPSequence = [_item(one, reason) for one, reason in report.failed]
    event_type = _SOME_FAILED if report.failed else _ALL_KEPT
    return information, event_type, str(StorageCommitmentPushModel), str(StorageCommitmentPushModelInstance)


def _item(one: ListedObject, reason: FailureReason | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    if reason is not None:
        item.FailureReason = int(reason)
    return item
