"""Release: what a person decides about held results and reports, each decision signed. Nothing held leaves before.

The rules of what is held stand in :mod:`service.holds`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, func, select

from service import database as db
from service import trial_tables as trials
from service.database import Database
from service.deliveries import Delivery, record_of
from service.holds import APPROVABLE, Hold, put_holds, stop
from service.holds import hold_for as hold_for
from service.holds import holds_for as holds_for
from service.holds import release_for as release_for
from service.holds import settle as settle
from service.job_records import exam_folder
from service.outbox import REJECTION_NOTE
from service.queries import ask, open_queries
from service.signatures import CannotSign, Content, RejectCode, Signing, content_of, sign, signatures_on
from service.states import DeliveryState, JobState

Kind = Literal["job", "report"]


class CannotDecide(Exception):
    """A decision that is not possible now; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is decided on: the result of a job, or a report about a subject."""

    kind: Kind
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"


def parse_target(text: str) -> Target:
    """A target as people write it: 12 or job-12, report-3.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"(?:(job|report)-)?([0-9]{1,10})", text)
    if found is None or not 0 < int(found[2]) < 2**31:
        raise ValueError(f"{text!r} is neither the number of a job, such as 12, nor a report, such as report-3")
    return Target("report" if found[1] == "report" else "job", int(found[2]))


@dataclass(frozen=True, slots=True)
class Item:
    """A result or report with deliveries that are held.

    ``folder``: relative to the storage folder. ``holds``: of all of its deliveries, hold -> why. ``trial``,
    ``subject``, ``visit``: empty where it is of none.
    """

    target: Target
    study_uid: str
    exam_id: int
    version: int
    verdict: str
    made_at: datetime
    folder: Path
    trial: str
    subject: str
    visit: str
    deliveries: tuple[Delivery, ...]
    n_open_queries: int

    @property
    def held(self) -> tuple[Delivery, ...]:
        """Its deliveries that are held."""
        return tuple(one for one in self.deliveries if one.state is DeliveryState.HELD)

    @property
    def holds(self) -> dict[str, str]:
        """What holds any of them."""
        return {name: why for one in self.held for name, why in (one.holds or {}).items()}

    def as_dict(self) -> dict[str, Any]:
        """For the API: no path."""
        counts: dict[str, int] = {}
        for one in self.deliveries:
            counts[str(one.state)] = counts.get(str(one.state), 0) + 1
        names = ("study_uid", "exam_id", "version", "verdict", "trial", "subject", "visit", "n_open_queries")
        return {
            "target": f"{self.target.kind}-{self.target.number}",
            **{name: getattr(self, name) for name in names},
            "made_at": self.made_at.isoformat(),
            "held_for": self.holds,
            "destinations": sorted({one.destination for one in self.held}),
            "deliveries": counts,
        }


def list_held(database: Database) -> list[Item]:
    """Everything of which something is held, oldest first."""
    table = db.delivery
    query = select(table.c.job_id, table.c.report_id).where(table.c.state == str(DeliveryState.HELD)).distinct()
    with database.read() as connection:
        rows = connection.execute(query.order_by(table.c.job_id)).all()
        targets = dict.fromkeys(
            Target("job", row.job_id) if row.report_id is None else Target("report", row.report_id) for row in rows
        )
        return [item for target in targets if (item := _read_item(connection, target)) is not None]


def get_item(database: Database, target: Target) -> Item | None:
    """One result or report, held or not; None if there is none of that number."""
    with database.read() as connection:
        return _read_item(connection, target)


def describe(database: Database, item: Item) -> dict[str, Any]:
    """An item with its signatures, queries and the digest that a decision on it is bound to; for the API."""
    with database.read() as connection:
        signatures = signatures_on(connection, item.target.kind, item.target.number)
        queries = open_queries(connection, item.exam_id)
    return {
        **item.as_dict(),
        "content_sha256": _content(database, item).sha256,
        "objects": [one.as_dict() for one in item.deliveries],
        "signatures": signatures,
        "open_queries": queries,
    }


def approve(database: Database, target: Target, signing: Signing) -> int:
    """Let what is held of a result go, by a person's signature. Returns how many objects go now.

    The signature is bound to the files of the result, and each object goes only while its file is the one that was
    approved.

    Raises:
        CannotSign: name or meaning is missing, or the reason where warnings hold it.
        CannotDecide: nothing of it is held; a newer version is there; it is not yet taken for a visit; a query is open;
            or its files are not those that the person looked at.
    """
    item = _needed(database, target)
    signing.check(needs_reason=Hold.WARNING in item.holds)
    content = _content(database, item)
    if signing.content_sha256 and signing.content_sha256 != content.sha256:
        raise CannotDecide(f"{target} is not what you looked at: look again")
    with database.write() as connection:
        now = _read_item(connection, target)
        assert now is not None
        _check_approvable(connection, now)
        sign(connection, target.kind, target.number, "approved", signing, content.sha256, studies=(item.study_uid,))
        n_free = 0
        for one in now.held:
            left = {name: why for name, why in (one.holds or {}).items() if name not in APPROVABLE}
            if one.path not in content.files:  # put down since it was looked at
                raise CannotDecide(f"{target} is not what you looked at: look again")
            put_holds(connection, one, left, approved_sha256=content.files[one.path], not_before=signing.at)
            n_free += not left
        return n_free


def reject(database: Database, target: Target, signing: Signing) -> int:
    """Never let go what is held or waits of a result, by a person's signature. Returns how many objects.

    What was sent before is not touched: see :func:`service.recall.recall`.

    Raises:
        CannotSign: name, meaning, reason or coded reason is missing.
        CannotDecide: nothing of it is held or waits.
    """
    item = _needed(database, target)
    signing.check(needs_reason=True)
    if signing.code not in list(RejectCode):
        raise CannotSign(f"a rejection needs a coded reason: {', '.join(RejectCode)}")
    try:
        sha256 = _content(database, item).sha256
    except CannotDecide:  # its files are gone: it can be rejected all the same
        sha256 = ""
    with database.write() as connection:
        now = _read_item(connection, target)
        assert now is not None
        open_states = (DeliveryState.HELD, DeliveryState.WAITING)
        rows = [one for one in now.deliveries if one.state in open_states and one.kind != REJECTION_NOTE]
        if not rows:
            raise CannotDecide(f"nothing of {target} is held or waits; what was sent is taken back by a recall")
        sign(connection, target.kind, target.number, "rejected", signing, sha256, studies=(item.study_uid,))
        return stop(connection, rows, Hold.REJECTED, f"rejected: {signing.code}")


def ask_site(database: Database, target: Target, signing: Signing, due_on: date) -> int:
    """Ask the site about a result: nothing of it is approved while the query is open. Returns the query's number.

    Raises:
        CannotSign: name, meaning, question or coded reason is missing.
        CannotDecide: there is no such result.
    """
    item = _needed(database, target)
    return ask(database, item.exam_id, signing, due_on, (target.kind, target.number))


def _needed(database: Database, target: Target) -> Item:
    item = get_item(database, target)
    if item is None:
        raise CannotDecide(f"there is no {target}")
    return item


def _content(database: Database, item: Item) -> Content:
    try:
        return content_of(database.storage_dir, item.folder, {one.path for one in item.held})
    except FileNotFoundError as error:
        raise CannotDecide(f"the files of {item.target} are no longer there") from error


def _check_approvable(connection: Connection, item: Item) -> None:
    if not item.held:
        raise CannotDecide(f"nothing of {item.target} is held")
    newer = _newer_version(connection, item)
    if newer is not None:
        raise CannotDecide(f"{item.target} is version {item.version}: version {newer} took its place")
    if Hold.VISIT in item.holds:
        raise CannotDecide(f"{item.target}: {item.holds[Hold.VISIT]}")
    if item.n_open_queries:
        raise CannotDecide(f"{item.target} has an open query: resolve it first")


def _newer_version(connection: Connection, item: Item) -> int | None:
    if item.target.kind == "job":
        job = db.job
        query = select(func.max(job.c.version)).where(
            job.c.exam_id == item.exam_id, job.c.version > item.version, job.c.state == str(JobState.DONE)
        )
    else:
        report = trials.subject_report
        own = select(report.c.subject_id).where(report.c.id == item.target.number).scalar_subquery()
        query = select(func.max(report.c.version)).where(report.c.subject_id == own, report.c.version > item.version)
    found: int | None = connection.execute(query).scalar()
    return found


def _read_item(connection: Connection, target: Target) -> Item | None:
    table, job, report = db.delivery, db.job, trials.subject_report
    made: Row[Any] | None = None
    own: ColumnElement[bool]
    if target.kind == "job":
        job_id, own = target.number, (table.c.job_id == target.number) & table.c.report_id.is_(None)
    else:
        made = connection.execute(select(report).where(report.c.id == target.number)).one_or_none()
        if made is None:
            return None
        job_id, own = made.job_id, table.c.report_id == target.number
    about = select(job, db.exam.c.study_uid).join(db.exam, db.exam.c.id == job.c.exam_id).where(job.c.id == job_id)
    row = connection.execute(about).one_or_none()
    if row is None:
        return None
    rows: Sequence[Row[Any]] = connection.execute(select(table).where(own).order_by(table.c.id)).all()
    trial, subject, visit = _whose(connection, row.exam_id, made)
    return Item(
        target=target,
        study_uid=row.study_uid,
        exam_id=row.exam_id,
        version=row.version if made is None else made.version,
        verdict=(row.verdict or "") if made is None else ("needs_review" if made.has_warnings else "ok"),
        made_at=(row.finished_at or row.created_at) if made is None else made.created_at,
        folder=exam_folder(row.exam_id) / f"v{row.version}" if made is None else Path(made.folder),
        trial=trial,
        subject=subject,
        visit="" if made is not None else visit,
        deliveries=tuple(record_of(one) for one in rows),
        n_open_queries=len(open_queries(connection, row.exam_id)),
    )


def _whose(connection: Connection, exam_id: int, made: Row[Any] | None) -> tuple[str, str, str]:
    """Trial, subject and visit; empty where it is of none."""
    trial, subject, visit = trials.trial, trials.subject, trials.visit
    names = select(trial.c.protocol_id, subject.c.subject_id)
    if made is not None:
        of_it = names.join(subject, subject.c.trial_id == trial.c.id).where(subject.c.id == made.subject_id)
        found = connection.execute(of_it).one_or_none()
        return ("", "", "") if found is None else (found[0], found[1], "")
    query = names.add_columns(visit.c.name).join(subject, subject.c.trial_id == trial.c.id)
    query = query.join(visit, visit.c.subject_id == subject.c.id).where(visit.c.exam_id == exam_id)
    row = connection.execute(query).one_or_none()
    return ("", "", "") if row is None else (row[0], row[1], row[2])
