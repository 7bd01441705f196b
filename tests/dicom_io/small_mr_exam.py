"""Small MR images with known content for the tests of reading: headers in memory, and whole files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from config.protocol_cards import ProtocolCard
from dicom_io.headers import ImageFacts

MAPSS_TIMES_MS = (0.0, 10.0, 12.8, 25.7, 40.0, 51.4, 80.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def image_facts(**changes: object) -> ImageFacts:
    """One time-0 image of a GE MAPSS series."""
    facts = ImageFacts(
        path=Path("image.dcm"),
        sop_class_uid=str(MRImageStorage),
        sop_instance_uid="1.2.3.4",
        study_uid="1.2.3",
        series_uid="1.2.3.1",
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        patient_key="a" * 64,
        pixel_sha256="b" * 64,
        rows=256,
        columns=256,
        bits_allocated=16,
        pixel_representation=0,
        modality="MR",
        manufacturer="GE MEDICAL SYSTEMS",
        series_description="MAPSS T1rho T2",
        image_type=("ORIGINAL", "PRIMARY", "OTHER"),
        frame_of_reference_uid="1.2.3.9",
        echo_time_ms=0.0,
        series_number=5,
        orientation=SAGITTAL,
        position=(20.0, -100.0, 100.0),
        pixel_spacing_mm=(0.78125, 0.78125),
        slice_thickness_mm=4.0,
        spacing_between_slices_mm=4.0,
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def mapss_facts(n_slices: int = 12, *, announced: bool = True, **changes: object) -> list[ImageFacts]:
    """A whole MAPSS series, interleaved fastest by echo; slice k lies at L = 20 - 4 k mm, left first."""
    n_images = n_slices * len(MAPSS_TIMES_MS)
    return [
        image_facts(
            **{
                "sop_instance_uid": f"1.2.3.1.{slice_index}.{echo + 1}",
                "pixel_sha256": f"{slice_index:032d}{echo:032d}",
                "instance_number": slice_index * len(MAPSS_TIMES_MS) + echo + 1,
                "position": (20.0 - 4.0 * slice_index, -100.0, 100.0),
                "echo_time_ms": time_ms,
                "echo_numbers": (echo + 1,),
                "images_in_acquisition": n_images if announced else None,
                **changes,
            }
        )
        for slice_index in range(n_slices)
        for echo, time_ms in enumerate(MAPSS_TIMES_MS)
    ]


def fse_facts(n_slices: int = 12, *, series_uid: str = "1.2.3.2", **changes: object) -> list[ImageFacts]:
    """A whole sagittal T2 FSE series of the same study."""
    return [
        image_facts(
            **{
                "sop_instance_uid": f"{series_uid}.{slice_index}",
                "series_uid": series_uid,
                "series_number": 3,
                "series_description": "SAG T2 FSE",
                "pixel_sha256": f"{slice_index:032d}{'f' * 32}",
                "position": (20.0 - 4.0 * slice_index, -100.0, 100.0),
                "echo_time_ms": 102.4,
                **changes,
            }
        )
        for slice_index in range(n_slices)
    ]


def scan_card(name: str, together_with: str, **times: object) -> ProtocolCard:
    """A card for one of two scans that make an exam together, with times in EchoTime."""
    return ProtocolCard.model_validate(
        {
            "name": name,
            "description": "for this test",
            "role": "relaxometry",
            "match": {"series_description": f"^{name}$"},
            "times": {"rule": "echo_time", **times},
            "expected": {"min_slices": 3, "max_slices": 64},
            "scaling": "rescale_if_present",
            "together_with": [together_with],
        }
    )


def mr_dataset(
    pixels: np.ndarray, *, transfer_syntax: UID = ExplicitVRLittleEndian, **attributes: object
) -> FileDataset:
    """A GE-like MR image holding ``pixels`` (rows, columns) of 16 bits; ``attributes`` set by keyword, None removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax
    meta.MediaStorageSOPClassUID = MRImageStorage
    values: dict[str, object] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "FrameOfReferenceUID": "1.2.3.9",
        "PatientName": "Phantom^Small",
        "PatientID": "P-17",
        "PatientBirthDate": "19800131",
        "Modality": "MR",
        "Manufacturer": "GE MEDICAL SYSTEMS",
        "SeriesDescription": "MAPSS T1rho T2",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "EchoTime": 0,
        "EchoNumbers": 1,
        "SeriesNumber": 5,
        "InstanceNumber": 1,
        "ImageOrientationPatient": list(SAGITTAL),
        "ImagePositionPatient": [20, -100, 100],
        "PixelSpacing": [0.8, 0.6],
        "SliceThickness": 4,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(np.issubdtype(pixels.dtype, np.signedinteger)),
    } | attributes
    meta.MediaStorageSOPInstanceUID = str(values["SOPInstanceUID"])
    dataset = FileDataset(
        None,
        {},
        preamble=b"\0" * 128,
        file_meta=meta,
        is_implicit_VR=transfer_syntax.is_implicit_VR,
        is_little_endian=transfer_syntax.is_little_endian,
    )
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    byte_order = "<" if transfer_syntax.is_little_endian else ">"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(byte_order)).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def mapss_signal(n_slices: int = 4, rows: int = 6, columns: int = 5) -> np.ndarray:
    """Stored values (times, slices, rows, columns), all different and unlike their mirror images."""
    n = len(MAPSS_TIMES_MS) * n_slices * rows * columns
    return (np.arange(n) * 7 % 30_011).astype(np.uint16).reshape(len(MAPSS_TIMES_MS), n_slices, rows, columns)


def write_mapss(folder: Path, signal: np.ndarray, **attributes: object) -> list[Path]:
    """Files of a MAPSS series with ``signal`` (times, slices, rows, columns); names sort unlike slices or times."""
    paths = []
    for echo, time_ms in enumerate(MAPSS_TIMES_MS):
        for slice_index in range(signal.shape[1]):
            dataset = mr_dataset(
                signal[echo, slice_index],
                **{
                    "SOPInstanceUID": f"1.2.3.1.{slice_index}.{echo + 1}",
                    "EchoTime": time_ms,
                    "EchoNumbers": echo + 1,
                    "ImagePositionPatient": [20 - 4 * slice_index, -100, 100],
                    "ImagesInAcquisition": signal.shape[0] * signal.shape[1],
                    **attributes,
                },
            )
            path = folder / f"{(echo * 5 + slice_index * 3) % 11:02d}-{echo}-{slice_index}"
            dataset.save_as(path, enforce_file_format=True)
            paths.append(path)
    return paths
