"""Reasons without the names that a site wrote into the description of a series, before they are kept or told."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from dicom_io.header_excerpt import struck_out_texts
from dicom_io.headers import ImageFacts
from processing.refusal import UnsuitableInput

#: A detail quotes no more of a text than this (:mod:`dicom_io.protocols`).
_LONGEST_QUOTE = 70


def without_names(details: Sequence[str], paths: Iterable[Path]) -> tuple[str, ...]:
    """The details, with what in these files' free texts names the patient or the staff struck out."""
    struck_out: dict[str, str] = {}
    for path in paths:
        try:
            struck_out |= struck_out_texts(path)
        except (UnsuitableInput, OSError):
            continue  # what cannot be read is quoted nowhere
    return tuple(_without(detail, struck_out) for detail in details)


def quoted_files(details: Sequence[str], facts: Iterable[ImageFacts]) -> list[Path]:
    """One file for each free text that a detail quotes, and each patient: only they need to be read."""
    said = "\n".join(details)
    return list(
        {
            (one.series_description, one.protocol_name, one.patient_key): one.path
            for one in facts
            if any(text and _quote(text) in said for text in (one.series_description, one.protocol_name))
        }.values()
    )


def _quote(text: str) -> str:
    return repr(text)[:_LONGEST_QUOTE]


def _without(detail: str, struck_out: dict[str, str]) -> str:
    for text, struck in sorted(struck_out.items(), key=lambda pair: -len(pair[0])):
        # Also where a detail quotes only the beginning of the text.
        detail = detail.replace(text, struck).replace(_quote(text), _quote(struck))
    return detail
