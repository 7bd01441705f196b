"""What the tuning of the registration varies, and how good one set of parameters is on a set of discs.

The loss is the paper's: L = mean over discs of (1 - Dice + SD(det J)). Which sets are tried is decided above
(:mod:`service.tuning`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.deformation_quality import registration_loss
from processing.disc_frame import atlas_dimension
from processing.disc_pairs import DiscPair
from processing.elastix_parameters import Stages
from processing.registration import SEED, DiscTask, RegisteredSignal, RegistrationFailed, crop_disc
from processing.results import LUMBAR_LEVELS, Affine, AtlasDisc, Level

#: Loss of a disc that could not be registered: worse than any that could (no overlap, SD(det J) of 1).
FAILED_LOSS = 2.0

_PYRAMID_IN_PLANE = ((1, 1), (2, 2), (4, 2), (4, 2))  # columns, rows; an axis keeps at least four voxels


@dataclass(frozen=True, slots=True)
class Candidate:
    """The parameters that are varied. Everything else stays as in the preset that the tuning starts from."""

    rigidity_weight: float
    grid_voxels: int  # final spacing of the B-spline's grid, along columns and rows
    iterations: int  # at each resolution of the B-spline
    levels: int  # resolutions of the B-spline, 1 to 4
    bins: int  # of the joint histogram, B-spline
    affine_iterations: int
    affine_bins: int


#: Lowest and highest value, and whether values are drawn by their logarithm.
RANGES: Mapping[str, tuple[float, float, bool]] = {
    "rigidity_weight": (0.1, 5.0, True),
    "grid_voxels": (2, 4, False),
    "iterations": (20, 200, True),
    "levels": (1, 3, False),
    "bins": (4, 12, False),
    "affine_iterations": (50, 400, True),
    "affine_bins": (4, 12, False),
}


@dataclass(frozen=True, slots=True)
class Score:
    """How one candidate did: L, its parts, and mean CPU seconds of a disc."""

    loss: float
    mean_dice: float
    min_dice: float
    mean_sd_jacobian: float
    n_folded: int  # discs whose deformation folds
    n_failed: int
    cpu_s: float


def candidate_of(stages: Stages) -> Candidate:
    """The values of a preset, brought into :data:`RANGES`."""
    affine, bspline = stages
    values: dict[str, float] = {
        "rigidity_weight": float(bspline["Metric1Weight"][0]),
        "grid_voxels": float(bspline["FinalGridSpacingInVoxels"][0]),
        "iterations": float(bspline["MaximumNumberOfIterations"][-1]),
        "levels": float(bspline["NumberOfResolutions"][0]),
        "bins": float(bspline.get("NumberOfHistogramBins", ("8",))[0]),  # not every metric has a histogram
        "affine_iterations": float(affine["MaximumNumberOfIterations"][0]),
        "affine_bins": float(affine["NumberOfHistogramBins"][0]),
    }
    return candidate_from({name: float(np.clip(value, *RANGES[name][:2])) for name, value in values.items()})


def candidate_from(values: Mapping[str, float]) -> Candidate:
    """A candidate out of numbers by name."""
    whole = {name: round(value) for name, value in values.items() if name != "rigidity_weight"}
    return Candidate(rigidity_weight=float(values["rigidity_weight"]), **whole)


def stages_of(candidate: Candidate, base: Stages) -> Stages:
    """elastix' parameters for a candidate; in 3-D the slices are neither shrunk nor is their grid varied."""
    affine, bspline = base
    dimension = int(bspline["FixedImageDimension"][0])
    slices = ("1",) if dimension == 3 else ()
    grid = (str(candidate.grid_voxels),) * 2 + (("2",) if dimension == 3 else ())
    coarse_first = range(candidate.levels - 1, -1, -1)
    pyramid = [(*map(str, _PYRAMID_IN_PLANE[level]), *slices) for level in coarse_first]
    grids = [(str(2**level),) * dimension for level in coarse_first]
    return (
        affine
        | {
            "MaximumNumberOfIterations": (str(candidate.affine_iterations),),
            "NumberOfHistogramBins": (str(candidate.affine_bins),),
        },
        bspline
        | {
            "Metric1Weight": (f"{candidate.rigidity_weight:.4g}",),
            "FinalGridSpacingInVoxels": grid,
            "MaximumNumberOfIterations": (str(candidate.iterations),),
            "NumberOfHistogramBins": (str(candidate.bins),),
            "NumberOfResolutions": (str(candidate.levels),),
            "ImagePyramidSchedule": tuple(value for level in pyramid for value in level),
            "GridSpacingSchedule": tuple(value for level in grids for value in level),
        },
    )


def tasks_of(pairs: Sequence[DiscPair], stages: Stages) -> list[DiscTask]:
    """What the registration processes are given: masks alone."""
    return [DiscTask(one.mask, one.affine, (), one.atlas, "tuned", SEED, stages) for one in pairs]


def score(outcomes: Sequence[RegisteredSignal | RegistrationFailed]) -> Score:
    """How well the discs were registered. One that failed counts with :data:`FAILED_LOSS`."""
    good = [one.alignment for one in outcomes if isinstance(one, RegisteredSignal)]
    n_failed = len(outcomes) - len(good)
    if not good:
        return Score(FAILED_LOSS, float("nan"), float("nan"), float("nan"), 0, n_failed, float("nan"))
    return Score(
        loss=(len(good) * registration_loss(good) + n_failed * FAILED_LOSS) / len(outcomes),
        mean_dice=float(np.mean([one.dice for one in good])),
        min_dice=min(one.dice for one in good),
        mean_sd_jacobian=float(np.mean([one.sd_jacobian for one in good])),
        n_folded=sum(one.n_folded > 0 for one in good),
        n_failed=n_failed,
        cpu_s=float(np.mean([one.cpu_s for one in good])),
    )


def pairs_of_exam(
    name: str, levels: npt.NDArray[Any], affine: Affine, atlas: Mapping[Level, AtlasDisc]
) -> tuple[DiscPair, ...]:
    """The discs of an annotated exam with their atlas discs.

    Args:
        name: of the exam, for messages.
        levels: (slices, rows, columns) with :class:`Level` values.
        affine: (4, 4), index -> LPS mm.
        atlas: with a single-slice atlas, the slice of each disc that shows most of it is taken.
    """
    pairs = []
    for level in LUMBAR_LEVELS:
        disc = levels == level.value
        if not disc.any():
            continue
        own = affine
        if atlas_dimension(atlas[level]) == 2:
            place = int(disc.sum(axis=(1, 2)).argmax())
            disc = disc[place : place + 1]
            own = affine.copy()
            own[:3, 3] += affine[:3, 0] * place
        mask, cropped, _ = crop_disc(disc, own)
        pairs.append(DiscPair(f"{name} {level.name}", mask, cropped, atlas[level]))
    return tuple(pairs)


def values_of(candidate: Candidate) -> dict[str, float]:
    """The numbers of a candidate by name."""
    return asdict(candidate)
