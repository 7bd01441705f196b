"""``python -m tests.soak [--exams N | --minutes N] [--only NAME]``: a table for each campaign; 1 if one is breached."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.soak import kill_worker, many_exams, trial, whole_node
from tests.soak.campaign import Check, Options, print_table

#: A campaign is a module with ``run(options) -> list[Check]``. Add yours here.
CAMPAIGNS: Mapping[str, Callable[[Options], list[Check]]] = {
    "whole-node": whole_node.run,
    "kill-worker": kill_worker.run,
    "many-exams": many_exams.run,
    "trial": trial.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long campaigns of faults and load.")
    parser.add_argument("--exams", type=int, default=2000, help="of the whole node (default: 2000)")
    parser.add_argument("--minutes", type=float, help="for each campaign: no more than about so long")
    parser.add_argument("--points", type=int, default=30, help="at which the worker is killed (default: 30)")
    parser.add_argument("--subjects", type=int, default=30, help="of the simulated trial (default: 30; at least 6)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steady", action="store_true", help="kill nothing of the whole node: to look for a leak")
    parser.add_argument("--only", action="append", choices=list(CAMPAIGNS), help="only this one; may be repeated")
    parser.add_argument("--keep", type=Path, help="an empty folder for what they leave, which then stays")
    chosen = parser.parse_args()
    is_whole = True
    for name in chosen.only or CAMPAIGNS:
        with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
            folder = Path(temporary) if chosen.keep is None else chosen.keep / name
            folder.mkdir(parents=True, exist_ok=True)
            options = Options(
                folder,
                chosen.exams,
                chosen.minutes,
                chosen.points,
                chosen.seed,
                chosen.steady,
                subjects=chosen.subjects,
            )
            is_whole &= print_table(name, CAMPAIGNS[name](options))
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
