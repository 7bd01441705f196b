"""The quality-control picture as a colour Secondary Capture (PS3.3 A.8.1), which every viewer shows."""

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from pydicom.valuerep import DA, TM

from dicom_io.source_attributes import complete, equipment, identity, local_time, mark_lumbar_spine
from dicom_io.source_references import image_references
from dicom_io.sources import SourceExam
from processing.display import RESEARCH_USE_ONLY
from processing.results import ExamResult

SERIES_NUMBER = 9005


def overlay_object(result: ExamResult, source: SourceExam, picture: npt.NDArray[np.uint8]) -> SCImage:
    """The picture, (rows, columns, 3) uint8 sRGB, as a Secondary Capture of the source's study.

    The picture must not show who the patient is: Burned In Annotation is NO.
    """
    dataset = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=_patient_orientation(source),
        study_instance_uid=source.grid_instances[0].StudyInstanceUID,
        **identity(result, source, "overlay", SERIES_NUMBER),
        **equipment(result),
    )
    complete(dataset, result, source, role="overlay", description="Disc measurements, overview")
    mark_lumbar_spine(dataset)
    made = local_time(result.produced_at, source.grid_instances[0])
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = DA(made.date()), TM(made.time())
    dataset.Modality = "MR"
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageComments = RESEARCH_USE_ONLY
    dataset.DerivationDescription = "Disc outlines, maps and mean values drawn over the source images"
    dataset.SourceImageSequence = image_references(source.grid_instances)
    return dataset


def _patient_orientation(source: SourceExam) -> tuple[str, str]:
    """Main directions of the rows and columns of the anatomy shown (PS3.3 C.7.6.1.1.1)."""
    cosines = np.array(source.grid_instances[0].ImageOrientationPatient, float)
    letters = []
    for direction in (cosines[:3], cosines[3:]):
        axis = int(np.argmax(np.abs(direction)))
        letters.append(("LPH", "RAF")[int(direction[axis] < 0)][axis])
    return letters[0], letters[1]
