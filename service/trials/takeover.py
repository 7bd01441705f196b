"""Takes exams for subjects and writes down what is decided of them, inside the caller's transaction."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from config.trial_plans import TrialPlan
from processing.refusal import ReasonCode
from service import database as node
from service import trial_tables as db
from service.audit import AuditEvent, AuditKind, note
from service.database import move
from service.holds import leave_subject, stop_copies, unsettle_reports
from service.states import ExamState, SubjectState, VisitState
from service.trials.candidates import (
    Subject,
    discs_without_value,
    facts_as_columns,
    facts_of_row,
    read_candidates,
    subject_of_row,
)
from service.trials.decisions import VisitDecision, decide, known_identity
from service.trials.exam_facts import ExamFacts
from service.trials.matching import DATE, Claim, claim_of
from service.trials.missing import note_expected
from service.trials.registry import Trial
from service.trials.releasing import hold_at_the_door, hold_what_is_none, settle_release
from service.trials.words import as_words

_log = logging.getLogger(__name__)

_MOST_WORDS = 2000  # of a detail


def take_exam(
    connection: Connection, trials: Sequence[Trial], exam_id: int, facts: ExamFacts | None, now: datetime
) -> None:
    """Write down what an exam says, find out whose it is, and decide anew on all subjects that it touches.

    ``facts``: None where its files can no longer be read: what was read before stays.
    """
    table = db.trial_exam
    known = connection.execute(select(table).where(table.c.exam_id == exam_id)).one_or_none()
    if facts is not None:
        if known is None:
            connection.execute(insert(table).values(exam_id=exam_id, set_aside=False, **facts_as_columns(facts)))
        else:
            connection.execute(update(table).where(table.c.exam_id == exam_id).values(**facts_as_columns(facts)))
    elif known is None:
        return
    update_subjects(connection, trials, claim_again(connection, trials, [exam_id], now), now)


def lock_trials(connection: Connection) -> None:
    """Let nobody else decide meanwhile: a command and the node's own sweep. SQLite has one writer anyway."""
    connection.execute(select(db.trial.c.id).order_by(db.trial.c.id).with_for_update()).all()


def leave_exam(connection: Connection, trials: Sequence[Trial], exam_id: int, now: datetime) -> None:
    """An exam's images are measured with those of another exam now: it is no visit of its own."""
    table = db.trial_exam
    row = connection.execute(select(table).where(table.c.exam_id == exam_id)).one_or_none()
    if row is None or row.trial_id is None:
        return
    nothing = {"subject_id": None, "trial_id": None, "code": None, "detail": None, "held_number": None}
    connection.execute(update(table).where(table.c.exam_id == exam_id).values(**nothing))
    hold_what_is_none(connection, exam_id, "its images are measured with those of another study")
    if row.subject_id is not None:
        update_subjects(connection, trials, [row.subject_id], now)


def claim_again(connection: Connection, trials: Sequence[Trial], exam_ids: Iterable[int], now: datetime) -> set[int]:
    """Find out anew whose some exams are; returns the subjects that have gained, kept or lost one."""
    table = db.trial_exam
    touched: set[int] = set()
    lock_trials(connection)
    for exam_id in exam_ids:
        row = connection.execute(select(table).where(table.c.exam_id == exam_id)).one()
        claim = claim_of(connection, trials, exam_id, facts_of_row(row), as_words(row))
        if _is_joined(connection, exam_id):
            claim = None  # it is part of another exam
        subject_id, code, detail = None, None, None
        if claim is not None:
            subject_id, code, detail = _subject_for(connection, claim, now)
        values = {
            "trial_id": row.trial_id if claim is None and row.said_by else None if claim is None else claim.trial.id,
            "subject_id": subject_id,
            "claimed_by": None if claim is None else claim.by,
            "visit_label": None if claim is None else claim.visit,
            "code": code,
            "detail": None if detail is None else detail[:_MOST_WORDS],
            "held_number": None,
        }
        if row.subject_id is not None and subject_id != row.subject_id:
            values["accepted"] = None  # what was no doubt of one subject may be one of another
        if claim is not None and subject_id is None:
            values["held_number"] = row.held_number or _next_number(connection)
        connection.execute(update(table).where(table.c.exam_id == exam_id).values(**values))
        if claim is not None and subject_id is None:
            hold_at_the_door(connection, exam_id, claim.trial.plan, code or "")
        if values["trial_id"] is None and row.trial_id is not None:
            hold_what_is_none(connection, exam_id, "of no trial any more; to send it: discnode jobs reprocess")
        touched |= {one for one in (row.subject_id, subject_id) if one is not None}
    return touched


def _is_joined(connection: Connection, exam_id: int) -> bool:
    exam = node.exam
    return connection.execute(select(exam.c.state).where(exam.c.id == exam_id)).scalar() == ExamState.JOINED


def _subject_for(connection: Connection, claim: Claim, now: datetime) -> tuple[int | None, str | None, str | None]:
    """The subject of a claim, made where the plan allows that; else why there is none."""
    plan, name = claim.trial.plan, claim.subject_id
    found = find_subject(connection, claim.trial.id, name) if name else None
    if found is not None:
        return found, claim.code or None, claim.detail or None
    if claim.code:
        return None, claim.code, claim.detail
    site_id = claim.site_id or (plan.sites[0].id if len(plan.sites) == 1 else "")
    fault = why_no_subject(plan, name, site_id)
    if not fault and plan.enrolment == "listed":
        fault = f"subject {name} is not in the subjects' table"
    if fault:
        return None, str(ReasonCode.REVIEW_REQUIRED), fault
    return add_subject(connection, claim.trial, name, site_id, now), None, None


def find_subject(connection: Connection, trial_id: int, name: str) -> int | None:
    """The number of a subject's row."""
    table = db.subject
    query = select(table.c.id).where(table.c.trial_id == trial_id, table.c.subject_id == name)
    return connection.execute(query).scalar()


def why_no_subject(plan: TrialPlan, name: str, site_id: str) -> str:
    """Why there can be no such subject in a trial, in words; "" where there can. An ID of another form is not told."""
    if not name:
        return "nothing names its subject"
    if not plan.is_subject(name):
        return "its subject's ID is not of the form that the plan asks for"
    sites = [one.id for one in plan.sites]
    if not site_id:
        return f"nothing names the site of subject {name}; the plan has {', '.join(sites)}"
    return "" if site_id in sites else f"the site {site_id!r} is none of the plan's: {', '.join(sites)}"


def add_subject(connection: Connection, trial: Trial, name: str, site_id: str, now: datetime, **values: Any) -> int:
    """A new subject; returns the number of its row."""
    row = {"trial_id": trial.id, "subject_id": name, "site_id": site_id, "state": str(SubjectState.ACTIVE)}
    result = connection.execute(insert(db.subject).values(created_at=now, **{"is_listed": False} | row | values))
    assert result.inserted_primary_key is not None
    note(connection, AuditEvent(AuditKind.TRIAL, now, detail=f"trial {trial.protocol_id}: subject {name} added"))
    return int(result.inserted_primary_key[0])


# --- deciding ---------------------------------------------------------------------------------------------------------


def update_subjects(connection: Connection, trials: Sequence[Trial], subject_ids: Iterable[int], now: datetime) -> None:
    """Decide anew on some subjects, and on all that are touched by what is now known of who these are."""
    lock_trials(connection)
    by_id = {one.id: one for one in trials}
    due = set(subject_ids)
    changed = {(trial_id, digest) for one in sorted(due) for trial_id, digest in _identify(connection, by_id, one)}
    for trial_id, digest in sorted(changed):
        due |= _sharing(connection, trials, trial_id, digest, now)
    for one in sorted(due):
        _settle(connection, by_id, one, now)
    for one in sorted(due):
        _drop_if_nothing(connection, by_id, one, now)


def _read_subject(connection: Connection, trials: dict[int, Trial], subject_id: int) -> tuple[Trial, Subject]:
    row = connection.execute(select(db.subject).where(db.subject.c.id == subject_id)).one()
    trial = trials[row.trial_id]
    is_given = trial.plan.day_zero == "given"
    without_value = discs_without_value(connection, subject_id)
    return trial, subject_of_row(row, day_zero_is_given=is_given, without_value=without_value)


def _identify(connection: Connection, trials: dict[int, Trial], subject_id: int) -> set[tuple[int, str]]:
    """Write down whose PatientID a subject has; returns trial and digest of what it was and is, if that changed."""
    trial, subject = _read_subject(connection, trials, subject_id)
    known = known_identity(trial.plan, subject, read_candidates(connection, subject_id))
    table = db.subject
    before = connection.execute(select(table.c.patient_digest).where(table.c.id == subject_id)).scalar()
    values = {"patient_digest": known.patient_digest, "birth_year": known.birth_year, "sex": known.sex or None}
    connection.execute(update(table).where(table.c.id == subject_id).values(site_id=known.site_id, **values))
    if before == known.patient_digest:
        return set()
    return {(trial.id, digest) for digest in (before, known.patient_digest) if digest is not None}


def _sharing(connection: Connection, trials: Sequence[Trial], trial_id: int, digest: str, now: datetime) -> set[int]:
    """The subjects whose exams or selves have this PatientID; exams that only it can assign are claimed anew."""
    table, subject = db.trial_exam, db.subject
    rows = connection.execute(select(table).where(table.c.patient_digest == digest)).all()
    loose = [row.exam_id for row in rows if row.subject_id is None or row.claimed_by == DATE]
    touched = {row.subject_id for row in rows if row.subject_id is not None}
    touched |= claim_again(connection, trials, loose, now)
    same = select(subject.c.id).where(subject.c.trial_id == trial_id, subject.c.patient_digest == digest)
    return touched | set(connection.execute(same).scalars())


def _others(connection: Connection, subject: Subject, digests: set[str]) -> dict[str, list[str]]:
    """Digest of a PatientID -> the trial's other subjects who have it."""
    table = db.subject
    query = select(table.c.patient_digest, table.c.subject_id).where(
        table.c.trial_id == subject.trial_id, table.c.id != subject.id, table.c.patient_digest.in_(digests)
    )
    found: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(table.c.subject_id)):
        found.setdefault(row.patient_digest, []).append(row.subject_id)
    return found


def _settle(connection: Connection, trials: dict[int, Trial], subject_id: int, now: datetime) -> None:
    trial, subject = _read_subject(connection, trials, subject_id)
    candidates = read_candidates(connection, subject_id)
    digests = {one.facts.patient_digest for one in candidates if one.facts.patient_digest is not None}
    decision = decide(trial, subject, candidates, _others(connection, subject, digests), now)
    changes = _write_visits(connection, subject_id, decision.visits, now)
    if trial.plan.day_zero != "given":
        table = db.subject
        is_other = table.c.day_zero.is_distinct_from(decision.day_zero)  # then priors of other days are to be asked for
        values = {"day_zero": decision.day_zero, "priors_asked_at": None}
        connection.execute(update(table).where(table.c.id == subject_id, is_other).values(**values))
    note_expected(connection, trial, subject, decision, now)
    settle_release(connection, decision.visits, trial.plan)
    is_measured = any(one.state is VisitState.MEASURED for one in decision.visits)
    if changes and (is_measured or _has_report(connection, subject_id)):
        ask_for_report(connection, subject_id, "; ".join(changes), now)


def _has_report(connection: Connection, subject_id: int) -> bool:
    table = db.subject_report
    return connection.execute(select(table.c.id).where(table.c.subject_id == subject_id).limit(1)).first() is not None


def _drop_if_nothing(connection: Connection, trials: dict[int, Trial], subject_id: int, now: datetime) -> None:
    """A subject that was made by an exam, which turned out to be another's, and of which nothing else is known."""
    subject = connection.execute(select(db.subject).where(db.subject.c.id == subject_id)).one()
    if subject.is_listed or subject.lowest_disc or subject.state != SubjectState.ACTIVE:
        return
    for table in (db.trial_exam, db.visit, db.non_evaluable, db.subject_report, db.deidentified):
        if connection.execute(select(table.c.subject_id).where(table.c.subject_id == subject_id).limit(1)).first():
            return
    for table in (db.report_due, db.missed_visit):
        connection.execute(delete(table).where(table.c.subject_id == subject_id))
    connection.execute(delete(db.subject).where(db.subject.c.id == subject_id))
    text = f"trial {trials[subject.trial_id].protocol_id}: subject {subject.subject_id} removed: no exam is of it"
    note(connection, AuditEvent(AuditKind.TRIAL, now, detail=text))


def _write_visits(connection: Connection, subject_id: int, visits: Sequence[VisitDecision], now: datetime) -> list[str]:
    """Bring the record to what was decided; returns what has changed, in words."""
    table = db.visit
    known = {row.exam_id: row for row in connection.execute(select(table).where(table.c.subject_id == subject_id))}
    changes = []
    for exam_id in sorted(known.keys() - {one.exam_id for one in visits}):
        _forget(connection, known[exam_id].id)
        changes.append(f"exam {exam_id} is no longer of the subject")
    for one in visits:
        values = _columns(one)
        row = known.get(one.exam_id)
        is_news = one.state is VisitState.HELD and (row is None or row.state != VisitState.HELD or row.code != one.code)
        number = _next_number(connection) if is_news else None if row is None else row.held_number
        values["held_number"] = number
        if row is None:
            # It may have been another subject's until a moment ago.
            stray = connection.execute(select(table.c.id).where(table.c.exam_id == one.exam_id)).scalar()
            if stray is not None:
                _forget(connection, stray)
            values |= {"exam_id": one.exam_id, "subject_id": subject_id, "state": str(one.state), "changed_at": now}
            connection.execute(insert(table).values(**values))
        elif row.state == one.state and all(getattr(row, name) == value for name, value in values.items()):
            continue
        elif row.state == one.state:
            connection.execute(update(table).where(table.c.id == row.id).values(changed_at=now, **values))
        else:
            move(connection, table, row.id, one.state, changed_at=now, **values)
        if row is not None and row.name != one.name:
            stop_copies(connection, one.exam_id, f"it says to be {row.name} and is {one.name}")
        changes.append(f"{one.name} is {one.state}")
        if one.state is VisitState.HELD:
            _log.warning("visit held", extra={"exam": one.exam_id, "code": one.code, "visit": one.name})
    return changes


def _next_number(connection: Connection) -> int:
    """A number above that of all exams that were held before."""
    tables = (db.visit, db.trial_exam)
    found = [connection.execute(select(func.max(one.c.held_number))).scalar() or 0 for one in tables]
    return max(found) + 1


def _forget(connection: Connection, visit_id: int) -> None:
    """Take a visit's row away, whose exam is another's; questions to the site stay with the exam."""
    exam_id = connection.execute(select(db.visit.c.exam_id).where(db.visit.c.id == visit_id)).scalar_one()
    leave_subject(connection, exam_id)
    connection.execute(update(db.query).where(db.query.c.visit_id == visit_id).values(visit_id=None))
    connection.execute(delete(db.reading).where(db.reading.c.visit_id == visit_id))
    connection.execute(delete(db.visit).where(db.visit.c.id == visit_id))


def _columns(one: VisitDecision) -> dict[str, Any]:
    moment = one.scanned_at
    return {
        "name": one.name,
        "job_id": None if one.result is None else one.result.job_id,
        "scanned_at": None if moment is None else moment.isoformat(),
        "scan_date": None if moment is None else moment.date(),
        "assigned_by": one.assigned_by,
        "code": one.code or None,
        "detail": one.detail[:_MOST_WORDS] or None,
        "doubts": list(one.doubts),
        "deviations": [asdict(difference) for difference in one.differences],
    }


def ask_for_report(connection: Connection, subject_id: int, why: str, now: datetime) -> None:
    """Have a subject's report made, or made anew."""
    table = db.report_due
    values = {"why": why[:255], "asked_at": now, "attempts": 0, "not_before": now, "error": None}
    if connection.execute(update(table).where(table.c.subject_id == subject_id).values(**values)).rowcount == 0:
        connection.execute(insert(table).values(subject_id=subject_id, **values))
    unsettle_reports(connection, subject_id, "a new version of the report is due")
