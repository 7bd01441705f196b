"""A simulated series as classic MR Image Storage: one object for each image."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_io.simulated_series import (
    Plane,
    Scanner,
    Series,
    StoredImage,
    Study,
    decimal,
    describe_series,
    describe_study,
)

#: Adds what only one vendor writes to the data set of an image.
AddVendorAttributes = Callable[[Dataset, Series, StoredImage], None]


def write_classic(
    series: Series, study: Study, scanner: Scanner, folder: Path, add_vendor_attributes: AddVendorAttributes
) -> list[Path]:
    """Write a series, one file for each image, into its own subfolder of ``folder``; in the order of InstanceNumber."""
    target = folder / f"series-{series.number:03d}"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(_datasets(series, study, scanner, add_vendor_attributes), start=1):
        path = target / f"MR{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _datasets(
    series: Series, study: Study, scanner: Scanner, add_vendor_attributes: AddVendorAttributes
) -> Iterator[Dataset]:
    maximum = max(int(image.pixels.max()) for image in series.images)
    for number, image in enumerate(series.images, start=1):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = study.uid("image", series.number, number)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        describe_study(dataset, study, scanner)
        describe_series(dataset, study, scanner, series)
        dataset.AcquisitionDate, dataset.AcquisitionTime = study.clock(series)
        if study.appointment.receive_coil:
            dataset.ReceiveCoilName = study.appointment.receive_coil
        dataset.InstanceNumber = number
        _describe_acquisition(dataset, series)
        _describe_image(dataset, image)
        _place(dataset, Plane.of(series.affine, image.slice_index), study.slice_thickness_mm)
        _set_pixels(dataset, image, scanner.bits_stored, maximum)
        add_vendor_attributes(dataset, series, image)
        yield dataset


def _describe_acquisition(dataset: Dataset, series: Series) -> None:
    sequence = series.sequence
    dataset.ScanningSequence = sequence.scanning_sequence
    dataset.SequenceVariant = sequence.sequence_variant
    dataset.ScanOptions = sequence.scan_options
    dataset.MRAcquisitionType = sequence.acquisition_type
    dataset.RepetitionTime = decimal(sequence.repetition_time_ms)
    dataset.EchoTrainLength = sequence.echo_train_length
    dataset.FlipAngle = decimal(sequence.flip_angle_deg)
    dataset.NumberOfAverages = "1"
    dataset.ImagingFrequency = "127.76"
    dataset.ImagedNucleus = "1H"
    dataset.PixelBandwidth = "244.141"
    # Frequency runs along the columns of pixels (superior-inferior), phase along a row (anterior-posterior).
    dataset.InPlanePhaseEncodingDirection = "ROW"
    dataset.AcquisitionMatrix = [sequence.acquired[0], 0, 0, sequence.acquired[1]]


def _describe_image(dataset: Dataset, image: StoredImage) -> None:
    dataset.ImageType = list(image.image_type)
    dataset.EchoTime = decimal(image.echo_time_ms)
    if image.echo_number is not None:
        dataset.EchoNumbers = image.echo_number
    if image.trigger_time_ms is not None:
        dataset.TriggerTime = decimal(image.trigger_time_ms)
    if image.rescale_slope is not None:
        dataset.RescaleSlope = f"{image.rescale_slope:.12g}"
        dataset.RescaleIntercept = f"{image.rescale_intercept:.12g}"


def _place(dataset: Dataset, plane: Plane, thickness_mm: float) -> None:
    dataset.ImageOrientationPatient = plane.orientation
    dataset.ImagePositionPatient = plane.position
    dataset.SliceLocation = plane.slice_location
    dataset.PixelSpacing = plane.pixel_spacing
    dataset.SliceThickness = decimal(thickness_mm)
    dataset.SpacingBetweenSlices = plane.spacing_between_slices


def _set_pixels(dataset: Dataset, image: StoredImage, bits_stored: int, maximum: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = image.pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    slope = image.rescale_slope or 1.0  # a window applies to rescaled values
    dataset.WindowCenter = str(round(maximum // 4 * slope))
    dataset.WindowWidth = str(max(round(maximum // 2 * slope), 1))
    dataset.PixelData = image.pixels.astype("<u2").tobytes()
