"""Enhanced MR objects made of classic images, as scanners write them, for the tests of reading and of the writers."""

import copy
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian

#: Of a classic header, what an Enhanced MR object tells of each frame instead of at its root.
_OF_FRAMES = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("EchoTime", "EchoNumbers", "TriggerTime", "RescaleSlope", "RescaleIntercept", "ScanningSequence", "PixelData"),
    *("SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTrainLength", "FlipAngle", "RepetitionTime"),
)


def group(**attributes: object) -> Dataset:
    """A data set with attributes by keyword; those that are None are left out, lists of data sets are sequences."""
    made = Dataset()
    for keyword, value in attributes.items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def enhanced_mr(
    images: Sequence[Dataset], pixels: np.ndarray, sop_instance_uid: str, transfer_syntax: UID = ExplicitVRLittleEndian
) -> FileDataset:
    """One Enhanced MR object of classic headers, in their order; ``pixels`` (frames, rows, columns)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedMRImageStorage, sop_instance_uid
    made = FileDataset(
        None,
        {},
        preamble=b"\0" * 128,
        file_meta=meta,
        is_implicit_VR=transfer_syntax.is_implicit_VR,
        is_little_endian=transfer_syntax.is_little_endian,
    )
    for element in images[0]:
        if element.keyword not in _OF_FRAMES:
            made[element.tag] = copy.deepcopy(element)
    made.SOPClassUID, made.SOPInstanceUID = EnhancedMRImageStorage, sop_instance_uid
    made.InstanceNumber, made.NumberOfFrames = 1, len(images)
    made.ImageType = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
    made.ComplexImageComponent = "MAGNITUDE"
    made.SharedFunctionalGroupsSequence = [_shared(images[0])]
    made.PerFrameFunctionalGroupsSequence = [_frame(image, number) for number, image in enumerate(images, start=1)]
    made.Rows, made.Columns = pixels.shape[1:]
    byte_order = "<" if transfer_syntax.is_little_endian else ">"
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder(byte_order)).tobytes()
    made["PixelData"].VR = "OW"
    return made


def _shared(image: Dataset) -> Dataset:
    frame_type = group(FrameType=["ORIGINAL", "PRIMARY", "OTHER", "NONE"], ComplexImageComponent="MAGNITUDE")
    return group(
        PlaneOrientationSequence=[group(ImageOrientationPatient=image.ImageOrientationPatient)],
        PixelMeasuresSequence=[group(PixelSpacing=image.PixelSpacing, SliceThickness=image.get("SliceThickness"))],
        MRImageFrameTypeSequence=[frame_type],
    )


def _frame(image: Dataset, number: int) -> Dataset:
    cardiac = image.get("TriggerTime")
    return group(
        FrameContentSequence=[group(FrameAcquisitionNumber=number, DimensionIndexValues=[number])],
        PlanePositionSequence=[group(ImagePositionPatient=image.ImagePositionPatient)],
        MREchoSequence=[group(EffectiveEchoTime=float(image.EchoTime))],
        CardiacSynchronizationSequence=None
        if cardiac is None
        else [group(NominalCardiacTriggerDelayTime=float(cardiac))],
        PixelValueTransformationSequence=[
            group(
                RescaleSlope=image.get("RescaleSlope", 1),
                RescaleIntercept=image.get("RescaleIntercept", 0),
                RescaleType="US",
            )
        ],
    )
