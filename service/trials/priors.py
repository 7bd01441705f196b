"""Earlier scans of a subject at the node's sources: those that lie in the window of a visit are fetched, once.

The PatientID that a source is asked by is read from the subject's own images at that moment; it is kept nowhere.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update

from config.protocol_cards import load_cards
from config.settings import Settings, Source
from config.trial_plans import TrialPlan
from dicom_io.inbox import Inbox
from dicom_io.retriever import find_series, find_studies, list_objects
from dicom_io.sender import Peer, PeerUnavailable
from dicom_io.trial_header import read_trial_header
from service import database as node
from service import trial_tables as db
from service.arrivals import open_ledger
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.sources import fetch_by
from service.states import InstanceState, SubjectState, VisitState
from service.trials.people import CannotDecide
from service.trials.registry import trial_by_id, trials_of

_log = logging.getLogger(__name__)

PRIORS_S = 5.0
_WAIT = timedelta(minutes=2)  # before sources that could not be asked are asked again
_MOST_SUBJECTS = 5  # of one look


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one subject. ``failed``: sources that could not be asked, in words."""

    studies: tuple[str, ...]
    n_objects: int
    failed: tuple[str, ...]


class PriorsDesk:
    """Asks for the priors of new subjects. One in a node, in the supervisor."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._not_before = datetime.min.replace(tzinfo=UTC)

    def look(self, now: datetime) -> int:
        """Ask about subjects that were never asked about; returns how many."""
        if now < self._not_before:
            return 0
        table = db.subject
        with self._database.read() as connection:
            trials = {one.id for one in trials_of(connection) if one.plan.fetch_priors}
            has_images = select(db.visit.c.id).where(db.visit.c.subject_id == table.c.id).exists()
            query = select(table).where(
                table.c.priors_asked_at.is_(None),
                table.c.state == str(SubjectState.ACTIVE),
                table.c.trial_id.in_(trials),
                has_images,
            )
            rows = connection.execute(query.order_by(table.c.id).limit(_MOST_SUBJECTS)).all()
        for row in rows:
            try:
                fetched = fetch_priors(self._database, self._settings, row, now)
            except CannotDecide as error:
                _log.warning("priors not asked for", extra={"why": str(error)})
                _note_asked(self._database, row, now)
                continue
            if fetched.failed:
                self._not_before = now + _WAIT
                _log.warning("priors not asked for", extra={"why": "; ".join(fetched.failed)})
                return 0
        return len(rows)


def fetch_priors(database: Database, settings: Settings, row: Row[Any], now: datetime) -> Fetched:
    """Fetch what the sources have of a subject in the windows of its visits and the node has not.

    Args:
        database: the node's record.
        settings: with the sources.
        row: the subject's.
        now: aware.

    Raises:
        CannotDecide: there is no source, or nothing of the subject from which to ask.
    """
    sources = [one for one in settings.sources if one.retrieve]
    if not sources:
        raise CannotDecide("no source is configured that sends anything (sources)")
    with database.read() as connection:
        plan = trial_by_id(connection, row.trial_id).plan
        path = _an_image(connection, row.id)
        days = days_of_visits(plan, row.day_zero, _named_scans(connection, row.id))
    header = None if path is None else read_trial_header(database.inbox_dir / path)
    if header is None:
        raise CannotDecide(f"no image of subject {row.subject_id} is on record: its PatientID is not known")
    if not days:
        raise CannotDecide(f"no day of a visit of subject {row.subject_id} is known yet")
    studies: list[str] = []
    failed: list[str] = []
    number = 0
    for source in sources:
        try:
            found, n_objects = _from_source(database, settings, source, plan, header.patient_id, days)
        except PeerUnavailable as error:
            failed.append(f"{source.name}: {error}")
            continue
        except ValueError as error:
            raise CannotDecide(f"subject {row.subject_id}: {error}") from error
        studies += found
        number += n_objects
        with database.write() as connection:
            note(connection, AuditEvent(AuditKind.QUERIED, now, peer=source.name, studies=tuple(found)))
    if not failed:
        _note_asked(database, row, now)
    return Fetched(tuple(dict.fromkeys(studies)), number, tuple(failed))


def days_of_visits(
    plan: TrialPlan, day_zero: date | None, scans: Sequence[tuple[str, date]]
) -> tuple[tuple[date, date], ...]:
    """First and last day of each visit's window. Without day zero, as far as the scans of named visits bound it."""
    bounds = None if day_zero is None else (day_zero, day_zero)
    by_name = {one.name: one for one in plan.visits}
    for name, day in scans if bounds is None else ():
        visit = by_name.get(name)
        if visit is not None:
            bounds = day - timedelta(days=visit.last_day), day - timedelta(days=visit.first_day)
            break
    if bounds is None:
        return ()
    return tuple(
        (bounds[0] + timedelta(days=one.first_day), bounds[1] + timedelta(days=one.last_day)) for one in plan.visits
    )


def _from_source(
    database: Database,
    settings: Settings,
    source: Source,
    plan: TrialPlan,
    patient_id: str,
    days: Sequence[tuple[date, date]],
) -> tuple[list[str], int]:
    peer = Peer(source.host, source.port, source.ae_title, settings.ae_title, source.timeout_s, source.tls)
    answers = find_studies(peer, patient_id, min(first for first, _ in days), max(last for _, last in days))
    wanted = [
        one.study_uid
        for one in answers
        if one.study_date is not None and any(first <= one.study_date <= last for first, last in days)
    ]
    with database.read() as connection:
        known = set(
            connection.execute(select(node.exam.c.study_uid).where(node.exam.c.study_uid.in_(wanted))).scalars()
        )
    studies = [uid for uid in wanted if uid not in known]
    return studies, sum(_fetch_study(database, source, peer, settings, plan, uid) for uid in studies)


def _fetch_study(
    database: Database, source: Source, peer: Peer, settings: Settings, plan: TrialPlan, study_uid: str
) -> int:
    """Fetch the series of a study that the plan's protocol card can mean; returns how many objects came."""
    names = plan.protocol.split(" + ")
    patterns = [
        card.match.series_description or "" for card in load_cards(settings.protocols_dir) if card.name in names
    ]
    inbox, ledger = Inbox(database.inbox_dir), open_ledger(database)
    for series in find_series(peer, study_uid):
        if series.modality not in ("", "MR"):
            continue
        if not any(re.search(one, series.description, re.IGNORECASE) for one in patterns):
            continue
        missing = {one.sop_uid for one in list_objects(peer, study_uid, series.series_uid) if one.is_image}
        for way in source.retrieve:
            if not missing:
                break
            try:
                fetch_by(way, source, peer, (study_uid, series.series_uid), missing, inbox, ledger)
            except (PeerUnavailable, OSError) as error:
                text = str(error) if isinstance(error, PeerUnavailable) else type(error).__name__
                _log.warning("not fetched", extra={"source": source.name, "way": way, "error": text})
            missing -= _here(database, study_uid)
    return len(_here(database, study_uid))


def _here(database: Database, study_uid: str) -> set[str]:
    table = node.instance
    with database.read() as connection:
        return set(connection.execute(select(table.c.sop_uid).where(table.c.study_uid == study_uid)).scalars())


def _an_image(connection: Any, subject_id: int) -> str | None:
    """Where an image of a subject lies whose exam is surely its own."""
    instance, exam, visit = node.instance, node.exam, db.visit
    query = (
        select(instance.c.path)
        .join(exam, exam.c.study_uid == instance.c.study_uid)
        .join(visit, visit.c.exam_id == exam.c.id)
        .where(
            visit.c.subject_id == subject_id,
            visit.c.state.in_([str(VisitState.MEASURED), str(VisitState.AWAITED), str(VisitState.NOT_EVALUABLE)]),
            instance.c.state == str(InstanceState.INDEXED),
        )
        .order_by(visit.c.scanned_at, instance.c.id)
        .limit(1)
    )
    found: str | None = connection.execute(query).scalar()
    return found


def _named_scans(connection: Any, subject_id: int) -> list[tuple[str, date]]:
    table = db.visit
    query = select(table.c.name, table.c.scan_date).where(
        table.c.subject_id == subject_id,
        table.c.scan_date.is_not(None),
        table.c.state.in_([str(VisitState.MEASURED), str(VisitState.AWAITED), str(VisitState.NOT_EVALUABLE)]),
    )
    return [(row.name, row.scan_date) for row in connection.execute(query.order_by(table.c.scan_date))]


def _note_asked(database: Database, row: Row[Any], now: datetime) -> None:
    with database.write() as connection:
        connection.execute(update(db.subject).where(db.subject.c.id == row.id).values(priors_asked_at=now))
