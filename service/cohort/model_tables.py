"""The numbers of a cohort's models as CSV: estimated means and differences, covariances, responders, missing visits."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processing.cohort.missing_data import Pooled
from processing.cohort.repeated_measures import Estimate
from processing.display import RESEARCH_USE_ONLY
from service.cohort.models import ModelFinding
from service.cohort.tables import write_rows

_WHERE = ("model", "level", "quantity", "region")
_MODELS = ("what", "group", "reference", "visit", "n", "mean_ms", "sd_ms")
_END = ("degrees_of_freedom", "use")
_COVARIANCE = ("first", "second", "covariance_ms2", "correlation")
_COUNTS = ("n_responders", "n", "n_missing", "share", "low", "high", "p")
_RESPONDERS = ("responder", "missing", "what", "group", "reference", *_COUNTS)
_IMPUTED = ("n_imputed_group", "n_imputed_reference", "imputations")
_MISSING = ("what", "group", "reference", "visit", "delta_ms", *_IMPUTED)
_ESTIMATE = ("estimate_ms", "standard_error_ms", "df", "t", "p", "low_ms", "high_ms")


def write_models(findings: Sequence[ModelFinding], folder: Path) -> None:
    """``models.csv``, ``model_covariance.csv``, and ``responders.csv`` and ``missing_data.csv`` where they are."""
    write_rows(folder / "models.csv", (*_WHERE, *_MODELS, *_ESTIMATE, "p_holm", *_END), _estimates(findings))
    write_rows(folder / "model_covariance.csv", (*_WHERE, *_COVARIANCE, "use"), _covariances(findings))
    if any(one.responders for one in findings):
        write_rows(folder / "responders.csv", (*_WHERE, *_RESPONDERS, "use"), _responders(findings))
    if any(one.missing for one in findings):
        write_rows(folder / "missing_data.csv", (*_WHERE, *_MISSING, *_ESTIMATE, "use"), _missing(findings))


def _where(one: ModelFinding, level: str | None = None) -> dict[str, Any]:
    return {
        "model": one.name,
        "level": one.level if level is None else level,
        "quantity": one.quantity,
        "region": one.region,
        "use": RESEARCH_USE_ONLY.lower(),
    }


def _estimates(findings: Sequence[ModelFinding]) -> Iterator[dict[str, Any]]:
    for one in findings:
        asked = {(row.level, row.visit): row.p_holm for row in one.contrasts if row.kind == "mean"}
        for mean in one.means:
            yield {
                **_where(one, mean.level),
                "what": "mean",
                "group": mean.group,
                "visit": mean.visit,
                "n": mean.n,
                "mean_ms": mean.mean_ms,
                "sd_ms": mean.sd_ms,
                **_numbers(mean.estimate),
                "p_holm": asked.get((mean.level, mean.visit), math.nan),
                "degrees_of_freedom": one.adjustment,
            }
        for row in one.contrasts:
            if row.kind == "mean" and row.level:
                continue  # stands above
            yield {
                **_where(one, row.level or "all"),
                "what": row.kind,
                "group": row.group,
                "reference": row.reference,
                "visit": row.visit,
                **_numbers(row.estimate),
                "p_holm": row.p_holm,
                "degrees_of_freedom": one.adjustment,
            }


def _covariances(findings: Sequence[ModelFinding]) -> Iterator[dict[str, Any]]:
    for one in findings:
        covariance = np.array(one.covariance)
        sd = np.sqrt(np.diag(covariance))
        for i, first in enumerate(one.occasions):
            for j, second in enumerate(one.occasions[: i + 1]):
                yield {
                    **_where(one),
                    "first": str(second),
                    "second": str(first),
                    "covariance_ms2": float(covariance[i, j]),
                    "correlation": float(covariance[i, j] / sd[i] / sd[j]),
                }


def _responders(findings: Sequence[ModelFinding]) -> Iterator[dict[str, Any]]:
    for one in findings:
        for table in one.responders:
            told = {**_where(one), "responder": one.limit, "missing": table.missing_as}
            for row in table.shares:
                yield told | {
                    "what": "share",
                    "group": row.group,
                    "n_responders": row.n_responders,
                    "n": row.n,
                    "n_missing": row.n_missing,
                    "share": row.share,
                    "low": row.low,
                    "high": row.high,
                }
            for difference in table.differences:
                yield told | {
                    "what": "difference",
                    "group": difference.group,
                    "reference": difference.reference,
                    "share": difference.difference,
                    "low": difference.low,
                    "high": difference.high,
                    "p": difference.p,
                }


def _missing(findings: Sequence[ModelFinding]) -> Iterator[dict[str, Any]]:
    for one in findings:
        for result in one.missing:
            told = {
                **_where(one),
                "group": result.group,
                "reference": result.reference,
                "visit": result.visit,
                "n_imputed_group": result.n_imputed[0],
                "n_imputed_reference": result.n_imputed[1],
                "imputations": result.imputations,
            }
            yield told | {"what": "at random", "delta_ms": 0.0, **_numbers(result.at_random)}
            for row in result.deltas:
                yield told | {"what": "delta", "delta_ms": row.delta_ms, **_numbers(row.pooled)}
            if result.tipping_ms is not None:
                yield told | {"what": "tipping point", "delta_ms": result.tipping_ms}
            if result.jump is not None:
                yield told | {"what": "jump to reference", **_numbers(result.jump)}


def _numbers(one: Estimate | Pooled) -> dict[str, Any]:
    return {
        "estimate_ms": one.estimate,
        "standard_error_ms": one.standard_error,
        "df": one.df,
        "t": one.estimate / one.standard_error,
        "p": one.p,
        "low_ms": one.low,
        "high_ms": one.high,
    }
