"""Tells people when something needs them: what to tell, how often, and until it has been taken.

What is known is kept in a file of its own, not in the database: that the database is locked must be told too. A cause
is told at most once in an interval; what happens within a moment goes into one message; a message that nobody took is
tried again, ever more slowly, and survives a restart.
"""

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from config.notifications import Event
from config.settings import Settings
from service.channels import Channel, NotDelivered, open_channels

_log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 10.0, 900.0
_MOST_WAITING = 200  # events that wait for one channel; of more, the oldest are dropped, and that is told


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something to be told. ``cause``: what is told at most once in an interval; ``text`` holds no identity, no UID.

    ``keep``: what comes too early after the last time is told when the interval is over; else it is forgotten.
    """

    event: Event
    cause: str
    text: str
    keep: bool = True


@dataclass(slots=True)
class _Queue:
    """What waits for one channel."""

    events: list[dict[str, str]] = field(default_factory=list)
    attempts: int = 0
    not_before: str = ""
    dropped: int = 0


@dataclass(slots=True)
class _Memory:
    """What must survive a restart."""

    marks: dict[str, int] = field(default_factory=dict)  # how far rows of the database have been looked at
    told: dict[str, str] = field(default_factory=dict)  # cause -> when last
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)  # cause -> the last that came too early, and how many
    queues: dict[str, _Queue] = field(default_factory=dict)


class NotificationDesk:
    """Takes what happens and tells it. One in a node; its methods may be called from any thread."""

    def __init__(self, settings: Settings, channels: tuple[Channel, ...] | None = None) -> None:
        self._node = settings.ae_title
        self._rules = settings.notifications
        self.channels = open_channels(settings.notifications) if channels is None else channels
        self._path = settings.storage_dir / "notifications.json"
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._memory = _load(self._path)

    def mark(self, name: str) -> int | None:
        """How far the rows called ``name`` have been looked at; None: never."""
        with self._lock:
            return self._memory.marks.get(name)

    def add(self, occurrences: Iterable[Occurrence], now: datetime, marks: Mapping[str, int] | None = None) -> set[str]:
        """Take what happened, and how far the rows it was found in have been looked at; returns the causes now told."""
        with self._lock:
            before = asdict(self._memory)
            self._memory.marks |= marks or {}
            told = {one.cause for one in occurrences if self._take(one, now)}
            if asdict(self._memory) != before:
                _save(self._path, self._memory)
        return told

    def _take(self, one: Occurrence, now: datetime) -> bool:
        if self._is_early(one.cause, now):
            if one.keep:
                number = self._memory.kept.get(one.cause, {}).get("number", 0) + 1
                self._memory.kept[one.cause] = {"event": one.event, "text": one.text, "number": number}
            return False
        earlier = self._memory.kept.pop(one.cause, None)
        text = one.text + (f" (it happened {earlier['number']} times more since it was last told)" if earlier else "")
        self._tell(one.event, one.cause, text, now)
        return True

    def _is_early(self, cause: str, now: datetime) -> bool:
        told_at = self._memory.told.get(cause)
        interval = timedelta(seconds=self._rules.interval_s)
        return told_at is not None and now < datetime.fromisoformat(told_at) + interval

    def _tell_kept(self, now: datetime) -> None:
        """What came too early, once its interval is over."""
        for cause in [cause for cause in self._memory.kept if not self._is_early(cause, now)]:
            one = self._memory.kept.pop(cause)
            text = one["text"] + (f" ({one['number']} times since it was last told)" if one["number"] > 1 else "")
            self._tell(Event(one["event"]), cause, text, now)
        old = now - 2 * timedelta(seconds=self._rules.interval_s)
        self._memory.told = {key: at for key, at in self._memory.told.items() if datetime.fromisoformat(at) > old}

    def _tell(self, event: Event, cause: str, text: str, now: datetime) -> None:
        self._memory.told[cause] = now.isoformat()
        for channel in self.channels:
            if event not in channel.events:
                continue
            queue = self._memory.queues.setdefault(channel.name, _Queue())
            if not queue.events and not queue.attempts:  # wait a moment for what comes along with it
                queue.not_before = (now + timedelta(seconds=self._rules.group_s)).isoformat()
            queue.events.append({"event": event, "at": now.isoformat(timespec="seconds"), "text": text})
            if len(queue.events) > _MOST_WAITING:
                del queue.events[0]
                queue.dropped += 1

    def send_due(self, now: datetime) -> int:
        """Send what is due, over each channel in one message; returns how many messages were taken."""
        with self._lock:
            self._tell_kept(now)
        with self._sending:
            return sum(self._send(channel, now) for channel in self.channels)

    def _send(self, channel: Channel, now: datetime) -> bool:
        with self._lock:
            queue = self._memory.queues.get(channel.name)
            if queue is None or not queue.events or now < datetime.fromisoformat(queue.not_before):
                return False
            events, dropped = list(queue.events), queue.dropped
        try:
            channel.send(self._message(events, dropped))
        except NotDelivered as error:
            why = str(error)
        else:
            why = ""
        with self._lock:
            if why:
                queue.attempts += 1
                wait_s = min(FIRST_RETRY_S * 2.0 ** min(queue.attempts - 1, 20), LONGEST_RETRY_S)
                queue.not_before = (now + timedelta(seconds=wait_s)).isoformat()
            else:
                known = {id(one) for one in events}
                queue.events = [one for one in queue.events if id(one) not in known]
                queue.attempts, queue.dropped = 0, 0
                queue.not_before = (now + timedelta(seconds=self._rules.group_s)).isoformat()
            _save(self._path, self._memory)
        if why:
            _log.warning("not notified", extra={"channel": channel.name, "why": why, "attempt": queue.attempts})
        else:
            _log.info("notified", extra={"channel": channel.name, "events": len(events)})
        return not why

    def _message(self, events: list[dict[str, str]], dropped: int) -> dict[str, Any]:
        message: dict[str, Any] = {"node": self._node, "events": events}
        if dropped:
            message["dropped"] = dropped
        if self._rules.link is not None:
            message["link"] = self._rules.link
        return message

    def send_test(self, now: datetime) -> dict[str, str]:
        """Send a test message over each channel at once; channel -> what went wrong, or nothing."""
        text = "this is a test; nothing is wrong"
        outcomes = {}
        for channel in self.channels:
            try:
                channel.send(
                    self._message([{"event": "test", "at": now.isoformat(timespec="seconds"), "text": text}], 0)
                )
                outcomes[channel.name] = ""
            except NotDelivered as error:
                outcomes[channel.name] = str(error)
        return outcomes

    @property
    def waiting(self) -> int:
        """How many events wait for a channel that has not taken them."""
        with self._lock:
            return sum(len(one.events) for one in self._memory.queues.values())


def _load(path: Path) -> _Memory:
    try:
        content = json.loads(path.read_bytes())
        queues = {name: _Queue(**one) for name, one in content.pop("queues").items()}
        return _Memory(**content, queues=queues)
    except FileNotFoundError:
        return _Memory()
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.error("what was to be notified cannot be read; it starts anew", extra={"error": type(error).__name__})
        return _Memory()


def _save(path: Path, memory: _Memory) -> None:
    """Keep it; on a full disk it is kept in memory alone, and told from there."""
    temporary = path.with_name(".notifications.json.new")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(asdict(memory), stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _log.warning("what is to be notified is not kept", extra={"error": error.strerror})
