"""Who is in a cohort: numbers and categories of one group, or of two side by side (paper, Table 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np
from scipy import stats

#: Tables of the same margins look alike in probability up to one part in this many (as R's fisher.test).
_ALIKE = 10**7


@dataclass(frozen=True, slots=True)
class NumberSummary:
    """A number over the subjects who have it: ``n`` of them, NaN where there are too few."""

    n: int
    mean: float
    sd: float
    lowest: float
    highest: float


def summarise_numbers(values: Sequence[float]) -> NumberSummary:
    """Mean, SD (n - 1) and range of the finite ones."""
    known = np.array(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return NumberSummary(0, float("nan"), float("nan"), float("nan"), float("nan"))
    sd = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return NumberSummary(len(known), float(known.mean()), sd, float(known.min()), float(known.max()))


def two_sided_t(first: Sequence[float], second: Sequence[float]) -> float:
    """P of Student's two-sided t-test of two groups, as the paper compared numbers; NaN where it is undefined."""
    one, other = (np.array(group, np.float64) for group in (first, second))
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    n, m = len(one), len(other)
    if min(n, m) < 2 or max(np.ptp(one), np.ptp(other)) == 0:
        return float("nan")
    # written out: scipy warns wherever one of the groups is all alike, which is no fault of a cohort
    variance = (((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()) / (n + m - 2)
    t = (one.mean() - other.mean()) / np.sqrt(variance * (1 / n + 1 / m))
    return float(2 * stats.t.sf(abs(t), n + m - 2))


def fisher_exact(first: Sequence[str], second: Sequence[str]) -> float:
    """P of Fisher's exact test of two groups over any number of categories (Freeman and Halton 1951), two-sided.

    The sum of the probabilities of all tables of the same margins that are not more probable than the one observed.
    NaN where a group is empty or all are of one category: there is nothing to tell apart.
    """
    names = sorted({*first, *second})
    if not first or not second or len(names) < 2:
        return float("nan")
    observed = [sum(value == name for value in first) for name in names]
    totals = [observed[k] + sum(value == name for value in second) for k, name in enumerate(names)]
    weight = _ways(observed, totals)
    less = all_ways = 0
    for cells in product(*(range(total + 1) for total in totals[:-1])):
        rest = len(first) - sum(cells)
        if 0 <= rest <= totals[-1]:
            ways = _ways((*cells, rest), totals)
            all_ways += ways
            less += ways if ways * _ALIKE <= weight * (_ALIKE + 1) else 0  # in integers: they outgrow floats
    return less / all_ways


def _ways(cells: Sequence[int], totals: Sequence[int]) -> int:
    ways = 1
    for cell, total in zip(cells, totals, strict=True):
        ways *= comb(total, cell)
    return ways
