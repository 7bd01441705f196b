"""Blinding: no arm comes into the node or out of it, and reports of a blinded trial stay here until it is unblinded."""

import re
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update

from config.sections import SettingsError
from service import database as db
from service import trial_tables as trials
from service.database import Database
from service.holds import Hold, put_holds
from service.signatures import Signing, sign
from service.states import DeliveryState

#: Words in the name of a column that say which arm a subject is in.
_ARM_WORDS = re.compile(
    r"arms?|(act|plan)?arm(cd)?|group|grp|cohort|treat|treated|treatments?|trt[a-z]?|therapy|sham|placebo|verum|control"
    r"|controls|intervention|dose|randomi[sz]\w*|rand|rando|allocat\w*|allocation|unblind\w*"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class CannotUnblind(Exception):
    """The trial is not registered, or unblinded already."""


def arm_columns(columns: Iterable[str]) -> list[str]:
    """Those whose names speak of an arm: ARM, treatmentGroup, randomised_to; a treated level is none."""
    return [name for name in columns if _speaks_of_arm(name)]


def _speaks_of_arm(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    found = [word for word in words if _ARM_WORDS.fullmatch(word)]
    return bool(found) and not (found == ["treated"] and "level" in words)


def check_no_arm(columns: Iterable[str]) -> None:
    """Pass if none of a table's columns says which arm a subject is in.

    Raises:
        SettingsError: naming the columns. The arm is never needed here: join it where the trial is unblinded.
    """
    found = arm_columns(columns)
    if found:
        named = ", ".join(repr(name) for name in found)
        raise SettingsError(f"column {named} speaks of an arm: the node must not know it; leave the column out")


def unblind(database: Database, protocol_id: str, signing: Signing) -> int:
    """Let the reports of a trial go that only its blinding holds. Returns how many objects.

    Raises:
        CannotSign: name, meaning or reason is missing.
        CannotUnblind: there is no such trial, or it was done before.
    """
    signing.check(needs_reason=True)
    trial, subject, report, table = trials.trial, trials.subject, trials.subject_report, db.delivery
    with database.write() as connection:
        row = connection.execute(
            select(trial).where(trial.c.protocol_id == protocol_id).with_for_update()
        ).one_or_none()
        if row is None:
            raise CannotUnblind(f"no trial {protocol_id!r} is registered here")
        if row.unblinded_at is not None:
            raise CannotUnblind(f"{protocol_id} was unblinded on {_day(row.unblinded_at)} by {row.unblinded_by}")
        done = {"unblinded_at": signing.at, "unblinded_by": signing.by.strip()}
        connection.execute(update(trial).where(trial.c.id == row.id).values(**done))
        sign(connection, "trial", row.id, "unblinded", signing, row.plan_sha256)
        reports = select(report.c.id).join(subject, subject.c.id == report.c.subject_id)
        reports = reports.where(subject.c.trial_id == row.id)
        states = [str(DeliveryState.HELD), str(DeliveryState.GIVEN_UP)]  # that may be sent after all
        held = table.c.report_id.in_(reports), table.c.state.in_(states)
        n_free = 0
        for one in connection.execute(select(table).where(*held)).all():
            left = {name: why for name, why in (one.holds or {}).items() if name != Hold.BLINDED}
            if left != (one.holds or {}):
                put_holds(connection, one, left, not_before=signing.at)
                n_free += not left and one.state == DeliveryState.HELD
        return n_free


def _day(at: datetime) -> str:
    return at.date().isoformat()
