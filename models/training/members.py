"""A trained network as something that can be asked, and how large it is."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.preprocessing import FloatArray
from models.training.evaluate import Predict
from models.training.networks import build_network
from models.training.train import TrainingPlan, belongs_to


def predictor(network: nn.Module) -> Predict:
    """The network as a function of normalised slices (n, rows, columns) -> logits (n, classes, rows, columns).

    It computes where its weights are.
    """
    network.eval()
    device = next(network.parameters()).device

    def predict(slices: FloatArray) -> FloatArray:
        with torch.no_grad():
            images = torch.from_numpy(np.ascontiguousarray(slices))[:, None].to(device)
            logits: FloatArray = network(images).cpu().numpy()
        return logits

    return predict


def checkpoint_bytes(plan: TrainingPlan) -> int:
    """About how large a checkpoint is: the weights, their average and the optimiser's two moments, four bytes each."""
    network = build_network(plan.architecture, plan.width)
    return 16 * sum(int(one.numel()) for one in network.parameters())


def is_finished(checkpoint: Path, plan: TrainingPlan) -> bool:
    """Whether ``checkpoint`` is there and holds the last step of ``plan``."""
    if not checkpoint.exists():
        return False
    state = torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")
    return bool(state["step"] == plan.steps) and belongs_to(state, plan)


def cuda_is_there() -> bool:
    """Whether torch can use a CUDA device."""
    return bool(torch.cuda.is_available())
