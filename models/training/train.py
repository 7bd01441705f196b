"""Training of the disc network: batches drawn from seeds, a loss that respects open annotations, checkpoints."""

import copy
import io
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from models.preprocessing import CLASS_NAMES, DISC, FloatArray
from models.training.augmentation import draw_example
from models.training.networks import build_network
from models.training.paper_augmentation import draw_paper_example
from models.training.slices import LabelArray, TrainingSlice


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything a training run depends on besides its slices."""

    steps: int = 2000
    seed: int = 1
    architecture: str = "cfcm"
    width: int = 8
    real_share: float = 0.5  # share of real slices in a batch, where there are any
    recolour: float = 0.4  # share of real slices whose tissues are lightened or darkened: other contrasts
    small_share: float = 0.45  # share of the steps on small windows, early ones first
    small_size: int = 144
    small_batch: int = 8
    size: int = 256
    batch: int = 4
    learning_rate: float = 3e-3
    warm_up_steps: int = 30
    weight_decay: float = 1e-4
    clip: float = 2.0
    ema: float = 0.99
    disc_weight: float = 2.0
    cross_entropy_weight: float = 1.0
    checkpoint_every: int = 50
    augmentation: str = "full"  # or "paper"
    schedule: str = "cosine"  # or "constant": the learning rate after the warm-up
    device: str = "cpu"  # or "cuda"
    precision: str = "single"  # or "bfloat16": of the convolutions; weights and loss stay single


class Batches(Dataset):  # type: ignore[misc]
    """Batch number ``step`` of a run; a function of plan, slices and step alone, in whichever process it is drawn."""

    def __init__(
        self, plan: TrainingPlan, phantoms: Sequence[TrainingSlice], real: Sequence[TrainingSlice], first: int
    ) -> None:
        self.plan, self.phantoms, self.real, self.first = plan, phantoms, real, first

    def __len__(self) -> int:
        return self.plan.steps - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Images (batch, 1, size, size) float32 and allowed classes (batch, size, size) uint8."""
        plan, step = self.plan, self.first + index
        rng = np.random.default_rng([plan.seed, step])
        # Small windows are cheap: most of them come early, and the last steps see whole pictures only.
        is_small = rng.random() < 2 * plan.small_share * (1 - step / plan.steps)
        size, count = (plan.small_size, plan.small_batch) if is_small else (plan.size, plan.batch)
        examples = [self._draw(rng, size) for _ in range(count)]
        images = torch.from_numpy(np.stack([image for image, _ in examples])[:, None])
        return images, torch.from_numpy(np.stack([allowed for _, allowed in examples]))

    def _draw(self, rng: np.random.Generator, size: int) -> tuple[FloatArray, LabelArray]:
        one = self._pick(rng)
        if self.plan.augmentation == "paper":
            return draw_paper_example(rng, one, size)
        return draw_example(rng, one, size, recolour=self.plan.recolour if one.is_real else 0.1)

    def _pick(self, rng: np.random.Generator) -> TrainingSlice:
        use_real = bool(self.real) and (not self.phantoms or rng.random() < self.plan.real_share)
        pool = self.real if use_real else self.phantoms
        return pool[int(rng.integers(len(pool)))]


def loss_of(logits: Tensor, allowed: Tensor, *, disc_weight: float = 2.0, cross_entropy_weight: float = 1.0) -> Tensor:
    """Soft Dice with squared denominator (V-Net, arXiv 1606.04797) plus cross-entropy, where the truth may be open.

    ``logits`` (n, classes, h, w); ``allowed`` (n, h, w) uint8 bits. Cross-entropy: the summed probability of the
    allowed classes should be one. Dice of a class: over the pixels whose membership is known.
    """
    probability = logits.softmax(1)
    bits = 2 ** torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device).view(1, -1, 1, 1)
    wide = allowed.to(torch.int32).unsqueeze(1)
    may = (wide & bits) != 0
    sure = wide == bits
    known = sure | ~may
    entropy = -(probability * may).sum(1).clamp_min(1e-6).log().mean()
    seen, truth = (probability * known)[:, 1:], sure[:, 1:].to(probability.dtype)
    axes = (0, 2, 3)
    overlap = 2 * (seen * truth).sum(axes) + 1.0
    dice = overlap / (seen.square().sum(axes) + truth.sum(axes) + 1.0)
    weight = torch.ones_like(dice)
    weight[DISC - 1] = disc_weight
    return (weight * (1 - dice)).sum() / weight.sum() + cross_entropy_weight * entropy


def learning_rate_at(step: int, plan: TrainingPlan) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step, or constant."""
    if step < plan.warm_up_steps:
        return plan.learning_rate * (step + 1) / plan.warm_up_steps
    if plan.schedule == "constant":
        return plan.learning_rate
    progress = (step - plan.warm_up_steps) / max(1, plan.steps - plan.warm_up_steps)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    plan: TrainingPlan,
    phantoms: Sequence[TrainingSlice],
    real: Sequence[TrainingSlice] = (),
    *,
    initial: Path | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
    loader_processes: int = 0,
) -> tuple[nn.Module, list[float]]:
    """Train a network; returns its averaged weights (evaluation mode) and the loss of every step of this call.

    ``initial``: a checkpoint whose averaged weights are the start instead of random ones. ``checkpoint``: state is kept
    there and an unfinished run with the same plan goes on from it.

    Raises:
        ValueError: no slices at all, or the checkpoint is of another plan.
    """
    if not phantoms and not real:
        raise ValueError("nothing to train on: neither phantoms nor real slices")
    torch.set_num_threads(1)  # at this width more threads mostly wait for each other, and sums depend on their number
    torch.manual_seed(plan.seed)
    network = build_network(plan.architecture, plan.width)
    if initial is not None:
        network.load_state_dict(load_average(initial).state_dict())
    on_gpu = plan.device == "cuda"
    network = network.to(plan.device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=on_gpu
    )
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=plan.device)
        if not belongs_to(state, plan):
            raise ValueError(f"{checkpoint} belongs to another plan: {state['plan']}")
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
        report(f"going on from step {first}")
    losses: list[float] = []
    recent: list[Tensor] = []  # asking for a loss waits for the device: that is done now and then
    started_s = time.monotonic()
    for step, (images, allowed) in enumerate(_batches(plan, phantoms, real, first, loader_processes), start=first):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, plan)
        network.train()
        images = images.to(plan.device, memory_format=torch.channels_last, non_blocking=True)
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            logits = network(images)
        loss = loss_of(
            logits.float(),
            allowed.to(plan.device, non_blocking=True),
            disc_weight=plan.disc_weight,
            cross_entropy_weight=plan.cross_entropy_weight,
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), plan.clip)
        optimiser.step()
        _follow(average, network, min(plan.ema, (step + 1) / (step + 10)))
        recent.append(loss.detach())
        done = step + 1
        if done % 25 == 0 or done == plan.steps:
            losses += torch.stack(recent).tolist()
            recent.clear()
            report(f"step {done}/{plan.steps}  loss {np.mean(losses[-25:]):.3f}  {time.monotonic() - started_s:.0f} s")
        if checkpoint is not None and (done % plan.checkpoint_every == 0 or done == plan.steps):
            _save(checkpoint, plan, done, network, average, optimiser)
    return average.cpu().eval(), losses


def _batches(
    plan: TrainingPlan, phantoms: Sequence[TrainingSlice], real: Sequence[TrainingSlice], first: int, processes: int
) -> Iterator[Any]:
    dataset = Batches(plan, phantoms, real, first)
    context = "fork" if processes else None  # the pool of slices is shared, not copied
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            num_workers=processes,
            multiprocessing_context=context,
            worker_init_fn=_one_thread,
            pin_memory=plan.device == "cuda",
            prefetch_factor=8 if processes else None,
        )
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters and of the normalisation statistics."""
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    with torch.no_grad():
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([kept for kept, _ in moving], [current for _, current in moving], 1 - decay)
        for kept, current in pairs:
            if not kept.is_floating_point():
                kept.copy_(current)


def belongs_to(state: dict[str, Any], plan: TrainingPlan) -> bool:
    """Whether the ``state`` of a checkpoint is of this plan."""
    # A checkpoint from before a field came to the plan was made with that field's default.
    return _plan_record(TrainingPlan()) | dict(state["plan"]) == _plan_record(plan)


def _plan_record(plan: TrainingPlan) -> dict[str, float | str]:
    return {name: getattr(plan, name) for name in TrainingPlan.__slots__}


def _save(
    path: Path, plan: TrainingPlan, step: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state = {
        "plan": _plan_record(plan),
        "step": step,
        "classes": list(CLASS_NAMES),
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    temporary = path.with_suffix(".writing")
    held = io.BytesIO()  # so that a full disk is an OSError, not an error of the archive's own
    torch.save(state, held)
    with temporary.open("wb") as stream:
        stream.write(held.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def load_average(checkpoint: Path) -> nn.Module:
    """The averaged network of a checkpoint, in evaluation mode."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    network = build_network(str(state["plan"]["architecture"]), int(state["plan"]["width"]))
    network.load_state_dict(state["average"])
    return network.eval()
