"""Derived MR images, one per slice (PS3.3 A.4): the images that were segmented, and maps as scaled integers.

Every PACS and viewer takes such a series. Maps are stored as tenths of a millisecond; a Real World Value Mapping says
so. A Rescale Slope does not: PS3.3 has none for MR images, and viewers differ in what they make of it.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from dicom_io.atlas_images import atlas_images
from dicom_io.codes import (
    EXTRACTED_IMAGES,
    MILLISECOND,
    QUANTITY_CODES,
    RELAXOMETRY_FIT,
    SPATIAL_RESAMPLING,
    code_item,
    private_scheme,
)
from dicom_io.reference_images import REFERENCE, image_uid, images_of_slice, reference_images
from dicom_io.source_attributes import complete, copy_unchanged, equipment, identity, mark_lumbar_spine
from dicom_io.source_references import name_source_images
from dicom_io.sources import SourceExam
from processing.atlas_layout import AtlasLayout
from processing.display import DISPLAY_RANGES_MS, RESEARCH_USE_ONLY
from processing.results import ExamResult, Quantity
from processing.volume import spacing_mm

REFERENCE_SERIES_NUMBER = 9010
ATLAS_SERIES_NUMBER = 9030
MAP_SERIES_NUMBERS = {Quantity.T1RHO: 9011, Quantity.T2: 9012}

#: Stored values per millisecond in a scaled map.
STEPS_PER_MS = 10
_LARGEST = 65535

#: What a derived image keeps of how its source was acquired (PS3.3 C.8.3.1); values as they stand.
_ACQUISITION_KEYWORDS = (
    *("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName"),
    *("MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "PatientPosition", "ProtocolName"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionNumber"),
)
_TIMING_KEYWORDS = ("RepetitionTime", "EchoTime", "InversionTime", "EchoTrainLength", "FlipAngle", "EchoNumbers")
_OF_THE_SCAN = ("SequenceName", "ProtocolName", "AcquisitionDate", "AcquisitionTime", "AcquisitionNumber")


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What tells one derived series from another."""

    role: str
    series_number: int
    description: str
    image_type: str  # value 3 of Image Type
    derivation: str
    derivation_code: Code
    window: tuple[float, float]  # lowest and highest stored value shown
    mapping: Dataset | None = None


def reference_series(result: ExamResult, source: SourceExam) -> Iterator[Dataset]:
    """The segmented image of each slice, as an MR image: what segmentation, maps and outlines are shown on.

    Signals that are whole numbers from 0 to 65535 are stored as they are, others are stretched over 0 to 4095.
    """
    stored = _stored_signal(result.background.array)
    look = _Look(
        role=REFERENCE,
        series_number=REFERENCE_SERIES_NUMBER,
        description="Segmented images",
        image_type="OTHER",
        derivation="One image per slice, at the shortest time: what the discs were outlined on",
        derivation_code=EXTRACTED_IMAGES,
        window=(0.0, float(max(np.percentile(stored, 99.5), 1))),
    )
    sources = [[instance] for instance in source.grid_instances]
    for image, instance in zip(
        _series(result, source, reference_images(result, source), stored, look, sources),
        source.grid_instances,
        strict=True,
    ):
        copy_unchanged(instance, image, _TIMING_KEYWORDS)
        yield image


def scaled_map_role(quantity: Quantity) -> str:
    """The role of a scaled map in derived UIDs and file names."""
    return f"mr-{quantity.value.lower()}"


def scaled_map_series(result: ExamResult, source: SourceExam, quantity: Quantity) -> Iterator[Dataset]:
    """The native map of one quantity as MR images: stored value = ms x 10, 0 = no value.

    Raises:
        KeyError: the result has no map of this quantity.
    """
    time_ms = np.nan_to_num(result.maps[quantity].time_ms, nan=0.0, posinf=0.0, neginf=0.0)
    stored = np.clip(np.rint(time_ms * STEPS_PER_MS), 0, _LARGEST).astype(np.uint16)
    low_ms, high_ms = DISPLAY_RANGES_MS[quantity]
    look = _Look(
        role=scaled_map_role(quantity),
        series_number=MAP_SERIES_NUMBERS[quantity],
        description=f"{quantity.value} map (ms x {STEPS_PER_MS})",
        image_type="T2 MAP" if quantity is Quantity.T2 else "OTHER",
        derivation=f"{quantity.value} in ms x {STEPS_PER_MS}, 0 = no value; mono-exponential fit",
        derivation_code=RELAXOMETRY_FIT,
        window=(low_ms * STEPS_PER_MS, high_ms * STEPS_PER_MS),
        mapping=_mapping(quantity),
    )
    sources = [images_of_slice(source, index) for index in range(len(source.grid_instances))]
    for image in _series(result, source, reference_images(result, source), stored, look, sources):
        image.EchoTime = None
        yield image


def atlas_series(result: ExamResult, source: SourceExam, layout: AtlasLayout, role: str) -> Iterator[Dataset]:
    """The atlas on which the maps in atlas space are shown: stored value 10 x level + region, 21 is L4/L5's nucleus."""
    look = _Look(
        role=role,
        series_number=ATLAS_SERIES_NUMBER,
        description="Disc atlas, not the patient",
        image_type="OTHER",
        derivation="Atlas discs, one above the other; value = 10 x level + region, 0 = none. Not the patient's anatomy",
        derivation_code=SPATIAL_RESAMPLING,
        window=(0.0, 70.0),
    )
    stored = layout.labels.astype(np.uint16)
    grid = atlas_images(result, source, layout, role)
    for image in _series(result, source, grid, stored, look, [[]] * layout.shape[0]):
        image.PatientPosition = None
        for keyword in _OF_THE_SCAN:
            if keyword in image:
                del image[keyword]
        yield image


def _series(
    result: ExamResult,
    source: SourceExam,
    grid: SourceExam,
    stored: npt.NDArray[np.uint16],
    look: _Look,
    sources: Sequence[Sequence[Dataset]],
) -> Iterator[Dataset]:
    """One image per slice of ``stored`` (slices, rows, columns), at the places of ``grid``, each with its sources."""
    template = _template(result, source, look)
    for index, place in enumerate(grid.grid_instances):
        image = copy.deepcopy(template)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = image_uid(result, source, look.role, index)
        image.InstanceNumber = index + 1
        _place(image, place, grid, index)
        name_source_images(image, sources[index])
        for item in image.get("SourceImageSequence", ()):
            item.SpatialLocationsPreserved = "YES"
        image.PixelData = stored[index].astype("<u2").tobytes()
        image["PixelData"].VR = "OW"
        yield image


def _template(result: ExamResult, source: SourceExam, look: _Look) -> Dataset:
    """What all images of a series share."""
    header = source.grid_instances[0]
    dataset = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=MRImageStorage,
        modality="MR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=[private_scheme()],
        **identity(result, source, look.role, look.series_number),
        **equipment(result),
    )
    dataset.ImageType = ["DERIVED", "SECONDARY", look.image_type]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", None
    dataset.MRAcquisitionType = dataset.RepetitionTime = dataset.EchoTime = dataset.EchoTrainLength = None
    dataset.PatientPosition = None
    copy_unchanged(header, dataset, _ACQUISITION_KEYWORDS)
    complete(dataset, result, source, role=look.role, description=look.description)
    mark_lumbar_spine(dataset)
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageComments = RESEARCH_USE_ONLY
    dataset.DerivationDescription = look.derivation
    dataset.DerivationCodeSequence = [code_item(look.derivation_code)]
    low, high = look.window
    dataset.WindowCenter, dataset.WindowWidth = round((low + high) / 2, 2), round(high - low, 2)
    if look.mapping is not None:
        dataset.RealWorldValueMappingSequence = [look.mapping]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    return dataset


def _place(image: Dataset, place: Dataset, grid: SourceExam, index: int) -> None:
    """Geometry of one slice: spacings from the affine, position and orientation as the source writes them."""
    slices, rows, columns = spacing_mm(grid.affine)
    image.FrameOfReferenceUID = place.FrameOfReferenceUID
    image.PositionReferenceIndicator = place.get("PositionReferenceIndicator")
    image.Rows, image.Columns = place.Rows, place.Columns
    image.ImagePositionPatient = place.ImagePositionPatient
    image.ImageOrientationPatient = place.ImageOrientationPatient
    image.PixelSpacing = [DSfloat(mm, auto_format=True) for mm in (rows, columns)]
    image.SliceThickness = place.SliceThickness
    image.SpacingBetweenSlices = DSfloat(slices, auto_format=True)
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in place:
            image[keyword] = place[keyword]


def _mapping(quantity: Quantity) -> Dataset:
    """Real World Value Mapping (PS3.3 C.7.6.16.2.11.1) of tenths of a millisecond."""
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 1, _LARGEST
    mapping["RealWorldValueFirstValueMapped"].VR = mapping["RealWorldValueLastValueMapped"].VR = "US"
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, 1.0 / STEPS_PER_MS
    mapping.LUTExplanation, mapping.LUTLabel = f"{quantity.value} in ms, 0 = no value", f"{quantity.value.upper()}_MS"
    mapping.MeasurementUnitsCodeSequence = [code_item(MILLISECOND)]
    definition = Dataset()
    definition.ValueType = "CODE"
    definition.ConceptNameCodeSequence = [code_item(Code("246205007", "SCT", "Quantity"))]
    definition.ConceptCodeSequence = [code_item(QUANTITY_CODES[quantity])]
    mapping.QuantityDefinitionSequence = [definition]
    return mapping


def _stored_signal(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    finite = np.nan_to_num(signal, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= _LARGEST and not (finite % 1).any():
        return finite.astype(np.uint16)
    floor = min(low, 0.0)
    stretched: npt.NDArray[np.uint16] = np.rint((finite - floor) * (4095 / (high - floor or 1.0))).astype(np.uint16)
    return stretched
