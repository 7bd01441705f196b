"""Typed, unit-bearing facts of one received image, read from its header; every vendor quirk of a header lives here."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID

from config.protocol_cards import ElementAddress
from dicom_io.frame_header import FrameHeader, frame_headers
from dicom_io.modality_lut import read_modality_lut
from dicom_io.pixel_frames import split_frames
from dicom_io.raw_header import RawHeader, parse, quiet_pydicom
from processing.refusal import ReasonCode, UnsuitableInput

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4.1"
_LEGACY_CONVERTED_ENHANCED_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4.4"
_ENHANCED = (ENHANCED_MR_IMAGE_STORAGE, _LEGACY_CONVERTED_ENHANCED_MR_IMAGE_STORAGE)

# JPEG baseline and extended, JPEG-LS near-lossless
_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
# JPEG 2000, JPEG XL, HTJ2K
_PERHAPS_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.4.203")


#: Changes when :class:`ImageFacts` reads more or otherwise: facts that were kept by an earlier version are read anew.
FACTS_FORMAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What an MR image says about itself, as far as the analysis needs it. None, "" or () where the header is silent.

    A multi-frame object holds many images: ``frame_number`` (from 1) tells which; None in an object of one image.
    ``patient_key`` is a digest that is equal for equal patients; it is not the identity, and nothing else here is.
    Lengths in mm, times in ms. ``orientation`` and ``position``: ImageOrientationPatient and ImagePositionPatient, LPS.
    ``pixel_spacing_mm`` is between rows, then between columns. ``pixel_sha256``: of this image's stored pixels.
    ``complex_component``: MAGNITUDE, PHASE, REAL, IMAGINARY or MIXED (PS3.3 C.8.13.3.1.1), of Enhanced MR.
    ``ge_complex_part``: GE's (0043,102F), 0 magnitude, 1 phase, 2 real, 3 imaginary; GE tells it nowhere else.
    ``announced_slices``: Philips' (2001,xx18), how many slices the scan has.
    ``scale_slope``: Philips' (2005,xx0E). ``trigger_time_ms``: TriggerTime, or NominalCardiacTriggerDelayTime.
    ``concatenation``: number and total of the objects into which one Enhanced MR object was split; () if it was not.
    ``elements``: (name, value as text) of the elements that protocol cards ask for and that are there.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str
    patient_key: str
    pixel_sha256: str
    rows: int
    columns: int
    bits_allocated: int
    pixel_representation: int
    frame_number: int | None = None
    number_of_frames: int = 1
    concatenation: tuple[int, ...] = ()
    modality: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    device_serial_number: str = ""
    software_versions: str = ""
    study_date: str = ""
    series_description: str = ""
    protocol_name: str = ""
    scanning_sequence: str = ""
    sequence_name: str = ""
    image_type: tuple[str, ...] = ()
    complex_component: str = ""
    photometric_interpretation: str = ""
    frame_of_reference_uid: str = ""
    acquisition_time: str = ""
    ge_complex_part: int | None = None
    echo_time_ms: float | None = None
    trigger_time_ms: float | None = None
    inversion_time_ms: float | None = None
    echo_numbers: tuple[int, ...] = ()
    series_number: int | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    temporal_position: int | None = None
    images_in_acquisition: int | None = None
    announced_slices: int | None = None
    orientation: tuple[float, ...] = ()
    position: tuple[float, ...] = ()
    pixel_spacing_mm: tuple[float, ...] = ()
    slice_location_mm: float | None = None
    slice_thickness_mm: float | None = None
    spacing_between_slices_mm: float | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    scale_slope: float | None = None
    modality_lut_sha256: str = ""
    lossy_compressed: bool = False
    elements: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """What tells the image from all others: its object and its frame (0 in an object of one image)."""
        return self.sop_instance_uid, self.frame_number or 0


def facts_to_json(facts: Sequence[ImageFacts], elements: Sequence[ElementAddress] = ()) -> str:
    """The facts of all images of one file as JSON, to be kept; where the file lies is not kept."""
    images = [
        {name: value for name in _FIELDS if (value := getattr(one, name)) != _DEFAULTS.get(name, ...)} for one in facts
    ]
    return json.dumps({"format": FACTS_FORMAT, "elements": [one.name for one in elements], "images": images})


def facts_from_json(text: str, path: Path, elements: Sequence[ElementAddress] = ()) -> tuple[ImageFacts, ...] | None:
    """The facts that :func:`facts_to_json` kept of the file that now lies at ``path``.

    None when they were read by another version or for other ``elements``: then the file must be read again.
    """
    content: Any = json.loads(text)
    if content.get("format") != FACTS_FORMAT or content["elements"] != [one.name for one in elements]:
        return None
    return tuple(
        ImageFacts(path=path, **{name: _as_tuples(value) for name, value in image.items()})
        for image in content["images"]
    )


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(part) for part in value) if isinstance(value, list) else value


_FIELDS = tuple(field.name for field in fields(ImageFacts) if field.name != "path")
_DEFAULTS = {field.name: field.default for field in fields(ImageFacts)}


def read_facts(path: Path, elements: Sequence[ElementAddress] = ()) -> tuple[ImageFacts, ...]:
    """The facts of each image of one file, whose pixel data are known to be all there.

    Args:
        path: the file.
        elements: what protocol cards want to be read beside the usual (:func:`config.protocol_cards.asked_elements`).

    Raises:
        UnsuitableInput: UNREADABLE, when it is not DICOM, cut short, without identity or with a value of the wrong
            form; UNSUPPORTED_OBJECT, when it is not a greyscale MR image with pixels.
        OSError: the file cannot be opened or read.
    """
    return facts_from_bytes(path.read_bytes(), path, elements)


def facts_from_bytes(content: bytes, path: Path, elements: Sequence[ElementAddress] = ()) -> tuple[ImageFacts, ...]:
    """As :func:`read_facts`, for a file's bytes that are at hand; ``path`` only says where they are kept."""
    header = RawHeader(parse(content))
    _check_whole(header, len(content))
    _check_kind(header)
    with quiet_pydicom():
        if header.uid("SOPClassUID") == MR_IMAGE_STORAGE:
            split_frames(header, 1)
            pixels = hashlib.sha256(header.raw("PixelData") or b"").hexdigest()
            image = _image_facts(FrameHeader(header), elements)
            return (ImageFacts(path=path, pixel_sha256=pixels, **_object_facts(header), **image),)
        return _facts_of_frames(header, path, elements)


def _facts_of_frames(header: RawHeader, path: Path, elements: Sequence[ElementAddress]) -> tuple[ImageFacts, ...]:
    n_frames = header.integer("NumberOfFrames") or 0
    if n_frames < 1:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "NumberOfFrames is missing or not above zero")
    described = frame_headers(header)
    if described and len(described) != n_frames:
        text = f"{n_frames} frames, but {len(described)} items in PerFrameFunctionalGroupsSequence"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    if not described and n_frames > 1:
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"{n_frames} frames, which no functional group tells apart")
    pixels = split_frames(header, n_frames)
    common = _object_facts(header)
    return tuple(
        ImageFacts(
            path=path,
            pixel_sha256=hashlib.sha256(stored).hexdigest(),
            frame_number=number,
            number_of_frames=n_frames,
            **common,
            **_image_facts(frame, elements),
        )
        for number, (frame, stored) in enumerate(zip(described or (FrameHeader(header),), pixels, strict=True), 1)
    )


def _object_facts(header: RawHeader) -> dict[str, Any]:
    """What all images of an object share."""
    lut = read_modality_lut(header)
    return {
        "sop_class_uid": header.uid("SOPClassUID"),
        "sop_instance_uid": header.uid("SOPInstanceUID"),
        "study_uid": header.uid("StudyInstanceUID"),
        "series_uid": header.uid("SeriesInstanceUID"),
        "transfer_syntax_uid": header.transfer_syntax,
        "patient_key": _patient_key(header),
        "rows": header.positive("Rows"),
        "columns": header.positive("Columns"),
        "bits_allocated": header.positive("BitsAllocated"),
        "pixel_representation": header.unsigned("PixelRepresentation") or 0,
        "concatenation": _concatenation(header),
        "modality": header.text("Modality"),
        "manufacturer": header.text("Manufacturer"),
        "manufacturer_model_name": header.text("ManufacturerModelName"),
        "device_serial_number": header.text("DeviceSerialNumber"),
        "software_versions": header.text("SoftwareVersions"),
        "study_date": _moment(header.text("StudyDate")),
        "series_description": header.text("SeriesDescription"),
        "protocol_name": header.text("ProtocolName"),
        "photometric_interpretation": header.text("PhotometricInterpretation"),
        "frame_of_reference_uid": header.uid("FrameOfReferenceUID") if header.text("FrameOfReferenceUID") else "",
        "series_number": header.integer("SeriesNumber"),
        "instance_number": header.integer("InstanceNumber"),
        "images_in_acquisition": header.integer("ImagesInAcquisition"),
        "modality_lut_sha256": lut.sha256 if lut else "",
        "lossy_compressed": _is_lossy(header),
    }


def _image_facts(header: FrameHeader, elements: Sequence[ElementAddress]) -> dict[str, Any]:
    """What one image says; PS3.3 C.7.6.16 and C.8.13 tell where Enhanced MR says it."""
    asked = ((address.name, header.element_text(address)) for address in elements)
    complex_part = header.private_number(0x0043, "GEMS_PARM_01", 0x2F)
    return {
        "scanning_sequence": header.text("ScanningSequence"),
        "sequence_name": header.text("/PulseSequenceName", "SequenceName"),
        "image_type": _upper(header.texts("MRImageFrameTypeSequence/FrameType", "ImageType")),
        "complex_component": header.text(
            "MRImageFrameTypeSequence/ComplexImageComponent", "/ComplexImageComponent"
        ).upper(),
        "acquisition_time": _moment(
            header.text("FrameContentSequence/FrameAcquisitionDateTime", "/AcquisitionDateTime")
            or header.root.text("AcquisitionDate") + header.root.text("AcquisitionTime")
        ),
        "ge_complex_part": None if complex_part is None else int(complex_part),
        "echo_time_ms": header.decimal("MREchoSequence/EffectiveEchoTime", "EchoTime", "/EffectiveEchoTime"),
        "trigger_time_ms": header.decimal(
            "CardiacSynchronizationSequence/NominalCardiacTriggerDelayTime", "TriggerTime"
        ),
        "inversion_time_ms": _only(
            header.decimals("MRModifierSequence/InversionTimes", "MRModifierSequence/InversionTime", "InversionTime")
        ),
        "echo_numbers": header.integers("EchoNumbers"),
        "acquisition_number": header.integer("FrameContentSequence/FrameAcquisitionNumber", "AcquisitionNumber"),
        "temporal_position": header.integer("FrameContentSequence/TemporalPositionIndex", "TemporalPositionIdentifier"),
        "slice_location_mm": None if header.is_one_of_many else header.decimal("SliceLocation"),
        "slice_thickness_mm": header.decimal("PixelMeasuresSequence/SliceThickness", "SliceThickness"),
        "spacing_between_slices_mm": header.decimal(
            "PixelMeasuresSequence/SpacingBetweenSlices", "SpacingBetweenSlices"
        ),
        "rescale_slope": header.decimal("PixelValueTransformationSequence/RescaleSlope", "RescaleSlope"),
        "rescale_intercept": header.decimal("PixelValueTransformationSequence/RescaleIntercept", "RescaleIntercept"),
        "announced_slices": _positive(header.private_number(0x2001, "Philips Imaging DD 001", 0x18)),
        "scale_slope": header.private_number(0x2005, "Philips MR Imaging DD 001", 0x0E, is_of_each_image=True),
        "elements": tuple((name, value) for name, value in asked if value),
        **_geometry(header),
    }


def _geometry(header: FrameHeader) -> dict[str, Any]:
    """Never from what Philips keeps in private items: its positions there are half a pixel off.

    A position at the root is that of a classic image; in an object of many frames it would be that of one of them.
    """
    positions = ["PlanePositionSequence/ImagePositionPatient"]
    if not header.is_one_of_many:
        positions.append("/ImagePositionPatient")
    return {
        "position": header.decimals(*positions, count=3),
        "orientation": header.decimals(
            "PlaneOrientationSequence/ImageOrientationPatient", "/ImageOrientationPatient", count=6
        ),
        "pixel_spacing_mm": header.decimals("PixelMeasuresSequence/PixelSpacing", "/PixelSpacing", count=2),
    }


def _only(numbers: tuple[float, ...]) -> float | None:
    """The number where there is just one; several inversion times (VM 1-n) tell no single one."""
    return numbers[0] if len(numbers) == 1 else None


def _positive(number: float | None) -> int | None:
    """A count; None where there is none."""
    return int(number) if number is not None and number >= 1 and number == int(number) else None


def _upper(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.upper() for text in texts)


def _concatenation(header: RawHeader) -> tuple[int, ...]:
    """Number and total (if told) of the parts of an object that was split; () when it was not."""
    number, total = header.unsigned("InConcatenationNumber"), header.unsigned("InConcatenationTotalNumber")
    return tuple(part for part in (number, total) if part) if number else ()


def _is_lossy(header: RawHeader) -> bool:
    """What the header says; in a syntax that may hold either, lossless must be said."""
    told = header.text("LossyImageCompression")
    if header.transfer_syntax in _LOSSY_SYNTAXES or told == "01":
        return True
    return header.transfer_syntax in _PERHAPS_LOSSY_SYNTAXES and told != "00"


#: The key of images that name no patient: equal keys then say nothing.
NO_PATIENT_KEY = hashlib.sha256(b"\x1f\x1f").hexdigest()


def _patient_key(header: RawHeader) -> str:
    parts = (header.text(keyword) for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate"))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _moment(text: str) -> str:
    """A date or time as it is written; of what is neither, which may be anyone's name, a digest that tells it apart."""
    if re.fullmatch(r"[0-9.:+/ -]*", text):
        return text
    return f"?{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _check_kind(header: RawHeader) -> None:
    sop_class_uid = header.uid("SOPClassUID")
    if sop_class_uid not in (MR_IMAGE_STORAGE, *_ENHANCED):
        name = UID(sop_class_uid, IGNORE).name
        text = f"{name} is not read, only MR Image Storage and Enhanced MR Image Storage"
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text)
    if not header.raw("PixelData"):
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, "MR image without pixel data")
    samples, photometric = header.unsigned("SamplesPerPixel"), header.text("PhotometricInterpretation")
    if samples not in (None, 1) or photometric not in ("", "MONOCHROME2"):
        raise UnsuitableInput(
            ReasonCode.UNSUPPORTED_OBJECT, f"not a greyscale image ({samples} samples per pixel, {photometric})"
        )
    bits = header.positive("BitsAllocated")
    if bits not in (8, 16, 32):
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, f"{bits} bits per pixel")
    frames = header.integer("NumberOfFrames")
    if sop_class_uid == MR_IMAGE_STORAGE and frames not in (None, 1):
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, f"{frames} frames in a single-frame MR image object")


def _check_whole(header: RawHeader, n_bytes: int) -> None:
    """Every element that was begun must be there to its last byte (pydicom returns short values without a word)."""
    if len(header.dataset) == 0:  # also what pydicom returns when an encapsulated value never ends
        raise UnsuitableInput(ReasonCode.UNREADABLE, "cut short or broken: no data set could be read")
    end = 0
    for tag in header.dataset.keys():  # noqa: SIM118 - iterating a Dataset decodes its values
        element = header.dataset.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement) or element.length == 0xFFFFFFFF:
            continue
        n_there = len(element.value or b"")
        if n_there < element.length:
            text = f"cut short: {element.tag} announces {element.length} bytes, {n_there} are there"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text)
        end = max(end, element.value_tell + element.length)
    deflated = header.transfer_syntax == "1.2.840.10008.1.2.1.99"  # positions are then those in the inflated bytes
    if "PixelData" not in header.dataset and not deflated and 0 < end < n_bytes:
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"cut short or broken after byte {end} of {n_bytes}")
