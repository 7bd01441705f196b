"""The images that segmentation, maps and outlines are shown on: a series that has one image per slice.

Viewers show none of them on a series with several images per slice (OHIF 3.13 makes a four-dimensional display set of
it). An exam of several images per slice therefore gets a derived series, role ``reference``, of the images that were
segmented; an exam with one image per slice is shown on its own.
"""

from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage

from dicom_io.source_attributes import geometry_header
from dicom_io.sources import SourceExam
from dicom_io.uids import result_uid
from processing.results import ExamResult

#: Role of the derived series in UIDs and file names.
REFERENCE = "reference"


def needs_reference(source: SourceExam) -> bool:
    """Whether an exam has several images per slice."""
    return len(source.all_instances) > len(source.grid_instances)


def reference_images(result: ExamResult, source: SourceExam) -> SourceExam:
    """Headers, of geometry and identity alone, of one image per slice: the derived series, or the exam's own.

    Frames of a multi-frame object stand as images of their own, until
    :func:`dicom_io.source_attributes.complete` names their object.
    """
    headers = [geometry_header(instance, source) for instance in source.grid_instances]
    if needs_reference(source):
        for index, header in enumerate(headers):
            header.SOPClassUID = MRImageStorage
            header.SOPInstanceUID = image_uid(result, source, REFERENCE, index)
            header.SeriesInstanceUID = result_uid(result, source, f"{REFERENCE}/series")
    return SourceExam(tuple(headers), tuple(headers), source.affine)


def image_uid(result: ExamResult, source: SourceExam, role: str, index: int) -> UID:
    """The UID of one image, from 0, of a derived series."""
    return result_uid(result, source, f"{role}/{index + 1}")


def images_of_slice(source: SourceExam, index: int) -> list[Dataset]:
    """Every image used that lies where slice ``index`` of the native grid lies; of several scans the nearest slice."""
    return [image for image, place in zip(source.all_instances, source.slice_indices, strict=True) if place == index]
