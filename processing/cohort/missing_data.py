"""What missing visits may hide: the difference between groups when they are imputed, worse than alike ones by a delta.

Missing values are drawn from the repeated-measures model of those that are there (missing at random): a Gibbs sampler
draws coefficients and covariance from their posterior (Jeffreys' prior) and the missing values given them, starting at
the REML estimate. Then delta is added in the groups other than the reference (Ratitch et al., Pharm Stat 2013;12:337),
or the visits after the last known one are drawn as if the subject had gone on as the reference group (jump to
reference; Carpenter, Roger & Kenward, J Biopharm Stat 2013;23:1352). Each completed visit is analysed by least squares
(group, baseline, covariates), pooled by Rubin's rules with the degrees of freedom of Barnard & Rubin (Biometrika
1999;86:948). An estimate is linear in delta and its variance quadratic, so that one set of draws serves every delta.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from processing.cohort.design import FloatArray
from processing.cohort.visit_models import VisitData, VisitFit, some_finite, visit_design

_BURN_IN, _THIN = 200, 10
_WIDEST_DELTA_SDS = 10.0  # a tipping point is looked for as far as this many SDs of the change
_STEPS = 400


class Pooled(NamedTuple):
    """Rubin's rules: ``df`` of Barnard and Rubin."""

    estimate: float
    standard_error: float
    df: float
    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DeltaRow:
    """The difference of a group from the reference where ``delta_ms`` is added to what is imputed in it."""

    delta_ms: float
    pooled: Pooled


@dataclass(frozen=True, slots=True)
class MissingDataResult:
    """Of one group at one visit. ``n_imputed`` (in the group, in the reference) values.

    ``tipping_ms``: the delta nearest to zero at which P crosses alpha; None where it does not within
    ``searched_ms`` to either side, or nothing is imputed in the group. ``jump``: jump to reference.
    """

    group: str
    reference: str
    level: str
    visit: str
    n_imputed: tuple[int, int]
    imputations: int
    at_random: Pooled
    deltas: tuple[DeltaRow, ...]
    tipping_ms: float | None
    searched_ms: float
    jump: Pooled | None


def pool(estimates: FloatArray, variances: FloatArray, df_complete: float, confidence: float = 0.95) -> Pooled:
    """Rubin's rules of (imputations,) estimates and their squared standard errors.

    Raises:
        ValueError: fewer than two imputations.
    """
    m = len(estimates)
    if m < 2:
        raise ValueError("at least two imputations are needed")
    within, between = float(variances.mean()), float(estimates.var(ddof=1))
    total = within + (1 + 1 / m) * between
    share = (1 + 1 / m) * between / total
    observed = (df_complete + 1) / (df_complete + 3) * df_complete * (1 - share)
    old = (m - 1) / share**2 if share > 0 else np.inf
    df = observed if np.isinf(old) else old * observed / (old + observed)
    value, error = float(estimates.mean()), float(np.sqrt(total))
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * error
    return Pooled(value, error, float(df), float(2 * stats.t.sf(abs(value / error), df)), value - half, value + half)


def missing_data_sensitivity(
    fit: VisitFit,
    everyone: VisitData,
    visit: str,
    *,
    imputations: int,
    seed: int,
    alpha: float = 0.05,
    deltas_ms: Sequence[float] = (),
    jump_to_reference: bool = True,
) -> tuple[MissingDataResult, ...]:
    """For each group but the reference, at one visit of a model of changes.

    Args:
        fit: a model with groups, of one level or one mean of levels.
        everyone: the subjects of the model and those with a baseline and nothing after it, who are imputed, too.
        visit: at which the difference is looked at.
        imputations: how many.
        seed: of the draws.
        alpha: that P is to cross; intervals are of 1 - alpha.
        deltas_ms: that are told; () : five from zero to where the difference is gone, or beyond the tipping point.
        jump_to_reference: too.

    Raises:
        ValueError: the model has no groups, or no such visit.
    """
    data = everyone if everyone.baseline is None else everyone.of(some_finite(everyone.baseline))
    if len(data.groups) < 2 or visit not in data.visits or len(data.levels) > 1:
        raise ValueError("groups, one level and one of the model's visits are needed")
    place = data.visits.index(visit)
    rng = np.random.default_rng(seed)
    draws = _Draws(data, jump_to_reference)
    at_random, jumped = draws.draw(fit, imputations, place, rng)
    analysis = _Ancova(data, place)
    missing = np.isnan(data.values[:, place])
    results = []
    for index in range(1, len(data.groups)):
        shifted = (missing & (data.group == index)).astype(float)
        curve = _Curve(analysis, index, at_random, shifted, 1 - alpha)
        widest = _WIDEST_DELTA_SDS * float(np.sqrt(fit.fitted.covariance[place, place]))
        tipping = curve.tipping(alpha, widest) if shifted.any() else None
        chosen = (tuple(deltas_ms) or _deltas(curve, tipping, alpha)) if shifted.any() else (0.0,)
        jump = None
        if jump_to_reference:
            jump = _Curve(analysis, index, jumped, np.zeros(len(missing)), 1 - alpha).at(0.0)
        n_imputed = int(shifted.sum()), int((missing & (data.group == 0)).sum())
        results.append(
            MissingDataResult(
                group=data.groups[index],
                reference=data.groups[0],
                level=data.levels[0],
                visit=visit,
                n_imputed=n_imputed,
                imputations=imputations,
                at_random=curve.at(0.0),
                deltas=tuple(DeltaRow(one, curve.at(one)) for one in chosen),
                tipping_ms=tipping,
                searched_ms=widest,
                jump=jump,
            )
        )
    return tuple(results)


def _deltas(curve: "_Curve", tipping: float | None, alpha: float) -> tuple[float, ...]:
    """Five steps: to a quarter beyond the tipping point, else to as much as the difference itself, against it."""
    first = curve.at(0.0)
    most = 1.25 * tipping if tipping is not None else -first.estimate if first.p <= alpha else 0.0
    return tuple(float(one) for one in np.linspace(0, most, 6)) if most else (0.0,)


class _Ancova:
    """Least squares of one completed visit: cell means of the groups, baseline, covariates."""

    def __init__(self, data: VisitData, place: int) -> None:
        design = visit_design(data)[0][:, place]
        self._x = design[:, np.abs(design).max(axis=0) > 0]  # without the other visits' columns
        self._inverse = np.linalg.pinv(self._x)
        self.df = len(self._x) - self._x.shape[1]

    def estimate(self, group: int, values: FloatArray) -> FloatArray:
        """Group less reference; ``values`` (..., subjects)."""
        found: FloatArray = values @ (self._inverse[group] - self._inverse[0])
        return found

    def rest(self, values: FloatArray) -> FloatArray:
        """Residuals."""
        left: FloatArray = values - values @ self._inverse.T @ self._x.T
        return left

    def scale(self, group: int) -> float:
        """Variance of the estimate for a residual variance of 1."""
        return float(((self._inverse[group] - self._inverse[0]) ** 2).sum())


class _Curve:
    """Pooled difference by delta; ``completed`` (imputations, subjects), ``shifted`` (subjects,) 0 or 1."""

    def __init__(
        self, analysis: _Ancova, group: int, completed: FloatArray, shifted: FloatArray, confidence: float
    ) -> None:
        self._estimates, self._slope = analysis.estimate(group, completed), float(analysis.estimate(group, shifted))
        rest, turned = analysis.rest(completed), analysis.rest(shifted)
        self._squares = (rest**2).sum(axis=1), 2 * rest @ turned, float(turned @ turned)
        self._scale, self._df = analysis.scale(group), analysis.df
        self._confidence = confidence

    def at(self, delta_ms: float) -> Pooled:
        """The pooled difference."""
        constant, linear, square = self._squares
        variances = (constant + delta_ms * linear + delta_ms**2 * square) / self._df * self._scale
        return pool(self._estimates + delta_ms * self._slope, variances, self._df, self._confidence)

    def tipping(self, alpha: float, widest_ms: float) -> float | None:
        """The delta nearest to zero at which P crosses alpha, to either side."""

        def excess(delta_ms: float) -> float:
            return self.at(delta_ms).p - alpha

        start = excess(0.0)
        for size in np.linspace(0, widest_ms, _STEPS + 1)[1:]:
            for delta in (size, -size):
                if excess(delta) * start <= 0:
                    inner = float(delta - np.sign(delta) * widest_ms / _STEPS)
                    return float(optimize.brentq(excess, inner, float(delta), xtol=1e-6))
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Draws:
    """The sampler: ``data`` of one level, its design (subjects, visits, coefficients)."""

    data: VisitData
    jump: bool

    def draw(
        self, fit: VisitFit, imputations: int, place: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Completed values of one visit, (imputations, subjects), at random; and after a jump to the reference."""
        design, names = visit_design(self.data)
        as_reference = visit_design(replace(self.data, group=np.zeros_like(self.data.group)))[0]
        if names != fit.fitted.names:
            raise ValueError("the model is of other terms than its data")
        values = self.data.values
        last = _last_known(values)
        is_after = np.arange(values.shape[1]) > last[:, None]
        mixed = np.where(is_after[..., None], as_reference, design)
        patterns = tuple(_patterns(values))
        beta, covariance = fit.fitted.beta.copy(), fit.fitted.covariance.copy()
        completed = _impute(values, design @ beta, covariance, patterns, rng)
        kept, jumped = np.empty((imputations, len(values))), np.empty((imputations, len(values)))
        number = 0
        for step in range(_BURN_IN + _THIN * imputations):
            beta, covariance = _posterior(design, completed, covariance, rng)
            completed = _impute(values, design @ beta, covariance, patterns, rng)
            if step >= _BURN_IN and (step - _BURN_IN) % _THIN == _THIN - 1:
                kept[number] = completed[:, place]
                if self.jump:
                    jumped[number] = _impute(values, mixed @ beta, covariance, patterns, rng)[:, place]
                number += 1
        return kept, jumped


def _last_known(values: FloatArray) -> npt.NDArray[np.int64]:
    """The place of each subject's last value; -1 where there is none."""
    known = np.isfinite(values)
    return np.where(known.any(axis=1), values.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1), -1)


def _patterns(values: FloatArray) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Subjects with the same missing visits, and which those are; those without any are no pattern."""
    missing = np.isnan(values)
    for pattern in np.unique(missing, axis=0):
        if pattern.any():
            yield np.flatnonzero((missing == pattern).all(axis=1)), pattern


def _impute(
    values: FloatArray,
    means: FloatArray,
    covariance: FloatArray,
    patterns: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
    rng: np.random.Generator,
) -> FloatArray:
    """Missing values drawn given those that are there."""
    completed = values.copy()
    for subjects, missing in patterns:
        known = ~missing
        weights = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, missing)])
        rest = covariance[np.ix_(missing, missing)] - covariance[np.ix_(missing, known)] @ weights
        expected = means[np.ix_(subjects, missing)] + (values - means)[np.ix_(subjects, known)] @ weights
        noise = rng.standard_normal(expected.shape) @ np.linalg.cholesky((rest + rest.T) / 2).T
        completed[np.ix_(subjects, missing)] = expected + noise
    return completed


def _posterior(
    design: FloatArray, completed: FloatArray, covariance: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Coefficients given the covariance, then the covariance given them (inverse Wishart)."""
    inverse = np.linalg.inv(covariance)
    weighted = np.einsum("ab,sbp->sap", inverse, design)
    information = np.einsum("sap,saq->pq", design, weighted, optimize=True)
    lower = np.linalg.cholesky(information)
    mean = np.linalg.solve(information, np.einsum("sap,sa->p", weighted, completed))
    beta = mean + np.linalg.solve(lower.T, rng.standard_normal(len(mean)))
    rest = completed - design @ beta
    drawn = stats.invwishart.rvs(len(rest), rest.T @ rest, random_state=rng)
    return beta, np.atleast_2d(np.asarray(drawn, dtype=np.float64))
