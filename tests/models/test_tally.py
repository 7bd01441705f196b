import json

import numpy as np
import pytest

from models.preprocessing import DISC
from models.training.evaluate import THRESHOLDS, Tally, evaluate, tally
from models.training.slices import TrainingSlice


def one_slice(columns: int) -> TrainingSlice:
    """A disc of 10 rows and ``columns`` columns in the middle of 64 x 64; the last ten rows are open."""
    allowed = np.full((64, 64), 1, np.uint8)
    allowed[20:30, 10 : 10 + columns] = 1 << DISC
    allowed[-10:] = 0b11111
    image = np.random.default_rng(1).normal(size=allowed.shape).astype(np.float32)
    return TrainingSlice(image, allowed, "a", True)


def answering(probability: float):
    """A network that gives rows 20 to 30, columns 10 to 30 this disc probability, and the open rows too."""

    def predict(padded: np.ndarray) -> np.ndarray:
        logits = np.full((1, 5, *padded.shape[1:]), -50.0, np.float32)
        top, left = (padded.shape[1] - 64) // 2, (padded.shape[2] - 64) // 2
        share = np.zeros(padded.shape[1:])
        share[top + 20 : top + 30, left + 10 : left + 30] = probability
        share[top + 54 : top + 64] = probability
        with np.errstate(divide="ignore"):
            logits[0, 0], logits[0, DISC] = np.log(1 - share), np.log(share)
        return np.maximum(logits, -50.0)

    return predict


def test_dice_by_threshold_and_open_pixels_do_not_count() -> None:
    figures = evaluate(answering(0.52), [one_slice(30)])
    # 200 pixels called disc, all of them disc; the disc has 300: 2 * 200 / 500.
    assert figures.dice["disc"] == pytest.approx(0.8)
    assert figures.disc_dice_at["0.50"] == pytest.approx(0.8)
    assert figures.disc_dice_at["0.55"] == 0.0
    assert (figures.discs, figures.discs_found) == (1, 1)


def test_a_disc_of_which_less_than_half_is_covered_is_not_found() -> None:
    assert evaluate(answering(0.9), [one_slice(41)]).discs_found == 0
    assert evaluate(answering(0.4), [one_slice(20)]).discs_found == 0


def test_small_areas_are_no_discs() -> None:
    assert evaluate(answering(0.9), [one_slice(6)]).discs == 0  # 60 pixels are 37 mm2
    assert evaluate(answering(0.9), [one_slice(7)]).discs == 1


def test_counts_add_up_and_survive_the_file() -> None:
    first, second = tally(answering(0.9), [one_slice(20)]), tally(answering(0.9), [one_slice(40)])
    both = tally(answering(0.9), [one_slice(20), one_slice(40)]).figures()
    summed = first + second
    assert summed.figures().dice["disc"] == both.dice["disc"]
    assert summed.figures().disc_dice_at == both.disc_dice_at
    assert (both.slices, both.discs, both.discs_found) == (2, 2, 2)
    assert both.dice["disc"] == pytest.approx(2 * (200 + 200) / (200 + 200 + 200 + 400))
    held = Tally.from_json(json.loads(json.dumps(summed.to_json())))
    assert held.to_json() == summed.to_json()
    assert len(both.disc_dice_at) == len(THRESHOLDS)


def test_nothing_counted_is_not_a_number() -> None:
    assert np.isnan(Tally.empty().figures().dice["disc"])
