"""What the receive path hands on: an object that is durably here, or bytes that are none."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_io.element_walk import ObjectIdentity
from dicom_io.inbox import StoredFile
from processing.refusal import ReasonCode


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

    @classmethod
    def of(
        cls, identity: ObjectIdentity, file: StoredFile, transfer_syntax: str, calling_ae: str, received_at: datetime
    ) -> "ReceivedInstance":
        """The record of an object that was walked over, and of its file."""
        return cls(
            sop_class_uid=identity.sop_class_uid,
            sop_instance_uid=identity.sop_instance_uid,
            study_uid=identity.study_uid,
            series_uid=identity.series_uid,
            transfer_syntax=transfer_syntax,
            name=file.name,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            has_pixels=identity.has_pixels,
            calling_ae=calling_ae,
            received_at=received_at,
        )


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
    """Where the receiver writes down what it holds. Both calls return only when the entry is durable.

    ``is_spooled``: an object is to lie in the spool when it is recorded; the entry is durable because that is.
    ``answered``: called after the sender has been answered.
    """

    record: Callable[[ReceivedInstance], Recorded]
    record_broken: Callable[[BrokenObject], None]
    is_spooled: bool = False
    answered: Callable[[ReceivedInstance], None] = lambda received: None
