"""Responders: the share of subjects whose change is beyond a limit, in each group, and what the groups differ by.

Intervals: of a share by Wilson's score, of a difference by Newcombe's hybrid score (Stat Med 1998;17:873, method 10);
P by Fisher's exact test, two-sided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from processing.cohort.design import FloatArray

Direction = Literal["increase", "decrease", "either"]


@dataclass(frozen=True, slots=True)
class ShareRow:
    """Responders of a group: ``n_responders`` of ``n``; of ``n_missing`` nothing is known."""

    group: str
    n_responders: int
    n: int
    n_missing: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RiskDifference:
    """Share of a group less that of the reference."""

    group: str
    reference: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class ResponderTable:
    """One way to count. ``missing_as``: ``left out``, or ``non-responder`` (the denominator is all subjects)."""

    missing_as: str
    shares: tuple[ShareRow, ...]
    differences: tuple[RiskDifference, ...]


def is_responder(
    changes_ms: FloatArray, lower_ms: FloatArray, upper_ms: FloatArray, direction: Direction
) -> FloatArray:
    """1 where a change lies beyond its limits, 0 where not, NaN where it is missing; on a limit is within."""
    rise, fall = changes_ms > upper_ms, changes_ms < lower_ms
    beyond = {"increase": rise, "decrease": fall, "either": rise | fall}[direction]
    known = np.isfinite(changes_ms) & np.isfinite(lower_ms) & np.isfinite(upper_ms)
    found: FloatArray = np.where(known, beyond.astype(float), np.nan)
    return found


def count_responders(
    responds: FloatArray, group: npt.NDArray[np.int64], groups: Sequence[str], confidence: float = 0.95
) -> tuple[ResponderTable, ResponderTable]:
    """Counted with missing subjects left out, and with them as non-responders.

    Args:
        responds: (subjects,) 1, 0, NaN where missing.
        group: (subjects,) the place in ``groups``, of which the first is the reference.
        groups: their names.
        confidence: of the intervals.
    """
    return (
        _table("left out", responds, group, groups, confidence),
        _table("non-responder", np.nan_to_num(responds), group, groups, confidence, np.isnan(responds)),
    )


def _table(
    missing_as: str,
    responds: FloatArray,
    group: npt.NDArray[np.int64],
    groups: Sequence[str],
    confidence: float,
    unknown: npt.NDArray[np.bool_] | None = None,
) -> ResponderTable:
    missing = np.isnan(responds) if unknown is None else unknown
    shares = []
    for index, name in enumerate(groups):
        mine = responds[(group == index) & np.isfinite(responds)]
        n_missing = int(missing[group == index].sum())
        shares.append(_share(name, int(mine.sum()), len(mine), n_missing, confidence))
    differences = tuple(_difference(one, shares[0], confidence) for one in shares[1:])
    return ResponderTable(missing_as, tuple(shares), differences)


def _share(group: str, count: int, n: int, n_missing: int, confidence: float) -> ShareRow:
    if not n:
        return ShareRow(group, 0, 0, n_missing, float("nan"), float("nan"), float("nan"))
    low, high = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    low, high = (0.0 if not count else float(low)), (1.0 if count == n else float(high))
    return ShareRow(group, count, n, n_missing, count / n, low, high)


def _difference(one: ShareRow, reference: ShareRow, confidence: float) -> RiskDifference:
    if not one.n or not reference.n:
        nan = float("nan")
        return RiskDifference(one.group, reference.group, nan, nan, nan, nan)
    low, high = confint_proportions_2indep(
        one.n_responders,
        one.n,
        reference.n_responders,
        reference.n,
        method="newcomb",
        compare="diff",
        alpha=1 - confidence,
    )
    counts = np.array([[x.n_responders, x.n - x.n_responders] for x in (one, reference)])
    p = float(stats.fisher_exact(counts).pvalue)
    return RiskDifference(one.group, reference.group, one.share - reference.share, float(low), float(high), p)
