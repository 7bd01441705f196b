"""Tables handed in as CSV: the subjects, and which study is which visit. Each is taken whole or not at all."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, delete, insert, select

from config.sections import SettingsError
from config.trial_plans import TrialPlan
from service import database as node
from service import trial_tables as db
from service.database import Database
from service.signatures import Signing, sign
from service.trials.blinding import check_no_arm
from service.trials.identity import patient_digest
from service.trials.people import CannotDecide
from service.trials.registry import Trial, find_trial, trials_of
from service.trials.subjects import ListedSubject, list_subjects, parse_day
from service.trials.takeover import claim_again, update_subjects, why_no_subject

_SUBJECT_COLUMNS = ("subject_id", "site_id", "patient_id", "birth_year", "sex", "day_zero")
_MAPPING_COLUMNS = ("study_uid", "patient_id", "study_date", "subject_id", "visit")
_MOST_ROWS = 20_000

_Row = TypeVar("_Row")


class TableRefused(Exception):
    """A table cannot be taken; one line for each fault: the row and the rule. Nothing of it was taken."""


@dataclass(frozen=True, slots=True)
class _Mapping:
    study_uid: str | None
    patient_digest: str | None
    study_date: date | None
    subject_id: str
    visit: str | None


def import_subjects(database: Database, protocol_id: str, path: Path, signing: Signing) -> tuple[int, int]:
    """Take a subjects' table; returns how many rows it has, and how many subjects are new.

    Raises:
        TableRefused: naming each row and rule; nothing is changed.
        service.signatures.CannotSign: no name.
    """
    signing.check(needs_reason=False)
    with database.write() as connection:
        trial = _trial(connection, protocol_id)
        plan, storage_dir = trial.plan, database.storage_dir

        def parse(row: Mapping[str, str]) -> ListedSubject:
            return _listed(row, plan, storage_dir)

        rows = _read(path, _SUBJECT_COLUMNS, ("subject_id", "site_id"), parse)
        _check_differ(path, "subject_id", [one.subject_id for _, one in rows])
        _check_patients(path, rows)
        try:
            return len(rows), list_subjects(connection, trial, [one for _, one in rows], signing)
        except CannotDecide as error:
            raise TableRefused(f"{path}: {error}") from error


def import_mappings(database: Database, protocol_id: str, path: Path, signing: Signing) -> tuple[int, int]:
    """Take a table of which study is which visit; returns how many rows it has, and how many exams it touched.

    A row takes the place of an earlier one about the same study, or the same patient's day.

    Raises:
        TableRefused: naming each row and rule; nothing is changed.
        service.signatures.CannotSign: no name.
    """
    signing.check(needs_reason=False)
    with database.write() as connection:
        trial = _trial(connection, protocol_id)
        plan, storage_dir = trial.plan, database.storage_dir

        def parse(row: Mapping[str, str]) -> _Mapping:
            return _mapping(row, plan, storage_dir)

        rows = _read(path, _MAPPING_COLUMNS, ("subject_id",), parse)
        keys = [one.study_uid or f"{one.patient_digest} {one.study_date}" for _, one in rows]
        _check_differ(path, "study_uid, or patient_id and study_date,", keys)
        for _, one in rows:
            _replace_mapping(connection, trial, one, signing.at)
        sign(connection, "trial", trial.id, "visits_mapped", signing, "")
        exams = _mapped_exams(connection, [one for _, one in rows])
        trials = trials_of(connection)
        update_subjects(connection, trials, claim_again(connection, trials, exams, signing.at), signing.at)
        return len(rows), len(exams)


def _trial(connection: Connection, protocol_id: str) -> Trial:
    trials = trials_of(connection)
    if not protocol_id and len(trials) == 1:
        return trials[0]
    try:
        return find_trial(connection, protocol_id)
    except LookupError as error:
        raise TableRefused(str(error)) from error


def _read(
    path: Path, columns: Sequence[str], needed: Iterable[str], parse: Callable[[Mapping[str, str]], _Row]
) -> list[tuple[int, _Row]]:
    """The rows of a CSV file, with the numbers of their lines.

    Raises:
        TableRefused: naming each fault.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TableRefused(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TableRefused(f"{path}: is not UTF-8") from error
    first = text.partition("\n")[0]
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ","
    )
    found = [name.strip() for name in reader.fieldnames or ()]
    try:
        check_no_arm(found)
    except SettingsError as error:
        raise TableRefused(f"{path}: {error}") from error
    unknown = [name for name in found if name not in columns]
    missing = [name for name in needed if name not in found]
    if unknown or missing:
        wrong = [f"unknown column {name!r}" for name in unknown] + [f"no column {name!r}" for name in missing]
        raise TableRefused(f"{path}: {'; '.join(wrong)}; allowed: {', '.join(columns)}")
    rows: list[tuple[int, _Row]] = []
    faults: list[str] = []
    reader.fieldnames = found
    for row in reader:
        if len(rows) + len(faults) >= _MOST_ROWS:
            raise TableRefused(f"{path}: more than {_MOST_ROWS} rows")
        if None in row or None in row.values():
            faults.append(f"{path}: line {reader.line_num}: has not as many fields as the first line")
            continue
        try:
            rows.append((reader.line_num, parse({name: value.strip() for name, value in row.items()})))
        except ValueError as error:
            faults.append(f"{path}: line {reader.line_num}: {error}")
    if faults:
        raise TableRefused("\n".join(faults))
    return rows


def _check_differ(path: Path, what: str, keys: Sequence[str]) -> None:
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        named = f": {', '.join(twice)}" if what == "subject_id" else ""
        raise TableRefused(f"{path}: two rows have the same {what}{named}")


def _check_patients(path: Path, rows: Sequence[tuple[int, ListedSubject]]) -> None:
    first: dict[str, ListedSubject] = {}
    faults = []
    for line, one in rows:
        if one.patient_digest is None:
            continue
        other = first.setdefault(one.patient_digest, one)
        if other is not one:
            named = f"{other.subject_id} and {one.subject_id}"
            faults.append(f"{path}: line {line}: IDENTITY_CONFLICT: {named} have one PatientID")
    if faults:
        raise TableRefused("\n".join(faults))


def _listed(row: Mapping[str, str], plan: TrialPlan, storage_dir: Path) -> ListedSubject:
    """Raises ValueError, which names column and rule; a PatientID is not quoted."""
    fault = why_no_subject(plan, row["subject_id"], row["site_id"])
    if fault:
        raise ValueError(fault)
    sex = row.get("sex", "").upper()
    if sex not in ("", "M", "F", "O"):
        raise ValueError("sex: must be M, F, O or empty")
    year = row.get("birth_year", "")
    if year and not (year.isascii() and year.isdigit() and 1880 <= int(year) <= 2100):
        raise ValueError("birth_year: must be a year of four digits, or empty")
    day_zero = _day(row.get("day_zero", ""), "day_zero")
    if day_zero is not None and plan.day_zero != "given":
        raise ValueError("day_zero: the plan counts from the baseline's scan (day_zero: baseline_scan)")
    digest = patient_digest(storage_dir, row.get("patient_id", ""))
    return ListedSubject(row["subject_id"], row["site_id"], digest, int(year) if year else None, sex, day_zero)


def _mapping(row: Mapping[str, str], plan: TrialPlan, storage_dir: Path) -> _Mapping:
    """Raises ValueError, which names column and rule; a PatientID is not quoted."""
    if not plan.is_subject(row["subject_id"]):
        raise ValueError("subject_id: is not of the form that the plan asks for")
    names = [one.name for one in plan.visits]
    visit = row.get("visit", "")
    if visit and visit not in names:
        raise ValueError(f"visit: the plan has no {visit!r}; allowed: {', '.join(names)}, or empty")
    study_uid = row.get("study_uid", "")
    if study_uid and (len(study_uid) > 64 or not set(study_uid) <= set("0123456789.")):
        raise ValueError("study_uid: is no UID")
    digest = patient_digest(storage_dir, row.get("patient_id", ""))
    day = _day(row.get("study_date", ""), "study_date")
    if not study_uid and (digest is None or day is None):
        raise ValueError("needs study_uid, or patient_id and study_date")
    if study_uid:
        digest, day = None, None
    return _Mapping(study_uid or None, digest, day, row["subject_id"], visit or None)


def _day(text: str, column: str) -> date | None:
    try:
        return parse_day(text)
    except ValueError as error:
        raise ValueError(f"{column}: must be a day, such as 2026-03-02") from error


def _replace_mapping(connection: Connection, trial: Trial, one: _Mapping, now: datetime) -> None:
    table = db.mapping
    if one.study_uid is not None:
        same = table.c.study_uid == one.study_uid
    else:
        same = (table.c.patient_digest == one.patient_digest) & (table.c.study_date == one.study_date)
    connection.execute(delete(table).where(table.c.trial_id == trial.id, same))
    connection.execute(
        insert(table).values(
            trial_id=trial.id,
            study_uid=one.study_uid,
            patient_digest=one.patient_digest,
            study_date=one.study_date,
            subject_id=one.subject_id,
            visit=one.visit,
            imported_at=now,
        )
    )


def _mapped_exams(connection: Connection, rows: Sequence[_Mapping]) -> list[int]:
    """The exams on record that mappings may be about."""
    table, exam = db.trial_exam, node.exam
    found: set[int] = set()
    for one in rows:
        query = select(table.c.exam_id).join(exam, exam.c.id == table.c.exam_id)
        if one.study_uid is not None:
            owner = select(exam.c.joined_to).where(exam.c.study_uid == one.study_uid)
            query = query.where((exam.c.study_uid == one.study_uid) | exam.c.id.in_(owner))
        else:
            query = query.where(table.c.patient_digest == one.patient_digest)
        found |= set(connection.execute(query).scalars())
    return sorted(found)
