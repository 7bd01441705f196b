"""The second net of de-identification: words of the person's own header, looked for in what is about to be written."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from dicom_io.descriptors import WORDS
from dicom_io.raw_header import PARSE_FAULTS
from dicom_io.raw_values import decode_text, element_of, is_sequence, items_of, raw_bytes
from processing.refusal import ReasonCode, UnsuitableInput

#: Texts that name a person, or something by which one is looked up; names of persons (VR PN) anywhere come on top.
_KEYWORDS = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "PatientAddress", "PatientTelephoneNumbers", "AdmissionID"),
    *("MedicalRecordLocator", "MilitaryRank", "InstitutionName", "IssuerOfPatientID", "InstitutionAddress"),
    *("StudyID", "RequestedProcedureID", "ServiceEpisodeID"),
)
#: As whole texts: their words are those of many places.
_AS_A_WHOLE = ("InstitutionName", "InstitutionAddress", "IssuerOfPatientID")
_TEXT_VRS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_SHORTEST = 4
_SHORTEST_NUMBER = 5
_FOUND_INSIDE_WORDS = 6


def identity_words(dataset: Dataset) -> frozenset[str]:
    """Words, in lower case, by which the person of a data set could be recognised, nested ones too.

    To be called in :func:`dicom_io.raw_header.quiet_pydicom`.
    """
    found: set[str] = set()
    for keyword, vr, text in _texts(dataset, all_vrs=True):
        if vr != "PN" and keyword not in _KEYWORDS:
            continue
        whole = " ".join(text.lower().split())
        parts = {whole} if keyword in _AS_A_WHOLE else {whole, *re.split(r"[\^=\\\s,;/_]+", whole)}
        found.update(part for part in parts if _is_telling(part))
    return frozenset(found)


def check_nothing_left(cleaned: Dataset, words: Collection[str], allowed: Collection[str]) -> None:
    """Refuse an object in which a word of the identity stands.

    Args:
        cleaned: de-identified.
        words: of :func:`identity_words`.
        allowed: texts of the trial's own identity, which may be equal to some of them.

    Raises:
        UnsuitableInput: REVIEW_REQUIRED, naming the attribute, never the word.
    """
    own = " ".join(allowed).lower()
    sought = [word for word in words if word not in own]
    for keyword, _, text in _texts(cleaned, all_vrs=False):
        if any(_stands_in(word, text.lower()) for word in sought):
            detail = f"a word of the identity would remain in {keyword or 'a private element'}"
            raise UnsuitableInput(ReasonCode.REVIEW_REQUIRED, detail)
    pixels = raw_bytes(cleaned.get_item("PixelData")).lower() if "PixelData" in cleaned else b""
    long_words = [word for word in sought if len(word) >= _FOUND_INSIDE_WORDS and not word.isdigit()]
    if any(word.encode() in pixels for word in long_words):
        raise UnsuitableInput(ReasonCode.REVIEW_REQUIRED, "a word of the identity would remain in PixelData")


def _is_telling(word: str) -> bool:
    if word.isdigit():
        return len(word) >= _SHORTEST_NUMBER
    return len(word) >= _SHORTEST and not all(part in WORDS for part in re.findall(r"[^\W_]+", word))


def _stands_in(word: str, text: str) -> bool:
    if len(word) >= _FOUND_INSIDE_WORDS:
        return word in text
    return re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text) is not None


def _texts(dataset: Dataset, *, all_vrs: bool) -> Iterator[tuple[str, str, str]]:
    """Keyword, VR and text of the elements with text, in items too; where the VR was lost, of any printable value."""
    for tag in (int(one) for one in dataset.keys()):  # noqa: SIM118 - iterating a Dataset decodes its values
        element = element_of(dataset, tag)
        if is_sequence(dataset, tag):
            for item in _items(element):
                yield from _texts(item, all_vrs=all_vrs)
            continue
        keyword = keyword_for_tag(tag)
        vr = str(dictionary_VR(tag)) if keyword else str(element.VR)
        if vr in _TEXT_VRS or (all_vrs and keyword in _KEYWORDS) or (tag >> 16 & 1 and vr in ("UN", "None")):
            value = raw_bytes(element)
            yield keyword, vr, decode_text(value, "utf-8")
            if not value.isascii():
                yield keyword, vr, decode_text(value, "latin-1")


def _items(element: Any) -> tuple[Dataset, ...]:
    try:
        return tuple(items_of(element))
    except PARSE_FAULTS:
        return ()  # not readable as items: it is not kept either
