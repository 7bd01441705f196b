"""The one way of an object into the node: streamed to disk, hashed and walked as it comes, judged, kept, recorded."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.dataset import Dataset
from pynetdicom import evt

from dicom_io.element_walk import BrokenDataSet, ElementWalk, ObjectIdentity, is_uid
from dicom_io.file_meta import file_head
from dicom_io.inbox import Inbox, IncomingFile
from dicom_io.presentation import StoreStatus
from dicom_io.received import BrokenObject, Ledger, ReceivedInstance, Recorded
from dicom_io.spool import spool_name
from processing.refusal import ReasonCode

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectName:
    """What an object is said to be by whoever hands it over."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A C-STORE status with an Error Comment (at most 64 characters, PS3.7 C)."""

    status: int
    comment: str = ""


class _NotAsAnnounced(Exception):
    """The command names another object (PS3.4 B.2.3: A900)."""


class IncomingObject:
    """One object on its way in. Feed it the data set in pieces, then finish or abandon it.

    Nothing of it raises: what goes wrong is told by :meth:`finish`, after the last piece, as the protocol has it.

    Args:
        name: what it is said to be.
        calling: AE title of who hands it over.
        inbox: where it goes.
        ledger: where it is written down.
        head: what stands in its file before the data set; empty: as for every received object.
    """

    def __init__(self, name: ObjectName, calling: str, inbox: Inbox, ledger: Ledger, head: bytes = b"") -> None:
        self._name = name
        self._head = head or file_head(name.sop_class_uid, name.sop_instance_uid, name.transfer_syntax)
        self._calling = calling
        self._inbox = inbox
        self._ledger = ledger
        self._file: IncomingFile | None = None
        self._walk: ElementWalk | None = ElementWalk(name.transfer_syntax)
        self._fault: BrokenDataSet | None = None
        self._kept: tuple[ReceivedInstance, Recorded] | None = None
        self._answer: Answer | None = None  # it is decided already; nothing more is kept
        self.size_bytes = 0
        self._guard(self._begin)

    def refuse(self, answer: Answer) -> None:
        """Keep nothing of it, whatever comes."""
        self.abandon()
        self._answer = answer

    def take(self, piece: bytes | memoryview) -> None:
        """The next piece of the data set."""
        self.size_bytes += len(piece)
        if self._answer is None:
            self._guard(lambda: self._write(piece))

    def finish(self) -> Answer:
        """The data set has ended: the answer, after which the object is durable and recorded, or nothing of it is."""
        if self._answer is None:
            self._guard(self._keep)
        assert self._answer is not None
        return self._answer

    def settle(self) -> None:
        """What can wait until the sender has its answer."""
        if self._kept is None:
            return
        received, outcome = self._kept
        self._ledger.answered(received)
        _log.info(
            "stored",
            extra={
                "sop_uid": received.sop_instance_uid,
                "study_uid": received.study_uid,
                "calling_ae": self._calling,
                "outcome": outcome,
            },
        )

    def abandon(self) -> None:
        """It will not be finished: nothing of it stays."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _guard(self, step: Callable[[], None]) -> None:
        """Whatever happens in a step, the sender must get an answer, and nothing half-done may stay."""
        try:
            step()
        except OSError as error:
            self.refuse(Answer(StoreStatus.OUT_OF_RESOURCES, "cannot store now"))
            extra = {"calling_ae": self._calling, "error": type(error).__name__, "errno": error.errno}
            _log.error("not stored", extra=extra)
        except Exception as error:  # noqa: BLE001 - the one broad except of the receive path
            self.refuse(Answer(StoreStatus.PROCESSING_FAILURE, "internal error, not stored"))
            extra = {"calling_ae": self._calling, "error": type(error).__name__}
            _log.error("not stored: internal error", extra=extra, exc_info=True)

    def _begin(self) -> None:
        self._file = self._inbox.begin()
        self._file.write(self._head)

    def _write(self, piece: bytes | memoryview) -> None:
        assert self._file is not None
        self._file.write(piece)
        if self._walk is not None:
            try:
                self._walk.feed(piece)
            except BrokenDataSet as fault:
                self._fault, self._walk = fault, None

    def _keep(self) -> None:
        if self.size_bytes == 0:
            self.refuse(Answer(StoreStatus.DATA_SET_DOES_NOT_MATCH, "the data set is empty"))
            return
        try:
            identity = self._judge()
        except (BrokenDataSet, _NotAsAnnounced) as fault:
            self._quarantine(fault)
            return
        received = self._store(identity)
        outcome = self._ledger.record(received)
        self._kept = received, outcome
        is_conflict = outcome is Recorded.CONFLICT
        self._answer = (
            Answer(StoreStatus.KEPT_WITH_WARNING, "UID known with other content")
            if is_conflict
            else Answer(StoreStatus.SUCCESS)
        )

    def _judge(self) -> ObjectIdentity:
        """The data set must be whole and the object that the command announced, and its UIDs must be UIDs.

        Raises:
            BrokenDataSet: it is not whole, or a UID is missing or malformed.
            _NotAsAnnounced: it is another object.
        """
        if self._walk is None:
            assert self._fault is not None
            raise self._fault
        identity = self._walk.finish()
        named = (
            ("SOP Class UID", identity.sop_class_uid),
            ("SOP Instance UID", identity.sop_instance_uid),
            ("Study Instance UID", identity.study_uid),
            ("Series Instance UID", identity.series_uid),
        )
        for what, uid in named:
            if not is_uid(uid):
                raise BrokenDataSet(f"{what} is missing or not a UID")
        if (identity.sop_class_uid, identity.sop_instance_uid) != (
            self._name.sop_class_uid,
            self._name.sop_instance_uid,
        ):
            raise _NotAsAnnounced("command and data set name different objects")
        return identity

    def _store(self, identity: ObjectIdentity) -> ReceivedInstance:
        assert self._file is not None
        now = datetime.now(UTC)
        if self._ledger.is_spooled:
            name = spool_name(identity.sop_instance_uid, self._file.sha256, self._calling, now)
            stored = self._inbox.put_in_spool(self._file, name)
        else:
            stored = self._inbox.place(self._file)
        return ReceivedInstance.of(identity, stored, self._name.transfer_syntax, self._calling, now)

    def _quarantine(self, fault: BrokenDataSet | _NotAsAnnounced) -> None:
        """Keep the bytes for a person to look at."""
        assert self._file is not None
        stored = self._inbox.place(self._file)
        detail = str(fault)
        uid = self._name.sop_instance_uid if is_uid(self._name.sop_instance_uid) else ""
        self._ledger.record_broken(
            BrokenObject(
                uid, stored.name, stored.sha256, ReasonCode.UNREADABLE, detail, self._calling, datetime.now(UTC)
            )
        )
        _log.warning(
            "quarantined",
            extra={"code": ReasonCode.UNREADABLE, "detail": detail, "sop_uid": uid, "calling_ae": self._calling},
        )
        is_other = isinstance(fault, _NotAsAnnounced)
        status = StoreStatus.DATA_SET_DOES_NOT_MATCH if is_other else StoreStatus.CANNOT_UNDERSTAND
        self._answer = Answer(status, detail)


def take_object(
    data: bytes, name: ObjectName, calling: str, inbox: Inbox, ledger: Ledger, *, head: bytes = b""
) -> Answer:
    """Take an object that has come whole.

    Args:
        data: the encoded data set.
        name: what it is said to be.
        calling: AE title of who hands it over.
        inbox: where the object goes.
        ledger: where it is written down.
        head: what stands in its file before the data set; empty: as for every received object.
    """
    incoming = IncomingObject(name, calling, inbox, ledger, head)
    incoming.take(data)
    answer = incoming.finish()
    incoming.settle()
    return answer


def answer_store(event: evt.Event, inbox: Inbox, ledger: Ledger, sender: str) -> Dataset:
    """Answer a C-STORE request that comes by pynetdicom, as with C-GET. Whatever happens, the association lives on.

    Args:
        event: the request.
        inbox: where the object goes.
        ledger: where it is written down.
        sender: AE title of whose object it is.
    """
    name = ObjectName(
        str(event.request.AffectedSOPClassUID),
        str(event.request.AffectedSOPInstanceUID),
        str(event.context.transfer_syntax),
    )
    answer = take_object(event.encoded_dataset(include_meta=False), name, sender, inbox, ledger)
    response = Dataset()
    response.Status = int(answer.status)
    if answer.comment:
        response.ErrorComment = answer.comment[:64]
    return response
