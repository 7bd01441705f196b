"""The simulated people of the cohorts A and B: spines, what is known of each, and what was planted in their discs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.phantom import VisitChange, anatomy_of
from processing.results import LUMBAR_LEVELS
from service.cohort.reproduction.effects import ANNULUS_GRADE, ODI_LEVEL, odi_change
from service.cohort.reproduction.records import Cohort
from service.trials.simulation.subjects import generator

BASELINE, FOLLOW_UP = "BL", "M12"
FEWEST = 9

_SHARE_WITH_PAIN = 10 / 16  # of A; all of B are patients
_SHARE_SEVERE = 6 / 15  # of B: an ODI above 40
_FOLLOWED = 4  # of B
_CANDIDATES, _DRAWS = 240, 4000
_LARGEST_CORRELATION = 0.2  # of the ODI with the grade where it acts, age, sex, BMI
_MODIFIED = {1: (1,), 2: (2, 3), 3: (4, 5), 4: (6,), 5: (7, 8)}  # of eight grades, by those of five

_Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CohortSubject:
    """One person: ``seed`` and ``spine`` give the spine. ``grades``: Pfirrmann, L5S1 .. L1L2; of eight in B.

    ``muscle_fat``: share of fat in the muscle beside each level. ``later``: the same person at the follow-up.
    """

    cohort: Cohort
    name: str
    seed: int
    spine: str
    grades: tuple[int, ...]
    age: int
    female: bool
    bmi: float
    height_cm: int
    has_pain: bool
    odi: int
    sf36_physical: int
    sf36_mental: int
    muscle_fat: tuple[float, ...]
    vas_mean: float
    vas_max: float
    ipaq: int
    visit: str = BASELINE
    nucleus_factor: float = 1.0
    later: "CohortSubject | None" = None

    @property
    def change(self) -> VisitChange:
        """How the images differ from the spine as it is drawn: what was planted, and what a year did."""
        level = int(ODI_LEVEL) if self.nucleus_factor != 1 else 0
        factors = (self.nucleus_factor, self.nucleus_factor)
        local = (odi_change(self.cohort, self.odi),)
        return VisitChange(level=level, nucleus_factor=factors, annulus_grade=ANNULUS_GRADE, local=local)

    @property
    def values(self) -> dict[str, str]:
        """The columns of the cohort's table."""
        row: dict[str, Any] = {
            "age": self.age,
            "female": int(self.female),
            "bmi": f"{self.bmi:.1f}",
            "height_cm": self.height_cm,
            "lbp": int(self.has_pain),
            "odi": self.odi,
            "sf36_physical": self.sf36_physical,
            "sf36_mental": self.sf36_mental,
        }
        if self.cohort is Cohort.B:
            row |= {"vas_mean": f"{self.vas_mean:.1f}", "vas_max": f"{self.vas_max:.1f}", "ipaq": self.ipaq}
            row |= {f"fat_{one.name}": f"{fat:.3f}" for one, fat in zip(LUMBAR_LEVELS, self.muscle_fat, strict=True)}
        row |= {f"grade_{one.name}": grade for one, grade in zip(LUMBAR_LEVELS, self.grades, strict=True)}
        return {name: str(value) for name, value in row.items()}


def draw_cohort(cohort: Cohort, n: int, seed: int) -> tuple[CohortSubject, ...]:
    """The people of a cohort; a smaller one is not the beginning of a larger one.

    Spines are chosen so that the grades of each level are spread, and the ODI is dealt out so that it goes neither with
    the grade of the disc where it acts nor with age, sex or BMI: what was planted can be told from what was not. Of all
    other variables and levels the ODI is independent.

    Raises:
        ValueError: fewer people than the adjusted analyses need.
    """
    if n < FEWEST:
        raise ValueError(f"{n} people in cohort {cohort}: at least {FEWEST} are needed for five covariates")
    rng = generator("cohort", cohort, n, seed)
    spines, grades = _choose_spines(rng, cohort, n, seed)
    age = np.clip(np.rint(26 + 6 * grades.mean(axis=1) + rng.normal(0, 9, n)), 19, 74).astype(int)
    female = rng.permutation(np.arange(n) % 2 == 0)
    bmi = np.clip(rng.normal(24.5, 3.0, n), 18.0, 36.0)
    height = np.rint(np.where(female, 165, 178) + rng.normal(0, 6, n)).astype(int)
    in_second, odi = _scores(rng, cohort, n)
    known = np.column_stack([grades[:, ODI_LEVEL - 1], age, female, bmi])
    order = _dealt(rng, odi, known)
    odi, in_second = odi[order], in_second[order]
    has_pain = in_second if cohort is Cohort.A else np.ones(n, bool)
    shown = grades if cohort is Cohort.A else _modified(rng, grades)
    people = [
        CohortSubject(
            cohort=cohort,
            name=f"{cohort}{i + 1:02d}",
            seed=seed,
            spine=spines[i][0],
            grades=tuple(int(one) for one in shown[i]),
            age=int(age[i]),
            female=bool(female[i]),
            bmi=float(bmi[i]),
            height_cm=int(height[i]),
            has_pain=bool(has_pain[i]),
            odi=int(odi[i]),
            sf36_physical=int(np.clip(rng.normal(56 - 0.35 * odi[i], 5), 15, 65)),
            sf36_mental=int(np.clip(rng.normal(52, 8), 15, 70)),
            muscle_fat=tuple(_muscle_fat(rng, spines[i][1])),
            vas_mean=float(np.clip(rng.normal(1 + 0.07 * odi[i], 0.8), 0, 10)),
            vas_max=float(np.clip(rng.normal(3 + 0.07 * odi[i], 1.0), 0, 10)),
            ipaq=int(np.clip(rng.lognormal(7.6, 0.6), 200, 9000)),
        )
        for i in range(n)
    ]
    if cohort is Cohort.B:
        chosen = rng.permutation(n)[: min(_FOLLOWED, n // 3)]
        people = [replace(one, later=_a_year_later(rng, one)) if i in chosen else one for i, one in enumerate(people)]
    return tuple(people)


def _choose_spines(
    rng: np.random.Generator, cohort: Cohort, n: int, seed: int
) -> tuple[list[tuple[str, float]], npt.NDArray[np.int64]]:
    """Names of spines with their muscle fat, and their grades (people, levels): spread at each level."""
    names, fats, found = [], [], []
    for attempt in range(_CANDIDATES):
        name = f"{cohort}{attempt:03d}"
        anatomy = anatomy_of(seed, name)
        if anatomy.grades[ODI_LEVEL - 1] < 5:  # a collapsed disc has no room for a local change
            names.append(name)
            fats.append(anatomy.muscle_fat)
            found.append(anatomy.grades)
    grades = np.array(found)
    chosen = _best(rng, _DRAWS, lambda: rng.permutation(len(names))[:n], lambda rows: -_least_spread(grades[rows]))
    return [(names[row], fats[row]) for row in chosen], grades[chosen]


def _least_spread(grades: npt.NDArray[np.int64]) -> float:
    return float(grades.std(axis=0).min())


def _scores(rng: np.random.Generator, cohort: Cohort, n: int) -> tuple[npt.NDArray[np.bool_], _Float]:
    """ODI of each person, in two groups: A without and with pain, B up to 40 and above."""
    n_second = round(n * (_SHARE_WITH_PAIN if cohort is Cohort.A else _SHARE_SEVERE))
    first, second = ((0, 14), (12, 66)) if cohort is Cohort.A else ((4, 36), (46, 78))
    odi = np.concatenate([np.linspace(*first, n - n_second), np.linspace(*second, n_second)])
    odi = np.clip(2 * np.rint((odi + rng.uniform(-2, 2, n)) / 2), 0, 100)  # the score has even percentages
    return np.arange(n) >= n - n_second, odi


def _dealt(rng: np.random.Generator, odi: _Float, known: _Float) -> npt.NDArray[np.int64]:
    """An order of the scores that goes with nothing that is known."""

    def largest(order: npt.NDArray[np.int64]) -> float:
        with np.errstate(invalid="ignore"):
            together = np.corrcoef(np.column_stack([odi[order], known]), rowvar=False)[0, 1:]
        return max(float(np.nanmax(np.abs(together))), _LARGEST_CORRELATION)

    return _best(rng, _DRAWS, lambda: rng.permutation(len(odi)), largest)


def _best(
    rng: np.random.Generator,
    draws: int,
    draw: Callable[[], npt.NDArray[np.int64]],
    cost: Callable[[npt.NDArray[np.int64]], float],
) -> npt.NDArray[np.int64]:
    """The cheapest of many draws; the first where several are."""
    return min((draw() for _ in range(draws)), key=cost)


def _modified(rng: np.random.Generator, grades: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The modified Pfirrmann grades (1 to 8) of discs of the grades 1 to 5."""
    return np.array([[int(rng.choice(_MODIFIED[int(one)])) for one in row] for row in grades])


def _muscle_fat(rng: np.random.Generator, of_subject: float) -> Sequence[float]:
    """Share of fat by level, more of it below."""
    usual = of_subject - 0.03 * np.arange(len(LUMBAR_LEVELS)) + rng.normal(0, 0.02, len(LUMBAR_LEVELS))
    return [float(one) for one in np.clip(usual, 0.01, 0.9)]


def _a_year_later(rng: np.random.Generator, one: CohortSubject) -> CohortSubject:
    """A little worse or better: the ODI, and the nucleus of the disc where it acts."""
    odi = int(np.clip(one.odi + 2 * rng.integers(-6, 7), 0, 100))
    factor = float(1 - rng.uniform(0.02, 0.06))
    vas = float(np.clip(one.vas_mean + rng.normal(0, 0.6), 0, 10))
    return replace(one, visit=FOLLOW_UP, age=one.age + 1, odi=odi, vas_mean=vas, nucleus_factor=factor)
