"""All DICOM objects of one result, made and written."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from config.settings import ObjectKind
from dicom_io.document_writer import ReportPdf, document_object
from dicom_io.map_writer import map_object
from dicom_io.overlay_writer import overlay_object
from dicom_io.report_writer import report_object
from dicom_io.segmentation_writer import segmentation_object
from dicom_io.sources import SourceExam
from processing.results import ExamResult, Quantity


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """A DICOM object on disk. ``path`` is relative to the folder of the result."""

    kind: ObjectKind
    path: Path
    sop_class_uid: str
    sop_instance_uid: str


def write_objects(
    result: ExamResult,
    source: SourceExam,
    picture: npt.NDArray[np.uint8],
    folder: Path,
    pdf: ReportPdf | None = None,
) -> tuple[WrittenObject, ...]:
    """Write segmentation, maps, measurements, overview and report of a result into ``folder / "dicom"``.

    An exam without echoes has no maps; its report holds volumes only. Writing the same result twice gives the same
    bytes.

    Args:
        result: with at least one disc.
        source: the images it was measured from.
        picture: the overview, (rows, columns, 3) uint8 sRGB.
        folder: exists; gets a subfolder ``dicom``.
        pdf: the report for people, if there is one.
    """
    (folder / "dicom").mkdir()
    written = []
    for kind, name, dataset in _make(result, source, picture, pdf):
        path = Path("dicom") / f"{name}.dcm"
        dataset.save_as(folder / path, enforce_file_format=True)
        written.append(WrittenObject(kind, path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))
    return tuple(written)


def _make(
    result: ExamResult, source: SourceExam, picture: npt.NDArray[np.uint8], pdf: ReportPdf | None
) -> Iterator[tuple[ObjectKind, str, Dataset]]:
    segmentation = segmentation_object(result, source)
    yield ObjectKind.SEG, "seg", segmentation
    for quantity in Quantity:
        if quantity in result.maps:
            yield ObjectKind.PMAP, quantity.value.lower(), map_object(result, source, quantity)
    yield ObjectKind.SR, "sr", report_object(result, source, segmentation)
    yield ObjectKind.OVERLAY, "overlay", overlay_object(result, source, picture)
    if pdf is not None:
        yield ObjectKind.PDF, "report", document_object(result, source, pdf)
