"""The repeated-measures model of many simulated trials at once, of two groups whose subjects leave and do not return.

The same restricted likelihood as :mod:`processing.cohort.repeated_measures`, but from sums over the subjects that leave
after the same visit, and for all trials together: the mean of a subject's visits is B x, x being constant, group and
baseline. Fisher scoring, with the terms of Kenward and Roger at its end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.cohort.design import FloatArray

_MOST_STEPS = 60
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ManyDifferences:
    """Group less reference at the last visit, (trials,); NaN where the covariance could not be told."""

    estimate: FloatArray
    standard_error: FloatArray
    df: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Leavers:
    """Sums over the subjects with the first ``n_visits`` visits; a trial each: n, X'X, X'Y, Y'Y."""

    n_visits: int
    n: FloatArray
    xx: FloatArray
    xy: FloatArray
    yy: FloatArray


def fit_many(values: FloatArray, x: FloatArray) -> ManyDifferences:
    """Fit all.

    Args:
        values: (trials, subjects, visits); NaN from the visit on at which a subject has left.
        x: (trials, subjects, terms): constant, group (0 or 1), perhaps more.

    Raises:
        ValueError: a subject has a visit after one that is missing.
    """
    known = np.isfinite(values)
    if (np.diff(known.astype(int), axis=2) > 0).any():
        raise ValueError("a subject has a visit after a missing one")
    found = np.full((3, len(values)), np.nan)
    able = _able(known, x)
    if able.any():
        found[:, able] = _fit(values[able], x[able])
    return ManyDifferences(*found)


def _able(known: npt.NDArray[np.bool_], x: FloatArray) -> npt.NDArray[np.bool_]:
    """Trials of which enough subjects of both groups have all visits."""
    complete = known.all(axis=2)
    second = (complete & (x[:, :, 1] > 0)).sum(axis=1)
    n, (m, q) = complete.sum(axis=1), (known.shape[2], x.shape[2])
    able: npt.NDArray[np.bool_] = (second >= 2) & (n - second >= 2) & (n >= m + q)
    return able


def _fit(values: FloatArray, x: FloatArray) -> FloatArray:
    """Estimate, standard error and df, (3, trials)."""
    filled, n_known = np.nan_to_num(values), np.isfinite(values).sum(axis=2)
    leavers = [_sums(filled, x, n_known, visits) for visits in range(1, values.shape[2] + 1)]
    leavers = [one for one in leavers if one.n.any()]
    covariance = _start(leavers, values.shape[2])
    done = np.zeros(len(values), bool)
    for _ in range(_MOST_STEPS):
        step, size = _scoring_step(leavers, covariance)
        done |= size < _CLOSE
        if done.all():
            break
        covariance = _moved(covariance, np.where(done[:, None, None], 0.0, step))
    return _difference(leavers, covariance, done)


def _sums(filled: FloatArray, x: FloatArray, n_known: npt.NDArray[np.int64], visits: int) -> _Leavers:
    mine = (n_known == visits).astype(float)
    y, weighted = filled[:, :, :visits], x * mine[:, :, None]
    return _Leavers(
        visits,
        mine.sum(axis=1),
        np.einsum("snp,snq->spq", weighted, x, optimize=True),
        np.einsum("snp,sna->spa", weighted, y, optimize=True),
        np.einsum("sna,snb->sab", y * mine[:, :, None], y, optimize=True),
    )


def _start(leavers: list[_Leavers], m: int) -> FloatArray:
    """Covariance of those that stay, made a little rounder."""
    full = leavers[-1]
    coefficients = np.linalg.pinv(full.xx) @ full.xy
    rest = full.yy - np.einsum("spa,spb->sab", full.xy, coefficients)
    start = rest / np.maximum(full.n - full.xx.shape[1], 1)[:, None, None]
    scale = np.trace(start, axis1=1, axis2=2)[:, None, None] / m
    rounder: FloatArray = 0.95 * start + 0.05 * scale * np.eye(m)
    return rounder


@dataclass(frozen=True, slots=True, eq=False)
class _At:
    """At one covariance a trial: coefficients (trials, visits, terms), their covariance, inverses by leavers."""

    b: FloatArray
    phi: FloatArray  # (trials, visits, terms, visits, terms)
    inverses: tuple[FloatArray, ...]


def _at(leavers: list[_Leavers], covariance: FloatArray) -> _At:
    s, m = covariance.shape[:2]
    q = leavers[0].xx.shape[1]
    information, cross, inverses = np.zeros((s, m, q, m, q)), np.zeros((s, m, q)), []
    for one in leavers:
        k = one.n_visits
        inverse = np.linalg.inv(covariance[:, :k, :k])
        inverses.append(inverse)
        information[:, :k, :, :k, :] += np.einsum("sab,spq->sapbq", inverse, one.xx)
        cross[:, :k] += np.einsum("sab,spb->sap", inverse, one.xy)
    phi = np.linalg.inv(information.reshape(s, m * q, m * q))
    b = np.einsum("sij,sj->si", phi, cross.reshape(s, m * q)).reshape(s, m, q)
    return _At(b, phi.reshape(s, m, q, m, q), tuple(inverses))


def _scoring_step(leavers: list[_Leavers], covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Step of the covariance, and how large it is against the covariance itself."""
    s, m = covariance.shape[:2]
    at = _at(leavers, covariance)
    bases = _bases(m)
    score, information = np.zeros((s, len(bases))), np.zeros((s, len(bases), len(bases)))
    for one, inverse in zip(leavers, at.inverses, strict=True):
        k = one.n_visits
        b = at.b[:, :k]
        fitted = np.einsum("sap,spb->sab", b, one.xy)
        rest = one.yy - fitted - fitted.transpose(0, 2, 1) + np.einsum("sap,spq,sbq->sab", b, one.xx, b, optimize=True)
        spread = np.einsum("sapbq,spq->sab", at.phi[:, :k, :, :k, :], one.xx, optimize=True)
        slope = inverse @ (rest + spread) @ inverse - one.n[:, None, None] * inverse
        parts = bases[:, :k, :k]
        score += np.einsum("iab,sab->si", parts, slope, optimize=True)
        turned = np.einsum("sab,ibc->siac", inverse, parts, optimize=True)
        information += one.n[:, None, None] * np.einsum("siab,sjba->sij", turned, turned, optimize=True)
    step = np.linalg.solve(information, score[..., None])[..., 0]
    moved: FloatArray = np.einsum("si,iab->sab", step, bases, optimize=True)
    size = np.abs(moved).max(axis=(1, 2)) / np.trace(covariance, axis1=1, axis2=2)
    return moved, size


def _moved(covariance: FloatArray, step: FloatArray) -> FloatArray:
    """As far as a covariance stays one."""
    length = np.ones(len(covariance))
    for _ in range(30):
        candidate = covariance + length[:, None, None] * step
        smallest = np.linalg.eigvalsh(candidate)[:, 0]
        bad = smallest <= 1e-4 * np.linalg.eigvalsh(covariance)[:, 0]
        if not bad.any():
            break
        length[bad] /= 2
    return candidate


def _difference(leavers: list[_Leavers], covariance: FloatArray, done: npt.NDArray[np.bool_]) -> FloatArray:
    s, m = covariance.shape[:2]
    q = leavers[0].xx.shape[1]
    at = _at(leavers, covariance)
    bases = _bases(m)
    column = at.phi[:, :, :, m - 1, 1]  # Phi w, w picking the group at the last visit
    variance = column[:, m - 1, 1]
    p_terms = np.zeros((s, len(bases), m, q, m, q))
    traces, q_column = np.zeros((s, len(bases), len(bases))), np.zeros((s, len(bases), len(bases)))
    for one, inverse in zip(leavers, at.inverses, strict=True):
        k = one.n_visits
        parts = bases[:, :k, :k]
        single = np.einsum("sab,ibc,scd->siad", inverse, parts, inverse, optimize=True)
        double = np.einsum("siab,jbc,scd->sijad", single, parts, inverse, optimize=True)
        p_terms[:, :, :k, :, :k, :] -= np.einsum("siad,spq->siapdq", single, one.xx, optimize=True)
        spread = np.einsum("sapbq,spq->sab", at.phi[:, :k, :, :k, :], one.xx, optimize=True)
        turned = np.einsum("sab,ibc->siac", inverse, parts, optimize=True)
        traces += one.n[:, None, None] * np.einsum("siab,sjba->sij", turned, turned, optimize=True)
        traces -= 2 * np.einsum("sijab,sab->sij", double, spread, optimize=True)
        mine = column[:, :k]
        outer = np.einsum("sap,spq,sbq->sab", mine, one.xx, mine, optimize=True)
        q_column += np.einsum("sijab,sab->sij", double, outer, optimize=True)
    flat = p_terms.reshape(s, len(bases), m * q, m * q)
    phi, w = at.phi.reshape(s, m * q, m * q), column.reshape(s, m * q)
    turned = flat @ phi[:, None]
    information = (traces + np.einsum("siab,sjba->sij", turned, turned, optimize=True)) / 2
    gradient = -np.einsum("sa,siab,sb->si", w, flat, w, optimize=True)
    spread_of = np.linalg.inv(information)
    df = 2 * variance**2 / np.einsum("si,sij,sj->s", gradient, spread_of, gradient, optimize=True)
    side = np.einsum("siab,sb->sia", flat, w)
    inner = q_column - np.einsum("sia,sab,sjb->sij", side, phi, side, optimize=True)
    variance = variance + 2 * np.einsum("sij,sij->s", spread_of, inner)
    found: FloatArray = np.where(done, np.stack([at.b[:, m - 1, 1], np.sqrt(variance), df]), np.nan)
    return found


def _bases(m: int) -> npt.NDArray[np.floating[Any]]:
    rows, columns = np.tril_indices(m)
    bases = np.zeros((len(rows), m, m))
    bases[np.arange(len(rows)), rows, columns] = 1.0
    bases[np.arange(len(rows)), columns, rows] = 1.0
    return bases
