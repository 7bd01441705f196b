"""The DICOM objects of a QC phantom's scan: the maps of its vials, and the report."""

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from config.settings import ObjectKind
from dicom_io.codes import code_item
from dicom_io.document_writer import ReportPdf, document_object
from dicom_io.map_writer import MapKind, map_name, map_object
from dicom_io.mr_writer import reference_series
from dicom_io.reference_images import REFERENCE, needs_reference
from dicom_io.result_objects import WrittenObject
from dicom_io.sources import SourceExam
from processing.display import RESEARCH_USE_ONLY
from processing.results import ExamResult, Quantity

_PHANTOM = Code("113681", "DCM", "Phantom")
_Made = tuple[ObjectKind, str, Dataset, tuple[ObjectKind, ...]]


def write_phantom_objects(
    result: ExamResult, source: SourceExam, folder: Path, pdf: ReportPdf
) -> tuple[WrittenObject, ...]:
    """Write the maps of a phantom's vials and its report into ``folder / "dicom"``, as
    :func:`dicom_io.result_objects.write_objects` does for an exam. No object says that it shows a spine.

    Args:
        result: without a mask; its maps are of the vials.
        source: the images they were measured from.
        folder: exists; gets a subfolder ``dicom``.
        pdf: the report for people.
    """
    (folder / "dicom").mkdir()
    written = []
    for kind, name, dataset, needed_by in _make(result, source, pdf):
        path = Path("dicom") / f"{name}.dcm"
        dataset.save_as(folder / path, enforce_file_format=True)
        written.append(WrittenObject(kind, path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), needed_by))
    return tuple(written)


def _make(result: ExamResult, source: SourceExam, pdf: ReportPdf) -> Iterator[_Made]:
    if needs_reference(source):
        for image in reference_series(result, source):
            image.SeriesDescription = f"First images - {RESEARCH_USE_ONLY}"
            image.DerivationDescription = "One image per slice, at the shortest time: what the vials were found on"
            name = f"{REFERENCE}-{image.InstanceNumber:03d}"
            yield ObjectKind.MR, name, _of_phantom(image), (ObjectKind.PMAP,)
    for quantity in Quantity:
        for kind in MapKind if quantity in result.maps else ():
            made = map_object(result, source, quantity, kind)
            yield ObjectKind.PMAP, map_name(quantity, kind), _of_phantom(made), ()
    yield ObjectKind.PDF, "report", document_object(result, source, pdf), ()


def _of_phantom(dataset: Dataset) -> Dataset:
    """Say that the anatomy is none (PS3.16 CID 4031 has Phantom), and unpaired. Changes the object."""
    if "BodyPartExamined" in dataset:
        del dataset.BodyPartExamined
    groups = dataset.get("SharedFunctionalGroupsSequence", ())
    for group in groups:
        for anatomy in group.get("FrameAnatomySequence", ()):
            anatomy.AnatomicRegionSequence = [code_item(_PHANTOM)]
    if not groups:
        dataset.ImageLaterality = "U"  # so that Laterality need not be there (PS3.3 C.7.3.1)
    return dataset
