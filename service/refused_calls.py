"""Calls and logins that were refused: counted, and audited as security events, a caller's many as one. And logins."""

import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.tally import FAILED_LOGINS, REFUSED_CALLS, count

_log = logging.getLogger(__name__)

WRITE_S = 10.0
_MOST_CALLERS = 20  # apart, in one lot; whoever calls under ever new names fills no disk
_MOST_REASONS = 30  # apart, as labels of a metric

_Key = tuple[AuditKind, str, str, str]  # kind, who, address, why
_TALLIES = {AuditKind.CALL_REFUSED: REFUSED_CALLS, AuditKind.LOGIN_FAILED: FAILED_LOGINS}


class RefusedCalls:
    """Collects refusals in memory and writes them down every few seconds, from a thread of its own.

    Make it in the process that uses it: its thread does not survive a fork.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._times: dict[_Key, list[datetime]] = {}  # first and last
        self._numbers: dict[_Key, int] = {}
        self._reasons: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)
        self._thread.start()

    def add(self, calling_ae: str, address: str, why: str) -> None:
        """Note a refused association (``calling_ae`` empty: none was heard); returns at once."""
        self._add(AuditKind.CALL_REFUSED, calling_ae[:16], address, why)

    def add_login(self, user: str, address: str, why: str) -> None:
        """Note a failed login (``user`` empty: not known); returns at once."""
        self._add(AuditKind.LOGIN_FAILED, user[:64], address, why)

    def add_entry(self, user: str, address: str) -> None:
        """Note that somebody known has come in; returns at once."""
        self._add(AuditKind.LOGIN, user[:64], address, "")

    def _add(self, kind: AuditKind, name: str, address: str, why: str) -> None:
        now = datetime.now(UTC)
        with self._lock:
            key = (kind, name, address[:64], why[:64])
            is_many = len(self._numbers) >= _MOST_CALLERS and kind in _TALLIES  # those who are known are few
            if key not in self._numbers and is_many:
                key = (kind, "", "", why[:64] if len(self._numbers) < 2 * _MOST_CALLERS else "several reasons")
            self._numbers[key] = self._numbers.get(key, 0) + 1
            self._times.setdefault(key, [now, now])[1] = now

    def write(self) -> None:
        """Put down what has been collected; what cannot be put down now stays."""
        with self._lock:
            numbers, times = dict(self._numbers), {key: tuple(value) for key, value in self._times.items()}
        if not numbers:
            return
        try:
            with self._database.write() as connection:
                for key, number in numbers.items():
                    kind, name, address, why = key
                    first, last = times[key]
                    detail = why if number == 1 else f"{why}; {number} times until {last:%H:%M:%S} UTC"
                    is_refused = kind in _TALLIES
                    event = AuditEvent(kind, first, address=address, detail=detail if is_refused else "")
                    event = replace(event, failed=is_refused)
                    is_call = kind is AuditKind.CALL_REFUSED
                    note(connection, replace(event, peer=name) if is_call else replace(event, by=name))
                    if is_refused:
                        count(connection, _TALLIES[kind], self._label(why), number)
        except SQLAlchemyError as error:
            _log.error("refusals not put down yet", extra={"error": type(error).__name__})
            return
        with self._lock:
            for key, number in numbers.items():
                self._numbers[key] -= number
                if not self._numbers[key]:
                    del self._numbers[key], self._times[key]

    def _label(self, why: str) -> str:
        if why not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            return "other"
        self._reasons.add(why)
        return why

    def _run(self) -> None:
        while not self._closed.wait(WRITE_S):
            self.write()

    def close(self) -> None:
        """Write what is left."""
        self._closed.set()
        self._thread.join(timeout=WRITE_S)
        self.write()
