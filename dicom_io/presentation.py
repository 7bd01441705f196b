"""SOP classes and transfer syntaxes the node negotiates, and what DIMSE statuses mean."""

from collections.abc import Iterable
from enum import IntEnum
from functools import cache

from pynetdicom import build_context
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext
from pynetdicom.sop_class import Verification

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

#: C-ECHO, which whoever may open an association may ask.
VERIFICATION = str(Verification)

#: Transfer syntaxes accepted for storage. Received bytes are kept as they come, so no decoder is needed (PS3.5 A).
STORAGE_TRANSFER_SYNTAXES = (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    EXPLICIT_BIG,
    DEFLATED,
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
)


class StoreStatus(IntEnum):
    """Answers to a C-STORE request (PS3.4 B.2.3, PS3.7 C.5)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    KEPT_WITH_WARNING = 0xB000


def is_stored(status: int) -> bool:
    """True if the peer says that it holds the object: Success, or a warning (PS3.7 C.1-C.3)."""
    return status == 0 or status == 0x0001 or 0xB000 <= status <= 0xBFFF or status in (0x0107, 0x0116)


def describe(status: int) -> str:
    """A C-STORE status in words, with its number."""
    if status == 0:
        text = "success"
    elif is_stored(status):
        text = "stored with a warning"
    elif 0xA700 <= status <= 0xA7FF:
        text = "refused: out of resources"
    elif 0xA900 <= status <= 0xA9FF:
        text = "refused: data set does not match SOP class"
    elif 0xC000 <= status <= 0xCFFF:
        text = "refused: cannot understand"
    elif status == 0x0122:
        text = "refused: SOP class not supported"
    elif status == 0x0124:
        text = "refused: not authorised"
    else:
        text = "refused"
    return f"0x{status:04X} {text}"


#: Segmentations of voxels (PS3.4 B.5): with a bit for each segment, and as a label map (Supplement 243).
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


@cache
def accepted_contexts() -> tuple[PresentationContext, ...]:
    """What the node accepts: Verification, and every storage SOP class in every storage transfer syntax."""
    known = [str(one.abstract_syntax) for one in AllStoragePresentationContexts]  # without label maps in pynetdicom 3.0
    classes = dict.fromkeys((*known, *SEGMENTATION_CLASSES))
    storage = [build_context(one, list(STORAGE_TRANSFER_SYNTAXES)) for one in classes]
    return (build_context(Verification), *storage)


def proposed_contexts(kinds: Iterable[tuple[str, str]]) -> tuple[PresentationContext, ...]:
    """One context for each (SOP class, transfer syntax) of the files to send.

    Each transfer syntax stands in a context of its own, so that the peer cannot accept a class only in a syntax
    in which no file is encoded.

    Raises:
        ValueError: more than the 128 contexts an association can hold (PS3.8 9.3.2.2).
    """
    distinct = sorted(set(kinds))
    if len(distinct) > 128:
        raise ValueError("an association holds at most 128 presentation contexts")
    return tuple(build_context(sop_class, syntax) for sop_class, syntax in distinct)
