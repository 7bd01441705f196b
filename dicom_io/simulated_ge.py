"""GE research MAPSS: one series, the images of a slice next to each other.

A spin-lock time has no standard place. It stands in EchoTime (0018,0081), one value for each EchoNumbers; some research
sequences write one EchoTime and EchoNumbers 1 into all images, and then only the order of acquisition tells.
"""

from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from dicom_io.simulated_series import (
    T2_FSE,
    PulseSequence,
    Scanner,
    Series,
    StoredImage,
    preparations,
    relaxometry_sequence,
    stack_images,
    stored_at_one_scale,
)
from processing.phantom import PhantomExam
from processing.results import ImageVolume, Quantity

GE = Scanner(
    manufacturer="GE MEDICAL SYSTEMS",
    model="DISCOVERY MR750",
    software_versions=("simulated",),
    serial_number="0",
    protocol_name="LUMBAR SPINE RESEARCH",
    bits_stored=16,
)
IMAGE_TYPE = ("ORIGINAL", "PRIMARY", "OTHER")
STORED_MAXIMUM = 16_000  # leaves two bits of a 16-bit pixel, as scanners do

_DESCRIPTIONS = {"mapss": "MAPSS T1rho T2", "t1rho-fse": "T1rho FSE"}
_SEQUENCE_NAMES = {"GR": "mapss", "SE": "t1rho_fse"}


def ge_series(exam: PhantomExam, *, one_echo_time: bool) -> list[Series]:
    """The series of an exam in the order of acquisition: T2 FSE, then the echoes.

    With ``one_echo_time`` the spin-locked images of a slice come first, then the T2-prepared ones, and nothing says so.
    """
    order: Sequence[int] = range(len(exam.times_ms))
    if one_echo_time:
        order = list(dict.fromkeys([*preparations(exam, Quantity.T1RHO), *preparations(exam, Quantity.T2)]))
    sequence = relaxometry_sequence(exam)
    stored = stored_at_one_scale(exam.signal, STORED_MAXIMUM)
    images = tuple(
        StoredImage(
            slice_index,
            stored[index, slice_index],
            IMAGE_TYPE,
            echo_time_ms=sequence.echo_time_ms if one_echo_time else exam.times_ms[index],
            echo_number=1 if one_echo_time else place + 1,
            time_index=place,
        )
        for slice_index in range(stored.shape[1])
        for place, index in enumerate(order)  # images of one slice next to each other
    )
    return [
        ge_anatomy(exam.anatomy_image),
        Series(3, 3, _DESCRIPTIONS[exam.protocol], sequence, images, exam.affine),
    ]


def ge_anatomy(volume: ImageVolume, description: str = "SAG T2 FSE") -> Series:
    """A stack of slices as a T2 FSE series."""
    images = tuple(replace(image, echo_number=1) for image in stack_images(volume, STORED_MAXIMUM, IMAGE_TYPE))
    return Series(2, 2, description, T2_FSE, images, volume.affine)


def add_ge_attributes(dataset: Dataset, series: Series, image: StoredImage) -> None:
    """What GE writes beside the usual: the announced number of images, and private elements about the sequence."""
    name = _sequence_name(series.sequence)
    dataset.ImagesInAcquisition = len(series.images)
    dataset.SequenceName = name
    private = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    private.add_new(0x7E, "SS", max(one.echo_number or 1 for one in series.images))
    private.add_new(0x9C, "LO", name)


def _sequence_name(sequence: PulseSequence) -> str:
    return "fse" if sequence == T2_FSE else _SEQUENCE_NAMES[sequence.scanning_sequence]
