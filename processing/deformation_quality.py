"""How good a deformation is: det J of it in the atlas' and in the patient's space, Dice, and the paper's loss."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.results import Alignment, FloatArray


@dataclass(frozen=True, slots=True)
class JacobianSummary:
    """Standard deviation and minimum of det J over a disc, and how many of its voxels fold (det J <= 0)."""

    sd: float
    minimum: float
    n_folded: int


def summarise_jacobian(jacobian: FloatArray, disc: npt.NDArray[np.bool_]) -> JacobianSummary:
    """det J over the voxels of ``disc``; both (slices, rows, columns) of the atlas."""
    values = jacobian[disc].astype(np.float64)
    return JacobianSummary(float(values.std()), float(values.min()), int((values <= 0).sum()))


def summarise_in_patient(jacobian: FloatArray, disc: npt.NDArray[np.bool_]) -> JacobianSummary:
    """The same of the inverse deformation, patient -> atlas, over the patient's disc (the paper's "original space").

    There det J is 1/J at T(x), and an atlas voxel covers J voxels of the patient: the mean over the patient's disc is
    the mean over the atlas disc weighted by J, which needs no inverse. Both numbers are NaN where the deformation
    folds, for then it has no inverse.
    """
    values = jacobian[disc].astype(np.float64)
    n_folded = int((values <= 0).sum())
    if n_folded:
        return JacobianSummary(float("nan"), float("nan"), n_folded)
    mean = len(values) / values.sum()
    variance = (1 / values).sum() / values.sum() - mean**2
    return JacobianSummary(float(np.sqrt(max(0.0, variance))), float(1 / values.max()), 0)


def dice_coefficient(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """2 |A and B| / (|A| + |B|) of two masks; NaN when both are empty."""
    total = int((first != 0).sum()) + int((second != 0).sum())
    return 2 * int(((first != 0) & (second != 0)).sum()) / total if total else float("nan")


def registration_loss(alignments: Iterable[Alignment]) -> float:
    """L = mean over discs of (1 - Dice + SD(det J)): what the paper's Bayesian optimisation minimised."""
    return float(np.mean([1 - one.dice + one.sd_jacobian for one in alignments]))
