"""Where jobs run: warm worker processes of this machine, replaced when they die."""

import logging
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

from config.settings import Settings
from service.children import Child, ChildMessage

_log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
STEP_S = 0.05  # between two looks at processes that are to end


def restart_pause_s(lived_s: float, deaths_in_a_row: int) -> float:
    """Seconds to wait before a dead process is replaced: none the first time, doubling while it keeps dying young."""
    if lived_s > 60.0 or deaths_in_a_row <= 1:
        return 0.0
    return min(LONGEST_PAUSE_S, 2.0 ** (deaths_in_a_row - 2))


@dataclass(slots=True)
class _Seat:
    """A place for one process."""

    child: Child | None = None
    deaths: int = 0
    not_before_s: float = 0.0


class KeptProcesses:
    """A fixed number of child processes of one kind, kept running. Call its methods from the main thread."""

    def __init__(self, module: str, kind: str, count: int, settings: Settings, analysis: str = "") -> None:
        self._module = module
        self._kind = kind
        self._settings = settings
        self._analysis = analysis
        self._seats = [_Seat() for _ in range(count)]

    @property
    def alive(self) -> int:
        """How many run now."""
        return sum(seat.child is not None and seat.child.exit_status() is None for seat in self._seats)

    @property
    def steady(self) -> int:
        """How many run, and are not one of a row that died young a moment ago."""
        now_s = time.monotonic()
        running = [one for one in self._seats if one.child is not None and one.child.exit_status() is None]
        return sum(one.deaths < 2 or now_s - one.child.started_at_s > 10.0 for one in running if one.child is not None)

    @property
    def pids(self) -> list[int]:
        """Process numbers of those that run."""
        return [seat.child.pid for seat in self._seats if seat.child is not None and seat.child.exit_status() is None]

    def keep(self, on_death: Callable[[str, int], None]) -> None:
        """Replace what has died; ``on_death`` is told the name and exit status of each."""
        for seat in self._seats:
            if seat.child is not None and (status := seat.child.exit_status()) is not None:
                child, seat.child = seat.child, None
                child.kill()  # what it started must not outlive it
                lived_s = time.monotonic() - child.started_at_s
                seat.deaths = 1 if lived_s > 60.0 else seat.deaths + 1
                seat.not_before_s = time.monotonic() + restart_pause_s(lived_s, seat.deaths)
                _log.error("process died", extra={"child": child.name, "exit_status": status})
                on_death(child.name, status)
            if seat.child is None and time.monotonic() >= seat.not_before_s:
                name = f"{self._kind}-{uuid.uuid4().hex[:8]}"
                seat.child = Child(self._module, ChildMessage(name, self._settings, self._analysis))

    def ask_to_stop(self) -> None:
        """Tell all of them to end what they are at, and then themselves (SIGTERM)."""
        for seat in self._seats:
            if seat.child is not None:
                seat.child.terminate()

    def stop(self, wait_s: float, hurry: Callable[[], bool] = lambda: False) -> list[str]:
        """End all of them, giving them ``wait_s`` seconds, or until ``hurry()``; returns their names."""
        self.ask_to_stop()
        deadline_s = time.monotonic() + wait_s
        while self.alive and time.monotonic() < deadline_s and not hurry():
            time.sleep(STEP_S)
        children = [seat.child for seat in self._seats if seat.child is not None]
        for child in children:
            child.kill()
        for seat in self._seats:
            seat.child = None
        return [child.name for child in children]

    def kill(self, names: Collection[str] | None = None) -> None:
        """Kill those that run, or only those of certain names; :meth:`keep` will replace them."""
        for seat in self._seats:
            if seat.child is not None and (names is None or seat.child.name in names):
                seat.child.kill()
