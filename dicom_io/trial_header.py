"""What a header says of the trial subject, the visit and the moment of the scan."""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom

_KEYWORDS = (
    *("PatientID", "PatientBirthDate", "PatientSex"),
    *("ClinicalTrialProtocolID", "ClinicalTrialSiteID", "ClinicalTrialSubjectID", "ClinicalTrialTimePointID"),
    *("StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"),
    *("AcquisitionDateTime", "ContentDate", "ContentTime", "TimezoneOffsetFromUTC"),
)
#: Which of the times of a header is the scan's, best first: those of the acquisition before those of what holds it.
_PAIRS = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
    ("ContentDate", "ContentTime"),
)
_DATE_TIME = re.compile(
    r"(?P<date>\d{8})(?P<hour>\d{2})?(?P<minute>\d{2})?(?P<second>\d{2})?(?:\.(?P<part>\d{1,6}))?(?P<zone>[+-]\d{4})?"
)


@dataclass(frozen=True, slots=True)
class TrialHeader:
    """Texts are "" and the others None where the header is silent, or not of the form that it should have.

    ``patient_id`` is an identity: it is not to be kept. ``acquired_at``: aware where the header tells the offset from
    UTC, else the naive time of the scanner's own clock. ``has_time``: it tells more than the day. ``study_date``: as
    the study says, on whatever clock.
    """

    patient_id: str = field(default="", repr=False)
    birth_year: int | None = None
    sex: str = ""
    protocol_id: str = ""
    site_id: str = ""
    subject_id: str = ""
    time_point_id: str = ""
    study_date: date | None = None
    acquired_at: datetime | None = None
    has_time: bool = False


def read_trial_header(path: Path) -> TrialHeader | None:
    """The header of one file; None if it is gone or no DICOM."""
    try:
        with quiet_pydicom():
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
    except (InvalidDicomError, *PARSE_FAULTS):
        return None
    birth = _date(_text(header, "PatientBirthDate"))
    acquired_at, has_time = _acquired_at(header)
    return TrialHeader(
        patient_id=_text(header, "PatientID"),
        birth_year=None if birth is None else birth.year,
        sex=_text(header, "PatientSex").upper()[:1],
        protocol_id=_text(header, "ClinicalTrialProtocolID")[:64],
        site_id=_text(header, "ClinicalTrialSiteID")[:64],
        subject_id=_text(header, "ClinicalTrialSubjectID")[:64],
        time_point_id=_text(header, "ClinicalTrialTimePointID")[:64],
        study_date=_date(_text(header, "StudyDate")),
        acquired_at=acquired_at,
        has_time=has_time,
    )


def _text(header: Dataset, keyword: str) -> str:
    try:
        with quiet_pydicom():
            value = header.get(keyword)
            return "" if value is None else " ".join(str(value).replace("\0", " ").split())
    except PARSE_FAULTS:
        return ""


def _date(text: str) -> date | None:
    """A DICOM date (PS3.5, VR DA; with dots, as ACR-NEMA wrote it, too)."""
    found = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", text)
    try:
        return None if found is None else date(*(int(part) for part in found.groups()))
    except ValueError:
        return None


def _acquired_at(header: Dataset) -> tuple[datetime | None, bool]:
    """When the images were acquired, and whether more than the day is known.

    AcquisitionDateTime (PS3.5, VR DT) may carry an offset of its own; other dates and times are in that of
    TimezoneOffsetFromUTC (0008,0201) where that is told, else on the scanner's clock (PS3.3 C.12.1.1.8).
    """
    common = _offset(_text(header, "TimezoneOffsetFromUTC"))
    moment = parse_date_time(_text(header, "AcquisitionDateTime"), common)
    if moment is not None:
        return moment
    for date_keyword, time_keyword in _PAIRS:
        day, clock = _text(header, date_keyword), _text(header, time_keyword)
        if (found := _date(day)) is not None:
            pair = parse_date_time(f"{found:%Y%m%d}{clock.replace(':', '')}", common)
            return (datetime(found.year, found.month, found.day), False) if pair is None else pair
    return None, False


def parse_date_time(text: str, common: timezone | None = None) -> tuple[datetime, bool] | None:
    """A DICOM date and time (PS3.5, VR DT), and whether it tells more than the day; None where it is none.

    Args:
        text: YYYYMMDDHHMMSS.FFFFFF&ZZXX, cut anywhere after the day.
        common: offset from UTC where the text has none; None: that is not known, and the time naive.
    """
    found = _DATE_TIME.fullmatch(text)
    if found is None or (day := _date(found["date"])) is None:
        return None
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    part = int((found["part"] or "").ljust(6, "0"))
    try:  # a minute may have a leap second
        moment = datetime(day.year, day.month, day.day, hour, minute, min(second, 59), part)
    except ValueError:
        return None
    has_time = found["hour"] is not None
    offset = _offset(found["zone"] or "") or common
    return moment.replace(tzinfo=offset) if offset is not None and has_time else moment, has_time


def _offset(text: str) -> timezone | None:
    """An offset from UTC: -1200 to +1400 (PS3.5, VR DT)."""
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", text)
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    offset = timedelta(minutes=minutes if found[1] == "+" else -minutes)
    if not timedelta(hours=-12) <= offset <= timedelta(hours=14):
        return None
    return timezone(offset) if offset else UTC
