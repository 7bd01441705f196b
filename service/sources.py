"""Asks a source what waiting exams hold, and lets it send what has not come.

An exam that waits is asked about after ``QUIET_S`` without arrivals, again when an answer can be settled, then ever
more rarely. What is missing is fetched when nothing has come for ``FETCH_QUIET_S``, or when the exam was judged
incomplete.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from config.protocol_cards import Role, load_cards
from config.settings import Retrieval, Settings, Source
from dicom_io.dicomweb import fetch_objects
from dicom_io.inbox import Inbox
from dicom_io.received import Ledger
from dicom_io.retriever import SeriesAnswer, find_series, get_objects, list_objects, move_objects
from dicom_io.sender import Peer, PeerUnavailable
from service import database as db
from service.arrivals import open_ledger
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.evidence import SETTLED_S
from service.exam_studies import reopen
from service.states import ExamState

_log = logging.getLogger(__name__)

QUIET_S = 0.5
FETCH_QUIET_S = 10.0
FIRST_FETCH_WAIT_S = 20.0
MOST_FETCHES = 8  # of one exam, since something came; the waits between them double
LONGEST_WAIT_S = 900.0
LONGEST_PAUSE_S = 60.0
_ASKED_FOR_DAYS = 7
_MOST_EXAMS = 20  # of one look


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An exam of which the source may know more. Counts are since something came."""

    id: int
    study_uid: str
    last_arrival_at: datetime
    is_incomplete: bool
    n_unchanged: int
    n_fetches: int
    may_fetch: bool


def _was_evidence(answer: Any, exam: _Waiting) -> bool:
    """Whether an earlier answer (a row) could already be evidence; see :mod:`service.evidence`."""
    is_stable: bool = answer.asked_at - answer.unchanged_since >= timedelta(seconds=SETTLED_S)
    return is_stable and bool(answer.asked_at >= exam.last_arrival_at)


class SourceDesk:
    """Looks after the waiting exams at one source.

    Args:
        database: the node's record.
        settings: the node's settings.
        source: whom it asks.
        judge: called when there is news of an exam.
        stopping: asked between two exams; True ends the look.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        source: Source,
        *,
        judge: Callable[[], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._source = source
        self._peer = Peer(source.host, source.port, source.ae_title, settings.ae_title, source.timeout_s, source.tls)
        self._inbox = Inbox(database.inbox_dir)
        self._ledger = open_ledger(database)
        self._judge = judge
        self._stopping = stopping
        self._n_failures = 0  # in a row
        self._not_before = datetime.min.replace(tzinfo=UTC)
        cards = [card for card in load_cards(settings.protocols_dir) if card.role is Role.RELAXOMETRY]
        self._descriptions = [card.match.series_description or "" for card in cards]

    def look(self, now: datetime) -> None:
        """Ask about each exam whose turn it is. A source that cannot be asked is left alone, ever longer."""
        if now < self._not_before:
            return
        if self._has_quiet_news(now):
            self._judge()  # to know whether the source must be asked, not to wait for the next sweep with it
        for exam in self._due(now):
            if self._stopping():
                return
            try:
                answers = self._counted(exam, find_series(self._peer, exam.study_uid))
            except PeerUnavailable as error:
                wait_s = min(SETTLED_S * 2**self._n_failures, LONGEST_PAUSE_S)
                self._n_failures, self._not_before = self._n_failures + 1, now + timedelta(seconds=wait_s)
                if self._n_failures == 1:
                    _log.warning("source cannot be asked", extra={"source": self._source.name, "error": str(error)})
                return
            self._n_failures = 0
            has_news = self._note(exam, answers, now)
            if exam.may_fetch:
                has_news |= self._fetch(exam, answers, now)
            if has_news:
                self._judge()

    # --- asking -------------------------------------------------------------------------------------------------------

    def _has_quiet_news(self, now: datetime) -> bool:
        table = db.exam
        query = select(table.c.id).where(
            table.c.state == str(ExamState.COLLECTING),
            table.c.has_news,
            table.c.last_arrival_at <= now - timedelta(seconds=QUIET_S),
            *self._of_known_senders(),
        )
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def _due(self, now: datetime) -> list[_Waiting]:
        exam, enquiry = db.exam, db.enquiry
        mine = (enquiry.c.exam_id == exam.c.id) & (enquiry.c.source == self._source.name)
        settled_at = now - timedelta(seconds=SETTLED_S)
        query = (
            select(exam, *(column for column in enquiry.columns if column.name not in ("id", "exam_id")))
            .select_from(exam.outerjoin(enquiry, mine))
            .where(
                exam.c.state.in_([str(ExamState.COLLECTING), str(ExamState.INCOMPLETE)]),
                exam.c.has_news.is_(False),
                exam.c.last_arrival_at.between(now - timedelta(days=_ASKED_FOR_DAYS), now - timedelta(seconds=QUIET_S)),
                *self._of_known_senders(),
                enquiry.c.id.is_(None)
                | (enquiry.c.not_before <= now)
                | ((enquiry.c.asked_at < exam.c.last_arrival_at) & (enquiry.c.asked_at <= settled_at)),
            )
            .order_by(exam.c.last_arrival_at.desc())
            .limit(_MOST_EXAMS)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        found = []
        for row in rows:
            is_fresh = row.asked_at is None or row.asked_at < row.last_arrival_at
            is_incomplete = row.state == ExamState.INCOMPLETE
            is_quiet = is_incomplete or row.last_arrival_at <= now - timedelta(seconds=FETCH_QUIET_S)
            n_fetches = 0 if is_fresh else row.n_fetches
            may_fetch = is_quiet and n_fetches < MOST_FETCHES and (is_fresh or row.fetch_not_before <= now)
            found.append(
                _Waiting(
                    row.id,
                    row.study_uid,
                    row.last_arrival_at,
                    is_incomplete,
                    0 if is_fresh else row.n_unchanged,
                    n_fetches,
                    may_fetch,
                )
            )
        return found

    def _of_known_senders(self) -> list[ColumnElement[bool]]:
        """The condition that the source knows an exam, if it does not know all."""
        if not self._source.calling_ae_titles:
            return []
        table = db.instance
        sent = select(table.c.id).where(
            table.c.study_uid == db.exam.c.study_uid, table.c.calling_ae.in_(self._source.calling_ae_titles)
        )
        return [sent.exists()]

    def _counted(self, exam: _Waiting, answers: Sequence[SeriesAnswer]) -> dict[str, tuple[SeriesAnswer, int]]:
        """The answers with the number of images each.

        Where the source does not count, what it lists is counted; where it counts more than has come, what it lists as
        no image (a presentation state, say) is taken off.
        """
        arrived = Counter(self._objects_here(exam).values())
        counted = {}
        for one in answers:
            n_images = one.n_objects or 0
            if arrived[one.series_uid] and (one.n_objects is None or one.n_objects > arrived[one.series_uid]):
                listed = list_objects(self._peer, exam.study_uid, one.series_uid)
                n_others = sum(not each.is_image for each in listed)
                n_images = (len(listed) if one.n_objects is None else one.n_objects) - n_others
            counted[one.series_uid] = (one, n_images)
        return counted

    def _objects_here(self, exam: _Waiting) -> dict[str, str]:
        """SOP Instance UID -> series of what has come of the study, whatever became of it."""
        table = db.instance
        query = select(table.c.sop_uid, table.c.series_uid).where(table.c.study_uid == exam.study_uid)
        with self._database.read() as connection:
            return {row.sop_uid: row.series_uid for row in connection.execute(query)}

    def _note(self, exam: _Waiting, answers: dict[str, tuple[SeriesAnswer, int]], now: datetime) -> bool:
        """Keep what was answered; whether it is news, so that the exam is to be judged again."""
        table = db.source_answer
        about = (table.c.source == self._source.name) & (table.c.study_uid == exam.study_uid)
        with self._database.write() as connection:
            before = {row.series_uid: row for row in connection.execute(select(table).where(about)).all()}
            connection.execute(delete(table).where(about))
            has_news = before.keys() != answers.keys()
            for series_uid, (_, n_objects) in answers.items():
                known = before.get(series_uid)
                since = known.unchanged_since if known is not None and known.n_objects == n_objects else now
                is_stable = since <= now - timedelta(seconds=SETTLED_S)
                has_news |= since == now or (is_stable and not _was_evidence(known, exam))
                values = {"n_objects": n_objects, "unchanged_since": since, "asked_at": now}
                connection.execute(
                    insert(table).values(
                        source=self._source.name, study_uid=exam.study_uid, series_uid=series_uid, **values
                    )
                )
            self._plan(connection, exam, now, 0 if has_news else exam.n_unchanged + 1, exam.n_fetches)
            if has_news:
                reopen(connection, exam.id)
            note(connection, AuditEvent(AuditKind.QUERIED, now, peer=self._source.name, studies=(exam.study_uid,)))
        return has_news

    def _plan(
        self,
        connection: Connection,
        exam: _Waiting,
        now: datetime,
        n_unchanged: int,
        n_fetches: int,
        fetch_wait_s: float = 0.0,
    ) -> None:
        """Write down when the source is asked about the exam next."""
        table = db.enquiry
        wait_s = min(SETTLED_S * 2 ** min(n_unchanged, 20), LONGEST_WAIT_S)
        connection.execute(delete(table).where(table.c.source == self._source.name, table.c.exam_id == exam.id))
        connection.execute(
            insert(table).values(
                source=self._source.name,
                exam_id=exam.id,
                asked_at=now,
                not_before=now + timedelta(seconds=wait_s),
                n_unchanged=n_unchanged,
                n_fetches=n_fetches,
                fetch_not_before=now + timedelta(seconds=fetch_wait_s),
            )
        )

    # --- fetching -----------------------------------------------------------------------------------------------------

    def _fetch(self, exam: _Waiting, answers: dict[str, tuple[SeriesAnswer, int]], now: datetime) -> bool:
        """Let the source send what it has and we have not; whether anything came."""
        here = self._objects_here(exam)
        arrived = Counter(here.values())
        n_missing = n_left = 0
        for series_uid, (one, n_objects) in answers.items():
            n_here = arrived[series_uid]
            if self._stopping():
                break
            if n_here >= n_objects or (n_here == 0 and not (exam.is_incomplete and self._may_belong(one))):
                continue
            try:
                listed = list_objects(self._peer, exam.study_uid, series_uid)
            except PeerUnavailable as error:
                _log.warning("source cannot be asked", extra={"source": self._source.name, "error": str(error)})
                continue
            missing = {each.sop_uid for each in listed if each.is_image} - here.keys()
            n_missing += len(missing)
            n_left += len(self._fetch_series(exam, series_uid, missing))
        if n_missing:
            wait_s = min(FIRST_FETCH_WAIT_S * 2**exam.n_fetches, LONGEST_WAIT_S)
            with self._database.write() as connection:
                self._plan(connection, exam, now, 0, exam.n_fetches + 1, wait_s)
            _log.info(
                "missing objects fetched",
                extra={
                    "study_uid": exam.study_uid,
                    "source": self._source.name,
                    "missing": n_missing,
                    "left": n_left,
                    "attempt": exam.n_fetches + 1,
                },
            )
        return n_left < n_missing

    def _may_belong(self, series: SeriesAnswer) -> bool:
        """Whether a series of which nothing has come can be a part of the exam: MR, and named as a card says."""
        if series.modality not in ("", "MR"):
            return False
        return any(re.search(one, series.description, re.IGNORECASE) for one in self._descriptions)

    def _fetch_series(self, exam: _Waiting, series_uid: str, missing: set[str]) -> set[str]:
        """Fetch objects of one series, by one way after the other until all are here; returns what is still missing."""
        for way in self._source.retrieve:
            if not missing or self._stopping():
                break
            if way is Retrieval.WADO_RS and self._source.dicomweb_url is None:
                continue
            try:
                fetch_by(
                    way, self._source, self._peer, (exam.study_uid, series_uid), missing, self._inbox, self._ledger
                )
            except (PeerUnavailable, OSError) as error:
                text = str(error) if isinstance(error, PeerUnavailable) else type(error).__name__
                _log.warning("not fetched", extra={"source": self._source.name, "way": way, "error": text})
            missing = missing - self._objects_here(exam).keys()
        return missing


def fetch_by(
    way: Retrieval,
    source: Source,
    peer: Peer,
    place: tuple[str, str],
    sop_uids: set[str],
    inbox: Inbox,
    ledger: Ledger,
) -> None:
    """Let a source send objects of a series in one way. ``place``: Study and Series Instance UID.

    Raises:
        PeerUnavailable: it cannot be called, has not this way, or its answers broke off.
        OSError: what came cannot be stored.
    """
    study_uid, series_uid = place
    if way is Retrieval.C_GET:
        get_objects(peer, study_uid, series_uid, sop_uids, inbox, ledger)
    elif way is Retrieval.C_MOVE:
        move_objects(peer, study_uid, series_uid, sop_uids)
    else:
        assert source.dicomweb_url is not None
        fetch_objects(
            source.dicomweb_url,
            source.timeout_s,
            place,
            sop_uids,
            sender=source.ae_title,
            inbox=inbox,
            ledger=ledger,
            ca_file=source.ca_file,
        )
