"""Voxel by variable, by group, by voxel: one number for each voxel, with its interval and how many subjects are in it.

Arrays of maps are ``(subjects, voxels)``, NaN where a subject has no value at a voxel; that subject is then left out at
that voxel. Nothing is pooled over levels.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from processing.cohort.design import Design, FloatArray

IntArray = npt.NDArray[np.int64]

#: Voxels that are worked on at once.
_CHUNK = 50_000

#: Values whose squares about their mean are this share of their squares differ by rounding alone.
_FLAT = 1e-20


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
    ``high`` of its interval, of adjusted means where there are covariates; ``effect``: Hedges' g.
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

    r has n - k - 2 degrees of freedom with k covariates. Its interval is Fisher's with standard error
    1/sqrt(n - k - 3), of ranks sqrt((1 + r^2/2) / (n - k - 3)) (Bonett & Wright, Psychometrika 2000;65:23).

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
    fit = _fit(maps, design, ranks=ranks, min_n=min_n)
    return _with_inference(fit.r, fit.n, design.covariates.shape[1], confidence, ranks=ranks)


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """r of each voxel with what the covariates leave of the variable; squares of what they leave of both; subjects."""

    r: FloatArray
    variable_square: FloatArray
    voxel_square: FloatArray
    n: IntArray


def _fit(maps: FloatArray, design: Design, *, ranks: bool, min_n: int) -> _Fit:
    finite = np.isfinite(maps)
    n = finite.sum(axis=0)
    enough = max(min_n, design.covariates.shape[1] + 3)
    found = np.full((3, maps.shape[1]), np.nan)
    whole = finite.all(axis=0)
    if whole.any():
        found[:, whole] = _whole(maps[:, whole], design, ranks)
    partly = np.flatnonzero(~whole & (n >= enough))
    if ranks:
        _by_pattern(maps, finite, partly, design, found)
    else:
        for start in range(0, len(partly), _CHUNK):
            chosen = partly[start : start + _CHUNK]
            found[:, chosen] = _weighted(maps[:, chosen], finite[:, chosen], design)
    found[:, n < enough] = np.nan
    return _Fit(found[0], found[1], found[2], n)


def correlation_between_maps(
    first: FloatArray,
    second: FloatArray,
    *,
    blocks: IntArray | None = None,
    min_n: int = 0,
    confidence: float = 0.95,
) -> Association:
    """Pearson correlation over subjects of two maps, voxel by voxel: both (subjects, voxels), NaN where no value is.

    ``blocks`` (subjects,): sites whose means are taken out of both maps: r is partial, and each site but one that has
    values at a voxel costs a degree of freedom there.
    """
    both = np.isfinite(first) & np.isfinite(second)
    n = both.sum(axis=0)
    block_of = np.zeros(len(first), np.int64) if blocks is None else blocks
    present = np.stack([both[block_of == one].any(axis=0) for one in np.unique(block_of)]).sum(axis=0)
    k = np.maximum(present - 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (np.where(both, one, 0.0) for one in (first, second))
        squares = [(one * one).sum(axis=0) for one in (x, y)]
        x, y = (within_blocks(one, block_of, both) for one in (x, y))
        xx, yy = (x * x).sum(axis=0), (y * y).sum(axis=0)
        r = (x * y).sum(axis=0) / np.sqrt(xx * yy)
    r = np.clip(r, -1, 1)
    flat = (xx <= _FLAT * squares[0]) | (yy <= _FLAT * squares[1])
    r[flat | (n < np.maximum(min_n, k + 3))] = np.nan
    return _with_inference(r, n, k, confidence)


def within_blocks(maps: FloatArray, blocks: IntArray, known: npt.NDArray[np.bool_] | None = None) -> FloatArray:
    """Maps (subjects, voxels) less the mean of each block at each voxel, over the ``known`` values; 0 elsewhere."""
    centred = np.zeros_like(maps)
    for block in np.unique(blocks):
        mine = blocks == block
        part = maps[mine]
        weight = np.ones(part.shape, bool) if known is None else known[mine]
        mean = np.where(weight, part, 0.0).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
        centred[mine] = np.where(weight, part - mean, 0.0)
    return centred


def group_difference(
    maps: FloatArray,
    in_second: npt.NDArray[np.bool_],
    *,
    equal_variances: bool = False,
    min_n: int = 2,
    confidence: float = 0.95,
) -> GroupDifference:
    """Welch's t-test (or Student's, with a pooled variance) at each voxel.

    Hedges' g: the difference over the pooled SD, times 1 - 3/(4 (n1 + n2) - 9). Fewer than ``min_n`` subjects, or than
    two in a group, or groups without any spread: no result.
    """
    groups = [maps[~in_second], maps[in_second]]
    ns = np.stack([np.isfinite(one).sum(axis=0) for one in groups])
    finite = np.isfinite(maps)
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
        unknown = (ns < 2).any(axis=0) | (ns.sum(axis=0) < min_n)
        unknown |= squares.sum(axis=0) <= _FLAT * (np.where(finite, maps, 0.0) ** 2).sum(axis=0)
        for one in (difference, error, df, t, effect):
            one[unknown] = np.nan
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


def adjusted_difference(
    maps: FloatArray, design: Design, *, min_n: int = 0, confidence: float = 0.95
) -> GroupDifference:
    """Second minus first group (1 and 0 in the design's variable) in a regression with covariates, of one variance.

    Hedges' g is of the adjusted difference and the residual SD.
    """
    in_second = design.variable > 0.5
    raw = group_difference(maps, in_second, equal_variances=True, min_n=min_n, confidence=confidence)
    fit = _fit(maps, design, ranks=False, min_n=min_n)
    found = _with_inference(fit.r, fit.n, design.covariates.shape[1], confidence)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = fit.r * np.sqrt(fit.voxel_square / fit.variable_square)
        residual = np.sqrt(fit.voxel_square * (1 - fit.r**2) / found.df)
        half = stats.t.ppf(0.5 + confidence / 2, found.df) * residual / np.sqrt(fit.variable_square)
        effect = difference / residual * (1 - 3 / (4 * fit.n - 9))
    unknown = (raw.ns < 2).any(axis=0)
    for one in (difference, found.t, found.p, found.df, effect):
        one[unknown] = np.nan
    return GroupDifference(
        difference=difference,
        low=difference - half,
        high=difference + half,
        effect=effect,
        t=found.t,
        p=found.p,
        df=found.df,
        means=raw.means,
        sds=raw.sds,
        maxima=raw.maxima,
        ns=raw.ns,
    )


def equivalent_t(t: FloatArray, df: FloatArray, wanted_df: float) -> FloatArray:
    """The t of ``wanted_df`` degrees of freedom that is as rare as one of ``df``: both by Wallace's normal deviate.

    z = (8 df + 1) / (8 df + 3) sqrt(df ln(1 + t^2 / df)), Ann Math Stat 1959;30:1121. Voxels whose degrees of freedom
    differ come to one scale so.
    """
    deviate = (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(np.square(t) / df))
    back = deviate * (8 * wanted_df + 3) / (8 * wanted_df + 1)
    equivalent: FloatArray = np.copysign(np.sqrt(wanted_df * np.expm1(np.square(back) / wanted_df)), t)
    return equivalent


def _whole(maps: FloatArray, design: Design, ranks: bool) -> FloatArray:
    """r, and the squares, (3, voxels), where every subject has a value, by one QR of the nuisance."""
    y, of = maps, ranked(design) if ranks else design
    if ranks:
        y = stats.rankdata(maps, axis=0)
    basis = np.linalg.qr(of.nuisance)[0]
    x = of.variable - of.variable.mean()
    x = x - basis @ (basis.T @ x)
    out = np.empty((3, y.shape[1]))
    out[1] = x @ x
    for start in range(0, y.shape[1], _CHUNK):
        part = y[:, start : start + _CHUNK]
        before = np.einsum("ij,ij->j", part, part)
        part = part - part.mean(axis=0)
        rest = part - basis @ (basis.T @ part)
        lengths = np.einsum("ij,ij->j", rest, rest)
        flat = lengths <= _FLAT * before + 1e-300
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.where(flat, np.nan, (x @ rest) / np.sqrt(lengths * (x @ x)))
        out[0, start : start + _CHUNK], out[2, start : start + _CHUNK] = np.clip(r, -1, 1), lengths
    return out


def _weighted(maps: FloatArray, finite: npt.NDArray[np.bool_], design: Design) -> FloatArray:
    """r, and the squares, (3, voxels), where subjects are missing: each voxel's own normal equations, all at once.

    Columns are centred and scaled before, so that the equations lose few digits.
    """
    scale = design.variable.std()
    x = (design.variable - design.variable.mean()) / scale
    columns = np.column_stack([design.nuisance, x])  # (n, k + 2)
    weight = finite.astype(np.float64)
    n = weight.sum(axis=0)
    centre = np.where(finite, maps, 0.0).sum(axis=0) / n
    y = np.where(finite, maps - centre, 0.0)
    products = np.einsum("ip,iq->ipq", columns, columns).reshape(len(x), -1)
    gram = (products.T @ weight).T.reshape(-1, columns.shape[1], columns.shape[1])
    cross = (columns.T @ y).T  # (voxels, k + 2)
    total = np.einsum("ij,ij->j", y, y)
    held = np.where(finite, maps, 0.0)
    flat = total <= _FLAT * np.einsum("ij,ij->j", held, held)
    nuisance, last = slice(0, -1), -1
    rank = np.linalg.matrix_rank(gram, tol=1e-9 * n, hermitian=True)
    out = np.full((3, maps.shape[1]), np.nan)
    ok = np.flatnonzero((rank == columns.shape[1]) & ~flat)
    if not len(ok):
        return out
    a, b = gram[ok][:, nuisance, nuisance], np.stack([gram[ok][:, nuisance, last], cross[ok][:, nuisance]], axis=2)
    solved = np.linalg.solve(a, b)
    xx = gram[ok][:, last, last] - np.einsum("vp,vp->v", gram[ok][:, nuisance, last], solved[:, :, 0])
    xy = cross[ok][:, last] - np.einsum("vp,vp->v", gram[ok][:, nuisance, last], solved[:, :, 1])
    yy = total[ok] - np.einsum("vp,vp->v", cross[ok][:, nuisance], solved[:, :, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(yy > _FLAT * total[ok], xy / np.sqrt(xx * yy), np.nan)
    out[:, ok] = np.clip(r, -1, 1), xx * scale**2, yy
    return out


def _by_pattern(
    maps: FloatArray, finite: npt.NDArray[np.bool_], voxels: IntArray, design: Design, out: FloatArray
) -> None:
    """Fill ``out`` (3, voxels) of voxels with missing subjects, all voxels that miss the same ones together."""
    if not len(voxels):
        return
    patterns, which = np.unique(np.packbits(finite[:, voxels], axis=0), axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        chosen = voxels[which == index]
        present = finite[:, chosen[0]]
        part = ranked(Design(design.variable[present], design.covariates[present], design.names, ()))
        columns = np.column_stack([np.ones(part.n), part.covariates, part.variable])
        if np.linalg.matrix_rank(columns) < columns.shape[1]:
            continue
        out[:, chosen] = _whole(maps[np.ix_(present, chosen)], part, ranks=True)


def ranked(design: Design) -> Design:
    """The design of Spearman's correlation: variable and covariates in ranks, ties their mean rank."""
    covariates = stats.rankdata(design.covariates, axis=0) if design.covariates.size else design.covariates
    return replace(design, variable=stats.rankdata(design.variable), covariates=covariates)


def _with_inference(
    r: FloatArray, n: IntArray, k: int | IntArray, confidence: float, *, ranks: bool = False
) -> Association:
    df = (n - k - 2).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = r * np.sqrt(df / np.maximum(1 - r * r, np.finfo(np.float64).eps))  # finite for a perfect correlation, too
        p = np.where(np.isnan(r), np.nan, 2 * stats.t.sf(np.abs(t), df))
        spread = 1 + r * r / 2 if ranks else 1.0
        half = stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(spread / (n - k - 3.0))
        centre = np.arctanh(r)
        low, high = np.tanh(centre - half), np.tanh(centre + half)
    df = np.where(np.isnan(r), np.nan, df)
    return Association(r=r, t=t, p=p, df=df, low=low, high=high, n=n)
