"""What may differ between the visits of a simulated subject: tissue that changed, the time of day, the scanner.

The anatomy stays that of the subject; only times and the scale of the signal move, so that the truth of a visit is as
exact as that of the first. Diurnal: the nucleus gives off water during the day, T2 falls by 13 to 17 ms from morning to
evening while that of the posterior annulus rises by 6 ms (Zhu, Korean J Radiol 2015;16:139).
"""

import math
from dataclasses import dataclass, replace

from processing.phantom_anatomy import Disc, LumbarAnatomy, annulus_ratio
from processing.phantom_local_change import LocalChange

_SLOWER_SHARE = 1.04  # T1rho of a tissue is at least so much longer than its T2


@dataclass(frozen=True, slots=True)
class VisitChange:
    """How a visit differs from the subject as it was drawn. The usual values change nothing.

    Args:
        level: the disc whose nucleus changed, 1 (L5S1) to 5 (L1L2), 0 for none.
        nucleus_factor: T1rho and T2 of that nucleus are so many times what they were.
        nucleus_shift_ms: and so many ms longer: T1rho, T2.
        diurnal_ms: added to T1rho and T2 of the nuclei of all discs.
        diurnal_annulus_ms: added to T1rho and T2 of the posterior annulus of all discs.
        time_factor: the scanner shows all times of discs so many times too long.
        gain: the scanner's signal is so many times stronger; no time depends on it.
        fused_level: the disc was operated on: bone is where it was; 0 for none.
        annulus_grade: the annulus of every disc is as that of this Pfirrmann grade: the disc's own grade shows in the
            nucleus alone; 0 leaves it.
        local: changes of parts of discs; added last, as they are.

    Raises:
        ValueError: no such level or grade, or a factor that is not above 0.
    """

    level: int = 0
    nucleus_factor: tuple[float, float] = (1.0, 1.0)
    nucleus_shift_ms: tuple[float, float] = (0.0, 0.0)
    diurnal_ms: tuple[float, float] = (0.0, 0.0)
    diurnal_annulus_ms: tuple[float, float] = (0.0, 0.0)
    time_factor: float = 1.0
    gain: float = 1.0
    fused_level: int = 0
    annulus_grade: int = 0
    local: tuple[LocalChange, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 0 <= self.level <= 5 or not 0 <= self.fused_level <= 5:
            raise ValueError("level and fused_level name a level, 1 (L5S1) to 5 (L1L2), or 0 for none")
        if not 0 <= self.annulus_grade <= 5:
            raise ValueError("annulus_grade is a Pfirrmann grade, 1 to 5, or 0 for each disc's own")
        factors = (*self.nucleus_factor, self.time_factor, self.gain)
        if not all(math.isfinite(one) and one > 0 for one in factors):
            raise ValueError("nucleus_factor, time_factor and gain are factors: above 0")


#: As the subject was drawn.
UNCHANGED = VisitChange()


def at_visit(anatomy: LumbarAnatomy, change: VisitChange) -> LumbarAnatomy:
    """The subject as it is, and as the scanner shows it, at a visit; the same object where nothing changed.

    Raises:
        ValueError: a time would not be positive.
    """
    if change == replace(UNCHANGED, gain=change.gain):
        return anatomy
    return replace(anatomy, discs=tuple(_disc_at(disc, change) for disc in anatomy.discs))


def _disc_at(disc: Disc, change: VisitChange) -> Disc:
    nucleus = tuple(one + more for one, more in zip(disc.nucleus_ms, change.diurnal_ms, strict=True))
    if disc.level == change.level:
        changes = zip(nucleus, change.nucleus_factor, change.nucleus_shift_ms, strict=True)
        nucleus = tuple(one * factor + shift for one, factor, shift in changes)
    ratio = annulus_ratio(disc.grade, change.annulus_grade) if change.annulus_grade else (1.0, 1.0)
    front = tuple(one * factor for one, factor in zip(disc.anterior_annulus_ms, ratio, strict=True))
    behind = tuple(
        one * factor + more
        for one, factor, more in zip(disc.posterior_annulus_ms, ratio, change.diurnal_annulus_ms, strict=True)
    )
    changed = replace(
        disc,
        nucleus_ms=_physical(disc, nucleus, change),
        anterior_annulus_ms=_physical(disc, front, change),
        posterior_annulus_ms=_physical(disc, behind, change),
        is_bone=disc.is_bone or disc.level == change.fused_level,
        local_changes=tuple(one for one in change.local if one.level == disc.level),
    )
    tissues = (changed.nucleus_ms, changed.anterior_annulus_ms, changed.posterior_annulus_ms)
    for one in changed.local_changes:
        if not all(one.leaves_positive(times_ms, _SLOWER_SHARE) for times_ms in tissues):
            raise ValueError(f"the local change leaves level {disc.level} no T2 above 0, or a T1rho below its T2")
    return changed


def _physical(disc: Disc, times_ms: tuple[float, ...], change: VisitChange) -> tuple[float, float]:
    t1rho_ms, t2_ms = (one * change.time_factor for one in times_ms)
    if not t2_ms > 0:
        raise ValueError(f"the change leaves level {disc.level} a T2 of {t2_ms:.1f} ms")
    return max(t1rho_ms, _SLOWER_SHARE * t2_ms), t2_ms
