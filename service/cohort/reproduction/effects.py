"""What is planted in the discs of the simulated cohorts, and where it lies on the atlas.

* **Grade**, in the nucleus of every level: T1rho and T2 of the simulated nucleus fall with the Pfirrmann grade, as
  published; the annulus of every disc is made that of grade 2, whatever its own.
* **ODI**, at one level in an ellipsoid about the back of the nucleus and the posterior annulus: times fall with the ODI
  in cohort A, and rise with it in B. All other discs, and all other variables, have nothing of it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from processing.atlas_anatomy import share_of_change, share_of_nucleus
from processing.phantom import LocalChange
from processing.results import LUMBAR_LEVELS, Level, Quantity
from service.cohort.reproduction.records import Cohort

ANNULUS_GRADE = 2
ODI_LEVEL = Level.L4L5

#: Behind, left of and above the centre, in half depths, half widths and half heights of the disc.
ODI_CENTRE, ODI_RADIUS = (0.74, 0.0, 0.0), (0.24, 0.70, 0.75)

#: Milliseconds for each point of the ODI.
ODI_T1RHO_MS = {Cohort.A: -1.2, Cohort.B: 1.2}
ODI_T2_MS = {Cohort.A: -0.8, Cohort.B: 0.8}
_NEUTRAL_ODI = {Cohort.A: 70.0, Cohort.B: 0.0}

#: An atlas voxel belongs to an effect where at least so much of it is there, and has nothing of it below the other.
PLANTED_SHARE, TRACE_SHARE = 0.5, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """An effect of one variable at one level. ``share`` (slices, rows, columns) of the level's atlas disc: 0..1.

    ``sign`` of the association; ``told``: size in words.
    """

    cohort: Cohort
    variable: str
    level: Level
    quantity: Quantity
    share: npt.NDArray[np.float64]
    sign: int
    told: str


def odi_change(cohort: Cohort, odi: float) -> LocalChange:
    """What the ODI of a person does to the disc at :data:`ODI_LEVEL`."""
    beyond = odi - _NEUTRAL_ODI[cohort]
    t1rho_ms, t2_ms = ODI_T1RHO_MS[cohort] * beyond, ODI_T2_MS[cohort] * beyond
    return LocalChange(int(ODI_LEVEL), ODI_CENTRE, ODI_RADIUS, t1rho_ms, t2_ms)


def quantities_of(cohort: Cohort) -> tuple[Quantity, ...]:
    """What is measured in a cohort."""
    return (Quantity.T1RHO,) if cohort is Cohort.A else (Quantity.T1RHO, Quantity.T2)


@cache
def planted_effects(cohort: Cohort) -> tuple[Planted, ...]:
    """All that was planted in a cohort, on the atlas ``healthy``."""
    dimension = 2 if cohort is Cohort.A else 3
    effects = []
    where = share_of_change(odi_change(cohort, 0.0), dimension)
    for quantity in quantities_of(cohort):
        for level in LUMBAR_LEVELS:
            nucleus = share_of_nucleus(level, dimension)
            effects.append(Planted(cohort, "grade", level, quantity, nucleus, -1, "as published, by grade"))
        slope = (ODI_T1RHO_MS if quantity is Quantity.T1RHO else ODI_T2_MS)[cohort]
        told = f"{slope:+.1f} ms for each point"
        effects.append(Planted(cohort, "odi", ODI_LEVEL, quantity, where, 1 if slope > 0 else -1, told))
    return tuple(effects)
