"""``discnode train export``: the members of a finished run as ONNX, with registry, card, figures and folds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from models.inference import OnnxModel
from models.registry import REGISTRY_FILE, load_model, trial_record
from models.training.dataset import FOLDS, file_sha256
from models.training.export import export
from models.training.members import predictor
from models.training.train import load_average
from service.training.card import CARD, licence, model_card, training_data
from service.training.publish import publish_folder, start_folder
from service.training.run import METRICS, checkpoint_of
from service.training.run_error import RunError

#: Half-precision weights move a logit by less than this share of the largest.
_ALLOWED_DEVIATION = 0.02

_REGISTRY_HEAD = (
    "# name -> an ensemble: its members with their SHA-256, its calibrated disc threshold, what it was trained on.\n"
    "# A file with another hash is refused.\n"
)


def export_run(
    run: Path, out: Path, *, name: str, version: str, threshold: float, say: Callable[[str], None] = print
) -> None:
    """Write a folder of networks that the node can use; it appears whole or not at all.

    Every file is opened as the node would, and asked the same as the trained network, before the folder appears.

    Raises:
        RunError: the run is not finished, or an exported network answers differently.
        DataError: ``out`` holds something else.
    """
    metrics = read_metrics(run)
    writing = start_folder(out, REGISTRY_FILE)
    members = []
    for one in metrics["members"]:
        checkpoint = checkpoint_of(run, one["member"] - 1)
        path = writing / f"{name}-{one['member']}.onnx"
        _export_member(checkpoint, path)
        members.append({"file": path.name, "sha256": file_sha256(path)})
        say(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    if (run / FOLDS).is_file():
        shutil.copyfile(run / FOLDS, writing / FOLDS)
    megabytes = sum((writing / one["file"]).stat().st_size for one in members) / 1e6
    shutil.copyfile(run / METRICS, writing / METRICS)
    command = f"discnode train run --profile {metrics['recipe']['name']} --folds {len(members)}"
    if metrics["data"]:
        command += " --data DATA"
    card = model_card(name, version, metrics, threshold=threshold, command=command, megabytes=megabytes)
    (writing / CARD).write_text(card, encoding="utf-8")
    plan = metrics["recipe"]["fold"]
    entry = {
        "version": version,
        "architecture": plan["architecture"],
        "width": plan["width"],
        "members": members,
        "threshold": threshold,
        "training_data": training_data(metrics),
        "licence": licence(metrics),
    }
    write_registry(writing / REGISTRY_FILE, {name: entry})  # last: what has no registry is no model
    load_model(name, writing)
    publish_folder(writing, out)
    say(f"{out}: {name} {version}, {len(members)} members, {megabytes:.1f} MB")


def write_registry(path: Path, entries: dict[str, Any]) -> None:
    """Write the entries of a registry file."""
    path.write_text(_REGISTRY_HEAD + yaml.safe_dump(entries, sort_keys=False, width=110), encoding="utf-8")


def read_metrics(run: Path) -> dict[str, Any]:
    """The metrics of a finished run.

    Raises:
        RunError: it is not finished, or a member's checkpoint is gone.
    """
    try:
        metrics: dict[str, Any] = json.loads((run / METRICS).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{run} holds no finished run: {METRICS} cannot be read ({error.strerror})") from error
    missing = [
        path for path in (checkpoint_of(run, one["member"] - 1) for one in metrics["members"]) if not path.exists()
    ]
    if missing:
        raise RunError(f"{run}: {', '.join(path.name for path in missing)} missing")
    return metrics


def _export_member(checkpoint: Path, path: Path) -> None:
    network = load_average(checkpoint)
    export(network, path)
    question = np.random.default_rng(1).normal(size=(1, 64, 96)).astype(np.float32)
    expected = predictor(network)(question)
    answer = OnnxModel(trial_record((path,)), device="cpu").predict(question)
    deviation = float(np.abs(answer - expected).max() / max(float(np.abs(expected).max()), 1.0))
    if not deviation <= _ALLOWED_DEVIATION:
        raise RunError(f"{path.name} answers differently from its checkpoint (by {deviation:.3f} of the largest logit)")
