"""Who takes part in a simulated trial: spines that meet its criteria, and what the treatment does to one disc."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from processing.phantom import LumbarAnatomy, Variant, VisitChange, anatomy_of
from processing.phantom_variants import USUAL
from processing.results import Level

SITES = ("01", "02")

#: Share of nucleus in the voxels that count as nucleus, on average: the change of the region is that much smaller.
NUCLEUS_SHARE = 0.82

#: L5 is part of the sacrum, so that counting from below names every disc one level too low.
SACRALISED = Variant(missing_disc=1)

_FIRST_BASELINE = datetime(2024, 1, 8, 9, 0)
_BETWEEN_SUBJECTS = timedelta(days=4)
_TREATED = (Level.L4L5, Level.L5S1, Level.L3L4)  # in the order in which a level with the wanted grade is sought
_EFFECTS = (1, 1, 0, 0, -1)  # by subject, again and again


@dataclass(frozen=True, slots=True)
class SimulatedSubject:
    """One person. ``effect``: log of the nucleus region's times after treatment over before, at ``treated``.

    ``phantom``: name under which the spine is drawn. ``baseline_at``: clock of the scanner at the first visit.
    """

    subject_id: str
    site_id: str
    patient_id: str
    birth_date: date
    sex: str
    phantom: str
    treated: Level
    effect: float
    baseline_at: datetime
    variant: Variant = USUAL

    def anatomy(self, seed: int) -> LumbarAnatomy:
        """The spine, as drawn."""
        return anatomy_of(seed, self.phantom, variant=self.variant)

    def treatment(self, seed: int) -> VisitChange:
        """What the treatment does to the nucleus so that the nucleus region changes by ``effect``."""
        if self.effect == 0:
            return VisitChange()
        disc = self.anatomy(seed).discs[self.treated - 1]
        pairs = zip(disc.nucleus_ms, disc.anterior_annulus_ms, strict=True)
        factors = tuple(_factor_of_nucleus(nucleus, annulus, self.effect) for nucleus, annulus in pairs)
        return VisitChange(level=int(self.treated), nucleus_factor=(factors[0], factors[1]))


def generator(*what: object) -> np.random.Generator:
    """A generator that depends on all of ``what`` and on nothing else."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in what).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def draw_subject(number: int, seed: int, effect: float, *, is_transitional: bool = False) -> SimulatedSubject:
    """A subject of a trial, who does not depend on how many there are.

    Args:
        number: from 1.
        seed: of the trial.
        effect: log of the ratio by which a treatment that works changes the nucleus region, above 0.
        is_transitional: L5 is fused with the sacrum: the lowest disc in view is L4L5. Such a subject is not treated.
    """
    site_id = SITES[(number - 1) % len(SITES)]
    subject_id = f"{site_id}-{number:03d}"
    chance = generator("trial subject", seed, number)
    variant = SACRALISED if is_transitional else USUAL
    phantom, treated = next(_eligible(subject_id, seed, variant))
    return SimulatedSubject(
        subject_id=subject_id,
        site_id=site_id,
        patient_id=f"SIM{seed:02d}P{int(chance.integers(10_000, 99_999))}{number:03d}",
        birth_date=date(1960, 1, 1) + timedelta(days=int(chance.integers(0, 25 * 365))),
        sex="MF"[int(chance.integers(0, 2))],
        phantom=phantom,
        treated=treated,
        effect=0.0 if is_transitional else effect * _EFFECTS[(number - 1) % len(_EFFECTS)],
        baseline_at=_FIRST_BASELINE
        + (number - 1) * _BETWEEN_SUBJECTS
        + timedelta(minutes=int(chance.integers(-30, 60))),
        variant=variant,
    )


def _eligible(subject_id: str, seed: int, variant: Variant) -> Iterator[tuple[str, Level]]:
    """Spines that the trial takes: a degenerated disc to treat (grade 3 or 4), and none collapsed (grade 5)."""
    for attempt in range(1000):
        name = f"{subject_id}/{attempt}"
        grades = anatomy_of(seed, name, variant=variant).grades
        if max(grades) > 4:
            continue
        for wanted in (3, 4):
            for level in _TREATED:
                if grades[level - 1] == wanted and level != variant.missing_disc:
                    yield name, level
    raise ValueError(f"no spine of the seed {seed} meets the criteria for {subject_id}")


def _factor_of_nucleus(nucleus_ms: float, annulus_ms: float, effect: float) -> float:
    region_ms = NUCLEUS_SHARE * nucleus_ms + (1 - NUCLEUS_SHARE) * annulus_ms
    wanted_ms = region_ms * math.exp(effect) - (1 - NUCLEUS_SHARE) * annulus_ms
    return wanted_ms / (NUCLEUS_SHARE * nucleus_ms)
