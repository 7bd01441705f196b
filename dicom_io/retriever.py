"""Asks a PACS what it has of a study (C-FIND), and fetches objects from it (C-GET, C-MOVE)."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_io.element_walk import is_uid
from dicom_io.inbox import Inbox
from dicom_io.presentation import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STORAGE_TRANSFER_SYNTAXES, StoreStatus
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.receive_data import answer_store
from dicom_io.received import Ledger
from dicom_io.sender import Peer, PeerUnavailable, associate, need_offer

_log = logging.getLogger(__name__)

#: What a fetched object may be. A PACS is asked for images that the node could measure, and for nothing else.
FETCHED_CLASSES = (
    str(MRImageStorage),
    str(EnhancedMRImageStorage),
    str(LegacyConvertedEnhancedMRImageStorage),
)

#: UIDs in one request: 100 of 64 characters stay within what every peer takes as one command.
_UIDS_PER_REQUEST = 100
#: Beyond so many answers a peer does not answer what it was asked.
_MOST_ANSWERS = 100_000
#: A PACS that reads from tape sends no word in the meantime.
_RETRIEVE_TIMEOUT_S = 120.0
_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """What a PACS says of one series. ``n_objects`` is None where it does not count, or contradicts itself."""

    series_uid: str
    n_objects: int | None
    modality: str
    description: str


@dataclass(frozen=True, slots=True)
class ObjectAnswer:
    """What a PACS says of one object. ``is_image``: of a class that the node could measure, or of an unknown one."""

    sop_uid: str
    is_image: bool


@dataclass(frozen=True, slots=True)
class StudyAnswer:
    """What a PACS says of one study. ``study_date``: None where it tells none, or no date."""

    study_uid: str
    study_date: date | None


def find_studies(peer: Peer, patient_id: str, first: date, last: date) -> tuple[StudyAnswer, ...]:
    """The MR studies of a patient that a PACS has between two days, both counted; sorted by UID.

    Raises:
        PeerUnavailable: it cannot be asked now, or does not answer to the end.
        ValueError: the PatientID would match others too (PS3.4 C.2.2.2.4).
    """
    if not patient_id.strip() or set(patient_id) & set("*?\\"):
        raise ValueError("the PatientID is empty, or holds a wild card")
    query = identifier("STUDY", PatientID=patient_id, ModalitiesInStudy="MR")
    query.StudyDate, query.StudyInstanceUID = f"{first:%Y%m%d}-{last:%Y%m%d}", ""
    found: dict[str, StudyAnswer] = {}
    for answer in _find(peer, query):
        study_uid = answer_text(answer, "StudyInstanceUID")
        if not is_uid(study_uid) or answer_text(answer, "PatientID") not in ("", patient_id):
            continue
        try:
            day: date | None = datetime.strptime(answer_text(answer, "StudyDate"), "%Y%m%d").date()
        except ValueError:
            day = None
        found[study_uid] = StudyAnswer(study_uid, day)
    return tuple(found[uid] for uid in sorted(found))


def find_series(peer: Peer, study_uid: str) -> tuple[SeriesAnswer, ...]:
    """The series that a PACS has of a study, sorted by UID; none where it does not know the study.

    Raises:
        PeerUnavailable: it cannot be asked now, or does not answer to the end.
    """
    query = identifier("SERIES", StudyInstanceUID=study_uid)
    query.SeriesInstanceUID = query.Modality = query.SeriesDescription = ""
    query.NumberOfSeriesRelatedInstances = None
    found: dict[str, SeriesAnswer] = {}
    for answer in _find(peer, query):
        series_uid = answer_text(answer, "SeriesInstanceUID")
        if not is_uid(series_uid) or answer_text(answer, "StudyInstanceUID") not in ("", study_uid):
            continue
        count = answer_text(answer, "NumberOfSeriesRelatedInstances")
        n_objects = int(count) if count.isascii() and count.isdigit() and 0 < len(count) < 8 else None
        one = SeriesAnswer(
            series_uid, n_objects, answer_text(answer, "Modality"), answer_text(answer, "SeriesDescription")
        )
        other = found.setdefault(series_uid, one)
        if other.n_objects != one.n_objects:
            found[series_uid] = replace(one, n_objects=None)
    return tuple(found[uid] for uid in sorted(found))


def list_objects(peer: Peer, study_uid: str, series_uid: str) -> tuple[ObjectAnswer, ...]:
    """The objects that a PACS has of a series, sorted by UID, each once.

    Raises:
        PeerUnavailable: it cannot be asked now, or does not answer to the end.
    """
    query = identifier("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)
    query.SOPInstanceUID = query.SOPClassUID = ""
    found: dict[str, str] = {}
    for answer in _find(peer, query):
        sop_uid = answer_text(answer, "SOPInstanceUID")
        if is_uid(sop_uid) and answer_text(answer, "SeriesInstanceUID") in ("", series_uid):
            found[sop_uid] = answer_text(answer, "SOPClassUID") or found.get(sop_uid, "")
    return tuple(ObjectAnswer(uid, found[uid] in ("", *FETCHED_CLASSES)) for uid in sorted(found))


def get_objects(
    peer: Peer, study_uid: str, series_uid: str, sop_uids: Collection[str], inbox: Inbox, ledger: Ledger
) -> None:
    """Fetch objects by C-GET; each goes the way of a received one. What was not asked for is refused.

    What has come afterwards, the record tells: a peer's own counts are not believed.

    Raises:
        PeerUnavailable: the peer cannot be called, has no C-GET, or its answers broke off.
    """
    wanted = frozenset(sop_uids)

    def on_store(event: Any) -> int | Dataset:
        if str(event.request.AffectedSOPInstanceUID) not in wanted:
            _log.warning("an object came that was not asked for", extra={"calling_ae": peer.called_ae_title})
            return int(StoreStatus.NOT_AUTHORISED)
        return answer_store(event, inbox, ledger, peer.called_ae_title)

    model = StudyRootQueryRetrieveInformationModelGet
    contexts = [build_context(model), *_storage_contexts()]
    roles = [build_role(one, scp_role=True) for one in FETCHED_CLASSES]
    with _associate_to_retrieve(contexts, peer, handlers=[(evt.EVT_C_STORE, on_store)], roles=roles) as association:
        need_offer(association, model, "C-GET")
        for request in _requests(study_uid, series_uid, sop_uids):
            _follow(_sent(association.send_c_get, request, model))


def move_objects(peer: Peer, study_uid: str, series_uid: str, sop_uids: Collection[str]) -> None:
    """Let the peer send objects to our own storage SCP (C-MOVE); it must know our AE title's address and port.

    Raises:
        PeerUnavailable: the peer cannot be called, has no C-MOVE, or its answers broke off.
    """
    model = StudyRootQueryRetrieveInformationModelMove
    with _associate_to_retrieve([build_context(model)], peer) as association:
        need_offer(association, model, "C-MOVE")
        for request in _requests(study_uid, series_uid, sop_uids):
            _follow(_sent(association.send_c_move, request, peer.calling_ae_title, model))


def _associate_to_retrieve(contexts: Sequence[Any], peer: Peer, **more: Any) -> Any:
    return associate(contexts, replace(peer, timeout_s=max(peer.timeout_s, _RETRIEVE_TIMEOUT_S)), **more)


def _storage_contexts() -> list[Any]:
    """Each compressed transfer syntax in a context of its own, so that the peer can send objects as it has them."""
    compressed = [one for one in STORAGE_TRANSFER_SYNTAXES if one not in (EXPLICIT_LITTLE, IMPLICIT_LITTLE)]
    return [
        build_context(sop_class, syntaxes)
        for sop_class in FETCHED_CLASSES
        for syntaxes in ([EXPLICIT_LITTLE, IMPLICIT_LITTLE], *([one] for one in compressed))
    ]


def _requests(study_uid: str, series_uid: str, sop_uids: Collection[str]) -> Iterator[Dataset]:
    uids = sorted(sop_uids)
    for first in range(0, len(uids), _UIDS_PER_REQUEST):
        request = identifier("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)
        request.SOPInstanceUID = uids[first : first + _UIDS_PER_REQUEST]
        yield request


def _sent(send: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """The responses to a request; the association may have ended a moment ago."""
    try:
        return send(*arguments)
    except RuntimeError as error:
        raise PeerUnavailable("the association was lost") from error


def _follow(responses: Iterator[tuple[Dataset, Dataset | None]]) -> None:
    for status, _ in responses:
        if "Status" not in status:
            raise PeerUnavailable("the peer's answers broke off")


def _find(peer: Peer, query: Dataset) -> Iterator[Dataset]:
    """The pending answers to a query."""
    with associate([find_context()], peer) as association:
        yield from find_over(association, query)


def find_context() -> Any:
    """The presentation context for :func:`find_over`."""
    return build_context(StudyRootQueryRetrieveInformationModelFind)


def find_over(association: Any, query: Dataset) -> Iterator[Dataset]:
    """The pending answers to a query over an open association.

    Raises:
        NotOffered: the peer has no C-FIND.
        PeerUnavailable: it does not answer to the end.
    """
    model = StudyRootQueryRetrieveInformationModelFind
    need_offer(association, model, "C-FIND")
    n_answers = 0
    for status, answer in _sent(association.send_c_find, query, model):
        if "Status" not in status:
            raise PeerUnavailable("the peer's answers broke off")
        if status.Status in _PENDING:
            n_answers += 1
            if n_answers > _MOST_ANSWERS:
                raise PeerUnavailable("the peer's answers do not end")
            if answer is not None:
                yield answer
        elif status.Status != 0:
            raise PeerUnavailable(f"the peer answers C-FIND with 0x{status.Status:04X}")


def identifier(level: str, **keys: str) -> Dataset:
    """A query at a level (PS3.4 C.4.1.1.3), with its keys."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def answer_text(answer: Dataset, keyword: str) -> str:
    """A value as text; empty where it is absent or of the wrong form."""
    try:
        with quiet_pydicom():
            value = answer.get(keyword)
        return "" if value is None else str(value).strip("\0 ")
    except PARSE_FAULTS:
        return ""
