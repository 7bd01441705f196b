"""Enhanced MR objects made of classic images, as scanners write them, for the tests of reading and of the writers."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian

from config.protocol_cards import ScalingRule
from dicom_io.headers import read_facts
from dicom_io.pixels import read_images
from dicom_io.sources import SourceExam

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


def enhanced_source(classic: SourceExam, paths: Sequence[Path]) -> SourceExam:
    """The same exam, as read from as many Enhanced MR objects as there are paths, which are written."""
    n_each = -(-len(classic.all_instances) // len(paths))
    headers = []
    for number, path in enumerate(paths):
        images = classic.all_instances[number * n_each : (number + 1) * n_each]
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 4096, (len(images), images[0].Rows, images[0].Columns), np.uint16)
        uid = f"{images[0].SeriesInstanceUID}.99.{number + 1}"
        enhanced_mr(images, pixels, uid).save_as(path, enforce_file_format=True)
        headers += [header for _, header in read_images(read_facts(path), ScalingRule.RAW)]
    of_grid = {id(image) for image in classic.grid_instances}
    places = [place for place, image in enumerate(classic.all_instances) if id(image) in of_grid]
    return SourceExam(tuple(headers[place] for place in places), tuple(headers), classic.affine)
