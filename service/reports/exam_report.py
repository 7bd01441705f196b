"""The exam report: what a reader wants on the first page, how far it can be trusted on the second."""

from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from config.settings import SubjectLine
from dicom_io.exam_heading import ExamHeading
from processing.measurements import measured_levels
from processing.report_pictures import draw_maps_picture, draw_slices_picture
from processing.results import ExamResult
from service.reports import exam_tables, words
from service.reports.document import Block, Document, Fact, Facts, Page, Picture, Text
from service.reports.exam_tables import quantities_of
from service.result_versions import Edition

TITLE: Final = "Relaxation times of the lumbar discs"
VOLUMES_TITLE: Final = "Volumes of the lumbar discs"
_CITATION = "Iriondo C, Pedoia V, Majumdar S. Magn Reson Med 2020;84:1376–1390, doi\N{NO-BREAK SPACE}10.1002/mrm.28210."
_MOST_DOUBTS = 4  # lines of the notice on the first page
_OF_NETWORKS = {"disc_threshold": "disc from probability", "inference_provider": "run by", "model_sha256": "SHA-256"}


def exam_report(
    result: ExamResult, heading: ExamHeading, subject: SubjectLine, edition: Edition | None = None
) -> Document:
    """The report of a measured exam.

    Args:
        result: with at least one measured disc.
        heading: of the exam.
        subject: what of it tells whose exam it is.
        edition: which earlier result this one replaces; None for the first.

    Raises:
        ValueError: the result has no disc.
    """
    first = Page(_title(result), (_about(result, heading, subject, edition), *_findings(result)))
    second = Page("Quality control", tuple(_quality(result)))
    return Document(_title(result), words.USE, _footer(result.versions), (first, second))


def _title(result: ExamResult) -> str:
    return TITLE if quantities_of(result) else VOLUMES_TITLE


def _about(result: ExamResult, heading: ExamHeading, subject: SubjectLine, edition: Edition | None) -> Facts:
    field = "" if heading.field_strength_t is None else f", {heading.field_strength_t:g} T"
    times = "; ".join(
        f"{words.quantity_names([quantity])} {', '.join(f'{time:g}' for time in one)} ms"
        for quantity, one in result.times_ms.items()
    )
    replaced = "" if edition is None else f", version {edition.version}: replaces version {edition.replaces}"
    facts = (
        Fact("Subject", subject_line(heading, subject)),
        Fact("Exam of", heading.study_date.isoformat() if heading.study_date else words.NONE),
        Fact("Scanner", f"{heading.scanner or words.NONE}{field}"),
        Fact("Protocol", result.versions.get("protocol", words.NONE)),
        Fact("Times", times or "one image for each slice"),
        Fact("Analysed", f"{moment(result.produced_at)}{replaced}"),
    )
    return Facts("", facts)


def subject_line(heading: ExamHeading, subject: SubjectLine) -> str:
    """Whose exam it is, as the policy shows it; never a name."""
    if subject is SubjectLine.NONE:
        return "not shown"
    if subject is SubjectLine.PATIENT_ID:
        return heading.patient_id or "no patient ID"
    if not heading.trial_subject_id:
        return "not in a trial"
    parts = {
        "": heading.trial_subject_id,
        "trial ": heading.trial_protocol_id,
        "site ": heading.trial_site_id,
        "visit ": heading.trial_time_point_id,
    }
    return ", ".join(f"{name}{value}" for name, value in parts.items() if value)


def moment(time: datetime) -> str:
    """Date and time to the minute, UTC."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _findings(result: ExamResult) -> list[Block]:
    parts = exam_tables.part_table(result)
    excluded = exam_tables.excluded_lines(result)
    return [
        words.review_notice(result.reasons, _MOST_DOUBTS),
        *([words.correction_notice(result.correction)] if result.correction is not None else []),
        _maps_picture(result),
        exam_tables.disc_table(result),
        *([parts] if parts is not None else []),
        *([Text("Excluded voxels", (" ".join(excluded),))] if excluded else []),
        Text("Method", (_method(result),)),
    ]


def _quality(result: ExamResult) -> list[Block]:
    tables = (
        exam_tables.segmentation_table(result),
        exam_tables.registration_table(result),
        exam_tables.echo_table(result),
    )
    return [
        *([words.flags("To be checked", result.reasons)] if result.reasons else []),
        *([_slices_picture(result)] if _n_slices(result) > 1 else []),
        *(table for table in tables if table is not None),
        Facts("Made with", _made_with(result.versions), in_row=1),
    ]


def _method(result: ExamResult) -> str:
    """Three sentences and the citation."""
    n_members = int(result.versions.get("model_members", "1"))
    networks = "a network" if n_members == 1 else f"{n_members} networks"
    found = f"The discs were outlined on the first image by {networks} and named upwards from the sacrum."
    if result.correction is not None and result.correction.automatic_refusal is not None:
        found = "The discs were drawn by a person."
    elif result.correction is not None:
        found = "The discs were drawn or changed by a person on what networks had outlined."
    quantities = quantities_of(result)
    if not quantities:
        return f"{found} Their volume is that of all voxels within the outline. Method: {_CITATION}"
    times = words.quantity_names(quantities)
    fitted = f"In each of their voxels {times} {'was' if len(quantities) == 1 else 'were'} fitted as a mono-exponential"
    fitted += " decay; a voxel without a plausible fit has no value."
    parts = "Each disc was registered to the disc of its level in an atlas, which tells nucleus and annuli."
    return f"{found} {fitted} {parts} Method: {_CITATION}"


def _maps_picture(result: ExamResult) -> Picture:
    quantities = quantities_of(result)
    if not quantities:
        return _picture(
            draw_maps_picture(result),
            "Middle slice with the named discs outlined, and its part around the discs, larger.",
            "Middle slice: the discs as they were outlined.",
        )
    maps = words.quantity_names(quantities)
    return _picture(
        draw_maps_picture(result),
        f"Middle slice with the named discs outlined, and {maps} of the discs in colour on the same slice.",
        f"Middle slice: the discs as they were outlined, and their {maps} in ms. Colours mean the same in all exams.",
    )


def _made_with(versions: Mapping[str, str]) -> tuple[Fact, ...]:
    """What decides the numbers, each on a line, as far as it is known."""
    get = versions.get
    n_members = get("model_members", "1")
    networks = [f"{get('model', '')} {get('model_version', '')}".strip()]
    networks += [f"{n_members} networks"] if n_members != "1" else []
    networks += [f"{name} {versions[key]}" for key, name in _OF_NETWORKS.items() if key in versions]
    atlas = [get("atlas", "")] + [f"SHA-256 {versions[key]}" for key in ("atlas_sha256",) if key in versions]
    facts = {
        "discnode": get("discnode", ""),
        "settings": get("settings_digest", ""),
        "protocol card": get("protocol", ""),
        "networks": ", ".join(networks),
        "lowest disc": get("lowest_disc", ""),
        "fit": words.in_words(get("fit", "")),
        "atlas": ", ".join(part for part in atlas if part),
        "registration": get("registration_preset", ""),
    }
    return tuple(Fact(name, value) for name, value in facts.items() if value)


def _n_slices(result: ExamResult) -> int:
    """How many slices the discs lie in."""
    return 0 if result.mask is None else int(np.count_nonzero(result.mask.levels.any(axis=(1, 2))))


def _slices_picture(result: ExamResult) -> Picture:
    n_slices = _n_slices(result)
    levels = len(measured_levels(result.mask)) if result.mask is not None else 0
    return _picture(
        draw_slices_picture(result),
        f"{n_slices} slices through the discs with the outlines of {levels} discs.",
        "Outlines in the slices through the discs.",
    )


def _picture(pixels: npt.NDArray[np.uint8], description: str, caption: str) -> Picture:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6)
    height, width = pixels.shape[:2]
    return Picture(stream.getvalue(), width, height, description, caption)


def _footer(versions: Mapping[str, str]) -> str:
    return f"discnode {versions.get('discnode', '')}, settings {versions.get('settings_digest', '')}"
