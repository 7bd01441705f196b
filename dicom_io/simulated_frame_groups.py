"""The functional groups of a simulated Enhanced MR object: what all frames share, and what each tells of itself."""

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_io.simulated_series import Plane, PulseSequence, Series, StoredImage, Study, decimal

ACQUISITION_MS = 180_000.0


def item(**attributes: object) -> Dataset:
    """An item of a sequence, its attributes by keyword."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def shared_groups(series: Series, study: Study) -> Dataset:
    """What is the same for all frames (PS3.3 C.7.6.16)."""
    groups = Dataset()
    groups.MRTimingAndRelatedParametersSequence = _timing(series.sequence)
    groups.MRFOVGeometrySequence = _encoding(series)
    groups.MRImagingModifierSequence = _group(
        MagnetizationTransfer="NONE",
        BloodSignalNulling="NO",
        Tagging="NONE",
        TransmitterFrequency=127.76,
        PixelBandwidth="244.141",
    )
    groups.MRTransmitCoilSequence = _group(
        TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY"
    )
    groups.MRReceiveCoilSequence = _group(
        ReceiveCoilName=study.appointment.receive_coil or "SPINE",
        ReceiveCoilManufacturerName="",
        ReceiveCoilType="SURFACE",
        QuadratureReceiveCoil="NO",
    )
    groups.MRAveragesSequence = _group(NumberOfAverages="1")
    region = _group(CodeValue="122496007", CodingSchemeDesignator="SCT", CodeMeaning="Lumbar spine")
    groups.FrameAnatomySequence = _group(AnatomicRegionSequence=region, FrameLaterality="U")
    return groups


def frame_groups(series: Series, study: Study, image: StoredImage) -> Dataset:
    """What is told of each frame, in the groups in which the vendors do."""
    groups = Dataset()
    groups.MREchoSequence = _group(EffectiveEchoTime=image.echo_time_ms)
    groups.MRImageFrameTypeSequence = Sequence([frame_type(series, image)])
    indices = [1, image.slice_index + 1, 2 if image.is_phase else 1]
    if image.trigger_time_ms is not None:
        indices.append(image.time_index + 1)
        groups.CardiacSynchronizationSequence = _group(NominalCardiacTriggerDelayTime=image.trigger_time_ms)
    groups.FrameContentSequence = _group(
        FrameAcquisitionDateTime="".join(study.clock(series)),
        FrameReferenceDateTime="".join(study.clock(series)),
        FrameAcquisitionDuration=ACQUISITION_MS,
        StackID="1",
        InStackPositionNumber=image.slice_index + 1,
        TemporalPositionIndex=1,
        DimensionIndexValues=indices,
    )
    groups.MRModifierSequence = _group(
        InversionRecovery="NO",
        FlowCompensation="NONE",
        Spoiling="RF" if series.sequence.scanning_sequence == "GR" else "NONE",
        T2Preparation="YES" if image.t2_prepared else "NO",  # PS3.3 C.8.13.5.6 knows no spin-lock preparation
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )
    _place(groups, Plane.of(series.affine, image.slice_index), study.slice_thickness_mm)
    _scale(groups, image)
    return groups


def frame_type(series: Series, image: StoredImage) -> Dataset:
    """The item of a frame's MR Image Frame Type group (PS3.3 C.8.13.5.1)."""
    contrast = "T2" if image.t2_prepared or series.sequence.scanning_sequence == "SE" else "UNKNOWN"
    return item(
        FrameType=["ORIGINAL", "PRIMARY", image.image_type[3] if image.is_phase else "M", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ComplexImageComponent="PHASE" if image.is_phase else "MAGNITUDE",
        AcquisitionContrast=contrast,
    )


def _group(**attributes: object) -> Sequence:
    return Sequence([item(**attributes)])


def _timing(sequence: PulseSequence) -> Sequence:
    is_spin_echo = sequence.scanning_sequence == "SE"
    return _group(
        RepetitionTime=decimal(sequence.repetition_time_ms),
        EchoTrainLength=sequence.echo_train_length,
        FlipAngle=decimal(sequence.flip_angle_deg),
        RFEchoTrainLength=sequence.echo_train_length if is_spin_echo else 0,
        GradientEchoTrainLength=0 if is_spin_echo else 1,
        GradientOutputType="DB_DT",
        GradientOutput=40.0,
        SpecificAbsorptionRateSequence=_group(
            SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.5
        ),
        OperatingModeSequence=_group(OperatingModeType="GRADIENT", OperatingMode="IEC_NORMAL"),
    )


def _encoding(series: Series) -> Sequence:
    frequency_steps, phase_steps = series.sequence.acquired
    group = _group(
        InPlanePhaseEncodingDirection="ROW",
        MRAcquisitionFrequencyEncodingSteps=frequency_steps,
        MRAcquisitionPhaseEncodingStepsInPlane=phase_steps,
        PercentSampling="100",
        PercentPhaseFieldOfView="100",
    )
    if series.sequence.acquisition_type == "3D":
        group[0].MRAcquisitionPhaseEncodingStepsOutOfPlane = max(image.slice_index for image in series.images) + 1
    return group


def _place(groups: Dataset, plane: Plane, thickness_mm: float) -> None:
    groups.PlanePositionSequence = _group(ImagePositionPatient=plane.position)
    groups.PlaneOrientationSequence = _group(ImageOrientationPatient=plane.orientation)
    groups.PixelMeasuresSequence = _group(
        SliceThickness=decimal(thickness_mm),
        SpacingBetweenSlices=plane.spacing_between_slices,
        PixelSpacing=plane.pixel_spacing,
    )


def _scale(groups: Dataset, image: StoredImage) -> None:
    slope = 1.0 if image.rescale_slope is None else image.rescale_slope
    groups.PixelValueTransformationSequence = _group(
        RescaleSlope=f"{slope:.12g}", RescaleIntercept=f"{image.rescale_intercept:.12g}", RescaleType="US"
    )
    largest = int(image.pixels.max())
    groups.FrameVOILUTSequence = _group(
        WindowCenter=str(round(largest // 4 * slope)), WindowWidth=str(max(round(largest // 2 * slope), 1))
    )
