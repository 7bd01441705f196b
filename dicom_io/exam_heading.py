"""What stands at the head of a report about an exam: whose it is, of when, on which scanner."""

from dataclasses import dataclass
from datetime import date, datetime

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.sources import SourceExam

_MOST_LETTERS = 256  # a Long String has 64 (PS3.5, VR LO); a header may break the rule, and a page has an end


@dataclass(frozen=True, slots=True)
class ExamHeading:
    """Texts of an exam's first image; "" or None where it is silent. The patient's name is never among them."""

    patient_id: str = ""
    trial_protocol_id: str = ""
    trial_site_id: str = ""
    trial_subject_id: str = ""
    trial_time_point_id: str = ""
    study_date: date | None = None
    scanner: str = ""
    field_strength_t: float | None = None


def exam_heading(source: SourceExam) -> ExamHeading:
    """The heading of an exam, from the image of its first slice."""
    header = source.grid_instances[0]
    maker, model = _text(header, "Manufacturer"), _text(header, "ManufacturerModelName")
    return ExamHeading(
        patient_id=_text(header, "PatientID"),
        trial_protocol_id=_text(header, "ClinicalTrialProtocolID"),
        trial_site_id=_text(header, "ClinicalTrialSiteID"),
        trial_subject_id=_text(header, "ClinicalTrialSubjectID"),
        trial_time_point_id=_text(header, "ClinicalTrialTimePointID"),
        study_date=_date(_text(header, "StudyDate")),
        scanner=" ".join(part for part in (maker, model) if part),
        field_strength_t=_number(_text(header, "MagneticFieldStrength")),
    )


def _text(header: Dataset, keyword: str) -> str:
    """A value as text, several joined, cut where it is too long; empty where it is absent or not what its VR says."""
    try:
        with quiet_pydicom():
            value = header.get(keyword, "")
            text = " ".join(
                str(one) for one in (value if isinstance(value, MultiValue) else (value,)) if one is not None
            )
    except PARSE_FAULTS:
        return ""
    text = " ".join(text.replace("\0", " ").split())
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"


def _date(text: str) -> date | None:
    """A DICOM date (PS3.5, VR DA); None where it is none."""
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
