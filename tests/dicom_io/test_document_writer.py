"""The report as an Encapsulated PDF: the same bytes, in the source's study, its sources named."""

import dataclasses
from io import BytesIO

import example_exam
import numpy as np
import pytest
from enhanced_object import enhanced_source
from pydicom import Dataset, dcmread
from pydicom.uid import EncapsulatedPDFStorage

from config.settings import ObjectKind
from dicom_io.document_writer import ReportPdf, document_object
from dicom_io.result_objects import write_objects
from dicom_io.source_attributes import PATIENT_STUDY_KEYWORDS
from processing.results import Level

ODD = ReportPdf("Relaxation times", b"%PDF-1.4\n12\n%%EOF", "patient_id")
EVEN = ReportPdf("Relaxation times", b"%PDF-1.4\n123\n%%EOF", "patient_id")


def stored(report: ReportPdf) -> Dataset:
    """The object as another program reads it."""
    stream = BytesIO()
    document_object(example_exam.exam_result(), example_exam.source_exam(), report).save_as(
        stream, enforce_file_format=True
    )
    stream.seek(0)
    return dcmread(stream)


@pytest.mark.parametrize("report", [ODD, EVEN], ids=["odd length", "even length"])
def test_the_pdf_comes_out_as_it_went_in(report):
    read = stored(report)
    assert read.SOPClassUID == EncapsulatedPDFStorage
    assert read.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert len(read.EncapsulatedDocument) % 2 == 0
    assert read.EncapsulatedDocumentLength == len(report.content)
    assert read.EncapsulatedDocument[: read.EncapsulatedDocumentLength] == report.content
    assert {len(ODD.content) % 2, len(EVEN.content) % 2} == {0, 1}


def test_it_belongs_to_the_source_and_says_what_it_is():
    read, header = stored(ODD), example_exam.source_exam().grid_instances[0]
    for keyword in PATIENT_STUDY_KEYWORDS:
        assert read.get(keyword) == header.get(keyword), keyword
    assert (read.Modality, read.SeriesNumber, read.BurnedInAnnotation) == ("DOC", 9007, "YES")
    assert read.DocumentTitle == "Relaxation times - Research use only"
    assert read.SeriesDescription.endswith("Research use only")
    assert read.ConceptNameCodeSequence[0].CodeValue == "18756-7"
    assert "BodyPartExamined" not in read
    assert [one.ReferencedSOPInstanceUID for one in read.SourceInstanceSequence] == [
        one.SOPInstanceUID for one in example_exam.source_exam().all_instances
    ]


def test_a_multi_frame_source_is_named_once(tmp_path):
    source = enhanced_source(example_exam.source_exam(), [tmp_path / "1.dcm", tmp_path / "2.dcm"])
    made = document_object(example_exam.exam_result(), source, ODD)
    uids = [one.ReferencedSOPInstanceUID for one in made.SourceInstanceSequence]
    assert sorted(uids) == sorted(source.sop_instance_uids)
    assert len(uids) == 2
    assert not [one for one in made.SourceInstanceSequence if "ReferencedFrameNumber" in one]


def test_what_else_decides_the_content_decides_the_uid():
    """One UID must not stand for two contents."""
    hidden = dataclasses.replace(ODD, variant="none")
    assert stored(ODD).SOPInstanceUID == stored(ODD).SOPInstanceUID
    assert stored(ODD).SOPInstanceUID != stored(hidden).SOPInstanceUID
    assert stored(ODD).SeriesInstanceUID != stored(hidden).SeriesInstanceUID


def test_it_is_written_only_where_there_is_a_report(tmp_path):
    result, source = example_exam.exam_result((Level.L3L4,)), example_exam.source_exam()
    for name, report in (("with", ODD), ("without", None)):
        (tmp_path / name).mkdir()
        made = write_objects(result, source, np.zeros((50, 70, 3), np.uint8), tmp_path / name, report)
        documents = [one.path.name for one in made if one.kind is ObjectKind.PDF]
        assert documents == (["report.dcm"] if name == "with" else [])
    files = {name: {path.name for path in (tmp_path / name / "dicom").iterdir()} for name in ("with", "without")}
    assert files["with"] - files["without"] == {"report.dcm"}
    read = [dcmread(path, stop_before_pixels=True) for path in (tmp_path / "with/dicom").iterdir()]
    numbers = {str(one.SeriesInstanceUID): int(one.SeriesNumber) for one in read}
    assert len(set(numbers.values())) == len(numbers)
