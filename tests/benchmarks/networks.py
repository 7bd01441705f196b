"""CFCM against U-Net with 64, 32 and 16 base filters: trained alike on the same batches, timed in the same run.

Run with ``python -m tests.benchmarks.networks --data DATA`` (``--steps 150``: a fraction of a real training, the same
for all; the widest U-Net alone takes a quarter of an hour). ``--profile gpu`` trains them as that recipe does, on a
CUDA device. The seconds depend on the machine, their ratios hardly.
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
from models.training.dataset import MANIFEST, load_slices, read_manifest
from models.training.evaluate import evaluate
from models.training.export import export
from models.training.folds import split_folds
from models.training.members import predictor
from models.training.networks import build_network
from models.training.real_data import load_folder
from models.training.recipes import GPU
from models.training.slices import TrainingSlice, from_classes, split_by_subject
from models.training.train import TrainingPlan, train
from service.training.phantoms import draw_phantom

NETWORKS = (("cfcm", 8), ("unet", 16), ("unet", 32), ("unet", 64))
MEMBERS = 5


def compare(
    training: Sequence[TrainingSlice],
    phantoms: Sequence[TrainingSlice],
    held_out: Sequence[TrainingSlice],
    common: TrainingPlan,
    networks: Sequence[tuple[str, int]] = NETWORKS,
    loaders: int = 0,
) -> None:
    """Train each network by the ``common`` plan, export and time it; prints one line each."""
    steps = common.steps
    print(f"{steps} steps on the same batches; {len(training)} real and {len(phantoms)} simulated slices to learn from")
    print("network   parameters  MB x 5  train CPU-s  wall s  Dice   discs found  five members, CPU-s per 256² slice")
    for architecture, width in networks:
        plan = replace(common, architecture=architecture, width=width)
        start_s, start_wall_s = time.process_time(), time.monotonic()
        network, _ = train(plan, phantoms, training, report=lambda _: None, loader_processes=loaders)
        spent_s, wall_s = time.process_time() - start_s, time.monotonic() - start_wall_s
        parameters = sum(one.numel() for one in build_network(architecture, width).parameters())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            export(network, path)
            megabytes = MEMBERS * path.stat().st_size / 1e6
            member = Member(path, hashlib.sha256(path.read_bytes()).hexdigest())
            ensemble = OnnxModel(replace(load_model("cfcm-lumbar"), members=(member,) * MEMBERS), device="cpu")
            per_slice_s = seconds_per_slice(ensemble)
        said = evaluate(predictor(network.to(plan.device)), held_out)
        print(
            f"{architecture:5s} {width:3d}  {parameters / 1e6:8.2f} M  {megabytes:6.1f}  {spent_s:11.0f}  "
            f"{wall_s:6.0f}  {said.dice['disc']:.3f}  {said.discs_found:4d}/{said.discs:4d}    {per_slice_s:.2f}",
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
    parser.add_argument("--data", type=Path, required=True, help="folder that holds spider_t2space/, or a prepared one")
    parser.add_argument("--profile", choices=("cpu", "gpu"), default="cpu", help="whose plan of the steps to follow")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--networks", nargs="*", help="e.g. cfcm-8 unet-16; default: all four")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if (options.data / MANIFEST).is_file():
        real = load_slices(options.data, read_manifest(options.data))
    else:
        real = load_folder(options.data / "spider_t2space")
    held = split_folds(Counter(one.subject for one in real), 5, 1)[0]
    training, held_out = split_by_subject(real, held)
    phantoms = [from_classes(*draw_phantom((1, index)), f"phantom-{index}") for index in range(options.phantoms)]
    common, loaders = TrainingPlan(real_share=0.65), 0
    if options.profile == "gpu":
        common, loaders = GPU.fold, GPU.at_once * GPU.loaders
    wanted = [(name.split("-")[0], int(name.split("-")[1])) for name in options.networks or ()] or NETWORKS
    compare(training, phantoms, held_out, replace(common, steps=options.steps, seed=1), wanted, loaders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
