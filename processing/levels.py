"""Which disc is which: candidates anchored on the sacrum and counted upwards, or an honest refusal.

Counting components from below, as the paper does, named one disc in three wrongly on real images: discs inside the
sacrum, fused or missed discs and a cut field of view shift every name. Here a name needs evidence: a vertebral body
between neighbours, sacrum below the lowest disc in most slices, and enough picture below it to tell. Four or six
lumbar bodies look like five from here (only a whole-spine view can count them): names count from the sacrum.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.preprocessing import DISC, SACRUM
from processing.disc_candidates import (
    MIN_BONE,
    SACRUM_SHARE,
    Candidate,
    Candidates,
    find_candidates,
    is_between,
)
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import LUMBAR_LEVELS, FloatArray, LabelArray, Level

_TRANSITIONAL_DEPTH_SHARE = 0.75  # a lowest disc shorter than this may lie between S1 and S2
_SURE_SACRUM_SHARE = 0.75  # asked for where the picture ends before L5S1 would show below L5
_DOUBTFUL_SHARE = 0.3  # between this and what is asked for it could be either
_MIN_AGREEMENT = 0.6  # of the slices that show bone below the lowest disc, those in which it is sacrum
_SURE_AGREEMENT = 0.8  # below this the names are given but to be reviewed
_MIN_SACRUM_MM2 = 300.0  # below the lowest disc in the slice that shows most; half of S1 has about 400
_MIN_VIEW_BELOW_MM = 15.0
_L5_HEIGHT_MM = 30.0  # with the end plates
_USUAL_SPACING = (0.62, 1.4)  # times the median spacing: neighbours
_GAP_SPACING = (1.65, 2.4)  # times the median spacing: one disc in between was missed
_WELL_FORMED_SHARE = 0.7  # a sacral disc this long against the usual one speaks for a transitional vertebra
_MIDDLE_SHARE = 0.35  # of the way between two discs: from here to 1 minus this a missed disc may lie
_GROWTH_MM = 10.0  # how far from its core a disc may reach
_SLICE_STEP_MM = 2.0  # a slice counts as this far from the next, however thick: neighbours show the same disc
_MIN_DISCS = 3


@dataclass(frozen=True, slots=True, eq=False)
class NamedDiscs:
    """Where each disc may be, and what a person should check.

    ``territory`` (slices, rows, columns) uint8 :class:`Level`, 0 where no disc may be: it reaches up to 10 mm beyond
    the disc's core; the mask is where, in it, the probability passes the threshold.
    """

    territory: LabelArray
    doubts: tuple[Reason, ...]


def name_discs(
    probability: FloatArray,
    spacing_mm: tuple[float, float, float],
    *,
    lowest_disc: Level | None = None,
    candidates: Candidates | None = None,
) -> NamedDiscs:
    """Name the discs in a network's answer.

    Args:
        probability: softmax of the network, (classes, slices, rows, columns), rows to inferior, columns to posterior.
        spacing_mm: between slices, rows, columns.
        lowest_disc: a person's word on the lowest disc in view; replaces the sacrum as anchor.
        candidates: of this answer, if they are known already.

    Raises:
        UnsuitableInput: SEGMENTATION_UNCERTAIN, fewer than three discs; LEVELS_AMBIGUOUS, the names cannot be told.
    """
    found = candidates or find_candidates(probability, spacing_mm)
    levels = assign_levels(found, lowest_disc=lowest_disc)
    kept = [(level, disc.core) for level, disc in zip(levels, found.discs, strict=True) if level is not None]
    filled = _fill_gaps(found, levels)
    if lowest_disc is None:
        _check_sacrum_is_seen(found.discs[0], probability, spacing_mm)
        doubts = _doubts(found)
    else:
        text = f"a person named the lowest disc {lowest_disc.name}; the others are counted from it"
        doubts = [Reason(ReasonCode.REVIEW_REQUIRED, text)]
    for level, _ in filled:
        doubts.append(Reason(ReasonCode.SEGMENTATION_UNCERTAIN, f"{level.name}: only parts of the disc are recognised"))
    territory = _territories([*kept, *filled], probability[DISC], spacing_mm)
    return NamedDiscs(territory, tuple(doubts))


def _fill_gaps(found: Candidates, levels: Sequence[Level | None]) -> list[tuple[Level, npt.NDArray[np.bool_]]]:
    """Small cores in the middle of a gap of one disc are that disc: (level, core)."""
    filled = []
    for index, (level, following) in enumerate(itertools.pairwise(levels)):
        if level is None or following is None or following - level != 2:
            continue
        lower, upper = found.discs[index], found.discs[index + 1]
        parts = [stray.core for stray in found.strays if is_between(stray, lower, upper, share=_MIDDLE_SHARE)]
        if parts:
            filled.append((Level(level + 1), np.logical_or.reduce(parts)))
    return filled


def assign_levels(found: Candidates, *, lowest_disc: Level | None = None) -> list[Level | None]:
    """The level of each disc of ``found``, from below; None above T12L1.

    Raises:
        UnsuitableInput: as :func:`name_discs`.
    """
    discs = found.discs
    if len(discs) < _MIN_DISCS:
        raise UnsuitableInput(
            ReasonCode.SEGMENTATION_UNCERTAIN, f"{len(discs)} discs found; at least {_MIN_DISCS} are needed"
        )
    if lowest_disc is None:
        _check_anchor(discs[0], discs[1 : len(LUMBAR_LEVELS)])  # thoracic discs are shorter
        lowest_disc = Level.L5S1
    centres = np.array([disc.centre_mm for disc in discs])
    spacings = np.linalg.norm(np.diff(centres, axis=0), axis=1)[: len(Level) - 1]  # thoracic vertebrae are lower
    usual = float(np.median(spacings))
    if not 18.0 <= usual <= 50.0:
        detail = f"discs are {usual:.0f} mm apart; 18 to 50 mm are plausible"
        raise UnsuitableInput(ReasonCode.SEGMENTATION_UNCERTAIN, detail)
    numbers = [int(lowest_disc)]
    for spacing in spacings:
        if numbers[-1] < max(Level):
            numbers.append(numbers[-1] + _steps(float(spacing), usual))
    _check_strays(found, numbers)
    levels: list[Level | None] = [Level(number) if number <= max(Level) else None for number in numbers]
    return levels + [None] * (len(discs) - len(levels))


def _check_strays(found: Candidates, numbers: Sequence[int]) -> None:
    """Refuse where a small core lies between two discs that are neighbours: it would be a level of its own."""
    for index, (number, following) in enumerate(itertools.pairwise(numbers)):
        lower, upper = found.discs[index], found.discs[index + 1]
        if following - number == 1 and any(is_between(stray, lower, upper) for stray in found.strays):
            detail = "between two discs lies what may be a small disc or none"
            raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, detail)


def _steps(spacing_mm: float, usual_mm: float) -> int:
    """How many levels up the next disc is: a missed disc leaves its level empty, the others keep their names."""
    ratio = spacing_mm / usual_mm
    if _USUAL_SPACING[0] <= ratio <= _USUAL_SPACING[1]:
        return 1
    if _GAP_SPACING[0] <= ratio <= _GAP_SPACING[1]:
        return 2
    detail = f"two neighbouring discs are {spacing_mm:.0f} mm apart, the others {usual_mm:.0f} mm"
    raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, detail)


def _check_anchor(lowest: Candidate, others: Sequence[Candidate]) -> None:
    """Refuse unless the lowest disc clearly stands on the sacrum and is as long as a lumbar disc."""
    length = lowest.depth_mm / float(np.median([one.depth_mm for one in others]))
    asked = SACRUM_SHARE if lowest.view_below_mm >= _L5_HEIGHT_MM else _SURE_SACRUM_SHARE
    sacral, all_slices = lowest.sacral_slices
    if lowest.view_below_mm < _MIN_VIEW_BELOW_MM:
        needed = f"{_MIN_VIEW_BELOW_MM:.0f} mm are needed to tell the sacrum"
        detail = f"{lowest.view_below_mm:.0f} mm in view below the lowest disc; {needed}"
    elif lowest.bone_below < MIN_BONE:
        detail = "no bone recognised below the lowest disc"
    elif length < _TRANSITIONAL_DEPTH_SHARE:
        detail = f"the lowest disc has {length:.0%} of the usual length: L5S1, or S1S2 of a transitional vertebra"
    elif lowest.sacrum_below < _DOUBTFUL_SHARE:
        detail = "a vertebral body, not the sacrum, lies below the lowest disc found: L5S1 is out of view or was missed"
    elif lowest.sacrum_below < asked:
        detail = f"the bone below the lowest disc is doubtful ({lowest.sacrum_below:.0%} sacrum, {asked:.0%} needed)"
    elif sacral < _MIN_AGREEMENT * all_slices:
        detail = f"the slices disagree: sacrum below the lowest disc in {sacral} of {all_slices}"
    else:
        return
    raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, detail)


def _check_sacrum_is_seen(lowest: Candidate, probability: FloatArray, spacing_mm: tuple[float, float, float]) -> None:
    """Refuse where so little sacrum is in view that a piece of a vertebra would pass for it."""
    row = int(lowest.centre_mm[0] / spacing_mm[1])
    below = probability[:, :, row:]
    area_mm2 = float((below.argmax(axis=0) == SACRUM).sum(axis=(1, 2)).max()) * spacing_mm[1] * spacing_mm[2]
    if area_mm2 < _MIN_SACRUM_MM2:
        detail = f"{area_mm2:.0f} mm2 of sacrum in view; {_MIN_SACRUM_MM2:.0f} mm2 are needed to be sure of it"
        raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, detail)


def _doubts(found: Candidates) -> list[Reason]:
    """What speaks against the names without refuting them."""
    doubts = []
    sacral, all_slices = found.discs[0].sacral_slices
    if sacral < _SURE_AGREEMENT * all_slices:
        text = f"sacrum below the lowest disc in {sacral} of {all_slices} slices only"
        doubts.append(Reason(ReasonCode.LEVELS_AMBIGUOUS, text))
    usual = float(np.median([disc.depth_mm for disc in found.discs[: len(LUMBAR_LEVELS)]]))
    longest = max((disc.depth_mm / usual for disc in found.sacral), default=0.0)
    if longest >= _WELL_FORMED_SHARE:
        text = f"a disc inside the sacrum has {longest:.0%} of the usual length: S1 may be a transitional vertebra"
        doubts.append(Reason(ReasonCode.LEVELS_AMBIGUOUS, text))
    return doubts


def _territories(
    named: Sequence[tuple[Level, npt.NDArray[np.bool_]]], disc: FloatArray, spacing_mm: tuple[float, float, float]
) -> LabelArray:
    """Every voxel that may be disc goes to the nearest core in reach; what is not connected to its core is dropped."""
    seeds = np.zeros(disc.shape, np.uint8)
    for level, core in named:
        seeds[core] = level
    sampling = (min(_SLICE_STEP_MM, spacing_mm[0]), *spacing_mm[1:])
    margin = np.ceil(_GROWTH_MM / np.array(sampling)).astype(int) + 1
    box = ndimage.find_objects((seeds > 0).astype(np.uint8))[0]
    near = tuple(slice(max(0, side.start - more), side.stop + more) for side, more in zip(box, margin, strict=True))
    away, nearest = ndimage.distance_transform_edt(seeds[near] == 0, sampling=sampling, return_indices=True)
    reached = np.zeros_like(seeds)
    reached[near] = np.where(away <= _GROWTH_MM, seeds[near][tuple(nearest)], 0)
    likely = disc > 0.1
    territory = np.zeros_like(seeds)
    for level, core in named:
        parts, _ = ndimage.label((reached == level) & likely, structure=np.ones((3, 3, 3)))
        ours = np.isin(parts, np.unique(parts[core & (parts > 0)]))
        territory[ours & (parts > 0)] = level
    return territory
