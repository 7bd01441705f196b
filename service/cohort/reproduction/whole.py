"""The whole reproduction, step after step: people, scans, plans, runs, the verdict about what was planted."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processing.display import RESEARCH_USE_ONLY
from service.cohort.reproduction.index_page import write_index
from service.cohort.reproduction.items import write_items
from service.cohort.reproduction.plans import run_plans, write_plans
from service.cohort.reproduction.planted import Verdict, judge, write_verdict
from service.cohort.reproduction.records import LABEL, Cohort, write_scans
from service.cohort.reproduction.scans import ScanOutcome, measure_scans, scan_settings, visits_of
from service.cohort.reproduction.subjects import CohortSubject, draw_cohort
from service.progress import Progress

_ABOUT = "reproduction.json"
_REFUSED = "refused"

Measure = Callable[..., tuple[ScanOutcome, ...]]


class NotOurs(Exception):
    """The folder holds something else, or another reproduction."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be reproduced. ``sizes``: people in each cohort."""

    sizes: dict[Cohort, int]
    seed: int
    permutations: int

    @property
    def entry(self) -> dict[str, Any]:
        """As it stands in the folder; another one in the same folder is refused."""
        return {
            "label": LABEL,
            "use": RESEARCH_USE_ONLY,
            "subjects": {cohort.value: n for cohort, n in self.sizes.items()},
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What came of it. ``outcomes``: of all scans, also those refused. ``missing``: items that lack, and why."""

    outcomes: tuple[ScanOutcome, ...]
    verdict: Verdict
    missing: tuple[str, ...]

    @property
    def doubtful(self) -> tuple[ScanOutcome, ...]:
        """Scans that were refused, or ask for review."""
        return tuple(one for one in self.outcomes if one.status != "ok")


def usual_workers() -> int:
    """As many as this process may use cores."""
    return len(os.sched_getaffinity(0))


def reproduce(
    folder: Path, asked: Asked, *, workers: int, tell: Progress, measure: Measure = measure_scans
) -> Reproduced:
    """Make everything in ``folder``, or go on where one stopped.

    Raises:
        NotOurs: the folder holds something else.
        ValueError: too few people.
        PlanFailed: the scans cannot be analysed.
    """
    people = [one for cohort in Cohort for one in visits_of(draw_cohort(cohort, asked.sizes[cohort], asked.seed))]
    claim(folder, asked)
    outcomes = measure(people, folder, workers=workers, tell=lambda what, share: tell(what, 0.7 * share))
    scans = [one.scan for one in outcomes if one.status != _REFUSED]
    write_scans(folder, scans)
    plans = write_plans(folder, seed=asked.seed, permutations=asked.permutations, has_follow_up=_has_follow_up(people))
    run_plans(plans, workers=workers, tell=lambda what, share: tell(what, 0.7 + 0.2 * share))
    verdict = judge(folder)
    write_verdict(verdict, folder)
    items = write_items(
        folder,
        scans,
        folder / "items",
        settings=scan_settings(),
        seed=asked.seed,
        progress=lambda what, share: tell(what, 0.9 + 0.1 * share),
    )
    write_index(folder, verdict, outcomes, seed=asked.seed)
    tell("done", 1.0)
    missing = tuple(f"{one.item.key}: {one.reason}" for one in items if one.reason)
    return Reproduced(outcomes, verdict, missing)


def claim(folder: Path, asked: Asked) -> None:
    """Take a new or empty folder, or one of the same reproduction.

    Raises:
        NotOurs: it holds something else.
    """
    about = folder / _ABOUT
    if about.is_file():
        held = json.loads(about.read_text(encoding="utf-8"))
        if held != asked.entry:
            raise NotOurs(
                f"{folder}: holds the reproduction of other cohorts (seed {held.get('seed')}); choose another"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise NotOurs(f"{folder}: is not empty, and no reproduction")
    folder.mkdir(parents=True, exist_ok=True)
    about.write_text(json.dumps(asked.entry, indent=2) + "\n", encoding="utf-8")


def _has_follow_up(people: Sequence[CohortSubject]) -> bool:
    """Whether enough people were seen twice for the change over time: fewer than three are no sample."""
    return sum(one.later is not None for one in people) >= 3
