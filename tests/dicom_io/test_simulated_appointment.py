"""Who was scanned, when, for which trial: what a technician enters stands in the headers, and nowhere else."""

from datetime import date, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.simulated_appointment import Appointment, TrialEntry
from dicom_io.simulated_scanner import study_uid_of, write_exam
from processing.phantom import PhantomExam, simulate_exam

APPOINTMENT = Appointment(
    patient_id="HOSP-77",
    patient_name="Simulated^Somebody",
    birth_date=date(1970, 6, 2),
    sex="F",
    began=datetime(2024, 6, 1, 23, 59),
    trial=TrialEntry("DISC-9", "02", "02-004", "M3", "Discs", "Sponsor"),
    serial_number="S-2",
    software_versions=("29", "LX"),
    receive_coil="Spine 16",
)


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(2, n_slices=1, matrix=64, anatomy_matrix=32, subject="SPINE-1")


def _headers(exam: PhantomExam, folder: Path, **options: object) -> list[Dataset]:
    return [dcmread(path) for path in write_exam(exam, folder, **options)]  # type: ignore[arg-type]


def test_every_image_says_who_when_and_on_what(exam: PhantomExam, tmp_path: Path) -> None:
    headers = _headers(exam, tmp_path, appointment=APPOINTMENT)
    assert len(headers) == 1 + 7
    for header in headers:
        assert (header.PatientID, header.PatientBirthDate, header.PatientSex) == ("HOSP-77", "19700602", "F")
        assert str(header.PatientName) == "PHANTOM^Simulated^Somebody"
        assert header.PatientAge == "053Y"  # the day before the birthday
        assert (header.ClinicalTrialProtocolID, header.ClinicalTrialSiteID) == ("DISC-9", "02")
        assert (header.ClinicalTrialSubjectID, header.ClinicalTrialTimePointID) == ("02-004", "M3")
        assert (header.DeviceSerialNumber, list(header.SoftwareVersions)) == ("S-2", ["29", "LX"])
        assert header.ReceiveCoilName == "Spine 16"
        assert (header.StudyDate, header.StudyTime) == ("20240601", "235900")
        # series begin minutes after the study: past midnight
        assert header.AcquisitionDate == header.SeriesDate == header.ContentDate == "20240602"


def test_an_enhanced_object_says_the_same(exam: PhantomExam, tmp_path: Path) -> None:
    header = _headers(exam, tmp_path, vendor="siemens", enhanced=True, appointment=APPOINTMENT)[-1]
    assert (header.PatientID, header.ClinicalTrialSubjectID) == ("HOSP-77", "02-004")
    assert header.AcquisitionDateTime.startswith("20240602")
    shared = header.SharedFunctionalGroupsSequence[0]
    assert shared.MRReceiveCoilSequence[0].ReceiveCoilName == "Spine 16"


def test_nothing_of_a_trial_stands_in_a_usual_exam(exam: PhantomExam, tmp_path: Path) -> None:
    for header in _headers(exam, tmp_path):
        assert not [element for element in header if element.keyword.startswith("ClinicalTrial")]
        assert (header.PatientID, header.StudyDate, header.StudyTime) == ("SPINE-1", "20260112", "100000")


def test_the_same_images_entered_otherwise_are_another_study(exam: PhantomExam, tmp_path: Path) -> None:
    usual, other = (
        _headers(exam, tmp_path / name, **options)
        for name, options in (("usual", {}), ("other", {"appointment": APPOINTMENT}))
    )
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert not {header[keyword].value for header in usual} & {header[keyword].value for header in other}
    assert {header.StudyInstanceUID for header in other} == {study_uid_of(exam, APPOINTMENT)}


def test_the_anatomy_can_be_left_out_and_the_series_be_called_otherwise(exam: PhantomExam, tmp_path: Path) -> None:
    named = Appointment(series_description="SPINLOCK SHORT")
    headers = _headers(exam, tmp_path, with_anatomy=False, appointment=named)
    assert {header.SeriesDescription for header in headers} == {"SPINLOCK SHORT"}
    assert len(headers) == 7
