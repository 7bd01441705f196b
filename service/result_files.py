"""The files of an analysed exam, as a person or a script opens them.

result.json, discs.csv, report.pdf, report.html, qc.png, qc_registration.png (of an exam with maps) and dicom/*.dcm.
"""

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.image import imsave

from config.settings import ReportSettings
from dicom_io.acquisition import acquisition_entry
from dicom_io.document_writer import ReportPdf
from dicom_io.exam_heading import exam_heading
from dicom_io.result_objects import WrittenObject, write_objects
from dicom_io.volume_reader import ExamImages, MeasuredScan
from processing.display import RESEARCH_USE_ONLY
from processing.measurements import measured_levels
from processing.montage import draw_montage
from processing.refusal import Reason
from processing.registration_page import draw_registration_page
from processing.results import Correction, DiscMeasurement, EchoMotion, ExamResult, Level, Quantity, Region, Verdict
from service.refusal_file import REPORT_FILES, refusal_document
from service.reports.exam_report import exam_report
from service.reports.refusal_report import refusal_report
from service.reports.rendering import RenderedReport, render
from service.result_versions import Edition

#: Name and version of the format of ``result.json``; described in ``service/result_schema.json``.
RESULT_SCHEMA = "discnode.result/1"

_CSV_COLUMNS = (
    *("level", "region", "quantity", "mean_ms", "sd_ms", "median_ms", "n", "n_excluded", "volume_mm3"),
    *("member_sd_ms", "member_dice", "ring_entropy", "use"),
)
_OUR_FILES = ("result.json", "discs.csv", *REPORT_FILES, "qc.png", "qc_registration.png", "dicom")
_USUAL_REPORT = ReportSettings()
_KEYS = {Quantity.T1RHO: "t1rho_ms", Quantity.T2: "t2_ms"}
_TIMES_KEYS = {Quantity.T1RHO: "t1rho_times_ms", Quantity.T2: "t2_times_ms"}


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """What was written. Paths of ``objects`` are relative to the result's folder."""

    status: Verdict
    reasons: tuple[Reason, ...]
    objects: tuple[WrittenObject, ...]


class HasSeries(Protocol):
    """Anything that tells which series it is of."""

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""


def write_result(
    result: ExamResult,
    images: ExamImages,
    folder: Path,
    *,
    settings: ReportSettings = _USUAL_REPORT,
    edition: Edition | None = None,
) -> ResultSummary:
    """Write everything about one exam into ``folder``, which appears whole or not at all.

    What an earlier analysis left there is replaced; other files in it stay.

    Args:
        result: with a disc.
        images: what was measured.
        folder: is made.
        settings: what the report shows.
        edition: which earlier result this one replaces, as the report says; None for the first.

    Raises:
        ValueError: the result has no disc.
        OSError: the folder cannot be written.
    """
    if edition is not None and edition.is_again:
        result = replace(result, versions={**result.versions, "repeated_as": f"version {edition.version}"})
    with _whole_folder(folder) as partial:
        picture = draw_montage(result)
        _write_picture(partial / "qc.png", picture)
        if result.maps and result.mask is not None and measured_levels(result.mask):
            _write_picture(partial / "qc_registration.png", draw_registration_page(result))
        document = exam_report(result, exam_heading(images.source), settings.subject, edition)
        report = render(document)
        _write_report(partial, report)
        variant = f"{settings.subject.value}/{edition.version if edition else 1}"
        pdf = ReportPdf(document.title, report.pdf, variant)
        objects = write_objects(result, images.source, picture, partial, pdf)
        _write_csv(partial / "discs.csv", result)
        _write_json(partial / "result.json", result_document(result, images, objects))
    return ResultSummary(result.verdict, result.reasons, objects)


def write_refusal(reasons: Sequence[Reason], inputs: Iterable[HasSeries], folder: Path) -> ResultSummary:
    """Write ``result.json`` and the report of an exam that could not be measured: why, and which series it was."""
    series_uids = sorted({one.series_uid for one in inputs})
    with _whole_folder(folder) as partial:
        document = refusal_document(reasons, series_uids)
        _write_report(partial, render(refusal_report(reasons, series_uids, version("discnode"))))
        _write_json(partial / "result.json", document)
    return ResultSummary(Verdict.REFUSED, tuple(reasons), ())


def result_document(result: ExamResult, images: ExamImages, objects: Sequence[WrittenObject]) -> dict[str, Any]:
    """The content of ``result.json`` (:data:`RESULT_SCHEMA`). It says nothing about who the patient is."""
    return {
        "schema": RESULT_SCHEMA,
        "use": RESEARCH_USE_ONLY,
        "status": result.verdict.value,
        "reasons": [{"code": reason.code.value, "detail": reason.detail} for reason in result.reasons],
        "produced_at": result.produced_at.isoformat(),
        "inputs": _inputs(result, images.scans),
        "acquisition": acquisition_entry(images.acquisition),
        "motion": [_motion(one) for one in result.motion],
        **({} if result.correction is None else {"correction": _correction(result.correction)}),
        "discs": [_disc(result, level) for level in result.mask.found] if result.mask else [],
        "objects": [
            {
                "kind": one.kind.value,
                "path": one.path.as_posix(),
                "sop_class_uid": one.sop_class_uid,
                "sop_instance_uid": one.sop_instance_uid,
            }
            for one in objects
        ],
        "timings_s": dict(result.timings_s),
        "versions": dict(result.versions),
    }


def _inputs(result: ExamResult, scans: Iterable[MeasuredScan]) -> list[dict[str, Any]]:
    """One entry for each series, with the times of what its scan was for."""
    return [
        {"series_uid": uid, "protocol": scan.protocol}
        | {
            key: list(result.times_ms.get(quantity, ())) if quantity in scan.quantities else []
            for quantity, key in _TIMES_KEYS.items()
        }
        for scan in scans
        for uid in scan.series_uids
    ]


def _motion(one: EchoMotion) -> dict[str, Any]:
    return {
        "quantity": one.role.value,
        "time_ms": one.time_ms,
        "displacement_mm": _number(one.displacement_mm),
        "rows_mm": _number(one.rows_mm),
        "columns_mm": _number(one.columns_mm),
        "rotation_deg": _number(one.rotation_deg),
        "corrected": one.corrected,
    }


def _correction(one: Correction) -> dict[str, Any]:
    return {
        "sop_instance_uid": one.origin.sop_instance_uid or None,
        "sha256": one.origin.sha256,
        "editor": one.origin.editor,
        "tool": one.origin.tool,
        "automatic_dice": {level.name: _number(dice) for level, dice in one.automatic_dice.items()},
        "removed": [level.name for level in one.removed],
        "automatic_refusal": None
        if one.automatic_refusal is None
        else {"code": one.automatic_refusal.code.value, "detail": one.automatic_refusal.detail},
    }


def _disc(result: ExamResult, level: Level) -> dict[str, Any]:
    rows = {(row.region, row.quantity): row for row in result.measurements if row.level is level}
    return {
        "level": level.name,
        "volume_mm3": _number(result.volumes_mm3.get(level)),
        "segmentation": _segmentation(result, level),
        **_statistics(rows, Region.WHOLE_DISC),
        "regions": {region.value: _statistics(rows, region) for region in Region if region is not Region.WHOLE_DISC},
        "registration": _registration(result, level),
    }


def _statistics(rows: Mapping[tuple[Region, Quantity], DiscMeasurement], region: Region) -> dict[str, Any]:
    """Both quantities of one region; an empty object where nothing was measured."""
    return {key: _values(rows.get((region, quantity))) for quantity, key in _KEYS.items()}


def _values(row: DiscMeasurement | None) -> dict[str, Any]:
    if row is None:
        return {}
    values = {
        "mean": _number(row.mean_ms),
        "sd": _number(row.sd_ms),
        "median": _number(row.median_ms),
        "n": row.n,
        "n_excluded": row.n_excluded,
        "excluded": dict(row.excluded),
    }
    if row.region is Region.WHOLE_DISC:
        values |= {"member_sd": _number(row.member_sd_ms), "n_members": row.n_members}
    return values


def _segmentation(result: ExamResult, level: Level) -> dict[str, Any]:
    """How sure the networks are of a disc; an empty object for a mask that no network made."""
    for one in result.mask.confidence if result.mask else ():
        if one.level is level:
            return {
                "mean_probability": _number(one.mean_probability),
                "ring_entropy": _number(one.ring_entropy),
                "touches_border": one.touches_border,
                "n_members": one.n_members,
                "n_members_with_disc": one.n_members_with_disc,
                "member_dice": _number(one.member_dice),
                "member_volume_sd_mm3": _number(one.member_volume_sd_mm3),
            }
    return {}


def _registration(result: ExamResult, level: Level) -> dict[str, Any]:
    for disc in result.registered:
        if disc.alignment.level is level:
            return {
                "dice": _number(disc.alignment.dice),
                "sd_jacobian": _number(disc.alignment.sd_jacobian),
                "min_jacobian": _number(disc.alignment.min_jacobian),
                "sd_jacobian_bspline": _number(disc.alignment.sd_jacobian_bspline),
                "min_jacobian_bspline": _number(disc.alignment.min_jacobian_bspline),
                "sd_jacobian_patient": _number(disc.alignment.sd_jacobian_patient),
                "min_jacobian_patient": _number(disc.alignment.min_jacobian_patient),
            }
    return {}


def _number(value: float | None) -> float | None:
    """A JSON number with six decimals; null for what does not exist (JSON has no NaN)."""
    return round(float(value), 6) if value is not None and math.isfinite(value) else None


def _write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    imsave(path, picture, metadata={"Comment": RESEARCH_USE_ONLY, "Software": "discnode"})


def _write_report(folder: Path, report: RenderedReport) -> None:
    for name, content in report.files().items():
        (folder / name).write_bytes(content)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _write_csv(path: Path, result: ExamResult) -> None:
    """One row per level, region and quantity.

    What is true of the disc and not of a part (volume, how sure the networks are) stands with the whole disc, also
    where nothing was fitted.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _CSV_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"use": RESEARCH_USE_ONLY.lower()} for row in _csv_rows(result))


def _csv_rows(result: ExamResult) -> Iterator[dict[str, Any]]:
    for level in result.mask.found if result.mask else ():
        sure = _segmentation(result, level)
        of_disc = {"volume_mm3": _number(result.volumes_mm3.get(level))}
        of_disc |= {name: sure[name] for name in ("member_dice", "ring_entropy") if name in sure}
        measured = [row for row in result.measurements if row.level is level]
        if not measured:
            yield {"level": level.name, "region": Region.WHOLE_DISC.value, **of_disc}
        for row in measured:
            numbers = {"mean_ms": row.mean_ms, "sd_ms": row.sd_ms, "median_ms": row.median_ms}
            yield {
                "level": level.name,
                "region": row.region.value,
                "quantity": row.quantity.value,
                **{name: _number(value) for name, value in numbers.items()},
                "n": row.n,
                "n_excluded": row.n_excluded,
                "member_sd_ms": _number(row.member_sd_ms),
                **(of_disc if row.region is Region.WHOLE_DISC else {}),
            }


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place when the block is done, and vanishes when it fails.

    Where ``folder`` already holds something, our files in it are replaced, ``result.json`` last: whoever finds that
    file finds the rest.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    partial.chmod(0o755)  # mkdtemp's 0700 would hide the results from their readers
    try:
        yield partial
        try:
            os.replace(partial, folder)  # works for an empty folder, too
        except OSError:
            if not folder.is_dir():
                raise
            _replace_our_files(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_our_files(partial: Path, folder: Path) -> None:
    for name in _OUR_FILES:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in reversed(_OUR_FILES):
        if (partial / name).exists():
            os.replace(partial / name, folder / name)
