"""The trials that the node follows: their plans as first seen, as changed until they are frozen, and since."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from config.sections import SettingsError
from config.trial_plans import TrialPlan, parse_plan
from service import trial_tables as db
from service.audit import AuditEvent, AuditKind, note

EDITED = "plan edited after freeze"
_GONE = "its plan's file is gone"


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as it is followed now.

    ``freeze``: what must measure it; None while it is not frozen. ``deviation``: what is wrong with its plan's file,
    "" if nothing. ``deviates_since``: from when on new results are held for that; None: they are not.
    """

    id: int
    protocol_id: str
    plan: TrialPlan
    plan_sha256: str
    file: Path
    registered_at: datetime
    freeze: dict[str, Any] | None
    frozen_at: datetime | None
    frozen_by: str
    deviation: str
    deviates_since: datetime | None

    @property
    def is_frozen(self) -> bool:
        """Whether only results of the frozen versions count."""
        return self.freeze is not None


@lru_cache(maxsize=64)
def _parsed(text: bytes, file: Path) -> TrialPlan:
    return parse_plan(text, file)


def _as_trial(row: Row[Any]) -> Trial:
    return Trial(
        id=row.id,
        protocol_id=row.protocol_id,
        plan=_parsed(row.plan.encode(), Path(row.file)),
        plan_sha256=row.plan_sha256,
        file=Path(row.file),
        registered_at=row.registered_at,
        freeze=row.freeze,
        frozen_at=row.frozen_at,
        frozen_by=row.frozen_by or "",
        deviation=row.deviation or "",
        deviates_since=row.deviates_since,
    )


def trials_of(connection: Connection) -> tuple[Trial, ...]:
    """All trials, in the order in which they were registered."""
    return tuple(_as_trial(row) for row in connection.execute(select(db.trial).order_by(db.trial.c.id)))


def find_trial(connection: Connection, protocol_id: str) -> Trial:
    """One trial.

    Raises:
        LookupError: there is none of that ID; the message names those that there are.
    """
    trials = trials_of(connection)
    for one in trials:
        if one.protocol_id == protocol_id:
            return one
    known = ", ".join(one.protocol_id for one in trials) or "none"
    raise LookupError(f"no trial {protocol_id!r}; there are: {known}")


def trial_by_id(connection: Connection, trial_id: int) -> Trial:
    """The trial of that number."""
    return _as_trial(connection.execute(select(db.trial).where(db.trial.c.id == trial_id)).one())


@dataclass(frozen=True, slots=True)
class Registration:
    """What a look at the plans' folder has changed, and what is wrong there, in words."""

    changed: tuple[int, ...] = ()  # trials whose subjects are to be looked at anew
    problems: tuple[str, ...] = ()


def register_plans(connection: Connection, trials_dir: Path | None, now: datetime) -> Registration:
    """Take new and changed plans over, inside the caller's transaction; a frozen trial keeps its text.

    A file that cannot be used changes nothing; what is wrong with it is told.
    """
    if trials_dir is None:
        return Registration()
    if not trials_dir.is_dir():
        return Registration(problems=(f"trials_dir: {trials_dir.name} is not a folder",))
    known = {one.protocol_id: one for one in trials_of(connection)}
    by_file = {one.file: one for one in known.values()}
    changed: list[int] = []
    problems: list[str] = []
    seen: set[str] = set()
    for file in (_read(path, by_file.get(path)) for path in sorted(trials_dir.resolve().glob("*.yaml"))):
        protocol_id = file.protocol_id
        if protocol_id is None:
            problems.append(f"{file.path.name}: {file.fault}")
        elif protocol_id in seen:
            problems.append(f"{file.path.name}: a second plan of the trial {protocol_id}")
        elif protocol_id in known:
            if _compare(connection, known[protocol_id], file, now):
                changed.append(known[protocol_id].id)
        elif file.plan is not None:
            changed.append(_register(connection, file.plan, file, now))
        seen |= {protocol_id} if protocol_id else set()
    for trial in known.values():
        if trial.protocol_id not in seen and trial.deviation != _GONE:
            _deviate(connection, trial, _GONE, trial.deviates_since)
    return Registration(tuple(changed), tuple(problems))


@dataclass(frozen=True, slots=True)
class _PlanFile:
    """A file of the plans' folder. ``plan``: None where it cannot be used; ``fault`` tells why.

    ``protocol_id``: the trial whose file it is, known from before where its content does not tell.
    """

    path: Path
    text: bytes
    plan: TrialPlan | None
    fault: str
    protocol_id: str | None


def _read(path: Path, own: Trial | None) -> _PlanFile:
    """``own``: the trial whose plan lay there so far."""
    known = None if own is None else own.protocol_id
    try:
        text = path.read_bytes()
    except OSError as error:
        return _PlanFile(path, b"", None, f"cannot be read: {error.strerror}", known)
    try:
        plan = _parsed(text, path)
    except SettingsError as error:
        return _PlanFile(path, text, None, str(error).splitlines()[0].removeprefix(f"{path}: "), known)
    if known is not None and plan.protocol_id != known:
        return _PlanFile(path, text, None, f"names another trial than before: {plan.protocol_id}", known)
    return _PlanFile(path, text, plan, "", plan.protocol_id)


def _register(connection: Connection, plan: TrialPlan, file: _PlanFile, now: datetime) -> int:
    sha256 = hashlib.sha256(file.text).hexdigest()
    result = connection.execute(
        insert(db.trial).values(
            protocol_id=plan.protocol_id,
            plan=file.text.decode(),
            plan_sha256=sha256,
            file=str(file.path),
            registered_at=now,
        )
    )
    assert result.inserted_primary_key is not None
    _audit(connection, f"trial {plan.protocol_id} registered, plan {sha256}", now)
    return int(result.inserted_primary_key[0])


def _compare(connection: Connection, trial: Trial, file: _PlanFile, now: datetime) -> bool:
    """Compare a file with the record; returns whether the trial's subjects are to be looked at anew."""
    sha256 = hashlib.sha256(file.text).hexdigest()
    if sha256 == trial.plan_sha256 and file.plan is not None:
        if not trial.deviation and file.path == trial.file:
            return False
        values = {"deviation": None, "deviates_since": None, "file": str(file.path)}
        connection.execute(update(db.trial).where(db.trial.c.id == trial.id).values(**values))
        if trial.deviates_since is not None:
            _audit(connection, f"trial {trial.protocol_id}: its plan is {sha256} again, as frozen", now)
        return True
    if trial.is_frozen:
        text_of_it = f"{EDITED}: it was {trial.plan_sha256[:16]} and is {sha256[:16]}"
        if trial.deviation == text_of_it:
            return False
        _deviate(connection, trial, text_of_it, trial.deviates_since or now)
        what = f"trial {trial.protocol_id}: {EDITED}, from {trial.plan_sha256} to {sha256}; the frozen one stays"
        _audit(connection, what, now, failed=True)
        return True
    if file.plan is None:
        text_of_it = f"its plan cannot be used and stays as it was: {file.fault}"
        if trial.deviation != text_of_it:
            _deviate(connection, trial, text_of_it, None)
        return False
    values = {"plan": file.text.decode(), "plan_sha256": sha256, "file": str(file.path), "deviation": None}
    connection.execute(update(db.trial).where(db.trial.c.id == trial.id).values(deviates_since=None, **values))
    _audit(connection, f"trial {trial.protocol_id}: plan changed from {trial.plan_sha256} to {sha256}", now)
    return True


def _deviate(connection: Connection, trial: Trial, text: str, since: datetime | None) -> None:
    values = {"deviation": text, "deviates_since": since}
    connection.execute(update(db.trial).where(db.trial.c.id == trial.id).values(**values))


def _audit(connection: Connection, text: str, now: datetime, *, by: str = "", failed: bool = False) -> None:
    note(connection, AuditEvent(AuditKind.TRIAL, now, by=by, detail=text, failed=failed))
