"""De-identification of one object by the table of :mod:`dicom_io.deidentification_rules`, and by nothing else.

Elements are judged as their bytes stand: what has not the form of its kind goes. Nothing is decoded and encoded again
that may stay as it is, so that numbers, and so all that is measured, are the same to the last bit.
"""

from importlib.metadata import version
from pathlib import Path

from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.config import IGNORE
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID

from dicom_io.codes import code_item
from dicom_io.deidentification_actions import (
    CHARACTER_SET,
    DATE,
    OLDEST_TOLD,
    Keeping,
    Work,
    kept_items,
    shifted_day,
    text_in,
)
from dicom_io.deidentification_rules import CLEAN_STRUCTURED_CONTENT, DEIDENTIFYING_EQUIPMENT, OPTIONS, RULES_VERSION
from dicom_io.presentation import STORAGE_TRANSFER_SYNTAXES
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity
from dicom_io.raw_header import PARSE_FAULTS, RawHeader, quiet_pydicom
from processing.refusal import ReasonCode, UnsuitableInput

MR_CLASSES = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
#: What only our own results may be: others' may hold any text, in pixels, pages and content.
OWN_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
    "1.2.840.10008.5.1.4.1.1.66.3",  # Deformable Spatial Registration
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture: the overview
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF: the report, rendered anew
)
_REPORTS = ("1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34")
_PDF = "1.2.840.10008.5.1.4.1.1.104.1"

_PROFILE = "PS3.15 Annex E Basic Profile with options"
_RULES = "discnode rules"
_USUAL = Keeping()


def deidentify(
    dataset: FileDataset,
    identity: TrialIdentity,
    key: bytes,
    *,
    keeping: Keeping = _USUAL,
    is_own: bool = False,
    document: bytes | None = None,
) -> FileDataset:
    """A de-identified copy of an object; of one that was de-identified under this key, the same again.

    Args:
        dataset: parsed by :func:`dicom_io.raw_header.parse`; stays as it is.
        identity: who the subject is in the trial, and the visit.
        key: the trial's.
        keeping: what stays beside the built-in rules.
        is_own: a result of ours, straight from its folder: its pictures show no identity.
        document: the report, rendered without identity, in place of an encapsulated one.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, an object that no rule makes safe, by its name; REVIEW_REQUIRED, its header
            says that text is burned in; IDENTITY_CONFLICT, it was de-identified as another subject; UNREADABLE.
    """
    sop_class = text_in(dataset, "SOPClassUID")
    _check_kind(dataset, sop_class, is_own=is_own, document=document)
    syntax = RawHeader(dataset).transfer_syntax
    if syntax not in STORAGE_TRANSFER_SYNTAXES:
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, f"transfer syntax {UID(syntax, IGNORE).name} is not read")
    pseudonyms = Pseudonyms(key, identity.protocol_id, identity.subject_id)
    is_shifted = pseudonyms.is_mapped(text_in(dataset, "StudyInstanceUID"))
    if is_shifted and text_in(dataset, "PatientID") != identity.subject_id:
        text = "was de-identified before, as another subject of the trial"
        raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, text)
    work = Work(pseudonyms, keeping, is_own, is_shifted, UID(syntax).is_implicit_VR, UID(syntax).is_little_endian)
    with quiet_pydicom():
        cleaned = kept_items(dataset, work)
        for keyword in ("CodeValue", "CodingSchemeDesignator"):  # of entries, where they were judged; not of an object
            cleaned.pop(keyword, None)
        _set_identity(cleaned, dataset, identity, work)
        _record(cleaned, is_report=sop_class in _REPORTS)
        if document is not None:
            cleaned.EncapsulatedDocumentLength = len(document)
            cleaned.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
        return _as_file(cleaned, syntax)


def is_deidentified(path: Path) -> bool:
    """Whether a file says that it was de-identified by these rules; False for what cannot be read."""
    keywords = ["PatientIdentityRemoved", "DeidentificationMethod"]
    try:
        with quiet_pydicom():
            header = dcmread(path, stop_before_pixels=True, specific_tags=keywords)
    except PARSE_FAULTS:
        return False
    method = text_in(header, "DeidentificationMethod")
    return text_in(header, "PatientIdentityRemoved") == "YES" and method.startswith(f"{_PROFILE}\\{_RULES} ")


def _check_kind(dataset: FileDataset, sop_class: str, *, is_own: bool, document: bytes | None) -> None:
    if sop_class not in (*MR_CLASSES, *(OWN_CLASSES if is_own else ())):
        name = UID(sop_class, IGNORE).name if sop_class in OWN_CLASSES or sop_class.startswith("1.2.840.10008.") else ""
        text = f"{name or 'an object of an unknown class'} is not de-identified: it may show a name where no rule looks"
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text)
    if (sop_class == _PDF) != (document is not None):
        text = "a document is de-identified only by rendering it anew"
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text)
    if not is_own and text_in(dataset, "BurnedInAnnotation").upper() not in ("", "NO"):
        raise UnsuitableInput(ReasonCode.REVIEW_REQUIRED, "BurnedInAnnotation says that text is in the pixels")


def _set_identity(cleaned: Dataset, source: Dataset, identity: TrialIdentity, work: Work) -> None:
    cleaned.SpecificCharacterSet = CHARACTER_SET
    cleaned.PatientName = cleaned.PatientID = identity.subject_id
    cleaned.PatientBirthDate = _birth_date(source, work)
    cleaned.setdefault("PatientSex", "")
    cleaned.ClinicalTrialSponsorName = identity.sponsor or "not told"
    cleaned.ClinicalTrialProtocolID = identity.protocol_id
    cleaned.ClinicalTrialProtocolName = identity.protocol_name
    cleaned.ClinicalTrialSiteID = identity.site_id
    cleaned.ClinicalTrialSiteName = identity.site_name
    cleaned.ClinicalTrialSubjectID = identity.subject_id
    cleaned.ClinicalTrialTimePointID = identity.time_point_id
    cleaned.ClinicalTrialCoordinatingCenterName = identity.coordinating_center
    for keyword in ("AccessionNumber", "StudyID", "ReferringPhysicianName"):
        cleaned.setdefault(keyword, "")


def _birth_date(source: Dataset, work: Work) -> str:
    """The first of January of the shifted year; nothing of a person whose age is not told either."""
    born = DATE.fullmatch(text_in(source, "PatientBirthDate"))
    seen = DATE.fullmatch(text_in(source, "StudyDate"))
    if born is None or not work.keeping.birth_year or (day := shifted_day(born, work)) is None:
        return ""
    if seen is not None and int(seen[1]) - int(born[1]) > OLDEST_TOLD:
        return ""
    return f"{day.year:04d}0101"


def _record(cleaned: Dataset, *, is_report: bool) -> None:
    """Say what was done (PS3.3 C.7.1.1, C.7.6.1, C.12.1.1.5)."""
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.DeidentificationMethod = [_PROFILE, f"{_RULES} {RULES_VERSION}: keep list, default removal"]
    if is_report:
        cleaned.ReferencedPerformedProcedureStepSequence = []  # Type 2 of a report's series (PS3.3 C.17.1)
    options = (*OPTIONS, CLEAN_STRUCTURED_CONTENT) if is_report else OPTIONS
    cleaned.DeidentificationMethodCodeSequence = [code_item(one) for one in sorted(options, key=lambda one: one.value)]
    cleaned.LongitudinalTemporalInformationModified = "MODIFIED"
    if "PixelData" in cleaned or "FloatPixelData" in cleaned or "EncapsulatedDocumentLength" in cleaned:
        cleaned.BurnedInAnnotation = "NO"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(DEIDENTIFYING_EQUIPMENT)]
    item.Manufacturer = item.ManufacturerModelName = "discnode"
    item.SoftwareVersions = version("discnode")
    others = [one for one in cleaned.get("ContributingEquipmentSequence", ()) if not _deidentified(one)]
    cleaned.ContributingEquipmentSequence = [*others, item]


def _deidentified(item: Dataset) -> bool:
    purposes = item.get("PurposeOfReferenceCodeSequence") or ()
    return any(text_in(one, "CodeValue") == DEIDENTIFYING_EQUIPMENT.value for one in purposes)


def _as_file(cleaned: Dataset, syntax: str) -> FileDataset:
    """With a head of our own: no source AE title, no private information, an empty preamble."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = cleaned.SOPClassUID
    meta.MediaStorageSOPInstanceUID = cleaned.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    transfer = meta.TransferSyntaxUID
    encoding = {"is_implicit_VR": transfer.is_implicit_VR, "is_little_endian": transfer.is_little_endian}
    made = FileDataset("", cleaned, preamble=b"\0" * 128, file_meta=meta, **encoding)
    made.set_original_encoding(transfer.is_implicit_VR, transfer.is_little_endian, convert_encodings(CHARACTER_SET))
    return made
