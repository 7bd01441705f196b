"""What holds results back: the rules of routes and trials, and what becomes of them when versions and visits come.

A delivery is held while anything holds it. Each hold has a name and words for people; when the last is gone, it waits
for its turn as any other.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select, update

from config.release import Release, strictest
from config.settings import Settings
from config.trial_plans import TrialPlan
from processing.results import Verdict
from service import database as db
from service import trial_tables as trials
from service.database import Database
from service.deliveries import Delivery
from service.outbox import REJECTION_NOTE, SUPERSEDED, routes_for
from service.signatures import COPIES
from service.states import DeliveryState, predecessors


class Hold(StrEnum):
    """Why an object may not go yet; of a rejected one, why it never will."""

    VISIT = "visit"  # a trial claims its exam, which is not yet taken for a visit
    POLICY = "policy"  # a person decides, always
    WARNING = "warning"  # a person decides, for something is to be checked
    REVIEW = "review"  # a person decided on an earlier version
    CHANGED = "changed"  # its file is not the one that was approved
    IDENTIFIED = "identified"  # it is not de-identified, and its destination takes nothing else
    ELSEWHERE = "elsewhere"  # its destination is none of its trial's
    BLINDED = "blinded"  # reports are withheld until the trial is unblinded
    PHANTOM = "phantom"  # the QC phantom of its scanner says hold, and nobody has accepted that
    REJECTED = "rejected"  # a person said no
    SUPERSEDED = SUPERSEDED  # a newer version came before it was sent
    RECALLED = "recalled"  # a person took it back


#: What the approval of a person settles.
APPROVABLE = frozenset({Hold.POLICY, Hold.WARNING, Hold.REVIEW, Hold.CHANGED})
#: Holds that neither a rule nor a visit settles.
_NOT_OF_A_RULE = frozenset(Hold) - {Hold.VISIT, Hold.POLICY, Hold.WARNING, Hold.ELSEWHERE}
#: Decisions on a result, as signatures name them, after which a person looks at a new version too.
_DECIDED = ("approved", "rejected", "recalled")
_SAID_NO = ("rejected", "recalled")
_POLICY = "released by a person alone"
#: States from which an object may still be sent, and was not, or not yet again.
_OPEN = tuple(str(state) for state in (DeliveryState.HELD, DeliveryState.WAITING, DeliveryState.GIVEN_UP))


def release_for(
    settings: Settings, *, calling_ae: str, protocol: str, trial: TrialPlan | None, destination: str = ""
) -> Release:
    """The strictest rule of the routes that a result takes, to a destination or at all, and of its trial."""
    routes = routes_for(settings, calling_ae=calling_ae, protocol=protocol)
    found = [route.release for route in routes if not destination or destination in route.send_to]
    return strictest(*found, *([] if trial is None else [trial.release]))


def holds_by_rule(release: Release, warnings: Sequence[str]) -> dict[str, str]:
    """What a rule says of something with these warnings."""
    if release is Release.HOLD:
        return {Hold.POLICY: _POLICY}
    if release is Release.HOLD_ON_WARNING and warnings:
        return {Hold.WARNING: "to be checked: " + "; ".join(warnings)}
    return {}


def holds_for(
    settings: Settings,
    *,
    calling_ae: str,
    protocol: str,
    verdict: Verdict,
    trial: TrialPlan | None,
    destination: str = "",
    warnings: Sequence[str] = (),
) -> dict[str, str]:
    """What holds a result, or a subject's report: nothing, or hold -> why.

    Of an exam that a trial claims there is also :data:`Hold.VISIT`, until it is taken for a visit (:func:`settle`).
    """
    rule = release_for(settings, calling_ae=calling_ae, protocol=protocol, trial=trial, destination=destination)
    return holds_by_rule(rule, [*_warnings_of(verdict), *warnings])


def hold_for(settings: Settings, *, calling_ae: str, protocol: str, verdict: Verdict, trial: TrialPlan | None) -> str:
    """Why a result is held, in words; empty if it may go."""
    facts = {"calling_ae": calling_ae, "protocol": protocol, "verdict": verdict, "trial": trial}
    return "; ".join(holds_for(settings, **facts).values())  # type: ignore[arg-type]


def awaits_visit(trial: TrialPlan) -> dict[str, str]:
    """The hold of an exam that a trial claims."""
    return {Hold.VISIT: f"trial {trial.protocol_id}: not yet taken for a visit"}


def withheld(trial: TrialPlan, *, is_unblinded: bool) -> dict[str, str]:
    """The hold of a subject's report in a trial whose reports wait for its unblinding."""
    if is_unblinded or not trial.blinding.withhold_site_reports:
        return {}
    return {Hold.BLINDED: f"withheld until trial {trial.protocol_id} is unblinded"}


def _warnings_of(verdict: Verdict) -> list[str]:
    return [] if verdict is Verdict.OK else ["the result needs review"]


# --- what changes holds -----------------------------------------------------------------------------------------------


def settle(connection: Connection, job_id: int, warnings: Sequence[str], plan: TrialPlan) -> None:
    """An exam was taken for a visit: its result goes, or is held for what its rule says of it now.

    May be called again with other warnings: what has not been sent or approved yet is judged anew. What a person has
    approved goes, as soon as it is known whose it is. Nothing goes to a destination that the plan does not name (any
    more), whatever a person or a route says.
    """
    verdict = Verdict(connection.execute(select(db.job.c.verdict).where(db.job.c.id == job_id)).scalar_one())
    for row in _open_rows(connection, job_id):
        kept = {name: why for name, why in (row.holds or {}).items() if name in _NOT_OF_A_RULE}
        if row.destination not in plan.destinations:
            kept[Hold.ELSEWHERE] = f"{row.destination} is no destination of trial {plan.protocol_id}"
        if row.approved_sha256 is not None:
            put_holds(connection, row, kept)
            continue
        rule = strictest(Release(row.release or Release.AUTOMATIC), plan.release)
        put_holds(connection, row, kept | holds_by_rule(rule, [*_warnings_of(verdict), *warnings]), release=str(rule))


def unsettle(connection: Connection, job_id: int, why: str) -> None:
    """An exam is no visit any more, or it is not known whose: what has not been sent waits until it is."""
    for row in _open_rows(connection, job_id):
        put_holds(connection, row, {**(row.holds or {}), Hold.VISIT: why})


def leave_subject(connection: Connection, exam_id: int) -> None:
    """An exam is not the subject's any more for whom it was taken: what was approved as theirs is to be decided anew.

    Its de-identified copies bear the subject's name: they are not sent (again).
    """
    stop_copies(connection, exam_id, "its exam is not the subject's any more whose name it bears")
    ids = _jobs_of(connection, exam_id)
    why: dict[str, str] = {
        Hold.VISIT: "its exam was taken back from a subject",
        Hold.REVIEW: "a person approved it as another subject's: it is to be decided on anew",
    }
    for job_id in ids:
        for row in _open_rows(connection, job_id):
            if row.approved_sha256 is not None:
                put_holds(connection, row, {**(row.holds or {}), **why}, approved_sha256=None)


def stop_copies(connection: Connection, exam_id: int, why: str) -> None:
    """What the de-identified copies of an exam say, subject or visit, is not so any more: they are made anew."""
    table, copy = db.delivery, trials.deidentified
    ids = _jobs_of(connection, exam_id)
    is_copy = table.c.path.contains(f"/{COPIES}/", autoescape=True)
    is_left = table.c.state != str(DeliveryState.REJECTED)
    stop(
        connection,
        connection.execute(select(table.c.id).where(table.c.job_id.in_(ids), is_copy, is_left)).all(),
        Hold.SUPERSEDED,
        why,
    )
    connection.execute(update(copy).where(copy.c.job_id.in_(ids)).values(made_at=None))


def hold_copies_sent_before(connection: Connection, job_id: int, now: datetime) -> None:
    """Copies that were made anew have the UIDs of those before: what was sent of these is to be removed there first.

    An archive may keep what it has, under the other subject or visit, and say that it took the new one.
    """
    why = "it was sent as another subject's or visit's: have it removed there first, then approve"
    for row in _open_rows(connection, job_id):
        if row.sent_at is not None and f"/{COPIES}/" in row.path:
            put_holds(connection, row, {**(row.holds or {}), Hold.REVIEW: why}, not_before=now)


def _jobs_of(connection: Connection, exam_id: int) -> list[int]:
    job = db.job
    return list(connection.execute(select(job.c.id).where(job.c.exam_id == exam_id)).scalars())


def unsettle_reports(connection: Connection, subject_id: int, why: str) -> None:
    """What a subject's reports show is not so any more: what has not been sent of them waits for a new version."""
    for row in _open_rows_of_reports(connection, subject_id):
        put_holds(connection, row, {**(row.holds or {}), Hold.VISIT: why})


def settle_reports(connection: Connection, subject_id: int) -> None:
    """The newest report of a subject shows what is so: it is as it was before :func:`unsettle_reports`."""
    for row in _open_rows_of_reports(connection, subject_id):
        put_holds(connection, row, {name: text for name, text in (row.holds or {}).items() if name != Hold.VISIT})


def settle_destinations_of_reports(connection: Connection, trial_id: int, plan: TrialPlan) -> None:
    """A trial's plan has changed: no report goes to a destination that it does not name (any more)."""
    subject = trials.subject
    subjects = select(subject.c.id).where(subject.c.trial_id == trial_id)
    for row in _open_rows_of_reports(connection, *connection.execute(subjects).scalars()):
        holds = {name: text for name, text in (row.holds or {}).items() if name != Hold.ELSEWHERE}
        if row.destination not in plan.destinations:
            holds[Hold.ELSEWHERE] = f"{row.destination} is no destination of trial {plan.protocol_id}"
        put_holds(connection, row, holds)


def _open_rows_of_reports(connection: Connection, *subject_ids: int) -> Sequence[Row[Any]]:
    table, report = db.delivery, trials.subject_report
    of_subjects = select(report.c.id).where(report.c.subject_id.in_(subject_ids))
    query = select(table).where(table.c.report_id.in_(of_subjects), table.c.state.in_(_OPEN))
    return connection.execute(query.with_for_update()).all()


def _open_rows(connection: Connection, job_id: int) -> Sequence[Row[Any]]:
    """What of a job is held or waits, or was given up, for it may be sent after all; not of reports, no notes."""
    table = db.delivery
    of_job = (table.c.job_id == job_id, table.c.report_id.is_(None), table.c.kind != REJECTION_NOTE)
    query = select(table).where(*of_job, table.c.state.in_(_OPEN))
    return connection.execute(query.with_for_update()).all()


def put_holds(connection: Connection, row: Row[Any] | Delivery, holds: Mapping[str, str], **values: Any) -> None:
    """Give a delivery that is held or waits these holds, and the state that follows; what is given up stays so."""
    state = DeliveryState.HELD if holds else DeliveryState.WAITING
    if row.state == DeliveryState.GIVEN_UP:
        state = DeliveryState.GIVEN_UP
    is_as_it_was = state == row.state and dict(holds) == (row.holds or {})
    if is_as_it_was and all(getattr(row, name) == value for name, value in values.items()):
        return
    connection.execute(
        update(db.delivery)
        .where(db.delivery.c.id == row.id, db.delivery.c.state == str(row.state))
        .values(state=str(state), holds=dict(holds) or None, **values)
    )


def stop(connection: Connection, rows: Sequence[Any], hold: Hold, why: str) -> int:
    """Let nothing of these deliveries be sent (again), whatever has become of them; how many."""
    table = db.delivery
    allowed = table.c.state.in_([str(state) for state in predecessors(DeliveryState.REJECTED)])
    ids = [row.id for row in rows]
    changed = update(table).where(table.c.id.in_(ids), allowed)
    return connection.execute(changed.values(state=str(DeliveryState.REJECTED), holds={hold: why})).rowcount


def take_place(connection: Connection, job_id: int, now: datetime) -> None:
    """A job is done: of earlier versions of its exam nothing that a person must decide on, or has approved, goes out.

    Their approval is void; and where a person has decided on one of them, this version is held for a person too. So is
    what is put down of a job that a person has rejected or recalled before.
    """
    job, table = db.job, db.delivery
    exam_id, version = connection.execute(select(job.c.exam_id, job.c.version).where(job.c.id == job_id)).one()
    earlier = connection.execute(select(job.c.id).where(job.c.exam_id == exam_id, job.c.version < version)).scalars()
    ids = list(earlier)
    if was_decided(connection, "job", [job_id], _SAID_NO):
        _review(connection, job_id, "a person rejected or recalled the result: this is to be decided on too", now)
    if not ids:
        return
    of_them = (table.c.job_id.in_(ids), table.c.report_id.is_(None))
    _supersede(connection, of_them, f"version {version} took its place")
    if was_decided(connection, "job", ids):
        _review(connection, job_id, "a person decided on an earlier version: this one is to be decided on too", now)


def _review(connection: Connection, job_id: int, why: str, now: datetime) -> None:
    for row in _open_rows(connection, job_id):
        put_holds(connection, row, {**(row.holds or {}), Hold.REVIEW: why}, not_before=now)


def take_place_of_report(connection: Connection, report_id: int) -> None:
    """A new version of a subject's report: as :func:`take_place`, for the deliveries that are already put down."""
    report, table = trials.subject_report, db.delivery
    new = connection.execute(select(report).where(report.c.id == report_id)).one()
    same = (report.c.subject_id == new.subject_id, report.c.version < new.version)
    ids = list(connection.execute(select(report.c.id).where(*same)).scalars())
    if not ids:
        return
    _supersede(connection, (table.c.report_id.in_(ids),), f"version {new.version} of the report took its place")
    if was_decided(connection, "report", ids):
        why = "a person decided on an earlier version: this one is to be decided on too"
        query = select(table).where(table.c.report_id == report_id, table.c.state.in_(_OPEN))
        for row in connection.execute(query).all():
            put_holds(connection, row, {**(row.holds or {}), Hold.REVIEW: why})


def _supersede(connection: Connection, conditions: Sequence[Any], why: str) -> None:
    table = db.delivery
    is_held = table.c.state == str(DeliveryState.HELD)
    is_approved = (table.c.state == str(DeliveryState.WAITING)) & table.c.approved_sha256.is_not(None)
    rows = connection.execute(select(table.c.id).where(*conditions, is_held | is_approved)).all()
    if rows:
        stop(connection, rows, Hold.SUPERSEDED, why)


def was_decided(
    connection: Connection, subject_of: str, keys: Sequence[int], decisions: Sequence[str] = _DECIDED
) -> bool:
    """Whether a person has decided so on one of these results."""
    table = trials.signature
    query = select(table.c.id).where(table.c.subject_of == subject_of, table.c.subject_key.in_(keys))
    return connection.execute(query.where(table.c.decision.in_(decisions)).limit(1)).first() is not None


def hold_changed(database: Database, one: Delivery) -> None:
    """Before it is sent, an approved object was found to have another file than was approved: it is held again."""
    table = db.delivery
    why = {Hold.CHANGED: "its file is not the one that was approved"}
    with database.write() as connection:
        connection.execute(
            update(table)
            .where(table.c.id == one.id, table.c.state == str(DeliveryState.WAITING))
            .values(state=str(DeliveryState.HELD), holds=why, approved_sha256=None)
        )


def hold_identified(database: Database, one: Delivery) -> None:
    """Before it is sent, an object was found to be identified, though its destination takes only what is not."""
    table = db.delivery
    why = {Hold.IDENTIFIED: "it is not de-identified, and its destination takes nothing else"}
    with database.write() as connection:
        connection.execute(
            update(table)
            .where(table.c.id == one.id, table.c.state == str(DeliveryState.WAITING))
            .values(state=str(DeliveryState.HELD), holds=why, approved_sha256=None)
        )
