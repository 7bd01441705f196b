"""Do the limits of change hold what they promise? Simulated subjects at the level of numbers, thousands of each kind.

``python -m tests.benchmarks.change [--subjects 4000]``. A subject has five levels and four visits; what is counted are
verdicts of :func:`processing.change.assess_changes` on the nucleus' T2. Every line has a limit and an exact (Clopper-
Pearson) 95 % interval; exit status 1 where a limit is breached.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from config.trial_plans import ChangeRule
from processing.change import assess_changes
from processing.change_limits import (
    log_sd_of_cv,
    reference_change_values,
    smallest_detectable_change,
    upper_bound_factor,
)
from processing.precision import within_subject_sd
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Cell, ChangeTable, ChangeVerdict, Difference, Observation, Precision, PrecisionProfile

DAYS = {"BL": 0, "M3": 91, "M6": 182, "M12": 365}
LEVEL_MS = np.array([68.0, 75.0, 85.0, 95.0, 105.0])  # L5S1 to L1L2
CV, BETWEEN_CV, SD_MS = 0.05, 0.10, 4.0
TREATED = Level.L4L5
OTHER_SCANNER = (Difference("device_serial", "A", "B", False, True, "Scanner: A at the baseline, B here"),)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: ``hits`` of ``n``, and between which shares they must lie."""

    name: str
    hits: int
    n: int
    least: float
    most: float

    @property
    def holds(self) -> bool:
        return self.least <= self.hits / self.n <= self.most

    def __str__(self) -> str:
        low, high = proportion_confint(self.hits, self.n, method="beta")
        limit = f"{100 * self.least:.0f} to {100 * self.most:.0f} %" if self.least else f"<= {100 * self.most:.0f} %"
        limit = f">= {100 * self.least:.0f} %" if self.most == 1 and self.least else limit
        limit = "to compare" if (self.least, self.most) == (0, 1) else limit
        share = f"{100 * self.hits / self.n:6.2f} % ({100 * low:.2f} to {100 * high:.2f})"
        return f"{self.name:<74} {share:<27} {limit:<12} {'ok' if self.holds else 'BREACHED'}"


def profile(*, n_pairs: int | None = None, cv: float = CV, sd_ms: float | None = None) -> PrecisionProfile:
    """The precision that the subjects are simulated with, or another."""
    known = Precision(
        *(Quantity.T2, Region.NUCLEUS, log_sd_of_cv(cv), sd_ms, log_sd_of_cv(BETWEEN_CV), n_pairs),
        *("simulated", False),
    )
    return PrecisionProfile("simulated", "", (known,))


def measured(
    rng: np.random.Generator, truth: np.ndarray, *, sd_ms: float | None = None, offset_log: np.ndarray | float = 0.0
) -> np.ndarray:
    """Values of a truth with the error of one scan each: proportional, or of ``sd_ms``."""
    if sd_ms is not None:
        return truth + rng.normal(0, sd_ms, truth.shape)
    return truth * np.exp(offset_log + rng.normal(0, log_sd_of_cv(CV), truth.shape))


def tables(
    values: np.ndarray,
    *,
    rule: ChangeRule,
    precision: PrecisionProfile,
    differences: Mapping[str, Sequence[Difference]] | None = None,
    n_baseline: int = 1,
) -> Iterator[ChangeTable]:
    """What is judged of each subject.

    ``values`` (subjects, levels, scans): the first ``n_baseline`` scans are the baseline's.
    """
    visits = ["BL"] * n_baseline + list(DAYS)[1:]
    for subject in values:
        observations = {
            Cell(level, Region.NUCLEUS, Quantity.T2): [
                Observation(visit, DAYS[visit], float(value), n=100)
                for visit, value in zip(visits, subject[index], strict=True)
            ]
            for index, level in enumerate(LUMBAR_LEVELS)
        }
        yield assess_changes(
            observations,
            baseline="BL",
            differences=differences or {},
            precision=precision,
            rule=rule,
            primary={(Cell(TREATED, Region.NUCLEUS, Quantity.T2), "M12")},
            treated=TREATED,
        )


def primary(found: Iterable[ChangeTable]) -> list[ChangeVerdict]:
    """The verdict of each subject's one primary cell."""
    return [one.verdict for table in found for one in table.changes if one.is_primary]


def everywhere(found: Iterable[ChangeTable]) -> list[ChangeVerdict]:
    """The verdicts of all cells."""
    return [one.verdict for table in found for one in table.changes]


def count(verdicts: Sequence[ChangeVerdict], *wanted: ChangeVerdict) -> tuple[int, int]:
    return sum(one in wanted for one in verdicts), len(verdicts)


RCV, SDC = ChangeRule(upper_bound=False), ChangeRule(limit="sdc", upper_bound=False)
WITHIN, UP, DOWN = ChangeVerdict.WITHIN, ChangeVerdict.INCREASE, ChangeVerdict.DECREASE


def unchanged(rng: np.random.Generator, n: int) -> Iterator[Line]:
    """Nobody changes: 95 % lie within."""
    truth = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 4))
    found = list(tables(measured(rng, truth), rule=RCV, precision=profile()))
    yield Line("unchanged, RCV: all cells within", *count(everywhere(found), WITHIN), 0.94, 0.96)
    yield Line("unchanged, RCV: false 'changed' in primary cells", *count(primary(found), UP, DOWN), 0, 0.06)
    warned = sum(bool(table.warnings) for table in found)
    yield Line("unchanged: subjects with a warning 'all levels moved together' (3 visits)", warned, n, 0, 0.05)
    beyond = sum(control.verdict is not WITHIN for table in found for control in table.controls)
    yield Line("unchanged: treated less untreated beyond its limits", beyond, 3 * n, 0.04, 0.06)
    slopes = [one.verdict for table in found for one in table.slopes]
    yield Line("unchanged: slopes over four visits beyond their limits", *count(slopes, UP, DOWN), 0.04, 0.06)
    values = measured(rng, truth, sd_ms=SD_MS)
    found = list(tables(values, rule=SDC, precision=profile(sd_ms=SD_MS)))
    yield Line(
        "unchanged, SDC (error of 4 ms everywhere): all cells within", *count(everywhere(found), WITHIN), 0.94, 0.96
    )
    twice = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 5))
    found = list(tables(measured(rng, twice), rule=RCV, precision=profile(), n_baseline=2))
    yield Line("unchanged, RCV, two baseline scans: all cells within", *count(everywhere(found), WITHIN), 0.94, 0.96)


def another_scanner(rng: np.random.Generator, n: int) -> Iterator[Line]:
    """At M12 every subject is scanned elsewhere, by a scanner with an offset of its own for each disc."""
    truth = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 4))
    offset = np.zeros((n, 5, 4))
    sd = log_sd_of_cv(BETWEEN_CV)
    offset[..., :3], offset[..., 3] = rng.normal(0, sd, (n, 5, 1)), rng.normal(0, sd, (n, 5))
    values = measured(rng, truth, offset_log=offset)
    changed = {"M12": OTHER_SCANNER}
    found = list(tables(values, rule=RCV, precision=profile(), differences=changed))
    at_m12 = [one.verdict for table in found for one in table.changes if one.visit == "M12"]
    yield Line("another scanner at M12, reproducibility limits: cells within", *count(at_m12, WITHIN), 0.94, 0.96)
    slopes = [one.verdict for table in found for one in table.slopes]
    yield Line("another scanner at M12: slopes beyond their limits", *count(slopes, UP, DOWN), 0.04, 0.06)
    naive = primary(tables(values, rule=RCV, precision=profile()))
    yield Line("   the same judged as if it were the same scanner: false 'changed'", *count(naive, UP, DOWN), 0, 1)


def changed(rng: np.random.Generator, n: int) -> Iterator[Line]:
    """The treated level changes by twice its limit from M3 on."""
    low, high = reference_change_values(log_sd_of_cv(CV))
    for name, factor, expected in (
        ("rise", (1 + high) ** 2, UP),
        ("fall", (1 + low) ** 2, DOWN),
    ):
        truth = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 4)).copy()
        truth[:, 1, 1:] *= factor
        found = list(tables(measured(rng, truth), rule=RCV, precision=profile()))
        yield Line(f"{name} of twice the RCV at the treated level: found", *count(primary(found), expected), 0.9, 1)
        others = [one.verdict for table in found for one in table.changes if one.cell.level is not TREATED]
        yield Line(f"   {name}: the other levels within", *count(others, WITHIN), 0.94, 0.96)
        did = [one.verdict for table in found for one in table.controls if one.visit == "M12"]
        yield Line(f"   {name}: treated less untreated found", *count(did, expected), 0.9, 1)
        warned = sum(bool(table.warnings) for table in found)
        yield Line(f"   {name}: warnings 'all levels moved together'", warned, n, 0, 0.05)
    truth = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 4)).copy()
    truth[:, 1, 1:] += 2 * smallest_detectable_change(SD_MS)
    found = list(tables(measured(rng, truth, sd_ms=SD_MS), rule=SDC, precision=profile(sd_ms=SD_MS)))
    yield Line("rise of twice the SDC (4 ms error): found", *count(primary(found), UP), 0.9, 1)


def hour_of_the_day(rng: np.random.Generator, n: int) -> Iterator[Line]:
    """M12 is scanned in the evening: all nuclei are 15 ms shorter."""
    truth = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 4)).copy()
    truth[..., 3] -= 15.0
    found = list(tables(measured(rng, truth), rule=RCV, precision=profile()))
    warned = sum(any(" at M12:" in one for one in table.warnings) for table in found)
    yield Line("all nuclei 15 ms down in the evening: warned of", warned, n, 0.9, 1)
    did = [one.verdict for table in found for one in table.controls if one.visit == "M12"]
    yield Line("   treated less untreated beyond its limits (15 ms is no equal share)", *count(did, UP, DOWN), 0, 0.12)


def few_pairs(rng: np.random.Generator, n: int) -> Iterator[Line]:
    """The precision itself is an estimate, from 10 pairs; each subject is judged by another site's study."""
    true_sd = log_sd_of_cv(CV)
    truth = np.broadcast_to(LEVEL_MS[:, None], (1, 5, 4))
    verdicts: dict[bool, list[ChangeVerdict]] = {True: [], False: []}
    covering = 0
    for _ in range(n):
        pairs = rng.normal(0, true_sd, (10, 2))
        estimate = within_subject_sd(pairs)
        covering += estimate * upper_bound_factor(10) >= true_sd
        known = profile(n_pairs=10, cv=math.sqrt(math.expm1(estimate**2)))
        values = measured(rng, truth)
        for bound, found in verdicts.items():
            found += everywhere(tables(values, rule=ChangeRule(upper_bound=bound), precision=known))
    yield Line("precision from 10 pairs, upper bound: it covers the true SD", covering, n, 0.94, 0.96)
    yield Line("   unchanged cells within, with the upper bound", *count(verdicts[True], WITHIN), 0.95, 1)
    yield Line("   unchanged cells within, without it", *count(verdicts[False], WITHIN), 0, 1)


def null_trials(rng: np.random.Generator, n: int) -> Iterator[Line]:
    """Trials of 30 unchanged subjects with limits from the upper bound of 20 pairs: false flags in primary cells."""
    truth = np.broadcast_to(LEVEL_MS[:, None], (n, 5, 4))
    pairs = profile(n_pairs=20)
    found = list(tables(measured(rng, truth), rule=ChangeRule(), precision=pairs))
    yield Line(
        "as trials run by default (upper bound of 20 pairs): false 'changed', primary",
        *count(primary(found), UP, DOWN),
        0,
        0.05,
    )


PARTS: tuple[Callable[[np.random.Generator, int], Iterator[Line]], ...] = (
    *(unchanged, another_scanner, changed, hour_of_the_day, few_pairs, null_trials),
)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=4000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    start = time.process_time()
    print(f"{options.subjects} subjects of each kind, 5 levels, 4 visits; share (exact 95 % interval), limit")
    lines = []
    for part in PARTS:
        for line in part(rng, options.subjects):
            print(line, flush=True)
            lines.append(line)
    truth = np.broadcast_to(LEVEL_MS[:, None], (200, 5, 4))
    at = time.process_time()
    for _ in tables(measured(rng, truth), rule=RCV, precision=profile()):
        pass
    print(f"{1000 * (time.process_time() - at) / 200:.2f} CPU-ms for a subject of 15 cells")
    print(f"{time.process_time() - start:.0f} CPU-s")
    return 0 if all(line.holds for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
