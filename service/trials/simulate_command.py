"""``discnode trial simulate``: a made-up trial with known change and planted faults, ready to be sent to a node."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from config.settings import Settings


def add_actions(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", load: Callable[[Path | None], Settings]
) -> None:
    """Add the action that simulates a trial."""
    simulate = actions.add_parser("simulate", help="writes a simulated trial: exams, plan, tables, what is expected")
    simulate.add_argument("--out", type=Path, required=True, help="new folder for everything it makes")
    simulate.add_argument("--subjects", type=int, default=30, help="the first six hold every fault once (default: 30)")
    simulate.add_argument("--slices", type=int, default=4, help="of each exam, 3 to 12 (default: 4)")
    simulate.add_argument("--seed", type=int, default=1)
    simulate.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from service.progress import show_progress
    from service.trials.simulation.folder import Size, write_trial

    if not 3 <= options.slices <= 12:
        print(f"--slices: 3 to 12, not {options.slices}", file=sys.stderr)
        return 2
    try:
        with show_progress("simulate") as progress:
            scenario = write_trial(
                options.out, options.subjects, options.seed, Size(n_slices=options.slices), tell=progress
            )
    except (ValueError, FileExistsError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(scenario.subjects)} subjects, {len(scenario.scans)} exams in {options.out}: scans.csv is the order in")
    print(
        "which they arrive, expected.csv what a node must say of each visit, trials/ the plan, node.yaml its settings."
    )
    print("For research use only.")
    return 0
