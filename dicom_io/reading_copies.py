"""Copies of a visit for a blinded reader, and the way back of the discs that the reader drew.

De-identified under a key of the reading's own, so that the same visit read twice has other UIDs; and beyond that
without dates, visit, site and scanner: nothing tells one visit of a subject from another but its pictures.
"""

from collections.abc import Iterable, Mapping
from io import BytesIO

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from dicom_io.deidentification_actions import Keeping
from dicom_io.deidentify import deidentify
from dicom_io.presentation import SEGMENTATION_CLASSES
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity
from dicom_io.raw_header import parse, quiet_pydicom
from processing.refusal import ReasonCode, UnsuitableInput

_MR = "1.2.840.10008.5.1.4.1.1.4"
_TIMES = ("DA", "DT", "TM")
#: Elements that tell the site, the scanner or the visit. Where one must have a value (PS3.3 C.7.5.2), a word stands.
_TELLING = (
    *("DeviceSerialNumber", "SoftwareVersions", "ManufacturerModelName", "StationName", "InstitutionName"),
    *("InstitutionalDepartmentName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialTimePointID"),
    *("ClinicalTrialTimePointDescription", "ClinicalTrialSubjectID", "PatientAge", "PatientSize", "PatientWeight"),
    *("StudyID", "StudyDescription", "AccessionNumber", "ContributingEquipmentSequence", "ReceiveCoilName"),
    *("LongitudinalTemporalOffsetFromEvent", "LongitudinalTemporalEventType", "ProtocolName", "SeriesDescription"),
)
_NEEDED_BY_ENHANCED = ("DeviceSerialNumber", "SoftwareVersions", "ManufacturerModelName")
_EMPTY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate")
_NO_DATE, _NO_TIME = "20000101", "000000"
_KEEPING = Keeping()
#: Who the patient is, when and where: taken from the exam's own image when discs come back.
_OF_THE_EXAM = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate"),
    *("StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription", "ClinicalTrialSiteID"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteName"),
    *("ClinicalTrialSubjectID", "ClinicalTrialTimePointID", "ClinicalTrialCoordinatingCenterName"),
)


def reading_copy(content: bytes, protocol_id: str, reading_id: str, key: bytes, *, is_own: bool = False) -> bytes:
    """The file of an image, or with ``is_own`` of a segmentation of ours, as a reader gets it.

    Raises:
        UnsuitableInput: as :func:`dicom_io.deidentify.deidentify`.
    """
    identity = TrialIdentity(protocol_id, "", reading_id, "")
    copy = deidentify(parse(content), identity, key, keeping=_KEEPING, is_own=is_own)
    with quiet_pydicom():
        _remove_times(copy)
        is_enhanced = copy.SOPClassUID != _MR
        for keyword in _TELLING:
            if keyword in copy:
                del copy[keyword]
        for keyword in _EMPTY:
            setattr(copy, keyword, "")
        copy.PatientSex = ""
        copy.ClinicalTrialSiteID = copy.ClinicalTrialSiteName = ""
        copy.ClinicalTrialSubjectReadingID = reading_id
        copy.LongitudinalTemporalInformationModified = "REMOVED"
        if is_enhanced:
            copy.ContentDate, copy.ContentTime = _NO_DATE, _NO_TIME
            for keyword in _NEEDED_BY_ENHANCED:
                setattr(copy, keyword, "not told")
        return _bytes_of(copy)


def _remove_times(dataset: Dataset) -> None:
    """No date and no time at any depth."""
    for element in list(dataset):
        if element.VR in _TIMES:
            del dataset[element.tag]
        elif element.VR == "SQ":
            for item in element.value or ():
                _remove_times(item)


def restored_segmentation(content: bytes, originals: Mapping[str, str], image: bytes) -> bytes:
    """A reader's segmentation as one of the exam itself: its references, and who and when it is of.

    Args:
        content: the reader's file; its own UIDs stay.
        originals: UIDs of the reading's copies -> those of the exam.
        image: an image of the exam.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, it is no segmentation; IDENTITY_CONFLICT, it is not of this reading;
            UNREADABLE.
    """
    segmentation, source = parse(content), parse(image)
    with quiet_pydicom():
        if segmentation.get("SOPClassUID") not in SEGMENTATION_CLASSES:
            raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, "it is no segmentation")
        if str(segmentation.get("StudyInstanceUID", "")) not in originals:
            raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, "it is not of this reading's images")
        own = {keyword: segmentation.get(keyword) for keyword in ("SOPInstanceUID", "SeriesInstanceUID")}
        _put_back(segmentation, originals)
        for keyword, uid in own.items():  # of the reader's object, which is another one than the node's
            setattr(segmentation, keyword, uid)
        for keyword in _OF_THE_EXAM:
            if keyword in segmentation:
                del segmentation[keyword]
            if keyword in source:
                segmentation[keyword] = source[keyword]
        for keyword in ("ClinicalTrialSubjectReadingID", "PatientIdentityRemoved", "DeidentificationMethod"):
            segmentation.pop(keyword, None)
        segmentation.pop("DeidentificationMethodCodeSequence", None)
        segmentation.pop("LongitudinalTemporalInformationModified", None)
        segmentation.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 6") or "ISO_IR 6"
        return _bytes_of(segmentation)


def _put_back(dataset: Dataset, originals: Mapping[str, str]) -> None:
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value or ():
                _put_back(item, originals)
        elif element.VR == "UI":
            _restore(element, originals)


def _restore(element: DataElement, originals: Mapping[str, str]) -> None:
    found = element.value if isinstance(element.value, list) else [element.value]
    restored = [originals.get(str(one), str(one)) for one in found if one]
    if restored:
        element.value = restored[0] if len(restored) == 1 else restored


def uids_in(content: bytes) -> set[str]:
    """All UIDs of instances, series, studies and frames of reference that an object names, at any depth."""
    found: set[str] = set()
    dataset = parse(content)
    with quiet_pydicom():
        _collect(dataset, found)
    return found


def _collect(dataset: Dataset, found: set[str]) -> None:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value or ():
                _collect(item, found)
        elif element.VR == "UI" and "SOPClass" not in keyword_for_tag(element.tag):
            values = element.value if isinstance(element.value, list) else [element.value]
            found.update(str(one) for one in values if one and not UID(str(one)).name.startswith("DICOM"))


def copied_uids(uids: Iterable[str], protocol_id: str, reading_id: str, key: bytes) -> dict[str, str]:
    """UIDs as a reading's copies have them -> the exam's own."""
    pseudonyms = Pseudonyms(key, protocol_id, reading_id)
    return {pseudonyms.uid(uid): uid for uid in uids if pseudonyms.uid(uid) != uid}


def _bytes_of(dataset: FileDataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
