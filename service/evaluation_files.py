"""What ``discnode evaluate`` leaves in its folder. All files say "Research use only".

``evaluation.json``, format ``discnode.evaluation/1``:

* ``format``, ``research_use_only``, ``produced_at`` (UTC), ``software``, ``settings_digest``;
* ``model``: name, version, sha256, threshold, out_of_fold (whether each exam was segmented by the one network that had
  not seen its subject);
* ``summary``: the fields of :class:`service.evaluation.Summary` and ``found_share``;
* ``table2``: list of {comparison, metric, level or "all", mean, ci_low, ci_high, n};
* ``table3``: list of {quantity, level or "all", n, r, p_paired_t, bias_ms, lower_limit_ms, upper_limit_ms};
* ``exams``: one for each annotated exam, whatever became of it: {subject, visit, source, outcome, reasons, annotated,
  missing, n_slices, member, cpu_s, pooled_dice, unannotated}.

What is undefined is null. ``discs.csv`` has one row for each annotated disc of a compared exam, ``exams.csv`` the
exams, ``table2.csv`` and ``table3.csv`` the tables, ``figure*.csv`` what lies behind the figure of that name.
"""

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.registry import ModelRecord
from processing.agreement import DiscAgreement, pooled_dice
from processing.agreement_figures import draw_by_grade, draw_differences_by_grade, draw_masks, draw_times
from processing.display import RESEARCH_USE_ONLY
from processing.results import Level, Quantity
from service.evaluation import (
    ExamOutcome,
    Summary,
    Table2Row,
    Table3Row,
    best_median_worst,
    graded_discs,
    summarise,
    table_2,
    table_3,
)
from service.grades import Grades

FORMAT = "discnode.evaluation/1"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A figure of the report: its file, what it shows, the picture (PNG) and the numbers behind it."""

    name: str
    caption: str
    png: bytes
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All that is written and shown."""

    outcomes: tuple[ExamOutcome, ...]
    summary: Summary
    table2: tuple[Table2Row, ...]
    table3: tuple[Table3Row, ...]
    figures: tuple[Figure, ...]
    record: ModelRecord
    out_of_fold: bool
    threshold: float
    software: str
    settings_digest: str
    produced_at: datetime


def assemble_evaluation(
    outcomes: Sequence[ExamOutcome],
    record: ModelRecord,
    *,
    out_of_fold: bool,
    threshold: float,
    software: str,
    settings_digest: str,
    grades: Grades | None,
) -> Evaluation:
    """Tables and figures of what came out."""
    return Evaluation(
        outcomes=tuple(outcomes),
        summary=summarise(outcomes),
        table2=tuple(table_2(outcomes)),
        table3=tuple(table_3(outcomes)),
        figures=tuple(_figures(outcomes, grades)),
        record=record,
        out_of_fold=out_of_fold,
        threshold=threshold,
        software=software,
        settings_digest=settings_digest,
        produced_at=datetime.now(UTC),
    )


def write_evaluation(evaluation: Evaluation, report: str, out: Path) -> None:
    """Write everything to ``out``; ``evaluation.json`` comes last, so that where it is, the rest is too.

    Args:
        evaluation: what to write.
        report: the report page (HTML).
        out: the folder; made where it is not there. Files of an earlier evaluation are replaced.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").unlink(missing_ok=True)
    for stale in (*out.glob("figure*.png"), *out.glob("figure*.csv")):
        stale.unlink()
    _write_csv(out / "exams.csv", [_flat(exam_row(one)) for one in evaluation.outcomes])
    _write_csv(out / "discs.csv", [row for one in evaluation.outcomes for row in disc_rows(one)])
    _write_csv(out / "table2.csv", [table2_row(row) for row in evaluation.table2])
    _write_csv(out / "table3.csv", [table3_row(row) for row in evaluation.table3])
    for figure in evaluation.figures:
        (out / f"{figure.name}.png").write_bytes(figure.png)
        _write_csv(out / f"{figure.name}.csv", figure.rows)
    (out / "report.html").write_text(report, encoding="utf-8")
    temporary = out / ".evaluation.json.writing"
    temporary.write_text(json.dumps(_defined(as_json(evaluation)), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, out / "evaluation.json")


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The content of evaluation.json (see the head of this module); undefined numbers are NaN here."""
    record = evaluation.record
    return {
        "format": FORMAT,
        "research_use_only": True,
        "produced_at": evaluation.produced_at.isoformat(timespec="seconds"),
        "software": evaluation.software,
        "settings_digest": evaluation.settings_digest,
        "model": {
            "name": record.name,
            "version": record.version,
            "sha256": record.sha256,
            "threshold": evaluation.threshold,
            "out_of_fold": evaluation.out_of_fold,
        },
        "summary": asdict(evaluation.summary) | {"found_share": evaluation.summary.found_share},
        "table2": [table2_row(row) for row in evaluation.table2],
        "table3": [table3_row(row) for row in evaluation.table3],
        "exams": [exam_row(one) for one in evaluation.outcomes],
    }


def exam_row(one: ExamOutcome) -> dict[str, Any]:
    """One exam, whatever became of it."""
    return {
        "subject": one.subject,
        "visit": one.visit,
        "source": one.source,
        "outcome": one.outcome.value,
        "reasons": [{"code": reason.code.value, "detail": reason.detail} for reason in one.reasons],
        "annotated": [level.name for level in one.annotated],
        "missing": [level.name for level in one.missing],
        "n_slices": one.n_slices,
        "member": one.member,
        "cpu_s": round(one.cpu_s, 3),
        "pooled_dice": pooled_dice([one.agreement]) if one.agreement else None,
        "unannotated": [level.name for level in one.agreement.unannotated] if one.agreement else [],
    }


def disc_rows(one: ExamOutcome) -> list[dict[str, Any]]:
    """The rows of discs.csv of one exam."""
    rows = []
    for disc in one.agreement.discs if one.agreement else ():
        confidence = one.confidence.get(disc.level)
        row = {
            "subject": one.subject,
            "visit": one.visit,
            "level": disc.level.name,
            "dimension": 3 if one.n_slices > 1 else 2,
            "found": int(disc.found),
            "named": disc.named.name if disc.named else "",
            **_metrics(disc),
            "ring_entropy": confidence.ring_entropy if confidence else float("nan"),
            "mean_probability": confidence.mean_probability if confidence else float("nan"),
            "member_dice": confidence.member_dice if confidence else None,
            "member_volume_sd_mm3": confidence.member_volume_sd_mm3 if confidence else None,
        }
        for quantity in Quantity:
            own = next((t for t in one.times if (t.level, t.quantity) == (disc.level, quantity)), None)
            row[f"manual_{quantity}_ms"] = own.manual_ms if own else float("nan")
            row[f"automatic_{quantity}_ms"] = own.automatic_ms if own else float("nan")
        rows.append(row)
    return rows


def _metrics(disc: DiscAgreement) -> dict[str, float | int]:
    return {
        "n_manual": disc.n_manual,
        "n_automatic": disc.n_automatic,
        "dice": disc.dice,
        "msd_px": disc.msd_px,
        "msd_mm": disc.msd_mm,
        "volume_difference_percent": disc.volume_difference_percent,
        "sensitivity": disc.sensitivity,
        "precision": disc.precision,
    }


def table2_row(row: Table2Row) -> dict[str, Any]:
    """One cell of Table 2 as a line."""
    return {
        "comparison": row.comparison.value,
        "metric": row.metric,
        "level": _level(row.level),
        "mean": row.interval.mean,
        "ci_low": row.interval.low,
        "ci_high": row.interval.high,
        "n": row.interval.n,
    }


def table3_row(row: Table3Row) -> dict[str, Any]:
    """One line of Table 3."""
    return {"quantity": row.quantity.value, "level": _level(row.level), **asdict(row.agreement)}


def _level(level: Level | None) -> str:
    return level.name if level else "all"


def _figures(outcomes: Sequence[ExamOutcome], grades: Grades | None) -> Iterable[Figure]:
    """The figures that the data give; the numbers behind Fig 2 are those of the exams it shows."""
    pictures = best_median_worst(outcomes)
    if pictures:
        rows = [{"exam": one.name, "pooled_dice": pooled_dice([one.agreement])} for one in outcomes if one.agreement]
        caption = "Best, median and worst exam by the Dice coefficient over all discs (paper, Fig 2)."
        yield Figure("figure2", caption, draw_masks(pictures), tuple(rows))
    for quantity in Quantity:
        times = [(one, row) for one in outcomes for row in one.times if row.quantity is quantity]
        if times:
            behind = tuple(
                {
                    "subject": one.subject,
                    "visit": one.visit,
                    "level": row.level.name,
                    "manual_ms": row.manual_ms,
                    "automatic_ms": row.automatic_ms,
                }
                for one, row in times
            )
            caption = (
                f"Mean {quantity} of each disc under the manual and under the automatic mask, fitted in the patient's"
                " space: scatter with the line of identity; Bland-Altman with bias and 95 % limits of agreement"
                " (paper, Fig 3)."
            )
            yield Figure(f"figure3_{quantity}", caption, draw_times([row for _, row in times], quantity), behind)
    graded = graded_discs(outcomes, grades) if grades else []
    if graded:
        behind = tuple(
            {"grade": one.grade, "level": one.level.name, "dice": one.dice, "msd_px": one.msd_px}
            | {f"{quantity}_difference_ms": value for quantity, value in one.difference_ms.items()}
            for one in graded
        )
        yield Figure("figureS3", "Segmentation by Pfirrmann grade (paper, S3).", draw_by_grade(graded), behind)
        if any(one.difference_ms for one in graded):
            caption = "Difference of the times by Pfirrmann grade (paper, S4)."
            yield Figure("figureS4", caption, draw_differences_by_grade(graded), behind)


def _flat(row: Row) -> Row:
    """A row whose lists are one text each."""
    flat = dict(row)
    flat["reasons"] = "; ".join(f"{one['code']}: {one['detail']}" for one in row["reasons"])
    for key in ("annotated", "missing", "unannotated"):
        flat[key] = " ".join(row[key])
    return flat


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Rows with a head line; fields that are undefined stay empty."""
    names = [*dict.fromkeys(name for row in rows for name in row), "use"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _text(value) for name, value in row.items()} | {"use": RESEARCH_USE_ONLY.lower()})


def _text(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def _defined(value: Any) -> Any:
    """The same with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _defined(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
