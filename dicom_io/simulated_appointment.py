"""Who lies in a simulated scanner, when, for which trial: what a technician enters, and which scanner it is."""

import hashlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pydicom.dataset import Dataset

_FIRST_SCAN = datetime(2026, 1, 12, 10, 0)
_BETWEEN_VISITS = timedelta(days=182)


@dataclass(frozen=True, slots=True)
class TrialEntry:
    """The Clinical Trial Subject and Study modules (PS3.3 C.7.1.3, C.7.2.3); "" is not written."""

    protocol_id: str
    site_id: str
    subject_id: str
    time_point_id: str = ""
    protocol_name: str = ""
    sponsor: str = ""


@dataclass(frozen=True, slots=True)
class Appointment:
    """One scan of one person. The usual values are those of every simulated exam without a trial.

    Args:
        patient_id: "" is the name of the exam's subject.
        patient_name: of PatientName, after ``PHANTOM^``; "" is the PatientID.
        birth_date: of the patient.
        sex: M, F or O.
        began: the scanner's own clock, local time without zone; None is ten o'clock on the day of the exam's visit.
        trial: what stands about the trial; None for nothing.
        serial_number: of the scanner; "" is the vendor's usual.
        software_versions: of the scanner; empty is the vendor's usual.
        receive_coil: its name; "" is not written.
        accession_number: of the study.
        series_description: of GE's relaxometry; "" is the usual.
    """

    patient_id: str = ""
    patient_name: str = ""
    birth_date: date = date(1980, 1, 1)
    sex: str = "O"
    began: datetime | None = None
    trial: TrialEntry | None = None
    serial_number: str = ""
    software_versions: tuple[str, ...] = ()
    receive_coil: str = ""
    accession_number: str = ""
    series_description: str = ""

    @property
    def flavour(self) -> str:
        """A word for the UIDs: what was entered otherwise is another exam. "" for the usual."""
        return "" if self == USUAL_APPOINTMENT else hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def starts(self, visit: int) -> datetime:
        """When it began; ``visit`` counts where no time is given."""
        return self.began or _FIRST_SCAN + (visit - 1) * _BETWEEN_VISITS


#: Nobody in particular.
USUAL_APPOINTMENT = Appointment()


def describe_patient(dataset: Dataset, appointment: Appointment, subject: str) -> None:
    """Patient and Clinical Trial modules."""
    patient_id = appointment.patient_id or subject
    dataset.PatientName = f"PHANTOM^{appointment.patient_name or patient_id}"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = appointment.birth_date.strftime("%Y%m%d")
    dataset.PatientSex = appointment.sex
    dataset.PatientAge = _age(appointment)
    dataset.PatientWeight = "70"
    dataset.AccessionNumber = appointment.accession_number
    if appointment.trial is not None:
        _describe_trial(dataset, appointment.trial)


def _age(appointment: Appointment) -> str:
    """On the day of the scan; without one, that of the usual patient."""
    if appointment.began is None:
        return "046Y"
    born, on = appointment.birth_date, appointment.began.date()
    return f"{on.year - born.year - ((on.month, on.day) < (born.month, born.day)):03d}Y"


def _describe_trial(dataset: Dataset, trial: TrialEntry) -> None:
    written = {
        "ClinicalTrialSponsorName": trial.sponsor,
        "ClinicalTrialProtocolID": trial.protocol_id,
        "ClinicalTrialProtocolName": trial.protocol_name,
        "ClinicalTrialSiteID": trial.site_id,
        "ClinicalTrialSubjectID": trial.subject_id,
        "ClinicalTrialTimePointID": trial.time_point_id,
    }
    for keyword, text in written.items():
        if text:
            setattr(dataset, keyword, text)
