"""A simulated series as Enhanced MR Image Storage: one object, its images the frames."""

from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from dicom_io.simulated_frame_groups import ACQUISITION_MS, frame_groups, frame_type, item, shared_groups
from dicom_io.simulated_series import (
    PulseSequence,
    Scanner,
    Series,
    StoredImage,
    Study,
    describe_series,
    describe_study,
)

#: Adds what only one vendor writes to the functional groups of a frame; the number is the frame's, from 1.
AddFrameGroups = Callable[[Dataset, Series, StoredImage, int], None]
#: Adds what only one vendor writes to the object.
AddObjectAttributes = Callable[[Dataset, Series], None]


def write_enhanced(
    series: Series,
    study: Study,
    scanner: Scanner,
    folder: Path,
    *,
    add_object_attributes: AddObjectAttributes,
    add_frame_groups: AddFrameGroups,
) -> Path:
    """Write a series as one multi-frame file into its own subfolder of ``folder``."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.SOPInstanceUID = study.uid("enhanced image", series.number)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    describe_study(dataset, study, scanner)
    describe_series(dataset, study, scanner, series)
    dataset.InstanceNumber = 1
    dataset.AcquisitionDateTime = "".join(study.clock(series))
    dataset.AcquisitionDuration = ACQUISITION_MS / 1000
    dataset.ContentQualification = "RESEARCH"
    dataset.AcquisitionContextSequence = Sequence()
    dataset.PresentationLUTShape = "IDENTITY"
    _describe_pulse_sequence(dataset, series.sequence)
    _describe_frame_types(dataset, series)
    with_trigger = any(image.trigger_time_ms is not None for image in series.images)
    dataset.CardiacSynchronizationTechnique = "NONE"
    _set_dimensions(dataset, study, series, with_trigger=with_trigger)
    _set_pixels(dataset, series, scanner.bits_stored)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared_groups(series, study)])
    frames = []
    for number, image in enumerate(series.images, start=1):
        groups = frame_groups(series, study, image)
        add_frame_groups(groups, series, image, number)
        frames.append(groups)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    add_object_attributes(dataset, series)
    target = folder / f"series-{series.number:03d}"
    target.mkdir(parents=True, exist_ok=True)
    path = target / "MR00001.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def _describe_pulse_sequence(dataset: Dataset, sequence: PulseSequence) -> None:
    """MR Pulse Sequence module (PS3.3 C.8.13.4)."""
    is_spin_echo = sequence.scanning_sequence == "SE"
    dataset.MRAcquisitionType = sequence.acquisition_type
    dataset.PulseSequenceName = "tse" if is_spin_echo else "mapss"
    dataset.EchoPulseSequence = "SPIN" if is_spin_echo else "GRADIENT"
    if is_spin_echo:
        dataset.MultipleSpinEcho = "NO"
    dataset.MultiPlanarExcitation = "NO"
    dataset.PhaseContrast = "NO"
    dataset.TimeOfFlightContrast = "NO"
    dataset.SteadyStatePulseSequence = "NONE" if is_spin_echo else "LONGITUDINAL"
    dataset.EchoPlanarPulseSequence = "NO"
    dataset.SaturationRecovery = "NO"
    dataset.SpectrallySelectedSuppression = "FAT" if "FS" in sequence.scan_options else "NONE"
    dataset.OversamplingPhase = "NONE" if sequence.acquisition_type == "2D" else "2D"
    dataset.GeometryOfKSpaceTraversal = "RECTILINEAR"
    dataset.RectilinearPhaseEncodeReordering = "LINEAR" if is_spin_echo else "CENTRIC"
    dataset.SegmentedKSpaceTraversal = "SINGLE" if is_spin_echo else "PARTIAL"
    if sequence.acquisition_type == "3D":
        dataset.CoverageOfKSpace = "ELLIPTICAL"
    dataset.NumberOfKSpaceTrajectories = 1
    dataset.ResonantNucleus = "1H"
    dataset.KSpaceFiltering = "NONE"
    dataset.RespiratoryMotionCompensationTechnique = "NONE"
    dataset.ApplicableSafetyStandardAgency = "IEC"


def _describe_frame_types(dataset: Dataset, series: Series) -> None:
    """Image type and MR image description of all frames (PS3.3 C.8.13.3.1): MIXED where the frames differ."""
    descriptions = [frame_type(series, image) for image in series.images]
    for keyword in ("ComplexImageComponent", "AcquisitionContrast"):
        values = {str(description[keyword].value) for description in descriptions}
        setattr(dataset, keyword, values.pop() if len(values) == 1 else "MIXED")
    types = {description.FrameType[3] for description in descriptions}
    dataset.ImageType = [*descriptions[0].FrameType[:3], types.pop() if len(types) == 1 else "MIXED"]
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _set_dimensions(dataset: Dataset, study: Study, series: Series, *, with_trigger: bool) -> None:
    """Multi-frame Dimension module: stack, slice, then the time and the complex component where frames have one."""
    organization = study.uid("dimensions", series.number)
    dataset.DimensionOrganizationSequence = Sequence([item(DimensionOrganizationUID=organization)])
    pointers = [
        (0x00209056, 0x00209111, "Stack ID"),
        (0x00209057, 0x00209111, "In-Stack Position Number"),
        (0x00089208, 0x00189226, "Complex Image Component"),
    ]
    if with_trigger:
        pointers.append((0x00209153, 0x00189118, "Nominal Cardiac Trigger Delay Time"))
    dataset.DimensionIndexSequence = Sequence(
        item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=Tag(pointer),
            FunctionalGroupPointer=Tag(group),
            DimensionDescriptionLabel=label,
        )
        for pointer, group, label in pointers
    )


def _set_pixels(dataset: Dataset, series: Series, bits_stored: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames = len(series.images)
    dataset.Rows, dataset.Columns = series.images[0].pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = b"".join(image.pixels.astype("<u2").tobytes() for image in series.images)
