"""Visits of a trial's subjects as one model: estimated means of each group at each visit, and what they differ by.

Fixed terms: group x visit as cell means, baseline x visit, covariates and sites. Baseline, covariates and sites are
centred at the mean of the subjects in the model, so that an estimated mean is that of a group with the subjects'
average baseline, covariates and share of sites. Several discs of a subject are occasions of the same unstructured
covariance as its visits: a subject is one independent unit, always.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from processing.cohort.design import COLLINEAR, DesignError, FloatArray
from processing.cohort.multiplicity import adjusted
from processing.cohort.repeated_measures import Adjustment, Estimate, RepeatedMeasures, fit_repeated_measures

_ASKED_FIRST = ("change between", "between", "change", "mean")


class Occasion(NamedTuple):
    """When and where a subject is measured: ``level``, or what stands for several; ``visit``."""

    level: str
    visit: str

    def __str__(self) -> str:
        return f"{self.level} {self.visit}".strip()


@dataclass(frozen=True, slots=True, eq=False)
class VisitData:
    """One row a subject.

    ``values`` (subjects, occasions) ms, NaN where missing; ``baseline`` of each occasion's level, the same shape, or
    None; ``group`` (subjects,) the place in ``groups``, of which the first is the reference; ``covariates`` (subjects,
    k), as they are. ``baseline_visit``: what changes are from; among the visits of values, not of changes.
    """

    subjects: tuple[str, ...]
    occasions: tuple[Occasion, ...]
    values: FloatArray
    group: npt.NDArray[np.int64]
    groups: tuple[str, ...]
    baseline: FloatArray | None = None
    covariates: FloatArray | None = None
    covariate_names: tuple[str, ...] = ()
    baseline_visit: str = ""

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels in order."""
        return tuple(dict.fromkeys(one.level for one in self.occasions))

    @property
    def visits(self) -> tuple[str, ...]:
        """Visits in order."""
        return tuple(dict.fromkeys(one.visit for one in self.occasions))

    def of(self, kept: npt.NDArray[np.bool_]) -> "VisitData":
        """Some of the subjects."""
        return replace(
            self,
            subjects=tuple(one for one, keep in zip(self.subjects, kept, strict=True) if keep),
            values=self.values[kept],
            group=self.group[kept],
            baseline=None if self.baseline is None else self.baseline[kept],
            covariates=None if self.covariates is None else self.covariates[kept],
        )


@dataclass(frozen=True, slots=True)
class MeanRow:
    """One group at one occasion: what was measured of ``n`` subjects, and the model's estimate, ms."""

    group: str
    level: str
    visit: str
    n: int
    mean_ms: float
    sd_ms: float
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class ContrastRow:
    """One difference of estimated means, ms. ``level`` empty: the mean over all levels of the model.

    ``kind``: ``between`` (group less reference), ``change`` (from the baseline visit, of a group), ``change between``;
    ``mean``: of a model without groups and without a baseline visit; P, that it is zero, of a change only, else NaN.
    ``p_holm``: P adjusted by Holm for all levels and groups that are asked at the visit; NaN where it is one alone.
    """

    kind: str
    group: str
    reference: str
    level: str
    visit: str
    estimate: Estimate
    p_holm: float = float("nan")

    @property
    def words(self) -> str:
        """What is compared."""
        if self.kind == "mean":
            return "mean"
        if self.kind == "change":
            return f"{self.group}: change".removeprefix(": ")
        compared = f"{self.group} less {self.reference}"
        return f"change, {compared}" if self.kind == "change between" else compared


@dataclass(frozen=True, slots=True, eq=False)
class VisitFit:
    """A fitted model. ``columns`` of its design; subjects without any value are not in ``data``."""

    data: VisitData
    fitted: RepeatedMeasures
    adjustment: Adjustment
    means: tuple[MeanRow, ...]
    contrasts: tuple[ContrastRow, ...]


def check_visits(data: VisitData) -> None:
    """Pass if a model can be told from who was measured when; values need not be known, only whether they are there.

    Raises:
        DesignError: a group of one at an occasion, a constant or missing covariate, or too few subjects for the
            unstructured covariance.
    """
    present = np.isfinite(data.values)
    for index, name in enumerate(data.covariate_names):
        column = _covariates(data)[:, index]
        without = [one for one, value in zip(data.subjects, column, strict=True) if not np.isfinite(value)]
        if without:
            raise DesignError(f"{name}: no value for {', '.join(without)}")
        if np.ptp(column) == 0:
            raise DesignError(f"{name}: the same value ({column[0]:g}) for all subjects")
    _check_collinear(data)
    for place, occasion in enumerate(data.occasions):
        for index, group in enumerate(data.groups):
            n = int((present[:, place] & (data.group == index)).sum())
            if n < 2:
                told = f"the group {group!r} has" if len(data.groups) > 1 else "there are"
                raise DesignError(f"{told} {n} subjects with a value at {occasion}; at least 2 are needed")
    m = len(data.occasions)
    fixed = len(data.groups) + (data.baseline is not None) + len(data.covariate_names)
    n = int(present.any(axis=1).sum())
    if n < m + fixed:
        raise DesignError(
            f"{n} subjects are too few for an unstructured covariance of {m} occasions ({m * (m + 1) // 2} numbers)"
            f" beside {fixed} fixed terms at each: at least {m + fixed} are needed"
        )
    together = present.T.astype(int) @ present
    for i in range(m):
        for j in range(i):
            if together[i, j] < fixed + 2:
                raise DesignError(
                    f"{data.occasions[j]} and {data.occasions[i]}: {together[i, j]} subjects have both; their"
                    f" covariance needs at least {fixed + 2}"
                )


def _check_collinear(data: VisitData) -> None:
    """Each covariate tells something that groups and the covariates before it do not."""
    basis = np.stack([data.group == index for index in range(len(data.groups))], axis=1).astype(np.float64)
    basis = np.linalg.qr(basis[:, basis.any(axis=0)])[0]
    for name, column in zip(data.covariate_names, _covariates(data).T, strict=True):
        centred = column - column.mean()
        rest = centred - basis @ (basis.T @ centred)
        if np.linalg.norm(rest) < COLLINEAR * np.linalg.norm(centred):
            raise DesignError(f"{name}: is a combination of the groups and the columns before it")
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])


def fit_visits(data: VisitData, adjustment: Adjustment = "kenward-roger", confidence: float = 0.95) -> VisitFit:
    """Fit the model and take from it what a trial asks.

    Raises:
        DesignError: as of :func:`check_visits` and
            :func:`processing.cohort.repeated_measures.fit_repeated_measures`.
    """
    data = measured_only(data)
    check_visits(data)
    design, names = visit_design(data)
    n, m = data.values.shape
    labels = [str(one) for one in data.occasions]
    fitted = fit_repeated_measures(
        data.values.ravel().tolist(),
        design.reshape(n * m, -1),
        [one for one in data.subjects for _ in range(m)],
        labels * n,
        names=names,
        order=labels,
    )
    rows = _Rows(data, fitted, adjustment, confidence)
    return VisitFit(data, fitted, adjustment, rows.means(), rows.contrasts())


def target_contrasts(contrasts: Sequence[ContrastRow]) -> tuple[ContrastRow, ...]:
    """What a model is asked first, at the last visit and over all its levels: each group less the reference.

    Of values with a baseline visit, the change of each group less that of the reference. Without groups, the change
    from the baseline visit, else the mean.
    """
    for kind in _ASKED_FIRST:
        rows = [one for one in contrasts if one.kind == kind]
        rows = [one for one in rows if not one.level] or rows
        if rows:
            return tuple(one for one in rows if (one.level, one.visit) == (rows[-1].level, rows[-1].visit))
    raise ValueError("a model has a contrast at least")


def some_finite(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Rows that are not all NaN."""
    return np.asarray(np.isfinite(values).any(axis=1))


def measured_only(data: VisitData) -> VisitData:
    """Without subjects that have no value, and without values whose baseline is missing."""
    values = data.values
    if data.baseline is not None:
        values = np.where(np.isfinite(data.baseline), values, np.nan)
    return replace(data, values=values).of(some_finite(values))


def visit_design(data: VisitData) -> tuple[FloatArray, tuple[str, ...]]:
    """(subjects, occasions, coefficients) and the coefficients' names: cell means, then what is centred."""
    n, m = data.values.shape
    blocks, names = [], []
    for place, occasion in enumerate(data.occasions):
        for index, group in enumerate(data.groups):
            column = np.zeros((n, m))
            column[data.group == index, place] = 1.0
            blocks.append(column)
            names.append(f"{group} at {occasion}".removeprefix(" at "))
    if data.baseline is not None:
        centred = centred_baseline(data)
        for place, occasion in enumerate(data.occasions):
            column = np.zeros((n, m))
            column[:, place] = centred[:, place]
            blocks.append(column)
            names.append(f"baseline at {occasion}")
    covariates = _covariates(data)
    for index, name in enumerate(data.covariate_names):
        values = covariates[:, index] - covariates[:, index].mean()
        blocks.append(np.repeat(values[:, None], m, axis=1))
        names.append(name)
    return np.stack(blocks, axis=2), tuple(names)


def centred_baseline(data: VisitData) -> FloatArray:
    """Baseline less its mean over the subjects, zero where it is missing; (subjects, occasions)."""
    if data.baseline is None:
        raise ValueError("the model has no baseline")
    centred: FloatArray = np.nan_to_num(data.baseline - np.nanmean(data.baseline, axis=0))
    return centred


def with_holm(fits: tuple[VisitFit, ...]) -> tuple[VisitFit, ...]:
    """One model, or one for each level: P also adjusted (Holm) for all levels and groups that are asked at a visit.

    Levels are a family where they have models of their own; groups where several are compared with the reference.
    """
    families: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
    for at, fit in enumerate(fits):
        for place, row in enumerate(fit.contrasts):
            group, level = row.group if row.kind == "change" else "", row.level if len(fits) == 1 else ""
            families.setdefault((row.kind, group, level, row.visit), []).append((at, place))
    changed = [list(fit.contrasts) for fit in fits]
    for places in families.values():
        if len(places) < 2:
            continue
        p = adjusted(np.array([changed[at][place].estimate.p for at, place in places]), "holm")
        for (at, place), value in zip(places, p, strict=True):
            changed[at][place] = replace(changed[at][place], p_holm=float(value))
    return tuple(replace(fit, contrasts=tuple(rows)) for fit, rows in zip(fits, changed, strict=True))


def _covariates(data: VisitData) -> FloatArray:
    return np.empty((len(data.subjects), 0)) if data.covariates is None else data.covariates


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """What is told of a fitted model."""

    data: VisitData
    fitted: RepeatedMeasures
    adjustment: Adjustment
    confidence: float

    def means(self) -> tuple[MeanRow, ...]:
        rows = []
        for index, group in enumerate(self.data.groups):
            for place, occasion in enumerate(self.data.occasions):
                values = self.data.values[self.data.group == index, place]
                values = values[np.isfinite(values)]
                estimate = self._estimate(self._cell(index, place))
                sd = float(values.std(ddof=1))
                rows.append(
                    MeanRow(group, occasion.level, occasion.visit, len(values), float(values.mean()), sd, estimate)
                )
        return tuple(rows)

    def contrasts(self) -> tuple[ContrastRow, ...]:
        levels = self.data.levels if len(self.data.levels) == 1 else (*self.data.levels, "")
        rows = []
        for level in levels:
            for visit in self.data.visits:
                for index, group in enumerate(self.data.groups):
                    cell, first = self._at(index, level, visit), self._at(0, level, visit)
                    is_later = bool(self.data.baseline_visit) and visit != self.data.baseline_visit
                    before = self._at(index, level, self.data.baseline_visit) if is_later else cell
                    before_first = self._at(0, level, self.data.baseline_visit) if is_later else first
                    if len(self.data.groups) == 1 and not self.data.baseline_visit:
                        rows.append(self._mean(group, level, visit, cell))
                    if is_later:
                        rows.append(self._row("change", group, "", level, visit, cell - before))
                    if index:
                        rows.append(self._row("between", group, self.data.groups[0], level, visit, cell - first))
                    if index and is_later:
                        weights = cell - before - first + before_first
                        rows.append(self._row("change between", group, self.data.groups[0], level, visit, weights))
        return tuple(rows)

    def _mean(self, group: str, level: str, visit: str, weights: FloatArray) -> ContrastRow:
        row = self._row("mean", group, "", level, visit, weights)
        if self.data.baseline is not None:
            return row
        return replace(row, estimate=replace(row.estimate, p=float("nan")))  # that a value is zero is no question

    def _row(self, kind: str, group: str, reference: str, level: str, visit: str, weights: FloatArray) -> ContrastRow:
        return ContrastRow(kind, group, reference, level, visit, self._estimate(weights))

    def _cell(self, group: int, place: int) -> FloatArray:
        weights = np.zeros(len(self.fitted.beta))
        weights[place * len(self.data.groups) + group] = 1.0
        return weights

    def _at(self, group: int, level: str, visit: str) -> FloatArray:
        """The mean over the occasions of a level (all where it is empty) at a visit."""
        places = [
            place for place, one in enumerate(self.data.occasions) if one.visit == visit and level in (one.level, "")
        ]
        weights: FloatArray = sum(
            (self._cell(group, place) for place in places), start=np.zeros(len(self.fitted.beta))
        ) / len(places)
        return weights

    def _estimate(self, weights: FloatArray) -> Estimate:
        return self.fitted.contrast(weights.tolist(), adjustment=self.adjustment, confidence=self.confidence)
