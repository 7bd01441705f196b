"""What every simulated scanner writes from: a visit, its pulse sequences, and series of images ready to be stored.

A vendor's module says which series an exam becomes, in which order, with which times and scales; ``simulated_classic``
and ``simulated_enhanced`` turn a series into objects.
"""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io.simulated_appointment import USUAL_APPOINTMENT, Appointment, describe_patient
from processing.phantom import PhantomExam
from processing.results import Affine, FloatArray, ImageVolume, Quantity

COMMENT = "SIMULATED PHANTOM - RESEARCH USE ONLY"


@dataclass(frozen=True, slots=True)
class Scanner:
    """Who claims to have written the files. ``bits_stored`` of the 16 allocated."""

    manufacturer: str
    model: str
    software_versions: tuple[str, ...]
    serial_number: str
    protocol_name: str
    bits_stored: int


@dataclass(frozen=True, slots=True)
class PulseSequence:
    """How a series was acquired, in DICOM terms. ``acquired``: frequency steps (rows), phase steps (columns).

    ``echo_time_ms`` is that of the read-out, which is the same however the magnetisation was prepared before it.
    """

    scanning_sequence: str
    sequence_variant: str
    scan_options: str
    acquisition_type: str
    repetition_time_ms: float
    echo_time_ms: float
    echo_train_length: int
    flip_angle_deg: float
    acquired: tuple[int, int]


MAPSS = PulseSequence("GR", "SP", "FS", "3D", 5.2, 2.1, 1, 60.0, (256, 128))
T1RHO_FSE = PulseSequence("SE", "SK", "", "2D", 2000.0, 12.0, 16, 90.0, (256, 192))
T2_FSE = PulseSequence("SE", "SK", "", "2D", 3500.0, 95.0, 16, 111.0, (320, 224))


@dataclass(frozen=True, slots=True)
class Study:
    """What all images of a visit share. ``digest`` and ``flavour``: other pixels or another scanner, other UIDs."""

    subject: str
    visit: int
    digest: str
    slice_thickness_mm: float
    flavour: str = ""
    body_part: str = "LSPINE"
    appointment: Appointment = USUAL_APPOINTMENT

    def uid(self, *role: object) -> UID:
        """A UID (2.25, PS3.5 B.2) that depends on the study and the role, and on nothing else."""
        named = ("discnode", self.subject, self.visit, self.digest, *filter(None, (self.flavour,)), *role)
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(str(part) for part in named)).int}")

    @property
    def day(self) -> str:
        """Study date, DICOM format."""
        return self.appointment.starts(self.visit).strftime("%Y%m%d")

    @property
    def began(self) -> str:
        """Study time, DICOM format."""
        return self.appointment.starts(self.visit).strftime("%H%M%S")

    def clock(self, series: "Series") -> tuple[str, str]:
        """Date and time at which a series began, DICOM format: a scan may go on past midnight."""
        moment = self.appointment.starts(self.visit) + timedelta(minutes=series.minute)
        return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """One image as it will be stored: pixels (rows, columns), its slice, and what is written of its time and scale.

    ``time_index`` counts the times of its series from 0. None: the vendor writes no such attribute.
    """

    slice_index: int
    pixels: npt.NDArray[np.uint16]
    image_type: tuple[str, ...]
    echo_time_ms: float
    time_index: int = 0
    echo_number: int | None = None
    trigger_time_ms: float | None = None
    rescale_slope: float | None = None
    rescale_intercept: float = 0.0
    scale_slope: float | None = None
    t2_prepared: bool = False

    @property
    def is_phase(self) -> bool:
        """Whether the pixels are phase, not magnitude."""
        return "P" in self.image_type


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Images in the order of InstanceNumber, on the grid of ``affine`` (index of slice, row, column -> LPS mm)."""

    number: int
    minute: int  # when it began, in minutes after the study
    description: str
    sequence: PulseSequence
    images: tuple[StoredImage, ...]
    affine: Affine


def stored_at_one_scale(signal: FloatArray, maximum: int) -> npt.NDArray[np.uint16]:
    """Signal as stored pixel values up to ``maximum``: one scale for all, so that echoes stay comparable.

    Raises:
        ValueError: negative or non-finite signal, which unsigned pixels cannot hold.
    """
    check_storable(signal)
    largest = float(signal.max())
    scale = maximum / largest if largest > 0 else 1.0
    pixels: npt.NDArray[np.uint16] = np.rint(signal * scale).astype(np.uint16)
    return pixels


def check_storable(signal: FloatArray) -> None:
    """Raises ValueError where signal is negative or not finite."""
    if not np.isfinite(signal).all() or signal.min() < 0:
        raise ValueError("signal must be finite and not negative to be stored as unsigned pixels")


def preparations(exam: PhantomExam, quantity: Quantity) -> list[int]:
    """Indices of the exam's images that belong to one decay, the shared one without preparation first."""
    return [index for index, what in enumerate(exam.quantities) if what in (None, quantity)]


def relaxometry_sequence(exam: PhantomExam) -> PulseSequence:
    """The pulse sequence of an exam's echoes."""
    return MAPSS if exam.protocol == "mapss" else T1RHO_FSE


def study_of(exam: PhantomExam, flavour: str, appointment: Appointment = USUAL_APPOINTMENT) -> Study:
    """The visit, with UIDs that depend on its images and on whose headers they get."""
    digest = digest_of(exam.signal, exam.anatomy_image.array)
    flavour = ", ".join(filter(None, (flavour, appointment.flavour)))
    return Study(exam.subject, exam.visit, digest, exam.slice_thickness_mm, flavour, appointment=appointment)


def stack_images(volume: ImageVolume, maximum: int, image_type: tuple[str, ...]) -> tuple[StoredImage, ...]:
    """One image for each slice of a volume, as T2 FSE, without any scaling."""
    stored = stored_at_one_scale(volume.array, maximum)
    return tuple(StoredImage(k, pixels, image_type, T2_FSE.echo_time_ms) for k, pixels in enumerate(stored))


def digest_of(*arrays: FloatArray) -> str:
    """SHA-256 over the values of arrays."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def decimal(value: float) -> str:
    """A Decimal String (at most 16 characters), six decimals, without a negative zero."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def describe_study(dataset: Dataset, study: Study, scanner: Scanner) -> None:
    """Patient, study, frame of reference and equipment: the same in classic and in Enhanced MR."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    describe_patient(dataset, study.appointment, study.subject)
    dataset.StudyInstanceUID = study.uid("study")
    dataset.StudyDate, dataset.StudyTime = study.day, study.began
    dataset.StudyID = f"{study.visit}"
    dataset.StudyDescription = "LUMBAR SPINE SIMULATED"
    dataset.ReferringPhysicianName = ""
    dataset.FrameOfReferenceUID = study.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = scanner.manufacturer
    dataset.ManufacturerModelName = f"{scanner.model} (SIMULATED)"
    dataset.InstitutionName = "discnode simulated scanner"
    dataset.StationName = "SIMULATED"
    dataset.DeviceSerialNumber = study.appointment.serial_number or scanner.serial_number
    dataset.SoftwareVersions = list(study.appointment.software_versions or scanner.software_versions)
    dataset.MagneticFieldStrength = "3"


def describe_series(dataset: Dataset, study: Study, scanner: Scanner, series: Series) -> None:
    """What names a series, the same in classic and in Enhanced MR."""
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = study.uid("series", series.number, series.description)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.ProtocolName = scanner.protocol_name
    # PS3.3 C.7.3.1: Laterality stands only for paired body parts; the lumbar spine is none.
    dataset.BodyPartExamined = study.body_part
    dataset.PatientPosition = "HFS"
    dataset.SeriesDate, dataset.SeriesTime = dataset.ContentDate, dataset.ContentTime = study.clock(series)
    dataset.ImageComments = COMMENT
    dataset.BurnedInAnnotation = "NO"
    dataset.AcquisitionNumber = 1


@dataclass(frozen=True, slots=True)
class Plane:
    """Where an image lies (PS3.3 C.7.6.2), in Decimal Strings; its position is that of the first pixel's centre."""

    orientation: list[str]
    position: list[str]
    slice_location: str
    pixel_spacing: list[str]
    spacing_between_slices: str

    @classmethod
    def of(cls, affine: Affine, slice_index: int) -> "Plane":
        """The plane of one slice of a grid."""
        row_spacing, column_spacing = (float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2))
        along_row, along_column = affine[:3, 2] / column_spacing, affine[:3, 1] / row_spacing
        position = affine[:3, 3] + slice_index * affine[:3, 0]
        return cls(
            orientation=[decimal(value) for value in (*along_row, *along_column)],
            position=[decimal(value) for value in position],
            slice_location=decimal(float(position @ np.cross(along_row, along_column))),
            pixel_spacing=[decimal(row_spacing), decimal(column_spacing)],
            spacing_between_slices=decimal(float(np.linalg.norm(affine[:3, 0]))),
        )
