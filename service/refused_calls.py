"""Calls that the receiver refused: counted, and audited as security alerts, a caller's many as one."""

import logging
import threading
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from service.audit import AuditEvent, AuditKind, note
from service.database import Database
from service.tally import REFUSED_CALLS, count

_log = logging.getLogger(__name__)

WRITE_S = 10.0
_MOST_CALLERS = 20  # apart, in one lot; whoever calls under ever new names fills no disk
_MOST_REASONS = 30  # apart, as labels of a metric


class RefusedCalls:
    """Collects refused calls in memory and writes them down every few seconds, from a thread of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str, str], list[datetime]] = {}  # first and last time, then only counted
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._reasons: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refused calls", daemon=True)
        self._thread.start()

    def add(self, calling_ae: str, address: str, why: str) -> None:
        """Note one call; returns at once."""
        now = datetime.now(UTC)
        with self._lock:
            key = (calling_ae[:16], address[:64], why[:64])
            if key not in self._numbers and len(self._numbers) >= _MOST_CALLERS:
                key = ("", "", why[:64])
            self._numbers[key] = self._numbers.get(key, 0) + 1
            times = self._waiting.setdefault(key, [now, now])
            times[1] = now

    def write(self) -> None:
        """Put down what has been collected; what cannot be put down now stays."""
        with self._lock:
            numbers, times = dict(self._numbers), {key: tuple(value) for key, value in self._waiting.items()}
        if not numbers:
            return
        try:
            with self._database.write() as connection:
                for key, number in numbers.items():
                    calling_ae, address, why = key
                    first, last = times[key]
                    detail = why if number == 1 else f"{why}; {number} calls until {last:%H:%M:%S} UTC"
                    event = AuditEvent(
                        AuditKind.CALL_REFUSED, first, peer=calling_ae, address=address, detail=detail, failed=True
                    )
                    note(connection, event)
                    count(connection, REFUSED_CALLS, self._label(why), number)
        except SQLAlchemyError as error:
            _log.error("refused calls not put down yet", extra={"error": type(error).__name__})
            return
        with self._lock:
            for key, number in numbers.items():
                self._numbers[key] -= number
                if not self._numbers[key]:
                    del self._numbers[key], self._waiting[key]

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
