"""How well a network does on slices whose truth is (partly) known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import softmax

from models.preprocessing import CLASS_NAMES, DISC, SPACING_MM, FloatArray, normalise_slice, pad_to_grid
from models.training.slices import TrainingSlice

#: Normalised (1, rows, columns), multiples of the network's grid, -> logits (1, classes, rows, columns).
Predict = Callable[[FloatArray], FloatArray]

#: Disc probabilities at which the pooled Dice is known after an evaluation, so that a threshold can be chosen.
THRESHOLDS = tuple(round(float(one), 2) for one in np.arange(0.30, 0.71, 0.05))

#: Smaller areas of the truth are the edge of a disc, not a disc that could be missed: 40 mm2.
_SMALLEST_DISC_PIXELS = round(40 / SPACING_MM**2)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Pooled figures over slices. ``dice`` by class name; discs are connected areas of the truth of at least 40 mm2.

    ``disc_dice_at``: pooled disc Dice where a pixel is disc from that probability on, by threshold.
    """

    dice: dict[str, float]
    discs: int
    discs_found: int  # the prediction covers at least half of it
    slices: int
    disc_dice_at: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Pixel and disc counts, which add up over slices and over networks. Arrays by class, or by threshold."""

    overlap: npt.NDArray[np.float64]  # twice the pixels that are the class and were called so
    total: npt.NDArray[np.float64]  # pixels that are the class plus pixels called so
    overlap_at: npt.NDArray[np.float64]
    total_at: npt.NDArray[np.float64]
    discs: int = 0
    discs_found: int = 0
    slices: int = 0

    @classmethod
    def empty(cls) -> "Tally":
        """Nothing counted yet."""
        by_class, by_threshold = np.zeros(len(CLASS_NAMES)), np.zeros(len(THRESHOLDS))
        return cls(by_class, by_class, by_threshold, by_threshold)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.overlap + other.overlap,
            self.total + other.total,
            self.overlap_at + other.overlap_at,
            self.total_at + other.total_at,
            self.discs + other.discs,
            self.discs_found + other.discs_found,
            self.slices + other.slices,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        arrays = ("overlap", "total", "overlap_at", "total_at")
        return {
            name: getattr(self, name).tolist() if name in arrays else getattr(self, name) for name in self.__slots__
        }

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Tally":
        """What :meth:`to_json` gave."""
        overlap, total, overlap_at, total_at = (
            np.array(held[name], dtype=np.float64) for name in ("overlap", "total", "overlap_at", "total_at")
        )
        counts = int(held["discs"]), int(held["discs_found"]), int(held["slices"])
        return cls(overlap, total, overlap_at, total_at, *counts)

    def figures(self) -> Evaluation:
        """The pooled figures; NaN for a class that neither occurs nor was called."""
        return Evaluation(
            dice=_ratios(CLASS_NAMES, self.overlap, self.total),
            discs=self.discs,
            discs_found=self.discs_found,
            slices=self.slices,
            disc_dice_at=_ratios([f"{one:.2f}" for one in THRESHOLDS], self.overlap_at, self.total_at),
        )


def _ratios(names: Sequence[str], overlap: npt.NDArray[np.float64], total: npt.NDArray[np.float64]) -> dict[str, float]:
    return {name: float(o / t) if t else float("nan") for name, o, t in zip(names, overlap, total, strict=True)}


def evaluate(predict: Predict, slices: Sequence[TrainingSlice]) -> Evaluation:
    """Dice per class from pixel sums over all ``slices``, where membership is known, and the discs found."""
    return tally(predict, slices).figures()


def tally(predict: Predict, slices: Sequence[TrainingSlice]) -> Tally:
    """What :func:`evaluate` reports, as counts."""
    counted = Tally.empty()
    for one in slices:
        counted = counted + _tally_slice(predict, one)
    return counted


def _tally_slice(predict: Predict, one: TrainingSlice) -> Tally:
    padded, (row, column) = pad_to_grid(normalise_slice(one.image)[None])
    rows, columns = one.image.shape
    probability = softmax(predict(padded)[0, :, row : row + rows, column : column + columns], axis=0)
    answer = probability.argmax(axis=0)
    counts = [_agreement(answer == index, one, index) for index in range(len(CLASS_NAMES))]
    counts_at = [_agreement(probability[DISC] > threshold, one, DISC) for threshold in THRESHOLDS]
    parts, count = ndimage.label(one.allowed == 1 << DISC)
    areas = [parts == index for index in range(1, count + 1)]
    areas = [area for area in areas if area.sum() >= _SMALLEST_DISC_PIXELS]
    found = sum(bool((answer[area] == DISC).mean() >= 0.5) for area in areas)
    overlap, total = np.array(counts, dtype=np.float64).T
    overlap_at, total_at = np.array(counts_at, dtype=np.float64).T
    return Tally(overlap, total, overlap_at, total_at, len(areas), found, 1)


def _agreement(said: npt.NDArray[np.bool_], one: TrainingSlice, index: int) -> tuple[int, int]:
    """(twice the overlap, sum of both areas) of class ``index``, over the pixels where its truth is known."""
    truth, may_be = one.allowed == 1 << index, (one.allowed & 1 << index) != 0
    said = said & (truth | ~may_be)
    return 2 * int((said & truth).sum()), int(said.sum() + truth.sum())
