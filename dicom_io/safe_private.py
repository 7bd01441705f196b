"""Private elements that may stay (PS3.15 E.3.10, Retain Safe Private Option): by creator, and with a number only."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dicom_io.raw_values import (
    BINARY_NUMBERS,
    decode_text,
    element_of,
    is_sequence,
    raw_bytes,
    value_representation,
)

_NUMERIC_TEXT = re.compile(rb"[-+0-9.eE\\ ]*\0?")


@dataclass(frozen=True, slots=True)
class SafePrivate:
    """A private element whose number may stay. ``form``: of what its text must be, for one that is no number."""

    group: int
    creator: str
    offset: int
    why: str
    form: str | None = None


#: Kept with a number (or of the form), by creator, wherever the creator has its block; everything else private goes.
SAFE_PRIVATE_ELEMENTS: tuple[SafePrivate, ...] = (
    SafePrivate(0x2001, "Philips Imaging DD 001", 0x08, "phase number"),
    SafePrivate(0x2001, "Philips Imaging DD 001", 0x0A, "slice number"),
    SafePrivate(0x2001, "Philips Imaging DD 001", 0x18, "number of slices"),
    SafePrivate(0x2001, "Philips Imaging DD 001", 0x1B, "prepulse delay"),
    SafePrivate(0x2005, "Philips MR Imaging DD 001", 0x0D, "scale intercept"),
    SafePrivate(0x2005, "Philips MR Imaging DD 001", 0x0E, "scale slope"),
    SafePrivate(0x2005, "Philips MR Imaging DD 001", 0x11, "magnitude or phase", r"[MPRI]"),
    *(SafePrivate(0x0019, "GEMS_ACQU_01", 0xA7 + n, f"user data {n}") for n in range(23)),
    SafePrivate(0x0043, "GEMS_PARM_01", 0x2F, "magnitude, phase, real or imaginary"),
    SafePrivate(0x0043, "GEMS_PARM_01", 0x38, "user data 25 to 48"),
)
#: Private sequences whose items are kept by these rules: Philips repeats the attributes of classic MR there.
SAFE_PRIVATE_SEQUENCES: tuple[SafePrivate, ...] = (
    SafePrivate(0x2005, "Philips MR Imaging DD 005", 0x0E, "attributes of all frames"),
    SafePrivate(0x2005, "Philips MR Imaging DD 005", 0x0F, "attributes of one frame"),
)


@dataclass(frozen=True, slots=True)
class FoundPrivate:
    """A private element that is on the list, where it stands."""

    tag: int
    safe: SafePrivate
    is_sequence: bool

    @property
    def block(self) -> int:
        """The tag of its creator."""
        return self.tag >> 16 << 16 | self.tag >> 8 & 0xFF


def found_private(dataset: Dataset, more: Iterable[SafePrivate]) -> Iterator[FoundPrivate]:
    """The elements of a data set that are on the list, or on that of a trial; by creator, as PS3.5 7.8.1 has it."""
    elements, sequences = _by_address((*SAFE_PRIVATE_ELEMENTS, *more)), _by_address(SAFE_PRIVATE_SEQUENCES)
    tags = [int(tag) for tag in dataset.keys() if int(tag) >> 16 & 1]  # noqa: SIM118 - else values are decoded
    creators = {
        tag: decode_text(raw_bytes(element_of(dataset, tag)), "latin-1").casefold()
        for tag in tags
        if 0x10 <= tag & 0xFFFF <= 0xFF
    }
    for tag in tags:
        address = (tag >> 16, creators.get(tag >> 16 << 16 | tag >> 8 & 0xFF, ""), tag & 0xFF)
        if tag & 0xFFFF < 0x1000 or not (address in elements or address in sequences):
            continue
        has_items = is_sequence(dataset, tag)
        safe = (sequences if has_items else elements).get(address)
        if safe is not None:
            yield FoundPrivate(tag, safe, has_items)


def _by_address(several: Iterable[SafePrivate]) -> dict[tuple[int, str, int], SafePrivate]:
    return {(one.group, one.creator.casefold(), one.offset): one for one in several}


def safe_vr(element: Any, found: FoundPrivate) -> str | None:
    """The VR with which an element is kept; None where its value is neither a number nor of the form allowed."""
    value = raw_bytes(element)
    vr = value_representation(element, found.tag, found.safe.creator)
    if vr in BINARY_NUMBERS and element.VR in (vr, None):
        return vr
    text = decode_text(value, "latin-1")
    if _NUMERIC_TEXT.fullmatch(value) or (found.safe.form and re.fullmatch(found.safe.form, text)):
        return str(element.VR or vr)
    if vr in BINARY_NUMBERS and element.VR == "UN" and len(value) in (2, 4, 8):
        return "UN"  # implicit little endian bytes, whose VR was lost on the way (PS3.5 6.2.2)
    return None
