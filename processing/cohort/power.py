"""How many subjects a trial needs, by simulation: its repeated-measures model fitted to trials with a known effect.

Two groups of the same size; the difference at the last visit is tested in the model of group x visit with an
unstructured covariance and Kenward and Roger's degrees of freedom. Subjects leave at random and do not return.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from processing.cohort.design import DesignError, FloatArray
from processing.cohort.many_trials import fit_many

_VALUES_AT_ONCE = 2_000_000
MOST_PER_GROUP = 4_000


@dataclass(frozen=True, slots=True, eq=False)
class TrialAssumptions:
    """What is assumed. ``covariance`` (visits, visits) ms², of changes less what baseline and covariates explain.

    ``effect_ms`` at the last visit; ``missing`` (visits,): share of subjects that have left by each visit, rising;
    ``n_covariates``: baseline and others, each x visit; ``alpha`` two-sided. ``visits``: what they are called, if told.
    """

    covariance: FloatArray
    effect_ms: float
    missing: tuple[float, ...]
    n_covariates: int = 0
    alpha: float = 0.05
    visits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PowerEstimate:
    """Share of simulated trials with P at most alpha, with its 95 % interval (Clopper-Pearson).

    ``n_unfitted``: of them, trials whose covariance could not be told; they count as not significant.
    """

    n_per_group: int
    power: float
    low: float
    high: float
    simulations: int
    n_unfitted: int


def make_assumptions(
    sds_ms: Sequence[float],
    correlation: float,
    effect_ms: float,
    *,
    dropout: Sequence[float] = (0.0,),
    baseline_correlation: float = 0.0,
    alpha: float = 0.05,
) -> TrialAssumptions:
    """Assumptions from a few numbers.

    Args:
        sds_ms: of the change at each visit.
        correlation: of the changes of any two visits.
        effect_ms: difference of the groups at the last visit.
        dropout: share that has left by each visit; one number: by the last, rising evenly.
        baseline_correlation: of baseline and change, which the model then adjusts for.
        alpha: two-sided.

    Raises:
        DesignError: numbers that cannot be.
    """
    sd = np.asarray(sds_ms, dtype=np.float64)
    m = len(sd)
    if not (sd > 0).all():
        raise DesignError("SDs must be above zero")
    if not -1 < baseline_correlation < 1:
        raise DesignError("the correlation with the baseline must lie between -1 and 1")
    covariance = np.outer(sd, sd) * (correlation + (1 - correlation) * np.eye(m))
    covariance = covariance - np.outer(sd, sd) * baseline_correlation**2
    shares = dropout_by_visit(dropout, m)
    return check_assumptions(TrialAssumptions(covariance, effect_ms, shares, int(baseline_correlation != 0), alpha))


def dropout_by_visit(shares: Sequence[float], n_visits: int) -> tuple[float, ...]:
    """Share that has left by each visit; of one number, that by the last, rising evenly."""
    if len(shares) > 1:
        return tuple(shares)
    return tuple(shares[0] * (place + 1) / n_visits for place in range(n_visits))


def check_assumptions(assumed: TrialAssumptions) -> TrialAssumptions:
    """The same, if it can be.

    Raises:
        DesignError: no covariance, or shares that are none or fall.
    """
    if np.linalg.eigvalsh(assumed.covariance)[0] <= 0:
        raise DesignError("these correlations cannot be: the covariance of the visits is not positive definite")
    missing = assumed.missing
    if len(missing) != len(assumed.covariance):
        raise DesignError(f"{len(missing)} shares of dropout for {len(assumed.covariance)} visits")
    if any(not 0 <= one < 1 for one in missing) or any(a > b for a, b in pairwise(missing)):
        raise DesignError("dropout: shares from 0 to below 1 that do not fall from visit to visit are needed")
    if assumed.effect_ms == 0:
        raise DesignError("an effect of zero is found by chance only")
    return assumed


def simulate_power(assumed: TrialAssumptions, n_per_group: int, *, simulations: int, seed: int) -> PowerEstimate:
    """Power of one size.

    Raises:
        DesignError: too few subjects for the model.
    """
    fewest = fewest_per_group(assumed)
    if n_per_group < fewest:
        raise DesignError(f"{n_per_group} subjects a group are too few for the model: at least {fewest} are needed")
    rng = np.random.default_rng([seed, n_per_group])
    per_block = max(1, _VALUES_AT_ONCE // (2 * n_per_group * len(assumed.covariance)))
    hits, unfitted = 0, 0
    for start in range(0, simulations, per_block):
        p = _p_of_trials(assumed, n_per_group, min(per_block, simulations - start), rng)
        unfitted += int(np.isnan(p).sum())
        hits += int((np.nan_to_num(p, nan=1.0) <= assumed.alpha).sum())
    low, high = proportion_confint(hits, simulations, alpha=0.05, method="beta")
    return PowerEstimate(n_per_group, hits / simulations, float(low), float(high), simulations, unfitted)


def smallest_n(assumed: TrialAssumptions, power: float, *, simulations: int, seed: int) -> tuple[PowerEstimate, ...]:
    """Sizes looked at until the smallest with this power was found; it is the last, () where more than 4000 are needed.

    The power of sizes around the one of the normal approximation is smoothed by a line of probit over sqrt(n), as the
    power of a t-test is nearly.
    """
    fewest = fewest_per_group(assumed)
    guess = max(fewest, _approximate_n(assumed, power))
    if guess > MOST_PER_GROUP:
        return ()
    seen: dict[int, PowerEstimate] = {}
    for _ in range(4):
        around = {max(fewest, round(guess * factor)) for factor in (0.8, 0.9, 1.0, 1.1, 1.25)} - seen.keys()
        for n in sorted(around):
            seen[n] = simulate_power(assumed, n, simulations=simulations, seed=seed)
        found = max(fewest, _where(tuple(seen.values()), power))
        if found > MOST_PER_GROUP:
            return ()
        if 0.85 * guess <= found <= 1.18 * guess:
            break
        guess = found
    if found not in seen:
        seen[found] = simulate_power(assumed, found, simulations=simulations, seed=seed)
    looked_at = sorted((one for one in seen.values() if one.n_per_group != found), key=lambda one: one.n_per_group)
    return (*looked_at, seen[found])


def fewest_per_group(assumed: TrialAssumptions) -> int:
    """Subjects that a group needs for the model to be fitted at all, those that leave allowed for."""
    m = len(assumed.covariance)
    complete = m + 2 + assumed.n_covariates + 1
    return math.ceil(complete / 2 / (1 - assumed.missing[-1])) + 1


def _p_of_trials(assumed: TrialAssumptions, n: int, trials: int, rng: np.random.Generator) -> FloatArray:
    m = len(assumed.covariance)
    values = rng.standard_normal((trials, 2 * n, m)) @ np.linalg.cholesky(assumed.covariance).T
    group = np.repeat([0.0, 1.0], n)
    values[:, :, -1] += assumed.effect_ms * group
    values = np.where(rng.random((trials, 2 * n, 1)) < np.array(assumed.missing), np.nan, values)
    x = np.ones((trials, 2 * n, 2 + assumed.n_covariates))
    x[:, :, 1] = group
    x[:, :, 2:] = rng.standard_normal((trials, 2 * n, assumed.n_covariates))
    found = fit_many(values, x)
    p = 2 * stats.t.sf(np.abs(found.estimate / found.standard_error), found.df)
    return np.asarray(p, dtype=np.float64)


def _approximate_n(assumed: TrialAssumptions, power: float) -> int:
    """Two-sample normal approximation with what subjects that leave still tell of the last visit."""
    m = len(assumed.covariance)
    information = np.zeros((m, m))
    shares = np.diff([*assumed.missing, 1.0])  # of those with the first 1 .. m visits
    for visits, share in enumerate(shares, start=1):
        information[:visits, :visits] += share * np.linalg.inv(assumed.covariance[:visits, :visits])
    variance = float(np.linalg.inv(information)[-1, -1])
    z = float(stats.norm.isf(assumed.alpha / 2) + stats.norm.ppf(power))
    return math.ceil(2 * variance * (z / assumed.effect_ms) ** 2) + 1


def _where(seen: Sequence[PowerEstimate], power: float) -> int:
    """Size of a power by a weighted line of probit over sqrt(n)."""
    roots = np.sqrt([one.n_per_group for one in seen])
    shares = np.array([(one.power * one.simulations + 0.5) / (one.simulations + 1) for one in seen])
    z = stats.norm.ppf(shares)
    weights = stats.norm.pdf(z) / np.sqrt(shares * (1 - shares) / np.array([one.simulations for one in seen]))
    if len(seen) < 2:
        return seen[0].n_per_group
    slope, start = np.polyfit(roots, z, 1, w=weights)
    if slope <= 0:
        return seen[-1].n_per_group * 2
    root = max(float((stats.norm.ppf(power) - start) / slope), 0.0)
    return math.ceil(root**2 - 1e-9)
