"""The pixels of images: decoded from whatever transfer syntax they came in, and scaled to signal."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit, RLELossless

from config.protocol_cards import ScalingRule
from dicom_io.codestream import check_codestream
from dicom_io.frame_view import frame_view, object_view
from dicom_io.headers import ImageFacts
from dicom_io.jpeg_lossless import decode_jpeg_lossless
from dicom_io.modality_lut import ModalityLut, read_modality_lut
from dicom_io.pixel_frames import is_encapsulated, split_frames
from dicom_io.presentation import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_io.raw_header import PARSE_FAULTS, RawHeader, parse, quiet_pydicom
from dicom_io.scaling import scaling_of
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import FloatArray

_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")

#: Which of pydicom's decoders decodes another transfer syntax: one each, so that every machine gives the same values.
_DECODERS = {
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "pillow",  # JPEG extended
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
}

#: Whose pixels can be read: the uncompressed ones, and what there is a decoder for.
DECODED_TRANSFER_SYNTAXES = frozenset(
    (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, *_JPEG_LOSSLESS, *_DECODERS)
)

_StoredValues = npt.NDArray[np.integer]


def read_images(images: Sequence[ImageFacts], scaling: ScalingRule) -> Iterator[tuple[FloatArray, Dataset]]:
    """The signal of each image, (rows, columns) float32, scaled as its header says, and its header without pixels.

    They come in the order asked for. A file is read once and held as long as images of it are to come. The header of a
    frame is as :func:`dicom_io.frame_view.frame_view` makes it.

    Raises:
        UnsuitableInput: UNSUPPORTED_OBJECT, naming a transfer syntax that cannot be decoded; UNREADABLE, when pixels
            cannot be decoded or a file is no longer the one whose header was read; SCALING_UNKNOWN, when scaled values
            are beyond all numbers.
        OSError: a file cannot be read.
    """
    to_come = Counter(facts.path for facts in images)
    held: dict[Path, _OpenObject] = {}
    for facts in images:
        if facts.path not in held:
            held[facts.path] = _OpenObject(facts)
        opened = held[facts.path]
        to_come[facts.path] -= 1
        if not to_come[facts.path]:
            del held[facts.path]
        yield opened.signal(facts, scaling), frame_view(opened.view, facts)


def read_image(facts: ImageFacts, scaling: ScalingRule) -> tuple[FloatArray, Dataset]:
    """As :func:`read_images`, for one image."""
    return next(read_images([facts], scaling))


def read_stored(images: Sequence[ImageFacts]) -> Iterator[npt.NDArray[np.integer]]:
    """The stored values of each image, (rows, columns), unscaled; images of one file should follow each other.

    Raises:
        UnsuitableInput: as :func:`read_images`.
        OSError: a file cannot be read.
    """
    opened: tuple[Path, _OpenObject] | None = None
    for facts in images:
        if opened is None or opened[0] != facts.path:
            opened = facts.path, _OpenObject(facts)
        yield opened[1].stored(facts)


class _OpenObject:
    """A file in memory: its header, and the bytes of each frame."""

    def __init__(self, facts: ImageFacts) -> None:
        self.header = RawHeader(parse(facts.path.read_bytes()))
        _check_unchanged(self.header.text("SOPInstanceUID") == facts.sop_instance_uid, facts)
        _check_unchanged(self.header.transfer_syntax == facts.transfer_syntax_uid, facts)
        self._decoding = _Decoding(self.header, facts)
        with quiet_pydicom():
            self._lut: ModalityLut | None = read_modality_lut(self.header)
            self._frames = split_frames(self.header, facts.number_of_frames)
        self.view = object_view(self.header)
        self._whole = self.header.raw("PixelData") or b""

    def signal(self, facts: ImageFacts, scaling: ScalingRule) -> FloatArray:
        """One image's values in the unit that may be compared between images."""
        slope, intercept = scaling_of(facts, scaling)
        stored = self.stored(facts)
        values = stored if self._lut is None else self._lut.apply(stored)
        exact = values.astype(np.float64) * slope + intercept
        if not np.abs(exact).max() <= np.finfo(np.float32).max:
            text = f"slope {slope:g} and intercept {intercept:g} make values that no scanner measures"
            raise UnsuitableInput(ReasonCode.SCALING_UNKNOWN, text)
        signal: FloatArray = exact.astype(np.float32)
        return signal

    def stored(self, facts: ImageFacts) -> _StoredValues:
        """One image's stored values."""
        stored_bytes = self._frames[(facts.frame_number or 1) - 1]
        hashed = self._whole if facts.frame_number is None else stored_bytes
        _check_unchanged(hashlib.sha256(hashed).hexdigest() == facts.pixel_sha256, facts)
        return self._decoding.stored_values(stored_bytes)


def _check_unchanged(is_unchanged: bool, facts: ImageFacts) -> None:
    if not is_unchanged:
        text = f"the file of image {facts.sop_instance_uid} has changed since its header was read"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)


class _Decoding:
    """How the bytes of one frame become stored values (rows, columns), signed or unsigned as the header says."""

    def __init__(self, header: RawHeader, facts: ImageFacts) -> None:
        self._syntax = UID(facts.transfer_syntax_uid, IGNORE)
        self._shape = facts.rows, facts.columns
        self._bits_allocated = facts.bits_allocated
        self._bits_stored = header.unsigned("BitsStored") or facts.bits_allocated
        high_bit = header.unsigned("HighBit")
        self._high_bit = self._bits_stored - 1 if high_bit is None else high_bit
        self._signed = facts.pixel_representation == 1
        if not self._bits_stored <= self._high_bit + 1 <= self._bits_allocated:
            text = f"{self._bits_stored} bits up to bit {self._high_bit} cannot lie in {self._bits_allocated} bits"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text)

    def stored_values(self, content: memoryview) -> _StoredValues:
        """Decode one frame and keep the bits that are stored: what lies above them is no signal (PS3.5 8.1.1)."""
        if self._syntax == RLELossless:  # PS3.5 G: whole pixel cells, as they lie in native pixel data
            return self._significant(self._decompress(bytes(content)), self._high_bit)
        if is_encapsulated(str(self._syntax)):
            if self._high_bit != self._bits_stored - 1:
                text = f"HighBit {self._high_bit} of {self._bits_stored} bits, compressed: where they lie is not known"
                raise UnsuitableInput(ReasonCode.UNREADABLE, text)
            return self._significant(self._decompress(bytes(content)), self._high_bit)
        order = "<" if self._syntax.is_little_endian else ">"
        kind = f"{order}u{self._bits_allocated // 8}"
        return self._significant(np.frombuffer(content, kind).reshape(self._shape), self._high_bit)

    def _significant(self, values: _StoredValues, high_bit: int) -> _StoredValues:
        """Sign-extended where the header says signed."""
        wide = values.astype(np.int64)
        wide >>= high_bit + 1 - self._bits_stored
        wide &= (1 << self._bits_stored) - 1
        if self._signed:
            sign = 1 << (self._bits_stored - 1)
            wide = (wide ^ sign) - sign
        return wide

    def _decompress(self, content: bytes) -> _StoredValues:
        try:
            if self._syntax in _JPEG_LOSSLESS:
                return decode_jpeg_lossless(content, self._shape)
            with quiet_pydicom():
                return self._decompress_by_plugin(content)
        except (RuntimeError, *PARSE_FAULTS) as error:
            text = f"pixels ({self._syntax.name}) cannot be decoded ({type(error).__name__})"
            raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error

    def _decompress_by_plugin(self, content: bytes) -> _StoredValues:
        plugin = _DECODERS.get(str(self._syntax))
        if self._syntax == JPEGExtended12Bit and self._bits_stored != 8:
            plugin = None  # Pillow decodes 8 bits only
        decoder = get_decoder(self._syntax) if plugin else None
        if decoder is None or plugin not in decoder.available_plugins:
            text = f"transfer syntax {self._syntax.name} cannot be decoded here"
            raise UnsuitableInput(ReasonCode.UNSUPPORTED_OBJECT, text)
        options: dict[str, Any] = {
            "rows": self._shape[0],
            "columns": self._shape[1],
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "pixel_representation": int(self._signed),
            "bits_allocated": self._bits_allocated,
            # of RLE all bits are asked for: pydicom would cut them to those stored as if they lay lowest
            "bits_stored": self._bits_allocated if self._syntax == RLELossless else self._bits_stored,
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        }
        if self._syntax != RLELossless:
            check_codestream(content, self._shape)
        source = encapsulate([content])
        values, _ = decoder.as_array(source, index=0, raw=True, decoding_plugin=str(plugin), **options)
        if values.shape != self._shape:
            raise UnsuitableInput(ReasonCode.UNREADABLE, f"decoded pixels have shape {values.shape}")
        return np.asarray(values)
