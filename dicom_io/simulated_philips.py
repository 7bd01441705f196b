"""Philips: T1rho and T2 as two scans; the times stand in SeriesDescription, and TriggerTime says which image has which.

Images are slice-major: n = n_times * (slice - 1) + k. Each image fills its 12 bits by itself: stored values are signal
times a scale slope (2005,100E), and RescaleSlope makes values to display of them, which mean nothing between images.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_io.simulated_series import (
    T2_FSE,
    PulseSequence,
    Scanner,
    Series,
    StoredImage,
    check_storable,
    decimal,
    preparations,
    relaxometry_sequence,
)
from processing.phantom import PhantomExam
from processing.results import FloatArray, Quantity

PHILIPS = Scanner(
    manufacturer="Philips",
    model="Ingenia Elition X",
    software_versions=("5.7.1", "5.7.1.1"),
    serial_number="0",
    protocol_name="",  # that of each series is WIP and its description
    bits_stored=12,
)
MAGNITUDE = {"GR": ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), "SE": ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE")}
PHASE = ("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE")

_STORED_MAXIMUM = 4095
_FLOATING_POINT_SCALE = 2000.0  # floating point values of a receiver are large: a million and more
_DISPLAYED_MAXIMUM = 5000.0


def philips_series(exam: PhantomExam, *, one_scan: bool = False, phase_images: bool = False) -> list[Series]:
    """The series of an exam in the order of acquisition: T2 TSE, T1rho, T2; both have an image without preparation.

    Args:
        exam: the simulated visit.
        one_scan: T1rho and T2 are one series, whose image without preparation both share.
        phase_images: each relaxometry series also holds phase images, after all of its magnitude images.
    """
    anatomy = exam.anatomy_image
    found = [Series(201, 2, "SAG T2W TSE", T2_FSE, _anatomy_images(anatomy.array), anatomy.affine)]
    of_t1rho, of_t2 = preparations(exam, Quantity.T1RHO), preparations(exam, Quantity.T2)
    scans = [
        (301, f"MAPSS TSL {_listed(exam, of_t1rho)} ms", of_t1rho),
        (401, f"MAPSS T2prep TE {_listed(exam, of_t2)} ms", of_t2),
    ]
    if one_scan:
        name = f"MAPSS TSL {_listed(exam, of_t1rho)} TE {_listed(exam, of_t2)} ms"
        scans = [(301, name, list(dict.fromkeys([*of_t1rho, *of_t2])))]
    for number, name, chosen in scans:
        images = _images(exam, chosen)
        if phase_images:
            images += tuple(_phase_of(image) for image in images)
        found.append(Series(number, number // 100, name, relaxometry_sequence(exam), images, exam.affine))
    return found


def _listed(exam: PhantomExam, chosen: Sequence[int]) -> str:
    return "_".join(f"{exam.times_ms[index]:g}" for index in chosen)


def add_philips_attributes(dataset: Dataset, series: Series, image: StoredImage) -> None:
    """What Philips writes beside the usual into classic images."""
    dataset.SequenceName = ""
    dataset.NumberOfPhaseEncodingSteps = series.sequence.acquired[1]
    dataset.AcquisitionNumber = series.number // 100
    dataset.TemporalPositionIdentifier = image.time_index + 1
    dataset.NumberOfTemporalPositions = n_times(series)
    dataset.RescaleType = "normalized"
    add_philips_protocol(dataset, series)
    imaging = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
    imaging.add_new(0x08, "IS", str(image.time_index + 1))  # phase number
    imaging.add_new(0x0A, "IS", str(image.slice_index + 1))
    imaging.add_new(0x18, "SL", n_slices(series))
    imaging.add_new(0x20, "LO", scanning_technique(series.sequence))
    add_philips_scaling(dataset, image)


def add_philips_protocol(dataset: Dataset, series: Series) -> None:
    """ProtocolName is SeriesDescription after WIP ("work in progress"), which research protocols are given."""
    dataset.ProtocolName = f"WIP {series.description}"


def add_philips_object(dataset: Dataset, series: Series) -> None:
    """What Philips writes beside the usual into an Enhanced MR object."""
    dataset.AcquisitionNumber = series.number // 100
    dataset.PulseSequenceName = scanning_technique(series.sequence)
    add_philips_protocol(dataset, series)
    imaging = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
    imaging.add_new(0x18, "SL", n_slices(series))
    imaging.add_new(0x20, "LO", scanning_technique(series.sequence))


def add_philips_frame(groups: Dataset, series: Series, image: StoredImage, number: int) -> None:
    """The private functional group (2005,140F): the frame's item holds what a classic image would."""
    classic = Dataset()
    classic.ImageType = list(image.image_type)
    classic.ScanningSequence = series.sequence.scanning_sequence
    classic.EchoTime = decimal(image.echo_time_ms)
    classic.EchoNumbers = image.echo_number
    if image.trigger_time_ms is not None:
        classic.TriggerTime = decimal(image.trigger_time_ms)
    classic.InstanceNumber = number
    classic.TemporalPositionIdentifier = image.time_index + 1
    classic.RescaleIntercept = f"{image.rescale_intercept:.12g}"
    classic.RescaleSlope = f"{image.rescale_slope:.12g}"
    classic.RescaleType = "normalized"
    add_philips_scaling(classic, image)
    groups.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")  # the block that Philips always gives this creator
    groups.add_new(0x2005140F, "SQ", [classic])


def add_philips_scaling(dataset: Dataset, image: StoredImage) -> None:
    """The private elements about scaling and image type: of a classic image, or of a frame's item (2005,140F)."""
    private = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    private.add_new(0x0D, "FL", 0.0)  # scale intercept
    private.add_new(0x0E, "FL", image.scale_slope)
    private.add_new(0x11, "CS", "P" if image.is_phase else "M")


def n_times(series: Series) -> int:
    """How many images a slice has."""
    return max(image.time_index for image in series.images) + 1


def n_slices(series: Series) -> int:
    """How many slices a series has."""
    return max(image.slice_index for image in series.images) + 1


def scanning_technique(sequence: PulseSequence) -> str:
    """Philips' name of a pulse sequence."""
    return "TSE" if sequence.scanning_sequence == "SE" else "T1TFE"


def _images(exam: PhantomExam, chosen: Sequence[int]) -> tuple[StoredImage, ...]:
    check_storable(exam.signal)
    sequence = relaxometry_sequence(exam)
    brightest = float(exam.signal[chosen].max())
    return tuple(
        StoredImage(
            slice_index,
            pixels,
            MAGNITUDE[sequence.scanning_sequence],
            sequence.echo_time_ms,
            time_index=place,
            echo_number=1,
            trigger_time_ms=exam.times_ms[index],
            rescale_slope=_rescale_slope(image, brightest),
            scale_slope=scale_slope,
            t2_prepared=exam.quantities[index] is Quantity.T2,
        )
        for slice_index in range(exam.signal.shape[1])
        for place, index in enumerate(chosen)
        for image in (exam.signal[index, slice_index],)
        for pixels, scale_slope in (_stored(image, float(image.max())),)
    )


def _anatomy_images(signal: FloatArray) -> tuple[StoredImage, ...]:
    """T2 TSE: one scale for all slices."""
    check_storable(signal)
    brightest = float(signal.max())
    stored, scale_slope = _stored(signal, brightest)
    return tuple(
        StoredImage(
            slice_index,
            pixels,
            MAGNITUDE["SE"],
            T2_FSE.echo_time_ms,
            echo_number=1,
            rescale_slope=_rescale_slope(signal, brightest),
            scale_slope=scale_slope,
        )
        for slice_index, pixels in enumerate(stored)
    )


def _stored(signal: FloatArray, largest: float) -> tuple[npt.NDArray[np.uint16], float]:
    """Stored values that fill 12 bits, and the scale slope (32 bits in the file) that made them of the signal."""
    slope = np.float32(_STORED_MAXIMUM / (max(largest, 1e-3) * _FLOATING_POINT_SCALE))
    stored = np.rint(signal.astype(np.float64) * _FLOATING_POINT_SCALE * float(slope))
    return np.clip(stored, 0, _STORED_MAXIMUM).astype(np.uint16), float(slope)


def _rescale_slope(image: FloatArray, brightest: float) -> float:
    """Weak images are shown brighter than they are: their display values go with the root of the signal."""
    weight = float(np.sqrt(max(float(image.max()), 1e-3) / max(brightest, 1e-3)))
    return round(_DISPLAYED_MAXIMUM * weight / _STORED_MAXIMUM, 10)


def _phase_of(image: StoredImage) -> StoredImage:
    """A phase image in mrad (-3142 .. 3142): a ramp along the columns, wrapped, that grows with the time."""
    rows, columns = image.pixels.shape
    turns = (np.arange(columns) / columns * (2 + image.time_index) + image.slice_index / 7) % 1
    pixels = np.broadcast_to(np.rint(turns * _STORED_MAXIMUM), (rows, columns)).astype(np.uint16)
    slope = round(2000 * np.pi / _STORED_MAXIMUM, 10)
    return replace(
        image, pixels=pixels, image_type=PHASE, rescale_slope=slope, rescale_intercept=-3141.5926, scale_slope=1.0
    )
