"""How well a network does on slices whose truth is (partly) known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from models.preprocessing import CLASS_NAMES, DISC, FloatArray, normalise_slice, pad_to_grid
from models.training.slices import TrainingSlice


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Pooled figures over slices. ``dice`` by class name; discs are connected areas of the truth of at least 40 mm2."""

    dice: dict[str, float]
    discs: int
    discs_found: int  # the prediction covers at least half of it
    slices: int


def evaluate(
    predict: Callable[[FloatArray], FloatArray], slices: Sequence[TrainingSlice], *, min_disc_pixels: int = 66
) -> Evaluation:
    """Dice per class from voxel sums over all ``slices``, where membership is known, and the discs found.

    ``predict``: normalised (1, rows, columns), multiples of 16, -> logits (1, classes, rows, columns).
    """
    overlap, total = np.zeros(len(CLASS_NAMES)), np.zeros(len(CLASS_NAMES))
    discs = found = 0
    for one in slices:
        padded, (row, column) = pad_to_grid(normalise_slice(one.image)[None])
        rows, columns = one.image.shape
        answer = predict(padded)[0, :, row : row + rows, column : column + columns].argmax(axis=0)
        for index in range(len(CLASS_NAMES)):
            truth, open_to = one.allowed == 1 << index, (one.allowed & 1 << index) != 0
            said = (answer == index) & (truth | ~open_to)
            overlap[index] += 2 * (said & truth).sum()
            total[index] += said.sum() + truth.sum()
        parts, count = ndimage.label(one.allowed == 1 << DISC)
        for index in range(1, count + 1):
            area = parts == index
            if area.sum() >= min_disc_pixels:
                discs += 1
                found += bool((answer[area] == DISC).mean() >= 0.5)
    dice = {name: float(o / t) if t else float("nan") for name, o, t in zip(CLASS_NAMES, overlap, total, strict=True)}
    return Evaluation(dice, discs, found, len(slices))
