"""The exam report as an Encapsulated PDF (PS3.3 A.45.1), which PACS and viewers show as a document of the study."""

from dataclasses import dataclass

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_io import codes
from dicom_io.source_attributes import complete, equipment, identity
from dicom_io.sources import SourceExam
from processing.display import RESEARCH_USE_ONLY
from processing.results import ExamResult

SERIES_NUMBER = 9007


@dataclass(frozen=True, slots=True)
class ReportPdf:
    """A report to be encapsulated: its title, the PDF file, and what beside the result decides what stands in it."""

    title: str
    content: bytes
    variant: str


def document_object(result: ExamResult, source: SourceExam, report: ReportPdf) -> SOPClass:
    """The report as an object of the source's study.

    Its UID depends on its variant, too: one UID must not stand for two contents.
    """
    header = source.grid_instances[0]
    role = f"pdf/{report.variant}"
    dataset = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identity(result, source, role, SERIES_NUMBER),
        **equipment(result),
    )
    dataset.ConversionType = "WSD"
    # YES although a policy may show no patient: nobody shall take a report for anonymous that may not be (C.24.2)
    dataset.BurnedInAnnotation = "YES"
    dataset.AcquisitionDateTime = None  # Type 2; the images say it, each its own
    dataset.DocumentTitle = f"{report.title} - {RESEARCH_USE_ONLY}"
    dataset.ConceptNameCodeSequence = [codes.code_item(codes.MRI_SPINE_REPORT)]  # as of the measurements
    dataset.SourceInstanceSequence = _sources(source)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(report.content)
    dataset.EncapsulatedDocument = report.content + b"\0" * (len(report.content) % 2)
    complete(dataset, result, source, role=role, description="Disc measurements, report")
    return dataset


def _sources(source: SourceExam) -> Sequence:
    """Every image used, once; the SOP Instance Reference Macro names no frames."""
    items: dict[str, Dataset] = {}
    for instance in source.all_instances:
        item = items.setdefault(str(instance.SOPInstanceUID), Dataset())
        item.ReferencedSOPClassUID = instance.SOPClassUID
        item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return Sequence(items.values())
