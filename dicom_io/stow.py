"""Stores files at a DICOMweb service by STOW-RS (PS3.18 10.5), byte for byte, and says what it answered to each."""

import http.client
import json
import secrets
import ssl
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from dicom_io.presentation import describe, is_stored
from dicom_io.sender import UNREADABLE, PeerUnavailable, SendOutcome, file_meta_of

#: Larger answers are not read: a service tells of one object.
MAX_ANSWER_BYTES = 1 << 22
PIECE_BYTES = 1 << 17

#: The answers that tell of the object: PS3.18 table 10.5.3-1 (all, some or none stored).
TOLD = (200, 202, 409)
#: The answers that mean this object, not the service: malformed, too large, not supported, failed on it.
REFUSED = (400, 411, 413, 415, 422, 500)
_REFERENCED, _FAILED = "00081199", "00081198"
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"


@dataclass(frozen=True, slots=True)
class WebService:
    """A DICOMweb service. ``timeout_s``: for connecting, and for each piece of an answer.

    ``headers`` are sent with each request and shown nowhere; ``ca_file`` holds the authorities (PEM) that are trusted
    in place of the system's.
    """

    url: str
    timeout_s: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None


def store_each(paths: Sequence[Path], service: WebService) -> Generator[SendOutcome, None, None]:
    """Store files, one request for each over one connection; yields each outcome as the service answers.

    An object is stored when the answer names it among the stored ones, never by the HTTP status alone. One object in a
    request, so that one that is refused, or too large, holds up no other, and what is not answered is sent again alone.

    Raises:
        PeerUnavailable: the service cannot be reached, does not let us in, or is not one; the files that had no
            outcome yet are as they were.
        OSError: a file cannot be read.
    """
    address = urlsplit(service.url)
    target = f"{address.path.rstrip('/')}/studies"
    with closing(open_connection(service)) as connection:
        for path in paths:
            yield _store(connection, target, path, service.headers)


def open_connection(service: WebService) -> http.client.HTTPConnection:
    """A connection to a service, to be opened by the first request.

    Raises:
        PeerUnavailable: the file of trusted authorities cannot be read.
    """
    address = urlsplit(service.url)
    host = address.hostname or ""
    if address.scheme != "https":
        return http.client.HTTPConnection(host, address.port, timeout=service.timeout_s)
    try:
        context = ssl.create_default_context(cafile=service.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise PeerUnavailable("the file of trusted authorities cannot be read") from error
    return http.client.HTTPSConnection(host, address.port, timeout=service.timeout_s, context=context)


def _store(connection: http.client.HTTPConnection, target: str, path: Path, headers: Mapping[str, str]) -> SendOutcome:
    meta = file_meta_of(path)
    if meta is None:
        return SendOutcome(path, False, None, UNREADABLE)
    boundary = f"discnode-{secrets.token_hex(16)}"
    # No transfer-syntax parameter: Orthanc 1.10 answers 200 to such a part, and stores nothing.
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    request_headers = {
        **headers,
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
        "Accept": "application/dicom+json",
    }
    with path.open("rb") as file:
        status, body = _post(connection, target, request_headers, _pieces(head, file, tail))
    if status in TOLD:
        return _outcome(path, str(meta.MediaStorageSOPInstanceUID), status, body)
    if status in REFUSED:
        return SendOutcome(path, False, None, f"the DICOMweb service answers {status}")
    raise PeerUnavailable(f"the DICOMweb service answers {status}")


def _pieces(head: bytes, file: BinaryIO, tail: bytes) -> Iterator[bytes]:
    """The body of a request, so that memory does not grow with the object."""
    yield head
    while piece := file.read(PIECE_BYTES):
        yield piece
    yield tail


def _post(
    connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str], body: Iterator[bytes]
) -> tuple[int, bytes]:
    """Status and body of the answer."""
    try:
        if connection.sock is None:
            connection.connect()
        # A service may refuse before it has read everything; its answer, if there is one, says why.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", target, body=body, headers=headers)
        with connection.getresponse() as answer:
            content = answer.read(MAX_ANSWER_BYTES + 1)
            status = answer.status
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(error) from error
    if status not in TOLD or len(content) > MAX_ANSWER_BYTES:
        connection.close()  # what is left unread must not be taken for the next answer; it opens again by itself
    return status, content


def unreachable(error: Exception) -> PeerUnavailable:
    """What a failed connection means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerUnavailable(f"the DICOMweb service's certificate is not trusted: {error.verify_message}")
    return PeerUnavailable(f"the DICOMweb service cannot be reached ({type(error).__name__})")


def _outcome(path: Path, sop_uid: str, status: int, body: bytes) -> SendOutcome:
    """What the answer says of the object: PS3.18 10.5.3.2, the Store Instances Response Module."""
    try:
        answer = json.loads(body)
        answer = answer[0] if isinstance(answer, list) else answer
        failed, stored = (
            _reasons(answer, *keys) for keys in ((_FAILED, _FAILURE_REASON), (_REFERENCED, _WARNING_REASON))
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return SendOutcome(path, False, None, f"the DICOMweb service answers {status} and no DICOM JSON")
    if sop_uid in failed:
        return SendOutcome(path, False, failed[sop_uid], describe(failed[sop_uid]))
    if sop_uid in stored:
        reason = stored[sop_uid]
        return SendOutcome(path, True, reason, describe(reason) if is_stored(reason) else describe(0xB000))
    return SendOutcome(path, False, None, f"the DICOMweb service answers {status} and does not name the object")


def _reasons(answer: Mapping[str, Any], sequence: str, reason: str) -> dict[str, int]:
    """SOP Instance UID -> warning or failure reason (0: none is told) of the items of a sequence."""
    return {
        str(item["00081155"]["Value"][0]): int(item.get(reason, {}).get("Value", [0])[0])
        for item in answer.get(sequence, {}).get("Value", [])
    }
