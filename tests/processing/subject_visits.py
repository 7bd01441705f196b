"""Observations of a subject of whom everything is known, for tests of changes."""

from collections.abc import Mapping

import numpy as np

from processing.change_limits import log_sd_of_cv
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import NO_SCAN, Cell, Difference, Observation, Precision, PrecisionProfile

DAYS = {"BL": 0, "M3": 91, "M6": 182, "M12": 365}
T2_NUCLEUS = (Quantity.T2, Region.NUCLEUS)


def profile(cv=0.05, between=0.10, n_pairs=None, sd_ms=None, borrowed=False):
    """The same precision everywhere."""
    entries = [
        Precision(
            *(quantity, region, log_sd_of_cv(cv), sd_ms),
            *(None if between is None else log_sd_of_cv(between), n_pairs, "a test", borrowed),
        )
        for quantity in Quantity
        for region in Region
    ]
    return PrecisionProfile("a-test", "made up", tuple(entries))


def observed(values: Mapping[str, float | None], **given) -> tuple[Observation, ...]:
    """One cell at the visits named; None: no scan."""
    return tuple(
        Observation(visit, DAYS[visit], value, n=50, **({"reason": NO_SCAN} if value is None else {}), **given)
        for visit, value in values.items()
    )


def five_levels(values: Mapping[Level, Mapping[str, float | None]], quantity=Quantity.T2, region=Region.NUCLEUS):
    """A cell for each level; levels that are not named stay at 80 ms."""
    visits = next(iter(values.values())).keys()
    return {
        Cell(level, region, quantity): observed(values.get(level, dict.fromkeys(visits, 80.0)))
        for level in LUMBAR_LEVELS
    }


def difference(what="device_serial", *, hard=False, widens=False, visit="B"):
    """A difference from the baseline as compare_acquisitions would tell it."""
    return Difference(what, "A", visit, hard, widens, f"{what}: A at the baseline, {visit} here")


def noisy(rng: np.random.Generator, truth: np.ndarray, sd_log: float) -> np.ndarray:
    """Measurements of a truth with an error that is proportional to it."""
    return truth * np.exp(rng.normal(0, sd_log, truth.shape))
