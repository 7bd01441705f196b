"""A small, asymmetric exam with known values: headers as a scanner writes them, and the result of an analysis of them.

Nothing about it is symmetric: discs lie off centre in every direction, each has its own size and its own values per
voxel, and rows, columns and slices differ in number and spacing, so that any flip or swap of axes is seen.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from scipy.spatial.transform import Rotation

from dicom_io.sources import SourceExam
from dicom_io.volume_reader import ExamImages, MeasuredScan
from processing.refusal import Reason, ReasonCode
from processing.results import (
    Alignment,
    AtlasDisc,
    DiscConfidence,
    DiscMask,
    DiscMeasurement,
    EchoMotion,
    ExamResult,
    ImageVolume,
    Level,
    Quantity,
    Region,
    RegisteredDisc,
    RelaxationMap,
    Verdict,
)

SHAPE = (7, 96, 80)
SPACING_MM = (4.0, 1.5, 1.25)
FIRST_POSITION_MM = (17.0, -41.0, 63.0)
STRAIGHT = np.eye(3)
#: Oblique about all three axes, about as a technologist tilts a sagittal stack.
OBLIQUE = Rotation.from_euler("xyz", (7, -11, 5), degrees=True).as_matrix()
TIMES_MS = {Quantity.T1RHO: (0.0, 10.0, 40.0, 80.0), Quantity.T2: (0.0, 12.8, 25.7, 51.4)}
PRODUCED_AT = datetime(2026, 3, 14, 9, 26, 53, 589793, UTC)
STUDY_UID, SERIES_UID, FRAME_UID = "1.2.826.0.1.3680043.10.1", "1.2.826.0.1.3680043.10.1.1", "1.2.826.0.1.3680043.10.2"


def affine(rotation: np.ndarray = STRAIGHT) -> np.ndarray:
    """Sagittal: slices to the right, rows to inferior, columns to posterior; then rotated about the first voxel."""
    matrix = np.eye(4)
    matrix[:3, 0] = (-SPACING_MM[0], 0, 0)
    matrix[:3, 1] = (0, 0, -SPACING_MM[1])
    matrix[:3, 2] = (0, SPACING_MM[2], 0)
    matrix[:3, :3] = rotation @ matrix[:3, :3]
    matrix[:3, 3] = FIRST_POSITION_MM
    return matrix


def header(slice_index: int, time_ms: float, number: int, rotation: np.ndarray = STRAIGHT) -> Dataset:
    """One MR image's header, valid in dciodvfy's eyes once it has pixels."""
    grid = affine(rotation)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = MRImageStorage
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{SERIES_UID}.{number}"
    image.StudyDate, image.SeriesDate, image.AcquisitionDate, image.ContentDate = ("20260313",) * 4
    image.StudyTime, image.SeriesTime, image.AcquisitionTime, image.ContentTime = ("083000",) * 4
    image.AccessionNumber = "A-4711"
    image.Modality = "MR"
    image.Manufacturer = "GE MEDICAL SYSTEMS"
    image.ManufacturerModelName = "DISCOVERY MR750w"
    image.DeviceSerialNumber, image.SoftwareVersions, image.StationName = "0000301234", "DV26.0", "MR3"
    image.ReferringPhysicianName = "Müller^Jörg"
    image.StudyDescription, image.SeriesDescription = "MR LSPINE", "3D MAPSS"
    image.PatientName, image.PatientID, image.IssuerOfPatientID = "Ångström^Åsa", "P-0815", "HOSPITAL"
    image.PatientBirthDate, image.PatientSex, image.PatientAge, image.PatientWeight = "19790512", "F", "046Y", "61.5"
    image.ClinicalTrialSponsorName, image.ClinicalTrialProtocolID = "Sponsor", "DISC-1"
    image.ClinicalTrialProtocolName, image.ClinicalTrialSiteID, image.ClinicalTrialSiteName = "Disc trial", "07", ""
    image.ClinicalTrialSubjectID, image.ClinicalTrialTimePointID = "S-0042", "V2"
    image.ClinicalTrialCoordinatingCenterName = "Core lab"
    image.BodyPartExamined = "LSPINE"
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = "GR", "SP", "", "3D"
    image.SliceThickness = SPACING_MM[0]
    image.RepetitionTime, image.EchoTime, image.EchoTrainLength, image.FlipAngle = "5.2", time_ms, 1, "60"
    image.MagneticFieldStrength = "3"
    image.SpacingBetweenSlices = SPACING_MM[0]
    image.PatientPosition = "HFS"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = STUDY_UID, SERIES_UID, FRAME_UID
    image.StudyID, image.SeriesNumber, image.InstanceNumber = "815", 4, number
    image.PositionReferenceIndicator = ""
    image.ImageOrientationPatient = _decimals([*grid[:3, 2] / SPACING_MM[2], *grid[:3, 1] / SPACING_MM[1]])
    image.ImagePositionPatient = _decimals(grid[:3, 3] + grid[:3, 0] * slice_index)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = SHAPE[1:]
    image.PixelSpacing = [SPACING_MM[1], SPACING_MM[2]]
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    return image


def _decimals(numbers: Iterable[float]) -> list[str]:
    """Decimal strings as scanners write them, at most 16 characters."""
    return [f"{number:.9f}" for number in numbers]


def source_exam(rotation: np.ndarray = STRAIGHT) -> SourceExam:
    """Seven slices at seven times, in one series."""
    times_ms = sorted({*TIMES_MS[Quantity.T1RHO], *TIMES_MS[Quantity.T2]})
    images = tuple(
        header(k, time_ms, 1 + k * len(times_ms) + echo, rotation)
        for k in range(SHAPE[0])
        for echo, time_ms in enumerate(times_ms)
    )
    grid = tuple(image for image in images if image.EchoTime == 0)
    return SourceExam(grid, images, affine(rotation))


def disc_levels(levels: tuple[Level, ...] = tuple(Level)[:5]) -> np.ndarray:
    """Tilted boxes, one a level, from below; each with its own size and place."""
    labels = np.zeros(SHAPE, np.uint8)
    for level in levels:
        row, column = 84 - 15 * (level - 1), 22 + 3 * level
        for offset in range(18 + level):
            top = row + offset // 6 - 3
            labels[1 + level % 2 : 6, top : top + 4 + level % 3, column + offset] = level
    return labels


def time_map(quantity: Quantity, labels: np.ndarray) -> np.ndarray:
    """Milliseconds that differ in every voxel of a disc; NaN outside and in one voxel of L4L5."""
    k, i, j = np.indices(SHAPE)
    base = 60.0 if quantity is Quantity.T1RHO else 40.0
    values = (base + 4 * k + 0.25 * i + 0.5 * j).astype(np.float32)
    values[labels == 0] = np.nan
    where = np.argwhere(labels == Level.L4L5)
    if len(where):
        values[tuple(where[0])] = np.nan
    return values


def _map(quantity: Quantity, labels: np.ndarray) -> RelaxationMap:
    values = time_map(quantity, labels)
    fitted = np.isfinite(values)
    error = np.where(fitted, values / 50 + 0.5, np.float32(np.nan)).astype(np.float32)
    return RelaxationMap(quantity, values, error, error * 100, error * 3, fitted.astype(np.uint8), affine())


def _measurements(labels: np.ndarray, maps: dict[Quantity, RelaxationMap]) -> tuple[DiscMeasurement, ...]:
    rows = []
    for level in Level:
        columns = np.argwhere(labels == level)[:, 2]
        if not len(columns):
            continue
        j = np.indices(SHAPE)[2]
        first, last = columns.min(), columns.max()
        parts = {
            Region.WHOLE_DISC: labels == level,
            Region.NUCLEUS: (labels == level) & (j > first + 6) & (j < last - 6),
            Region.ANTERIOR_ANNULUS: (labels == level) & (j <= first + 6),
            Region.POSTERIOR_ANNULUS: (labels == level) & (j >= last - 6),
        }
        for region, part in parts.items():
            for quantity, fitted in maps.items():
                values = fitted.time_ms[part]
                used = values[np.isfinite(values)].astype(np.float64)
                excluded = len(values) - len(used)
                rows.append(
                    DiscMeasurement(
                        level,
                        region,
                        quantity,
                        float(used.mean()),
                        float(used.std(ddof=1)),
                        float(np.median(used)),
                        len(used),
                        excluded,
                        {"NO_DECAY": excluded} if excluded else {},
                    )
                )
    return tuple(rows)


def atlas_disc(level: Level) -> AtlasDisc:
    """A small atlas disc whose size and parts differ from level to level; oriented as the shipped atlases."""
    mask = np.zeros((4, 8, 16 + level), np.uint8)
    mask[1:3, 1 : 4 + level // 2, 2 : 12 + level] = 1
    regions = mask.copy()
    regions[:, :, :6][mask[:, :, :6] > 0] = 2
    regions[:, :, 9:][mask[:, :, 9:] > 0] = 3
    grid = np.eye(4)
    grid[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]) * (4.0, 0.78125, 0.78125)
    grid[:3, 3] = -grid[:3, :3] @ np.argwhere(mask).mean(axis=0)
    return AtlasDisc(level, mask, regions, grid)


def _registered(level: Level) -> RegisteredDisc:
    atlas = atlas_disc(level)
    jacobian = np.ones(atlas.mask.shape, np.float32)
    alignment = Alignment(
        *(level, (1.0, 2.0, 3.0), (), jacobian, 0.9 + 0.01 * level, 0.7, 0.1 + 0.01 * level, 0.5, 0, "fast", 1, 2.0),
        sd_jacobian_bspline=0.08 + 0.01 * level,
        min_jacobian_bspline=0.6,
    )
    return RegisteredDisc(alignment, atlas, {quantity: _atlas_map(quantity, atlas) for quantity in Quantity})


def _atlas_map(quantity: Quantity, atlas: AtlasDisc) -> RelaxationMap:
    """Values that differ in every voxel; NaN outside and in one voxel of the disc."""
    k, i, j = np.indices(atlas.mask.shape)
    values = (10.0 * atlas.level + (60 if quantity is Quantity.T1RHO else 40) + k + i / 8 + j / 32).astype(np.float32)
    values[atlas.mask == 0] = np.nan
    values[tuple(np.argwhere(atlas.mask)[0])] = np.nan
    fitted = np.isfinite(values).astype(np.uint8)
    return RelaxationMap(quantity, values, values / 50, values * 100, values * 2, fitted, atlas.affine)


def exam_result(levels: tuple[Level, ...] = tuple(Level)[:5], *, with_maps: bool = True) -> ExamResult:
    """The result for :func:`source_exam`; without maps it is an exam of an anatomical series."""
    labels = disc_levels(levels)
    rng = np.random.default_rng(5)
    k, i, j = np.indices(SHAPE)
    anatomy = 300 + 200 * np.exp(-(((j - 60) / 8.0) ** 2)) + 60 * np.sin(i / 7.0) + 250 * (labels > 0)
    anatomy = (anatomy + rng.normal(0, 20, SHAPE) + 10 * k).astype(np.float32)
    maps = {quantity: _map(quantity, labels) for quantity in Quantity} if with_maps else {}
    confidence = tuple(DiscConfidence(level, 0.95, 0.2, False, int((labels == level).sum())) for level in levels)
    mask = DiscMask(
        labels,
        (labels > 0).astype(np.float32),
        (labels > 0).astype(np.uint8),
        affine(),
        confidence,
        "cfcm-lumbar",
        "ab" * 32,
    )
    voxel_mm3 = float(np.prod(SPACING_MM))
    return ExamResult(
        verdict=Verdict.NEEDS_REVIEW,
        reasons=(Reason(ReasonCode.REGISTRATION_POOR, "L1/L2: Dice 0.81 with the atlas disc, at least 0.85 expected"),),
        background=ImageVolume(anatomy, affine()),
        mask=mask,
        maps=maps,
        registered=tuple(_registered(level) for level in levels) if with_maps else (),
        measurements=_measurements(labels, maps),
        volumes_mm3={level: float((labels == level).sum() * voxel_mm3) for level in levels},
        times_ms=TIMES_MS if with_maps else {},
        timings_s={"segment": 3.2, "register": 20.1},
        versions={
            "discnode": "0.1.0",
            "settings_digest": "0123456789abcdef",
            "model": "cfcm-lumbar",
            "model_sha256": "ab" * 32,
            "protocol": "ge-mapss",
            "inference_provider": "CPUExecutionProvider",
            "atlas": "small",
            "atlas_sha256": "cd" * 32,
        },
        produced_at=PRODUCED_AT,
        motion=(
            EchoMotion(Quantity.T1RHO, 10.0, (40.0, 30.5), 0.25, -0.5, 0.75, 1.125, corrected=True),
            EchoMotion(Quantity.T2, 51.4, (40.0, 30.5), *[float("nan")] * 4),
        )
        if with_maps
        else (),
    )


def single_slice(result: ExamResult, source: SourceExam, k: int = 3) -> tuple[ExamResult, SourceExam]:
    """The exam as if only slice ``k`` had been acquired."""

    def cut(array: np.ndarray) -> np.ndarray:
        return array[k : k + 1]

    grid = source.affine.copy()
    grid[:3, 3] += k * grid[:3, 0]
    here = source.grid_instances[k]
    images = tuple(one for one in source.all_instances if one.ImagePositionPatient == here.ImagePositionPatient)
    mask = replace(result.mask, levels=cut(result.mask.levels), probability=cut(result.mask.probability), affine=grid)
    maps = {name: _cut_map(fitted, cut, grid) for name, fitted in result.maps.items()}
    background = ImageVolume(cut(result.background.array), grid)
    return replace(result, mask=mask, maps=maps, background=background), SourceExam((here,), images, grid)


def _cut_map(fitted: RelaxationMap, cut: Callable[[np.ndarray], np.ndarray], grid: np.ndarray) -> RelaxationMap:
    names = ("time_ms", "standard_error_ms", "s0", "residual_rms", "status")
    return replace(fitted, affine=grid, **{name: cut(getattr(fitted, name)) for name in names})


def exam_images(result: ExamResult) -> ExamImages:
    """What the volume reader gives, as far as the result files need it."""
    scan = MeasuredScan("ge-mapss", (SERIES_UID,), (Quantity.T1RHO, Quantity.T2))
    return ExamImages(result.background, (), (scan,), source_exam())
