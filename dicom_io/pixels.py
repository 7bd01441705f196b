"""The pixels of one image: decoded from whatever transfer syntax it came in, and scaled to signal."""

import hashlib

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from config.protocol_cards import ScalingRule
from dicom_io.headers import ImageFacts
from dicom_io.raw_header import PARSE_FAULTS, parse, quiet_pydicom
from dicom_io.scaling import scaling_of
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import FloatArray


def read_image(facts: ImageFacts, scaling: ScalingRule) -> tuple[FloatArray, FileDataset]:
    """The signal of one image, (rows, columns) float32, scaled as its header says, and its header without pixels.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, naming a transfer syntax that cannot be decoded; UNREADABLE, when pixels
            cannot be decoded or the file is no longer the one whose header was read.
        OSError: the file cannot be read.
    """
    dataset = parse(facts.path.read_bytes())
    _check_unchanged(dataset, facts)
    slope, intercept = scaling_of(facts, scaling)
    signal = _decode(dataset, facts).astype(np.float64) * slope + intercept
    del dataset.PixelData
    return signal.astype(np.float32), dataset


def _check_unchanged(dataset: FileDataset, facts: ImageFacts) -> None:
    pixels = dataset.get_item("PixelData").value if "PixelData" in dataset else None
    if not isinstance(pixels, bytes) or hashlib.sha256(pixels).hexdigest() != facts.pixel_sha256:
        text = f"the file of image {facts.sop_instance_uid} has changed since its header was read"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)


def _decode(dataset: FileDataset, facts: ImageFacts) -> np.ndarray:
    """Stored values (rows, columns), signed or unsigned as the header says."""
    syntax = UID(facts.transfer_syntax_uid)
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        decodable = False
    if not decodable:
        raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, f"transfer syntax {syntax.name} cannot be decoded here")
    try:
        with quiet_pydicom():
            stored = pixel_array(dataset, raw=True)
    except (RuntimeError, *PARSE_FAULTS) as error:
        text = f"pixels ({syntax.name}) cannot be decoded ({type(error).__name__})"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
    if stored.shape != (facts.rows, facts.columns):
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"decoded pixels have shape {stored.shape}")
    return stored
