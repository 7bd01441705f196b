"""What a training run does, by name: which network, how many simulated slices, which steps."""

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
    pretrain: TrainingPlan
    fold: TrainingPlan  # of member 0; member k has the seed k higher
    frozen_phantoms: int  # simulated slices of the frozen set that the members are tried on

    def member_plan(self, member: int, *, with_real: bool) -> TrainingPlan:
        """The plan of one member, counted from 0."""
        if with_real:
            return replace(self.fold, seed=self.fold.seed + member)
        steps = self.pretrain.steps + self.fold.steps
        return replace(self.pretrain, steps=steps, seed=self.phantom_seed + member)


def shorten(recipe: Recipe, steps: int) -> Recipe:
    """The same recipe with ``steps`` per member after the first stage."""
    return replace(recipe, fold=replace(recipe.fold, steps=steps))


#: 95 minutes on two cores: 900 steps on simulated slices, then 1,500 for each of five members, two at a time.
CPU = Recipe(
    name="cpu",
    phantoms=1600,
    phantom_seed=1,
    pretrain=TrainingPlan(architecture="cfcm", width=8, steps=900, seed=1, small_size=160),
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

RECIPES = {recipe.name: recipe for recipe in (CPU, SMOKE)}
