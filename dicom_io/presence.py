"""Asks a destination which objects it shows: C-FIND at a storage SCP, QIDO-RS (PS3.18 10.6) at a DICOMweb service."""

import http.client
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial

from dicom_io.element_walk import is_uid
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.retriever import answer_text, find_context, find_over, identifier
from dicom_io.sender import NotOffered, Peer, PeerUnavailable, associate
from dicom_io.stow import WebService, open_connection, unreachable

#: Larger answers are not read: a series of results has tens of objects.
MAX_ANSWER_BYTES = 1 << 24
_PIECE_BYTES = 1 << 16
_WAITS = 10.0  # an answer may take so many times as long as each piece of it
_SERIES_UID_TAG = 0x0020000E
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_NOT_THERE, _NO_SERVICE = (204, 404, 410), (404, 405, 501)


@dataclass(frozen=True, slots=True)
class SentObject:
    """What an object is called, and where it belongs."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class Presence:
    """SOP Instance UIDs that a destination shows: of those it was asked about, and others in the same series."""

    asked: frozenset[str]
    others: frozenset[str]


def read_sent_object(path: Path) -> SentObject | None:
    """What a file holds, read up to its Series Instance UID; None where it cannot be read."""
    try:
        with quiet_pydicom(), path.open("rb") as file:
            header = read_partial(file, stop_when=lambda tag, vr, length: tag > _SERIES_UID_TAG)
            keywords = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
            uids = [str(header.get(keyword, "")) for keyword in keywords]
    except (OSError, InvalidDicomError, *PARSE_FAULTS):
        return None
    return SentObject(*uids) if all(is_uid(uid) for uid in uids) else None


def find_present(peer: Peer, objects: Collection[SentObject]) -> Presence:
    """Ask a storage SCP, by C-FIND over one association, series by series.

    Raises:
        NotOffered: it has no C-FIND.
        PeerUnavailable: it cannot be asked now, or does not answer to the end.
    """
    with associate([find_context()], peer) as association:

        def uids_in(study_uid: str, series_uid: str, uid: str = "") -> list[str]:
            query = identifier("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, SOPInstanceUID=uid)
            return [
                answer_text(answer, "SOPInstanceUID")
                for answer in find_over(association, query)
                if answer_text(answer, "SeriesInstanceUID") in ("", series_uid)
                and answer_text(answer, "StudyInstanceUID") in ("", study_uid)
            ]

        return _presence(objects, uids_in)


def search_present(service: WebService, objects: Collection[SentObject]) -> Presence:
    """Ask a DICOMweb service, by QIDO-RS over one connection, series by series.

    Raises:
        NotOffered: it has no QIDO-RS.
        PeerUnavailable: it cannot be asked now.
    """
    root = urlsplit(service.url).path.rstrip("/")
    with closing(open_connection(service)) as connection:

        def uids_in(study_uid: str, series_uid: str, uid: str = "") -> list[str]:
            target = f"{root}/studies/{study_uid}/series/{series_uid}/instances"
            status, found = _get(connection, f"{target}?SOPInstanceUID={uid}" if uid else target, service.headers)
            if status in _NO_SERVICE:  # no such study, or no such service?
                check, _ = _get(connection, f"{root}/studies?StudyInstanceUID={study_uid}", service.headers)
                if check in _NO_SERVICE:
                    raise NotOffered("the DICOMweb service does not offer QIDO-RS")
            return [
                _value(one, _INSTANCE)
                for one in found
                if _value(one, _SERIES) in ("", series_uid) and _value(one, _STUDY) in ("", study_uid)
            ]

        return _presence(objects, uids_in)


def _presence(objects: Collection[SentObject], uids_in: Callable[..., Sequence[str]]) -> Presence:
    """Ask for each series as a whole, and for each object alone that did not show, for a list may be cut short."""
    by_series: dict[tuple[str, str], set[str]] = {}
    for one in objects:
        by_series.setdefault((one.study_uid, one.series_uid), set()).add(one.sop_instance_uid)
    asked: set[str] = set()
    others: set[str] = set()
    for series, uids in sorted(by_series.items()):
        shown = set(uids_in(*series))
        others |= {uid for uid in shown - uids if is_uid(uid)}
        asked |= uids & shown
        if shown:
            asked |= {uid for uid in uids - shown if uid in uids_in(*series, uid)}
    return Presence(frozenset(asked), frozenset(others))


def _get(
    connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str]
) -> tuple[int, list[Mapping[str, Any]]]:
    """Status, and the objects of the answer."""
    try:
        connection.request("GET", target, headers={**headers, "Accept": "application/dicom+json"})
        with connection.getresponse() as answer:
            status, content = answer.status, _read(answer, time.monotonic() + _WAITS * (connection.timeout or 30.0))
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(error) from error
    if status in _NOT_THERE or status in _NO_SERVICE:
        return status, []
    try:
        found = json.loads(content) if status == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise PeerUnavailable(f"the DICOMweb service answers {status} and no list of objects")
    return status, found


def _read(answer: http.client.HTTPResponse, until_s: float) -> bytes:
    """An answer that comes to its end in time, and is not too large."""
    pieces, n_bytes = [], 0
    while piece := answer.read1(_PIECE_BYTES):
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > MAX_ANSWER_BYTES:
            raise PeerUnavailable("the DICOMweb service's answer is too large")
        if time.monotonic() > until_s:
            raise PeerUnavailable("the DICOMweb service's answer does not come to its end")
    return b"".join(pieces)


def _value(one: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON; empty where there is none."""
    try:
        return str(one[tag]["Value"][0])
    except (LookupError, TypeError):
        return ""
