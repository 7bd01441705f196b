"""`make train`: phantoms and, where there are any, annotated real slices in; weights with their registry entry out."""

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import yaml

from models.inference import OnnxModel
from models.registry import load_model
from processing.phantom import draw_training_slice

if TYPE_CHECKING:  # the extra "train" may be missing; main() says so
    from models.training.slices import TrainingSlice

_NAME = "cfcm-lumbar"
_FOLDER = "spider_t2space"

#: Patients of SPIDER whose slices are never trained on: the real validation set of the model card.
HELD_OUT = ("35", "57", "81", "110", "142", "191")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, export, evaluate; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        from models.training.export import export
        from models.training.train import TrainingPlan, train
    except ImportError as error:
        sys.stderr.write(f"training needs the extra packages: pip install 'discnode[train]' ({error})\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    phantoms = phantom_slices(options.phantoms, options.seed, options.out, options.processes)
    real, held_out = real_slices(options.data)
    plan = TrainingPlan(steps=options.steps, seed=options.seed)
    checkpoint = options.out / "checkpoint.pt"
    network, losses = train(plan, phantoms, real, checkpoint=checkpoint, report=_say, loader_processes=options.loaders)
    weights = options.out / f"{_NAME}.onnx"
    export(network, weights)
    register(weights, options.version, plan.width, with_real=bool(real))
    figures: dict[str, Any] = {"plan": asdict(plan), "phantoms": len(phantoms), "real_slices": len(real)}
    figures["mean_loss_of_last_25_steps"] = float(np.mean(losses[-25:])) if losses else None
    if held_out:
        figures["held_out"] = held_out_figures(options.out, held_out)
    text = json.dumps(figures, indent=2)
    (options.out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    _say(text)
    _say(f"{weights} and registry.yaml are ready; copy both into models/weights to use them")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.train_command", description="Rebuild the network's weights."
    )
    parser.add_argument("--data", type=Path, help=f"folder that holds {_FOLDER}/; without it phantoms alone are used")
    parser.add_argument("--out", type=Path, default=Path("out/training"), help="checkpoint, weights, entry, metrics")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phantoms", type=int, default=1000, help="phantom slices to draw")
    parser.add_argument("--processes", type=int, default=2, help="processes that draw phantoms")
    parser.add_argument("--loaders", type=int, default=0, help="extra processes that prepare batches; same result")
    parser.add_argument("--version", default="1", help="version in the registry entry")
    return parser


def phantom_slices(count: int, seed: int, folder: Path, processes: int) -> list["TrainingSlice"]:
    """``count`` phantom slices, drawn once for a seed and kept in ``folder``; slice i depends on seed and i alone."""
    from models.training.slices import from_classes

    pool = folder / f"phantoms-{seed}-{count}.npz"
    if not pool.exists():
        images = np.empty((count, 256, 256), np.float16)
        classes = np.empty((count, 256, 256), np.uint8)
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            drawn = workers.imap(_draw, ((seed, index) for index in range(count)), chunksize=10)
            for index, (image, tissue) in enumerate(drawn):
                images[index], classes[index] = image, tissue
                if (index + 1) % 250 == 0:
                    _say(f"phantom {index + 1}/{count}")
        temporary = pool.with_suffix(".writing.npz")
        np.savez(temporary, images=images, classes=classes)
        temporary.replace(pool)
    with np.load(pool) as held:
        pairs = zip(held["images"], held["classes"], strict=True)
        return [from_classes(image, tissue, f"phantom-{index}") for index, (image, tissue) in enumerate(pairs)]


def _draw(key: tuple[int, int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    image, classes = draw_training_slice(np.random.default_rng([*key, 7]))
    return image / max(float(np.abs(image).max()), 1e-6), classes  # half precision overflows at 65504


def real_slices(data: Path | None) -> tuple[list["TrainingSlice"], list["TrainingSlice"]]:
    """(training, held-out) slices of the data folder; both empty where it has no real data, and that is said."""
    from models.training.real_data import load_folder
    from models.training.slices import split_by_subject

    if data is None or not (data / _FOLDER).is_dir():
        _say(f"no {_FOLDER} in the data folder: training on phantoms alone")
        return [], []
    slices = load_folder(data / _FOLDER)
    subjects = {one.subject for one in slices}
    training, held_out = split_by_subject(slices, [name for name in HELD_OUT if name in subjects])
    _say(f"{len(training)} real slices to train on, {len(held_out)} of held-out patients")
    return training, held_out


def held_out_figures(folder: Path, held_out: Sequence["TrainingSlice"]) -> dict[str, Any]:
    """What the exported network of ``folder`` achieves on the held-out patients."""
    from models.training.evaluate import evaluate

    return asdict(evaluate(OnnxModel(load_model(_NAME, folder)).predict, held_out))


def register(weights: Path, version: str, width: int, *, with_real: bool) -> None:
    """Write the registry entry of ``weights`` beside it."""
    data, licence = "simulated lumbar slices", "Apache-2.0"
    if with_real:
        data += "; SPIDER T2 SPACE (van der Graaf et al., Sci Data 2024;11:264, CC BY 4.0)"
        licence += "; trained in part on CC BY 4.0 data, attribution in MODEL_CARD.md"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = {
        "version": version,
        "architecture": "cfcm",
        "width": width,
        "members": [{"file": weights.name, "sha256": sha256}],
        "threshold": 0.5,
        "training_data": data,
        "licence": licence,
    }
    text = "# name -> an ensemble: its members with their SHA-256, its disc threshold, what it was trained on.\n"
    text += "# A file with another hash is refused.\n"
    text += yaml.safe_dump({_NAME: entry}, sort_keys=False, width=110)
    (weights.parent / "registry.yaml").write_text(text, encoding="utf-8")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
