"""Elements of any kind whose value tells the images of a slice apart, in the same way at every slice.

Where no attribute that is known to hold a time does so, one of these may: a person who knows the sequence can say.
"""

import json
import math
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicom_io.headers import ImageFacts
from dicom_io.protocol_explanation import slice_numbers
from dicom_io.raw_header import parse
from dicom_io.raw_values import decode_text

_PIXEL_GROUPS = range(0x7FE0, 0x10000)
_NUMBER_TEXTS = ("DS", "IS", "LO", "SH", "CS", "ST", "LT", "UN", None)
_FORMATS = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "I", "SL": "i"}
_LONGEST = 32  # bytes of one number


@dataclass(frozen=True, slots=True)
class DifferingElement:
    """One element: its name, how a card's ``element`` addresses it, and its values in ascending order."""

    name: str
    address: str
    values: tuple[float, ...]


def differing_elements(images: Sequence[ImageFacts]) -> tuple[DifferingElement, ...]:
    """The elements of the main data set that differ between all images of a slice and repeat at each slice.

    Args:
        images: of one scan, each image a file of its own; of multi-frame objects nothing is found.

    Raises:
        UnsuitableInput: UNREADABLE, when a file is no longer the one that was read before.
        OSError: a file cannot be read.
    """
    if any(one.frame_number is not None for one in images):
        return ()
    at_slice: defaultdict[str, defaultdict[int | None, set[float]]] = defaultdict(lambda: defaultdict(set))
    addresses: dict[str, str] = {}
    numbers = slice_numbers(images)
    for one, number in zip(images, numbers, strict=True):
        for name, address, value in _numbers_of(parse(one.path.read_bytes())):
            at_slice[name][number].add(value)
            addresses[name] = address
    n_times = max((numbers.count(number) for number in set(numbers)), default=0)
    found = []
    for name, slices in at_slice.items():
        sets = list(slices.values())
        if len(sets) == len(set(numbers)) and len(sets[0]) == n_times > 2 and all(one == sets[0] for one in sets):
            found.append(DifferingElement(name, addresses[name], tuple(sorted(sets[0]))))
    return tuple(sorted(found, key=lambda one: one.name))


def _numbers_of(dataset: Dataset) -> list[tuple[str, str, float]]:
    """Name, address and value of every element that holds one number."""
    found: list[tuple[str, str, float]] = []
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset decodes its values
        element = dataset.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
            continue
        if tag.group in _PIXEL_GROUPS or len(element.value) > _LONGEST:
            continue
        value = _number(element)
        named = _name_of(dataset, tag.group, tag.element) if value is not None else None
        if value is not None and named is not None:
            found.append((*named, value))
    return found


def _number(element: RawDataElement) -> float | None:
    content = element.value or b""
    code = _FORMATS.get(element.VR or "")
    if code is not None:
        order = "<" if element.is_little_endian else ">"
        size = struct.calcsize(code)
        value = float(struct.unpack(order + code, content)[0]) if len(content) == size else math.nan
    elif element.VR in _NUMBER_TEXTS:
        try:
            value = float(decode_text(content, "latin-1"))
        except ValueError:
            return None
    else:
        return None
    return round(value, 4) if math.isfinite(value) else None


def _name_of(dataset: Dataset, group: int, number: int) -> tuple[str, str] | None:
    """How an element is called, and how a card addresses it; None for a private one without a creator."""
    if group % 2 == 0:
        keyword = keyword_for_tag((group << 16) | number)
        return (keyword, f"{{keyword: {keyword}}}") if keyword else None
    block = dataset.get_item((group << 16) | number >> 8, keep_deferred=True) if number > 0xFF else None
    creator = decode_text(block.value, "latin-1") if block is not None and isinstance(block.value, bytes) else ""
    if not creator:
        return None
    offset = f"{number & 0xFF:02X}"
    name = f"({group:04X},xx{offset}) {creator}"
    return name, f"{{group: '{group:04X}', creator: {json.dumps(creator)}, offset: '{offset}'}}"
