"""What is done with one attribute, action by action: the element as it may stay, or None."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.deidentification_rules import FORMS, NOTHING_LEFT, Action, action_of
from dicom_io.descriptors import clean_text
from dicom_io.known_codes import is_known_code
from dicom_io.pseudonyms import Pseudonyms
from dicom_io.raw_header import PARSE_FAULTS
from dicom_io.raw_values import BINARY_NUMBERS, TEXTS, decode_text, element_of, items_of, raw_bytes
from dicom_io.safe_private import SAFE_PRIVATE_ELEMENTS, SAFE_PRIVATE_SEQUENCES, SafePrivate, found_private, safe_vr
from processing.refusal import ReasonCode, UnsuitableInput

_NUMBERS: Final = {"DS": r" *[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})? *", "IS": r" *[-+]?\d{1,10} *"}
_CODE_STRING: Final = r"[A-Za-z0-9 _/+.\-]{0,16}"
_FORMS_OF_VR: Final = {**_NUMBERS, "AS": r"\d{3}[DWMY]", "CS": _CODE_STRING, "AT": r"(?s).*"}
_BULK: Final = frozenset(("OB", "OW", "OF", "OD", "OL", "OV"))
DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"\d\d(:?\d\d(:?\d\d(\.\d{1,6})?)?)? *")
_DATE_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)((\d\d){0,3}(\.\d{1,6})?([+-]\d{4})?) *")
OLDEST_TOLD: Final = 89  # years; an age above it is told as 90
_PRINTABLE = re.compile(r"[\x20-\x7e]{0,64}")


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a trial keeps beside the built-in rules."""

    words: frozenset[str] = frozenset()
    private: tuple[SafePrivate, ...] = ()
    keywords: frozenset[str] = frozenset()  # standard attributes with numbers that protocol cards ask for
    birth_year: bool = True


@dataclass(frozen=True, slots=True)
class Work:
    """What one object is de-identified with. ``is_shifted``: it was before, so that its dates are shifted already."""

    pseudonyms: Pseudonyms
    keeping: Keeping
    is_own: bool
    is_shifted: bool
    is_implicit: bool
    is_little_endian: bool


def kept_items(dataset: Dataset, work: Work) -> Dataset:
    """What may stay of a data set or of an item of a sequence."""
    cleaned = Dataset(parent_encoding=_ENCODINGS)
    for tag in sorted(int(one) for one in dataset.keys()):  # noqa: SIM118 - iterating a Dataset decodes its values
        if tag >> 16 & 1 or tag & 0xFFFF == 0:
            continue
        action = action_of(tag)
        if action is None and keyword_for_tag(tag) in work.keeping.keywords:
            action = Action.KEEP
        if action is None or action is Action.TRIAL:
            continue
        kept = _ACTIONS[action](dataset, tag, work)
        if kept is not None:
            cleaned[tag] = kept
    _keep_private(dataset, cleaned, work)
    cleaned.set_original_encoding(work.is_implicit, work.is_little_endian, _ENCODINGS)  # bytes are written as they are
    return cleaned


#: Of all that is written.
CHARACTER_SET: Final = "ISO_IR 192"
_ENCODINGS: Final = convert_encodings(CHARACTER_SET)
_Kept = DataElement | RawDataElement | None


def _keep_private(dataset: Dataset, cleaned: Dataset, work: Work) -> None:
    """Copy the private elements of the list, in the blocks where they stand; changes ``cleaned``."""
    for found in found_private(dataset, work.keeping.private):
        kept: _Kept = None
        if found.is_sequence:
            items = [kept_items(item, work) for item in _read_items(dataset, found.tag, work)]
            kept = DataElement(found.tag, "SQ", items)
        elif (vr := safe_vr(element_of(dataset, found.tag), found)) is not None:
            kept = _as_it_is(element_of(dataset, found.tag), vr)
        if kept is not None:
            cleaned[found.block] = DataElement(found.block, "LO", found.safe.creator)
            cleaned[found.tag] = kept


def _keep(dataset: Dataset, tag: int, work: Work) -> _Kept:
    """The bytes as they are, where they have the form of the VR; else without a value."""
    element = element_of(dataset, tag)
    vr, value = _vr_of(element, tag), raw_bytes(element)
    if vr is None:
        return _nothing(tag)
    if vr in _BULK or vr in BINARY_NUMBERS or vr == "AT":
        return _as_it_is(element, vr)
    form = FORMS.get(keyword_for_tag(tag)) or _FORMS_OF_VR.get(vr)
    texts = decode_text(value, "latin-1").split("\\")
    if form is not None and all(re.fullmatch(form, text.strip()) or not text.strip() for text in texts):
        return _as_it_is(element, vr)
    return _nothing(tag)


def _keep_patient(dataset: Dataset, tag: int, work: Work) -> _Kept:
    kept = _keep(dataset, tag, work)
    if keyword_for_tag(tag) == "PatientSex" and text_in(dataset, "PatientSex") not in ("", "F", "M", "O"):
        return DataElement(tag, "CS", "")
    age = text_in(dataset, "PatientAge")
    if keyword_for_tag(tag) == "PatientAge" and age[:3].isdigit() and age[3:] == "Y" and int(age[:3]) > OLDEST_TOLD:
        return DataElement(tag, "AS", f"{OLDEST_TOLD + 1:03d}Y")
    return kept


def _keep_device(dataset: Dataset, tag: int, work: Work) -> _Kept:
    """The text, as far as it is plain."""
    element = element_of(dataset, tag)
    texts = decode_text(raw_bytes(element), "latin-1").split("\\")
    if all(_PRINTABLE.fullmatch(text) for text in texts) and (vr := _vr_of(element, tag)) is not None:
        return _as_it_is(element, vr)
    return _nothing(tag)


def _map_uid(dataset: Dataset, tag: int, work: Work) -> _Kept:
    texts = decode_text(raw_bytes(element_of(dataset, tag)), "latin-1").split("\\")
    uids = [work.pseudonyms.uid(text.strip()) for text in texts if text.strip(" \0")]
    return DataElement(tag, "UI", uids if len(uids) != 1 else uids[0])


def _shift_date(dataset: Dataset, tag: int, work: Work) -> _Kept:
    element = element_of(dataset, tag)
    vr = _vr_of(element, tag)
    if keyword_for_tag(tag) == "TimezoneOffsetFromUTC":
        return _keep(dataset, tag, work)
    texts = [text.strip() for text in decode_text(raw_bytes(element), "latin-1").split("\\")]
    if vr is None:
        return _nothing(tag)
    if vr == "TM":
        return _as_it_is(element, vr) if all(_TIME.fullmatch(text) for text in texts) else _nothing(tag)
    if not any(texts):
        return _nothing(tag)
    pattern = DATE if vr == "DA" else _DATE_TIME
    shifted = []
    for text in texts:
        found = pattern.fullmatch(text)
        if found is None or (day := shifted_day(found, work)) is None:
            return _nothing(tag)
        shifted.append(f"{day:%Y%m%d}{'' if vr == 'DA' else found[4]}")
    return _written(tag, vr, "\\".join(shifted))


def shifted_day(found: re.Match[str], work: Work) -> date | None:
    """The day of year, month and day, shifted; None where there is no such day."""
    try:
        day = date(int(found[1]), int(found[2]), int(found[3]))
        return day if work.is_shifted else work.pseudonyms.shifted(day)
    except (ValueError, OverflowError):
        return None


def _clean(dataset: Dataset, tag: int, work: Work) -> _Kept:
    vr = dictionary_VR(tag)
    text = decode_text(raw_bytes(element_of(dataset, tag)), "latin-1")
    multiple = dictionary_VM(tag) != "1"
    texts = text.split("\\") if multiple else [text]
    keyword = keyword_for_tag(tag)
    if keyword in _CREATORS:
        creators = {one.creator for one in (*SAFE_PRIVATE_ELEMENTS, *SAFE_PRIVATE_SEQUENCES, *work.keeping.private)}
        cleaned = [one if one.strip() in creators else "" for one in texts]
    elif keyword == "TextValue" and (form := FORMS["AlgorithmVersion"]) and re.fullmatch(form, text):
        cleaned = [text]
    else:
        cleaned = [clean_text(one.strip(), work.keeping.words) for one in texts]
    joined = "\\".join(cleaned)
    if not joined.strip("\\") and text and keyword in _NEVER_EMPTY:
        joined = NOTHING_LEFT.upper() if vr == "CS" else NOTHING_LEFT
    return _written(tag, vr, joined)


_CREATORS = ("DimensionIndexPrivateCreator", "FunctionalGroupPrivateCreator")
_NEVER_EMPTY = (
    *("SegmentLabel", "SegmentAlgorithmName", "AlgorithmName", "TrackingID", "TextValue", "CodeMeaning"),
    *("LUTLabel", "LUTExplanation", "ContentLabel", "RescaleType"),
)


def _keep_items(dataset: Dataset, tag: int, work: Work) -> _Kept:
    kept = [kept_items(item, work) for item in _read_items(dataset, tag, work) if _is_known(item)]
    return DataElement(tag, "SQ", kept)


def _keep_content(dataset: Dataset, tag: int, work: Work) -> _Kept:
    """The content of a report: persons go, texts are cleaned, and an item of which nothing is left goes as well."""
    if not work.is_own:
        return None
    kept = []
    for item in _read_items(dataset, tag, work):
        if text_in(item, "ValueType") == "PNAME":
            continue
        cleaned = kept_items(item, work)
        if str(cleaned.get("TextValue", "")) != NOTHING_LEFT:
            kept.append(cleaned)
    return DataElement(tag, "SQ", kept)


def _read_items(dataset: Dataset, tag: int, work: Work) -> tuple[Dataset, ...]:
    element = element_of(dataset, tag)
    if element.VR == "UN" and not work.is_little_endian:  # its items are little endian (PS3.5 6.2.2)
        raise UnsuitableInput(ReasonCode.UNREADABLE, "a sequence of unknown VR in a big-endian object")
    try:
        return tuple(items_of(element))
    except PARSE_FAULTS as error:
        text = f"{keyword_for_tag(tag) or 'a private sequence'} is no readable sequence ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error


def _is_known(item: Dataset) -> bool:
    """False for a coded entry of a scheme, or of a form, that we do not know: its value may be anything."""
    if "CodeValue" not in item and "LongCodeValue" not in item and "URNCodeValue" not in item:
        return True
    return is_known_code(text_in(item, "CodeValue"), text_in(item, "CodingSchemeDesignator"))


def _empty(dataset: Dataset, tag: int, work: Work) -> _Kept:
    return _nothing(tag)


def _keep_pixels(dataset: Dataset, tag: int, work: Work) -> _Kept:
    if keyword_for_tag(tag) == "EncapsulatedDocument":
        return None  # set by the caller
    element = element_of(dataset, tag)
    vr = _vr_of(element, tag)
    if vr is None:
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"{keyword_for_tag(tag)} is of VR {element.VR}")
    return _as_it_is(element, vr)


_ACTIONS: Mapping[Action, Callable[[Dataset, int, Work], _Kept]] = {
    Action.KEEP: _keep,
    Action.DEVICE: _keep_device,
    Action.PATIENT: _keep_patient,
    Action.UID: _map_uid,
    Action.DATE: _shift_date,
    Action.CLEAN: _clean,
    Action.ITEMS: _keep_items,
    Action.CONTENT: _keep_content,
    Action.EMPTY: _empty,
    Action.PIXELS: _keep_pixels,
}


def _vr_of(element: Any, tag: int) -> str | None:
    """The VR that DICOM gives an attribute, where the bytes can be of it; None where they are of another kind."""
    choices = str(dictionary_VR(tag)).split(" or ")
    if element.VR in choices:
        return str(element.VR)
    if element.VR in (None, "UN"):  # implicit VR, or lost on the way
        return "OW" if "OW" in choices else choices[0]
    return choices[0] if element.VR in TEXTS and choices[0] in TEXTS else None


def _as_it_is(element: Any, vr: str) -> _Kept:
    """The element with its bytes and a VR."""
    return element._replace(VR=vr) if isinstance(element, RawDataElement) else element


def _nothing(tag: int) -> DataElement:
    """The attribute without a value."""
    vr = str(dictionary_VR(tag)).split(" or ")[0]
    return DataElement(tag, vr, [] if vr == "SQ" else None)


def text_in(dataset: Dataset, keyword: str) -> str:
    """A value as text, not decoded by any library; empty where it is absent."""
    element = element_of(dataset, tag_for_keyword(keyword) or 0)
    return "" if element is None else decode_text(raw_bytes(element), "latin-1")


def _written(tag: int, vr: str, text: str) -> RawDataElement:
    """Text as bytes, so that no library judges or changes it."""
    value = text.encode("ascii", "replace")
    value += b" " * (len(value) % 2)
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
