"""Whether the node does its work: checks that run by themselves, each in a thread of its own, and what they last said.

Who asks gets an answer at once, whatever a check is waiting for: one that has not come back for a while has failed.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger(__name__)

EVERY_S = 1.5
STALE_S = 6.0  # a check that has not come back for so long has failed


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to check. ``check`` returns what is wrong, in words without identity, or nothing.

    Without what is ``vital`` no image can be received or analysed; else it is worth a look, and the node is ready.
    """

    name: str
    check: Callable[[], str]
    vital: bool = True


@dataclass(frozen=True, slots=True)
class Check:
    """What a probe last said. ``wrong``: empty if all is well."""

    name: str
    wrong: str
    vital: bool
    age_s: float


@dataclass(frozen=True, slots=True)
class Health:
    """What works now."""

    checks: tuple[Check, ...]

    @property
    def is_ready(self) -> bool:
        """Whether images can be received and analysed."""
        return not any(one.wrong for one in self.checks if one.vital)

    @property
    def failed(self) -> dict[str, str]:
        """What keeps it from being ready: name -> words."""
        return {one.name: one.wrong for one in self.checks if one.vital and one.wrong}

    @property
    def degraded(self) -> dict[str, str]:
        """What else is not as it should be: name -> words."""
        return {one.name: one.wrong for one in self.checks if not one.vital and one.wrong}

    def as_dict(self) -> dict[str, Any]:
        """For /health/ready: each check as true or false, and in words what is wrong."""
        return {
            "ready": self.is_ready,
            **{one.name: not one.wrong for one in self.checks},
            "failed": self.failed,
            "degraded": self.degraded,
            "checked_s_ago": {one.name: round(one.age_s, 1) for one in self.checks},
        }


@dataclass(slots=True)
class _State:
    wrong: str
    ended_s: float  # monotonic


class HealthMonitor:
    """Runs probes until closed. Nothing is said to work before it was found to."""

    def __init__(self, probes: Sequence[Probe], *, every_s: float = EVERY_S, stale_s: float = STALE_S) -> None:
        self._probes = tuple(probes)
        self._every_s, self._stale_s = every_s, stale_s
        self._states = {one.name: _State("not yet checked", time.monotonic()) for one in self._probes}
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name=f"health {one.name}", daemon=True)
            for one in self._probes
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def _run(self, probe: Probe) -> None:
        while not self._closed.is_set():
            wrong = probe.check()
            before, self._states[probe.name] = self._states[probe.name], _State(wrong, time.monotonic())
            if wrong != before.wrong and before.wrong != "not yet checked":
                log = _log.warning if wrong else _log.info
                log("health changed", extra={"check": probe.name, "wrong": wrong or "nothing"})
            self._closed.wait(self._every_s)

    def look(self) -> Health:
        """What works now; returns at once."""
        now_s = time.monotonic()
        return Health(tuple(self._check(one, now_s) for one in self._probes))

    def _check(self, probe: Probe, now_s: float) -> Check:
        state = self._states[probe.name]
        age_s = now_s - state.ended_s
        wrong = state.wrong
        if age_s > self._stale_s + self._every_s and not wrong:
            wrong = f"no answer for {age_s:.0f} s"
        return Check(probe.name, wrong, probe.vital, age_s)

    def close(self) -> None:
        """Stop; a probe that hangs is left behind."""
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=0.2)
