"""The maps of one quantity at one level, of all subjects in atlas space; their changes, and the means of regions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processing.cohort.design import DesignError, FloatArray
from processing.cohort.lattice import BoolArray
from processing.results import Level, Region

#: Region labels of an atlas, as processing.atlas has them.
_LABELS = {Region.NUCLEUS: 1, Region.ANTERIOR_ANNULUS: 2, Region.POSTERIOR_ANNULUS: 3}


@dataclass(frozen=True, slots=True, eq=False)
class LevelMaps:
    """One quantity at one level, of all subjects in atlas space.

    ``regions`` (slices, rows, columns): 0 outside, else the label of the region. ``values`` (subjects, voxels), the
    voxels in the order of ``regions > 0``, ms; NaN where a subject has no value. ``units``: one for each row.
    """

    level: Level
    quantity: str
    regions: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    values: FloatArray
    units: tuple[str, ...]

    @property
    def mask(self) -> BoolArray:
        """Where the voxels lie."""
        return self.regions > 0

    @property
    def region_of_voxel(self) -> npt.NDArray[np.uint8]:
        """The label of each voxel."""
        return self.regions[self.mask]

    def of(self, units: tuple[str, ...]) -> "LevelMaps":
        """The maps of some subjects, in their order.

        Raises:
            DesignError: one of them has no map.
        """
        places = {unit: row for row, unit in enumerate(self.units)}
        missing = [unit for unit in units if unit not in places]
        if missing:
            raise DesignError(f"{self.level.name} {self.quantity}: no map of {', '.join(missing)}")
        rows = [places[unit] for unit in units]
        return LevelMaps(self.level, self.quantity, self.regions, self.spacing_mm, self.values[rows], units)


def changes(baseline: LevelMaps, later: LevelMaps) -> LevelMaps:
    """Later minus baseline of the subjects that have both: one independent unit for each subject."""
    units = tuple(unit for unit in baseline.units if unit in set(later.units))
    first, second = baseline.of(units), later.of(units)
    return LevelMaps(
        first.level,
        f"change of {first.quantity}",
        first.regions,
        first.spacing_mm,
        second.values - first.values,
        units,
    )


def region_means(maps: LevelMaps) -> FloatArray:
    """(subjects, regions): mean over the voxels that have a value, in the order of :class:`Region`; NaN where none."""
    region = maps.region_of_voxel
    columns = []
    for one in Region:
        inside = np.ones(len(region), bool) if one is Region.WHOLE_DISC else region == _LABELS[one]
        part = maps.values[:, inside]
        count = np.isfinite(part).sum(axis=1)
        total = np.nansum(part, axis=1)
        columns.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return np.column_stack(columns)
