"""De-identified copies of an exam's files: all of them or none, and still an exam that is measured as before."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from pydicom.dataset import FileDataset

from config.deidentification import Deidentification
from config.protocol_cards import ElementAddress, ProtocolCard, asked_elements
from dicom_io.deidentification_actions import Keeping
from dicom_io.deidentify import deidentify
from dicom_io.headers import ImageFacts, facts_from_bytes
from dicom_io.identity_words import check_nothing_left, identity_words
from dicom_io.pixels import read_stored
from dicom_io.pseudonyms import Pseudonyms, TrialIdentity
from dicom_io.raw_header import RawHeader, parse, quiet_pydicom
from dicom_io.safe_private import SafePrivate
from dicom_io.series import ExamAssembly, assemble_exam
from dicom_io.volume_reader import find_dicom_files
from processing.burned_in_text import shows_text
from processing.refusal import ReasonCode, UnsuitableInput


@dataclass(frozen=True, slots=True)
class DeidentifiedFile:
    """A file and its copy. ``sop_instance_uid`` and ``original_uid``: of the copy, and of what it was made from."""

    path: Path
    sop_instance_uid: str
    original_uid: str
    original_series_uid: str
    original_study_uid: str
    original_patient_id: str


def keeping_of(settings: Deidentification, cards: Sequence[ProtocolCard]) -> Keeping:
    """What stays beside the built-in rules: what the trial's plan says, and the elements that protocol cards read."""
    asked = (*asked_elements(cards), *settings.safe_private)
    private = [_safe_private(one) for one in asked if one.keyword is None]
    keywords = frozenset(one.keyword for one in asked if one.keyword is not None)
    words = frozenset(word.lower() for word in settings.vocabulary)
    return Keeping(words, tuple(private), keywords, settings.birth_year)


def _safe_private(address: ElementAddress) -> SafePrivate:
    group, offset = int(address.group or "0", 16), int(address.offset or "0", 16)
    return SafePrivate(group, address.creator or "", offset, "asked for by a protocol card or the plan")


def deidentified_bytes(
    content: bytes,
    identity: TrialIdentity,
    key: bytes,
    *,
    keeping: Keeping,
    is_own: bool = False,
    document: bytes | None = None,
) -> tuple[bytes, FileDataset]:
    """The file of a de-identified copy, with its data set, after the second net was cast.

    Raises:
        UnsuitableInput: as :func:`dicom_io.deidentify.deidentify`; REVIEW_REQUIRED, a word of the identity would
            remain.
    """
    source = parse(content)
    cleaned = deidentify(source, identity, key, keeping=keeping, is_own=is_own, document=document)
    with quiet_pydicom():
        check_nothing_left(cleaned, identity_words(source), _texts_of(identity))
        stream = BytesIO()
        cleaned.save_as(stream, enforce_file_format=True)
    return stream.getvalue(), cleaned


def _texts_of(identity: TrialIdentity) -> tuple[str, ...]:
    return (
        *(identity.protocol_id, identity.protocol_name, identity.site_id, identity.site_name, identity.subject_id),
        *(identity.time_point_id, identity.sponsor, identity.coordinating_center),
    )


def deidentify_exam(
    paths: Sequence[Path],
    out: Path,
    identity: TrialIdentity,
    key: bytes,
    *,
    settings: Deidentification,
    cards: Sequence[ProtocolCard],
    pixels_seen: bool = False,
) -> tuple[DeidentifiedFile, ...]:
    """Write de-identified copies of the images of one visit into a new folder; the same bytes whenever it is done.

    Args:
        paths: files, or folders searched to any depth; all must be MR images of one patient.
        out: does not exist, or is empty; appears whole or not at all.
        identity: who the subject is in the trial, and the visit.
        key: the trial's.
        settings: of the trial's plan.
        cards: the node's protocol cards; what they read stays readable.
        pixels_seen: a person has looked for text in the pixels, so that the detector is not asked.

    Raises:
        UnsuitableInput: the first reason why one of the files cannot be de-identified, or why the exam could not be
            measured as before; IDENTITY_CONFLICT, the files are of several patients.
        OSError: a file cannot be read, or the folder cannot be written.
    """
    keeping = keeping_of(settings, cards)
    elements = asked_elements(cards)
    before: list[ImageFacts] = []
    after: list[ImageFacts] = []
    made = []
    files = find_dicom_files(paths)
    if not files:
        raise UnsuitableInput(ReasonCode.UNREADABLE, "there is no file")
    with _whole_folder(out) as partial:
        for number, path in enumerate(files, 1):
            try:
                facts, file, cleaned = _copy(path, partial, identity, key, keeping, elements, pixels_seen=pixels_seen)
            except UnsuitableInput as error:
                detail = f"file {number} of {len(files)}: {error.reason.detail}"
                raise UnsuitableInput(error.reason.code, detail) from error
            made.append(replace(file, path=out / file.path.name))
            before.extend(facts)
            after.extend(cleaned)
        if len({facts.patient_key for facts in before}) > 1:
            raise UnsuitableInput(ReasonCode.IDENTITY_CONFLICT, "the files are of more than one patient")
        if len({file.sop_instance_uid for file in made}) < len(made):
            raise UnsuitableInput(ReasonCode.INSTANCE_CONFLICT, "two files have the same SOP Instance UID")
        check_still_measured(before, after, cards, Pseudonyms(key, identity.protocol_id, identity.subject_id))
    return tuple(sorted(made, key=lambda file: file.path))


def _copy(
    path: Path,
    folder: Path,
    identity: TrialIdentity,
    key: bytes,
    keeping: Keeping,
    elements: Sequence[ElementAddress],
    *,
    pixels_seen: bool,
) -> tuple[tuple[ImageFacts, ...], DeidentifiedFile, tuple[ImageFacts, ...]]:
    content = path.read_bytes()
    copied, cleaned = deidentified_bytes(content, identity, key, keeping=keeping)
    facts = facts_from_bytes(content, path, elements)
    if not pixels_seen and any(shows_text(image) for image in read_stored(facts)):
        text = "its pixels look as if they showed text; a person must look (--pixels-seen-by)"
        raise UnsuitableInput(ReasonCode.REVIEW_REQUIRED, text)
    uid, patient = str(cleaned.SOPInstanceUID), RawHeader(parse(content)).text("PatientID")
    target = folder / f"{uid}.dcm"
    target.write_bytes(copied)
    file = DeidentifiedFile(target, uid, facts[0].sop_instance_uid, facts[0].series_uid, facts[0].study_uid, patient)
    return facts, file, facts_from_bytes(copied, target, elements)


#: Facts that de-identification changes; all others must be equal.
_CHANGED = (
    *("path", "sop_instance_uid", "study_uid", "series_uid", "frame_of_reference_uid", "patient_key", "study_date"),
    *("series_description", "protocol_name", "sequence_name", "acquisition_time"),
)


def check_still_measured(
    before: Sequence[ImageFacts],
    after: Sequence[ImageFacts],
    cards: Sequence[ProtocolCard],
    pseudonyms: Pseudonyms,
) -> None:
    """Make sure that an exam is assembled from its de-identified headers as from its own.

    Raises:
        UnsuitableInput: PROTOCOL_DEVIATION, naming what would be read otherwise.
    """
    for one, other in zip(before, after, strict=True):
        for name in (field for field in ImageFacts.__dataclass_fields__ if field not in _CHANGED):
            if getattr(one, name) != getattr(other, name):
                raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, f"{name} would not be read as before")
    mine, theirs = assemble_exam(before, cards), assemble_exam(after, cards)
    uids = {one.key: (pseudonyms.uid(one.key[0]), one.key[1]) for one in before}
    if _grid(mine, uids) != _grid(theirs, {}):
        found = " + ".join(theirs.protocols) or theirs.state.value
        wanted = " + ".join(mine.protocols) or mine.state.value
        text = f"read as {wanted} before, it would be read as {found}; deidentification.vocabulary may lack a word"
        raise UnsuitableInput(ReasonCode.PROTOCOL_DEVIATION, text)


def _grid(assembly: ExamAssembly, uids: dict[tuple[str, int], tuple[str, int]]) -> object:
    """Cards, times, and which image stands at which time and slice."""
    measured = [
        (
            series.card.name,
            series.times_ms,
            [[uids.get(image.key, image.key) for image in row] for row in series.grid],
        )
        for series in assembly.measured
    ]
    return assembly.state, measured


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder that takes the name ``out`` when the block ends well, and vanishes when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o750)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
