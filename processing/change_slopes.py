"""The slope of a cell over a subject's visits, with the standard error that measurement error alone gives it.

Generalised least squares with the covariance wSD² I + s² Z Z': measurements by one scanner (software, coil) share its
offset, whose SD is s. With one scanner throughout it is ordinary least squares, SE = wSD / sqrt(sum((t - mean(t))²)).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from config.trial_plans import ChangeRule
from processing.change_limits import critical_value, cv_of_log_sd, upper_bound_factor, verdict_of
from processing.visits import Cell, Change, Difference, Observation, Precision, PrecisionProfile, Slope

_Array = npt.NDArray[np.float64]
_DAYS_PER_YEAR = 365.25


def slopes(
    observations: Mapping[Cell, Sequence[Observation]],
    changes: Sequence[Change],
    baseline: str,
    differences: Mapping[str, Sequence[Difference]],
    precision: PrecisionProfile,
    rule: ChangeRule,
) -> tuple[Slope, ...]:
    """The slope of each cell that has judged changes, over the baseline and these."""
    judged = {(one.cell, one.visit) for one in changes if one.verdict.is_judged}
    found = []
    for cell, of_cell in observations.items():
        known = precision.of(cell)
        used = [
            one
            for one in of_cell
            if one.value_ms is not None and (one.visit == baseline or (cell, one.visit) in judged)
        ]
        if known is None or len({one.day for one in used}) < 2 or not any((cell, one.visit) in judged for one in used):
            continue
        scanners = [_scanner(differences.get(one.visit, ())) for one in used]
        found.append(_slope(cell, used, scanners, known, rule))
    return tuple(found)


def _scanner(differences: Sequence[Difference]) -> frozenset[tuple[str, str]]:
    """What tells the scanner, software and coil of a visit from another's; empty: the baseline's."""
    return frozenset((one.what, one.visit) for one in differences if one.widens)


def _slope(
    cell: Cell,
    used: Sequence[Observation],
    scanners: Sequence[frozenset[tuple[str, str]]],
    known: Precision,
    rule: ChangeRule,
) -> Slope:
    years = np.array([one.day for one in used]) / _DAYS_PER_YEAR
    values = np.array([one.value_ms for one in used], float)
    mean_ms = float(values.mean())
    within_ms = cv_of_log_sd(known.within_sd_log) * mean_ms
    if rule.limit == "sdc" and known.within_sd_ms is not None:
        within_ms = known.within_sd_ms
    if rule.upper_bound and known.n_pairs:
        within_ms *= upper_bound_factor(known.n_pairs)
    between_ms = cv_of_log_sd(known.between_sd_log or 0.0) * mean_ms
    same = np.array([[one == other for other in scanners] for one in scanners])
    ms_per_year, standard_error = weighted_slope(years, values, within_ms**2 * np.eye(len(used)) + between_ms**2 * same)
    half = critical_value(rule.confidence) * standard_error
    verdict = verdict_of(ms_per_year, -half, half)
    return Slope(cell, len({one.visit for one in used}), ms_per_year, standard_error, -half, half, verdict)


def weighted_slope(times: _Array, values: _Array, covariance: _Array) -> tuple[float, float]:
    """Slope and its standard error of a line through ``values`` (n,) with errors of a known ``covariance`` (n, n)."""
    design = np.column_stack([np.ones_like(times), times])
    weighted = np.linalg.solve(covariance, design)
    of_estimates = np.linalg.inv(design.T @ weighted)
    estimates = of_estimates @ (weighted.T @ values)
    return float(estimates[1]), float(np.sqrt(of_estimates[1, 1]))
