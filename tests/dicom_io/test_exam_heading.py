"""What stands at the head of a report, also where headers break the rules."""

from datetime import date
from io import BytesIO

import example_exam
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_io.exam_heading import ExamHeading, exam_heading
from dicom_io.sources import SourceExam


def heading(**values: bytes) -> ExamHeading:
    """The heading of an exam whose first image was read from a file with these bytes."""
    stream = BytesIO()
    example_exam.source_exam().grid_instances[0].save_as(stream, enforce_file_format=True)
    stream.seek(0)
    read = dcmread(stream)
    for keyword, value in values.items():
        tag = Tag(keyword)
        read[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    return exam_heading(SourceExam((read,), (read,), example_exam.affine()))


def test_the_heading_is_that_of_the_image():
    assert heading() == ExamHeading(
        patient_id="P-0815",
        trial_protocol_id="DISC-1",
        trial_site_id="07",
        trial_subject_id="S-0042",
        trial_time_point_id="V2",
        study_date=date(2026, 3, 13),
        scanner="GE MEDICAL SYSTEMS DISCOVERY MR750w",
        field_strength_t=3.0,
    )


@pytest.mark.parametrize(
    ("keyword", "value", "field", "expected"),
    [
        ("StudyDate", b"20261345", "study_date", None),
        ("StudyDate", b"", "study_date", None),
        ("StudyDate", b"2026.03.", "study_date", None),
        ("MagneticFieldStrength", b"3,0 ", "field_strength_t", None),
        ("MagneticFieldStrength", b"1.5", "field_strength_t", 1.5),
        ("MagneticFieldStrength", b"3\\3 ", "field_strength_t", None),
        ("PatientID", b"A  B\0", "patient_id", "A B"),
        ("PatientID", b"", "patient_id", ""),
        ("PatientID", b"7" * 100, "patient_id", "7" * 100),
        ("PatientID", b"7" * 9000, "patient_id", "7" * 255 + "…"),
        ("PatientID", b"A\\B ", "patient_id", "A B"),
        ("ManufacturerModelName", b"", "scanner", "GE MEDICAL SYSTEMS"),
        ("ManufacturerModelName", "Prisma é".encode("latin-1"), "scanner", "GE MEDICAL SYSTEMS Prisma é"),
    ],
)
def test_odd_values_are_shown_as_they_stand_or_left_out(keyword, value, field, expected):
    assert getattr(heading(**{keyword: value}), field) == expected


def test_it_has_no_place_for_a_name():
    fields = set(ExamHeading.__dataclass_fields__)
    assert not [one for one in fields if "name" in one or "birth" in one]
    assert "Ångström" not in str(heading())
