"""The spool: objects that are received, durable and acknowledged, and not yet recorded.

Everything that the record needs is in a file's name and content, so that nothing else must be durable before Success.
The name is made here of digests and numbers, never of text from the network: which object, what bytes, from whom, when.
"""

import hashlib
import os
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicom_io.element_walk import BrokenDataSet, ElementWalk, is_uid
from dicom_io.file_meta import FILE_HEAD, transfer_syntax_of
from dicom_io.inbox import Inbox, StoredFile
from dicom_io.received import ReceivedInstance

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{64})-([0-9a-f]{14})-([0-9a-f]{8})-((?:[0-9a-f]{2}){0,16})\.dcm")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Spooled:
    """What the name of a spooled file tells. ``name`` is relative to the inbox folder."""

    name: str
    sha256: str
    calling_ae: str
    received_at: datetime


def spool_name(sop_uid: str, sha256: str, calling_ae: str, received_at: datetime) -> str:
    """A new name, relative to the inbox folder."""
    key = _key(sop_uid)
    microseconds = (received_at - _EPOCH) // timedelta(microseconds=1)
    sender = calling_ae.encode("ascii", "replace")[:16].hex()
    return f"spool/{key[0]}/{key}-{sha256}-{microseconds:014x}-{uuid.uuid4().hex[:8]}-{sender}.dcm"


def of_object(inbox: Inbox, sop_uid: str) -> list[Spooled]:
    """What lies in the spool of one SOP Instance UID, in any order."""
    key = _key(sop_uid)
    return list(_in(inbox, key[0], key))


def list_spool(inbox: Inbox) -> list[Spooled]:
    """All that lies in the spool, as it came."""
    found = [one for number in range(16) for one in _in(inbox, f"{number:x}")]
    return sorted(found, key=lambda one: one.received_at)


def read_spooled(inbox: Inbox, spooled: Spooled) -> ReceivedInstance | None:
    """The whole record of a spooled object, from its file; None if the file is not the whole of what was received.

    That is one which a power cut tore before it was acknowledged.

    Raises:
        BrokenDataSet: it is whole, and not what this program takes for a data set; another one acknowledged it.
        OSError: it cannot be read.
    """
    path = inbox.path(spooled.name)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        head = stream.read(FILE_HEAD + 12)
        if len(head) < FILE_HEAD + 12 or head[128:FILE_HEAD] != b"DICM":
            return None
        head += stream.read(int(struct.unpack_from("<I", head, FILE_HEAD + 8)[0]))
        digest.update(head)
        syntax = transfer_syntax_of(head)
        walk = ElementWalk(syntax)
        size_bytes = len(head)
        fault: BrokenDataSet | None = None
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            size_bytes += len(piece)
            try:
                if fault is None:
                    walk.feed(piece)
            except BrokenDataSet as found:
                fault = found
    if digest.hexdigest() != spooled.sha256:
        return None
    if fault is not None:
        raise fault
    identity = walk.finish()
    if not is_uid(identity.sop_instance_uid):
        raise BrokenDataSet("SOP Instance UID is missing or not a UID")
    file = StoredFile(spooled.name, spooled.sha256, size_bytes, is_new=False)
    return ReceivedInstance.of(identity, file, syntax, spooled.calling_ae, spooled.received_at)


def _in(inbox: Inbox, folder: str, key: str = "") -> Iterator[Spooled]:
    for name in os.listdir(inbox.spool / folder):
        found = _NAME.fullmatch(name) if name.startswith(key) else None
        if found is not None:
            _, sha256, microseconds, _, sender = found.groups()
            received_at = _EPOCH + timedelta(microseconds=int(microseconds, 16))
            sender_ae = bytes.fromhex(sender).decode("ascii", "replace")
            yield Spooled(f"spool/{folder}/{name}", sha256, sender_ae, received_at)


def _key(sop_uid: str) -> str:
    return hashlib.sha256(sop_uid.encode("latin-1", "replace")).hexdigest()[:16]
