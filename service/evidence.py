"""What others say an exam holds: counts of sources (C-FIND), and the lists in storage commitment requests.

A count above what has come is always counter-evidence: more is awaited. A count equal to what has come is evidence
only when it can be trusted to be final. A scanner's commitment request is: it is sent when all is sent. A source may
still be receiving the exam itself, perhaps we get it from there, so it must have said the same ``SETTLED_S`` apart,
the last time after our last image. A count below what has come is no evidence of anything.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, func, select

from dicom_io.retriever import FETCHED_CLASSES
from processing.refusal import Reason, ReasonCode
from service import database as db
from service.states import GONE, ExamState, InstanceState, JobState

SETTLED_S = 2.0
_UIDS_NAMED = 3
_UIDS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Evidence:
    """What others say of an exam.

    ``known_counts``: SeriesInstanceUID -> objects that the series has. ``awaited``: SOP Instance UIDs that a sender
    listed and that have not come, of which only the exam is known and not the series. ``n_deleted``: images of the
    newest result that retention has deleted and that have not come again.
    """

    known_counts: Mapping[str, int]
    awaited: tuple[str, ...] = ()
    n_deleted: int = 0

    def awaited_reason(self, n_here: int) -> Reason | None:
        """Why the exam is not complete even if it looks so; None when nothing is awaited."""
        if self.n_deleted:
            text = f"{self.n_deleted} images of the newest result were deleted by retention and have not come again"
            return Reason(ReasonCode.SERIES_INCOMPLETE, text)
        if not self.awaited:
            return None
        named = ", ".join(self.awaited[:_UIDS_NAMED]) + (", ..." if len(self.awaited) > _UIDS_NAMED else "")
        text = (
            f"{n_here}/{n_here + len(self.awaited)} objects: the sender's storage commitment request lists"
            f" {len(self.awaited)} that have not come: {named}"
        )
        return Reason(ReasonCode.SERIES_INCOMPLETE, text)


def evidence_of(connection: Connection, study_uids: Sequence[str]) -> Evidence:
    """The evidence about the exam that these studies make up, inside the caller's transaction."""
    series_of, n_unused = _objects_here(connection, study_uids)
    n_here = Counter(series_of.values())
    listed, awaited = _listed(connection, series_of)
    counts: dict[str, int] = {}
    for series_uid, found in _source_counts(connection, study_uids).items():
        # What is no image is not awaited as one, nor what a person has decided not to use.
        counts[series_uid] = _trusted(found, n_here[series_uid]) - n_unused[series_uid]
    for series_uid, count in listed.items():
        counts[series_uid] = max(counts.get(series_uid, 0), count - n_unused[series_uid])
    known_counts = {uid: count for uid, count in counts.items() if count > 0}
    return Evidence(known_counts, awaited, _deleted(connection, study_uids))


def _deleted(connection: Connection, study_uids: Sequence[str]) -> int:
    """Images of the newest results that retention has deleted: from what is left no result may follow them."""
    table = db.instance
    rows = connection.execute(
        select(table.c.sop_uid, table.c.path, table.c.state).where(table.c.study_uid.in_(study_uids))
    ).all()
    here = {row.sop_uid for row in rows if row.state not in GONE}
    gone = {row.path: row.sop_uid for row in rows if row.state in GONE and row.sop_uid not in here}
    if not gone:
        return 0
    done = (
        select(db.job.c.inputs, db.job.c.exam_id)
        .join(db.exam)
        .where(db.exam.c.study_uid.in_(study_uids), db.job.c.state == str(JobState.DONE))
    )
    newest = {row.exam_id: row.inputs for row in connection.execute(done.order_by(db.job.c.version))}
    return len({gone[path] for inputs in newest.values() for path in inputs if path in gone})


def _objects_here(connection: Connection, study_uids: Sequence[str]) -> tuple[dict[str, str], Counter[str]]:
    """SOP Instance UID -> series of what has come, and how many of each series are no image, or set aside for good."""
    table = db.instance
    columns = (table.c.sop_uid, table.c.sop_class_uid, table.c.series_uid, table.c.state)
    rows = connection.execute(select(*columns).where(table.c.study_uid.in_(study_uids))).all()
    used = {
        row.sop_uid for row in rows if row.state != InstanceState.SET_ASIDE and row.sop_class_uid in FETCHED_CLASSES
    }
    series_of = {row.sop_uid: row.series_uid for row in rows}
    return series_of, Counter(series for uid, series in series_of.items() if uid not in used)


@dataclass(frozen=True, slots=True)
class _SourceCount:
    n_objects: int
    is_settled: bool


def _source_counts(connection: Connection, study_uids: Sequence[str]) -> dict[str, list[_SourceCount]]:
    table = db.source_answer
    arrivals = select(func.max(db.exam.c.last_arrival_at)).where(db.exam.c.study_uid.in_(study_uids))
    last_arrival_at = connection.execute(arrivals).scalar()
    counts: dict[str, list[_SourceCount]] = {}
    for row in connection.execute(select(table).where(table.c.study_uid.in_(study_uids))):
        is_stable = row.asked_at - row.unchanged_since >= timedelta(seconds=SETTLED_S)
        settled = is_stable and last_arrival_at is not None and row.asked_at >= last_arrival_at
        counts.setdefault(row.series_uid, []).append(_SourceCount(row.n_objects, settled))
    return counts


def _trusted(found: Iterable[_SourceCount], n_here: int) -> int:
    """The count to go by; 0 when there is none."""
    return max((one.n_objects for one in found if one.is_settled or one.n_objects > n_here), default=0)


def _listed(connection: Connection, series_of: Mapping[str, str]) -> tuple[Counter[str], tuple[str, ...]]:
    """How many objects of each series commitment requests list; and those awaited whose series is not known."""
    listed: dict[str, set[str]] = {}
    doubted: set[str] = set()
    awaited: set[str] = set()
    for uids, images in _lists_naming(connection, series_of).values():
        mine = {uid for uid in uids if uid in series_of}
        for uid in mine:
            listed.setdefault(series_of[uid], set()).add(uid)
        elsewhere = _studies_of(connection, uids - mine)
        to_come = images - mine - elsewhere.keys()
        if not to_come:
            continue
        series = {series_of[uid] for uid in mine}
        if len(series) == 1 and not elsewhere:
            listed[series.pop()] |= to_come
        else:  # any series, of any of the exams in the list, may be the one that lacks objects
            doubted |= series
            awaited |= to_come
    counts = {series: len(uids) for series, uids in listed.items() if series not in doubted}
    return Counter(counts), tuple(sorted(awaited))


def _lists_naming(connection: Connection, sop_uids: Iterable[str]) -> dict[int, tuple[set[str], set[str]]]:
    """The whole list of each commitment request that names one of the objects, and those in it that are MR images.

    What else is listed (a presentation state, say, which the node may not even take) is no part of what is measured.
    """
    table = db.commitment_item
    requests = _requests_naming(connection, sop_uids)
    lists: dict[int, tuple[set[str], set[str]]] = {number: (set(), set()) for number in requests}
    query = select(table.c.commitment_id, table.c.sop_uid, table.c.sop_class_uid)
    for number, sop_uid, sop_class_uid in connection.execute(query.where(table.c.commitment_id.in_(requests))).all():
        uids, images = lists[number]
        uids.add(sop_uid)
        if sop_class_uid in FETCHED_CLASSES:
            images.add(sop_uid)
    return lists


def _requests_naming(connection: Connection, sop_uids: Iterable[str]) -> set[int]:
    table = db.commitment_item
    requests: set[int] = set()
    for some in _batches(sop_uids):
        query = select(table.c.commitment_id).where(table.c.sop_uid.in_(some)).distinct()
        requests.update(connection.execute(query).scalars())
    return requests


def exams_awaiting(connection: Connection, sop_uids: Iterable[str]) -> list[int]:
    """Incomplete exams that a commitment request names together with one of these objects, which have now come."""
    table, items = db.instance, db.commitment_item
    lists = _requests_naming(connection, sop_uids)
    if not lists:
        return []
    named = select(items.c.sop_uid).where(items.c.commitment_id.in_(lists))
    query = (
        select(db.exam.c.id)
        .join(table, table.c.study_uid == db.exam.c.study_uid)
        .where(db.exam.c.state == str(ExamState.INCOMPLETE), table.c.sop_uid.in_(named))
    )
    return list(connection.execute(query.distinct().order_by(db.exam.c.id)).scalars())


def _studies_of(connection: Connection, sop_uids: Iterable[str]) -> dict[str, str]:
    table = db.instance
    found: dict[str, str] = {}
    for some in _batches(sop_uids):
        rows = connection.execute(select(table.c.sop_uid, table.c.study_uid).where(table.c.sop_uid.in_(some)))
        found.update((row.sop_uid, row.study_uid) for row in rows)
    return found


def _batches(uids: Iterable[str]) -> Iterable[list[str]]:
    ordered = sorted(uids)
    return (ordered[first : first + _UIDS_PER_QUERY] for first in range(0, len(ordered), _UIDS_PER_QUERY))
