"""Which disc a segment is, as its codes, its label or its tracking UID say; never a guess."""

import re
from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_io.codes import DISC_CODES
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Level

#: "L4/L5", "L4-5 disc", "disc_L4L5", "Th12/L1", "l5 - s1". The lower vertebra may be named by its number alone.
_LABEL = re.compile(
    r"(?<![a-z0-9])(t12|th12|d12|l[1-5])[\s/_.\u2013-]*(l[1-5]|s1|(?<=[\s/_.\u2013-])[1-5])(?![a-z0-9])"
)
_CODED = ("SegmentedPropertyTypeCodeSequence", "AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")


def level_of(segment: Dataset, tracked: Mapping[str, Level] | None = None) -> Level | None:
    """The disc that a segment is, or None where it does not say that it is one.

    Codes (CID 7604, as property type or as anatomic region) come before the label, the label before the tracking UID:
    a tool may keep that of another disc when a segment is copied. A code and a label must not contradict each other.

    Args:
        segment: an item of SegmentSequence.
        tracked: tracking UIDs of the subject's discs, as our own segmentations have them.

    Raises:
        UnsuitableInput: LEVELS_AMBIGUOUS, it says that it is two different discs.
    """
    coded, labelled = set(_coded_levels(segment)), _labelled_levels(segment)
    said = coded | labelled
    if len(said) > 1:
        names = " and ".join(level.name for level in sorted(said))
        text = f"segment {segment.get('SegmentNumber')} is called {names} by its codes and its label"
        raise UnsuitableInput(ReasonCode.LEVELS_AMBIGUOUS, text)
    if said:
        return said.pop()
    return (tracked or {}).get(str(segment.get("TrackingUID") or ""))


def _coded_levels(segment: Dataset) -> Iterator[Level]:
    for keyword in _CODED:
        for item in segment.get(keyword) or ():
            code = Code(str(item.get("CodeValue")), str(item.get("CodingSchemeDesignator")), "")
            yield from (level for level, known in DISC_CODES.items() if code == known)  # SRT codes are equal to SCT's


def _labelled_levels(segment: Dataset) -> set[Level]:
    """What the label names, else what the description does."""
    for keyword in ("SegmentLabel", "SegmentDescription"):
        found = {
            level
            for upper, lower in _LABEL.findall(str(segment.get(keyword) or "").lower())
            if (level := _level_between(upper, lower)) is not None
        }
        if found:
            return found
    return set()


def _level_between(upper: str, lower: str) -> Level | None:
    """The disc between two vertebrae; None for two that are no neighbours."""
    above = "T12" if upper.endswith("12") else upper.upper()
    below = lower.upper() if not lower.isdigit() else ("S1" if (above, lower) == ("L5", "1") else f"L{lower}")
    return Level.__members__.get(above + below)
