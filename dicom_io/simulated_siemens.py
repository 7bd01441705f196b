"""Siemens: one series for each time, which stands only in SeriesDescription and ProtocolName ("MAPSS TSL 40").

Headers as XA30 writes them (Enhanced MR, or classic images that were split from it: MFSPLIT): EchoTime is that of the
read-out, EchoNumbers is absent, TriggerTime and InversionTime are there and empty.
"""

from dataclasses import replace

from pydicom.dataset import Dataset

from dicom_io.simulated_series import (
    T2_FSE,
    Scanner,
    Series,
    StoredImage,
    preparations,
    relaxometry_sequence,
    stack_images,
    stored_at_one_scale,
)
from processing.phantom import PhantomExam
from processing.results import Quantity

SIEMENS = Scanner(
    manufacturer="Siemens Healthineers",
    model="MAGNETOM Prisma",
    software_versions=("syngo MR XA30",),
    serial_number="0",
    protocol_name="",  # that of each series is its description
    bits_stored=12,
)
IMAGE_TYPE = ("ORIGINAL", "PRIMARY", "M", "ND", "MFSPLIT")
STORED_MAXIMUM = 4000


def siemens_series(exam: PhantomExam) -> list[Series]:
    """The series of an exam in the order of acquisition: T2 TSE, the spin-lock times, the preparation times.

    All series have one scale, so that their signals may be compared.
    """
    anatomy = stack_images(exam.anatomy_image, STORED_MAXIMUM, IMAGE_TYPE)
    found = [Series(2, 2, "t2_tse_sag", T2_FSE, _rescaled(anatomy), exam.anatomy_image.affine)]
    stored = stored_at_one_scale(exam.signal, STORED_MAXIMUM)
    sequence = relaxometry_sequence(exam)
    of_t1rho = set(preparations(exam, Quantity.T1RHO))
    order = dict.fromkeys([*sorted(of_t1rho), *preparations(exam, Quantity.T2)])
    for number, index in enumerate(order, start=3):
        what = "TSL" if index in of_t1rho else "T2prep TE"
        images = tuple(
            StoredImage(
                slice_index,
                pixels,
                IMAGE_TYPE,
                sequence.echo_time_ms,
                rescale_slope=1.0,
                t2_prepared=index not in of_t1rho,
            )
            for slice_index, pixels in enumerate(stored[index])
        )
        description = f"MAPSS {what} {exam.times_ms[index]:g}"
        found.append(Series(number, number, description, sequence, images, exam.affine))
    return found


def add_siemens_attributes(dataset: Dataset, series: Series, image: StoredImage) -> None:
    """What XA30 writes beside the usual into classic images."""
    dataset.SequenceName = _sequence_name(series)
    dataset.InversionTime = None
    dataset.TriggerTime = None
    dataset.NumberOfPhaseEncodingSteps = series.sequence.acquired[1]
    dataset.ContentQualification = "PRODUCT" if series.sequence == T2_FSE else "RESEARCH"
    add_siemens_protocol(dataset, series)
    private = dataset.private_block(0x0051, "SIEMENS MR HEADER", create=True)
    private.add_new(0x08, "CS", "IMAGE NUM X")
    private.add_new(0x09, "LO", "1.0")
    private.add_new(0x12, "SH", "TP 0")


def add_siemens_object(dataset: Dataset, series: Series) -> None:
    """What XA30 writes beside the usual into an Enhanced MR object."""
    dataset.PulseSequenceName = _sequence_name(series)
    add_siemens_protocol(dataset, series)


def add_siemens_frame(groups: Dataset, series: Series, image: StoredImage, number: int) -> None:
    """The private functional group (0021,11FE) of a frame."""
    frame = Dataset()
    for dataset in (frame, groups):
        dataset.add_new(0x00210011, "LO", "SIEMENS MR SDI 02")
    frame.add_new(0x00211175, "CS", list(image.image_type[:4]))
    frame.add_new(0x0021118A, "IS", str(number))
    groups.add_new(0x002111FE, "SQ", [frame])


def add_siemens_protocol(dataset: Dataset, series: Series) -> None:
    """ProtocolName is what the user called the scan, as SeriesDescription is."""
    dataset.ProtocolName = series.description


def _sequence_name(series: Series) -> str:
    return "*tse2d1_16" if series.sequence == T2_FSE else "*mapss3d1"


def _rescaled(images: tuple[StoredImage, ...]) -> tuple[StoredImage, ...]:
    return tuple(replace(image, rescale_slope=1.0) for image in images)
