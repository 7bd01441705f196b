"""Fetches objects by WADO-RS (PS3.18 10.4), one at a time; each goes the way of a received one."""

import http.client
import logging
import ssl
import struct
import urllib.error
import urllib.request
from collections.abc import Collection
from email.message import Message
from pathlib import Path
from typing import Any

from dicom_io.inbox import Inbox
from dicom_io.presentation import StoreStatus
from dicom_io.raw_header import parse
from dicom_io.receive_data import ObjectName, take_object
from dicom_io.received import Ledger
from dicom_io.sender import PeerUnavailable
from processing.refusal import UnsuitableInput

_log = logging.getLogger(__name__)

#: Larger answers are not read: no MR object of a lumbar exam comes near.
MAX_ANSWER_BYTES = 1 << 30

_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def fetch_objects(
    url: str,
    timeout_s: float,
    where: tuple[str, str],
    sop_uids: Collection[str],
    *,
    sender: str,
    inbox: Inbox,
    ledger: Ledger,
    ca_file: Path | None = None,
) -> None:
    """Fetch objects of one series. One that the service does not have is left out; the record tells what has come.

    Args:
        url: root of the DICOMweb service.
        timeout_s: for connecting, and for each piece of an answer.
        where: Study and Series Instance UID.
        sop_uids: what is wanted.
        sender: AE title under which the objects are recorded.
        inbox: where they go.
        ledger: where they are written down.
        ca_file: authorities (PEM) that are trusted in place of the system's.

    Raises:
        PeerUnavailable: the service cannot be reached, or its answer cannot be used.
        OSError: an object cannot be stored or recorded now.
    """
    study_uid, series_uid = where
    opener = _opener(ca_file)
    for sop_uid in sorted(sop_uids):
        address = f"{url.rstrip('/')}/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}"
        for content in _parts(_get(opener, address, timeout_s)):
            _take(content, sop_uid, sender, inbox, ledger)


def _opener(ca_file: Path | None) -> urllib.request.OpenerDirector:
    """Certificates are always checked. A PACS is in the house: no proxy that the environment may name."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise PeerUnavailable("the file of trusted authorities cannot be read") from error
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def _get(opener: urllib.request.OpenerDirector, address: str, timeout_s: float) -> tuple[Message, bytes] | None:
    """Header and body of an answer; None where there is no such object."""
    request = urllib.request.Request(address, headers={"Accept": _ACCEPT})
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            body = answer.read(MAX_ANSWER_BYTES + 1)
            header: Any = answer.headers
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            return None
        raise PeerUnavailable(f"the DICOMweb service answers {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PeerUnavailable(f"the DICOMweb service cannot be read ({type(error).__name__})") from error
    if len(body) > MAX_ANSWER_BYTES:
        raise PeerUnavailable("the DICOMweb service's answer is too large")
    return header, body


def _parts(answer: tuple[Message, bytes] | None) -> list[bytes]:
    """The files in an answer: the parts of a multipart one (RFC 2046 5.1.1), or the whole."""
    if answer is None:
        return []
    header, body = answer
    if header.get_content_type() == "application/dicom":
        return [body]
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise PeerUnavailable(f"the DICOMweb service answers {header.get_content_type()}")
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    parts = (b"\r\n" + body).split(delimiter)
    if len(parts) < 3 or not parts[-1].startswith(b"--"):
        raise PeerUnavailable("the DICOMweb service's answer is cut short")
    return [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]]


def _take(content: bytes, sop_uid: str, sender: str, inbox: Inbox, ledger: Ledger) -> None:
    """Store one file of an answer."""
    end = _end_of_meta(content)
    try:
        meta = parse(content[:end]).file_meta
        name = ObjectName(
            str(meta.get("MediaStorageSOPClassUID", "")),
            str(meta.get("MediaStorageSOPInstanceUID", "")),
            str(meta.get("TransferSyntaxUID", "")),
        )
    except UnsuitableInput as fault:
        raise PeerUnavailable("the DICOMweb service's answer is no DICOM file") from fault
    if name.sop_instance_uid != sop_uid:
        _log.warning("an object came that was not asked for", extra={"calling_ae": sender})
        return
    answer = take_object(content[end:], name, sender, inbox, ledger, head=content[:end])
    if answer.status == StoreStatus.OUT_OF_RESOURCES:
        raise OSError("an object cannot be stored now")


def _end_of_meta(content: bytes) -> int:
    """Where the data set begins: PS3.10 7.1, File Meta Information Group Length comes first."""
    if content[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00" or len(content) < 144:
        raise PeerUnavailable("the DICOMweb service's answer is no DICOM file")
    end = 144 + int(struct.unpack_from("<L", content, 140)[0])
    if end > len(content):
        raise PeerUnavailable("the DICOMweb service's answer is cut short")
    return end
