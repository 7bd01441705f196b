"""CFCM against U-Net with 64, 32 and 16 base filters: trained alike on the same batches, timed in the same run.

Run with ``python -m tests.benchmarks.networks --data DATA`` (``--steps 150``: a fraction of a real training, the same
for all; the widest U-Net alone takes a quarter of an hour). The seconds depend on the machine, their ratios hardly.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.inference import OnnxModel
from models.registry import Member, load_model
from models.training.evaluate import evaluate
from models.training.export import export
from models.training.folds import split_folds
from models.training.networks import build_network
from models.training.real_data import load_folder
from models.training.slices import TrainingSlice, from_classes, split_by_subject
from models.training.train import TrainingPlan, train
from processing.phantom import draw_training_slice

NETWORKS = (("cfcm", 8), ("unet", 16), ("unet", 32), ("unet", 64))
MEMBERS = 5


def compare(
    training: Sequence[TrainingSlice],
    phantoms: Sequence[TrainingSlice],
    held_out: Sequence[TrainingSlice],
    steps: int,
    networks: Sequence[tuple[str, int]] = NETWORKS,
) -> None:
    """Train, export and time each network; prints one line each."""
    print(f"{steps} steps on the same batches; {len(training)} real and {len(phantoms)} simulated slices to learn from")
    print("network   parameters  MB x 5  train CPU-s  Dice   discs found  five members, CPU-s per 256 x 256 slice")
    for architecture, width in networks:
        plan = TrainingPlan(steps=steps, seed=1, architecture=architecture, width=width, real_share=0.65)
        start_s = time.process_time()
        network, _ = train(plan, phantoms, training, report=lambda _: None)
        spent_s = time.process_time() - start_s
        parameters = sum(one.numel() for one in build_network(architecture, width).parameters())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            export(network, path)
            megabytes = MEMBERS * path.stat().st_size / 1e6
            member = Member(path, hashlib.sha256(path.read_bytes()).hexdigest())
            ensemble = OnnxModel(replace(load_model("cfcm-lumbar"), members=(member,) * MEMBERS), device="cpu")
            said = evaluate(ensemble.predict, held_out)
            per_slice_s = seconds_per_slice(ensemble)
        print(
            f"{architecture:5s} {width:3d}  {parameters / 1e6:8.2f} M  {megabytes:6.1f}  {spent_s:11.0f}  "
            f"{said.dice['disc']:.3f}  {said.discs_found:4d}/{said.discs:4d}    {per_slice_s:.2f}",
            flush=True,
        )


def seconds_per_slice(ensemble: OnnxModel, repeats: int = 3) -> float:
    """CPU-seconds of one 256 x 256 slice through all members, the best of ``repeats``."""
    one = np.random.default_rng(1).normal(size=(1, 256, 256)).astype(np.float32)
    spent = []
    for _ in range(repeats + 1):  # the first call also allocates
        start_s = time.process_time()
        ensemble.predict(one)
        spent.append(time.process_time() - start_s)
    return min(spent[1:])


def main() -> int:
    """Compare on one fold of the data; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds spider_t2space/")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--networks", nargs="*", help="e.g. cfcm-8 unet-16; default: all four")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = load_folder(options.data / "spider_t2space")
    held = split_folds(Counter(one.subject for one in real), 5, 1)[0]
    training, held_out = split_by_subject(real, held)
    phantoms = []
    for index in range(options.phantoms):
        image, classes = draw_training_slice(np.random.default_rng([1, index, 7]))
        phantoms.append(from_classes(image, classes, f"phantom-{index}"))
    wanted = [(name.split("-")[0], int(name.split("-")[1])) for name in options.networks or ()] or NETWORKS
    compare(training, phantoms, held_out, options.steps, wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
