"""A stand-in for the analysis of a simulated trial: what is true of each study, measured with a little error.

Everything else is real: the images are read and understood, what cannot be is refused, and the result is written as the
analysis writes it. Only the maps and pictures are missing.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from tiny_analysis import TinySummary
from tiny_analysis import analyse as write_tiny_objects

from config.settings import Settings
from dicom_io.volume_reader import ExamImages, read_exam
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import DiscMask, DiscMeasurement, ExamResult, Level, Quantity, Region, Verdict
from service.exam_files import read_exam_files
from service.pipeline import assemble
from service.result_files import result_document
from service.result_versions import Edition

ERROR_LOG = 0.02  # SD of a measured time, on the log scale
_SHAPE_ERROR = 0.006


def analyse(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    produced_at: datetime,
    *,
    lowest_disc: Level | None = None,
    edition: Edition | None = None,
) -> TinySummary:
    """result.json from ``truth.json`` beside the trials' folder, and two small objects."""
    images = read_exam(assemble(read_exam_files(paths), settings))
    study = str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)
    assert settings.trials_dir is not None
    truth = json.loads((settings.trials_dir.parent / "truth.json").read_text())[study]
    if lowest_disc is None and Level.L5S1.name not in truth["shapes"]:
        raise UnsuitableInput(
            ReasonCode.LEVELS_AMBIGUOUS, "a vertebral body, not the sacrum, lies below the lowest disc"
        )
    chance = np.random.default_rng(np.frombuffer(hashlib.sha256(study.encode()).digest(), np.uint32))
    document = result_document(_result(images, truth, settings, produced_at, chance), images, ())
    for disc in document["discs"]:
        disc["shape"] = _disturbed(truth["shapes"][disc["level"]], chance)
    summary = write_tiny_objects(paths, out, settings, produced_at, edition=edition)
    document["objects"] = json.loads((out / "result.json").read_text())["objects"]
    (out / "result.json").write_text(json.dumps(document))
    return summary


def _result(
    images: ExamImages, truth: dict[str, Any], settings: Settings, produced_at: datetime, chance: np.random.Generator
) -> ExamResult:
    shape = images.background.array.shape
    levels = np.zeros(shape, np.uint8)
    for level in truth["shapes"]:
        levels[0, 0, Level[level].value] = Level[level].value  # a disc is what has a voxel
    nothing = np.zeros(shape, np.float32)
    mask = DiscMask(levels, nothing, levels, images.background.affine, (), "truth", "0" * 64)
    measurements = []
    for name, ms in truth["ms"].items():
        level, region, quantity = name.split()
        mean = ms * float(np.exp(ERROR_LOG * chance.standard_normal()))
        measured = (mean, 0.1 * mean, mean, 500, 0, {})
        measurements.append(DiscMeasurement(Level[level], Region(region), Quantity(quantity), *measured))
    return ExamResult(
        verdict=Verdict.OK,
        reasons=(),
        background=images.background,
        mask=mask,
        maps={},
        registered=(),
        measurements=tuple(measurements),
        volumes_mm3={Level[level]: 9000.0 for level in truth["shapes"]},
        times_ms=images.times_ms,
        timings_s={},
        versions={"discnode": "0", "settings_digest": settings.analysis_digest, "model": "truth", "atlas": "none"},
        produced_at=produced_at,
    )


def _disturbed(shape: dict[str, Any], chance: np.random.Generator) -> dict[str, Any]:
    """As a mask would show it."""

    def off(value: float) -> float:
        return round(value * float(np.exp(_SHAPE_ERROR * chance.standard_normal())), 3)

    centroid = [round(value + 0.3 * float(chance.standard_normal()), 3) for value in shape["centroid_mm"]]
    return {"height_mm": off(shape["height_mm"]), "depth_mm": off(shape["depth_mm"]), "centroid_mm": centroid}
