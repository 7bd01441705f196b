"""Sends what waits in the outbox until its destination has taken it. Nothing is ever dropped."""

import logging
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.settings import Destination, Settings
from dicom_io.deidentify import is_deidentified
from dicom_io.presence import read_sent_object
from dicom_io.sender import PeerUnavailable, SendOutcome, send_each
from dicom_io.stow import store_each
from service.addresses import peer_of, web_service_of
from service.database import Database
from service.deliveries import Delivery, count_by_state, due, note_sent, postpone, set_back, still_waiting, take_up
from service.deliveries import count_waiting as count_waiting
from service.deliveries import list_deliveries as list_deliveries
from service.deliveries import retry_delay_s as retry_delay_s
from service.deliveries import send_now as send_now
from service.holds import hold_changed, hold_identified
from service.signatures import file_sha256
from service.states import DeliveryState

_log = logging.getLogger(__name__)

#: After so many objects in a row over which the connection broke, or for which there was no room, others are not tried.
_MOST_LOSSES = 3


def deliver_due(
    database: Database,
    destination: Destination,
    settings: Settings,
    *,
    stopping: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Try everything that is due for one destination; returns how many objects it took.

    Every answer is recorded as it comes, so a crash re-sends at most the object in flight. An object over which the
    connection breaks is charged alone: the others go over a new one.
    """
    waiting = due(database, destination.name, now())
    if not waiting:
        return 0
    round_ = _Round(database, destination, settings, now)
    by_path = round_.with_files(waiting)
    try:
        take_up(database, list(by_path.values()), settings.delivery, now())
        round_.drop_stopped(by_path)
        while by_path and round_.losses < _MOST_LOSSES and not stopping():
            n_before = len(by_path)
            _send_over_one_connection(round_, by_path, stopping)
            if len(by_path) == n_before and not stopping():
                raise PeerUnavailable("it accepts the association, and ends it at once")
        if by_path and not stopping():
            set_back(database, list(by_path.values()), "waits for others that failed", settings.delivery, now())
    except PeerUnavailable as error:
        round_.postpone(by_path.values(), None, str(error))
    except Exception as error:  # noqa: BLE001 - the delivery loop: whatever it is, the objects stay and are tried again
        _log.error(
            "delivery failed", extra={"destination": destination.name, "error": type(error).__name__}, exc_info=True
        )
        round_.postpone(by_path.values(), None, type(error).__name__)
    return round_.n_sent


class _Round:
    """One look at what waits for a destination."""

    def __init__(
        self, database: Database, destination: Destination, settings: Settings, now: Callable[[], datetime]
    ) -> None:
        self.database = database
        self.destination = destination
        self.settings = settings
        self.n_sent = 0
        self.losses = 0  # in a row
        self._now = now

    def with_files(self, waiting: Sequence[Delivery]) -> dict[Path, Delivery]:
        """Those whose file is there, by its path; the others wait, or are held if it is not what was approved."""
        by_path = {self.settings.storage_dir / one.path: one for one in waiting}
        gone = [one for path, one in by_path.items() if not path.is_file()]
        self.postpone(gone, None, "its file is missing")
        there = {path: one for path, one in by_path.items() if one not in gone}
        changed = [path for path, one in there.items() if one.approved_sha256 not in (None, file_sha256(path))]
        for path in changed:
            one = there.pop(path)
            hold_changed(self.database, one)
            _log.error("not sent: its file is not the one that was approved", extra={"sop_uid": one.sop_uid})
        if self.destination.deidentify:
            for path in [path for path in there if not is_deidentified(path)]:
                one = there.pop(path)
                hold_identified(self.database, one)
                _log.error("not sent: it is not de-identified", extra={"sop_uid": one.sop_uid})
        return there

    def drop_stopped(self, by_path: dict[Path, Delivery]) -> bool:
        """Take out what a person has stopped meanwhile; whether there was any."""
        free = still_waiting(self.database, by_path.values())
        stopped = [path for path, one in by_path.items() if one.id not in free]
        for path in stopped:
            del by_path[path]
        return bool(stopped)

    def note(self, one: Delivery, outcome: SendOutcome) -> None:
        """Record what became of one object that was tried."""
        no_room = outcome.status is not None and 0xA700 <= outcome.status <= 0xA7FF
        self.losses = self.losses + 1 if no_room or outcome.is_loss else 0
        if not outcome.stored:
            self.postpone([one], outcome.status, outcome.detail)
            return
        now = self._now()
        ask_at = now + timedelta(seconds=self.settings.delivery.confirm_after_s)
        note_sent(self.database, one, outcome.status, read_sent_object(outcome.path), ask_at, now)
        self.n_sent += 1
        facts = {"destination": one.destination, "sop_uid": one.sop_uid, "kind": one.kind, "job": one.job_id}
        _log.info("sent", extra=facts)

    def postpone(self, deliveries: Collection[Delivery], status: int | None, why: str) -> None:
        """Let objects wait after a failed attempt."""
        if not deliveries:
            return
        postpone(self.database, list(deliveries), status, why, self.settings.delivery, self._now())
        attempt = 1 + max(one.attempts for one in deliveries)
        facts = {"destination": self.destination.name, "objects": len(deliveries), "why": why, "attempt": attempt}
        _log.warning("not sent", extra=facts)


def _send_over_one_connection(round_: _Round, by_path: dict[Path, Delivery], stopping: Callable[[], bool]) -> None:
    """Send until all had an outcome, or the connection is lost; ``by_path`` keeps what was not tried.

    Raises:
        PeerUnavailable: nothing more can be sent now.
    """
    with closing(_sending(list(by_path), round_.destination, round_.settings)) as outcomes:
        for outcome in outcomes:
            if not outcome.tried:
                return
            round_.note(by_path.pop(outcome.path), outcome)
            if round_.drop_stopped(by_path) or stopping() or round_.losses >= _MOST_LOSSES:
                return


def _sending(paths: Sequence[Path], destination: Destination, settings: Settings) -> Generator[SendOutcome, None, None]:
    """The outcomes of sending files, by C-STORE or STOW-RS, as they come.

    Raises:
        PeerUnavailable: nothing more can be sent now.
    """
    service = web_service_of(destination, settings)
    return send_each(paths, peer_of(destination, settings)) if service is None else store_each(paths, service)


def warn_of_strays(database: Database, settings: Settings) -> dict[str, int]:
    """Tell of unconfirmed objects for destinations that are not in the settings (any more): they are kept, not sent."""
    known = {one.name for one in settings.destinations}
    strays: dict[str, int] = {}
    for (name, state), n_objects in count_by_state(database).items():
        if name not in known and state not in (DeliveryState.CONFIRMED, DeliveryState.REJECTED):
            strays[name] = strays.get(name, 0) + n_objects
    for name, n_objects in strays.items():
        _log.warning("objects for an unknown destination", extra={"destination": name, "objects": n_objects})
    return strays
