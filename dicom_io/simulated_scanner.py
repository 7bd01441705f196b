"""A scanner that is not there: phantom exams as the DICOM files a GE research scanner would write.

GE research MAPSS has no standard place for a spin-lock time: it stands in EchoTime (0018,0081), one value for each
EchoNumbers, images of a slice next to each other. Every file says that it is simulated and for research use only.
"""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from processing.phantom import PhantomExam
from processing.results import ImageVolume

VENDORS = ("ge",)

_FIRST_VISIT = date(2026, 1, 12)
_BETWEEN_VISITS = timedelta(days=182)
_STORED_MAXIMUM = 16_000  # leaves two bits of a 16-bit pixel, as scanners do
_COMMENT = "SIMULATED PHANTOM - RESEARCH USE ONLY"


@dataclass(frozen=True, slots=True)
class _Sequence:
    """How a series was acquired, in DICOM terms."""

    number: int
    description: str
    scanning_sequence: str
    sequence_variant: str
    scan_options: str
    acquisition_type: str
    repetition_time_ms: float
    echo_train_length: int
    flip_angle_deg: float
    acquired: tuple[int, int]  # frequency (rows), phase (columns)
    ge_sequence_name: str


_MAPSS = _Sequence(3, "MAPSS T1rho T2", "GR", "SP", "FS", "3D", 5.2, 1, 60.0, (256, 128), "mapss")
_T1RHO_FSE = _Sequence(3, "T1rho FSE", "SE", "SK", "", "2D", 2000.0, 16, 90.0, (256, 192), "t1rho_fse")
_T2_FSE = _Sequence(2, "SAG T2 FSE", "SE", "SK", "", "2D", 3500.0, 16, 111.0, (320, 224), "fse")


@dataclass(frozen=True, slots=True)
class _Study:
    """What all images of a visit share. ``digest`` identifies the images: other pixels, other UIDs."""

    subject: str
    visit: int
    digest: str
    slice_thickness_mm: float
    body_part: str = "LSPINE"

    def uid(self, *role: object) -> UID:
        """A UID (2.25, PS3.5 B.2) that depends on the study and the role, and on nothing else."""
        name = "/".join(str(part) for part in ("discnode", self.subject, self.visit, self.digest, *role))
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")

    @property
    def day(self) -> str:
        """Study date, DICOM format."""
        return (_FIRST_VISIT + (self.visit - 1) * _BETWEEN_VISITS).strftime("%Y%m%d")


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """One image of a series: its pixels, where it lies and what it was prepared with."""

    slice_index: int
    echo_number: int
    echo_time_ms: float
    pixels: npt.NDArray[np.uint16]


def write_exam(exam: PhantomExam, folder: Path, *, vendor: str = "ge") -> list[Path]:
    """Write an exam as DICOM: the relaxometry series and the T2 FSE anatomy, classic MR Image Storage.

    Args:
        exam: the simulated visit; its subject becomes the PatientID.
        folder: gets one subfolder for each series.
        vendor: whose headers to imitate; only ``ge``.

    Returns:
        The files written, in the order of acquisition: anatomy first, then relaxometry by slice and echo.

    Raises:
        ValueError: a vendor that is not simulated.
    """
    if vendor not in VENDORS:
        raise ValueError(f"vendor {vendor!r} is not simulated; there is: {', '.join(VENDORS)}")
    study = _Study(exam.subject, exam.visit, _digest(exam.signal, exam.anatomy_image.array), exam.slice_thickness_mm)
    sequence = _MAPSS if exam.protocol == "mapss" else _T1RHO_FSE
    stored = _stored(exam.signal)
    images = [
        _Image(k, echo + 1, time_ms, stored[echo, k])
        for k in range(stored.shape[1])
        for echo, time_ms in enumerate(exam.times_ms)  # GE: echoes of one slice next to each other
    ]
    written = _write_series(_stack_images(exam.anatomy_image), exam.anatomy_image.affine, _T2_FSE, study, folder)
    return written + _write_series(images, exam.affine, sequence, study, folder)


def write_slice_stack(
    volume: ImageVolume,
    folder: Path,
    *,
    series_description: str = "SAG T2 FSE",
    subject: str = "STACK-001",
    visit: int = 1,
    slice_thickness_mm: float | None = None,
) -> list[Path]:
    """Write any stack of slices as a T2 FSE series with one image for each slice, e.g. real images without headers.

    Args:
        volume: non-negative signal (slices, rows, columns) and its affine.
        folder: gets one subfolder for the series.
        series_description: what the series calls itself.
        subject: PatientID.
        visit: number of the visit, sets the study date.
        slice_thickness_mm: default: the distance of slices.

    Raises:
        ValueError: negative or non-finite signal, which the stored unsigned pixels cannot hold.
    """
    spacing_mm = float(np.linalg.norm(volume.affine[:3, 0]))
    study = _Study(subject, visit, _digest(volume.array), slice_thickness_mm or spacing_mm)
    fields = {name: getattr(_T2_FSE, name) for name in _Sequence.__slots__} | {"description": series_description}
    return _write_series(_stack_images(volume), volume.affine, _Sequence(**fields), study, folder)


def write_truth(exam: PhantomExam, path: Path) -> None:
    """Write the truth (.npz) on the native grid: labels, t1rho_ms, t2_ms (slices, rows, columns), affine (LPS mm)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        labels=exam.labels,
        t1rho_ms=exam.t1rho_ms,
        t2_ms=exam.t2_ms,
        affine=exam.affine,
        upper_labels=exam.upper_labels,
        classes=exam.classes,
        grades=np.array(exam.grades, dtype=np.uint8),
    )


def _write_series(
    images: list[_Image], affine: npt.NDArray[np.float64], sequence: _Sequence, study: _Study, folder: Path
) -> list[Path]:
    target = folder / f"series-{sequence.number:03d}"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for instance_number, dataset in enumerate(_datasets(images, affine, sequence, study), start=1):
        path = target / f"MR{instance_number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _datasets(
    images: list[_Image], affine: npt.NDArray[np.float64], sequence: _Sequence, study: _Study
) -> Iterator[Dataset]:
    """The datasets of a series, in the order of InstanceNumber."""
    n_echoes = max(image.echo_number for image in images)
    maximum = max(int(image.pixels.max()) for image in images)
    for number, image in enumerate(images, start=1):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = study.uid("image", sequence.number, number)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        _describe_study(dataset, study)
        _describe_series(dataset, study, sequence, len(images), n_echoes)
        dataset.InstanceNumber = number
        dataset.EchoNumbers = image.echo_number
        dataset.EchoTime = _decimal(image.echo_time_ms)
        _place(dataset, affine, image.slice_index, study.slice_thickness_mm)
        _set_pixels(dataset, image.pixels, maximum)
        yield dataset


def _describe_study(dataset: Dataset, study: _Study) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"PHANTOM^{study.subject}"
    dataset.PatientID = study.subject
    dataset.PatientBirthDate = "19800101"
    dataset.PatientSex = "O"
    dataset.PatientAge = "046Y"
    dataset.PatientWeight = "70"
    dataset.StudyInstanceUID = study.uid("study")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = study.day
    dataset.StudyTime = "100000"
    dataset.StudyID = f"{study.visit}"
    dataset.StudyDescription = "LUMBAR SPINE SIMULATED"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.FrameOfReferenceUID = study.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    dataset.ManufacturerModelName = "DISCOVERY MR750 (SIMULATED)"
    dataset.InstitutionName = "discnode simulated scanner"
    dataset.StationName = "SIMULATED"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "simulated"
    dataset.MagneticFieldStrength = "3"


def _describe_series(dataset: Dataset, study: _Study, sequence: _Sequence, n_images: int, n_echoes: int) -> None:
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = study.uid("series", sequence.number, sequence.description)
    dataset.SeriesNumber = sequence.number
    dataset.SeriesDescription = sequence.description
    dataset.ProtocolName = "LUMBAR SPINE RESEARCH"
    # PS3.3 C.7.3.1: Laterality stands only for paired body parts; the lumbar spine is none.
    dataset.BodyPartExamined = study.body_part
    dataset.PatientPosition = "HFS"
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = f"10{sequence.number:02d}00"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ImageComments = _COMMENT
    dataset.BurnedInAnnotation = "NO"
    dataset.AcquisitionNumber = 1
    dataset.ImagesInAcquisition = n_images
    dataset.ScanningSequence = sequence.scanning_sequence
    dataset.SequenceVariant = sequence.sequence_variant
    dataset.ScanOptions = sequence.scan_options
    dataset.MRAcquisitionType = sequence.acquisition_type
    dataset.SequenceName = sequence.ge_sequence_name
    dataset.RepetitionTime = _decimal(sequence.repetition_time_ms)
    dataset.EchoTrainLength = sequence.echo_train_length
    dataset.FlipAngle = _decimal(sequence.flip_angle_deg)
    dataset.NumberOfAverages = "1"
    dataset.ImagingFrequency = "127.76"
    dataset.ImagedNucleus = "1H"
    dataset.PixelBandwidth = "244.141"
    # Frequency runs along the columns of pixels (superior-inferior), phase along a row (anterior-posterior).
    dataset.InPlanePhaseEncodingDirection = "ROW"
    dataset.AcquisitionMatrix = [sequence.acquired[0], 0, 0, sequence.acquired[1]]
    private = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    private.add_new(0x7E, "SS", n_echoes)
    private.add_new(0x9C, "LO", sequence.ge_sequence_name)


def _place(dataset: Dataset, affine: npt.NDArray[np.float64], slice_index: int, thickness_mm: float) -> None:
    """Image plane (PS3.3 C.7.6.2): the position is that of the centre of the first pixel."""
    row_spacing, column_spacing = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2))
    along_row, along_column = affine[:3, 2] / column_spacing, affine[:3, 1] / row_spacing
    position = affine[:3, 3] + slice_index * affine[:3, 0]
    dataset.ImageOrientationPatient = [_decimal(value) for value in (*along_row, *along_column)]
    dataset.ImagePositionPatient = [_decimal(value) for value in position]
    dataset.SliceLocation = _decimal(float(position @ np.cross(along_row, along_column)))
    dataset.PixelSpacing = [_decimal(row_spacing), _decimal(column_spacing)]
    dataset.SliceThickness = _decimal(thickness_mm)
    dataset.SpacingBetweenSlices = _decimal(float(np.linalg.norm(affine[:3, 0])))


def _set_pixels(dataset: Dataset, pixels: npt.NDArray[np.uint16], maximum: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = str(maximum // 4)
    dataset.WindowWidth = str(max(maximum // 2, 1))
    dataset.PixelData = pixels.astype("<u2").tobytes()


def _stack_images(volume: ImageVolume) -> list[_Image]:
    stored = _stored(volume.array)
    return [_Image(k, 1, 95.0, pixels) for k, pixels in enumerate(stored)]


def _stored(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Signal as stored pixel values: one scale for the whole series, so that its echoes stay comparable."""
    if not np.isfinite(signal).all() or signal.min() < 0:
        raise ValueError("signal must be finite and not negative to be stored as unsigned pixels")
    maximum = float(signal.max())
    scale = _STORED_MAXIMUM / maximum if maximum > 0 else 1.0
    pixels: npt.NDArray[np.uint16] = np.rint(signal * scale).astype(np.uint16)
    return pixels


def _digest(*arrays: npt.NDArray[np.float32]) -> str:
    state = hashlib.sha256()
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _decimal(value: float) -> str:
    """A Decimal String (at most 16 characters), without a negative zero."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
