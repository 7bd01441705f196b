"""Which disc is which: connected disc cores, anchored on the sacrum and counted upwards, or an honest refusal.

Counting components from below, as the paper does, named one disc in three wrongly on real images: discs inside the
sacrum, fused or missed discs and a cut field of view shift every name. Here a name needs evidence: a vertebral body
between neighbours, sacrum below the lowest disc, and enough picture below it to tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import LUMBAR_LEVELS, FloatArray, LabelArray, Level

#: Output channels of the network (models.preprocessing.CLASS_NAMES).
_DISC, _BODY, _SACRUM = 1, 2, 3

_CORE_PROBABILITY = 0.8
_MIN_CORE_MM2 = 25.0
_MIN_CORE_VOLUME_MM3 = 150.0  # only where there are several slices
_MIN_DEPTH_SHARE = 0.55  # anterior-posterior length against the median disc; discs inside the sacrum are shorter
_TRANSITIONAL_DEPTH_SHARE = 0.75  # a lowest disc shorter than this may lie between S1 and S2
_RING_MM = (2.0, 9.0)  # where the neighbours of a disc are looked at
_MIN_BONE = 0.3  # mean probability of bone above or below a disc
_SACRUM_SHARE = 0.5  # of the bone on one side
_SURE_SACRUM_SHARE = 0.75  # asked for where the picture ends before L5S1 would show below L5
_DOUBTFUL_SHARE = 0.3  # between this and what is asked for it could be either
_MIN_VIEW_BELOW_MM = 15.0
_L5_HEIGHT_MM = 30.0  # with the end plates
_FUSED_SPACING_MM = 14.0  # two cores closer than this, or without bone between, are one disc
_USUAL_SPACING = (0.62, 1.4)  # times the median spacing: neighbours
_GAP_SPACING = (1.65, 2.4)  # times the median spacing: one disc in between was missed
_MIN_VOLUME_SHARE = 0.25  # of the median disc; vessels and bowel show in one or two slices
_MAX_OFF_CURVE_MM = 15.0  # how far a disc may lie in front of or behind the curve through the others
_GROWTH_MM = 10.0  # how far from its core a disc may reach
_SLICE_STEP_MM = 2.0  # a slice counts as this far from the next, however thick: neighbours show the same disc
_MIN_DISCS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A connected core and what surrounds it.

    ``bone_above``, ``bone_below``: mean probability of bone there; ``sacrum_above``, ``sacrum_below``: its sacral
    share; ``view_below_mm``: from the disc's lower edge to the edge of the picture.
    """

    core: npt.NDArray[np.bool_]  # (slices, rows, columns)
    centre_mm: npt.NDArray[np.float64]
    depth_mm: float  # anterior-posterior length in its fullest slices
    area_mm2: float
    volume_mm3: float
    bone_above: float
    bone_below: float
    sacrum_above: float
    sacrum_below: float
    view_below_mm: float


def name_discs(
    probability: FloatArray, spacing_mm: tuple[float, float, float], *, lowest_disc: Level | None = None
) -> LabelArray:
    """Territories of the named discs: (slices, rows, columns) uint8 :class:`Level`, 0 where no disc may be.

    A territory reaches up to 10 mm beyond the disc's core; the mask is where, in it, the probability passes the
    threshold.

    Args:
        probability: softmax of the network, (classes, slices, rows, columns), rows to inferior, columns to posterior.
        spacing_mm: between slices, rows, columns.
        lowest_disc: a person's word on the lowest disc in view; replaces the sacrum as anchor.

    Raises:
        UnsuitableInput: SEGMENTATION_UNCERTAIN, fewer than three discs; LEVELS_AMBIGUOUS, the names cannot be told.
    """
    candidates = find_candidates(probability, spacing_mm)
    levels = assign_levels(candidates, lowest_disc=lowest_disc)
    kept = [(level, candidate) for level, candidate in zip(levels, candidates, strict=True) if level is not None]
    return _territories([(level, candidate.core) for level, candidate in kept], probability[_DISC], spacing_mm)


def find_candidates(probability: FloatArray, spacing_mm: tuple[float, float, float]) -> list[Candidate]:
    """Discs of the mobile spine from below: cores large and long enough, next to bone, and not inside the sacrum."""
    cores = _merge_fragments(probability, spacing_mm)
    measured = [_measure(core, probability, spacing_mm) for core in cores]
    several_slices = probability.shape[1] > 1
    found = [
        one
        for one in measured
        if one.area_mm2 >= _MIN_CORE_MM2
        and (one.volume_mm3 >= _MIN_CORE_VOLUME_MM3 or not several_slices)
        and max(one.bone_above, one.bone_below) >= _MIN_BONE
    ]
    if found:
        usual = float(np.median([one.depth_mm for one in found]))
        found = [one for one in found if one.depth_mm >= _MIN_DEPTH_SHARE * usual]
        fullest = float(np.median([one.volume_mm3 for one in found]))
        found = [one for one in found if one.volume_mm3 >= _MIN_VOLUME_SHARE * fullest]
    found = _on_one_curve(found)
    found.sort(key=lambda one: -float(one.centre_mm[0]))
    while found and found[0].sacrum_above > _SACRUM_SHARE and found[0].bone_above >= _MIN_BONE:
        found.pop(0)  # a rudimentary disc between sacral pieces
    return found


def _on_one_curve(found: list[Candidate]) -> list[Candidate]:
    """The candidates without those far off the curve (column as a parabola of row) through all, weighted by volume.

    The farthest is dropped first and the curve drawn anew; four are needed to tell one that does not belong.
    """
    found = list(found)
    while len(found) >= 4:
        rows, columns = np.array([one.centre_mm for one in found]).T
        weights = np.sqrt([one.volume_mm3 for one in found])
        degree = 2 if len(found) > 4 else 1
        curve = np.polynomial.Polynomial.fit(rows, columns, degree, w=weights)
        off = np.abs(columns - curve(rows))
        worst = int(off.argmax())
        if off[worst] <= _MAX_OFF_CURVE_MM:
            break
        found.pop(worst)
    return found


def assign_levels(candidates: Sequence[Candidate], *, lowest_disc: Level | None = None) -> list[Level | None]:
    """The level of each candidate, given from below; None above T12L1.

    Raises:
        UnsuitableInput: as :func:`name_discs`.
    """
    if len(candidates) < _MIN_DISCS:
        raise UnsuitableInput(
            ReasonCode.SEGMENTATION_UNCERTAIN, f"{len(candidates)} discs found; at least {_MIN_DISCS} are needed"
        )
    if lowest_disc is None:
        _check_anchor(candidates[0], candidates[1 : len(LUMBAR_LEVELS)])  # thoracic discs are shorter
        lowest_disc = Level.L5S1
    centres = np.array([candidate.centre_mm for candidate in candidates])
    spacings = np.linalg.norm(np.diff(centres, axis=0), axis=1)[: len(Level) - 1]  # thoracic vertebrae are lower
    usual = float(np.median(spacings))
    if not 18.0 <= usual <= 50.0:
        detail = f"discs are {usual:.0f} mm apart; 18 to 50 mm are plausible"
        raise UnsuitableInput(ReasonCode.SEGMENTATION_UNCERTAIN, detail)
    numbers = [int(lowest_disc)]
    for spacing in spacings:
        if numbers[-1] < max(Level):
            numbers.append(numbers[-1] + _steps(float(spacing), usual))
    levels: list[Level | None] = [Level(number) if number <= max(Level) else None for number in numbers]
    return levels + [None] * (len(candidates) - len(levels))


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
    asked = _SACRUM_SHARE if lowest.view_below_mm >= _L5_HEIGHT_MM else _SURE_SACRUM_SHARE
    if lowest.view_below_mm < _MIN_VIEW_BELOW_MM:
        needed = f"{_MIN_VIEW_BELOW_MM:.0f} mm are needed to tell the sacrum"
        detail = f"{lowest.view_below_mm:.0f} mm in view below the lowest disc; {needed}"
    elif lowest.bone_below < _MIN_BONE:
        detail = "no bone recognised below the lowest disc"
    elif length < _TRANSITIONAL_DEPTH_SHARE:
        detail = f"the lowest disc has {length:.0%} of the usual length: L5S1, or S1S2 of a transitional vertebra"
    elif lowest.sacrum_below < _DOUBTFUL_SHARE:
        detail = "a vertebral body, not the sacrum, lies below the lowest disc found: L5S1 is out of view or was missed"
    elif lowest.sacrum_below < asked:
        detail = f"the bone below the lowest disc is doubtful ({lowest.sacrum_below:.0%} sacrum, {asked:.0%} needed)"
    else:
        return
    raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, detail)


def _merge_fragments(probability: FloatArray, spacing_mm: tuple[float, float, float]) -> list[npt.NDArray[np.bool_]]:
    """Connected cores; fragments of one disc (no bone between them) joined."""
    core = probability[_DISC] > _CORE_PROBABILITY
    labels, count = ndimage.label(core)  # same pixel in the next slice, or next pixel in the same slice
    if not count:
        return []
    voxels = ndimage.sum_labels(core, labels, np.arange(1, count + 1))
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    large = [index + 1 for index in range(count) if voxels[index] * pixel_mm2 >= 0.4 * _MIN_CORE_MM2]
    groups: list[list[int]] = []
    centres = {index: np.array(ndimage.center_of_mass(labels == index)) for index in large}
    bone = probability[_BODY] + probability[_SACRUM]
    for index in sorted(large, key=lambda one: -voxels[one - 1]):
        home = next(
            (group for group in groups if _is_same_disc(centres[group[0]], centres[index], bone, spacing_mm)), None
        )
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    return [np.isin(labels, group) for group in groups]


def _is_same_disc(
    one: npt.NDArray[np.float64],
    other: npt.NDArray[np.float64],
    bone: FloatArray,
    spacing_mm: tuple[float, float, float],
) -> bool:
    """Whether two centres (slice, row, column) are near each other in the plane with no bone on the way."""
    away = (other - one)[1:] * np.array(spacing_mm[1:])
    if abs(away[0]) > 20.0 or np.hypot(*away) > 30.0:
        return False
    if np.hypot(*away) < _FUSED_SPACING_MM and abs(away[0]) < 0.5 * _FUSED_SPACING_MM:
        return True
    path = one[:, None] + (other - one)[:, None] * np.linspace(0, 1, 25)
    return bool(ndimage.map_coordinates(bone, path, order=1, mode="nearest").mean() < 0.15)


def _measure(core: npt.NDArray[np.bool_], probability: FloatArray, spacing_mm: tuple[float, float, float]) -> Candidate:
    """Size and neighbours of a core, judged on the slices that show it best."""
    pixel = np.array(spacing_mm[1:])
    areas = core.sum(axis=(1, 2)) * float(pixel.prod())
    full = np.flatnonzero(areas >= 0.5 * areas.max())
    rows, columns = np.nonzero(core[full].any(axis=0))
    points = np.stack([rows, columns], axis=1) * pixel
    centre = points.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((points - centre).T) + 1e-6 * np.eye(2))
    along = axes[:, 1] if axes[1, 1] > 0 else -axes[:, 1]  # towards posterior
    if abs(along[1]) < 0.5:  # as high as it is deep: no axis to trust
        along = np.array([0.0, 1.0])
    down = np.array([along[1], -along[0]])
    sides = _bone_at_sides(core, probability, full, (centre, along, down), spacing_mm)
    view_below = _distance_to_edge(centre, down, np.array(core.shape[1:]) * pixel)
    lower_edge = float(np.percentile((points - centre) @ down, 90))
    depths = [_extent((np.argwhere(core[k]) * pixel) @ along) for k in full]
    return Candidate(
        core,
        centre,
        float(np.median(depths)),
        float(areas.max()),
        float(areas.sum() * spacing_mm[0]),
        *sides,
        view_below - lower_edge,
    )


def _bone_at_sides(
    core: npt.NDArray[np.bool_],
    probability: FloatArray,
    slices: npt.NDArray[np.intp],
    frame: tuple[npt.NDArray[np.float64], ...],
    spacing_mm: tuple[float, float, float],
) -> tuple[float, float, float, float]:
    """(bone above, bone below, sacrum above, sacrum below) in a band around the middle of the disc, over ``slices``."""
    centre, along, down = frame
    margin = np.ceil(_RING_MM[1] / np.array(spacing_mm[1:])).astype(int) + 1
    box = ndimage.find_objects(core[slices].any(axis=0).astype(np.uint8))[0]
    near = tuple(slice(max(0, side.start - more), side.stop + more) for side, more in zip(box, margin, strict=True))
    start = np.array([side.start for side in near])
    shape = core[0][near].shape
    offset = (np.moveaxis(np.indices(shape), 0, -1) + start) * np.array(spacing_mm[1:]) - centre
    depth, length = offset @ down, offset @ along
    sums = np.zeros((2, 3))  # side x (pixels, body, sacrum)
    for k in slices:
        away = ndimage.distance_transform_edt(~core[k][near], sampling=spacing_mm[1:])
        band = (away >= _RING_MM[0]) & (away <= _RING_MM[1]) & (np.abs(length) < 10.0)
        for side, where in enumerate((band & (depth < 0), band & (depth > 0))):
            sums[side] += (
                where.sum(),
                probability[_BODY, k][near][where].sum(),
                probability[_SACRUM, k][near][where].sum(),
            )
    bone = sums[:, 1] + sums[:, 2]
    present = bone / np.maximum(sums[:, 0], 1)
    sacral = sums[:, 2] / np.maximum(bone, 1e-6)
    return float(present[0]), float(present[1]), float(sacral[0]), float(sacral[1])


def _distance_to_edge(
    centre: npt.NDArray[np.float64], direction: npt.NDArray[np.float64], size_mm: npt.NDArray[np.float64]
) -> float:
    """How far the picture reaches from ``centre`` along ``direction``, (row, column) mm."""
    reach = [
        ((limit if step > 0 else 0.0) - start) / step
        for start, step, limit in zip(centre, direction, size_mm, strict=True)
        if abs(step) > 1e-6
    ]
    return float(min(reach))


def _extent(values: npt.NDArray[np.float64]) -> float:
    return float(np.percentile(values, 98) - np.percentile(values, 2))


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
