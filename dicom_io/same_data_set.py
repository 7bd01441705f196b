"""Whether two files hold the same data set, in perhaps another encoding. Pixel data are compared in pieces."""

from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import BaseTag

from dicom_io.presentation import DEFLATED
from dicom_io.raw_header import PARSE_FAULTS, quiet_pydicom

_LARGE_BYTES = 1 << 16  # a longer value is left in its file
_PIECE_BYTES = 1 << 20
_UNDEFINED = 0xFFFFFFFF


def is_same_data_set(one: Path, other: Path) -> bool:
    """Whether two DICOM files hold equal elements, perhaps in different transfer syntaxes; False where in doubt.

    Raises:
        OSError: a file cannot be opened.
    """
    with one.open("rb"), other.open("rb"):
        pass  # from here on, an OSError is one of the parser's
    try:
        with quiet_pydicom():
            first, second = _read(one), _read(other)
            if first.keys() != second.keys():
                return False
            left = _left_in_files(first), _left_in_files(second)
            tags = left[0].keys() & left[1].keys()
            for tag in tags:
                del first._dict[tag], second._dict[tag]
            if first != second:
                return False
        return all(_is_same_value(one, left[0][tag], other, left[1][tag]) for tag in tags)
    except PARSE_FAULTS:
        return False


def _read(path: Path) -> FileDataset:
    read = dcmread(path, defer_size=_LARGE_BYTES)
    is_deflated = str(read.file_meta.get("TransferSyntaxUID", "")) == DEFLATED
    return dcmread(path) if is_deflated else read  # what is inflated has no place in the file


def _left_in_files(dataset: FileDataset) -> dict[BaseTag, RawDataElement]:
    """The elements whose values, plain bytes, were left in the file."""
    found = {}
    for tag, element in dataset._dict.items():
        if isinstance(element, RawDataElement) and element.value is None and element.length != 0:
            vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
            if vr.startswith("O"):
                found[tag] = element
    return found


def _is_same_value(one: Path, mine: RawDataElement, other: Path, others: RawDataElement) -> bool:
    """Compare values where they lie; one of undefined length together with the rest of its file."""
    if mine.length != others.length:
        return False
    left = None if mine.length == _UNDEFINED else mine.length
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(mine.value_tell)
        second.seek(others.value_tell)
        while left is None or left > 0:
            n_bytes = _PIECE_BYTES if left is None else min(left, _PIECE_BYTES)
            piece = first.read(n_bytes)
            if piece != second.read(n_bytes):
                return False
            if not piece:
                return left is None
            left = None if left is None else left - len(piece)
    return True
