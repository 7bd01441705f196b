"""The result of a simulated exam without network and registration: the true discs, measured as the pipeline measures.

What stands in atlas space is made up. Seconds instead of a minute, for tests of what is made of a result.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from config.settings import Settings
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import ExamImages, read_exam
from processing.atlas import read_atlas
from processing.fitting import FitStatus, fit_rules, relaxation_map
from processing.measurements import measure, volumes_mm3
from processing.phantom import PhantomExam, Protocol, simulate_exam
from processing.results import (
    Alignment,
    AtlasDisc,
    DiscConfidence,
    DiscMask,
    ExamResult,
    Level,
    Quantity,
    RegisteredDisc,
    RelaxationMap,
    Verdict,
)
from service.exam_files import read_exam_files
from service.pipeline import assemble

PRODUCED_AT = datetime(2026, 3, 14, 9, 26, 53, 589793, UTC)


def measured_phantom(
    folder: Path, *, seed: int = 20, n_slices: int = 7, protocol: Protocol = "mapss"
) -> tuple[PhantomExam, ExamImages, ExamResult]:
    """A simulated exam (written to ``folder``), its images as they are read, and its result."""
    exam = simulate_exam(seed, n_slices=n_slices, protocol=protocol)
    write_exam(exam, folder)
    settings = Settings()
    files = read_exam_files([folder])
    images = read_exam(assemble(files, settings))
    mask = _true_mask(exam)
    rules, _ = fit_rules(images.stacks)
    maps = {stack.role: relaxation_map(stack, mask.levels > 0, rules[stack.role]) for stack in images.stacks}
    atlas = read_atlas()
    registered = made_up_discs(2 if n_slices == 1 else 3, tuple(maps))
    result = ExamResult(
        verdict=Verdict.OK,
        reasons=(),
        background=images.background,
        mask=mask,
        maps=maps,
        registered=registered,
        measurements=measure(mask, maps, registered),
        volumes_mm3=volumes_mm3(mask),
        times_ms=images.times_ms,
        timings_s={},
        versions={
            "discnode": "0.1.0",
            "settings_digest": settings.analysis_digest,
            "model": mask.model_name,
            "model_sha256": mask.model_sha256,
            "protocol": " + ".join(images.protocols),
            "inference_provider": "none",
            "atlas": atlas.name,
            "atlas_sha256": atlas.sha256,
        },
        produced_at=PRODUCED_AT,
    )
    return exam, images, result


def made_up_discs(dimension: int, quantities: tuple[Quantity, ...] = tuple(Quantity)) -> tuple[RegisteredDisc, ...]:
    """Registered discs on the atlas of 2 or 3 dimensions, nobody's."""
    return tuple(_made_up(disc, quantities) for disc in read_atlas().discs[dimension].values())


def _true_mask(exam: PhantomExam) -> DiscMask:
    in_disc = exam.labels > 0
    confidence = tuple(
        DiscConfidence(level, 0.99, 0.05, False, int((exam.labels == level).sum())) for level in tuple(Level)[:5]
    )
    return DiscMask(
        levels=exam.labels,
        probability=in_disc.astype(np.float32),
        tissue=exam.classes,
        affine=exam.affine,
        confidence=confidence,
        model_name="truth",
        model_sha256="ab" * 32,
    )


def _made_up(disc: AtlasDisc, quantities: tuple[Quantity, ...]) -> RegisteredDisc:
    """Maps that grow with the row and the column, on an atlas disc."""
    jacobian = np.ones(disc.mask.shape, np.float32)
    alignment = Alignment(disc.level, (0.0, 0.0, 0.0), (), jacobian, 0.97, 0.9, 0.1, 0.7, 0, "fast", 1, 2.0)
    inside = disc.mask > 0
    maps = {}
    for quantity in quantities:
        base_ms = 60.0 if quantity is Quantity.T1RHO else 40.0
        _, rows, columns = np.indices(disc.mask.shape)
        time_ms = np.where(inside, base_ms + rows + columns / 4, np.nan).astype(np.float32)
        status = inside.astype(np.uint8) * np.uint8(FitStatus.FITTED)
        maps[quantity] = RelaxationMap(quantity, time_ms, time_ms / 50, time_ms, time_ms / 20, status, disc.affine)
    return RegisteredDisc(alignment, disc, maps)
