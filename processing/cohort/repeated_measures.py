"""The repeated-measures model of a trial: visits of a subject with an unstructured covariance, fitted by REML.

This is generalised least squares with one free covariance matrix over the visits, as SAS PROC MIXED (TYPE=UN) and R
mmrm fit it; subjects are independent, a missing visit is left out (missing at random). statsmodels' MixedLM has neither
the unstructured residual covariance nor small-sample degrees of freedom, so it is fitted here.

Degrees of freedom: Satterthwaite (Fai & Cornelius, J Stat Comput Simul 1996;54:363), or Kenward & Roger (Biometrics
1997;53:983) with their adjusted covariance of the estimates. The covariance is a linear function of its elements, so
their term of second derivatives is zero ("Kenward-Roger-Linear" in R mmrm, DDFM=KR in SAS for TYPE=UN).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, stats

from processing.cohort.design import DesignError, FloatArray

Adjustment = Literal["kenward-roger", "satterthwaite"]

_MOST_ITERATIONS = 500


@dataclass(frozen=True, slots=True)
class Estimate:
    """A contrast of the coefficients."""

    estimate: float
    standard_error: float
    df: float
    t: float
    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class RepeatedMeasures:
    """A fitted model. ``covariance`` (visits, visits); ``beta`` and its ``beta_covariance``; ``minus_two_reml``.

    ``visits`` in the order of the covariance; ``names`` of the coefficients; ``n_subjects`` and ``n`` observations.
    """

    beta: FloatArray
    beta_covariance: FloatArray
    covariance: FloatArray
    minus_two_reml: float
    visits: tuple[str, ...]
    names: tuple[str, ...]
    n_subjects: int
    n: int
    adjusted_covariance: FloatArray  # Kenward and Roger's
    _slopes: FloatArray  # (parameters, coefficients, coefficients): d beta_covariance / d parameter
    _observed: FloatArray  # covariance of the parameters, by the observed information
    _expected: FloatArray  # and by the expected one

    def contrast(
        self, weights: Sequence[float], *, adjustment: Adjustment = "kenward-roger", confidence: float = 0.95
    ) -> Estimate:
        """One linear combination of the coefficients.

        Raises:
            ValueError: as many weights as coefficients are needed.
        """
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != self.beta.shape:
            raise ValueError(f"{len(w)} weights for {len(self.beta)} coefficients")
        kr = adjustment == "kenward-roger"
        variance = float(w @ self.beta_covariance @ w)
        gradient = np.einsum("i,kij,j->k", w, self._slopes, w)
        spread = float(gradient @ (self._expected if kr else self._observed) @ gradient)
        df = 2 * variance**2 / spread if spread > 0 else float("inf")
        error = float(np.sqrt(w @ self.adjusted_covariance @ w)) if kr else float(np.sqrt(variance))
        value = float(w @ self.beta)
        t = value / error
        half = float(stats.t.ppf(0.5 + confidence / 2, df)) * error
        return Estimate(value, error, df, t, float(2 * stats.t.sf(abs(t), df)), value - half, value + half)

    def coefficient(self, name: str, *, adjustment: Adjustment = "kenward-roger") -> Estimate:
        """One coefficient by its name.

        Raises:
            KeyError: there is none of that name.
        """
        if name not in self.names:
            raise KeyError(f"no coefficient {name!r}; there are {', '.join(self.names)}")
        weights = np.zeros(len(self.names))
        weights[self.names.index(name)] = 1.0
        return self.contrast(weights.tolist(), adjustment=adjustment)


@dataclass(frozen=True, slots=True, eq=False)
class _Pattern:
    """Subjects with the same visits: ``design`` (subjects, visits, coefficients), ``values`` (subjects, visits)."""

    present: npt.NDArray[np.int64]
    design: FloatArray
    values: FloatArray


def fit_repeated_measures(
    values: Sequence[float],
    design: FloatArray,
    subjects: Sequence[str],
    visits: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
) -> RepeatedMeasures:
    """Fit by restricted maximum likelihood.

    Args:
        values: one observation each; NaN is a missing visit and left out.
        design: (observations, coefficients), full rank.
        subjects: whose observation it is.
        visits: at which visit.
        names: of the coefficients.
        order: of the visits; as they come where it is not given.

    Raises:
        DesignError: a subject has a visit twice, the design is not of full rank, a pair of visits has no subject with
            both, there are too few observations, or the fit does not converge.
    """
    y = np.asarray(values, dtype=np.float64)
    x = np.asarray(design, dtype=np.float64)
    labels = tuple(names) if names is not None else tuple(f"b{index}" for index in range(x.shape[1]))
    visit_names = tuple(order) if order is not None else tuple(dict.fromkeys(visits))
    kept = np.flatnonzero(np.isfinite(y))
    place = np.array([visit_names.index(visits[index]) for index in range(len(y))])
    patterns = _patterns(y, x, [str(subjects[index]) for index in range(len(y))], place, kept)
    _check(patterns, x[kept], visit_names, labels)
    ols = np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
    start = _moments(patterns, ols, len(visit_names))
    scale = float(np.sqrt(np.diag(start).mean()))
    theta = _optimise(patterns, start / scale**2, scale)
    covariance = _unpack(theta) * scale**2
    return _describe(patterns, covariance, visit_names, labels, len(kept))


def _patterns(
    y: FloatArray, x: FloatArray, subjects: list[str], place: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]
) -> list[_Pattern]:
    rows: dict[str, dict[int, int]] = {}
    for index in kept:
        mine = rows.setdefault(subjects[index], {})
        if int(place[index]) in mine:
            raise DesignError(f"{subjects[index]}: two observations at one visit")
        mine[int(place[index])] = int(index)
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for mine in rows.values():
        present = tuple(sorted(mine))
        groups.setdefault(present, []).append([mine[one] for one in present])
    return [
        _Pattern(np.array(present), x[np.array(indices)], y[np.array(indices)]) for present, indices in groups.items()
    ]


def _check(patterns: list[_Pattern], x: FloatArray, visits: tuple[str, ...], names: tuple[str, ...]) -> None:
    if not patterns:
        raise DesignError("no observation")
    rank = int(np.linalg.matrix_rank(x))
    if rank < x.shape[1]:
        raise DesignError(f"the design has rank {rank} for {x.shape[1]} coefficients ({', '.join(names)})")
    m = len(visits)
    together = np.zeros((m, m), dtype=int)
    for one in patterns:
        together[np.ix_(one.present, one.present)] += len(one.values)
    for i in range(m):
        for j in range(i + 1):
            if together[i, j] < 2:
                raise DesignError(f"{visits[j]} and {visits[i]}: fewer than two subjects have both")
    n_subjects = sum(len(one.values) for one in patterns)
    if n_subjects <= m:
        raise DesignError(f"{n_subjects} subjects are too few for an unstructured covariance of {m} visits")


def _moments(patterns: list[_Pattern], beta: FloatArray, m: int) -> FloatArray:
    """A start: pairwise moments of the residuals, made positive definite."""
    total, count = np.zeros((m, m)), np.zeros((m, m))
    for one in patterns:
        rest = one.values - one.design @ beta
        where = np.ix_(one.present, one.present)
        total[where] += rest.T @ rest
        count[where] += len(rest)
    moments = total / np.maximum(count, 1)
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    positive: FloatArray = (vectors * np.maximum(values, 0.05 * values.max())) @ vectors.T
    return positive


def _pack(covariance: FloatArray) -> FloatArray:
    """Cholesky factor with the logarithm of its diagonal: any vector is a covariance."""
    lower = np.linalg.cholesky(covariance)
    lower[np.diag_indices_from(lower)] = np.log(np.diag(lower))
    packed: FloatArray = lower[np.tril_indices_from(lower)]
    return packed


def _unpack(theta: FloatArray) -> FloatArray:
    m = int((np.sqrt(8 * len(theta) + 1) - 1) / 2)
    lower = np.zeros((m, m))
    lower[np.tril_indices(m)] = theta
    lower[np.diag_indices(m)] = np.exp(np.diag(lower))
    return lower @ lower.T


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Of all subjects at one covariance: X'V^-1 X, beta, -2 log REML, and its gradient by the covariance (m, m)."""

    information: FloatArray
    beta: FloatArray
    minus_two_reml: float
    gradient: FloatArray


def _sums(patterns: list[_Pattern], covariance: FloatArray) -> _Sums:
    p = patterns[0].design.shape[2]
    information, cross, log_det = np.zeros((p, p)), np.zeros(p), 0.0
    inverses = []
    for one in patterns:
        v = covariance[np.ix_(one.present, one.present)]
        factor = linalg.cho_factor(v, lower=True)
        inverse = linalg.cho_solve(factor, np.eye(len(v)))
        inverses.append(inverse)
        log_det += len(one.values) * 2 * float(np.log(np.diag(factor[0])).sum())
        weighted = np.einsum("ab,sbp->sap", inverse, one.design)
        information += np.einsum("sap,saq->pq", one.design, weighted)
        cross += np.einsum("sap,sa->p", weighted, one.values)
    factor = linalg.cho_factor(information, lower=True)
    beta = linalg.cho_solve(factor, cross)
    beta_covariance = linalg.cho_solve(factor, np.eye(p))
    square, gradient, n = 0.0, np.zeros_like(covariance), 0
    for one, inverse in zip(patterns, inverses, strict=True):
        rest = one.values - one.design @ beta
        scaled = rest @ inverse
        square += float((scaled * rest).sum())
        weighted = np.einsum("ab,sbp->sap", inverse, one.design)
        inner = np.einsum("sap,pq,sbq->ab", weighted, beta_covariance, weighted)
        gradient[np.ix_(one.present, one.present)] += len(rest) * inverse - inner - scaled.T @ scaled
        n += rest.size
    log_information = 2 * float(np.log(np.diag(factor[0])).sum())
    value = log_det + log_information + square + (n - p) * float(np.log(2 * np.pi))
    return _Sums(information, beta, value, gradient)


def _optimise(patterns: list[_Pattern], start: FloatArray, scale: float) -> FloatArray:
    scaled = [_Pattern(one.present, one.design, one.values / scale) for one in patterns]
    m = len(start)
    rows, columns = np.tril_indices(m)

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        lower = np.zeros((m, m))
        lower[rows, columns] = theta
        lower[np.diag_indices(m)] = np.exp(np.diag(lower))
        found = _sums(scaled, lower @ lower.T)
        slope = 2 * found.gradient @ lower  # d/dL of a function of L L' with a symmetric gradient
        slope[np.diag_indices(m)] *= np.diag(lower)
        return found.minus_two_reml, slope[rows, columns]

    result = optimize.minimize(
        objective, _pack(start), jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": _MOST_ITERATIONS}
    )
    gradient = objective(result.x)[1]
    if not np.isfinite(result.fun) or np.abs(gradient).max() > 1e-3:
        raise DesignError("the covariance of the visits is singular: too few subjects for an unstructured one")
    theta: FloatArray = result.x
    return theta


def _describe(
    patterns: list[_Pattern], covariance: FloatArray, visits: tuple[str, ...], names: tuple[str, ...], n: int
) -> RepeatedMeasures:
    """The estimates, and what their degrees of freedom need."""
    found = _sums(patterns, covariance)
    phi = np.linalg.inv(found.information)
    bases = _bases(len(visits))
    p_terms, q_terms, expected = _kenward_roger_terms(patterns, covariance, phi, bases)
    slopes = -np.einsum("ij,kjl,lm->kim", phi, p_terms, phi)
    expected_covariance = np.linalg.inv(expected)
    observed_covariance = 2 * np.linalg.inv(_hessian(patterns, covariance, bases))
    inner = np.einsum(
        "ij,ijab->ab", expected_covariance, q_terms - np.einsum("iab,bc,jcd->ijad", p_terms, phi, p_terms)
    )
    return RepeatedMeasures(
        beta=found.beta,
        beta_covariance=phi,
        covariance=covariance,
        minus_two_reml=found.minus_two_reml,
        visits=visits,
        names=names,
        n_subjects=sum(len(one.values) for one in patterns),
        n=n,
        adjusted_covariance=phi + 2 * phi @ inner @ phi,
        _slopes=slopes,
        _observed=observed_covariance,
        _expected=expected_covariance,
    )


def _bases(m: int) -> FloatArray:
    """dV / d element, for each element of the lower triangle: (parameters, m, m)."""
    rows, columns = np.tril_indices(m)
    bases = np.zeros((len(rows), m, m))
    bases[np.arange(len(rows)), rows, columns] = 1.0
    bases[np.arange(len(rows)), columns, rows] = 1.0
    return bases


def _kenward_roger_terms(
    patterns: list[_Pattern], covariance: FloatArray, phi: FloatArray, bases: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """P_i = d(X'V^-1 X)/d sigma_i, Q_ij = X'V^-1 dV_i V^-1 dV_j V^-1 X, and the expected information of sigma."""
    k, p = len(bases), len(phi)
    p_terms, q_terms, traces = np.zeros((k, p, p)), np.zeros((k, k, p, p)), np.zeros((k, k))
    for one in patterns:
        where = np.ix_(one.present, one.present)
        inverse = np.linalg.inv(covariance[where])
        parts = bases[:, where[0], where[1]]
        weighted = np.einsum("ab,sbp->sap", inverse, one.design)
        p_terms -= np.einsum("sap,kab,sbq->kpq", weighted, parts, weighted, optimize=True)
        q_terms += np.einsum("sap,iab,bc,jcd,sdq->ijpq", weighted, parts, inverse, parts, weighted, optimize=True)
        turned = inverse @ parts
        traces += len(one.values) * np.einsum("iab,jba->ij", turned, turned)
    information = (
        traces
        - 2 * np.einsum("pq,ijqp->ij", phi, q_terms)
        + np.einsum("ab,ibc,cd,jda->ij", phi, p_terms, phi, p_terms, optimize=True)
    ) / 2
    return p_terms, q_terms, (information + information.T) / 2


def _hessian(patterns: list[_Pattern], covariance: FloatArray, bases: FloatArray) -> FloatArray:
    """Second derivatives of -2 log REML by the elements, from differences of the exact gradient."""
    rows, columns = np.tril_indices(len(covariance))
    spread = np.sqrt(np.diag(covariance))

    def gradient(at: FloatArray) -> FloatArray:
        full = _sums(patterns, at).gradient
        slope: FloatArray = np.einsum("kab,ab->k", bases, full)
        return slope

    hessian = np.empty((len(bases), len(bases)))
    for k, base in enumerate(bases):
        step = 1e-4 * spread[rows[k]] * spread[columns[k]]
        near = (gradient(covariance + step * base) - gradient(covariance - step * base)) / (2 * step)
        far = (gradient(covariance + 2 * step * base) - gradient(covariance - 2 * step * base)) / (4 * step)
        hessian[k] = (4 * near - far) / 3
    symmetric: FloatArray = (hessian + hessian.T) / 2
    return symmetric
