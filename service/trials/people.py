"""What people decide about exams of a trial: which visit, whether it counts, that a doubt is none. Each is signed."""

from typing import Any

from sqlalchemy import Connection, Row, select, update

from processing.refusal import ReasonCode
from service import database as node
from service import trial_tables as db
from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.signatures import Signing, sign
from service.states import VisitState
from service.trials.registry import Trial, find_trial, trial_by_id, trials_of
from service.trials.takeover import claim_again, find_subject, update_subjects
from service.trials.windows import UNSCHEDULED


class CannotDecide(Exception):
    """A decision that is not possible; the text says why and what is."""


def assign(
    database: Database, exam_id: int, visit: str, signing: Signing, *, subject_id: str = "", protocol_id: str = ""
) -> str:
    """An exam is this visit, whatever its headers and its day say; returns what was said, for people.

    Args:
        database: the node's record.
        exam_id: the exam.
        visit: of the plan, or "unscheduled".
        signing: who, and why.
        subject_id: whose it is; "" where that is known.
        protocol_id: which trial; "" where that is known.

    Raises:
        CannotDecide: there is no such exam, subject or visit.
        service.signatures.CannotSign: no name or no reason.
    """
    signing.check(needs_reason=True)
    with database.write() as connection:
        row = _exam(connection, exam_id)
        trial = _trial_of(connection, row, protocol_id)
        name = subject_id or _subject_name(connection, row)
        if not name:
            raise CannotDecide(f"exam {exam_id} is of no known subject: name one (--subject)")
        if find_subject(connection, trial.id, name) is None:
            raise CannotDecide(f"trial {trial.protocol_id} has no subject {name}: add it first (subjects import)")
        allowed = [*(one.name for one in trial.plan.visits), UNSCHEDULED]
        if visit not in allowed:
            raise CannotDecide(f"the plan has no visit {visit!r}; allowed: {', '.join(allowed)}")
        values = {"trial_id": trial.id, "said_subject": name, "said_visit": visit, "set_aside": False}
        _say(connection, row, trial, signing, "assigned", f"{visit} of subject {name}", values)
        return f"exam {exam_id} is {visit} of subject {name}"


def set_aside(database: Database, exam_id: int, signing: Signing, *, back: bool = False) -> str:
    """An exam does not count: it is a repeat, or not of the trial; or (``back``) it is looked at again as others are.

    Raises:
        CannotDecide: the exam is of no trial.
        service.signatures.CannotSign: no name or no reason.
    """
    signing.check(needs_reason=True)
    with database.write() as connection:
        row = _exam(connection, exam_id)
        trial = _trial_of(connection, row, "")
        nothing: dict[str, Any] = {"said_subject": None, "said_visit": None, "not_evaluable": None, "accepted": None}
        values = {"set_aside": False, **nothing} if back else {"set_aside": True}
        decision, words = ("taken_back", "taken back") if back else ("set_aside", "set aside")
        _say(connection, row, trial, signing, decision, words, values)
        return f"exam {exam_id} is {words}"


def not_evaluable(database: Database, exam_id: int, signing: Signing) -> str:
    """The visit has no value, for the reason given; nothing is put in its place.

    Raises:
        CannotDecide: the exam is of no subject.
        service.signatures.CannotSign: no name or no reason.
    """
    signing.check(needs_reason=True)
    with database.write() as connection:
        row = _exam(connection, exam_id)
        if row.subject_id is None:
            raise CannotDecide(f"exam {exam_id} is of no subject")
        trial = _trial_of(connection, row, "")
        values = {"not_evaluable": signing.reason.strip()}
        _say(connection, row, trial, signing, "not_evaluable", "not evaluable", values)
        return f"exam {exam_id} is not evaluable"


def accept(database: Database, exam_id: int, signing: Signing) -> str:
    """A person has looked into the doubts for which an exam is held, and they are none.

    Raises:
        CannotDecide: it is not held, or for something that no word settles.
        service.signatures.CannotSign: no name or no reason.
    """
    signing.check(needs_reason=True)
    with database.write() as connection:
        row = _exam(connection, exam_id)
        trial = _trial_of(connection, row, "")
        visit = connection.execute(select(db.visit).where(db.visit.c.exam_id == exam_id)).one_or_none()
        if visit is None or visit.state != VisitState.HELD:
            raise CannotDecide(f"exam {exam_id} is not held for a subject")
        kinds = [kind for kind in visit.doubts or () if kind]
        if not kinds:
            raise CannotDecide(f"this cannot be accepted, only settled: {visit.code}: {visit.detail}")
        accepted = {**(row.accepted or {}), **dict.fromkeys(kinds, signing.reason.strip())}
        words = f"accepted in spite of {', '.join(kinds)}"
        _say(connection, row, trial, signing, "accepted", words, {"accepted": accepted})
        return f"exam {exam_id}: {words}"


def _exam(connection: Connection, exam_id: int) -> Row[Any]:
    row = connection.execute(select(db.trial_exam).where(db.trial_exam.c.exam_id == exam_id)).one_or_none()
    if row is None:
        raise CannotDecide(f"no exam {exam_id} that the trials have looked at (discnode exams list)")
    return row


def _trial_of(connection: Connection, row: Row[Any], protocol_id: str) -> Trial:
    if protocol_id:
        try:
            return find_trial(connection, protocol_id)
        except LookupError as error:
            raise CannotDecide(str(error)) from error
    if row.trial_id is not None:
        return trial_by_id(connection, row.trial_id)
    trials = trials_of(connection)
    if len(trials) == 1:
        return trials[0]
    raise CannotDecide(f"exam {row.exam_id} is of no trial: name one (--trial)")


def _subject_name(connection: Connection, row: Row[Any]) -> str:
    query = select(db.subject.c.subject_id).where(db.subject.c.id == row.subject_id)
    return connection.execute(query).scalar() or ""


def _say(
    connection: Connection,
    row: Row[Any],
    trial: Trial,
    signing: Signing,
    decision: str,
    words: str,
    values: dict[str, Any],
) -> None:
    """Write a person's word down, sign it, and decide anew on all that it touches."""
    said = {"said_by": signing.by.strip(), "said_reason": signing.reason.strip(), "said_at": signing.at}
    table = db.trial_exam
    changed = {"trial_id": trial.id} | said | values
    connection.execute(update(table).where(table.c.exam_id == row.exam_id).values(**changed))
    study = connection.execute(select(node.exam.c.study_uid).where(node.exam.c.id == row.exam_id)).scalar_one()
    sign(connection, "exam", row.exam_id, decision, signing, "", studies=(study,))
    before = _before(connection, row.exam_id)
    text = f"trial {trial.protocol_id}: exam {row.exam_id}: {words}; before: {before}"
    note(connection, AuditEvent(AuditKind.TRIAL, signing.at, by=signing.by.strip(), studies=(study,), detail=text))
    trials = trials_of(connection)
    update_subjects(connection, trials, claim_again(connection, trials, [row.exam_id], signing.at), signing.at)


def _before(connection: Connection, exam_id: int) -> str:
    visit = connection.execute(select(db.visit).where(db.visit.c.exam_id == exam_id)).one_or_none()
    if visit is None:
        return "of no subject"
    code = f" {visit.code}" if visit.code else ""
    return f"{visit.name} {visit.state}{code}"


#: What a doubt's code asks of people, for those who see it first.
ADVICE = {
    ReasonCode.IDENTITY_CONFLICT: "find out whose exam it is; then: visits accept, visits assign --subject, or"
    " visits set-aside",
    ReasonCode.REVIEW_REQUIRED: "say which visit it is (visits assign), or that it does not count (visits set-aside)",
    ReasonCode.SERIES_INCOMPLETE: "ask the site for the missing images, or: visits not-evaluable",
    ReasonCode.LEVELS_AMBIGUOUS: "name the levels: subjects confirm-levels",
    ReasonCode.PROTOCOL_DEVIATION: "measure it as frozen, or unfreeze the trial with a reason",
    ReasonCode.INTERNAL: "see discnode jobs show",
}
