"""Every scan of a reproduction against its truth: the discs of its result, and the times under either outline."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from config.protocol_cards import asked_elements, load_cards
from config.settings import Settings
from dicom_io.segmentation_reader import read_segmentation
from dicom_io.volume_reader import ExamImages, read_exam
from models.inference import OnnxModel
from processing.agreement import compare_exam, compare_times
from processing.agreement_figures import Picture, take_picture
from processing.annotations import Annotation, AnnotationError, in_canonical_order, place_on_grid
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import LUMBAR_LEVELS, Affine, EchoStack, ImageVolume, LabelArray, Level
from processing.segmentation import find_discs
from processing.volume import spacing_mm
from service.cohort.reproduction.records import ReproducedScan, read_truth
from service.evaluation import ExamOutcome, Outcome
from service.exam_files import read_exam_files
from service.pipeline import assemble


class ComparedImages:
    """A scan's images, echoes, true and automatic discs on one grid, canonical: slices, rows, columns."""

    def __init__(self, scan: ReproducedScan, settings: Settings) -> None:
        """Read everything.

        Raises:
            UnsuitableInput: the images, or the segmentation of the result, cannot be read.
            AnnotationError: truth or segmentation do not lie on the images.
            OSError: a file is not there.
        """
        name = scan.subject
        exam = _read_images(scan.images, settings)
        array, affine = in_canonical_order(exam.background.array, exam.background.affine, name)
        self.image = ImageVolume(array, affine)
        self.stacks = tuple(
            EchoStack(one.role, in_canonical_order(one.signal, one.affine, name)[0], one.times_ms, affine)
            for one in exam.stacks
        )
        truth = read_truth(scan.truth)
        self.truth = _placed(truth.labels, truth.affine, array.shape, affine, f"{name}: truth")
        found, found_affine = read_segmentation(scan.result / "dicom" / "seg.dcm")
        self.automatic = _placed(found, found_affine, array.shape, affine, f"{name}: segmentation")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of slices, rows, columns."""
        return spacing_mm(self.image.affine)


def compare_scan(scan: ReproducedScan, settings: Settings) -> ExamOutcome:
    """The masks and the times of one scan; a scan without a result says why.

    Raises:
        OSError: the images or the truth are not there.
    """
    document = result_document(scan)
    if document is None:
        return _not_compared(scan, Outcome.UNREADABLE, (Reason(ReasonCode.UNREADABLE, "there is no result"),))
    reasons = tuple(Reason(ReasonCode(one["code"]), one["detail"]) for one in document["reasons"])
    if document["status"] == "refused":
        return _not_compared(scan, Outcome.REFUSED, reasons)
    try:
        held = ComparedImages(scan, settings)
    except UnsuitableInput as error:
        return _not_compared(scan, Outcome.UNREADABLE, (error.reason,))
    except AnnotationError as error:
        return _not_compared(scan, Outcome.UNREADABLE, (Reason(ReasonCode.UNREADABLE, str(error)),))
    present = [level for level in LUMBAR_LEVELS if (held.truth == level).any()]
    return replace(
        _not_compared(scan, Outcome.COMPARED, reasons),
        annotated=tuple(present),
        missing=tuple(level for level in LUMBAR_LEVELS if level not in present),
        n_slices=len(held.truth),
        agreement=compare_exam(held.truth, held.automatic, held.spacing_mm),
        times=tuple(row for stack in held.stacks for row in compare_times(stack, held.truth, held.automatic)),
    )


def picture_of(scan: ReproducedScan, settings: Settings, model: OnnxModel) -> Picture:
    """The paper's Fig 2 of one scan: image, truth, segmentation of its result, and the network's probability.

    Raises:
        UnsuitableInput: the network does not find the discs, or the images cannot be read.
    """
    held = ComparedImages(scan, settings)
    found = find_discs(held.image, model, threshold=settings.segmentation.threshold)
    return take_picture(held.image.array, held.truth, held.automatic, found.probability, held.spacing_mm)


def result_document(scan: ReproducedScan) -> dict[str, Any] | None:
    """``result.json``; None where there is none."""
    path = scan.result / "result.json"
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def grade_of(scan: ReproducedScan, level: Level) -> int | None:
    """The disc's grade from the columns ``grade_L5S1`` ..; None where it has none."""
    text = scan.values.get(f"grade_{level.name}", "").strip()
    return int(float(text)) if text else None


def _read_images(folder: Path, settings: Settings) -> ExamImages:
    files = read_exam_files([folder], asked_elements(load_cards(settings.protocols_dir)))
    return read_exam(assemble(files, settings))


def _placed(labels: LabelArray, own: Affine, shape: tuple[int, ...], affine: Affine, name: str) -> LabelArray:
    levels, canonical = in_canonical_order(labels, np.asarray(own, np.float64), name)
    return place_on_grid(Annotation(levels, None, True, canonical), shape, affine, name).levels


def _not_compared(scan: ReproducedScan, outcome: Outcome, reasons: tuple[Reason, ...]) -> ExamOutcome:
    return ExamOutcome(
        scan.subject, scan.visit, "simulated", outcome, reasons, (), (), n_slices=0, member=None, cpu_s=0.0
    )
