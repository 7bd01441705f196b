"""What every output shares with its source (patient, study, trial, copied unchanged), and who made it, when."""

import copy
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM, DSfloat

from dicom_io.codes import ACQUISITION_EQUIPMENT, PROCESSING_EQUIPMENT, code_item
from dicom_io.editor import name_editor
from dicom_io.source_references import name_frames, single_image_uids
from dicom_io.sources import SourceExam, text_of
from dicom_io.uids import result_uid
from processing.display import RESEARCH_USE_ONLY
from processing.results import ExamResult
from processing.volume import spacing_mm

MANUFACTURER = "discnode"

#: Root attributes of the Patient, Clinical Trial Subject, General Study, Patient Study and Clinical Trial Study modules
#: (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.2.3). They must be equal in all instances of a patient or study.
PATIENT_STUDY_KEYWORDS = (
    *("ReferencedPatientSequence", "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID"),
    *("IssuerOfPatientIDQualifiersSequence", "SourcePatientGroupIdentificationSequence", "PatientBirthDate"),
    *("PatientBirthTime", "PatientBirthDateInAlternativeCalendar", "PatientAlternativeCalendar", "PatientSex"),
    *("QualityControlSubject", "OtherPatientIDs", "OtherPatientNames", "OtherPatientIDsSequence", "EthnicGroup"),
    *("ReferencedPatientPhotoSequence", "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientComments"),
    *("PatientBreedDescription", "PatientBreedCodeSequence", "BreedRegistrationSequence", "ResponsiblePerson"),
    *("ResponsiblePersonRole", "ResponsibleOrganization", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("IssuerOfClinicalTrialProtocolID", "OtherClinicalTrialProtocolIDsSequence", "IssuerOfClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("IssuerOfClinicalTrialSubjectID", "IssuerOfClinicalTrialSubjectReadingID"),
    *("ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolEthicsCommitteeApprovalNumber"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription"),
    *("IssuerOfAccessionNumberSequence", "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    *("ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence", "ProcedureCodeSequence"),
    *("PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy"),
    *("PhysiciansReadingStudyIdentificationSequence", "ReferencedStudySequence", "RequestingService"),
    *("RequestingServiceCodeSequence", "ReasonForPerformedProcedureCodeSequence"),
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientSizeCodeSequence", "PatientBodyMassIndex", "MeasuredAPDimension", "MeasuredLateralDimension"),
    *("MedicalAlerts", "Allergies", "SmokingStatus", "PregnancyStatus", "LastMenstrualDate", "PatientSexNeutered"),
    *("Occupation", "AdditionalPatientHistory", "ReasonForVisit", "ReasonForVisitCodeSequence", "AdmissionID"),
    *("IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription", "PatientState"),
    *("IssuerOfServiceEpisodeIDSequence", "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription"),
    *("LongitudinalTemporalOffsetFromEvent", "LongitudinalTemporalEventType", "ConsentForClinicalTrialUseSequence"),
    *("ClinicalTrialTimePointTypeCodeSequence", "IssuerOfClinicalTrialTimePointID"),
)

#: Of the series: the trial's coordinating centre; and what is needed to read dates and times.
_SHARED_KEYWORDS = ("ClinicalTrialCoordinatingCenterName", "TimezoneOffsetFromUTC")

#: Type 2: present in every output, empty when the source has no value.
_NEVER_ABSENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)

#: What highdicom needs to place and reference an image.
GEOMETRY_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("PositionReferenceIndicator", "Rows", "Columns", "PixelSpacing", "SliceThickness"),
    *("ImageOrientationPatient", "ImagePositionPatient", "Modality"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)


_NODE_KEYWORDS = {
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "manufacturer_model_name",
    "DeviceSerialNumber": "device_serial_number",
    "SoftwareVersions": "software_versions",
}
_SCANNER_KEYWORDS = ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions")
_TELLING_VERSIONS = (
    *("discnode", "model", "model_sha256", "settings_digest", "protocol", "correction", "atlas", "atlas_sha256"),
    *("inference_provider", "disc_threshold", "registration_preset", "fit", "lowest_disc"),
)
_SHORT_TEXT = 1024
_PLAIN = {
    **{"ρ": "rho", "σ": "SD", "×": "x", "±": "+/-", "–": "-"},
    **{"≥": ">=", "≤": "<=", "…": "..."},
}


class Made(Protocol):
    """What tells which state of the node made an object, and when."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Name -> version or digest; ``discnode`` among them."""

    @property
    def produced_at(self) -> datetime:
        """Aware UTC, the same for every attempt."""


def geometry_header(instance: Dataset, source: SourceExam) -> Dataset:
    """A header with geometry and identity only, for highdicom's writers.

    They check and copy patient attributes in their own way; real headers hold values they refuse. Patient, study and
    scanner are copied afterwards by :func:`complete`, unchanged. They also ask for a slice thickness, which a scanner
    may leave empty (Type 2), and for the very same orientation in all images, which some writers round differently. A
    frame of a multi-frame object is shown to them as an image of its own; :func:`complete` names the object.
    """
    header = Dataset()
    for keyword in GEOMETRY_KEYWORDS:
        if keyword in instance:
            header[keyword] = copy.copy(instance[keyword])  # setting a value would change the instance too
    header.SOPClassUID, header.SOPInstanceUID = single_image_uids(instance)
    header.ImageOrientationPatient = source.grid_instances[0].ImageOrientationPatient
    if not header.get("SliceThickness"):
        header.SliceThickness = DSfloat(spacing_mm(source.affine)[0], auto_format=True)
    for keyword in _NEVER_ABSENT:
        setattr(header, keyword, None)
    return header


def equipment(made: Made) -> dict[str, Any]:
    """Arguments of highdicom's writers that say what made the object.

    The serial number names the installed state (software, settings, weights): a node has no other.
    """
    state = "\n".join(f"{name}={made.versions[name]}" for name in sorted(made.versions))
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "discnode",
        "software_versions": made.versions["discnode"],
        "device_serial_number": hashlib.sha256(state.encode()).hexdigest()[:16],
    }


def identity(result: ExamResult, source: SourceExam, role: str, series_number: int) -> dict[str, Any]:
    """Arguments of highdicom's writers that identify an object: one object, one series."""
    return {
        "sop_instance_uid": result_uid(result, source, role),
        "series_instance_uid": result_uid(result, source, f"{role}/series"),
        "series_number": series_number,
        "instance_number": 1,
    }


def complete(dataset: Dataset, result: ExamResult, source: SourceExam, *, role: str, description: str) -> None:
    """Finish an object that highdicom made: patient, study, trial, dates, description, research use; no chance left.

    Changes ``dataset``. ``description`` becomes the series description, with the research-use text.
    """
    header = source.grid_instances[0]
    copy_heading(dataset, header)
    if "ContentLabel" in dataset:
        dataset.ContentCreatorName = ""  # Type 2 of the Content Identification macro (PS3.3 10.9)
    if result.correction is not None:
        name_editor(dataset, result.correction)
    sign(dataset, result, header, description=description)
    name_frames(dataset, source)
    _name_dimensions(dataset, result_uid(result, source, f"{role}/dimensions"))


def copy_heading(dataset: Dataset, header: Dataset) -> None:
    """Patient, study and trial as they stand in a header of the study. Changes ``dataset``."""
    _share_character_set(dataset, header)
    for keyword in (*PATIENT_STUDY_KEYWORDS, *_SHARED_KEYWORDS):
        if keyword in header:
            dataset[keyword] = _unchanged(header, keyword)
        elif keyword in dataset and keyword not in _NEVER_ABSENT:
            del dataset[keyword]
    for keyword in _NEVER_ABSENT:
        if keyword not in header:
            setattr(dataset, keyword, None)


def sign(dataset: Dataset, made: Made, header: Dataset, *, description: str) -> None:
    """Say what an object is, that it is for research, when it was made, and by what. Changes ``dataset``."""
    dataset.SeriesDescription = f"{description} - {RESEARCH_USE_ONLY}"
    _date(dataset, local_time(made.produced_at, header))
    name_contributors(dataset, made, header)


def mark_lumbar_spine(dataset: Dataset) -> None:
    """Body part of an image output. The spine is unpaired, so Laterality must be absent (PS3.3 C.7.3.1)."""
    dataset.BodyPartExamined = "LSPINE"
    if "Laterality" in dataset:
        del dataset.Laterality


def local_time(moment: datetime, header: Dataset) -> datetime:
    """The moment in the time zone of the source's dates and times (PS3.3 C.12.1.1.8); as it is when none is given."""
    offset = text_of(header, "TimezoneOffsetFromUTC")
    if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdigit():
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return moment.astimezone(timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes)))
    return moment


def _share_character_set(dataset: Dataset, header: Dataset) -> None:
    """Write text as the source does (our own is ASCII), and tell pydicom that copied bytes need no conversion."""
    if header.get("SpecificCharacterSet"):
        dataset.SpecificCharacterSet = header.SpecificCharacterSet
    elif "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    correct_ambiguous_vr(dataset, is_little_endian=True)  # which pydicom leaves out for bytes as they stand
    encodings = convert_encodings(dataset.get("SpecificCharacterSet"))
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=encodings)


def _unchanged(header: Dataset, keyword: str) -> DataElement | RawDataElement:
    """The element as its bytes stood in the file, even where they break the rules of their VR.

    Converted only where bytes cannot be carried over: sequences, and what was not read from a little-endian file.
    """
    element = header.get_item(keyword)
    vr = dictionary_VR(keyword)
    if isinstance(element, RawDataElement) and element.is_little_endian and vr != "SQ":
        return element._replace(VR=vr)
    return copy.deepcopy(header[keyword])


def copy_unchanged(header: Dataset, dataset: Dataset, keywords: Iterable[str]) -> None:
    """Copy elements to ``dataset``, as their bytes stand, as far as the header has them with a value."""
    for keyword in keywords:
        if keyword in header and header.get_item(keyword).value not in (None, "", b""):
            dataset[keyword] = _unchanged(header, keyword)


def name_contributors(dataset: Dataset, made: Made, header: Dataset) -> None:
    """Say which equipment contributed (PS3.3 C.12.1.1.5): the scanner, the node with its state, what wrote the object.

    Changes ``dataset``. What highdicom has said of itself, and what is said of a person's changes, stays.
    """
    items = list(dataset.get("ContributingEquipmentSequence", ()))
    if (scanner := _scanner(header, convert_encodings(dataset.get("SpecificCharacterSet")))) is not None:
        items.insert(0, scanner)
    node = Dataset()
    node.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    for keyword, value in _NODE_KEYWORDS.items():
        setattr(node, keyword, equipment(made)[value])
    node.ContributionDateTime = DT(local_time(made.produced_at, header))
    node.ContributionDescription = _state_text(made)
    dataset.ContributingEquipmentSequence = [*items, node]


def _scanner(header: Dataset, encodings: list[str]) -> Dataset | None:
    """The scanner as an item of Contributing Equipment; None for a source that does not tell its manufacturer."""
    if header.get_item("Manufacturer") is None or not header.get_item("Manufacturer").value:
        return None
    scanner = Dataset(parent_encoding=encodings)  # that of the object, so that bytes are written as they stand
    scanner.PurposeOfReferenceCodeSequence = [code_item(ACQUISITION_EQUIPMENT)]
    copy_unchanged(header, scanner, _SCANNER_KEYWORDS)
    scanner.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=encodings)
    return scanner


def _state_text(made: Made) -> str:
    """What decides the numbers, as far as a Short Text holds it (1024 characters), the most telling first."""
    names = [name for name in _TELLING_VERSIONS if name in made.versions]
    names += sorted(set(made.versions) - set(names))
    text = RESEARCH_USE_ONLY
    for name in names:
        line = ascii_text(f"{name}={made.versions[name]}")
        if len(text) + len(line) + 2 <= _SHORT_TEXT:
            text += f"; {line}"
    return text


def ascii_text(text: str) -> str:
    """Text that every character set of a source can hold."""
    for character, plain in _PLAIN.items():
        text = text.replace(character, plain)
    return text.encode("ascii", "replace").decode("ascii")


def _date(dataset: Dataset, moment: datetime) -> None:
    day, clock = DA(moment.date()), TM(moment.time())
    for stem in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{stem}Date", day)
        setattr(dataset, f"{stem}Time", clock)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:  # highdicom's own entry
            item.ContributionDateTime = DT(moment)


def _name_dimensions(dataset: Dataset, uid: UID) -> None:
    """Replace highdicom's random UID of the dimension organization, so that writing twice gives the same bytes."""
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(name, ()):
            item.DimensionOrganizationUID = uid
