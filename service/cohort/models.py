"""The models of a plan: from its table and maps to the visits of each subject, and what is found in them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from config.cohort_models import VisitModel
from config.cohort_plans import CohortPlan
from processing.change_limits import change_limits
from processing.cohort.design import DesignError
from processing.cohort.missing_data import MissingDataResult, missing_data_sensitivity
from processing.cohort.responders import ResponderTable, count_responders, is_responder
from processing.cohort.visit_models import (
    ContrastRow,
    MeanRow,
    Occasion,
    VisitData,
    VisitFit,
    check_visits,
    fit_visits,
    measured_only,
    some_finite,
    target_contrasts,
    with_holm,
)
from processing.precision_profile import read_precision
from processing.results import Level, Quantity, Region
from processing.visits import Cell, Precision
from service.cohort.maps import CohortMaps
from service.cohort.table import CohortError, CohortTable
from service.cohort.visits import ModelVisits, called, levels_of, visit_data


@dataclass(frozen=True, slots=True)
class ModelFinding:
    """One model, of one level where levels have models of their own; as it is stored.

    ``level``: name of a level, of several, or of their mean. ``covariance`` of the ``occasions``, ms². ``terms``:
    coefficients. ``n_known`` (visits,): subjects with a value, of ``n_subjects`` in the model. ``n_begun``: subjects
    with a baseline, those who never came again too (of values: with one at the baseline visit, where there is one).
    ``limit``: of a responder, in words. ``responders``: missing left out, and as non-responders. ``left_out``:
    subjects, with reason.
    """

    name: str
    level: str
    quantity: str
    region: str
    response: str
    baseline: str
    group_column: str
    adjustment: str
    occasions: tuple[Occasion, ...]
    groups: tuple[str, ...]
    terms: tuple[str, ...]
    n_subjects: int
    n_begun: int
    n_values: int
    n_known: tuple[int, ...]
    minus_two_reml: float
    covariance: tuple[tuple[float, ...], ...]
    means: tuple[MeanRow, ...]
    contrasts: tuple[ContrastRow, ...]
    limit: str
    responders: tuple[ResponderTable, ...]
    missing: tuple[MissingDataResult, ...]
    left_out: tuple[str, ...]

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    @property
    def targets(self) -> tuple[ContrastRow, ...]:
        """What is asked first: see :func:`processing.cohort.visit_models.target_contrasts`."""
        return target_contrasts(self.contrasts)


def check_models(plan: CohortPlan, table: CohortTable) -> tuple[str, ...]:
    """Everything that can be told before maps are read; returns notes in words.

    Raises:
        CohortError: what is wrong, one fault a line.
    """
    faults: dict[tuple[str, str], list[str]] = {}
    notes = []
    for asked in plan.models:
        for levels in levels_of(plan, asked):
            name = called(asked, levels)
            try:
                visits = visit_data(plan, table, asked, levels, None)
                check_visits(measured_only(visits.data))
                _precision(asked, levels[0])
            except (CohortError, DesignError) as error:
                for fault in str(error).split("\n"):
                    faults.setdefault((asked.name, fault), []).extend(one.name for one in levels)
                continue
            notes.append(f"{name}: {_counted(visits)}")
    if faults:
        lines = (f"{name} at {', '.join(at)}: {fault}" for (name, fault), at in faults.items())
        raise CohortError("\n".join(lines))
    return tuple(notes)


def _counted(visits: ModelVisits) -> str:
    data, left_out = visits.data, visits.left_out
    told = f", {len(left_out)} left out ({'; '.join(left_out[:3])})" if left_out else ""
    return f"{len(data.subjects)} subjects at {len(data.occasions)} occasions{told}"


def run_models(plan: CohortPlan, table: CohortTable, maps: CohortMaps) -> Iterator[ModelFinding]:
    """All models; those of levels adjusted to each other.

    Raises:
        CohortError: a model cannot be fitted; the message names it and the rule.
    """
    for asked in plan.models:
        prepared, fits = [], []
        for levels in levels_of(plan, asked):
            try:
                visits = visit_data(plan, table, asked, levels, maps)
                fits.append(fit_visits(visits.data, asked.degrees_of_freedom, 1 - plan.inference.alpha))
            except (CohortError, DesignError) as error:
                raise CohortError(f"{called(asked, levels)}: {error}") from error
            prepared.append((levels, visits))
        for fit, (levels, visits) in zip(with_holm(tuple(fits)), prepared, strict=True):
            yield _finding(plan, asked, levels, fit, visits)


def _finding(
    plan: CohortPlan, asked: VisitModel, levels: tuple[Level, ...], fit: VisitFit, visits: ModelVisits
) -> ModelFinding:
    data = visits.data
    limit, responders = _responders(plan, asked, levels, visits)
    return ModelFinding(
        name=asked.name,
        level=", ".join(fit.data.levels),
        quantity=asked.quantity,
        region=asked.region,
        response=asked.response,
        baseline=asked.baseline or "",
        group_column=asked.group or "",
        adjustment=fit.adjustment,
        occasions=fit.data.occasions,
        groups=fit.data.groups,
        terms=fit.fitted.names,
        n_subjects=fit.fitted.n_subjects,
        n_begun=_begun(data),
        n_values=fit.fitted.n,
        n_known=tuple(int(one) for one in np.isfinite(fit.data.values).sum(axis=0)),
        minus_two_reml=fit.fitted.minus_two_reml,
        covariance=tuple(tuple(float(one) for one in row) for row in fit.fitted.covariance),
        means=fit.means,
        contrasts=fit.contrasts,
        limit=limit,
        responders=responders,
        missing=_missing(plan, asked, fit, data),
        left_out=visits.left_out + _without_value(data),
    )


def _begun(data: VisitData) -> int:
    """Subjects that could have been lost: with a baseline, whether they came again or not."""
    if data.baseline is not None:
        return int(some_finite(data.baseline).sum())
    at_baseline = [one.visit == data.baseline_visit for one in data.occasions]
    return int(some_finite(data.values[:, at_baseline] if any(at_baseline) else data.values).sum())


def _without_value(data: VisitData) -> tuple[str, ...]:
    """Subjects that the model cannot use, and why."""
    told = []
    known = some_finite(data.values)
    for index, subject in enumerate(data.subjects):
        if known[index]:
            continue
        has_baseline = data.baseline is None or bool(np.isfinite(data.baseline[index]).any())
        told.append(f"{subject}: {'no value at any visit' if has_baseline else 'no value at the baseline'}")
    return tuple(told)


def _precision(asked: VisitModel, level: Level) -> Precision | None:
    """What the responders' profile knows of the region at a level; None where no profile is asked for."""
    if asked.responders is None or asked.responders.precision is None:
        return None
    profile = read_precision(asked.responders.precision)
    known = profile.of(Cell(level, Region(asked.region), Quantity(asked.quantity)))
    if known is None:
        raise CohortError(f"responders: {profile.name} knows nothing of {asked.quantity} of the {asked.region}")
    return known


def _responders(
    plan: CohortPlan, asked: VisitModel, levels: tuple[Level, ...], visits: ModelVisits
) -> tuple[str, tuple[ResponderTable, ...]]:
    """The limit in words, and both counts; who has no baseline is missing, too."""
    rule, data = asked.responders, visits.data
    if rule is None or data.baseline is None:
        return "", ()
    place = data.visits.index(rule.visit)
    has_baseline = np.isfinite(data.baseline[:, place])
    changes, baseline = data.values[has_baseline, place], data.baseline[has_baseline, place]
    known = _precision(asked, levels[0])
    if known is not None:
        limits = [change_limits(float(one), known, limit="rcv", confidence=0.95, upper_bound=True) for one in baseline]
        lower, upper = np.array([one.lower_ms for one in limits]), np.array([one.upper_ms for one in limits])
        name = rule.own_precision.name if rule.own_precision is not None else str(rule.precision)
        limit = f"the {limits[0].basis}, by {name}" if limits else name
    elif rule.limit_ms is not None:
        upper, limit = np.full(len(changes), rule.limit_ms), f"{rule.limit_ms:g} ms"
        lower = -upper
    else:
        upper, limit = (rule.limit_percent or 0.0) / 100 * baseline, f"{rule.limit_percent:g} % of the baseline"
        lower = -upper
    words = {"increase": "increase by more than", "decrease": "decrease by more than", "either": "change by more than"}
    elsewhere = visits.group_of_left_out[visits.group_of_left_out >= 0]
    responds = np.full(len(data.subjects) + len(elsewhere), np.nan)
    responds[np.flatnonzero(has_baseline)] = is_responder(changes, lower, upper, rule.direction)
    group = np.concatenate([data.group, elsewhere])
    tables = count_responders(responds, group, data.groups, 1 - plan.inference.alpha)
    return f"{words[rule.direction]} {limit} at {rule.visit}", tables


def _missing(plan: CohortPlan, asked: VisitModel, fit: VisitFit, data: VisitData) -> tuple[MissingDataResult, ...]:
    rule = asked.missing
    if rule is None:
        return ()
    return missing_data_sensitivity(
        fit,
        data,
        rule.visit,
        imputations=rule.imputations,
        seed=plan.seed,
        alpha=plan.inference.alpha,
        deltas_ms=rule.deltas_ms,
        jump_to_reference=rule.jump_to_reference,
    )


_STORED = TypeAdapter(tuple[ModelFinding, ...])


def store_models(findings: Iterable[ModelFinding], path: Path) -> None:
    """Write what was found, every digit, for :func:`stored_models`."""
    path.write_bytes(_STORED.dump_json(tuple(findings), indent=1) + b"\n")


def stored_models(path: Path) -> tuple[ModelFinding, ...]:
    """What :func:`store_models` wrote.

    Raises:
        CohortError: it is not there, or was not written so.
    """
    try:
        return _STORED.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CohortError(f"{path}: is not what a run wrote ({type(error).__name__})") from error
