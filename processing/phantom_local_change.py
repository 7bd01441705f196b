"""A change of a part of one simulated disc that is smaller than any of its regions: what averages wash out.

Where it lies is said in fractions of the disc, so that the same change lies at the same place in discs of any size and
shape, and in the atlas disc that :mod:`processing.atlas_anatomy` builds of the same model.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SOFTNESS = 0.1  # of the radius: how gradually the change ends
_TEXTURE = 0.06  # the fine texture takes away so much of a time at most

_Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LocalChange:
    """Times that are longer or shorter in an ellipsoid of one disc.

    Args:
        level: of the disc, 1 (L5S1) to 5 (L1L2).
        centre: (behind, left, above) the centre of the disc: of its half depth, half width, and half height there.
        radius: in the same fractions; half of the change is left at its surface.
        t1rho_ms: added to T1rho at the centre.
        t2_ms: added to T2.

    Raises:
        ValueError: no such level, or a radius that is not above 0.
    """

    level: int
    centre: tuple[float, float, float]
    radius: tuple[float, float, float]
    t1rho_ms: float
    t2_ms: float

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 1 <= self.level <= 5:
            raise ValueError("level names a level, 1 (L5S1) to 5 (L1L2)")
        if not all(math.isfinite(one) and one > 0 for one in self.radius):
            raise ValueError("radius: fractions above 0")

    def share(self, behind: _Float, left: _Float, above: _Float) -> _Float:
        """How much of the change there is at points of the disc, 0..1; 0.5 at the surface of the ellipsoid."""
        places = zip((behind, left, above), self.centre, self.radius, strict=True)
        distance: _Float = np.sqrt(sum(((at - np.float32(c)) / np.float32(r)) ** 2 for at, c, r in places))
        share: _Float = np.reciprocal(1 + np.exp((distance - 1) / np.float32(_SOFTNESS)))
        return share

    def leaves_positive(self, times_ms: tuple[float, float], slower_share: float) -> bool:
        """Whether a tissue with these times (T1rho, T2) keeps a T2 above 0 and a T1rho that is the longer one."""
        t1rho_ms, t2_ms = ((1 - _TEXTURE) * one for one in times_ms)
        return t2_ms + self.t2_ms > 0 and t1rho_ms + self.t1rho_ms >= slower_share * (t2_ms + self.t2_ms)
