"""UIDs that follow from what an object was made of: same inputs, software, settings and weights, same UID."""

import hashlib
import uuid
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io.sources import SourceExam, text_of
from processing.results import ExamResult

#: Name space of discnode's derived UIDs. Changing it changes every UID: a second run would no longer be harmless.
_NAMESPACE = uuid.UUID("6f0e3c3e-2c37-5d0b-9c1c-0f8f6a4e9b21")

#: What of ``ExamResult.versions`` decides the numbers, and so the identity of an object.
#: A GPU's masks may differ from a processor's in a few pixels.
_IDENTIFYING_VERSIONS = ("discnode", "settings_digest", "model_sha256", "inference_provider", "protocol")

#: There only where just the same was analysed before: what comes back as the newest must not have the old UIDs.
_REPEATED = "repeated_as"


def derived_uid(*parts: str) -> UID:
    """A UID under 2.25 (PS3.5 B.2) from a name-based UUID (RFC 9562, version 5) of the parts.

    Parts are joined with their lengths, so that ("ab", "c") and ("a", "bc") differ.
    """
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def inputs_digest(sop_instance_uids: Iterable[str]) -> str:
    """SHA-256, in hex, of the set of images used, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(sop_instance_uids))).encode()).hexdigest()


def result_uid(result: ExamResult, source: SourceExam, role: str) -> UID:
    """The UID of one object or series of a result; ``role`` names it, e.g. ``"seg"`` or ``"seg/series"``.

    Raises:
        KeyError: ``result.versions`` lacks one of those that decide the numbers.
    """
    versions = [result.versions[name] for name in _IDENTIFYING_VERSIONS]
    versions += [result.versions[_REPEATED]] if _REPEATED in result.versions else []
    return derived_uid(inputs_digest(source.sop_instance_uids), source.pixels_sha256, *versions, role)


def tracking_uid(source: SourceExam, structure: str) -> UID:
    """The UID that follows one structure of one patient through all visits (PS3.3 C.8.20.4, Tracking UID).

    A patient without an ID is not followed beyond the study: two anonymous patients must not share a disc.
    """
    return tracking_uid_of(source.grid_instances[0], structure)


def tracking_uid_of(header: Dataset, structure: str) -> UID:
    """As :func:`tracking_uid`, from the header of any object of the patient's study."""
    patient_id, issuer = text_of(header, "PatientID"), text_of(header, "IssuerOfPatientID")
    owner = ("patient", issuer, patient_id) if patient_id else ("study", str(header.StudyInstanceUID))
    return derived_uid("tracking", *owner, structure)
