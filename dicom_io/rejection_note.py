"""A rejection note: a Key Object Selection that says of objects at an archive that they must not be used.

IHE RAD TF, Imaging Object Change Management; the titles are those of CID 7010, the form is TID 2010.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from dicom_io.codes import code_item
from dicom_io.presence import SentObject
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom
from dicom_io.uids import derived_uid
from processing.display import RESEARCH_USE_ONLY

QUALITY: Code = codes.DCM.RejectedForQualityReasons  # 113001
PATIENT_SAFETY: Code = codes.DCM.RejectedForPatientSafetyReasons  # 113037

SERIES_NUMBER = 9060
#: Neither images nor presentation states: they are named as composite objects (PS3.3 C.17.3).
_NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104.", "1.2.840.10008.5.1.4.1.1.66.3")
#: Who and which study, of an object of the study that lies here.
_SAME = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LongitudinalTemporalInformationModified", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID"),
    *("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID"),
    *("ClinicalTrialTimePointID", "ClinicalTrialCoordinatingCenterName"),
)
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)


def write_rejection_note(
    objects: Sequence[SentObject], one_of_them: Path, title: Code, made_at: datetime, out: Path
) -> SentObject | None:
    """Write the note about objects of one study at one archive; None where the file can tell of no patient.

    Args:
        objects: of one study, at least one.
        one_of_them: a file of the study as that archive has it, for who and when.
        title: :data:`QUALITY` or :data:`PATIENT_SAFETY`.
        made_at: aware time.
        out: the file to write.
    """
    try:
        with quiet_pydicom():
            source = dcmread(one_of_them, stop_before_pixels=True)
    except PARSE_FAULTS:
        return None
    if source.get("StudyInstanceUID") != objects[0].study_uid or not source.get("PatientID"):
        return None
    names = sorted({one.sop_instance_uid for one in objects})
    uid = derived_uid("rejection note", title.value, made_at.isoformat(), *names)
    note = _document(objects, source, title, made_at.astimezone(UTC))
    note.SOPInstanceUID = note.file_meta.MediaStorageSOPInstanceUID = uid
    note.SeriesInstanceUID = derived_uid("series of", uid)
    with quiet_pydicom(), out.open("wb") as file:
        note.save_as(file, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    return SentObject(str(note.SOPClassUID), str(uid), objects[0].study_uid, str(note.SeriesInstanceUID))


def _document(objects: Sequence[SentObject], source: Dataset, title: Code, made_at: datetime) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    note = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    for keyword in _EMPTY:
        setattr(note, keyword, "")
    for keyword in _SAME:
        if keyword in source:
            note[keyword] = source[keyword]
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.Modality, note.SeriesNumber, note.InstanceNumber = "KO", SERIES_NUMBER, 1
    note.SeriesDescription = RESEARCH_USE_ONLY
    note.ReferencedPerformedProcedureStepSequence = []
    note.Manufacturer = "discnode"
    note.ContentDate, note.ContentTime = made_at.strftime("%Y%m%d"), made_at.strftime("%H%M%S")
    if note.get("PatientIdentityRemoved") == "YES" and note.get("StudyDate"):
        note.ContentDate = note.StudyDate  # shifted, as all days of its subject
    note.TimezoneOffsetFromUTC = "+0000"
    note.CurrentRequestedProcedureEvidenceSequence = [_evidence(objects)]
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = [code_item(title)]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    note.ContentTemplateSequence = [template]
    note.ContentSequence = [_content_item(one) for one in objects]
    return note


def _evidence(objects: Sequence[SentObject]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = objects[0].study_uid
    study.ReferencedSeriesSequence = []
    by_series = sorted(objects, key=lambda one: one.series_uid)
    for series_uid, of_it in groupby(by_series, key=lambda one: one.series_uid):
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = [_reference(one) for one in of_it]
        study.ReferencedSeriesSequence.append(series)
    return study


def _content_item(one: SentObject) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "COMPOSITE" if one.sop_class_uid.startswith(_NO_IMAGES) else "IMAGE"
    item.ReferencedSOPSequence = [_reference(one)]
    return item


def _reference(one: SentObject) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return reference
