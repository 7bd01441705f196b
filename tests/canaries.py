"""Values that identify a patient who does not exist: wherever one is found, an identity has leaked."""

import random
import re
from collections.abc import Iterable

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

#: Where a scanner, or a person at it, writes who the patient is.
IDENTIFYING = (
    *("PatientName", "PatientID", "PatientBirthDate", "OtherPatientNames", "PatientBirthName", "PatientAddress"),
    *("PatientMotherBirthName", "PatientTelephoneNumbers", "PatientComments", "AccessionNumber", "StudyID"),
    *("StudyDescription", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy"),
    *("RequestingPhysician", "RequestedProcedureDescription", "PerformedProcedureStepDescription", "ImageComments"),
    *("AdditionalPatientHistory", "Occupation", "MedicalRecordLocator", "AdmissionID", "IssuerOfPatientID"),
    *("FrameComments", "StudyComments", "PerformedProcedureStepID"),
)
#: Elements whose value is no value of their VR: what a library says of them quotes it.
MALFORMED = ("StudyDate", "StudyTime", "PatientAge", "PatientWeight", "AcquisitionDate", "ContentTime")


_SHAPED, _DAYS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6}[0-9]{3}"), re.compile(r"(?=(18[0-9]{6}))")


def _is_odd(canary: str) -> bool:
    """Whether a canary has another form than :meth:`Canaries.next` gives."""
    return re.fullmatch(rf"{_SHAPED.pattern}|18[0-9]{{6}}", canary.lower()) is None


class Canaries:
    """Hands out canaries, each once; remembers where each was put."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.placed: dict[str, str] = {}

    def next(self, place: str, vr: str = "LO") -> str:
        """One that fits into a value of the VR."""
        number = len(self.placed)
        letters = "".join(self._random.choices("BCDFGHJKLMNPQRSTVWXZ", k=6))
        text = f"{letters}{number:03d}"
        if vr == "DA":
            text = f"18{10 + number // 28:02d}{1 + number % 12:02d}{1 + number % 28:02d}"
        self.placed[text] = place
        return f"{text}^Ann" if vr == "PN" else text

    def found_in(self, *texts: str) -> dict[str, str]:
        """Canary -> where it was put, of those that stand in a text, in whatever case."""
        whole = "\n".join(texts).lower()
        shaped = set(_SHAPED.findall(whole)) | set(_DAYS.findall(whole))  # one look, however many there are
        return {
            canary: place
            for canary, place in self.placed.items()
            if canary.lower() in shaped or (_is_odd(canary) and canary.lower() in whole)
        }


def identity(canaries: Canaries, exam: str) -> dict[str, object]:
    """Attributes that a whole exam is to carry, by keyword. Two texts of the site quote the name, as happens."""
    values: dict[str, object] = {
        keyword: canaries.next(f"{exam}: {keyword}", dictionary_VR(keyword)) for keyword in IDENTIFYING
    }
    name = str(values["PatientName"]).partition("^")[0]
    return values | {"SeriesDescription": f"MAPSS T1rho T2 {name}", "ProtocolName": f"Spine {name}"}


def nest(image: Dataset, canaries: Canaries, exam: str) -> None:
    """Put canaries where no list of identifying attributes looks: private elements, and items of items."""
    texts = iter([canaries.next(f"{exam}: nested or private") for _ in range(6)])
    block = image.private_block(0x0009, "CANARY BLOCK", create=True)
    block.add_new(0x01, "LO", next(texts))
    block.add_new(0x02, "PN", next(texts))
    innermost, middle, outer = Dataset(), Dataset(), Dataset()
    innermost.PersonName, innermost.PersonAddress = next(texts), next(texts)
    middle.PersonIdentificationCodeSequence = Sequence([innermost])
    middle.PersonName = next(texts)
    outer.OperatorIdentificationSequence = Sequence([middle])
    outer.PatientID = next(texts)
    image.RequestAttributesSequence = Sequence([outer])


def malform(image: Dataset, canaries: Canaries, exam: str, keywords: Iterable[str] = MALFORMED) -> None:
    """Give elements bytes that are no value of their VR."""
    for keyword in keywords:
        tag = Tag(tag_for_keyword(keyword) or 0)
        raw = canaries.next(f"{exam}: {keyword}, malformed").encode()
        raw += b" " * (len(raw) % 2)
        image._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)  # type: ignore[assignment]
