"""The subjects of a trial: listed by a person or made by their first exam; confirmed levels, discs without a value."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from config.trial_plans import TrialPlan
from processing.results import Level
from service import trial_tables as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database, move
from service.signatures import Signing, sign
from service.states import SubjectState, VisitState
from service.trials.people import CannotDecide
from service.trials.registry import Trial, trial_by_id, trials_of
from service.trials.takeover import (
    add_subject,
    ask_for_report,
    claim_again,
    find_subject,
    update_subjects,
    why_no_subject,
)


@dataclass(frozen=True, slots=True)
class ListedSubject:
    """A row of the subjects' table. ``patient_digest``: of the PatientID, which is not kept."""

    subject_id: str
    site_id: str
    patient_digest: str | None
    birth_year: int | None
    sex: str
    day_zero: date | None


def list_subjects(connection: Connection, trial: Trial, subjects: list[ListedSubject], signing: Signing) -> int:
    """Write the subjects' table down, inside the caller's transaction; returns how many are new.

    Raises:
        CannotDecide: one of them contradicts what is on record; nothing must be written then.
    """
    table = db.subject
    n_new, touched = 0, []
    for one in subjects:
        fault = why_no_subject(trial.plan, one.subject_id, one.site_id)
        if fault:
            raise CannotDecide(f"{one.subject_id}: {fault}")
        imported = {"patient_digest": one.patient_digest, "birth_year": one.birth_year, "sex": one.sex}
        values: dict[str, Any] = {"is_listed": True, "imported": imported}
        if one.day_zero is not None:
            values["day_zero"] = one.day_zero
        known = find_subject(connection, trial.id, one.subject_id)
        if known is None:
            known = add_subject(connection, trial, one.subject_id, one.site_id, signing.at, **values)
            n_new += 1
        else:
            site_id = connection.execute(select(table.c.site_id).where(table.c.id == known)).scalar_one()
            if site_id != one.site_id:
                raise CannotDecide(f"{one.subject_id} is of site {site_id} on record, not of {one.site_id}")
            connection.execute(update(table).where(table.c.id == known).values(**values))
        touched.append(known)
    _check_no_shared_patient(connection, trial, subjects)
    sign(connection, "trial", trial.id, "subjects_listed", signing, "")
    trials = trials_of(connection)
    # Exams that came before their subjects were known are looked at again.
    waiting = select(db.trial_exam.c.exam_id).where(
        db.trial_exam.c.trial_id == trial.id, db.trial_exam.c.subject_id.is_(None)
    )
    touched += claim_again(connection, trials, connection.execute(waiting).scalars().all(), signing.at)
    update_subjects(connection, trials, touched, signing.at)
    return n_new


def _check_no_shared_patient(connection: Connection, trial: Trial, subjects: list[ListedSubject]) -> None:
    table = db.subject
    for one in subjects:
        if one.patient_digest is None:
            continue
        same = select(table.c.subject_id, table.c.imported).where(
            table.c.trial_id == trial.id, table.c.subject_id != one.subject_id
        )
        for row in connection.execute(same):
            if (row.imported or {}).get("patient_digest") == one.patient_digest:
                raise CannotDecide(f"IDENTITY_CONFLICT: {one.subject_id} and {row.subject_id} have one PatientID")


def get_subject(connection: Connection, name: str, protocol_id: str = "") -> Row[Any]:
    """A subject's row, with its trial's ``protocol_id``.

    Raises:
        CannotDecide: there is none, or several trials have one of that ID.
    """
    table, trial = db.subject, db.trial
    query = select(table, trial.c.protocol_id).join(trial, trial.c.id == table.c.trial_id)
    query = query.where(table.c.subject_id == name)
    rows = connection.execute(query.where(trial.c.protocol_id == protocol_id) if protocol_id else query).all()
    if not rows:
        raise CannotDecide(f"no subject {name!r}" + (f" in trial {protocol_id}" if protocol_id else ""))
    if len(rows) > 1:
        raise CannotDecide(f"subject {name} is in {', '.join(row.protocol_id for row in rows)}: name one (--trial)")
    return rows[0]


def withdraw(database: Database, row: Row[Any], on: date, signing: Signing, *, back: bool = False) -> str:
    """A subject takes part no longer: no visit is expected, and what is scanned later is held; what was measured stays.

    Raises:
        CannotDecide: it is so already.
        service.signatures.CannotSign: no name or no reason.
    """
    signing.check(needs_reason=True)
    new = SubjectState.ACTIVE if back else SubjectState.WITHDRAWN
    if row.state == new:
        raise CannotDecide(f"subject {row.subject_id} is {new} already")
    with database.write() as connection:
        move(connection, db.subject, row.id, new, withdrawn_on=None if back else on)
        _decided(connection, row, signing, str(new), f"subject {row.subject_id} is {new}")
    return f"subject {row.subject_id} is {new}"


def confirm_levels(database: Database, row: Row[Any], lowest: Level, signing: Signing) -> str:
    """A person names the lowest disc in view of the baseline: from then on every visit must begin with it.

    Raises:
        CannotDecide: it was confirmed otherwise and no reason for the change is given.
        service.signatures.CannotSign: no name, or no reason for a change.
    """
    is_change = bool(row.lowest_disc) and row.lowest_disc != lowest.name
    signing.check(needs_reason=is_change)
    with database.write() as connection:
        found = _levels_seen(connection, row)
        places = range(lowest.value, min(lowest.value + len(found), len(Level) + 1))
        names = [Level(place).name for place in places]
        table = db.subject
        values: dict[str, Any] = {"lowest_disc": lowest.name, "levels": names or None}
        values |= {"levels_confirmed_by": signing.by.strip(), "levels_confirmed_at": signing.at}
        connection.execute(update(table).where(table.c.id == row.id).values(**values))
        before = f", before: {row.lowest_disc}" if row.lowest_disc else ""
        text = f"lowest disc of subject {row.subject_id} is {lowest.name}{before}"
        _decided(connection, row, signing, "levels", text)
        ask_for_report(connection, row.id, "the levels were confirmed", signing.at)
    told = f"the discs of {row.subject_id} begin with {lowest.name}"
    if found and found[0] != lowest.name:
        told += f"; its exams were named from {found[0]} on: discnode trial status says how to rename them"
    return told


def _levels_seen(connection: Connection, row: Row[Any]) -> list[str]:
    """The discs of the subject's earliest measured exam, from below."""
    visit, result = db.visit, db.trial_result
    query = (
        select(result.c.discs)
        .join(visit, visit.c.job_id == result.c.job_id)
        .where(visit.c.subject_id == row.id, visit.c.state != str(VisitState.SET_ASIDE))
        .order_by(visit.c.scanned_at)
    )
    first: dict[str, Any] = next((discs for discs in connection.execute(query).scalars() if discs), {})
    return list(first)


def note_not_evaluable(
    database: Database, row: Row[Any], level: Level, visit: str, signing: Signing, *, back: bool = False
) -> str:
    """A disc has no value from a visit on: it was operated on, fused, destroyed. Or (``back``) that was wrong.

    Raises:
        CannotDecide: the plan has no such visit, or it is (not) noted already.
        service.signatures.CannotSign: no name or no reason.
    """
    signing.check(needs_reason=True)
    table = db.non_evaluable
    with database.write() as connection:
        trial = trial_by_id(connection, row.trial_id)
        open_one = select(table).where(
            table.c.subject_id == row.id, table.c.level == level.name, table.c.withdrawn_at.is_(None)
        )
        known = connection.execute(open_one).one_or_none()
        if back:
            if known is None:
                raise CannotDecide(f"{level.name} of {row.subject_id} is not noted as not evaluable")
            connection.execute(update(table).where(table.c.id == known.id).values(withdrawn_at=signing.at))
            text = f"{level.name} of subject {row.subject_id} is evaluable again"
        else:
            if known is not None:
                raise CannotDecide(f"{level.name} of {row.subject_id} is not evaluable from {known.from_visit} already")
            _check_visit(trial.plan, visit)
            values = {"subject_id": row.id, "level": level.name, "from_visit": visit, "reason": signing.reason.strip()}
            connection.execute(insert(table).values(noted_by=signing.by.strip(), noted_at=signing.at, **values))
            text = f"{level.name} of subject {row.subject_id} is not evaluable from {visit} on"
        _decided(connection, row, signing, "evaluable" if back else "not_evaluable", text)
        ask_for_report(connection, row.id, text, signing.at)
    return text


def _check_visit(plan: TrialPlan, name: str) -> None:
    names = [one.name for one in plan.visits]
    if name not in names:
        raise CannotDecide(f"the plan has no visit {name!r}; allowed: {', '.join(names)}")


def _decided(connection: Connection, row: Row[Any], signing: Signing, decision: str, text: str) -> None:
    sign(connection, "subject", row.id, decision, signing, "")
    what = f"trial {row.protocol_id}: {text}"
    note(connection, AuditEvent(AuditKind.TRIAL, signing.at, by=signing.by.strip(), detail=what))
    update_subjects(connection, trials_of(connection), [row.id], signing.at)


def parse_day(text: str) -> date | None:
    """A day as tables write it: 2026-03-02 or 20260302; None where it is empty.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return None
    if re.fullmatch(r"\d{8}", text):
        return datetime.strptime(text, "%Y%m%d").date()
    return date.fromisoformat(text)
