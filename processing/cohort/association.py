"""Voxel by variable, by group, by voxel: one number for each voxel, with its interval and how many subjects are in it.

Arrays of maps are ``(subjects, voxels)``, NaN where a subject has no value at a voxel; that subject is then left out at
that voxel. Nothing is pooled over levels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from processing.cohort.design import Design, FloatArray

IntArray = npt.NDArray[np.int64]

#: Voxels that are worked on at once.
_CHUNK = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class Association:
    """Partial correlation of each voxel with a variable. All arrays (voxels,), NaN where it cannot be computed.

    ``r``, its two-sided ``p``, ``t`` with ``df`` degrees of freedom, ``low`` and ``high`` of the interval of ``r``, and
    ``n`` subjects.
    """

    r: FloatArray
    t: FloatArray
    p: FloatArray
    df: FloatArray
    low: FloatArray
    high: FloatArray
    n: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class GroupDifference:
    """Second minus first group. All arrays (voxels,), NaN where it cannot be computed.

    ``means``, ``sds``, ``maxima`` and ``ns`` (2, voxels); ``difference`` in the unit of the maps with ``low`` and
    ``high`` of its interval; ``effect``: Hedges' g.
    """

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    effect: FloatArray
    t: FloatArray
    p: FloatArray
    df: FloatArray
    means: FloatArray
    sds: FloatArray
    maxima: FloatArray
    ns: IntArray


def partial_correlation(
    maps: FloatArray, design: Design, *, ranks: bool = False, min_n: int = 0, confidence: float = 0.95
) -> Association:
    """Correlation of each voxel with the variable, both adjusted for the covariates.

    r has n - k - 2 degrees of freedom with k covariates; its interval is Fisher's, with standard error
    1/sqrt(n - k - 3).

    Args:
        maps: (subjects, voxels), NaN where there is no value.
        design: of the same subjects.
        ranks: Spearman: everything, covariates too, is ranked first among the subjects that have a value.
        min_n: voxels with fewer subjects have no result.
        confidence: of the interval.

    Raises:
        ValueError: other numbers of subjects.
    """
    if maps.ndim != 2 or maps.shape[0] != design.n:
        raise ValueError(f"maps of {maps.shape[0]} subjects, a design of {design.n}")
    finite = np.isfinite(maps)
    n = finite.sum(axis=0)
    k = design.covariates.shape[1]
    r = np.full(maps.shape[1], np.nan)
    whole = finite.all(axis=0)
    if whole.any():
        r[whole] = _whole(maps[:, whole], design, ranks)
    partly = np.flatnonzero(~whole & (n >= max(min_n, k + 3)))
    if ranks:
        _by_pattern(maps, finite, partly, design, r)
    else:
        for start in range(0, len(partly), _CHUNK):
            chosen = partly[start : start + _CHUNK]
            r[chosen] = _weighted(maps[:, chosen], finite[:, chosen], design)
    r[n < max(min_n, k + 3)] = np.nan
    return _with_inference(r, n, k, confidence)


def correlation_between_maps(
    first: FloatArray, second: FloatArray, *, min_n: int = 0, confidence: float = 0.95
) -> Association:
    """Pearson correlation over subjects of two maps, voxel by voxel: both (subjects, voxels), NaN where no value is."""
    both = np.isfinite(first) & np.isfinite(second)
    n = both.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (np.where(both, one, 0.0) for one in (first, second))
        x, y = (np.where(both, one - one.sum(axis=0) / n, 0.0) for one in (x, y))
        r = (x * y).sum(axis=0) / np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    r = np.clip(r, -1, 1)
    r[n < max(min_n, 3)] = np.nan
    return _with_inference(r, n, 0, confidence)


def group_difference(
    maps: FloatArray,
    in_second: npt.NDArray[np.bool_],
    *,
    equal_variances: bool = False,
    min_n: int = 2,
    confidence: float = 0.95,
) -> GroupDifference:
    """Welch's t-test (or Student's, with a pooled variance) at each voxel; at least ``min_n`` subjects in each group.

    Hedges' g: the difference over the pooled SD, times 1 - 3/(4 (n1 + n2) - 9).
    """
    groups = [maps[~in_second], maps[in_second]]
    ns = np.stack([np.isfinite(one).sum(axis=0) for one in groups])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.stack([np.nansum(one, axis=0) for one in groups]) / ns
        squares = np.stack([np.nansum((one - mean) ** 2, axis=0) for one, mean in zip(groups, means, strict=True)])
        variances = squares / (ns - 1)
        pooled = squares.sum(axis=0) / (ns.sum(axis=0) - 2)
        if equal_variances:
            error = np.sqrt(pooled * (1 / ns).sum(axis=0))
            df = (ns.sum(axis=0) - 2).astype(np.float64)
        else:
            parts = variances / ns
            error = np.sqrt(parts.sum(axis=0))
            df = parts.sum(axis=0) ** 2 / (parts**2 / (ns - 1)).sum(axis=0)
        difference = means[1] - means[0]
        t = difference / error
        effect = difference / np.sqrt(pooled) * (1 - 3 / (4 * ns.sum(axis=0) - 9))
        too_few = (ns < max(2, min_n)).any(axis=0)
        for one in (difference, error, df, t, effect):
            one[too_few] = np.nan
        half = stats.t.ppf(0.5 + confidence / 2, df) * error
        maxima = np.stack([np.max(np.where(np.isfinite(one), one, -np.inf), axis=0) for one in groups])
    return GroupDifference(
        difference=difference,
        low=difference - half,
        high=difference + half,
        effect=effect,
        t=t,
        p=2 * stats.t.sf(np.abs(t), df),
        df=df,
        means=means,
        sds=np.sqrt(variances),
        maxima=np.where(np.isfinite(maxima), maxima, np.nan),
        ns=ns,
    )


def _whole(maps: FloatArray, design: Design, ranks: bool) -> FloatArray:
    """r where every subject has a value, by one QR of the nuisance."""
    y, x, nuisance = maps, design.variable, design.nuisance
    if ranks:
        y, x = stats.rankdata(maps, axis=0), stats.rankdata(design.variable)
        nuisance = _ranked(design.covariates)
    basis = np.linalg.qr(nuisance)[0]
    x = x - x.mean()
    x = x - basis @ (basis.T @ x)
    out = np.empty(y.shape[1])
    for start in range(0, y.shape[1], _CHUNK):
        part = y[:, start : start + _CHUNK]
        part = part - part.mean(axis=0)
        rest = part - basis @ (basis.T @ part)
        lengths = np.einsum("ij,ij->j", rest, rest)
        flat = lengths <= 1e-20 * np.einsum("ij,ij->j", part, part) + 1e-300
        with np.errstate(invalid="ignore", divide="ignore"):
            out[start : start + _CHUNK] = np.where(flat, np.nan, (x @ rest) / np.sqrt(lengths * (x @ x)))
    clipped: FloatArray = np.clip(out, -1, 1)
    return clipped


def _weighted(maps: FloatArray, finite: npt.NDArray[np.bool_], design: Design) -> FloatArray:
    """r where subjects are missing: the normal equations of each voxel's own subjects, all voxels at once.

    Columns are centred and scaled before, so that the equations lose few digits.
    """
    x = (design.variable - design.variable.mean()) / design.variable.std()
    columns = np.column_stack([design.nuisance, x])  # (n, k + 2)
    weight = finite.astype(np.float64)
    n = weight.sum(axis=0)
    centre = np.where(finite, maps, 0.0).sum(axis=0) / n
    y = np.where(finite, maps - centre, 0.0)
    products = np.einsum("ip,iq->ipq", columns, columns).reshape(len(x), -1)
    gram = (products.T @ weight).T.reshape(-1, columns.shape[1], columns.shape[1])
    cross = (columns.T @ y).T  # (voxels, k + 2)
    total = np.einsum("ij,ij->j", y, y)
    nuisance, last = slice(0, -1), -1
    rank = np.linalg.matrix_rank(gram, tol=1e-9 * n, hermitian=True)
    out = np.full(maps.shape[1], np.nan)
    ok = np.flatnonzero((rank == columns.shape[1]) & (total > 0))
    if not len(ok):
        return out
    a, b = gram[ok][:, nuisance, nuisance], np.stack([gram[ok][:, nuisance, last], cross[ok][:, nuisance]], axis=2)
    solved = np.linalg.solve(a, b)
    xx = gram[ok][:, last, last] - np.einsum("vp,vp->v", gram[ok][:, nuisance, last], solved[:, :, 0])
    xy = cross[ok][:, last] - np.einsum("vp,vp->v", gram[ok][:, nuisance, last], solved[:, :, 1])
    yy = total[ok] - np.einsum("vp,vp->v", cross[ok][:, nuisance], solved[:, :, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        out[ok] = np.where(yy > 1e-20 * total[ok], xy / np.sqrt(xx * yy), np.nan)
    clipped: FloatArray = np.clip(out, -1, 1)
    return clipped


def _by_pattern(
    maps: FloatArray, finite: npt.NDArray[np.bool_], voxels: IntArray, design: Design, r: FloatArray
) -> None:
    """Fill ``r`` of voxels with missing subjects, all voxels that miss the same ones together."""
    if not len(voxels):
        return
    patterns, which = np.unique(np.packbits(finite[:, voxels], axis=0), axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        chosen = voxels[which == index]
        present = finite[:, chosen[0]]
        part = Design(design.variable[present], design.covariates[present], design.names, ())
        if np.ptp(part.variable) == 0 or (part.covariates.size and (np.ptp(part.covariates, axis=0) == 0).any()):
            continue
        r[chosen] = _whole(maps[np.ix_(present, chosen)], part, ranks=True)


def _ranked(covariates: FloatArray) -> FloatArray:
    if not covariates.shape[1]:
        return np.ones((covariates.shape[0], 1))
    ranked = stats.rankdata(covariates, axis=0)
    return np.column_stack([np.ones(len(ranked)), ranked - ranked.mean(axis=0)])


def _with_inference(r: FloatArray, n: IntArray, k: int, confidence: float) -> Association:
    df = (n - k - 2).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = r * np.sqrt(df / (1 - r * r))
        p = np.where(np.isnan(r), np.nan, 2 * stats.t.sf(np.abs(t), df))
        half = stats.norm.ppf(0.5 + confidence / 2) / np.sqrt(n - k - 3.0)
        centre = np.arctanh(r)
        low, high = np.tanh(centre - half), np.tanh(centre + half)
    df = np.where(np.isnan(r), np.nan, df)
    return Association(r=r, t=t, p=p, df=df, low=low, high=high, n=n)
