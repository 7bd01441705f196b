"""``discnode train``: prepare annotated exams, train an ensemble, export it, install it if it is better."""

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from config.settings import load_settings

_OK, _FAILED, _USAGE, _REFUSED = 0, 1, 2, 3

_NAME = "cfcm-lumbar"

#: The names of the recipes, in words; what they do stands in models/training/recipes.py, which needs torch.
PROFILES = {
    "cpu": "five members of width 8 in about 95 minutes on two cores (default)",
    "gpu": "five members of width 16 side by side, each from random weights, on a CUDA device",
    "paper": "the recipe of Iriondo et al. 2020: width 64, 8000 epochs, real slices alone, on a CUDA device",
    "smoke": "20 steps of a tiny network: proves that everything runs",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the command and their arguments."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    prepare = actions.add_parser("prepare", help="annotated exams -> checked slices, manifest, folds")
    prepare.add_argument("data", type=Path, metavar="DATA", help="folder of annotated exams")
    prepare.add_argument("--out", type=Path, required=True, help="folder for the slices, manifest.json and folds.json")
    prepare.add_argument("--folds", type=_at_least(2), default=5, help="how many groups of subjects (default: 5)")
    prepare.add_argument("--seed", type=int, default=1, help="of the division (default: 1)")
    prepare.add_argument("--config", type=Path, help="settings file (YAML); tells how DICOM exams are read")
    prepare.set_defaults(command=_prepare)

    run = actions.add_parser("run", help="train one network for each fold")
    run.add_argument(
        "--data", type=Path, help="prepared folder, or annotated exams; without it: simulated slices alone"
    )
    run.add_argument("--out", type=Path, required=True, help="folder for checkpoints and metrics.json")
    profiles = "; ".join(f"{name}: {text}" for name, text in PROFILES.items())
    run.add_argument("--profile", choices=tuple(PROFILES), default="cpu", help=profiles)
    run.add_argument("--smoke", action="store_const", const="smoke", dest="profile", help="the same as --profile smoke")
    run.add_argument("--folds", type=_at_least(2), help="how many members (default: as prepared, or 5)")
    run.add_argument("--fold", type=_at_least(1), help="train this member only, counted from 1")
    run.add_argument("--steps", type=_at_least(1), help="steps of each member, in place of the profile's")
    run.add_argument("--processes", type=_at_least(1), help="members trained at a time (default: the profile's)")
    run.add_argument("--resume", action="store_true", help="go on with what is in --out, if anything is")
    run.add_argument("--config", type=Path, help="settings file (YAML); tells how DICOM exams are read")
    run.set_defaults(command=_run)

    export = actions.add_parser("export", help="a finished run -> ONNX, registry.yaml, MODEL_CARD.md")
    export.add_argument("--run", type=Path, required=True, help="the folder that train run wrote")
    export.add_argument("--out", type=Path, help="default: export in the folder of the run")
    export.add_argument("--name", default=_NAME, help=f"name of the model (default: {_NAME})")
    export.add_argument("--version", default="1", help="its version (default: 1)")
    export.add_argument(
        "--threshold", type=_probability, default=0.5, help="disc probability from which a voxel is disc (default: 0.5)"
    )
    export.set_defaults(command=_export)

    promote = actions.add_parser("promote", help="install an export if it is better than what is installed")
    wanted = promote.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--candidate", type=Path, help="the folder that train export wrote")
    wanted.add_argument("--back", action="store_true", help="use the previous registry again")
    promote.add_argument("--weights-dir", type=Path, required=True, help="segmentation.weights_dir of the node")
    promote.add_argument("--data", type=Path, help="prepared folder to compare on; without it: simulated slices alone")
    promote.add_argument("--name", default=_NAME, help=f"name of the model (default: {_NAME})")
    promote.add_argument(
        "--phantoms", type=_at_least(1), default=60, help="simulated slices to compare on (default: 60)"
    )
    promote.add_argument("--threads", type=_at_least(1), default=1, help="threads of the networks (default: 1)")
    promote.set_defaults(command=_promote)


def _prepare(options: argparse.Namespace) -> int:
    from service.training.prepare import prepare

    settings = load_settings(options.config)

    def work() -> int:
        prepare(options.data, options.out, settings=settings, folds=options.folds, seed=options.seed, say=say)
        return _OK

    return _reporting(work)


def _run(options: argparse.Namespace) -> int:
    if not _torch_is_there():
        return _USAGE
    from models.training.recipes import RECIPES, shorten
    from service.training.run import open_run, start, train_run
    from service.training.run_error import RunError

    settings = load_settings(options.config)
    recipe = RECIPES[options.profile]
    if options.steps is not None:
        recipe = shorten(recipe, options.steps)

    def work() -> int:
        run = open_run(recipe, options.data, options.out, settings=settings, folds=options.folds, say=say)
        if options.fold is not None and options.fold > run.members:
            raise RunError(f"there is no fold {options.fold}: there are {run.members}")
        start(run, resume=options.resume)
        only = None if options.fold is None else options.fold - 1
        metrics = train_run(run, only=only, processes=options.processes or recipe.at_once, say=say)
        if metrics is not None:
            pooled, frozen = metrics["out_of_fold"], metrics["frozen_phantoms_single_members"]
            if pooled is not None:
                found = f"{pooled['discs_found']} of {pooled['discs']} disc areas found"
                say(f"subjects not learnt from: disc Dice {pooled['dice']['disc']:.4f}, {found}")
            say(f"simulated slices not learnt from, single members: disc Dice {frozen['dice']['disc']:.4f}")
            say(f"finished; next: discnode train export --run {shlex.quote(str(options.out))}")
        return _OK

    return _reporting(work)


def _export(options: argparse.Namespace) -> int:
    if not _torch_is_there():
        return _USAGE
    from service.training.export import export_run

    def work() -> int:
        out = options.out or options.run / "export"
        export_run(options.run, out, name=options.name, version=options.version, threshold=options.threshold, say=say)
        return _OK

    return _reporting(work)


def _promote(options: argparse.Namespace) -> int:
    from service.training.promote import go_back, promote

    def work() -> int:
        if options.back:
            go_back(options.weights_dir)
            say(f"{options.weights_dir}: the previous registry decides again")
            return _OK
        better = promote(
            options.candidate,
            options.weights_dir,
            name=options.name,
            data=options.data,
            phantoms=options.phantoms,
            threads=options.threads,
            say=say,
        )
        return _OK if better else _REFUSED

    return _reporting(work)


def _reporting(work: Callable[[], int]) -> int:
    """Do it; what is wrong with the request, its data or the machine is told in lines that a person can act on."""
    from models.registry import ModelError
    from models.training.dataset import DataError
    from processing.annotations import AnnotationError
    from processing.refusal import UnsuitableInput
    from service.training.parallel import TaskFailed
    from service.training.run_error import RunError

    try:
        return work()
    except (DataError, AnnotationError, ModelError, RunError) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    except UnsuitableInput as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    except TaskFailed as error:
        sys.stderr.write(f"{error}; the same command with --resume goes on from the last checkpoint\n")
        return _FAILED
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED


def _torch_is_there() -> bool:
    missing = [name for name in ("torch", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"training needs {' and '.join(missing)}: pip install 'discnode[train]'\n")
    return not missing


def _at_least(smallest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{value} is less than {smallest}")
        return value

    return number


def _probability(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def say(line: str) -> None:
    """One line to the person or the log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
