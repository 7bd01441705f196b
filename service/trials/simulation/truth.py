"""What is true of a simulated scan: the mean times of each region of each disc."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from processing.phantom import LumbarAnatomy, PhantomExam
from processing.phantom_anatomy import Disc
from processing.phantom_visits import at_visit
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.spine_shape import DiscShape
from processing.visits import Cell
from service.trials.simulation.scenario import Scan
from service.trials.simulation.subjects import NUCLEUS_SHARE

_NUCLEUS_FROM = 0.5  # share of nucleus from which a voxel is one
_WHOLE_DISC_SHARE = 0.38  # of nucleus tissue in a whole disc, about


@dataclass(frozen=True, slots=True)
class TrueTimes:
    """``of_cell``: mean in ms; a disc that is not there has none. ``exact``: of the imaged voxels, not estimated."""

    of_cell: Mapping[Cell, float]
    exact: bool


def imaged_truth(exam: PhantomExam) -> TrueTimes:
    """Means over the voxels of each whole disc and of its nucleus, where at least half of a voxel is nucleus."""
    maps = {Quantity.T1RHO: exam.t1rho_ms, Quantity.T2: exam.t2_ms}
    found = {}
    for level in LUMBAR_LEVELS:
        disc = exam.labels == level.value
        parts = {Region.WHOLE_DISC: disc, Region.NUCLEUS: disc & (np.nan_to_num(exam.nucleus) >= _NUCLEUS_FROM)}
        for region, part in parts.items():
            for quantity, times_ms in maps.items():
                if part.any():
                    found[Cell(level, region, quantity)] = float(times_ms[part].mean(dtype=np.float64))
    return TrueTimes(found, exact=True)


def drawn_truth(scan: Scan, seed: int) -> TrueTimes:
    """About the same without images, and for all regions: from what the discs are made of."""
    anatomy = at_visit(scan.spine.anatomy(seed), scan.change)
    return TrueTimes({cell: ms for level in LUMBAR_LEVELS for cell, ms in _drawn(anatomy, level)}, exact=False)


def drawn_shapes(scan: Scan, seed: int) -> dict[Level, DiscShape]:
    """The shape of each disc that is there, in the frame of the body."""
    anatomy = at_visit(scan.spine.anatomy(seed), scan.change)
    return {
        level: DiscShape(0.85 * disc.height_mm, 2 * disc.half_depth_mm, disc.centre_mm)
        for level, disc in zip(LUMBAR_LEVELS, anatomy.discs, strict=False)
        if not disc.is_bone
    }


def _drawn(anatomy: LumbarAnatomy, level: Level) -> list[tuple[Cell, float]]:
    disc = anatomy.discs[level - 1]
    if disc.is_bone:
        return []
    return [
        (Cell(level, region, quantity), _mixed(disc, region, index))
        for index, quantity in enumerate((Quantity.T1RHO, Quantity.T2))
        for region in Region
    ]


def _mixed(disc: Disc, region: Region, index: int) -> float:
    front, behind, nucleus = disc.anterior_annulus_ms[index], disc.posterior_annulus_ms[index], disc.nucleus_ms[index]
    if region is Region.ANTERIOR_ANNULUS:
        return front
    if region is Region.POSTERIOR_ANNULUS:
        return behind
    share = NUCLEUS_SHARE if region is Region.NUCLEUS else _WHOLE_DISC_SHARE
    return share * nucleus + (1 - share) * (front + behind) / 2
