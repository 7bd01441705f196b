"""The options of ``discnode cohort power``, told without loading what simulates."""

import argparse
from pathlib import Path
from typing import get_args

from config.cohort_models import LevelName


def add_power(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The action and its options."""
    power = actions.add_parser("power", help="subjects that a trial of two groups needs, by simulation of its model")
    power.add_argument("--effect", type=float, required=True, metavar="MS", help="difference at the last visit, ms")
    power.add_argument("--sd", type=_numbers, metavar="MS[,MS...]", help="SD of the change at each visit, ms")
    power.add_argument("--correlation", type=float, default=0.5, help="of the changes of any two visits (0.5)")
    power.add_argument("--dropout", type=_numbers, metavar="SHARE[,SHARE...]",
                       help="share that has left by the last visit, or by each (0)")  # fmt: skip
    power.add_argument("--baseline-correlation", type=float, default=0.0,
                       help="of baseline and change; the model adjusts for it (0: not adjusted)")  # fmt: skip
    power.add_argument("--run", type=Path, help="or: folder of a finished run, whose model gives SDs and dropout")
    power.add_argument("--model", help="its name there")
    power.add_argument("--level", default="", help="its level there, as L4L5, where there are several")
    power.add_argument(
        "--n",
        type=_counts,
        metavar="N[,N...]",
        help="subjects in each group; absent: for 80 and 90 %%, of maps 10 to 40",
    )
    power.add_argument(
        "--map", choices=get_args(LevelName), help="or: of the voxel-wise comparison of two groups at this level"
    )
    power.add_argument("--radius", type=float, default=5.0, help="of the ball that is shifted, in the nucleus, mm (5)")
    power.add_argument("--fwhm", type=float, default=4.0, help="smoothness of maps, mm (4)")
    power.add_argument("--shared", type=float, default=0.3, help="of the variance, by all voxels of a subject (0.3)")
    power.add_argument("--alpha", type=float, default=0.05, help="two-sided (0.05)")
    power.add_argument("--simulations", type=int, help="trials for each size (4000; of maps 500)")
    power.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    power.add_argument("--out", type=Path, help="CSV file for the table, too")
    power.set_defaults(command=_power)


def _power(options: argparse.Namespace) -> int:
    from service.cohort.power_command import tell_power

    return tell_power(options)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, nor several between commas") from error


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, nor several between commas") from error
