from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models.inference import OnnxModel  # noqa: E402
from models.preprocessing import BACKGROUND, DISC, SACRUM  # noqa: E402
from models.registry import trial_record  # noqa: E402
from models.training.augmentation import draw_example  # noqa: E402
from models.training.evaluate import evaluate  # noqa: E402
from models.training.export import export  # noqa: E402
from models.training.networks import CFCM  # noqa: E402
from models.training.slices import TrainingSlice, from_classes, split_by_subject  # noqa: E402
from models.training.train import Batches, TrainingPlan, learning_rate_at, load_average, loss_of, train  # noqa: E402

TINY = TrainingPlan(
    steps=20,
    width=4,
    small_size=64,
    size=64,
    small_batch=4,
    learning_rate=1e-2,
    warm_up_steps=2,
    checkpoint_every=5,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def striped_slice(seed: int, subject: str = "made-up") -> TrainingSlice:
    """Bright discs between grey bodies, a bright canal behind them."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((96, 96), np.uint8)
    classes[:, 30:60] = 2
    for row in range(int(rng.integers(5, 15)), 90, 22):
        classes[row : row + 7, 30:60] = DISC
    classes[:, 62:70] = 4
    image = np.array([0.1, 0.9, 0.4, 0.4, 0.7])[classes] + rng.normal(0, 0.03, classes.shape)
    return from_classes(image.astype(np.float32), classes, subject)


def test_the_network_has_the_papers_layout_at_width_8() -> None:
    network = CFCM(width=8)
    parameters = sum(one.numel() for one in network.parameters())
    assert parameters == pytest.approx(0.77e6, rel=0.05)
    assert [len(blocks) for blocks in network.scales] == [3, 4, 6, 3]
    assert network.eval()(torch.zeros(2, 1, 64, 96)).shape == (2, 5, 64, 96)


def test_loss_is_small_for_the_truth_and_grows_with_error() -> None:
    one = striped_slice(1)
    allowed = torch.from_numpy(one.allowed)[None]
    bits = torch.tensor([1, 2, 4, 8, 16], dtype=torch.uint8).view(1, 5, 1, 1)
    right = (allowed.unsqueeze(1) == bits).float() * 40 - 20
    assert loss_of(right, allowed).item() < 0.01
    assert loss_of(torch.zeros_like(right), allowed).item() > 0.5
    assert loss_of(-right, allowed).item() > loss_of(torch.zeros_like(right), allowed).item()


def test_an_unlabelled_sacrum_may_be_either_but_is_no_disc() -> None:
    allowed = torch.full((1, 16, 16), 1 << BACKGROUND | 1 << SACRUM, dtype=torch.uint8)

    def answering(label: int) -> float:
        logits = torch.full((1, 5, 16, 16), -20.0)
        logits[:, label] = 20.0
        return float(loss_of(logits, allowed).item())

    assert answering(BACKGROUND) == pytest.approx(answering(SACRUM), abs=1e-4)
    assert answering(BACKGROUND) < 0.01
    assert answering(DISC) > 1.0


def test_twenty_steps_lower_the_loss_and_a_stopped_run_goes_on_alike(tmp_path: Path) -> None:
    pool = [striped_slice(seed) for seed in range(6)]
    whole, losses = train(TINY, pool, report=lambda _: None)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])

    class StoppedError(Exception):
        pass

    draw_batch = Batches.__getitem__

    def stop_at_step_12(batches: Batches, index: int) -> object:
        if index == 12:
            raise StoppedError
        return draw_batch(batches, index)

    checkpoint = tmp_path / "state.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__getitem__", stop_at_step_12)
        with pytest.raises(StoppedError):
            train(TINY, pool, checkpoint=checkpoint, report=lambda _: None)
    resumed, later = train(TINY, pool, checkpoint=checkpoint, report=lambda _: None)
    assert len(later) == 10  # steps 11..20: the checkpoint was written after step 10
    probe = torch.randn(1, 1, 64, 64)
    assert torch.allclose(resumed(probe), whole(probe), atol=1e-4)
    assert torch.allclose(load_average(checkpoint)(probe), resumed(probe), atol=1e-6)
    with pytest.raises(ValueError, match="another plan"):
        train(TrainingPlan(steps=21, width=4), pool, checkpoint=checkpoint, report=lambda _: None)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        train(TINY, [])


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    plan = TrainingPlan(steps=100, warm_up_steps=10)
    rates = [learning_rate_at(step, plan) for step in range(101)]
    assert rates[0] == pytest.approx(plan.learning_rate / 10)
    assert max(rates) == pytest.approx(plan.learning_rate)
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_export_computes_what_torch_computes_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = CFCM(width=8).eval()
    path = tmp_path / "network.onnx"
    export(network, path)
    assert path.stat().st_size < 2_000_000
    model = OnnxModel(trial_record((path,)), device="cpu")
    for shape in ((1, 64, 64), (5, 96, 64)):
        slices = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(slices)[:, None]).numpy()
        assert np.abs(model.predict(slices) - expected).max() < 1e-3 * max(1.0, float(np.abs(expected).max()))


def test_examples_depend_on_their_seed_alone_and_keep_open_labels() -> None:
    one = striped_slice(2)
    half_open = TrainingSlice(one.image, np.where(one.allowed == 1, 9, one.allowed).astype(np.uint8), "a", True)
    first, again = (draw_example(np.random.default_rng(5), half_open, 64) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert set(np.unique(first[1])) <= {1, 2, 4, 9, 16}
    assert not np.array_equal(first[0], draw_example(np.random.default_rng(6), half_open, 64)[0])


def test_subjects_are_never_divided_between_training_and_validation() -> None:
    pool = [striped_slice(k, subject) for k, subject in enumerate("aabbc")]
    training, validation = split_by_subject(pool, ["b"])
    assert {one.subject for one in training} == {"a", "c"}
    assert [one.subject for one in validation] == ["b", "b"]
    with pytest.raises(ValueError, match="held-out subject z"):
        split_by_subject(pool, ["z"])


def test_evaluation_of_a_perfect_and_of_a_blind_network() -> None:
    one = striped_slice(4)
    rows, columns = one.image.shape
    truth = np.log2(one.allowed).astype(int)

    def perfect(padded: np.ndarray) -> np.ndarray:
        logits = np.zeros((1, 5, *padded.shape[1:]), np.float32)
        top, left = (padded.shape[1] - rows) // 2, (padded.shape[2] - columns) // 2
        window = logits[0, :, top : top + rows, left : left + columns]
        np.put_along_axis(window, truth[None], 10, axis=0)
        return logits

    figures = evaluate(perfect, [one])
    assert figures.dice["disc"] == 1.0
    assert figures.discs == figures.discs_found >= 3
    blind = evaluate(lambda padded: np.zeros((1, 5, *padded.shape[1:]), np.float32), [one])
    assert blind.dice["disc"] == 0.0
    assert blind.discs_found == 0
