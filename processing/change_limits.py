"""What a change must exceed to be more than measurement error: smallest detectable change, reference change values.

With sigma the SD of repeated measurements, the difference of two single measurements of something that has not changed
has the SD sqrt(2) sigma, so that it lies within ± z sqrt(2) sigma (2.77 sigma at 95 %): the smallest detectable change
(SDC, repeatability coefficient; Bland and Altman, Stat Methods Med Res 1999;8:135). Where the error is proportional to
the value the same holds of logarithms, which gives asymmetric reference change values (RCV) in per cent (Fokkema et
al., Clin Chem 2006;52:1602). Where scanner, software or coil have changed, their variance is added.
"""

import math
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from processing.visits import ChangeVerdict, Precision

#: Of the upper bound of a precision that is known from few repetitions.
BOUND_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """What a change from ``baseline_ms`` must leave to be more than measurement error; ms around zero.

    ``sd``: of a difference without change, in ms (``scale`` "ms") or on the log scale ("log").
    """

    lower_ms: float
    upper_ms: float
    sd: float
    scale: Literal["ms", "log"]
    basis: str


def critical_value(confidence: float, *, two_sided: bool = True) -> float:
    """z: a standard normal deviate lies within ± z, or on one side of it, with this probability (1.96 at 95 %)."""
    return float(stats.norm.ppf((1 + confidence) / 2 if two_sided else confidence))


def upper_bound_factor(n_pairs: int, confidence: float = BOUND_CONFIDENCE) -> float:
    """By how much an SD from ``n_pairs`` pairs is to be enlarged to be its one-sided upper confidence bound.

    sqrt(n / chi2(1 - confidence, n)), for n pairs have n degrees of freedom: 2.09 for 5, 1.25 for 35 pairs.

    Raises:
        ValueError: no pair.
    """
    if n_pairs < 1:
        raise ValueError("without a pair there is no bound")
    return math.sqrt(n_pairs / float(stats.chi2.ppf(1 - confidence, n_pairs)))


def log_sd_of_cv(cv: float) -> float:
    """The SD on the log scale that belongs to a coefficient of variation: sqrt(ln(1 + cv²))."""
    return math.sqrt(math.log1p(cv**2))


def cv_of_log_sd(sd_log: float) -> float:
    """The coefficient of variation that belongs to an SD on the log scale: sqrt(exp(sd²) - 1)."""
    return math.sqrt(math.expm1(sd_log**2))


def smallest_detectable_change(within_sd: float, *, confidence: float = 0.95, n_baseline: int = 1) -> float:
    """SDC = z within_sd sqrt(1 + 1 / n_baseline), of a single measurement against the mean of ``n_baseline``."""
    return critical_value(confidence) * within_sd * math.sqrt(1 + 1 / n_baseline)


def reference_change_values(
    within_sd_log: float, *, confidence: float = 0.95, n_baseline: int = 1, two_sided: bool = True
) -> tuple[float, float]:
    """The shares (-0.129, +0.149 for a CV of 5 %) that a change must leave: exp(± z sqrt(1 + 1/n) sigma) - 1."""
    half = critical_value(confidence, two_sided=two_sided) * within_sd_log * math.sqrt(1 + 1 / n_baseline)
    return math.expm1(-half), math.expm1(half)


def change_limits(
    baseline_ms: float,
    precision: Precision,
    *,
    limit: Literal["rcv", "sdc"],
    confidence: float,
    upper_bound: bool,
    n_baseline: int = 1,
    widened: bool = False,
) -> Limits:
    """The limits of a change from a baseline, and in words how they came about.

    Args:
        baseline_ms: above zero; mean of ``n_baseline`` measurements (of their logarithms for "rcv").
        precision: how well the cell repeats.
        limit: "rcv" on the log scale, or "sdc" in ms; without a within-subject SD in ms it is taken as the share of
            the baseline.
        confidence: of the limits.
        upper_bound: use the upper bound of the within-subject SD, where the number of pairs is known.
        n_baseline: baseline measurements.
        widened: scanner, software or coil have changed.

    Raises:
        ValueError: the baseline is not above zero, or another scanner's part is asked for and not known.
    """
    if not baseline_ms > 0:
        raise ValueError(f"a baseline of {baseline_ms:g} ms has no limits")
    within, between, scale = _components(baseline_ms, precision, limit)
    factor = upper_bound_factor(precision.n_pairs) if upper_bound and precision.n_pairs else 1.0
    variance = (factor * within) ** 2 * (1 + 1 / n_baseline)
    if widened:
        if between is None:
            raise ValueError("what another scanner, software or coil adds is not known")
        variance += 2 * between**2
    sd = math.sqrt(variance)
    half = critical_value(confidence) * sd
    lower, upper = (-half, half) if scale == "ms" else (baseline_ms * math.expm1(-half), baseline_ms * math.expm1(half))
    words = _basis(precision, limit, confidence, factor, n_baseline, within if scale == "ms" else None, widened)
    return Limits(lower, upper, sd, scale, words)


def verdict_of(change: float, lower: float, upper: float) -> ChangeVerdict:
    """Beyond the limits, or within; on a limit is within."""
    if change < lower:
        return ChangeVerdict.DECREASE
    return ChangeVerdict.INCREASE if change > upper else ChangeVerdict.WITHIN


def _components(
    baseline_ms: float, precision: Precision, limit: Literal["rcv", "sdc"]
) -> tuple[float, float | None, Literal["ms", "log"]]:
    """Within and between SD in the unit of the limits."""
    if limit == "rcv":
        return precision.within_sd_log, precision.between_sd_log, "log"
    within_ms = precision.within_sd_ms or cv_of_log_sd(precision.within_sd_log) * baseline_ms
    between = precision.between_sd_log
    return within_ms, None if between is None else cv_of_log_sd(between) * baseline_ms, "ms"


def _basis(
    precision: Precision,
    limit: Literal["rcv", "sdc"],
    confidence: float,
    factor: float,
    n_baseline: int,
    within_ms: float | None,
    widened: bool,
) -> str:
    kind = "reference change value" if limit == "rcv" else "smallest detectable change"
    size = f"within-subject CV {100 * cv_of_log_sd(precision.within_sd_log):.1f} %"
    if within_ms is not None:
        size = f"within-subject SD {within_ms:.1f} ms"
    n = f"n = {precision.n_pairs}" if precision.n_pairs else "n not known, so without upper bound"
    parts = [f"{confidence:.0%} {kind}", f"{size} ({n}{', borrowed' if precision.borrowed else ''})"]
    if factor > 1:
        parts.append(f"its upper {BOUND_CONFIDENCE:.0%} bound used (x {factor:.2f})")
    if n_baseline > 1:
        parts.append(f"mean of {n_baseline} baseline scans")
    if widened and precision.between_sd_log is not None:
        cv = 100 * cv_of_log_sd(precision.between_sd_log)
        parts.append(f"widened for another scanner, software or coil (between-scanner CV {cv:.1f} %)")
    return "; ".join(parts)
