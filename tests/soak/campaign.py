"""What a campaign is given, and what it gives back."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """How much to do. ``folder`` is empty and the campaign's own."""

    folder: Path
    exams: int = 2000
    minutes: float | None = None
    points: int = 30
    seed: int = 1
    steady: bool = False  # the node is left alone from the start: to look for a leak
    subjects: int = 30  # of the simulated trial
    analysis: str = "tests.soak.light_analysis:analyse"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the summary. ``ok`` None: a figure without a limit."""

    what: str
    found: str
    limit: str = ""
    ok: bool | None = None


@dataclass(slots=True)
class Ticker:
    """A line of progress now and then, on stderr."""

    title: str
    every_s: float = 10.0
    _started_s: float = field(default_factory=time.monotonic)
    _next_s: float = 0.0

    def tell(self, text: str, *, now: bool = False) -> None:
        if now or time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self.every_s
            sys.stderr.write(f"{self.title}: {time.monotonic() - self._started_s:5.0f} s  {text}\n")
            sys.stderr.flush()


def print_table(title: str, checks: Sequence[Check]) -> bool:
    """Print the summary; whether nothing was breached."""
    words = {True: "ok", False: "BREACHED", None: ""}
    rows = [("what", "found", "limit", ""), *((one.what, one.found, one.limit, words[one.ok]) for one in checks)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print(f"\n{title}")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return all(one.ok is not False for one in checks)
