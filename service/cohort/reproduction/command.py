"""``discnode cohort reproduce``: the whole paper on simulated cohorts, and what became of what was planted."""

import argparse
import sys
import time
from pathlib import Path

from service.cohort.reproduction.records import Cohort

_OK, _FAILED, _USAGE = 0, 1, 2
_PERMUTATIONS = 2000


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The action of ``discnode cohort``."""
    reproduce = actions.add_parser("reproduce", help="the whole paper on simulated cohorts with known effects")
    reproduce.add_argument("--out", type=Path, required=True, help="folder for everything; goes on where one stopped")
    reproduce.add_argument("--seed", type=int, default=1)
    reproduce.add_argument("--subjects-a", type=int, default=16, metavar="N", help="people in cohort A (default: 16)")
    reproduce.add_argument("--subjects-b", type=int, default=15, metavar="N", help="people in cohort B (default: 15)")
    reproduce.add_argument("--workers", type=int, metavar="N", help="scans side by side (default: one for each core)")
    reproduce.add_argument(
        "--permutations", type=int, default=_PERMUTATIONS, metavar="N", help=f"of each map (default: {_PERMUTATIONS})"
    )
    reproduce.set_defaults(command=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    from service.cohort.reproduction.plans import PlanFailed
    from service.cohort.reproduction.planted import verdict_lines
    from service.cohort.reproduction.whole import Asked, NotOurs, reproduce, usual_workers
    from service.progress import show_progress

    sizes = {Cohort.A: options.subjects_a, Cohort.B: options.subjects_b}
    asked = Asked(sizes, options.seed, options.permutations)
    began_s = time.monotonic()
    try:
        with show_progress("reproduce") as progress:
            made = reproduce(options.out, asked, workers=options.workers or usual_workers(), tell=progress)
    except (NotOurs, ValueError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    except PlanFailed as error:
        print(error, file=sys.stderr)
        return _FAILED
    for line in verdict_lines(made.verdict):
        print(line)
    print()
    for one in made.doubtful:
        print(f"{one.scan.subject} {one.scan.visit}: {one.status}: {'; '.join(one.reasons)}")
    for missing in made.missing:
        print(f"not made: {missing}")
    n_again = sum(one.again for one in made.outcomes)
    told = f", {n_again} of them made before" if n_again else ""
    print(f"{len(made.outcomes)} scans{told}; {time.monotonic() - began_s:.0f} s: {options.out}")
    return _OK
