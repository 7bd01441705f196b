"""What a header says of subject, visit and moment, also where it is silent, odd, or of another character set."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from small_mr_exam import mr_dataset

from dicom_io.trial_header import TrialHeader, read_trial_header


def _read(folder: Path, **attributes: object) -> TrialHeader:
    path = folder / "image.dcm"
    mr_dataset(np.zeros((2, 2), np.uint16), **attributes).save_as(path, enforce_file_format=True)
    found = read_trial_header(path)
    assert found is not None
    return found


def test_a_header_that_tells_everything(tmp_path: Path) -> None:
    found = _read(
        tmp_path,
        PatientSex="F",
        ClinicalTrialProtocolID="DISC-1",
        ClinicalTrialSiteID="01",
        ClinicalTrialSubjectID="01-001 ",
        ClinicalTrialTimePointID="M3",
        StudyDate="20260302",
        AcquisitionDate="20260303",
        AcquisitionTime="001000.5",
    )
    assert (found.protocol_id, found.site_id, found.subject_id, found.time_point_id) == ("DISC-1", "01", "01-001", "M3")
    assert (found.patient_id, found.birth_year, found.sex) == ("P-17", 1980, "F")
    assert (found.study_date, found.has_time) == (date(2026, 3, 2), True)
    assert found.acquired_at == datetime(2026, 3, 3, 0, 10, 0, 500_000)
    assert "P-17" not in repr(found)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"AcquisitionDateTime": "20260302101500.25+0100", "AcquisitionDate": "20200101"},
            timezone(timedelta(hours=1)),
        ),
        ({"AcquisitionDateTime": "20260302101500.25", "TimezoneOffsetFromUTC": "+0000"}, UTC),
        ({"AcquisitionDate": "20260302", "AcquisitionTime": "101500.25", "TimezoneOffsetFromUTC": "-0500"}, "-5"),
        ({"SeriesDate": "20260302", "SeriesTime": "101500.250", "AcquisitionTime": "235959"}, None),
        ({"StudyDate": "20260302", "StudyTime": "101500.25", "SeriesDate": ""}, None),
    ],
)
def test_the_moment_is_the_acquisitions_before_the_series_and_the_studys(
    tmp_path: Path, attributes: dict[str, str], expected: object
) -> None:
    found = _read(tmp_path, **attributes)
    zone = timezone(timedelta(hours=-5)) if expected == "-5" else expected
    assert found.acquired_at == datetime(2026, 3, 2, 10, 15, 0, 250_000, tzinfo=zone)  # type: ignore[arg-type]
    assert found.has_time


def test_a_silent_header(tmp_path: Path) -> None:
    found = _read(tmp_path, PatientID=None, PatientBirthDate=None, StudyDate="20260302", StudyTime=None)
    assert found == TrialHeader(study_date=date(2026, 3, 2), acquired_at=datetime(2026, 3, 2), has_time=False)


def test_what_is_gone_or_no_dicom_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Doe^Jane")
    assert read_trial_header(tmp_path / "text") is None
    assert read_trial_header(tmp_path / "nothing") is None


def test_another_character_set(tmp_path: Path) -> None:
    found = _read(tmp_path, SpecificCharacterSet="ISO_IR 100", ClinicalTrialSubjectID="Müller-1")
    assert found.subject_id == "Müller-1"
