"""The rules of de-identification: this table is the behaviour. What is not in it is removed.

It serves PS3.15 Annex E, the Basic Application Level Confidentiality Profile with the options below. The profile lists
what to remove; this table lists what may stay, so that what nobody thought of goes. Nested items obey the same rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code

#: Raised with every change of what stays or how it is changed: it is written into the objects.
RULES_VERSION = "1"


class Action(StrEnum):
    """What is done with an attribute."""

    KEEP = "kept, where it has the form of its kind"
    DEVICE = "kept: which device it was (113109)"
    PATIENT = "kept: sex, age, size, weight (113108)"
    UID = "replaced by a UID from the trial's key; DICOM's own stay"
    DATE = "shifted by whole weeks of the subject (113107); the time of day stays"
    CLEAN = "rebuilt from words of the trade and their numbers (113105)"
    ITEMS = "its items are kept, each by these rules"
    CONTENT = "its items are kept in our own reports, names of persons removed (113104)"
    EMPTY = "emptied"
    TRIAL = "replaced by what the trial says"
    PIXELS = "kept; what may hold burned-in text is refused"


@dataclass(frozen=True, slots=True)
class Rule:
    """One action for several attributes, and why."""

    action: Action
    why: str
    keywords: tuple[str, ...]


def _rule(action: Action, why: str, keywords: str) -> Rule:
    return Rule(action, why, tuple(keywords.split()))


BASIC_PROFILE = Code("113100", "DCM", "Basic Application Confidentiality Profile")
CLEAN_STRUCTURED_CONTENT = Code("113104", "DCM", "Clean Structured Content Option")
CLEAN_DESCRIPTORS = Code("113105", "DCM", "Clean Descriptors Option")
MODIFIED_DATES = Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option")
PATIENT_CHARACTERISTICS = Code("113108", "DCM", "Retain Patient Characteristics Option")
DEVICE_IDENTITY = Code("113109", "DCM", "Retain Device Identity Option")
SAFE_PRIVATE = Code("113111", "DCM", "Retain Safe Private Option")
#: Written into every object (PS3.16 CID 7050); CLEAN_STRUCTURED_CONTENT only into reports. Clean Pixel Data (113101) is
#: never claimed: no pixel is changed, what may show text is refused.
OPTIONS = (BASIC_PROFILE, CLEAN_DESCRIPTORS, MODIFIED_DATES, PATIENT_CHARACTERISTICS, DEVICE_IDENTITY, SAFE_PRIVATE)
DEIDENTIFYING_EQUIPMENT = Code("109104", "DCM", "De-identifying Equipment")

RULES: tuple[Rule, ...] = (
    _rule(
        Action.TRIAL,
        "who the subject is in the trial",
        """PatientName PatientID PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
        LongitudinalTemporalInformationModified ClinicalTrialSponsorName ClinicalTrialProtocolID
        ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID
        ClinicalTrialTimePointID ClinicalTrialCoordinatingCenterName PatientBirthDate SpecificCharacterSet
        BurnedInAnnotation""",
    ),
    _rule(Action.EMPTY, "must be there, may be empty", "AccessionNumber StudyID ReferringPhysicianName"),
    _rule(
        Action.EMPTY,
        "must be there in some objects, may be empty",
        """ContentCreatorName PositionReferenceIndicator AcquisitionContextSequence""",
    ),
    _rule(Action.PATIENT, "wrong patients are found by them", "PatientSex PatientAge PatientSize PatientWeight"),
    _rule(
        Action.DEVICE,
        "whether two visits may be compared depends on them",
        """Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions ReceiveCoilName
        ReceiveCoilManufacturerName TransmitCoilName TransmitCoilManufacturerName MultiCoilElementName
        SecondaryCaptureDeviceManufacturer SecondaryCaptureDeviceManufacturerModelName
        SecondaryCaptureDeviceSoftwareVersions""",
    ),
    _rule(
        Action.UID,
        "names an object, or points to one",
        """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedSOPClassUID
        ReferencedSOPInstanceUID ReferencedFrameOfReferenceUID SourceFrameOfReferenceUID DimensionOrganizationUID
        SynchronizationFrameOfReferenceUID ConcatenationUID SOPInstanceUIDOfConcatenationSource TrackingUID UID
        ContextUID FiducialUID  """,
    ),
    _rule(
        Action.DATE,
        "intervals between visits stay exact",
        """StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate StudyTime SeriesTime AcquisitionTime
        ContentTime InstanceCreationTime AcquisitionDateTime FrameAcquisitionDateTime FrameReferenceDateTime
        ContributionDateTime DateOfSecondaryCapture TimeOfSecondaryCapture TimezoneOffsetFromUTC StructureSetDate
        StructureSetTime Date Time DateTime ObservationDateTime""",
    ),
    _rule(
        Action.CLEAN,
        "protocol cards read them; other texts are rebuilt in the same way",
        """SeriesDescription ProtocolName SequenceName PulseSequenceName ImageComments DerivationDescription
        ContentLabel ContentDescription DocumentTitle SegmentLabel SegmentDescription SegmentAlgorithmName
        AlgorithmName AlgorithmParameters AlgorithmSource TrackingID TextValue CodeMeaning ContributionDescription
        LUTLabel LUTExplanation RescaleType DimensionDescriptionLabel WindowCenterWidthExplanation
        FrameOfReferenceTransformationComment DimensionIndexPrivateCreator FunctionalGroupPrivateCreator
        CodingSchemeName CodingSchemeResponsibleOrganization""",
    ),
    _rule(
        Action.KEEP,
        "what kind of object it is",
        """Modality ImageType FrameType ConversionType ContentQualification PresentationLUTShape PixelPresentation
        VolumetricProperties VolumeBasedCalculationTechnique ComplexImageComponent AcquisitionContrast BodyPartExamined
        PatientPosition PatientOrientation Laterality FrameLaterality LossyImageCompression LossyImageCompressionRatio
        LossyImageCompressionMethod SpatialLocationsPreserved RecognizableVisualFeatures CompletionFlag
        VerificationFlag PreliminaryFlag SegmentationType SegmentsOverlap SegmentAlgorithmType AlgorithmVersion
         MIMETypeOfEncapsulatedDocument EncapsulatedDocumentLength
        QualityControlImage""",
    ),
    _rule(
        Action.KEEP,
        "order and count",
        """SeriesNumber AcquisitionNumber InstanceNumber ImagesInAcquisition TemporalPositionIdentifier
        TemporalPositionIndex NumberOfTemporalPositions StackID InStackPositionNumber NumberOfFrames
        FrameAcquisitionNumber InConcatenationNumber InConcatenationTotalNumber ConcatenationFrameOffsetNumber
        DimensionIndexValues DimensionIndexPointer FunctionalGroupPointer DimensionOrganizationType
        ReferencedFrameNumber ReferencedSegmentNumber SegmentNumber RecommendedDisplayCIELabValue""",
    ),
    _rule(
        Action.KEEP,
        "geometry",
        """Rows Columns PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation ImageOrientationPatient
        ImagePositionPatient ReconstructionDiameter AcquisitionMatrix InPlanePhaseEncodingDirection GridDimensions
        GridResolution VectorGridData FrameOfReferenceTransformationMatrix FrameOfReferenceTransformationMatrixType
        GraphicType GraphicData""",
    ),
    _rule(
        Action.KEEP,
        "how stored values become signal, and are shown",
        """SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit
        PixelRepresentation SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit
        RescaleSlope RescaleIntercept WindowCenter WindowWidth VOILUTFunction LUTDescriptor LUTData ModalityLUTType
        RealWorldValueFirstValueMapped RealWorldValueLastValueMapped RealWorldValueSlope RealWorldValueIntercept
        DoubleFloatRealWorldValueFirstValueMapped DoubleFloatRealWorldValueLastValueMapped FloatPixelPaddingValue
        DoubleFloatPixelPaddingValue """,
    ),
    _rule(
        Action.KEEP,
        "how the images were acquired",
        """ScanningSequence SequenceVariant ScanOptions MRAcquisitionType AngioFlag RepetitionTime EchoTime
        EffectiveEchoTime InversionTime InversionTimes TriggerTime NominalCardiacTriggerDelayTime
        NominalRespiratoryTriggerDelayTime EchoNumbers EchoTrainLength RFEchoTrainLength GradientEchoTrainLength
        FlipAngle VariableFlipAngleFlag NumberOfAverages ImagingFrequency ImagedNucleus MagneticFieldStrength
        NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth SAR dBdt B1rms
        AcquisitionDuration FrameAcquisitionDuration EchoPulseSequence InversionRecovery MultipleSpinEcho
        MultiPlanarExcitation PhaseContrast TimeOfFlightContrast Spoiling SteadyStatePulseSequence
        EchoPlanarPulseSequence SaturationRecovery SpectrallySelectedSuppression SpectrallySelectedExcitation
        SpatialPresaturation Tagging TagAngleFirstAxis TagSpacingFirstDimension TagThickness OversamplingPhase
        GeometryOfKSpaceTraversal SegmentedKSpaceTraversal RectilinearPhaseEncodeReordering CoverageOfKSpace
        NumberOfKSpaceTrajectories KSpaceFiltering TimeDomainFiltering PartialFourier PartialFourierDirection
        ParallelAcquisition ParallelAcquisitionTechnique ParallelReductionFactorInPlane
        ParallelReductionFactorOutOfPlane ParallelReductionFactorSecondInPlane MRAcquisitionFrequencyEncodingSteps
        MRAcquisitionPhaseEncodingStepsInPlane MRAcquisitionPhaseEncodingStepsOutOfPlane ResonantNucleus
        TransmitterFrequency ReceiveCoilType QuadratureReceiveCoil MultiCoilElementUsed TransmitCoilType
        MagnetizationTransfer T2Preparation BloodSignalNulling FlowCompensation FlowCompensationDirection
        ChemicalShiftReference WaterReferencedPhaseCorrection FrequencyCorrection Decoupling DecoupledNucleus
        DecouplingMethod ApplicableSafetyStandardAgency OperatingMode OperatingModeType GradientOutput
        GradientOutputType SpecificAbsorptionRateDefinition SpecificAbsorptionRateValue
        CardiacSynchronizationTechnique BulkMotionCompensationTechnique RespiratoryMotionCompensationTechnique
        VelocityEncodingDirection VelocityEncodingMinimumValue DiffusionBValue DiffusionGradientOrientation
        MRSpectroscopyAcquisitionType""",
    ),
    _rule(
        Action.KEEP,
        "codes of known schemes, and numbers of our reports",
        """CodeValue CodingSchemeDesignator CodingSchemeVersion MappingResource ContextGroupExtensionFlag
        TemplateIdentifier ValueType RelationshipType ContinuityOfContent NumericValue FloatingPointValue""",
    ),
    _rule(
        Action.ITEMS,
        "hold what is above",
        """SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence PlanePositionSequence
        PlaneOrientationSequence FrameContentSequence FrameAnatomySequence FrameVOILUTSequence
        PixelValueTransformationSequence RealWorldValueMappingSequence QuantityDefinitionSequence
        MeasurementUnitsCodeSequence DimensionOrganizationSequence DimensionIndexSequence AnatomicRegionSequence
        AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence MREchoSequence MRAveragesSequence
        MRFOVGeometrySequence MRImageFrameTypeSequence MRImagingModifierSequence MRModifierSequence
        MRReceiveCoilSequence MultiCoilDefinitionSequence MRTransmitCoilSequence MRTimingAndRelatedParametersSequence
        OperatingModeSequence SpecificAbsorptionRateSequence CardiacSynchronizationSequence
        UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence ModalityLUTSequence
        VOILUTSequence ReferencedImageSequence SourceImageSequence ReferencedSeriesSequence ReferencedInstanceSequence
        ReferencedSOPSequence ReferencedImageEvidenceSequence SourceInstanceSequence DerivationImageSequence
        DerivationCodeSequence PurposeOfReferenceCodeSequence ContributingEquipmentSequence SegmentSequence
        SegmentIdentificationSequence SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
        SegmentationAlgorithmIdentificationSequence AlgorithmFamilyCodeSequence ParametricMapFrameTypeSequence
        DeformableRegistrationSequence DeformableRegistrationGridSequence PreDeformationMatrixRegistrationSequence
        PostDeformationMatrixRegistrationSequence MatrixRegistrationSequence MatrixSequence RegistrationTypeCodeSequence
        CodingSchemeIdentificationSequence CurrentRequestedProcedureEvidenceSequence PerformedProcedureCodeSequence
        ContentTemplateSequence ConceptNameCodeSequence ConceptCodeSequence MeasuredValueSequence
        StudiesContainingOtherReferencedInstancesSequence""",
    ),
    _rule(Action.CONTENT, "the measurements", "ContentSequence"),
    _rule(Action.PIXELS, "the images", "PixelData FloatPixelData DoubleFloatPixelData EncapsulatedDocument"),
)


#: Attributes of a text VR that are kept, or whose values are the same everywhere, with the only form that is kept.
FORMS: Mapping[str, str] = {
    "StackID": r"[0-9]{1,4}",
    "ImagedNucleus": r"[0-9]{0,3}[A-Z]{1,2}",
    "BodyPartExamined": r"[LTCS]{0,3}[ -]?SPINE|LUMBAR ?(SPINE)?|ABDOMEN|PELVIS|HEAD|BRAIN|NECK|KNEE|HIP|PHANTOM",
    "MIMETypeOfEncapsulatedDocument": r"application/pdf",
    "AlgorithmVersion": r"[0-9a-f]{8,64}|[0-9]{1,3}(\.[0-9]{1,3}){0,3}",
    "CodingSchemeVersion": r"[0-9]{1,3}(\.[0-9]{1,3})?|20[0-9]{6}",
    "CodeValue": r"[\x21-\x7e]{1,16}",  # and as its scheme has it
    "CodingSchemeDesignator": r"DCM|SCT|SRT|SNM3|LN|UCUM|RFC5646|99DISCNODE",
    "TimezoneOffsetFromUTC": r"[+-][0-9]{4}",
}
#: Type 1 attributes: where nothing of the text may stay, this stands.
NOTHING_LEFT = "removed"


def action_of(tag: int) -> Action | None:
    """What is done with a standard attribute; None: it is removed."""
    return _BY_TAG.get(tag)


def _by_tag() -> dict[int, Action]:
    found: dict[int, Action] = {}
    for rule in RULES:
        for keyword in rule.keywords:
            tag = tag_for_keyword(keyword)
            if tag is None or tag in found:
                raise ValueError(f"{keyword}: no keyword of DICOM, or twice in the rules")
            found[tag] = rule.action
    return found


_BY_TAG = _by_tag()
