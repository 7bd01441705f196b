"""A QC phantom's scan goes another way than discs: recognised, its vials measured, written as a result of its own."""

import csv
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from config.phantom_templates import PhantomTemplate, load_templates
from config.settings import Settings, SettingsError
from config.trial_plans import load_plan
from dicom_io.document_writer import ReportPdf
from dicom_io.exam_heading import exam_heading
from dicom_io.phantom_objects import write_phantom_objects
from dicom_io.volume_reader import ExamImages
from processing.display import RESEARCH_USE_ONLY
from processing.fitting import fit_rules, rules_text
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import ExamResult, Verdict
from processing.vial_picture import draw_vials
from processing.vials import PlacedVials, VialMeasurement, measure_vials, place_vials, recognise, vial_maps
from service.progress import Progress
from service.reports.phantom_report import TITLE, phantom_report
from service.reports.rendering import render
from service.result_files import ResultSummary, result_document
from service.result_folder import json_number, whole_folder, write_json, write_report
from service.result_versions import Edition
from service.versions import PACKAGES

_log = logging.getLogger(__name__)

_CSV_COLUMNS = (
    *("vial", "quantity", "slice", "mean_ms", "sd_ms", "median_ms", "n", "n_excluded", "snr", "nominal_ms"),
    *("residuals_percent", "use"),
)


def is_phantom_id(settings: Settings, patient_id: str) -> bool:
    """Whether a PatientID is that of a QC phantom, by the patterns of the node's trials."""
    folder = settings.trials_dir
    for path in sorted(folder.glob("*.yaml")) if folder is not None else ():
        try:
            pattern = load_plan(path).phantom.patient_id_pattern
        except SettingsError:  # the trial desk tells it; the exam of another trial must not wait for that
            _log.warning("a trial's plan cannot be used", extra={"file": path.name})
            continue
        if re.search(pattern, patient_id):
            return True
    return False


def phantom_in(images: ExamImages, settings: Settings) -> PhantomTemplate | None:
    """The phantom that an exam shows, by its PatientID or by its picture; None for a subject.

    Raises:
        UnsuitableInput: REVIEW_REQUIRED, where the PatientID is a phantom's and the picture shows none that is known,
            or not as it should lie. Such an exam is never taken for a subject's.
    """
    templates = load_templates(settings.phantoms_dir)
    template = recognise(images.background, templates)
    if template is None and is_phantom_id(settings, exam_heading(images.source).patient_id):
        raise UnsuitableInput(ReasonCode.REVIEW_REQUIRED, _why_not(images, templates))
    return template


def _why_not(images: ExamImages, templates: Sequence[PhantomTemplate]) -> str:
    refusals = []
    for template in templates:
        try:
            place_vials(images.background, template)
        except UnsuitableInput as refusal:
            refusals.append(refusal.reason.detail)
    return f"the PatientID is that of a QC phantom, but: {'; '.join(refusals) or 'no template is known'}"


@dataclass(frozen=True, slots=True, eq=False)
class PhantomResult:
    """What was measured in a phantom; ``exam``: the maps and what made them, as the writers take it."""

    exam: ExamResult
    placed: PlacedVials
    measurements: tuple[VialMeasurement, ...]


def analyse_phantom(
    images: ExamImages, template: PhantomTemplate, settings: Settings, produced_at: datetime
) -> PhantomResult:
    """Measure the vials of a phantom with the fit, the rules and the protocol card of discs.

    Raises:
        UnsuitableInput: the vials are not those of the template; there are no echoes.
    """
    if not images.stacks:
        raise UnsuitableInput(ReasonCode.PROTOCOL_UNKNOWN, "a QC phantom without echoes: there is nothing to fit")
    placed = place_vials(images.background, template)
    rules, _ = fit_rules(
        images.stacks,
        noise_floor=settings.fitting.noise_floor == "estimated",
        paper_ceilings=settings.fitting.paper_ceilings,
    )
    maps = vial_maps(images.stacks, placed, rules)
    measurements = measure_vials(images.stacks, placed, maps)
    exam = ExamResult(
        verdict=Verdict.OK,
        reasons=(),
        background=images.background,
        mask=None,
        maps=maps,
        registered=(),
        measurements=(),
        volumes_mm3={},
        times_ms=images.times_ms,
        timings_s={},
        versions=_versions(settings, template, images.protocols) | {"fit": rules_text(rules)},
        produced_at=produced_at,
    )
    return PhantomResult(exam, placed, measurements)


def _versions(settings: Settings, template: PhantomTemplate, protocols: tuple[str, ...]) -> dict[str, str]:
    """What made the numbers. In the place of a network stands the template."""
    content = hashlib.sha256(template.model_dump_json().encode()).hexdigest()
    digest = hashlib.sha256(f"{settings.analysis_digest}\n{content}".encode()).hexdigest()[:16]
    return {
        "discnode": version("discnode"),
        **{package: version(package) for package in PACKAGES},
        "model": f"phantom template {template.name}",
        "model_sha256": content,
        "inference_provider": "none",
        "settings_digest": digest,
        "protocol": ", ".join(protocols),
    }


def measure_phantom(
    images: ExamImages,
    template: PhantomTemplate,
    out: Path,
    settings: Settings,
    produced_at: datetime,
    *,
    progress: Progress,
    edition: Edition | None = None,
) -> ResultSummary:
    """Measure a phantom and write its result: result.json, vials.csv, report.pdf, report.html, qc.png and dicom/*.dcm.

    Raises:
        UnsuitableInput: as :func:`analyse_phantom`.
        OSError: ``out`` cannot be written.
    """
    progress("measure vials", 0.3)
    result = analyse_phantom(images, template, settings, produced_at)
    progress("write", 0.7)
    scan = phantom_entry(images, result)
    picture = _png(result)
    report = render(phantom_report(scan, result.exam.versions, produced_at, picture))
    with whole_folder(out) as partial:
        (partial / "qc.png").write_bytes(picture[0])
        write_report(partial, report)
        pdf = ReportPdf(TITLE, report.pdf, f"phantom/{edition.version if edition else 1}")
        objects = write_phantom_objects(result.exam, images.source, partial, pdf)
        _write_csv(partial / "vials.csv", scan)
        write_json(partial / "result.json", _document(images, result, objects, scan))
    progress("done", 1.0)
    return ResultSummary(Verdict.OK, (), objects, is_phantom=True)


def phantom_entry(images: ExamImages, result: PhantomResult) -> dict[str, Any]:
    """The block ``phantom`` of result.json. It says nothing about whose the ID of the phantom is."""
    placed = result.placed
    nominal = {vial.name: {"T1rho": vial.t1rho_ms, "T2": vial.t2_ms} for vial in placed.template.vials}
    acquisition = images.acquisition
    return {
        "template": placed.template.name,
        "scanner": {
            "device_serial": acquisition.device_serial,
            "software_versions": acquisition.software_versions,
            "receive_coil": acquisition.receive_coil,
            "protocol": acquisition.protocol,
        },
        "acquired_at": None if acquisition.acquired_at is None else acquisition.acquired_at.isoformat(),
        "turn_deg": json_number(placed.turn_deg),
        "residual_mm": json_number(placed.residual_mm),
        "slices": list(placed.slices),
        "vials": [
            {
                "vial": one.vial,
                "quantity": one.quantity.value,
                "slice": one.slice_index,
                "mean_ms": json_number(one.mean_ms),
                "sd_ms": json_number(one.sd_ms),
                "median_ms": json_number(one.median_ms),
                "n": one.n,
                "n_excluded": one.n_excluded,
                "snr": json_number(one.snr),
                "residuals_percent": [json_number(value) for value in one.residuals_percent],
                "nominal_ms": nominal[one.vial][one.quantity.value],
            }
            for one in result.measurements
        ],
    }


def _document(
    images: ExamImages, result: PhantomResult, objects: Sequence[Any], scan: dict[str, Any]
) -> dict[str, Any]:
    return {**result_document(result.exam, images, objects), "phantom": scan}


def _png(result: PhantomResult) -> tuple[bytes, int, int]:
    pixels = draw_vials(result.exam.background, result.placed, dict(result.exam.maps))
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6)
    return stream.getvalue(), pixels.shape[1], pixels.shape[0]


def _write_csv(path: Path, scan: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _CSV_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for one in scan["vials"]:
            pattern = " ".join(f"{value:.3f}" for value in one["residuals_percent"])
            writer.writerow({**one, "residuals_percent": pattern, "use": RESEARCH_USE_ONLY.lower()})
