"""A simulated series as Enhanced MR Image Storage: one object, its images the frames."""

from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from dicom_io.simulated_series import (
    Plane,
    PulseSequence,
    Scanner,
    Series,
    StoredImage,
    Study,
    decimal,
    describe_series,
    describe_study,
)

#: Adds what only one vendor writes to the functional groups of a frame; the number is the frame's, from 1.
AddFrameGroups = Callable[[Dataset, Series, StoredImage, int], None]
#: Adds what only one vendor writes to the object.
AddObjectAttributes = Callable[[Dataset, Series], None]

_ACQUISITION_MS = 180_000.0


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
    dataset.AcquisitionDateTime = f"{study.day}{series.began}"
    dataset.AcquisitionDuration = _ACQUISITION_MS / 1000
    dataset.ContentQualification = "RESEARCH"
    dataset.AcquisitionContextSequence = Sequence()
    dataset.PresentationLUTShape = "IDENTITY"
    _describe_pulse_sequence(dataset, series.sequence)
    _describe_frame_types(dataset, series)
    with_trigger = any(image.trigger_time_ms is not None for image in series.images)
    dataset.CardiacSynchronizationTechnique = "NONE"
    _set_dimensions(dataset, study, series, with_trigger=with_trigger)
    _set_pixels(dataset, series, scanner.bits_stored)
    dataset.SharedFunctionalGroupsSequence = Sequence([_shared_groups(series)])
    frames = []
    for number, image in enumerate(series.images, start=1):
        groups = _frame_groups(series, study, image)
        add_frame_groups(groups, series, image, number)
        frames.append(groups)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    add_object_attributes(dataset, series)
    target = folder / f"series-{series.number:03d}"
    target.mkdir(parents=True, exist_ok=True)
    path = target / "MR00001.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def item(**attributes: object) -> Dataset:
    """An item of a sequence, its attributes by keyword."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


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
    descriptions = [_frame_type(series, image) for image in series.images]
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


def _frame_type(series: Series, image: StoredImage) -> Dataset:
    contrast = "T2" if image.t2_prepared or series.sequence.scanning_sequence == "SE" else "UNKNOWN"
    return item(
        FrameType=["ORIGINAL", "PRIMARY", image.image_type[3] if image.is_phase else "M", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ComplexImageComponent="PHASE" if image.is_phase else "MAGNITUDE",
        AcquisitionContrast=contrast,
    )


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


def _shared_groups(series: Series) -> Dataset:
    """What is the same for all frames."""
    sequence = series.sequence
    t2_prepared = {image.t2_prepared for image in series.images} == {True}
    groups = Dataset()
    groups.MRTimingAndRelatedParametersSequence = Sequence(
        [
            item(
                RepetitionTime=decimal(sequence.repetition_time_ms),
                EchoTrainLength=sequence.echo_train_length,
                FlipAngle=decimal(sequence.flip_angle_deg),
                RFEchoTrainLength=sequence.echo_train_length if sequence.scanning_sequence == "SE" else 0,
                GradientEchoTrainLength=0 if sequence.scanning_sequence == "SE" else 1,
                GradientOutputType="DB_DT",
                GradientOutput=40.0,
                SpecificAbsorptionRateSequence=Sequence(
                    [item(SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.5)]
                ),
                OperatingModeSequence=Sequence([item(OperatingModeType="GRADIENT", OperatingMode="IEC_NORMAL")]),
            )
        ]
    )
    groups.MRFOVGeometrySequence = Sequence(
        [
            item(
                InPlanePhaseEncodingDirection="ROW",
                MRAcquisitionFrequencyEncodingSteps=sequence.acquired[0],
                MRAcquisitionPhaseEncodingStepsInPlane=sequence.acquired[1],
                MRAcquisitionPhaseEncodingStepsOutOfPlane=max(image.slice_index for image in series.images) + 1,
                PercentSampling="100",
                PercentPhaseFieldOfView="100",
            )
        ]
    )
    if sequence.acquisition_type == "2D":
        del groups.MRFOVGeometrySequence[0].MRAcquisitionPhaseEncodingStepsOutOfPlane
    groups.MRModifierSequence = Sequence(
        [
            item(
                InversionRecovery="NO",
                FlowCompensation="NONE",
                Spoiling="RF" if sequence.scanning_sequence == "GR" else "NONE",
                T2Preparation="YES" if t2_prepared else "NO",  # PS3.3 C.8.13.5.6 knows no spin-lock preparation
                SpectrallySelectedExcitation="NONE",
                SpatialPresaturation="NONE",
                PartialFourier="NO",
                ParallelAcquisition="NO",
            )
        ]
    )
    groups.MRImagingModifierSequence = Sequence(
        [
            item(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                TransmitterFrequency=127.76,
                PixelBandwidth="244.141",
            )
        ]
    )
    groups.MRTransmitCoilSequence = Sequence(
        [item(TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY")]
    )
    groups.MRReceiveCoilSequence = Sequence(
        [
            item(
                ReceiveCoilName="SPINE",
                ReceiveCoilManufacturerName="",
                ReceiveCoilType="SURFACE",
                QuadratureReceiveCoil="NO",
            )
        ]
    )
    groups.MRAveragesSequence = Sequence([item(NumberOfAverages="1")])
    region = item(CodeValue="122496007", CodingSchemeDesignator="SCT", CodeMeaning="Lumbar spine")
    groups.FrameAnatomySequence = Sequence([item(AnatomicRegionSequence=Sequence([region]), FrameLaterality="U")])
    return groups


def _frame_groups(series: Series, study: Study, image: StoredImage) -> Dataset:
    """What is told of each frame, in the groups in which the vendors do."""
    plane = Plane.of(series.affine, image.slice_index)
    groups = Dataset()
    groups.MREchoSequence = Sequence([item(EffectiveEchoTime=image.echo_time_ms)])
    groups.MRImageFrameTypeSequence = Sequence([_frame_type(series, image)])
    indices = [1, image.slice_index + 1, 2 if image.is_phase else 1]
    if image.trigger_time_ms is not None:
        indices.append(image.time_index + 1)
        groups.CardiacSynchronizationSequence = Sequence([item(NominalCardiacTriggerDelayTime=image.trigger_time_ms)])
    groups.FrameContentSequence = Sequence(
        [
            item(
                FrameAcquisitionDateTime=f"{study.day}{series.began}",
                FrameReferenceDateTime=f"{study.day}{series.began}",
                FrameAcquisitionDuration=_ACQUISITION_MS,
                StackID="1",
                InStackPositionNumber=image.slice_index + 1,
                TemporalPositionIndex=1,
                DimensionIndexValues=indices,
            )
        ]
    )
    groups.PlanePositionSequence = Sequence([item(ImagePositionPatient=plane.position)])
    groups.PlaneOrientationSequence = Sequence([item(ImageOrientationPatient=plane.orientation)])
    groups.PixelMeasuresSequence = Sequence(
        [
            item(
                SliceThickness=decimal(study.slice_thickness_mm),
                SpacingBetweenSlices=plane.spacing_between_slices,
                PixelSpacing=plane.pixel_spacing,
            )
        ]
    )
    slope = 1.0 if image.rescale_slope is None else image.rescale_slope
    groups.PixelValueTransformationSequence = Sequence(
        [
            item(
                RescaleSlope=f"{slope:.12g}",
                RescaleIntercept=f"{image.rescale_intercept:.12g}",
                RescaleType="US",
            )
        ]
    )
    largest = int(image.pixels.max())
    groups.FrameVOILUTSequence = Sequence(
        [item(WindowCenter=str(round(largest // 4 * slope)), WindowWidth=str(max(round(largest // 2 * slope), 1)))]
    )
    return groups
