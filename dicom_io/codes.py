"""The coded concepts of discnode's outputs. Codes of SCT, DCM and LN are those of pydicom's tables of PS3.16."""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_io.uids import derived_uid
from processing.results import Level, Quantity, Region
from processing.visits import ChangeVerdict

#: Private scheme, for what PS3.16 has no code: T1rho and the parts of a disc.
PRIVATE_SCHEME = "99DISCNODE"
PRIVATE_SCHEME_UID: UID = derived_uid("coding scheme", PRIVATE_SCHEME)

#: CID 7604 Intervertebral Disc. L5/S1 is 715056000, not 75782005 (not in the CID).
DISC_CODES: dict[Level, Code] = {
    Level.L5S1: Code("715056000", "SCT", "L5/S1 disc"),
    Level.L4L5: Code("84020006", "SCT", "L4/L5 disc"),
    Level.L3L4: Code("62551000", "SCT", "L3/L4 disc"),
    Level.L2L3: Code("67459009", "SCT", "L2/L3 disc"),
    Level.L1L2: Code("80064006", "SCT", "L1/L2 disc"),
    Level.T12L1: Code("76206002", "SCT", "T12/L1 disc"),
}
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")  # CID 7150
LUMBAR_SPINE = Code("122496007", "SCT", "Lumbar spine")  # CID 4031

#: CID 7180 has T2; no table of PS3.16 has T1rho.
QUANTITY_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO", PRIVATE_SCHEME, "T1rho relaxation time"),
    Quantity.T2: Code("113065", "DCM", "T2"),
}
#: Of a fit, beside the time itself; no table of PS3.16 has them.
STANDARD_ERROR_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_SE", PRIVATE_SCHEME, "Standard error of T1rho"),
    Quantity.T2: Code("T2_SE", PRIVATE_SCHEME, "Standard error of T2"),
}
RESIDUAL_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_RESIDUAL", PRIVATE_SCHEME, "RMS residual of the T1rho fit"),
    Quantity.T2: Code("T2_RESIDUAL", PRIVATE_SCHEME, "RMS residual of the T2 fit"),
}
REGION_CODES: dict[Region, Code] = {
    Region.NUCLEUS: Code("NUCLEUS", PRIVATE_SCHEME, "Nucleus pulposus"),
    Region.ANTERIOR_ANNULUS: Code("ANTANN", PRIVATE_SCHEME, "Anterior annulus fibrosus"),
    Region.POSTERIOR_ANNULUS: Code("POSTANN", PRIVATE_SCHEME, "Posterior annulus fibrosus"),
}
#: A count is its own concept for each quantity: a voxel may have a T2 and no T1rho.
VOXELS_USED: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_USED", PRIVATE_SCHEME, "Voxels with a T1rho"),
    Quantity.T2: Code("T2_USED", PRIVATE_SCHEME, "Voxels with a T2"),
}
VOXELS_EXCLUDED: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_EXCLUDED", PRIVATE_SCHEME, "Voxels excluded from T1rho"),
    Quantity.T2: Code("T2_EXCLUDED", PRIVATE_SCHEME, "Voxels excluded from T2"),
}
#: Of a change since the baseline visit; no table of PS3.16 has them. The limits are those of measurement error.
CHANGE_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_CHANGE", PRIVATE_SCHEME, "Change of T1rho since baseline"),
    Quantity.T2: Code("T2_CHANGE", PRIVATE_SCHEME, "Change of T2 since baseline"),
}
LOWER_LIMIT_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_CHG_LOW", PRIVATE_SCHEME, "Lower limit of measurement error, change of T1rho"),
    Quantity.T2: Code("T2_CHG_LOW", PRIVATE_SCHEME, "Lower limit of measurement error, change of T2"),
}
UPPER_LIMIT_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_CHG_HIGH", PRIVATE_SCHEME, "Upper limit of measurement error, change of T1rho"),
    Quantity.T2: Code("T2_CHG_HIGH", PRIVATE_SCHEME, "Upper limit of measurement error, change of T2"),
}
ASSESSMENT_CODES: dict[Quantity, Code] = {
    Quantity.T1RHO: Code("T1RHO_ASSESSED", PRIVATE_SCHEME, "Assessment of the change of T1rho"),
    Quantity.T2: Code("T2_ASSESSED", PRIVATE_SCHEME, "Assessment of the change of T2"),
}
VERDICT_CODES: dict[ChangeVerdict, Code] = {
    ChangeVerdict.DECREASE: Code("DECREASE", PRIVATE_SCHEME, "Decrease beyond measurement error"),
    ChangeVerdict.WITHIN: Code("WITHIN", PRIVATE_SCHEME, "Within measurement error"),
    ChangeVerdict.INCREASE: Code("INCREASE", PRIVATE_SCHEME, "Increase beyond measurement error"),
    ChangeVerdict.NOT_COMPARABLE: Code("NOT_COMPARABLE", PRIVATE_SCHEME, "Not comparable with baseline"),
    ChangeVerdict.NOT_EVALUABLE: Code("NOT_EVALUABLE", PRIVATE_SCHEME, "Not evaluable"),
    ChangeVerdict.MISSING: Code("NO_SCAN", PRIVATE_SCHEME, "No scan"),
}
BASELINE_TIME_POINT = Code("C1442488", "UMLS", "Baseline")  # CID 6146
POST_BASELINE_TIME_POINT = Code("FOLLOW_UP", PRIVATE_SCHEME, "Visit after baseline")
BASELINE_EVENT = Code("121079", "DCM", "Baseline")  # CID 280
DAY = Code("d", "UCUM", "day")
MEAN = Code("373098007", "SCT", "Mean")  # CID 7464
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MEDIAN = Code("373099004", "SCT", "Median")
VOLUME = Code("118565006", "SCT", "Volume")
SUM_OF_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
MILLISECOND = Code("ms", "UCUM", "millisecond")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
ARBITRARY_UNIT = Code("[arb'U]", "UCUM", "arbitrary unit")
COUNT = Code("1", "UCUM", "no units")

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
RELAXOMETRY_FIT = Code("RELAXFIT", PRIVATE_SCHEME, "Fit of relaxation times")  # none in CID 7203
EXTRACTED_IMAGES = Code("113091", "DCM", "Spatially-related frames extracted from the volume")
IMAGE_CONTENT_ALIGNMENT = Code("125024", "DCM", "Image Content-based Alignment")  # CID 7100
SPATIAL_RESAMPLING = Code("113085", "DCM", "Spatial resampling")  # CID 7203
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")  # CID 7005
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
COMMENT = Code("121106", "DCM", "Comment")
DEVICE_OBSERVER = Code("121007", "DCM", "Device")  # CID 270
MRI_SPINE_REPORT = Code("18756-7", "LN", "MRI Spine Report")  # CID 7000
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
MAGNETIC_RESONANCE_IMAGING = Code("113091000", "SCT", "Magnetic resonance imaging")


def private_scheme() -> CodingSchemeIdentificationItem:
    """The item of Coding Scheme Identification Sequence (PS3.3 C.12.1.1.1) that says whose 99DISCNODE is."""
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="discnode private codes",
        version="1",
        uid=PRIVATE_SCHEME_UID,
        responsible_organization="discnode",
    )


def code_item(code: Code) -> Dataset:
    """A code as an item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
