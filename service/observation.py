"""The node watching itself: health, audit trail, notifications. The supervisor holds one and tells it what dies."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from config.notifications import Event
from config.settings import Settings
from service import audit_chain
from service.audit import AuditEvent, AuditKind
from service.audit_repository import AuditRepository
from service.audit_trail import AuditTrail, last_stop_was_clean, noted_head
from service.checks import (
    comparison_check,
    confirmation_check,
    database_check,
    disk_check,
    networks_check,
    outbox_check,
)
from service.database import Database
from service.doors import watch_certificates
from service.health import HealthMonitor, Probe
from service.incidents import Incidents
from service.notify import NotificationDesk, Occurrence
from service.refused_calls import RefusedCalls
from service.tally import DEATHS, count

_log = logging.getLogger(__name__)

AUDIT_S, REPOSITORY_S, TELL_S, VERIFY_S = 2.0, 5.0, 3.0, 6 * 3600.0

Task = tuple[str, Callable[[], None], float]  # name, what to do, seconds between


@dataclass(slots=True)
class _Faults:
    """Of the audit trail, in words."""

    writing: str = ""
    chain: str = ""


class Observation:
    """Everything that watches. ``probes``: the supervisor's own, of its processes and its schedule."""

    def __init__(self, database: Database, settings: Settings, probes: Sequence[Probe]) -> None:
        self._database = database
        self._faults = _Faults()
        self._trail = AuditTrail(database, settings)
        syslog = settings.audit.syslog
        self._repository = None if syslog is None else AuditRepository(syslog, self._trail.folder, self._trail.host)
        self._desk = NotificationDesk(settings)
        self.refusals = RefusedCalls(database)  # of the web; the receiver has its own
        self.health = HealthMonitor(
            [
                *probes,
                Probe("database", database_check(database)),
                Probe("networks", networks_check(settings)),
                Probe("disk", disk_check(settings)),
                Probe("outbox", outbox_check(database, settings), vital=False),
                Probe("confirmation", confirmation_check(database, settings), vital=False),
                Probe("comparison", comparison_check(database), vital=False),
                Probe("certificates", watch_certificates(settings), vital=False),
                Probe("audit", lambda: self._faults.chain or self._faults.writing, vital=False),
                *([] if self._repository is None else [Probe("audit_repository", self._repository.wrong, vital=False)]),
            ]
        )
        self._incidents = Incidents(database, settings, self.health.look, self._desk)

    def tasks(self) -> list[Task]:
        """What the schedule is to do."""
        tasks: list[Task] = [("audit", self.write_audit, AUDIT_S), ("audit check", self._verify, VERIFY_S)]
        if self._repository is not None:
            tasks.append(("audit repository", self._send_audit, REPOSITORY_S))
        if self._desk.channels:
            tasks.append(("notifications", self._tell, TELL_S))
        return tasks

    def start(self) -> None:
        """The node starts."""
        if not last_stop_was_clean(self._trail.folder):
            _log.warning("the node did not stop in order when it last ran")
            self._ended("node", "the node ended unexpectedly and has been started again")
        try:
            self._trail.reconcile(datetime.now(UTC))
        except (OSError, SQLAlchemyError) as error:
            _log.error("audit trail not compared with the database", extra={"error": type(error).__name__})
        self._audit_own(AuditKind.STARTED)
        self.health.start()

    def close(self) -> None:
        """The node stops, and nothing else of it runs any more."""
        self.health.close()
        self.refusals.close()
        self.write_audit(is_last=True)
        self._audit_own(AuditKind.STOPPED)

    def died(self, kind: str) -> None:
        """A process of the node ended unexpectedly."""
        self._ended(kind, f"a {kind} process ended unexpectedly; it is replaced")

    def _ended(self, kind: str, text: str) -> None:
        if self._desk.channels:
            self._desk.add([Occurrence(Event.RESTARTED, f"died {kind}", text)], datetime.now(UTC))
        try:
            with self._database.write() as connection:
                count(connection, DEATHS, kind)
        except SQLAlchemyError as error:
            _log.error("death of a process not counted", extra={"error": type(error).__name__})

    def _tell(self) -> None:
        now = datetime.now(UTC)
        self._incidents.look(now)
        self._desk.send_due(now)

    # --- audit --------------------------------------------------------------------------------------------------------

    def write_audit(self, *, is_last: bool = False) -> None:
        """Write what is due to the trail; what cannot be written now stays."""
        try:
            while self._trail.write_due(datetime.now(UTC), is_last=is_last) and is_last:
                pass
        except OSError as error:
            self._faults.writing = f"the audit trail cannot be written: {error.strerror}"
            _log.error("audit trail not written", extra={"error": error.strerror})
        except SQLAlchemyError as error:  # locked by another program, say: that has a check of its own
            _log.error("audit trail not written", extra={"error": type(error).__name__})
        else:
            self._faults.writing = ""

    def _audit_own(self, kind: AuditKind) -> None:
        try:
            self._trail.write_now(AuditEvent(kind, datetime.now(UTC)))
        except OSError as error:
            _log.error("audit trail not written", extra={"error": error.strerror})

    def _send_audit(self) -> None:
        assert self._repository is not None
        self._repository.send_due(datetime.now(UTC))

    def _verify(self) -> None:
        """Read the whole trail. That it was broken stays so until the node is started again."""
        try:
            audit_chain.verify(self._trail.folder, noted_head(self._database))
        except audit_chain.ChainBroken as error:
            self._faults.chain = f"the audit trail was tampered with: {error}"
            _log.error("audit trail broken", extra={"why": str(error)})
        except (OSError, SQLAlchemyError) as error:
            _log.error("audit trail not checked", extra={"error": type(error).__name__})
