"""How well a measurement repeats, from subjects scanned twice or more: wSD, RMS-CV, ICC, Bland-Altman.

Values are arrays (subjects, scans) of one cell in ms, without NaN; every subject has the same number of scans, of the
same scanner and within a time in which nothing changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.api import OLS, add_constant
from statsmodels.stats.diagnostic import het_breuschpagan

from processing.change_limits import cv_of_log_sd, reference_change_values, smallest_detectable_change
from processing.results import Quantity, Region

Values = npt.NDArray[np.float64]

#: Fewer subjects do not tell whether the error grows with the value.
_FEWEST_FOR_TREND = 10
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % confidence interval; NaN where n is too small for one."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """Second less first scan (Bland and Altman 1986): bias and 95 % limits of agreement, each with its interval, ms.

    ``slope`` of the differences over the means, with its p-value.
    """

    n: int
    bias_ms: Interval
    lower_limit_ms: Interval
    upper_limit_ms: Interval
    slope: float
    p_slope: float


@dataclass(frozen=True, slots=True)
class ErrorScale:
    """Whether the error is best told in ms or as a share of the value, and why."""

    scale: Literal["ms", "percent"]
    p_ms: float  # Breusch-Pagan: does the spread of the differences in ms grow with the mean?
    p_percent: float  # the same of the differences of logarithms
    reason: str


@dataclass(frozen=True, slots=True)
class Repeatability:
    """All that is known of how one cell repeats. ``level`` None: all levels together."""

    quantity: Quantity
    region: Region
    level: str | None
    n_subjects: int
    n_discs: int
    n_scans: int
    mean_ms: float
    within_sd_ms: Interval
    rms_cv: float
    within_cv: Interval
    sdc_ms: float
    rcv_percent: tuple[float, float]
    icc: Interval
    bland_altman: BlandAltman
    error_scale: ErrorScale


def within_subject_sd(values: Values) -> float:
    """SD of repeated measurements of one subject: sqrt of the mean variance (n - 1) within subjects."""
    return math.sqrt(float(values.var(axis=1, ddof=1).mean()))


def rms_cv(values: Values) -> float:
    """Root mean square of the subjects' coefficients of variation (Gluer et al., Osteoporos Int 1995;5:262)."""
    return math.sqrt(float(((values.std(axis=1, ddof=1) / values.mean(axis=1)) ** 2).mean()))


def within_sd_interval(values: Values, *, n_independent: int | None = None) -> Interval:
    """The within-subject SD with its interval by chi-square, n_independent (scans - 1) degrees of freedom.

    ``n_independent``: subjects, where rows are several discs of them: their errors are not independent.
    """
    sd = within_subject_sd(values)
    freedom = (n_independent or len(values)) * (values.shape[1] - 1)
    low, high = (sd * math.sqrt(freedom / float(stats.chi2.ppf(part, freedom))) for part in (0.975, 0.025))
    return Interval(sd, low, high)


def icc_agreement(values: Values) -> Interval:
    """ICC(2,1) of Shrout and Fleiss (Psychol Bull 1979;86:420): one scan, absolute agreement, scans as random.

    The interval is that of McGraw and Wong (Psychol Methods 1996;1:30), ICC(A,1). NaN for fewer than two subjects.
    """
    n, k = values.shape
    if n < 2 or float(np.ptp(values)) == 0:
        return Interval(math.nan, math.nan, math.nan)
    grand = values.mean()
    rows = k * float(((values.mean(axis=1) - grand) ** 2).sum()) / (n - 1)
    columns = n * float(((values.mean(axis=0) - grand) ** 2).sum()) / (k - 1)
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + grand
    error = float((residual**2).sum()) / ((n - 1) * (k - 1))
    icc = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    if error <= 1e-12 * rows:
        return Interval(icc, math.nan, math.nan)
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    freedom = (a * columns + b * error) ** 2 / ((a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
    lower_f, upper_f = float(stats.f.ppf(0.975, n - 1, freedom)), float(stats.f.ppf(0.975, freedom, n - 1))
    weight = k * columns + (k * n - k - n) * error
    low = n * (rows - lower_f * error) / (lower_f * weight + n * rows)
    high = n * (upper_f * rows - error) / (weight + n * upper_f * rows)
    return Interval(icc, low, high)


def bland_altman(first: Values, second: Values) -> BlandAltman:
    """Bias and limits of agreement of second - first (n,), intervals by Student's t.

    The variance of a limit is s² (1/n + 1.96² / (2 (n - 1))) (Bland and Altman, Lancet 1986;1:307; Stat Methods Med Res
    1999;8:135).
    """
    differences, means = second - first, (first + second) / 2
    n = len(differences)
    bias = float(differences.mean())
    if n < 3:
        none = Interval(bias, math.nan, math.nan)
        return BlandAltman(n, none, none, none, math.nan, math.nan)
    sd = float(differences.std(ddof=1))
    t = float(stats.t.ppf(0.975, n - 1))
    of_bias = t * sd / math.sqrt(n)
    of_limit = t * sd * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    limits = [Interval(limit, limit - of_limit, limit + of_limit) for limit in (bias - 1.96 * sd, bias + 1.96 * sd)]
    slope, p_slope = math.nan, math.nan
    if float(np.ptp(means)) > 0 and sd > 0:
        line = stats.linregress(means, differences)
        slope, p_slope = float(line.slope), float(line.pvalue)
    return BlandAltman(n, Interval(bias, bias - of_bias, bias + of_bias), limits[0], limits[1], slope, p_slope)


def error_scale(values: Values) -> ErrorScale:
    """Whether the error grows with the value (Breusch and Pagan, Econometrica 1979;47:1287, studentised).

    Where the data do not tell, it is taken as a share of the value: long times fit worst, and the literature tells
    coefficients of variation.
    """
    means = values.mean(axis=1)
    if len(values) < _FEWEST_FOR_TREND or float(np.ptp(means)) == 0:
        return ErrorScale(
            "percent", math.nan, math.nan, f"{len(values)} discs do not tell; a share of the value is usual"
        )
    p_ms, p_percent = (_p_of_growing_spread(one, means) for one in (values, np.log(values)))
    if p_ms < _SIGNIFICANT and p_ms <= p_percent:
        return ErrorScale("percent", p_ms, p_percent, "the spread in ms grows with the value")
    if p_percent < _SIGNIFICANT:
        return ErrorScale("ms", p_ms, p_percent, "the spread in per cent changes with the value, that in ms does not")
    return ErrorScale("percent", p_ms, p_percent, "neither changes with the value; a share of the value is usual")


def _p_of_growing_spread(values: Values, means: Values) -> float:
    """p of the studentised Breusch-Pagan test of the differences of the first two scans on the subjects' means."""
    differences = values[:, 1] - values[:, 0]
    if float(np.ptp(differences)) == 0:
        return math.nan
    fitted = OLS(differences, np.ones(len(differences))).fit()
    return float(het_breuschpagan(fitted.resid, add_constant(means))[1])


def repeatability(
    quantity: Quantity, region: Region, level: str | None, values: Values, subjects: Sequence[str]
) -> Repeatability:
    """Everything about one cell.

    Args:
        quantity: what was measured.
        region: where.
        level: name of the level, or None where rows are discs of all levels.
        values: (discs, scans) in ms, at least two discs and two scans, all above zero.
        subjects: whose each row is.

    Raises:
        ValueError: too few, or a value that is none.
    """
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 2:
        raise ValueError(f"{quantity} {region}: at least two discs, each scanned twice, are needed")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{quantity} {region}: a value is missing or not above zero")
    n_subjects = len(set(subjects))
    logs = within_sd_interval(np.log(values), n_independent=n_subjects)
    within_ms = within_sd_interval(values, n_independent=n_subjects)
    low, high = reference_change_values(logs.value)
    return Repeatability(
        quantity=quantity,
        region=region,
        level=level,
        n_subjects=n_subjects,
        n_discs=len(values),
        n_scans=values.shape[1],
        mean_ms=float(values.mean()),
        within_sd_ms=within_ms,
        rms_cv=rms_cv(values),
        within_cv=Interval(*(cv_of_log_sd(one) for one in (logs.value, logs.low, logs.high))),
        sdc_ms=smallest_detectable_change(within_ms.value),
        rcv_percent=(100 * low, 100 * high),
        icc=icc_agreement(values),
        bland_altman=bland_altman(values[:, 0], values[:, 1]),
        error_scale=error_scale(values),
    )
