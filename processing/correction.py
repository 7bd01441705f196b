"""Discs that a person has drawn or changed take the place of those that the networks found."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import (
    LUMBAR_LEVELS,
    Affine,
    Correction,
    DiscMask,
    GivenMask,
    ImageVolume,
    LabelArray,
    Level,
)

#: Why the networks may have no mask of an exam whose discs a person can draw all the same.
_NOT_FOUND = (ReasonCode.SEGMENTATION_UNCERTAIN, ReasonCode.LEVELS_AMBIGUOUS)


def check_discs(levels: LabelArray, affine: Affine) -> None:
    """A mask must hold a measured disc, and its discs must follow each other upwards in the order of their names.

    Raises:
        UnsuitableInput: SEGMENTATION_UNCERTAIN, there is none; LEVELS_AMBIGUOUS, the order is another one.
    """
    found = [level for level in Level if (levels == level).any()]
    if not any(level in LUMBAR_LEVELS for level in found):
        text = "the segmentation holds no voxel of a disc from L5S1 to L1L2"
        raise UnsuitableInput(ReasonCode.SEGMENTATION_UNCERTAIN, text)
    heights_mm = [_height_mm(levels == level, affine) for level in found]
    for (lower, upper), (low_mm, high_mm) in zip(pairwise(found), pairwise(heights_mm), strict=True):
        if high_mm <= low_mm:
            text = f"in the segmentation {upper.name} does not lie above {lower.name}"
            raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, text)


def _height_mm(own: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], affine: Affine) -> float:
    """How far up (towards S) the middle of a mask lies."""
    middle = np.argwhere(own).mean(axis=0)
    return float((affine[:3, :3] @ middle + affine[:3, 3])[2])


def correct_discs(
    given: GivenMask, background: ImageVolume, find: Callable[[], DiscMask], model: tuple[str, str]
) -> tuple[DiscMask, Correction]:
    """The mask with a person's discs, and how it compares with that of the networks.

    The networks are asked all the same: their tissue classes are needed to judge the echoes, and their discs to say
    how much was changed. Where they find none that can be named, there is nothing to compare with.

    Args:
        given: the person's discs, on the grid of ``background``.
        background: what is segmented.
        find: finds the discs automatically.
        model: name and SHA-256 of the networks.

    Raises:
        UnsuitableInput: the images are not sagittal.
    """
    automatic: DiscMask | None = None
    refusal: Reason | None = None
    try:
        automatic = find()
    except UnsuitableInput as error:
        if error.reason.code not in _NOT_FOUND:
            raise
        refusal = error.reason
    levels = np.where(given.levels <= max(LUMBAR_LEVELS), given.levels, 0).astype(np.uint8)
    mask = DiscMask(
        levels=levels,
        probability=automatic.probability if automatic else np.zeros(levels.shape, np.float32),
        tissue=automatic.tissue if automatic else np.zeros(levels.shape, np.uint8),
        affine=background.affine,
        confidence=(),  # of networks only
        model_name=model[0],
        model_sha256=model[1],
        reasons=(*_cut_discs(levels), *_with_gaps(levels), *_on_other_discs(levels, automatic)),
    )
    return mask, _compare(given, mask, automatic, refusal)


def _cut_discs(levels: LabelArray) -> list[Reason]:
    return [
        Reason(ReasonCode.SEGMENTATION_UNCERTAIN, f"{level.name}: cut by the edge of the image")
        for level in LUMBAR_LEVELS
        if (own := levels == level)[:, [0, -1]].any() or own[:, :, [0, -1]].any()
    ]


def _with_gaps(levels: LabelArray) -> Iterator[Reason]:
    """A person may have drawn every other slice, and meant the disc: its volume is then that of what was drawn."""
    for level in LUMBAR_LEVELS:
        drawn = np.flatnonzero((levels == level).any(axis=(1, 2)))
        if drawn.size and (n_empty := int(drawn[-1] - drawn[0]) + 1 - drawn.size):
            text = f"{level.name}: not drawn on {n_empty} of the slices between its first and its last one"
            yield Reason(ReasonCode.REVIEW_REQUIRED, text)


def _on_other_discs(levels: LabelArray, automatic: DiscMask | None) -> Iterator[Reason]:
    """Names that went to the neighbour, all of them perhaps: the order alone does not tell."""
    if automatic is None:
        return
    for level in LUMBAR_LEVELS:
        beneath = np.bincount(automatic.levels[levels == level], minlength=max(Level) + 1)
        others = [other for other in Level if other is not level and beneath[other] > beneath[level]]
        if others:
            most = max(others, key=lambda other: int(beneath[other]))
            text = f"{level.name}: drawn where the networks found {most.name}"
            yield Reason(ReasonCode.REVIEW_REQUIRED, text)


def _compare(given: GivenMask, mask: DiscMask, automatic: DiscMask | None, refusal: Reason | None) -> Correction:
    """Dice of each disc with the automatic one of its name; 0 where there was none."""
    dice: dict[Level, float] = {}
    removed: tuple[Level, ...] = ()
    if automatic is not None:
        removed = tuple(level for level in automatic.found if level not in mask.found)
        for level in mask.found:
            own, other = mask.levels == level, automatic.levels == level
            dice[level] = 2.0 * int((own & other).sum()) / int(own.sum() + other.sum())
    return Correction(given.origin, dice, removed, refusal)
