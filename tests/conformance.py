"""Brings the tables of ``dicom_io/CONFORMANCE.md`` up to date: ``python -m tests.conformance``."""

import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pydicom

sys.path.insert(0, str(Path(__file__).parent))

import example_exam

from dicom_io.conformance import Example, conformance_tables, with_tables
from service.result_files import write_result

STATEMENT = Path(__file__).parents[1] / "dicom_io" / "CONFORMANCE.md"


def example_objects(folder: Path) -> dict[str, Example]:
    """Each role's first object, of two exams that differ in patient, study, scanner, geometry, sizes and time."""
    one, other = folder / "one", folder / "other"
    result = example_exam.exam_result()
    images = example_exam.exam_images(result)
    write_result(result, images, one)
    source = example_exam.source_exam(example_exam.OBLIQUE)
    for image in {id(image): image for image in (*source.grid_instances, *source.all_instances)}.values():
        _disguise(image)
    later = replace(
        result,
        produced_at=result.produced_at + timedelta(days=400, hours=1, minutes=2, seconds=3),
        versions=result.versions | {"model_sha256": "cd" * 32, "settings_digest": "f" * 16, "discnode": "0.2.0"},
    )
    write_result(later, replace(images, source=source), other)
    examples: dict[str, Example] = {}
    for path in sorted((one / "dicom").iterdir()):
        role = path.stem.removesuffix("-001")
        if not path.stem[-3:].isdigit() or path.stem.endswith("-001"):
            examples[role] = pydicom.dcmread(path), pydicom.dcmread(other / "dicom" / path.name)
    return examples


def _disguise(image: pydicom.Dataset) -> None:
    """Another patient at another scanner."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(image, keyword, getattr(image, keyword).replace("10043.10", "10043.11").replace("680043", "680044"))
    image.PatientName, image.PatientID, image.StudyID, image.AccessionNumber = "B^B", "P-1", "2", "B-1"
    image.StudyDate = image.SeriesDate = image.ContentDate = "20260101"
    image.StudyTime = image.SeriesTime = image.ContentTime = "101112"
    image.AcquisitionDate, image.AcquisitionTime = "20260101", "101112"
    image.DeviceSerialNumber, image.Manufacturer, image.ManufacturerModelName = "2", "Philips", "Ingenia"
    image.SoftwareVersions, image.StationName, image.MagneticFieldStrength = "5.1", "MR2", "1.5"
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = "SE", "SK", "FS", "2D"
    image.FlipAngle, image.EchoTrainLength, image.RepetitionTime, image.PatientPosition = "90", 2, "6.1", "FFS"
    image.ClinicalTrialCoordinatingCenterName = "Another"
    image.SpecificCharacterSet = "ISO_IR 192"


def up_to_date(text: str) -> str:
    """The statement with its tables as the code is now."""
    with tempfile.TemporaryDirectory() as folder:
        return with_tables(text, conformance_tables(example_objects(Path(folder))))


if __name__ == "__main__":
    STATEMENT.write_text(up_to_date(STATEMENT.read_text(encoding="utf-8")), encoding="utf-8")
