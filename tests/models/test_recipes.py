from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models.preprocessing import DISC  # noqa: E402
from models.training.members import is_finished  # noqa: E402
from models.training.paper_augmentation import draw_paper_example  # noqa: E402
from models.training.recipes import CPU, GPU, PAPER, RECIPES, SMOKE, shorten  # noqa: E402
from models.training.slices import TrainingSlice, from_classes  # noqa: E402
from models.training.train import TrainingPlan, learning_rate_at, train  # noqa: E402


def disc_slice() -> TrainingSlice:
    classes = np.zeros((96, 96), np.uint8)
    classes[44:52, 30:66] = DISC
    image = np.where(classes == DISC, 1.0, 0.2) + np.random.default_rng(1).normal(0, 0.01, classes.shape)
    return from_classes(image.astype(np.float32), classes, "made-up", is_real=True)


def test_the_papers_recipe_is_the_papers() -> None:
    plan = PAPER.member_plan(2, real_slices=62)
    assert (plan.width, plan.batch, plan.size, plan.learning_rate) == (64, 20, 256, 1e-6)
    assert plan.steps == 8000 * 4  # 62 slices in batches of 20
    assert (plan.small_share, plan.cross_entropy_weight, plan.disc_weight, plan.weight_decay) == (0, 0, 1, 0)
    assert learning_rate_at(0, plan) == learning_rate_at(plan.steps - 1, plan) == 1e-6
    assert PAPER.pretrain is None
    with pytest.raises(ValueError, match="needs real slices"):
        PAPER.member_plan(0, real_slices=0)


def test_the_papers_recipe_runs_and_its_average_is_the_network_itself() -> None:
    plan = replace(PAPER.fold, width=4, size=64, batch=2, steps=3, learning_rate=1e-3, device="cpu")
    network, losses = train(plan, (), [disc_slice()], report=lambda _: None)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    again, _ = train(replace(plan, ema=1e-9), (), [disc_slice()], report=lambda _: None)
    for name, value in network.state_dict().items():
        assert torch.allclose(value.float(), again.state_dict()[name].float(), atol=1e-5), name


def test_the_papers_augmentation_turns_and_bends_but_keeps_contrast() -> None:
    source = disc_slice()
    for seed in range(20):
        image, allowed = draw_paper_example(np.random.default_rng(seed), source, 96)
        assert image.shape == allowed.shape == (96, 96)
        disc = allowed == 1 << DISC
        assert disc.sum() == pytest.approx(8 * 36, rel=0.35)
        assert image[disc].mean() > image[~disc].mean() + 0.5
        rows, columns = np.nonzero(disc)
        slope = np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0]))
        assert abs(slope) < 30  # 20 degrees of rotation and the bending
    first, second = (draw_paper_example(np.random.default_rng(3), source, 64)[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_members_differ_in_seed_and_without_real_data_in_their_stream() -> None:
    assert [CPU.member_plan(k, real_slices=280).seed for k in range(5)] == [10, 11, 12, 13, 14]
    alone = [CPU.member_plan(k, real_slices=0) for k in range(5)]
    assert [one.seed for one in alone] == [1, 2, 3, 4, 5]
    assert {one.steps for one in alone} == {2400}
    assert shorten(CPU, 7).member_plan(0, real_slices=280).steps == 7
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
    assert GPU.fold.device == "cuda"
    assert [GPU.member_plan(k, real_slices=0).seed for k in range(2)] == [1, 2]  # simulated slices are enough for it


def test_convolutions_in_half_precision_learn_as_well() -> None:
    plan = replace(SMOKE.fold, steps=12, precision="bfloat16")
    network, losses = train(plan, (), [disc_slice()], report=lambda _: None)
    assert losses[-1] < 0.7 * losses[0]
    assert {one.dtype for one in network.parameters()} == {torch.float32}


def test_a_checkpoint_from_before_a_field_was_added_is_still_of_its_plan(tmp_path: Path) -> None:
    plan = SMOKE.pretrain
    assert plan is not None
    held = {name: value for name, value in asdict(plan).items() if name not in ("augmentation", "schedule", "device")}
    torch.save({"plan": held, "step": plan.steps}, tmp_path / "old.pt")
    assert is_finished(tmp_path / "old.pt", plan)
    assert not is_finished(tmp_path / "old.pt", replace(plan, schedule="constant"))
    assert not is_finished(tmp_path / "old.pt", replace(plan, seed=2))
    torch.save({"plan": held, "step": plan.steps - 1}, tmp_path / "old.pt")
    assert not is_finished(tmp_path / "old.pt", plan)
    assert not is_finished(tmp_path / "none.pt", plan)


def test_a_plan_by_default_is_the_one_that_was_always_meant() -> None:
    plan = TrainingPlan()
    assert (plan.augmentation, plan.schedule, plan.device) == ("full", "cosine", "cpu")
