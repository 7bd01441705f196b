"""What may be shown of a header to whoever sorts out a held object: technical attributes, and no identity.

Only the attributes listed here are ever shown. Of them SeriesDescription and ProtocolName are free texts of the site,
which protocol questions need; words of the identity in the same header are struck out of them, and of all other texts
too. What should be a number and is none is not shown: it may be anything.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from dicom_io.raw_header import RawHeader, parse
from processing.refusal import UnsuitableInput

#: Shown, in this order.
TECHNICAL_KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "MagneticFieldStrength",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "PulseSequenceName",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "RepetitionTime",
    "EchoTime",
    "EchoNumbers",
    "EchoTrainLength",
    "InversionTime",
    "TriggerTime",
    "FlipAngle",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "TemporalPositionIdentifier",
    "NumberOfFrames",
    "ImagesInAcquisition",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "LossyImageCompression",
)

#: Texts that a site writes as it likes.
FREE_TEXT_KEYWORDS = ("SeriesDescription", "ProtocolName")

#: Whose words are struck out of free texts.
_IDENTITY_KEYWORDS = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "InstitutionName",
)

#: Numbers as text, one or several.
_NUMBERS = ("DS", "IS")
_NUMBER = re.compile(r"[-+0-9.eE\\\s]+")

_STRUCK_OUT = "***"
_SHORTEST_WORD = 3
_FOUND_INSIDE_WORDS = 6  # a word this long is struck out even inside another one


def read_excerpt(path: Path) -> dict[str, str]:
    """The technical attributes that a file holds, as text, and its transfer syntax; no identity.

    Raises:
        UnsuitableInput: UNREADABLE, when it holds no header that can be read.
        OSError: the file cannot be opened or read.
    """
    header = RawHeader(parse(path.read_bytes()))
    words = _words_of(header)
    excerpt = {"TransferSyntax": UID(header.transfer_syntax).name}
    for keyword in TECHNICAL_KEYWORDS:
        text = _text_of(header, keyword)
        if text:
            excerpt[keyword] = text if dictionary_VR(keyword) in _NUMBERS else strike_out(text, words)
    return excerpt


def struck_out_texts(path: Path) -> dict[str, str]:
    """The free texts of a file's header that name the patient or the staff -> the same without the names.

    Raises:
        UnsuitableInput: UNREADABLE, when it holds no header that can be read.
        OSError: the file cannot be opened or read.
    """
    header = RawHeader(parse(path.read_bytes()))
    words = _words_of(header)
    texts = {_text_of(header, keyword) for keyword in FREE_TEXT_KEYWORDS}
    return {text: struck for text in texts if (struck := strike_out(text, words)) != text}


def strike_out(text: str, words: Iterable[str]) -> str:
    """The text without the words, in whatever case they stand there."""
    for word in sorted(words, key=len, reverse=True):
        pattern = re.escape(word)
        if len(word) < _FOUND_INSIDE_WORDS:
            pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
        text = re.sub(pattern, _STRUCK_OUT, text, flags=re.IGNORECASE)
    return text


def _words_of(header: RawHeader) -> frozenset[str]:
    words: set[str] = set()
    for keyword in _IDENTITY_KEYWORDS:
        try:
            text = header.text(keyword)
        except UnsuitableInput:
            continue  # not a plain value: it cannot stand in a text either
        words.add(text)
        words.update(re.split(r"[\^=\\\s,;]+", text))
    return frozenset(word for word in words if len(word) >= _SHORTEST_WORD)


def _text_of(header: RawHeader, keyword: str) -> str:
    try:
        if dictionary_VR(keyword) == "US":
            value = header.unsigned(keyword)
            return "" if value is None else str(value)
        text = header.text(keyword)
    except UnsuitableInput:
        return "(not readable)"
    if dictionary_VR(keyword) in _NUMBERS and not _NUMBER.fullmatch(text):
        return "(not a number)" if text else ""
    return UID(text).name if keyword == "SOPClassUID" and text else text
