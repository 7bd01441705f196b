"""The Modality LUT (PS3.3 C.11.1): a table in place of slope and intercept, from stored values to what was measured."""

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_io.raw_header import RawHeader
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ModalityLut:
    """``values[n]`` is the value of stored value ``first + n``; what lies outside has the value of the nearest end."""

    first: int
    values: npt.NDArray[np.uint16]

    @property
    def sha256(self) -> str:
        """Equal for equal tables."""
        return hashlib.sha256(f"{self.first}\n".encode() + self.values.astype("<u2").tobytes()).hexdigest()

    def apply(self, stored: npt.NDArray[np.integer]) -> FloatArray:
        """The values of stored values, of the same shape."""
        places = np.clip(stored.astype(np.int64) - self.first, 0, len(self.values) - 1)
        return self.values[places].astype(np.float32)


def read_modality_lut(header: RawHeader) -> ModalityLut | None:
    """The table of an object; None when it has none. To be called in :func:`dicom_io.raw_header.quiet_pydicom`.

    Raises:
        UnsuitableInput: UNREADABLE, when it does not hold what it announces.
    """
    item = header.item("ModalityLUTSequence")
    if item is None:
        return None
    descriptor, content = item.raw("LUTDescriptor") or b"", item.raw("LUTData") or b""
    order = "<" if item.is_little_endian("LUTDescriptor") else ">"
    if len(descriptor) != 6:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "LUTDescriptor of the Modality LUT has not three values")
    # VR "US or SS": the first stored value is signed where pixels are (PS3.3 C.11.1.1)
    n_values, first, bits = struct.unpack(f"{order}3H", descriptor)
    if header.unsigned("PixelRepresentation") == 1 and first >= 0x8000:
        first -= 0x10000
    n_values = n_values or 0x10000
    if bits not in range(8, 17):
        raise UnsuitableInput(ReasonCode.UNREADABLE, f"a Modality LUT of {bits} bits")
    if len(content) == 2 * n_values:
        values = np.frombuffer(content, f"{order}u2")
    elif bits == 8 and len(content) in (n_values, n_values + n_values % 2):
        values = np.frombuffer(content, np.uint8)[:n_values]
    else:
        text = f"the Modality LUT holds {len(content)} bytes for {n_values} values"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text)
    return ModalityLut(first, values.astype(np.uint16))
