"""A subject's report for machines: ``report.json`` (:data:`SCHEMA`) and ``changes.csv``, a row for each cell and visit.

Every row that a person sees in the report is there, and every visit that did not come, with the reason.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from processing.results import Quantity, Region
from processing.visits import Change, ChangeVerdict, Observation
from service.result_schema import LevelName
from service.trials.history import VisitRecord
from service.trials.report_contents import ReportContents

SCHEMA = "discnode.subject_report/1"
USE = "Research use only"
_DIGITS = 4


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviationEntry(_Part):
    """Something about a visit that is not as at the baseline."""

    what: str
    baseline: str
    visit: str
    hard: bool = Field(description="Change is not judged")
    widens: bool = Field(description="The limits are those of another scanner")
    text: str


class VisitEntry(_Part):
    """One visit, whether a scan came or not."""

    name: str
    planned_day: int | None = Field(description="Null: not planned")
    first_day: int | None = Field(description="Of its window, days from day zero")
    last_day: int | None
    state: str | None = Field(description="Null: no scan came")
    code: str = Field(description="Reason code, where it does not count")
    day: int | None = Field(description="Of the scan, days from day zero")
    clock: str | None = Field(description="Local time of the scanner, hours and minutes")
    scan_date: str | None = Field(description="Absent dates are not shown in this report, or not known")
    deviations: tuple[DeviationEntry, ...]


class CellEntry(_Part):
    """One place at one visit, and its change since the baseline. Times in ms; null where there is none."""

    level: LevelName
    region: Region
    quantity: Quantity
    visit: str
    day: int | None
    is_baseline: bool
    value_ms: float | None
    sd_ms: float | None
    n: int = Field(ge=0, description="Voxels with a value")
    n_excluded: int = Field(ge=0)
    missing: str = Field(description="Why there is no value; empty where there is one")
    primary: bool = Field(description="Declared in advance; false for all in a report that hides the treated level")
    change_ms: float | None
    change_percent: float | None
    lower_limit_ms: float | None = Field(description="Limits of measurement error around no change")
    upper_limit_ms: float | None
    verdict: ChangeVerdict | None = Field(description="Null at the baseline")
    basis: str = Field(description="How the limits came about")
    reasons: tuple[str, ...]


class SlopeEntry(_Part):
    """Slope of a straight line over the comparable visits."""

    level: LevelName
    region: Region
    quantity: Quantity
    n_visits: int
    ms_per_year: float
    standard_error_ms_per_year: float
    lower_limit_ms_per_year: float
    upper_limit_ms_per_year: float
    verdict: ChangeVerdict


class NotEvaluableEntry(_Part):
    """A disc that is not evaluated from a visit on."""

    level: LevelName
    from_visit: str
    reason: str


class ReportDocument(_Part):
    """A report about one subject of a trial. For research use only."""

    format: Literal["discnode.subject_report/1"] = Field("discnode.subject_report/1", alias="schema")
    use: Literal["Research use only"] = "Research use only"
    trial: str
    plan_sha256: str
    subject: str
    site: str
    state: str
    version: int = Field(ge=1)
    supersedes: int | None = Field(description="Version that this one takes the place of")
    made_at: str | None = Field(description="UTC; null in a report without dates")
    inputs_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    treated_level: LevelName | None = Field(description="Null where it is not known or not shown")
    levels_confirmed: bool
    visits: tuple[VisitEntry, ...]
    not_evaluable: tuple[NotEvaluableEntry, ...]
    cells: tuple[CellEntry, ...]
    slopes: tuple[SlopeEntry, ...]
    judged_primary: int
    judged_exploratory: int
    expected_false_primary: float = Field(description="Flags expected by chance in a subject that has not changed")
    expected_false_exploratory: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    software: str


def report_document(contents: ReportContents) -> ReportDocument:
    """The content of ``report.json``."""
    history, table, edition = contents.history, contents.table, contents.edition
    return ReportDocument(
        schema=SCHEMA,
        trial=history.plan.protocol_id,
        plan_sha256=history.plan_sha256,
        subject=history.subject_id,
        site=history.site_id,
        state=str(history.state),
        version=edition.version,
        supersedes=edition.earlier[-1].version if edition.earlier else None,
        made_at=None if contents.days_only else edition.made_at.isoformat(),
        inputs_digest=edition.inputs_digest,
        treated_level=None if history.treated_level is None else history.treated_level.name,  # type: ignore[arg-type]
        levels_confirmed=bool(history.levels_confirmed),
        visits=tuple(_visit(contents, one) for one in history.visits),
        not_evaluable=tuple(
            NotEvaluableEntry(level=level.name, from_visit=first, reason=why)  # type: ignore[arg-type]
            for level, (first, why) in sorted(history.non_evaluable.items())
        ),
        cells=tuple(_cells(contents)),
        slopes=tuple(
            SlopeEntry(
                level=one.cell.level.name,  # type: ignore[arg-type]
                region=one.cell.region,
                quantity=one.cell.quantity,
                n_visits=one.n_visits,
                ms_per_year=round(one.ms_per_year, _DIGITS),
                standard_error_ms_per_year=round(one.standard_error_ms_per_year, _DIGITS),
                lower_limit_ms_per_year=round(one.lower_limit_ms_per_year, _DIGITS),
                upper_limit_ms_per_year=round(one.upper_limit_ms_per_year, _DIGITS),
                verdict=one.verdict,
            )
            for one in table.slopes
        ),
        judged_primary=table.n_primary,
        judged_exploratory=table.n_exploratory,
        expected_false_primary=round(table.expected_false_primary, _DIGITS),
        expected_false_exploratory=round(table.expected_false_exploratory, _DIGITS),
        warnings=(*table.warnings, *history.warnings),
        notes=table.notes,
        software=edition.software,
    )


def _visit(contents: ReportContents, one: VisitRecord) -> VisitEntry:
    return VisitEntry(
        name=one.name,
        planned_day=None if one.planned is None else one.planned.day,
        first_day=None if one.planned is None else one.planned.first_day,
        last_day=None if one.planned is None else one.planned.last_day,
        state=None if one.state is None else str(one.state),
        code=one.code,
        day=one.day,
        clock=None if one.clock is None else one.clock.strftime("%H:%M"),
        scan_date=None if contents.days_only or one.scan_date is None else one.scan_date.isoformat(),
        deviations=tuple(
            DeviationEntry(
                what=each.what,
                baseline=each.baseline,
                visit=each.visit,
                hard=each.hard,
                widens=each.widens,
                text=each.text,
            )
            for each in one.differences
        ),
    )


def _cells(contents: ReportContents) -> Iterator[CellEntry]:
    history = contents.history
    changes = {(one.cell, one.visit): one for one in contents.table.changes}
    for cell, observations in history.observations.items():
        for visit, one in zip(history.visits, observations, strict=True):
            change = changes.get((cell, visit.name))
            yield CellEntry(
                level=cell.level.name,  # type: ignore[arg-type]
                region=cell.region,
                quantity=cell.quantity,
                visit=visit.name,
                day=visit.day,
                is_baseline=visit is history.baseline,
                **_value(one, change),
                **_change(change),
            )


def _value(one: Observation, change: Change | None) -> dict[str, Any]:
    missing = one.reason if one.value_ms is None else ""
    if one.value_ms is None and not missing:
        missing = "; ".join(change.reasons) if change is not None else "no value"
    return {
        "value_ms": _rounded(one.value_ms),
        "sd_ms": _rounded(one.sd_ms),
        "n": one.n,
        "n_excluded": one.n_excluded,
        "missing": missing,
    }


def _change(one: Change | None) -> dict[str, Any]:
    return {
        "primary": one is not None and one.is_primary,
        "change_ms": None if one is None else _rounded(one.delta_ms),
        "change_percent": None if one is None else _rounded(one.delta_percent),
        "lower_limit_ms": None if one is None else _rounded(one.lower_limit_ms),
        "upper_limit_ms": None if one is None else _rounded(one.upper_limit_ms),
        "verdict": None if one is None else one.verdict,
        "basis": "" if one is None else one.basis,
        "reasons": () if one is None else one.reasons,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)


def report_json(document: ReportDocument) -> str:
    """The text of ``report.json``."""
    return json.dumps(document.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def changes_csv(document: ReportDocument) -> str:
    """The text of ``changes.csv``: the cells of ``report.json`` with trial, subject and report version before them."""
    stream = io.StringIO()
    names = [name for name in CellEntry.model_fields if name != "reasons"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "subject", "report_version", *names, "reasons", "use"])
    for one in document.cells:
        values = [getattr(one, name) for name in names]
        texts = ["" if value is None else str(value).lower() if isinstance(value, bool) else value for value in values]
        row = [document.trial, document.subject, document.version, *texts, "; ".join(one.reasons), USE.lower()]
        writer.writerow(row)
    return stream.getvalue()


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of ``report.json``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA}
    return json.dumps(schema | ReportDocument.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
