"""What a subject's discs are at each visit, over the voxels of atlas space that have a value at all of them.

A voxel whose fit fails at one visit and not at another would otherwise change a mean by itself: with voxels that leave
the range of what can be measured, a true rise hides itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from processing.measurements import ATLAS_REGIONS
from processing.results import LUMBAR_LEVELS, FloatArray, LabelArray, Level, Quantity, Region
from processing.visits import NO_SCAN, Cell, Observation

_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class AtlasDiscMaps:
    """One disc of one exam in atlas space, on the box around its atlas disc: the same box in all exams of an atlas.

    ``regions`` (slices, rows, columns) uint8 as in :class:`processing.results.AtlasDisc`. ``times_ms`` and
    ``standard_errors_ms``: float32 of the same shape, NaN where there is no value. ``spacing_mm`` of the box.
    """

    level: Level
    regions: LabelArray
    spacing_mm: tuple[float, float, float]
    times_ms: Mapping[Quantity, FloatArray]
    standard_errors_ms: Mapping[Quantity, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class VisitMaps:
    """The discs of a visit; none, with the ``reason``, of one without scan (NO_SCAN) or whose numbers do not count.

    ``atlas``: SHA-256 of the atlas, for maps in different ones are not the same voxels.
    """

    visit: str
    day: int
    discs: Mapping[Level, AtlasDiscMaps] = field(default_factory=dict)
    atlas: str = ""
    reason: str = ""


def observe(
    visits: Sequence[VisitMaps],
    *,
    common: bool = True,
    left_out: Collection[str] = (),
    max_excluded_share: float = 0.5,
    baseline: str = "",
) -> dict[Cell, tuple[Observation, ...]]:
    """The mean of every cell at every visit, in the order of the visits.

    Args:
        visits: in any order.
        common: over the voxels that have a value at all visits; otherwise over those of each visit.
        left_out: names of visits that are not compared: their voxels are their own and take none from the others.
        max_excluded_share: a disc with more voxels without a value takes none from the others, either.
        baseline: the visit whose atlas counts; where it has no map of a cell, the first that has one.
    """
    ordered = sorted(visits, key=lambda one: one.visit != baseline)
    cells = [
        Cell(level, region, quantity)
        for level in LUMBAR_LEVELS
        for region in Region
        for quantity in Quantity
        if any(level in one.discs and quantity in one.discs[level].times_ms for one in visits)
    ]
    atlases = {cell: next(one.atlas for one in ordered if _has(one, cell)) for cell in cells}
    return {cell: _observe_cell(cell, visits, atlases[cell], common, left_out, max_excluded_share) for cell in cells}


def _observe_cell(
    cell: Cell,
    visits: Sequence[VisitMaps],
    atlas: str,
    common: bool,
    left_out: Collection[str],
    max_excluded_share: float,
) -> tuple[Observation, ...]:
    shared: _BoolArray | None = None
    for one in visits:
        if common and one.visit not in left_out and one.atlas == atlas and _has(one, cell):
            part, valued = _voxels(one, cell)
            if part.any() and valued.sum() >= (1 - max_excluded_share) * part.sum():
                shared = valued if shared is None else shared & valued
    found = []
    for one in visits:
        if not _has(one, cell) or one.atlas != atlas:
            found.append(Observation(one.visit, one.day, None, reason=_why_none(one, cell, atlas)))
            continue
        part, valued = _voxels(one, cell)
        is_own = one.visit in left_out or valued.sum() < (1 - max_excluded_share) * part.sum()
        found.append(_observation(one, cell, part, valued if shared is None or is_own else shared))
    return tuple(found)


def _has(one: VisitMaps, cell: Cell) -> bool:
    return cell.level in one.discs and cell.quantity in one.discs[cell.level].times_ms


def _voxels(one: VisitMaps, cell: Cell) -> tuple[_BoolArray, _BoolArray]:
    """The voxels of the cell's region that the visit has imaged, and those of them that have a value.

    A slice of the atlas without any value in the disc lies beside the visit's slices: a thin slab is not a failed fit.
    """
    disc = one.discs[cell.level]
    valued = np.isfinite(disc.times_ms[cell.quantity])
    imaged = valued.any(axis=(1, 2), keepdims=True)
    part = disc.regions > 0 if cell.region is Region.WHOLE_DISC else disc.regions == ATLAS_REGIONS[cell.region]
    return part & imaged, part & valued


def _why_none(one: VisitMaps, cell: Cell, atlas: str) -> str:
    if one.reason or not one.discs:
        return one.reason or NO_SCAN
    if cell.level not in one.discs:
        return "the disc was not found, or not registered"
    if cell.quantity not in one.discs[cell.level].times_ms:
        return f"{cell.quantity} was not measured"
    return f"measured in another atlas ({one.atlas[:12]}, not {atlas[:12]})"


def _observation(one: VisitMaps, cell: Cell, part: _BoolArray, used: _BoolArray) -> Observation:
    values = one.discs[cell.level].times_ms[cell.quantity][used].astype(np.float64)
    n_excluded = int(part.sum()) - len(values)
    if not len(values):
        return Observation(one.visit, one.day, None, n_excluded=n_excluded, reason="no voxel has a value at all visits")
    sd_ms = float(values.std(ddof=1)) if len(values) > 1 else None
    return Observation(one.visit, one.day, float(values.mean()), sd_ms, len(values), n_excluded)


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceMap:
    """Follow-up less baseline of one disc in atlas space; float32, NaN where either has no value.

    ``z``: the difference in units of its SD by the standard errors of both fits; without change it is about standard
    normal for noise alone. Registration and segmentation add to that, so it is a picture and no test.
    """

    level: Level
    quantity: Quantity
    difference_ms: FloatArray
    z: FloatArray


def difference_map(before: AtlasDiscMaps, after: AtlasDiscMaps, quantity: Quantity) -> DifferenceMap:
    """The difference of two visits voxel by voxel: z = difference / sqrt(SE_before² + SE_after²).

    Raises:
        ValueError: they are not the same disc in the same atlas.
        KeyError: one has no map of the quantity.
    """
    if before.level is not after.level or not np.array_equal(before.regions, after.regions):
        raise ValueError("not the same disc of the same atlas")
    difference = after.times_ms[quantity] - before.times_ms[quantity]
    error = np.hypot(before.standard_errors_ms[quantity], after.standard_errors_ms[quantity])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(error > 0, difference / error, np.nan)
    return DifferenceMap(before.level, quantity, difference.astype(np.float32), z.astype(np.float32))


def differences_from(
    baseline: VisitMaps, visits: Sequence[VisitMaps], quantity: Quantity
) -> dict[tuple[str, Level], DifferenceMap]:
    """The difference map of each disc at each visit but the baseline, by visit and level.

    Discs that either lacks, and visits measured in another atlas, have none.
    """
    return {
        (one.visit, level): difference_map(baseline.discs[level], disc, quantity)
        for one in visits
        if one.visit != baseline.visit and one.atlas == baseline.atlas
        for level, disc in one.discs.items()
        if level in baseline.discs and quantity in disc.times_ms and quantity in baseline.discs[level].times_ms
    }
