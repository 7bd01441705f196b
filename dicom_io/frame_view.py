"""Headers for the writers: one for each image, which reads as a classic one also where it is a frame of Enhanced MR."""

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import DSfloat
from pydicom.values import converters

from dicom_io.headers import ImageFacts
from dicom_io.raw_header import PARSE_FAULTS, RawHeader, quiet_pydicom
from dicom_io.source_attributes import GEOMETRY_KEYWORDS
from processing.refusal import ReasonCode, UnsuitableInput

_LEFT_OUT = ("PixelData", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def object_view(header: RawHeader) -> Dataset:
    """The header of an object without pixels and functional groups; elements stay as their bytes stood in the file.

    Only what the writers read is typed already, so that what cannot be read is told here and not when results are
    written.

    Raises:
        UnsuitableInput: UNREADABLE, naming the attribute.
    """
    view = header.dataset[:]
    for keyword in _LEFT_OUT:
        if keyword in view:
            del view[keyword]
    for tag in list(view.keys()):
        _mend(view, tag)
    with quiet_pydicom():
        for keyword in GEOMETRY_KEYWORDS:
            if keyword in view:
                _type(view, keyword)
    return view


def frame_view(of_object: Dataset, facts: ImageFacts) -> Dataset:
    """The header of one image, from what :func:`object_view` made of its object.

    That of a frame has the frame's geometry at its root, as classic MR has, and ReferencedFrameNumber, which says which
    frame of its SOP instance it is. That of a classic image is ``of_object`` itself.
    """
    if facts.frame_number is None:
        return of_object
    view = of_object[:]
    _set(view, "ReferencedFrameNumber", facts.frame_number)
    for keyword, numbers in (
        ("ImagePositionPatient", facts.position),
        ("ImageOrientationPatient", facts.orientation),
        ("PixelSpacing", facts.pixel_spacing_mm),
    ):
        _set(view, keyword, [DSfloat(number, auto_format=True) for number in numbers])
    if facts.slice_thickness_mm is not None:
        _set(view, "SliceThickness", DSfloat(facts.slice_thickness_mm, auto_format=True))
    return view


def _set(view: Dataset, keyword: str, value: object) -> None:
    """Replace an element, which other views may share, rather than its value."""
    view[keyword] = DataElement(keyword, dictionary_VR(keyword), value)


def _mend(view: Dataset, tag: BaseTag) -> None:
    """Give a standard element whose VR is no VR the one that the standard gives it."""
    element = view.get_item(tag)
    if not isinstance(element, RawDataElement) or element.VR is None or element.VR in converters:
        return
    if dictionary_has_tag(tag):
        view[tag] = element._replace(VR=dictionary_VR(tag))


def _type(view: Dataset, keyword: str) -> None:
    try:
        _ = view[keyword].value
    except PARSE_FAULTS as error:
        text = f"{keyword} cannot be read ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
