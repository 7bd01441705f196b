"""A report rendered anew for those outside: the subject in the trial, shifted dates, no word of an identity."""

import re
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass, replace
from datetime import date
from typing import Any, TypeVar

from dicom_io.header_excerpt import strike_out
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity
from service.reports.document import Document, Fact, Facts, Page, Picture
from service.reports.pdf import pdf_file

_SUBJECT = "Subject"
_DATE = re.compile(r"(?<![0-9])(\d{4})-(\d\d)-(\d\d)(?![0-9])")
_UID = re.compile(r"(?<![0-9.])[0-2](?:\.[0-9]+){3,}(?!\.?[0-9])|(?<![0-9.])2\.25\.[0-9]+")

_Record = TypeVar("_Record")


def deidentified_pdf(
    document: Document, identity: TrialIdentity, pseudonyms: Pseudonyms, words: Collection[str]
) -> bytes:
    """The PDF of a report as it may leave the hospital; the same bytes for the same report.

    Every date in it is shifted, every UID is mapped, and words of the identity (``words``, in lower case) are struck
    out. Its pictures show no identity; their descriptions are no part of a PDF.
    """
    return pdf_file(deidentified_document(document, identity, pseudonyms, words))


def deidentified_document(
    document: Document, identity: TrialIdentity, pseudonyms: Pseudonyms, words: Collection[str]
) -> Document:
    """As :func:`deidentified_pdf`, before it is rendered."""

    def clean(text: str) -> str:
        text = _DATE.sub(lambda found: _shifted(found, pseudonyms), text)
        text = _UID.sub(lambda found: pseudonyms.uid(found[0]), text)
        return strike_out(text, words)

    subject = f"{identity.subject_id}, trial {identity.protocol_id}, site {identity.site_id}"
    subject += f", visit {identity.time_point_id}" if identity.time_point_id else ""
    pages = tuple(_page(page, clean, subject) for page in document.pages)
    return Document(clean(document.title), document.use, clean(document.footer), pages)


def _page(page: Page, clean: Callable[[str], str], subject: str) -> Page:
    blocks = [_with_texts(block, clean) for block in page.blocks]
    return Page(clean(page.title), tuple(_named(one, subject) if isinstance(one, Facts) else one for one in blocks))


def _named(block: Facts, subject: str) -> Facts:
    """Say whose it is as the trial does."""
    facts = tuple(Fact(one.name, subject if one.name == _SUBJECT else one.value) for one in block.facts)
    return replace(block, facts=facts)


def _with_texts(record: _Record, clean: Callable[[str], str]) -> _Record:
    """A record with every text in it, at any depth, cleaned."""
    changed = {one.name: _cleaned(getattr(record, one.name), clean) for one in fields(record)}  # type: ignore[arg-type]
    if isinstance(record, Picture):
        changed["png"] = record.png
    return replace(record, **changed)  # type: ignore[type-var]


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return type(value)(value) if type(value) is not str else clean(value)  # a Tone stays one
    if isinstance(value, tuple):
        return tuple(_cleaned(one, clean) for one in value)
    return _with_texts(value, clean) if is_dataclass(value) else value


def _shifted(found: re.Match[str], pseudonyms: Pseudonyms) -> str:
    try:
        return pseudonyms.shifted(date(int(found[1]), int(found[2]), int(found[3]))).isoformat()
    except (ValueError, OverflowError):
        return "date removed"
