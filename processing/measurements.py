"""Maps and regions to numbers per disc: the whole disc in the patient's space, its parts in atlas space."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from processing.atlas import ANTERIOR_ANNULUS, NUCLEUS, POSTERIOR_ANNULUS
from processing.fitting import FitStatus
from processing.members import member_spread_ms
from processing.results import (
    LUMBAR_LEVELS,
    DiscMask,
    DiscMeasurement,
    LabelArray,
    Level,
    Quantity,
    Region,
    RegisteredDisc,
    RelaxationMap,
)

#: Labels of the parts in ``AtlasDisc.regions``.
ATLAS_REGIONS = {
    Region.NUCLEUS: NUCLEUS,
    Region.ANTERIOR_ANNULUS: ANTERIOR_ANNULUS,
    Region.POSTERIOR_ANNULUS: POSTERIOR_ANNULUS,
}


def measure(
    mask: DiscMask, maps: Mapping[Quantity, RelaxationMap], registered: Sequence[RegisteredDisc]
) -> tuple[DiscMeasurement, ...]:
    """All numbers of an exam, level by level from below.

    The whole disc is measured on the native map, untouched by registration. Nucleus and annulus are measured on the map
    fitted in atlas space, so a disc that was not registered has no parts.

    Args:
        mask: the named discs.
        maps: native maps, fitted at least in :func:`processing.members.fit_region` of ``mask``: where members of an
            ensemble see a disc beyond the mask, the spread of their means is measured, too.
        registered: the discs in atlas space.

    Raises:
        ValueError: a map was not fitted where a member sees a disc.
    """
    by_level = {disc.alignment.level: disc for disc in registered}
    rows = []
    for level in measured_levels(mask):
        own = mask.levels == level.value
        rows += [
            _with_spread(_numbers(level, Region.WHOLE_DISC, one, own), one, mask.member_levels) for one in maps.values()
        ]
        if level in by_level:
            disc = by_level[level]
            for region, label in ATLAS_REGIONS.items():
                part = disc.atlas.regions == label
                rows += [_numbers(level, region, one, part) for one in disc.maps.values()]
    return tuple(rows)


def volumes_mm3(mask: DiscMask) -> dict[Level, float]:
    """Volume of each measured disc in the patient's space."""
    voxel_mm3 = abs(float(np.linalg.det(mask.affine[:3, :3])))
    return {level: int((mask.levels == level.value).sum()) * voxel_mm3 for level in measured_levels(mask)}


def measured_levels(mask: DiscMask) -> tuple[Level, ...]:
    """The levels that are found and measured; T12L1 is found for its name only."""
    return tuple(level for level in mask.found if level in LUMBAR_LEVELS)


def _with_spread(row: DiscMeasurement, one: RelaxationMap, member_levels: LabelArray | None) -> DiscMeasurement:
    if member_levels is None:
        return row
    spread_ms, n_members = member_spread_ms(one, member_levels, row.level)
    return replace(row, member_sd_ms=spread_ms, n_members=n_members)


def _numbers(level: Level, region: Region, one: RelaxationMap, part: npt.NDArray[np.bool_]) -> DiscMeasurement:
    """Mean, SD (n - 1) and median over the fitted voxels of ``part``; NaN where too few voxels were fitted."""
    status = one.status[part]
    values = one.time_ms[part][status == FitStatus.FITTED].astype(np.float64)
    counts = np.bincount(status, minlength=len(FitStatus))
    excluded = {reason.name: int(counts[reason]) for reason in FitStatus if counts[reason]}
    excluded.pop(FitStatus.FITTED.name, None)
    return DiscMeasurement(
        level=level,
        region=region,
        quantity=one.quantity,
        mean_ms=float(values.mean()) if len(values) else float("nan"),
        sd_ms=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        median_ms=float(np.median(values)) if len(values) else float("nan"),
        n=len(values),
        n_excluded=len(status) - len(values),
        excluded=excluded,
    )
