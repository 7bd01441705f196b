"""What is audited: one frozen record an event, put into a queue in the transaction of what it tells of.

So neither is there without the other, and nobody waits for the trail: the supervisor writes it (service.audit_trail).
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select

from service import database as db
from service.database import Database


class AuditKind(StrEnum):
    """Events that are audited."""

    STARTED = "started"  # the node
    STOPPED = "stopped"
    RECEIVED = "received"  # objects of a study, from a sender
    SENT = "sent"  # objects of a study, to a destination
    QUERIED = "queried"  # a source, about a study
    CALL_REFUSED = "call_refused"  # an association was rejected, or a certificate
    RELEASED = "released"  # a person let a held thing go on
    DISCARDED = "discarded"  # a person closed a case; data may be gone
    DECIDED = "decided"  # a person signed: approved, rejected, queried, resolved, recalled, unblinded ...
    EXPORTED = "exported"  # data of a study were written for a person, de-identified
    REPROCESSED = "reprocessed"  # a person had an exam measured again
    CORRECTED = "corrected"  # a person's discs came back and are measured
    VIEWED = "viewed"  # a person looked at the data of a study
    DELETED = "deleted"  # a study's data were deleted, by retention or by a person
    TRIAL = "trial"  # a trial's plan, freeze, subject or visit was changed, by a person or by the node
    REIDENTIFIED = "reidentified"  # a person asked who a pseudonym of a trial is
    TRAIL_READ = "trail_read"  # a person looked at the audit trail
    LOGIN = "login"
    LOGIN_FAILED = "login_failed"
    LOGOUT = "logout"
    ALERT = "alert"  # any other thing that security should know


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. Nothing in it is a patient's identity; ``patient`` is filled in when it is written.

    Attributes:
        kind: what happened.
        at: when it happened, or began; aware UTC.
        until: when it ended, if it took time.
        by: the person, or the process, who did it.
        address: network address of whoever called, or did it.
        peer: AE title, or address of a web service, of the other side of a transfer, query or call.
        studies: Study Instance UIDs.
        sop_classes: SOP Class UIDs, each with a number of instances.
        detail: what happened in words, without identity and without a person's free text.
        failed: it was refused, or did not succeed.
    """

    kind: AuditKind
    at: datetime
    until: datetime | None = None
    by: str = ""
    address: str = ""
    peer: str = ""
    studies: tuple[str, ...] = ()
    sop_classes: tuple[tuple[str, int], ...] = ()
    detail: str = ""
    failed: bool = False
    patient: str = ""

    def to_json(self) -> str:
        """For the queue."""
        values = {key: value for key, value in asdict(self).items() if value}
        values["at"] = self.at.isoformat()
        if self.until is not None:
            values["until"] = self.until.isoformat()
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "AuditEvent":
        """From the queue."""
        values: dict[str, Any] = json.loads(text)
        values["kind"] = AuditKind(values["kind"])
        values["at"] = datetime.fromisoformat(values["at"])
        if "until" in values:
            values["until"] = datetime.fromisoformat(values["until"])
        values["studies"] = tuple(values.get("studies", ()))
        values["sop_classes"] = tuple((uid, number) for uid, number in values.get("sop_classes", ()))
        return cls(**values)


def note(connection: Connection, event: AuditEvent) -> None:
    """Have an event written to the trail, if the caller's transaction is committed."""
    connection.execute(insert(db.audit_queue).values(created_at=event.at, event=event.to_json()))


def record(database: Database, event: AuditEvent) -> None:
    """Have an event written to the trail; certain on return.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be put down now.
    """
    with database.write() as connection:
        note(connection, event)


def note_sent(connection: Connection, job_id: int, destination: str, at: datetime) -> None:
    """Have it written that a destination has taken an object of a job; those of a while become one transfer."""
    query = select(db.exam.c.study_uid).join(db.job, db.job.c.exam_id == db.exam.c.id).where(db.job.c.id == job_id)
    study = connection.execute(query).scalar_one()
    note(connection, AuditEvent(AuditKind.SENT, at, at, peer=destination, studies=(study,), sop_classes=(("", 1),)))


def note_received(connection: Connection, sender: str, study: str, sop_class: str, at: datetime) -> None:
    """Have it written that an object came whose row was there before; of new rows the trail learns by itself."""
    note(
        connection, AuditEvent(AuditKind.RECEIVED, at, at, peer=sender, studies=(study,), sop_classes=((sop_class, 1),))
    )
