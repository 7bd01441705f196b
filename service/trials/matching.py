"""Which trial, subject and visit an exam is of: by a person's word, a mapping, its headers, or its PatientID."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, select

from config.sections import SettingsError
from config.settings import Settings
from config.trial_plans import TrialPlan, load_plan
from processing.refusal import ReasonCode
from service import database as node
from service import trial_tables as db
from service.database import Database
from service.exam_groups import studies_of
from service.trials.exam_facts import ExamFacts, read_exam_facts
from service.trials.registry import Trial, register_plans, trials_of
from service.trials.words import NO_WORDS, Words, words_on

ATTRIBUTES, MAPPING, DATE, PERSON = "attributes", "mapping", "date", "person"


@dataclass(frozen=True, slots=True)
class Claim:
    """That an exam belongs to a trial.

    ``subject_id``: whose it is said to be; "" where nothing tells. ``visit``: which visit, "" where only the date can
    tell. ``by``: what says so. ``code`` and ``detail``: why it cannot be taken for the subject as it is.
    """

    trial: Trial
    subject_id: str
    site_id: str
    visit: str
    by: str
    code: str = ""
    detail: str = ""


def claiming_plan(database: Database, settings: Settings, exam_id: int) -> TrialPlan | None:
    """The plan of the trial that an exam belongs to, as far as its headers and the record tell now; None: of none.

    It reads a header of each of the exam's series, and writes nothing but plans that the node has not seen before.
    """
    with database.read() as connection:
        trials = trials_of(connection)
    if not trials and settings.trials_dir is None:  # trials that are on record claim theirs also where it is not set
        return None
    if not trials:  # a node that has just been started
        with database.write() as connection:
            register_plans(connection, settings.trials_dir, datetime.now(UTC))
            trials = trials_of(connection)
    facts = read_exam_facts(database, exam_id, [one.plan for one in trials])
    if facts is None:
        return None
    with database.read() as connection:
        claim = claim_of(connection, trials, exam_id, facts, words_on(connection, exam_id))
    return None if claim is None else claim.trial.plan


def unread_plan(database: Database, settings: Settings, exam_id: int) -> str:
    """Why an exam that no trial claims may be of one all the same: its headers name one, and a plan cannot be used.

    In words; empty where it may not.
    """
    if settings.trials_dir is None or not settings.trials_dir.is_dir():
        return ""
    broken = [path.name for path in sorted(settings.trials_dir.glob("*.yaml")) if not _is_usable(path)]
    facts = read_exam_facts(database, exam_id, []) if broken else None
    if facts is None or not facts.protocol_id:
        return ""
    return f"its headers name a trial, and {', '.join(broken)} cannot be used: it may be of that trial"


def _is_usable(path: Path) -> bool:
    try:
        load_plan(path)
    except SettingsError:
        return False
    return True


def claim_of(
    connection: Connection, trials: Sequence[Trial], exam_id: int, facts: ExamFacts, words: Words = NO_WORDS
) -> Claim | None:
    """Whose exam it is; None: of no trial. A person's word counts before a mapping, and that before the headers.

    A PatientID that is a subject's is enough where the headers name no other trial and the protocol is the plan's.
    """
    told = _by_attributes(trials, facts)
    mapped = _by_mapping(connection, trials, exam_id, facts)
    said = _by_person(connection, trials, words)
    if said is not None:
        return said
    if facts.is_phantom:
        return None
    if mapped is not None:
        return _checked(mapped, told, facts)
    if told is not None:
        return told
    return None if facts.protocol_id else _by_patient(connection, trials, exam_id, facts)


def _by_person(connection: Connection, trials: Sequence[Trial], words: Words) -> Claim | None:
    if not words.subject_id or words.trial_id is None:
        return None
    trial = next(one for one in trials if one.id == words.trial_id)
    table = db.subject
    query = select(table.c.site_id).where(table.c.trial_id == trial.id, table.c.subject_id == words.subject_id)
    site_id = connection.execute(query).scalar() or ""
    return Claim(trial, words.subject_id, site_id, words.visit, PERSON)


def _by_attributes(trials: Sequence[Trial], facts: ExamFacts) -> Claim | None:
    name = facts.protocol_id.casefold()
    trial = next((one for one in trials if name and one.protocol_id.casefold() == name), None)
    if trial is None:
        return None
    if facts.disagreement:
        code, detail = str(ReasonCode.IDENTITY_CONFLICT), facts.disagreement
        return Claim(trial, facts.subject_id, facts.site_id, facts.time_point_id, ATTRIBUTES, code, detail)
    return Claim(trial, facts.subject_id, facts.site_id, facts.time_point_id, ATTRIBUTES)


def _by_mapping(connection: Connection, trials: Sequence[Trial], exam_id: int, facts: ExamFacts) -> Claim | None:
    """By the study's UID, else by the patient's day. Rows of the same study that differ are told, not chosen from."""
    table = db.mapping
    rows = connection.execute(select(table).where(table.c.study_uid.in_(studies_of(exam_id)))).all()
    days = {facts.study_date, None if facts.acquired_at is None else facts.acquired_at.date()} - {None}
    if not rows and facts.patient_digest is not None and days:
        day = (table.c.patient_digest == facts.patient_digest) & table.c.study_date.in_(days)
        rows = connection.execute(select(table).where(day)).all()
    known = {one.id: one for one in trials}
    found = sorted({(row.trial_id, row.subject_id, row.visit or "") for row in rows if row.trial_id in known})
    if not found:
        return None
    trial_id, subject_id, visit = found[0]
    site_id = facts.site_id or _site_of(connection, trial_id, subject_id)
    if len(found) > 1:
        named = " and ".join(f"{subject} {name}".strip() for _, subject, name in found)
        detail = f"the mapping table says {named}"
        return Claim(known[trial_id], subject_id, site_id, visit, MAPPING, str(ReasonCode.IDENTITY_CONFLICT), detail)
    return Claim(known[trial_id], subject_id, site_id, visit, MAPPING)


def _checked(mapped: Claim, told: Claim | None, facts: ExamFacts) -> Claim:
    """What the mapping says, if the headers do not say otherwise."""
    if mapped.code:
        return mapped
    doubts = []
    if facts.protocol_id and (told is None or told.trial.id != mapped.trial.id):
        doubts.append(f"its headers name the trial {facts.protocol_id}, the mapping table {mapped.trial.protocol_id}")
    elif told is not None and told.subject_id and told.subject_id != mapped.subject_id:
        doubts.append(f"its headers name the subject {told.subject_id}, the mapping table {mapped.subject_id}")
    if facts.disagreement:
        doubts.append(facts.disagreement)
    if not doubts:
        visit = mapped.visit or (told.visit if told is not None else "")
        return Claim(mapped.trial, mapped.subject_id, mapped.site_id, visit, MAPPING)
    code = str(ReasonCode.IDENTITY_CONFLICT)
    return Claim(mapped.trial, mapped.subject_id, mapped.site_id, mapped.visit, MAPPING, code, "; ".join(doubts))


def _by_patient(connection: Connection, trials: Sequence[Trial], exam_id: int, facts: ExamFacts) -> Claim | None:
    if facts.patient_digest is None:
        return None
    job, table = node.job, db.subject
    newest = select(job.c.protocol).where(job.c.exam_id == exam_id).order_by(job.c.version.desc()).limit(1)
    protocol = connection.execute(newest).scalar() or ""
    known = {one.id: one for one in trials if one.plan.protocol in (protocol, *protocol.split(" + "))}
    query = select(table.c.trial_id, table.c.subject_id, table.c.site_id, table.c.imported).where(
        table.c.patient_digest == facts.patient_digest, table.c.trial_id.in_(known)
    )
    found = connection.execute(query.order_by(table.c.trial_id, table.c.id)).all()
    listed = [row for row in found if (row.imported or {}).get("patient_digest") == facts.patient_digest]
    found = listed or found  # the subjects' table says whose it is
    if not found:
        return None
    trial, visit = known[found[0].trial_id], facts.time_point_id
    if len(found) > 1:
        named = " and ".join(f"{row.subject_id} of {known[row.trial_id].protocol_id}" for row in found)
        detail = f"its PatientID is that of {named}; its headers name no subject"
        return Claim(trial, "", facts.site_id, visit, DATE, str(ReasonCode.IDENTITY_CONFLICT), detail)
    return Claim(trial, found[0].subject_id, facts.site_id or found[0].site_id, visit, DATE)


def _site_of(connection: Connection, trial_id: int, subject_id: str) -> str:
    table = db.subject
    query = select(table.c.site_id).where(table.c.trial_id == trial_id, table.c.subject_id == subject_id)
    return connection.execute(query).scalar() or ""
