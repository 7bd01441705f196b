"""What may be a disc in a network's answer: connected cores, measured with what surrounds them.

The mask at a threshold of 0.5 joins neighbours and invents small ones; cores (probability above 0.8) do so far less.
Fragments without bone between them are one disc, two discs that touch are parted, and what lies off the curve of the
others, next to no bone, or inside the sacrum is no disc of the mobile spine.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.preprocessing import BODY, DISC, SACRUM
from processing.results import FloatArray

_CORE_PROBABILITY = 0.8
_MIN_CORE_MM2 = 25.0
_MIN_CORE_VOLUME_MM3 = 150.0  # only where there are several slices
_MIN_DEPTH_SHARE = 0.55  # anterior-posterior length against the median disc; discs inside the sacrum are shorter
_RING_MM = (2.0, 9.0)  # where the neighbours of a disc are looked at
MIN_BONE = 0.3  # mean probability of bone above or below a disc
SACRUM_SHARE = 0.5  # of the bone on one side
_FUSED_SPACING_MM = 14.0  # two cores closer than this, or without bone between, are one disc
_MIN_BONE_BETWEEN = 0.15  # mean probability of bone on the way from one disc to the next
_MIN_VOLUME_SHARE = 0.25  # of the median disc; vessels and bowel show in one or two slices
_MAX_OFF_CURVE_MM = 15.0  # how far a disc may lie in front of or behind the curve through the others
_SINGLE_HEIGHT_MM = 18.0  # four standard deviations across the long axis; a core higher than this may be two discs
_PARTED_MM = 12.0  # centres of two discs that touch are at least so far apart
_MAX_EROSION_PIXELS = 4
_STRAY_BONE = 0.5  # bone on both sides of what may be a disc although it is too small for one
_STRAY_MARGIN_MM = 9.0  # nearer to a disc than this it belongs to it


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A connected core and what surrounds it.

    ``bone_above``, ``bone_below``: mean probability of bone there; ``sacrum_above``, ``sacrum_below``: its sacral
    share; ``view_below_mm``: from the disc's lower edge to the edge of the picture; ``tilt_deg``: of its long axis
    against the columns, -90 to 90, positive where its posterior end is the higher; ``sacral_slices``: in how many of
    the slices that show bone below it that bone is mostly sacrum, and how many these are.
    """

    core: npt.NDArray[np.bool_]  # (slices, rows, columns)
    centre_mm: npt.NDArray[np.float64]
    depth_mm: float  # anterior-posterior length in its fullest slices
    height_mm: float  # four standard deviations across that
    tilt_deg: float
    area_mm2: float
    volume_mm3: float
    bone_above: float
    bone_below: float
    sacrum_above: float
    sacrum_below: float
    sacral_slices: tuple[int, int]
    view_below_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What was found, each from below. ``discs`` of the mobile spine; ``sacral``: discs between sacral pieces;
    ``strays``: small cores between two discs, on their curve and with bone on both sides, which may be a disc.
    """

    discs: tuple[Candidate, ...]
    sacral: tuple[Candidate, ...]
    strays: tuple[Candidate, ...]


def find_candidates(probability: FloatArray, spacing_mm: tuple[float, float, float]) -> Candidates:
    """Cores large and long enough, next to bone, on one curve, and not inside the sacrum.

    Args:
        probability: softmax of the network, (classes, slices, rows, columns), rows to inferior, columns to posterior.
        spacing_mm: between slices, rows, columns.
    """
    cores = _merge_fragments(probability, spacing_mm)
    measured = [
        _measure(part, probability, spacing_mm) for core in cores for part in _part_touching_discs(core, spacing_mm)
    ]
    several_slices = probability.shape[1] > 1
    found = [
        one
        for one in measured
        if one.area_mm2 >= _MIN_CORE_MM2
        and (one.volume_mm3 >= _MIN_CORE_VOLUME_MM3 or not several_slices)
        and max(one.bone_above, one.bone_below) >= MIN_BONE
    ]
    if found:
        usual = float(np.median([one.depth_mm for one in found]))
        found = [one for one in found if one.depth_mm >= _MIN_DEPTH_SHARE * usual]
        fullest = float(np.median([one.volume_mm3 for one in found]))
        found = [one for one in found if one.volume_mm3 >= _MIN_VOLUME_SHARE * fullest]
    found = _on_one_curve(found)
    found.sort(key=lambda one: -float(one.centre_mm[0]))
    sacral: list[Candidate] = []
    while found and found[0].sacrum_above > SACRUM_SHARE and found[0].bone_above >= MIN_BONE:
        sacral.append(found.pop(0))  # a rudimentary disc between sacral pieces
    kept = {id(one) for one in (*found, *sacral)}
    strays = [one for one in measured if id(one) not in kept and _may_be_disc(one, found)]
    return Candidates(tuple(found), tuple(sacral), tuple(strays))


def _on_one_curve(found: list[Candidate]) -> list[Candidate]:
    """The candidates without those far off the curve (column as a parabola of row) through all, weighted by volume.

    The farthest is dropped first and the curve drawn anew; four are needed to tell one that does not belong.
    """
    found = list(found)
    while len(found) >= 4:
        rows, columns = np.array([one.centre_mm for one in found]).T
        weights = np.sqrt([one.volume_mm3 for one in found])
        degree = 2 if len(found) > 4 else 1
        # full: it does not warn where discs share their rows; the least of all curves will do there
        curve, _ = np.polynomial.Polynomial.fit(rows, columns, degree, w=weights, full=True)
        off = np.abs(columns - curve(rows))
        worst = int(off.argmax())
        if off[worst] <= _MAX_OFF_CURVE_MM:
            break
        found.pop(worst)
    return found


def _may_be_disc(one: Candidate, discs: Sequence[Candidate]) -> bool:
    """Whether a core with bone on both sides lies on the line between two neighbouring ``discs``, away from both."""
    if min(one.bone_above, one.bone_below) < _STRAY_BONE:
        return False
    return any(is_between(one, lower, upper) for lower, upper in itertools.pairwise(discs))


def is_between(one: Candidate, lower: Candidate, upper: Candidate, *, share: float = 0.0) -> bool:
    """Whether a core lies on the line between two discs and away from both; ``share`` of the way at the least."""
    way = upper.centre_mm - lower.centre_mm
    length = float(np.linalg.norm(way))
    offset = one.centre_mm - lower.centre_mm
    along = float(offset @ way) / length
    across = float(np.linalg.norm(offset - way * along / length))
    margin = max(_STRAY_MARGIN_MM, share * length)
    return margin < along < length - margin and across < _MAX_OFF_CURVE_MM


def _merge_fragments(probability: FloatArray, spacing_mm: tuple[float, float, float]) -> list[npt.NDArray[np.bool_]]:
    """Connected cores; fragments of one disc (no bone between them) joined."""
    core = probability[DISC] > _CORE_PROBABILITY
    labels, count = ndimage.label(core)  # same pixel in the next slice, or next pixel in the same slice
    if not count:
        return []
    voxels = ndimage.sum_labels(core, labels, np.arange(1, count + 1))
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    large = [index + 1 for index in range(count) if voxels[index] * pixel_mm2 >= 0.4 * _MIN_CORE_MM2]
    groups: list[list[int]] = []
    centres = dict(zip(large, np.array(ndimage.center_of_mass(core, labels, large)), strict=True))
    bone = probability[BODY] + probability[SACRUM]
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
    return bool(ndimage.map_coordinates(bone, path, order=1, mode="nearest").mean() < _MIN_BONE_BETWEEN)


def _part_touching_discs(
    core: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> list[npt.NDArray[np.bool_]]:
    """A core as it is, or the two or more discs that it consists of.

    Discs join through a bridge in front of a vertebra, or where the next slice shows the neighbour at the same pixel.
    Thin bridges go first: the core is eroded in the plane, a pixel at a time, until its parts are as low as discs are.
    """
    if _height_mm(np.asarray(core.any(axis=0)), spacing_mm) <= _SINGLE_HEIGHT_MM:
        return [core]
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    eroded = core
    for _ in range(_MAX_EROSION_PIXELS + 1):
        labels, _ = ndimage.label(eroded, structure=in_plane)
        groups = _stacked(labels, spacing_mm)
        if len(groups) > 1:
            seeds = np.stack([np.isin(labels, group) for group in groups])
            away = np.stack([_distance_in_plane(seed, spacing_mm) for seed in seeds])
            nearest = away.argmin(axis=0)
            return [core & (nearest == index) for index in range(len(groups))]
        eroded = ndimage.binary_erosion(eroded, in_plane)
    return [core]


def _stacked(labels: npt.NDArray[np.signedinteger], spacing_mm: tuple[float, float, float]) -> list[list[int]]:
    """Parts of a core (numbered, each in one slice) sorted into discs by their height in the picture.

    Empty where a part is itself too high for one disc.
    """
    parts = []
    for index, where in enumerate(ndimage.find_objects(labels), 1):
        part = labels[where][0] == index
        if part.sum() * spacing_mm[1] * spacing_mm[2] < 0.4 * _MIN_CORE_MM2:
            continue
        if _height_mm(part, spacing_mm) > _SINGLE_HEIGHT_MM:
            return []
        row = float(np.nonzero(part)[0].mean() + where[1].start) * spacing_mm[1]
        parts.append((row, index))
    groups: list[list[int]] = []
    last = -np.inf
    for row, index in sorted(parts):
        if row - last > _PARTED_MM:
            groups.append([])
        groups[-1].append(index)
        last = row
    return groups


def _distance_in_plane(seed: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> FloatArray:
    """From every voxel to the seed in its own slice; in slices without one, to the seed's shadow from all slices."""
    shadow = seed.any(axis=0)
    sources = np.where(seed.any(axis=(1, 2), keepdims=True), seed, shadow)
    away: FloatArray = np.empty(seed.shape, np.float32)
    for k, source in enumerate(sources):
        away[k] = ndimage.distance_transform_edt(np.logical_not(source), sampling=spacing_mm[1:])
    return away


def _height_mm(region: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """Four standard deviations of a region (rows, columns) across its long axis."""
    points = np.argwhere(region) * np.array(spacing_mm[1:])
    spread = np.linalg.eigvalsh(np.cov(points.T)) if len(points) > 2 else np.zeros(2)
    return float(4.0 * np.sqrt(max(spread[0], 0.0)))


def _measure(core: npt.NDArray[np.bool_], probability: FloatArray, spacing_mm: tuple[float, float, float]) -> Candidate:
    """Size and neighbours of a core, judged on the slices that show it best."""
    pixel = np.array(spacing_mm[1:])
    areas = core.sum(axis=(1, 2)) * float(pixel.prod())
    full = np.flatnonzero(areas >= 0.5 * areas.max())
    rows, columns = np.nonzero(core[full].any(axis=0))
    points = np.stack([rows, columns], axis=1) * pixel
    centre = points.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov((points - centre).T) + 1e-6 * np.eye(2))
    along = axes[:, 1] if axes[1, 1] > 0 else -axes[:, 1]  # towards posterior
    tilt_deg = float(np.degrees(np.arctan2(-along[0], along[1])))
    if abs(along[1]) < 0.5:  # as high as it is deep: no axis to trust
        along = np.array([0.0, 1.0])
    down = np.array([along[1], -along[0]])
    sides, votes = _bone_at_sides(core, probability, full, (centre, along, down), spacing_mm)
    view_below = _distance_to_edge(centre, down, np.array(core.shape[1:]) * pixel)
    lower_edge = float(np.percentile((points - centre) @ down, 90))
    depths = [_extent((np.argwhere(core[k]) * pixel) @ along) for k in full]
    return Candidate(
        core=core,
        centre_mm=centre,
        depth_mm=float(np.median(depths)),
        height_mm=float(4.0 * np.sqrt(spread[0])),
        tilt_deg=tilt_deg,
        area_mm2=float(areas.max()),
        volume_mm3=float(areas.sum() * spacing_mm[0]),
        bone_above=sides[0],
        bone_below=sides[1],
        sacrum_above=sides[2],
        sacrum_below=sides[3],
        sacral_slices=votes,
        view_below_mm=view_below - lower_edge,
    )


def _bone_at_sides(
    core: npt.NDArray[np.bool_],
    probability: FloatArray,
    slices: npt.NDArray[np.intp],
    frame: tuple[npt.NDArray[np.float64], ...],
    spacing_mm: tuple[float, float, float],
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """(bone above, bone below, sacrum above, sacrum below) in a band around the middle of the disc, over ``slices``;
    and the vote of these slices on the sacrum below it (:class:`Candidate`).
    """
    centre, along, down = frame
    margin = np.ceil(_RING_MM[1] / np.array(spacing_mm[1:])).astype(int) + 1
    box = ndimage.find_objects(core[slices].any(axis=0).astype(np.uint8))[0]
    near = tuple(slice(max(0, side.start - more), side.stop + more) for side, more in zip(box, margin, strict=True))
    start = np.array([side.start for side in near])
    shape = core[0][near].shape
    offset = (np.moveaxis(np.indices(shape), 0, -1) + start) * np.array(spacing_mm[1:]) - centre
    depth, length = offset @ down, offset @ along
    sums = np.zeros((len(slices), 2, 3))  # slice x side x (pixels, body, sacrum)
    for index, k in enumerate(slices):
        away = ndimage.distance_transform_edt(~core[k][near], sampling=spacing_mm[1:])
        band = (away >= _RING_MM[0]) & (away <= _RING_MM[1]) & (np.abs(length) < 10.0)
        for side, where in enumerate((band & (depth < 0), band & (depth > 0))):
            sums[index, side] = (
                where.sum(),
                probability[BODY, k][near][where].sum(),
                probability[SACRUM, k][near][where].sum(),
            )
    present, sacral = _shares(sums.sum(axis=0))
    each_present, each_sacral = _shares(sums[:, 1])
    shows = each_present >= MIN_BONE
    votes = (int((shows & (each_sacral > SACRUM_SHARE)).sum()), int(shows.sum()))
    return (float(present[0]), float(present[1]), float(sacral[0]), float(sacral[1])), votes


def _shares(sums: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(mean probability of bone, its sacral share) from sums (..., 3) of pixels, body and sacrum."""
    bone = sums[..., 1] + sums[..., 2]
    return bone / np.maximum(sums[..., 0], 1), sums[..., 2] / np.maximum(bone, 1e-6)


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
