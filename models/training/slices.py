"""Training slices: an image and, for each pixel, the classes it may belong to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.preprocessing import CLASS_NAMES, FloatArray

LabelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSlice:
    """One sagittal slice at the network's pixel size, rows to inferior, columns to posterior.

    ``image`` (rows, columns) float32, any units. ``allowed`` (rows, columns) uint8: bit c is set where class c may be
    the truth. One bit: the class is known. Several: real annotations leave it open (an unlabelled sacrum is no
    background).
    """

    image: FloatArray
    allowed: LabelArray
    subject: str
    is_real: bool


def from_classes(image: FloatArray, classes: LabelArray, subject: str, *, is_real: bool = False) -> TrainingSlice:
    """A slice whose class (0..4, :data:`models.preprocessing.CLASS_NAMES`) is known everywhere."""
    if classes.max() >= len(CLASS_NAMES):
        raise ValueError(f"class {classes.max()} does not exist; highest is {len(CLASS_NAMES) - 1}")
    return TrainingSlice(image.astype(np.float32), np.left_shift(np.uint8(1), classes), subject, is_real)


def split_by_subject(
    slices: Sequence[TrainingSlice], held_out: Sequence[str]
) -> tuple[list[TrainingSlice], list[TrainingSlice]]:
    """(training, validation): every slice of a held-out subject is validation, never only some."""
    unknown = set(held_out) - {one.subject for one in slices}
    if unknown:
        raise ValueError(f"no slices of held-out subject {', '.join(sorted(unknown))}")
    return [one for one in slices if one.subject not in held_out], [one for one in slices if one.subject in held_out]
