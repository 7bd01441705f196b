"""Prepared training data: one file of slices for each annotated exam, and a manifest of what they are.

A prepared folder holds ``exams/*.npz``, ``folds.json`` and ``manifest.json``. Each npz has ``images`` (slices, rows,
columns) float32 and ``allowed``, the same shape, both as in :class:`models.training.slices.TrainingSlice`. The manifest
is written last: a folder without it is not prepared.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from models.preprocessing import CLASS_NAMES, SPACING_MM
from models.training.slices import TrainingSlice

FORMAT = "discnode.prepared/1"
MANIFEST = "manifest.json"
FOLDS = "folds.json"
_EXAMS = "exams"


class DataError(Exception):
    """Training data that cannot be used as they are; the text says what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class PreparedExam:
    """One exam of a prepared folder.

    ``known``: classes that are marked somewhere; ``open``: classes that some pixels may have without being marked.
    ``missing_levels``: discs L5S1 to L1L2 without annotation. ``sources``: name and SHA-256 of each file it came from.
    ``images_sha256``: digest of the prepared pixel values, which identifies the exam however its files are named.
    """

    subject: str
    visit: str
    dataset: str
    layout: str
    file: str
    file_sha256: str
    images_sha256: str
    slices: int
    known: tuple[str, ...]
    open: tuple[str, ...]
    missing_levels: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]


_EXAM_LINES = TypeAdapter(tuple[PreparedExam, ...])


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a prepared folder holds, in the order in which its slices are read."""

    exams: tuple[PreparedExam, ...]
    spacing_mm: float = SPACING_MM

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject once, sorted."""
        return tuple(sorted({exam.subject for exam in self.exams}))

    @property
    def slice_counts(self) -> dict[str, int]:
        """Subject -> number of slices over all exams."""
        return {name: sum(exam.slices for exam in self.exams if exam.subject == name) for name in self.subjects}

    @property
    def strata(self) -> dict[str, str]:
        """Subject -> the data sets and series it has; subjects that have the same are divided evenly over folds."""
        kinds: defaultdict[str, set[str]] = defaultdict(set)
        for exam in self.exams:
            series = f" {exam.visit}" if exam.layout == "spider" else ""  # there the "visit" is the sequence
            kinds[exam.subject].add(exam.dataset + series)
        return {name: ", ".join(sorted(held)) for name, held in kinds.items()}

    @property
    def images_sha256(self) -> dict[str, tuple[str, ...]]:
        """Subject -> the digests of its exams' pixel values."""
        return {
            name: tuple(exam.images_sha256 for exam in self.exams if exam.subject == name) for name in self.subjects
        }

    @property
    def digest(self) -> str:
        """One SHA-256 for the pixel values, annotations and subjects of all exams."""
        lines = sorted(f"{one.subject} {one.visit} {one.dataset} {one.file_sha256}\n" for one in self.exams)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_exam(
    folder: Path,
    slices: Sequence[TrainingSlice],
    *,
    visit: str,
    dataset: str,
    layout: str,
    missing_levels: Sequence[str] = (),
    sources: Sequence[tuple[str, str]] = (),
) -> PreparedExam:
    """Write the slices of one exam, all of one subject and shape, under ``folder``; returns its line in the manifest.

    Raises:
        DataError: no slice, or slices of several subjects or shapes.
    """
    if not slices:
        raise DataError(f"{dataset}: an exam without a slice that shows a disc")
    subject = slices[0].subject
    if len({(one.subject, one.image.shape) for one in slices}) > 1:
        raise DataError(f"{dataset}: slices of one exam differ in subject or shape")
    images = np.stack([one.image for one in slices]).astype(np.float32)
    allowed = np.stack([one.allowed for one in slices])
    # A name may hold anything a subject's name may; the file name must not.
    stem = hashlib.sha256(f"{dataset}\n{subject}\n{visit}".encode()).hexdigest()[:16]
    path = folder / _EXAMS / f"{stem}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing.npz")
    np.savez_compressed(temporary, images=images, allowed=allowed)
    os.replace(temporary, path)
    known = np.bitwise_or.reduce(allowed[np.isin(allowed, 1 << np.arange(len(CLASS_NAMES)))], axis=None)
    several = np.bitwise_or.reduce(allowed[~np.isin(allowed, 1 << np.arange(len(CLASS_NAMES)))], axis=None)
    return PreparedExam(
        subject=subject,
        visit=visit,
        dataset=dataset,
        layout=layout,
        file=f"{_EXAMS}/{path.name}",
        file_sha256=file_sha256(path),
        images_sha256=hashlib.sha256(images.tobytes()).hexdigest(),
        slices=len(slices),
        known=_names(int(known)),
        open=_names(int(several)),
        missing_levels=tuple(missing_levels),
        sources=tuple(sources),
    )


def _names(bits: int) -> tuple[str, ...]:
    return tuple(name for index, name in enumerate(CLASS_NAMES) if bits >> index & 1)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, whole or not at all."""
    held = {
        "format": FORMAT,
        "spacing_mm": manifest.spacing_mm,
        "digest": manifest.digest,
        "exams": [asdict(exam) for exam in manifest.exams],
    }
    temporary = folder / f".{MANIFEST}.writing"
    temporary.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        DataError: there is none, or it is of another format.
    """
    path = folder / MANIFEST
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if held["format"] != FORMAT:
            raise DataError(f"{path} is in the format {held['format']}, expected is {FORMAT}: prepare the data anew")
        exams = _EXAM_LINES.validate_python(held["exams"])
        manifest = Manifest(exams, float(held["spacing_mm"]))
    except OSError as error:
        raise DataError(f"{folder} is not a prepared folder: {error.strerror} ({MANIFEST})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not in order: {error!r}") from error
    if manifest.spacing_mm != SPACING_MM:
        raise DataError(f"{path}: pixels of {manifest.spacing_mm} mm, the network works at {SPACING_MM}: prepare anew")
    return manifest


def load_slices(folder: Path, manifest: Manifest) -> list[TrainingSlice]:
    """All slices of a prepared folder, in the manifest's order.

    Raises:
        DataError: a file is missing or is not the one that was prepared.
    """
    slices: list[TrainingSlice] = []
    for exam in manifest.exams:
        path = folder / exam.file
        try:
            found = file_sha256(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if found != exam.file_sha256:
            raise DataError(f"{path} is not the file that was prepared (another SHA-256): prepare the data anew")
        with np.load(path) as held:
            pairs = zip(held["images"], held["allowed"], strict=True)
            slices += [TrainingSlice(image, allowed, exam.subject, True) for image, allowed in pairs]
    return slices


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
