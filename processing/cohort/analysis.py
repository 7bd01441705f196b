"""The analyses of the paper on the maps of one level: by variable, by group, between maps, over time.

Each gives a map of effects with intervals, what survives which control, and beside it the same question asked of the
means of whole disc, nucleus and annuli.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from processing.cohort.association import (
    Association,
    GroupDifference,
    adjusted_difference,
    correlation_between_maps,
    equivalent_t,
    group_difference,
    partial_correlation,
    ranked,
)
from processing.cohort.cautions import skew_notes, spread_notes
from processing.cohort.design import Design, DesignError, FloatArray, make_design
from processing.cohort.inference import Inference, InferenceRules, infer
from processing.cohort.lattice import BoolArray
from processing.cohort.level_maps import LevelMaps, changes, region_means
from processing.cohort.permutation import (
    PermutationResult,
    Permuting,
    flip_signs,
    permute_association,
    permute_between,
    permute_groups,
)
from processing.results import Region


@dataclass(frozen=True, slots=True)
class RegionRow:
    """The same question asked of a region's mean. ``effect``: r, or a difference in ms."""

    region: Region
    effect: float
    low: float
    high: float
    t: float
    p: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class MapAnalysis:
    """One analysis of one level. ``effect`` with ``low`` and ``high`` and ``n`` are (voxels,).

    ``kind``: r, or ms. ``groups``: means, SDs, maxima (2, voxels) where two groups were compared.
    """

    title: str
    kind: str
    maps: LevelMaps
    effect: FloatArray
    low: FloatArray
    high: FloatArray
    n: npt.NDArray[np.int64]
    inference: Inference
    regions: tuple[RegionRow, ...]
    units: tuple[str, ...]
    groups: GroupDifference | None = None


def by_variable(
    maps: LevelMaps,
    design: Design,
    rules: InferenceRules,
    *,
    ranks: bool = False,
    min_n: int = 0,
    blocks: npt.NDArray[np.int64] | None = None,
    title: str = "",
    progress: Callable[[float], None] = lambda _: None,
) -> MapAnalysis:
    """Voxel by variable: Pearson, Spearman, or partial with covariates.

    Raises:
        DesignError: a subject of the design has no map, or ranks of the columns explain one another.
    """
    chosen = maps.of(design.units)
    found = partial_correlation(chosen.values, design, ranks=ranks, min_n=min_n)
    family = _family(chosen, found.t)
    complete, of = chosen.values[:, family], design
    if ranks:  # Spearman's correlation is Pearson's of ranks, and so are its residuals and permutations
        complete, of = stats.rankdata(complete, axis=0), ranked(design)
        make_design(of.variable.tolist(), dict(zip(of.names, of.covariates.T, strict=True)), units=of.units)
    inference = infer(
        found.t,
        found.p,
        design.n - design.covariates.shape[1] - 2,
        _residuals(complete, np.column_stack([of.nuisance, of.variable])),
        family,
        chosen.mask,
        rules,
        _permute(rules, progress, lambda asked: permute_association(complete, of, asked, blocks=blocks)),
    )
    regions = partial_correlation(region_means(chosen), design, ranks=ranks, min_n=min_n)
    return MapAnalysis(
        title or f"{chosen.quantity} by {design.variable_name}",
        "r",
        chosen,
        found.r,
        found.low,
        found.high,
        found.n,
        inference,
        _association_rows(regions),
        design.units,
    )


def by_group(
    maps: LevelMaps,
    in_second: Design,
    rules: InferenceRules,
    *,
    equal_variances: bool = False,
    min_n: int = 4,
    blocks: npt.NDArray[np.int64] | None = None,
    title: str = "",
    progress: Callable[[float], None] = lambda _: None,
) -> MapAnalysis:
    """Voxel by group: second (1 in the design's variable) minus first, Welch or pooled.

    With covariates the difference is of adjusted means, in a regression with one variance.

    Raises:
        DesignError: a group of fewer than two, or a subject without a map.
    """
    second = _second_group(in_second)
    chosen = maps.of(in_second.units)
    k = in_second.covariates.shape[1]
    is_welch = not k and not equal_variances

    def compare(values: FloatArray) -> GroupDifference:
        if k:
            return adjusted_difference(values, in_second, min_n=min_n)
        return group_difference(values, second, equal_variances=equal_variances, min_n=min_n)

    found = compare(chosen.values)
    family = _family(chosen, found.t)
    complete, df = chosen.values[:, family], in_second.n - k - 2

    def permute(asked: Permuting) -> PermutationResult:
        if is_welch:
            return permute_groups(complete, second, asked, blocks=blocks)
        return permute_association(complete, in_second, asked, blocks=blocks)

    inference = infer(
        equivalent_t(found.t, found.df, df) if is_welch else found.t,
        found.p,
        df,
        _residuals(complete, np.column_stack([in_second.nuisance, in_second.variable])),
        family,
        chosen.mask,
        rules,
        _permute(rules, progress, permute),
    )
    notes = list(inference.notes)
    if k and not equal_variances:
        notes.append(f"adjusted for {', '.join(in_second.names)}: one variance for both groups")
    notes += spread_notes(found.sds[:, family])
    inference = replace(inference, notes=tuple(notes))
    rows = compare(region_means(chosen))
    regions = _region_rows(rows.difference, rows.low, rows.high, rows.t, rows.p, rows.ns.sum(axis=0))
    return MapAnalysis(
        title or f"{chosen.quantity} by {in_second.variable_name}",
        "ms",
        chosen,
        found.difference,
        found.low,
        found.high,
        found.ns.sum(axis=0),
        inference,
        regions,
        in_second.units,
        found,
    )


def between_maps(
    first: LevelMaps,
    second: LevelMaps,
    rules: InferenceRules,
    *,
    min_n: int = 3,
    blocks: npt.NDArray[np.int64] | None = None,
    title: str = "",
    progress: Callable[[float], None] = lambda _: None,
) -> MapAnalysis:
    """Voxel by voxel: two quantities over subjects that have both. No random field theory: it is no t field.

    ``blocks``: sites, (subjects that have both,), in the order of ``first``: their means are taken out of both maps and
    of the means of regions, and subjects change places within a site only.

    Raises:
        DesignError: fewer than three subjects have both, or than two more than there are sites.
    """
    units = tuple(unit for unit in first.units if unit in set(second.units))
    if len(units) < 3:
        raise DesignError(f"{len(units)} subjects have both maps; at least 3 are needed")
    one, other = first.of(units), second.of(units)
    n_sites = 1 if blocks is None else len(np.unique(blocks))
    df = len(units) - 1 - n_sites
    if df < 1:
        raise DesignError(f"{len(units)} subjects are too few for {n_sites} sites")
    found = correlation_between_maps(one.values, other.values, blocks=blocks, min_n=min_n)
    family = _family(one, found.t) & _family(other, found.t)
    x, y = one.values[:, family], other.values[:, family]
    permute = _permute(rules, progress, lambda asked: permute_between(x, y, asked, blocks=blocks))
    inference = infer(found.t, found.p, df, None, family, one.mask, rules, permute)
    regions = correlation_between_maps(region_means(one), region_means(other), blocks=blocks, min_n=min_n)
    return MapAnalysis(
        title or f"{one.quantity} by {other.quantity}",
        "r",
        one,
        found.r,
        found.low,
        found.high,
        found.n,
        inference,
        _association_rows(regions),
        units,
    )


def over_time(
    baseline: LevelMaps,
    later: LevelMaps,
    rules: InferenceRules,
    *,
    min_n: int = 3,
    title: str = "",
    progress: Callable[[float], None] = lambda _: None,
) -> MapAnalysis:
    """Whether the mean change from baseline differs from zero: one row for each subject, signs are flipped.

    Raises:
        DesignError: fewer than three subjects have both.
    """
    return mean_change(changes(baseline, later), rules, min_n=min_n, title=title, progress=progress)


def mean_change(
    change: LevelMaps,
    rules: InferenceRules,
    *,
    min_n: int = 3,
    title: str = "",
    progress: Callable[[float], None] = lambda _: None,
) -> MapAnalysis:
    """Whether the mean of maps of change (of differences, of slopes) differs from zero; signs are flipped.

    Raises:
        DesignError: fewer than three subjects.
    """
    n = np.isfinite(change.values).sum(axis=0)
    if len(change.units) < 3:
        raise DesignError(f"{len(change.units)} subjects have a change; at least 3 are needed")
    effect, low, high, t, p = _one_sample(change.values, min_n)
    family = _family(change, t)
    complete = change.values[:, family]
    inference = infer(
        t,
        p,
        len(change.units) - 1,
        complete - complete.mean(axis=0),
        family,
        change.mask,
        rules,
        _permute(rules, progress, lambda asked: flip_signs(complete, asked)),
    )
    inference = replace(inference, notes=(*inference.notes, *skew_notes(complete)))
    means = region_means(change)
    regions = _region_rows(*_one_sample(means, min_n), np.isfinite(means).sum(axis=0))
    return MapAnalysis(title or change.quantity, "ms", change, effect, low, high, n, inference, regions, change.units)


def _second_group(in_second: Design) -> BoolArray:
    """Who is in the second group, (subjects,)."""
    second: BoolArray = in_second.variable > 0.5
    for name, count in (("first", int((~second).sum())), ("second", int(second.sum()))):
        if count < 2:
            raise DesignError(
                f"{in_second.variable_name}: the {name} group has {count} subjects; at least 2 are needed"
            )
    return second


def _one_sample(values: FloatArray, min_n: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    n = np.isfinite(values).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=0) / n
        error = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / (n - 1) / n)
        t = mean / error
        p = 2 * stats.t.sf(np.abs(t), n - 1)  # no spread at all: t is infinite, and nothing can be said
        half = stats.t.ppf(0.975, n - 1) * error
    unknown = (n < max(min_n, 2)) | ~np.isfinite(t)
    return tuple(np.where(unknown, np.nan, one) for one in (mean, mean - half, mean + half, t, p))  # type: ignore[return-value]


def _family(maps: LevelMaps, t: FloatArray) -> BoolArray:
    """The voxels that all subjects have and that can be tested."""
    family: BoolArray = np.logical_and(np.isfinite(maps.values).all(axis=0), np.isfinite(t))
    return family


def _residuals(complete: FloatArray, full: FloatArray) -> FloatArray:
    basis = np.linalg.qr(full)[0]
    rest: FloatArray = complete - basis @ (basis.T @ complete)
    return rest


def _permute(
    rules: InferenceRules, progress: Callable[[float], None], make: Callable[[Permuting], PermutationResult]
) -> Callable[[BoolArray, float], PermutationResult] | None:
    """What makes the permutations of the family's voxels; None where the rules ask for none."""
    if not rules.n_permutations:
        return None

    def permute(family: BoolArray, forming: float) -> PermutationResult:
        return make(
            Permuting(
                rules.n_permutations,
                rules.seed,
                mask=family,
                cluster_height=forming,
                threshold_free=rules.threshold_free,
                progress=progress,
            )
        )

    return permute


def _association_rows(found: Association) -> tuple[RegionRow, ...]:
    return _region_rows(found.r, found.low, found.high, found.t, found.p, found.n)


def _region_rows(
    effect: FloatArray,
    low: FloatArray,
    high: FloatArray,
    t: FloatArray,
    p: FloatArray,
    n: npt.NDArray[np.int64],
) -> tuple[RegionRow, ...]:
    return tuple(
        RegionRow(region, float(effect[i]), float(low[i]), float(high[i]), float(t[i]), float(p[i]), int(n[i]))
        for i, region in enumerate(Region)
    )


def group_design(
    labels: npt.NDArray[np.bool_],
    units: tuple[str, ...],
    name: str,
    covariates: dict[str, list[float]] | None = None,
) -> Design:
    """Two groups as a design: 1 for the second.

    Raises:
        DesignError: all subjects are of one group.
    """
    return make_design(labels.astype(float).tolist(), covariates, units=units, variable_name=name)
