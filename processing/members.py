"""What the members of an ensemble agree on, disc by disc, and what their disagreement does to the numbers."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from processing.fitting import FitStatus
from processing.results import DiscConfidence, DiscMask, LabelArray, Level, RelaxationMap

BoolArray = npt.NDArray[np.bool_]


def pairwise_dice(masks: BoolArray) -> float:
    """Mean Dice over all pairs of ``masks`` (members, ...).

    A pair of which one or both are empty counts 0: the disc is there, and they do not agree on where.

    Raises:
        ValueError: fewer than two members.
    """
    if len(masks) < 2:
        raise ValueError(f"{len(masks)} masks; a pair needs two")
    flat = masks.reshape(len(masks), -1)
    sizes = flat.sum(axis=1)
    pairs = [
        2 * np.count_nonzero(flat[one] & flat[other]) / max(1, sizes[one] + sizes[other])
        for one, other in combinations(range(len(masks)), 2)
    ]
    return float(np.mean(pairs))


def with_agreement(confidence: DiscConfidence, member_levels: LabelArray, voxel_mm3: float) -> DiscConfidence:
    """``confidence`` with what the members say of its disc; ``member_levels`` (members, slices, rows, columns)."""
    own = member_levels == confidence.level
    volumes_mm3 = own.sum(axis=(1, 2, 3)) * voxel_mm3
    return replace(
        confidence,
        member_dice=pairwise_dice(own),
        member_volume_sd_mm3=float(volumes_mm3.std(ddof=1)),
        n_members=len(own),
        n_members_with_disc=int(np.count_nonzero(volumes_mm3)),
    )


def fit_region(mask: DiscMask) -> BoolArray:
    """Where a map is needed, (slices, rows, columns): in the discs, and where any member sees one."""
    region: BoolArray = mask.levels > 0
    return region if mask.member_levels is None else region | mask.member_levels.any(axis=0)


def member_spread_ms(one: RelaxationMap, member_levels: LabelArray, level: Level) -> tuple[float | None, int]:
    """SD (n - 1) over the members of the mean time in each member's own mask of a disc, and of how many members.

    A member that sees no voxel of the disc, or of which no voxel was fitted, has no mean and is left out. None where
    fewer than two members are left.

    Args:
        one: fitted wherever a member sees a disc (:func:`fit_region`).
        member_levels: (members, slices, rows, columns).
        level: the disc.

    Raises:
        ValueError: the map was not fitted in all of that.
    """
    means = []
    for own in member_levels == level:
        status = one.status[own]
        if (status == FitStatus.NOT_FITTED).any():
            raise ValueError(f"{one.quantity} was not fitted wherever a member sees {level.name}")
        values = one.time_ms[own][status == FitStatus.FITTED].astype(np.float64)
        if len(values):
            means.append(float(values.mean()))
    return (float(np.std(means, ddof=1)) if len(means) > 1 else None), len(means)
