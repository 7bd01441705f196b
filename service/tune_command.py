"""``discnode tune registration``: parameters of the registration for a site's own discs, or for built-in hard ones."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import Settings

if TYPE_CHECKING:
    from processing.disc_pairs import DiscPair
    from processing.elastix_parameters import Stages
    from service.tuning import Trial

_OK, _USAGE, _REFUSED = 0, 2, 3


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of the command and their arguments; ``load`` reads and checks a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    tune = actions.add_parser("registration", help="lowers L = mean(1 - Dice + SD(det J)) by Bayesian optimisation")
    source = tune.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of annotated exams, as for evaluate")
    source.add_argument("--builtin", action="store_true", help="seeded hard discs against the atlas")
    tune.add_argument("--dimension", type=int, choices=(2, 3), required=True, help="single-slice or several slices")
    tune.add_argument("--preset", choices=("fast", "paper"), default="fast", help="what to start from (default: fast)")
    tune.add_argument(
        "--pairs", type=_at_least_one, default=6, help="discs: of --builtin, or at most of --data (default: 6)"
    )
    tune.add_argument(
        "--trials", type=_at_least_one, default=40, help="candidates in all, also over resumed runs (default: 40)"
    )
    tune.add_argument("--max-cpu-s", type=_positive, default=15.0, help="dearest mean CPU seconds a disc (default: 15)")
    tune.add_argument(
        "--budget-cpu-s", type=_positive, help="stop when the registrations of this run have taken so long"
    )
    tune.add_argument("--processes", type=_at_least_one, help="registration processes (default: that of the settings)")
    tune.add_argument(
        "--out", type=Path, required=True, help="folder for the study, parameter files, history.csv, .png"
    )
    tune.add_argument("--resume", action="store_true", help="go on with the study that is in --out")
    tune.add_argument("--config", type=Path, help="settings file (YAML)")
    tune.set_defaults(command=lambda options: _tune_registration(options, load(options.config)))


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _tune_registration(options: argparse.Namespace, settings: Settings) -> int:
    from processing.annotations import AnnotationError
    from processing.elastix_parameters import registration_parameters
    from processing.registration import SEED
    from processing.registration_pool import RegistrationPool
    from service.progress import show_progress
    from service.tuning import TuningError, TuningLimits, tune
    from service.tuning_files import write_history

    base = registration_parameters(options.dimension, options.preset, SEED, settings.registration.parameters_dir)
    processes = options.processes or settings.registration.processes
    limits = TuningLimits(options.trials, options.max_cpu_s, options.budget_cpu_s)
    try:
        pairs = _pairs(options, settings)
        with (
            RegistrationPool(processes, deadline_s=settings.registration.deadline_s) as pool,
            show_progress("tune registration") as progress,
        ):
            history = tune(
                pairs, base, pool, options.out, limits, resume=options.resume, at_once=processes, progress=progress
            )
    except AnnotationError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    except TuningError as error:
        print(error, file=sys.stderr)
        return _USAGE
    write_history(options.out, history)
    return _finish(options, base, history)


def _finish(options: argparse.Namespace, base: "Stages", history: "tuple[Trial, ...]") -> int:
    """Write the best and say what was gained."""
    from service.tuning import best_trial
    from service.tuning_files import write_best

    best, start = best_trial(history), history[0]
    if best is None:
        print("no candidate was good enough to be chosen", file=sys.stderr)
        return _REFUSED
    paths = write_best(options.out, best, base, options.dimension, options.preset)
    for name, one in (("preset", start), (f"best, trial {best.number}", best)):
        found = one.score
        print(
            f"{name:16s} L {found.loss:.4f}  Dice mean {found.mean_dice:.4f} min {found.min_dice:.4f}"
            f"  SD(J) {found.mean_sd_jacobian:.4f}  folded {found.n_folded}  {found.cpu_s:.1f} CPU s a disc"
        )
    print(f"to use it: registration: {{preset: {options.preset}, parameters_dir: {options.out.resolve()}}}")
    print("\n".join(map(str, paths)))
    return _OK


def _pairs(options: argparse.Namespace, settings: Settings) -> "tuple[DiscPair, ...]":
    """The discs to tune on."""
    from processing.atlas import load_atlas
    from processing.disc_pairs import hard_pairs
    from processing.tuning import pairs_of_exam
    from service.annotated_exams import find_annotated_exams, read_annotated_exam
    from service.tuning import TuningError

    atlas = load_atlas(options.dimension, settings.registration.atlas)
    if options.builtin:
        return hard_pairs(atlas, options.pairs)
    pairs: list[DiscPair] = []
    for source in find_annotated_exams(options.data, settings):
        exam = read_annotated_exam(source)
        if options.dimension == 3 and exam.levels.shape[0] == 1:
            raise TuningError(f"{exam.subject}: a single slice, which is tuned with --dimension 2")
        if exam.has_levels:
            pairs += pairs_of_exam(f"{exam.subject} {exam.visit}".strip(), exam.levels, exam.image.affine, atlas)
    if not pairs:
        raise TuningError(f"{options.data}: holds no disc of a known level")
    step = max(1, len(pairs) // options.pairs)  # from all exams and levels alike
    return tuple(pairs[::step][: options.pairs])
