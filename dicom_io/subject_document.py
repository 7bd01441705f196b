"""The report of a trial's subject as DICOM objects of the newest visit's study: what both of them share."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from highdicom.base import SOPClass
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_io import codes
from dicom_io.source_attributes import copy_heading, equipment, sign
from dicom_io.uids import derived_uid
from processing.display import RESEARCH_USE_ONLY
from processing.visits import Cell, Change, Observation

SR_SERIES_NUMBER, PDF_SERIES_NUMBER = 9050, 9051


@dataclass(frozen=True, slots=True, eq=False)
class ReportedVisit:
    """One visit as objects refer to it. ``segmentation``: its Segmentation, without pixels; None: not measured."""

    name: str
    order: int  # from 1
    is_baseline: bool
    day: int | None
    scan_date: date | None
    segmentation: Dataset | None


@dataclass(frozen=True, slots=True, eq=False)
class SubjectReport:
    """What a subject's report says, for its DICOM objects.

    ``inputs_digest``: of all that it shows; with the version it makes the UIDs. ``comments``: what is to be said beside
    the numbers, in words. ``versions``, ``produced_at``: as :class:`dicom_io.source_attributes.Made`.
    """

    protocol_id: str
    subject_id: str
    version: int
    inputs_digest: str
    visits: tuple[ReportedVisit, ...]
    observations: Mapping[Cell, tuple[Observation, ...]]
    changes: tuple[Change, ...]
    comments: tuple[str, ...]
    versions: Mapping[str, str]
    produced_at: datetime

    @property
    def newest(self) -> Dataset:
        """The Segmentation of the newest visit, in whose study the report lies.

        Raises:
            ValueError: no visit is measured.
        """
        measured = [one for one in self.visits if one.segmentation is not None]
        if not measured:
            raise ValueError("a report needs a measured visit")
        found = max(measured, key=lambda one: (one.scan_date or date.min, one.order)).segmentation
        assert found is not None
        return found


def read_header(path: Path) -> Dataset:
    """The header of an object of ours.

    Raises:
        OSError: the file cannot be read.
    """
    return dcmread(path, stop_before_pixels=True)


def subject_identity(report: SubjectReport, role: str, series_number: int) -> dict[str, Any]:
    """Arguments of highdicom's writers that identify an object: the same report has the same UIDs."""
    parts = ("subject report", report.protocol_id, report.subject_id, f"{report.version}", report.inputs_digest, role)
    return {
        "sop_instance_uid": derived_uid(*parts),
        "series_instance_uid": derived_uid(*parts, "series"),
        "series_number": series_number,
        "instance_number": report.version,
    }


def subject_pdf_object(report: SubjectReport, title: str, content: bytes) -> SOPClass:
    """The report for people as an Encapsulated PDF (PS3.3 A.45.1) in the newest visit's study."""
    header = report.newest
    dataset = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **subject_identity(report, "pdf", PDF_SERIES_NUMBER),
        **equipment(report),
    )
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"  # the subject's ID in the trial stands on its pages
    dataset.AcquisitionDateTime = None  # Type 2; each visit has its own
    dataset.DocumentTitle = f"{title} - {RESEARCH_USE_ONLY}"
    dataset.ConceptNameCodeSequence = [codes.code_item(codes.MRI_SPINE_REPORT)]
    dataset.SourceInstanceSequence = Sequence(
        _reference(one.segmentation) for one in report.visits if one.segmentation is not None
    )
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    copy_heading(dataset, header)
    sign(dataset, report, header, description="Discs over time, report")
    return dataset


def _reference(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item
