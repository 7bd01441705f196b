"""A header of one image that reads as a classic one, also when the image is a frame of Enhanced MR."""

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from dicom_io.headers import ImageFacts
from dicom_io.raw_header import RawHeader

_LEFT_OUT = ("PixelData", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def frame_view(header: RawHeader, facts: ImageFacts) -> Dataset:
    """The header of an image without its pixels; elements are shared with ``header``, not copied.

    That of a frame has the frame's geometry at its root, as classic MR has, instead of functional groups, and
    ReferencedFrameNumber, which says which frame of its SOP instance it is.
    """
    view = header.dataset[:]
    for keyword in _LEFT_OUT:
        if keyword in view:
            del view[keyword]
    if facts.frame_number is None:
        return view
    view.ReferencedFrameNumber = facts.frame_number
    for keyword, numbers in (
        ("ImagePositionPatient", facts.position),
        ("ImageOrientationPatient", facts.orientation),
        ("PixelSpacing", facts.pixel_spacing_mm),
    ):
        view[keyword] = DataElement(keyword, "DS", [DSfloat(number, auto_format=True) for number in numbers])
    if facts.slice_thickness_mm is not None:
        view.SliceThickness = DSfloat(facts.slice_thickness_mm, auto_format=True)
    return view
