"""What a training run does, by name: which network, how many simulated slices, which steps."""

import math
from dataclasses import dataclass, replace

from models.training.train import TrainingPlan


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run: a network learns from simulated slices alone, then one copy for each fold goes on with real ones too.

    Without real data there is nothing to divide: each member then learns from a stream of simulated slices of its own.
    """

    name: str
    phantoms: int  # simulated slices in the pool
    phantom_seed: int
    pretrain: TrainingPlan | None  # None: members start from random weights
    fold: TrainingPlan  # of member 0; member k has the seed k higher
    frozen_phantoms: int  # simulated slices of the frozen set that the members are tried on
    epochs: int | None = None  # in place of fold.steps: passes through the real slices
    loaders: int = 0  # processes that prepare batches for each member; the result is the same
    at_once: int = 2  # members that are trained at a time, unless asked otherwise

    def member_plan(self, member: int, *, real_slices: int) -> TrainingPlan:
        """The plan of one member, counted from 0, that learns from ``real_slices`` real ones."""
        if real_slices:
            steps = self.fold.steps if self.epochs is None else self.epochs * math.ceil(real_slices / self.fold.batch)
            return replace(self.fold, seed=self.fold.seed + member, steps=steps)
        if not self.phantoms:
            raise ValueError(f"the recipe {self.name} needs real slices")
        if self.pretrain is None:
            return replace(self.fold, seed=self.phantom_seed + member)
        steps = self.pretrain.steps + self.fold.steps
        return replace(self.pretrain, steps=steps, seed=self.phantom_seed + member)


def shorten(recipe: Recipe, steps: int) -> Recipe:
    """The same recipe with ``steps`` per member after the first stage."""
    return replace(recipe, fold=replace(recipe.fold, steps=steps), epochs=None)


_CPU_PRETRAIN = TrainingPlan(architecture="cfcm", width=8, steps=900, seed=1, small_size=160)

#: 95 minutes on two cores: 900 steps on simulated slices, then 1,500 for each of five members, two at a time.
CPU = Recipe(
    name="cpu",
    phantoms=1600,
    phantom_seed=1,
    pretrain=_CPU_PRETRAIN,
    fold=TrainingPlan(
        architecture="cfcm", width=8, steps=1500, seed=10, real_share=0.65, small_share=0.6, learning_rate=2e-3
    ),
    frozen_phantoms=60,
)

_TINY = TrainingPlan(
    architecture="cfcm",
    width=4,
    size=64,
    batch=2,
    small_size=64,
    small_batch=2,
    learning_rate=1e-2,
    warm_up_steps=2,
    checkpoint_every=4,
)

#: Proves that everything runs, and nothing else: 20 steps in all with two folds.
SMOKE = Recipe(
    name="smoke",
    phantoms=6,
    phantom_seed=1,
    pretrain=replace(_TINY, steps=8, seed=1),
    fold=replace(_TINY, steps=6, seed=10, real_share=0.65),
    frozen_phantoms=1,
)

#: A wider network that sees more than ten times as many pictures, for a CUDA device. Each member starts from random
#: weights of its own: members that differ more tell more where they disagree.
GPU = Recipe(
    name="gpu",
    phantoms=5000,
    phantom_seed=1,
    pretrain=None,
    fold=TrainingPlan(
        architecture="cfcm",
        width=16,
        steps=1900,
        seed=10,
        real_share=0.65,
        small_share=0.45,
        batch=32,
        small_batch=64,
        warm_up_steps=100,
        weight_decay=0.01,
        ema=0.998,
        checkpoint_every=500,
        device="cuda",
        precision="bfloat16",
    ),
    frozen_phantoms=60,
    loaders=3,
    at_once=5,
)

_PAPER = TrainingPlan(
    architecture="cfcm",
    width=64,
    steps=1,
    seed=10,
    real_share=1.0,
    small_share=0.0,
    size=256,
    batch=20,
    learning_rate=1e-6,
    warm_up_steps=0,
    weight_decay=0.0,  # AdamW without decay is Adam; its epsilon is 1e-8, as the paper's
    clip=1e9,
    ema=0.0,
    disc_weight=1.0,
    cross_entropy_weight=0.0,
    augmentation="paper",
    schedule="constant",
    device="cuda",
)

#: The recipe of Iriondo et al. (Magn Reson Med 2020;84:1376): CFCM of width 64, soft Dice, Adam 1e-6, batches of 20
#: slices, 8,000 epochs, its augmentations alone, real slices alone, from random (Xavier) weights. Differences: our five
#: classes and not discs alone, slices drawn with replacement, and memories with tanh. Not run by us: about 43 CPU-days
#: a member.
PAPER = Recipe(
    name="paper",
    phantoms=0,
    phantom_seed=1,
    pretrain=None,
    fold=_PAPER,
    frozen_phantoms=60,
    epochs=8000,
    loaders=12,
    at_once=1,
)

RECIPES = {recipe.name: recipe for recipe in (CPU, GPU, PAPER, SMOKE)}
