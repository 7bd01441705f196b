"""``discnode train prepare``: annotated exams in, slices at the network's pixel size with a manifest and folds out."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.settings import Settings
from models.preprocessing import DISC
from models.training.dataset import (
    FOLDS,
    MANIFEST,
    DataError,
    Manifest,
    PreparedExam,
    file_sha256,
    read_manifest,
    write_exam,
    write_manifest,
)
from models.training.folds import look_alikes, read_folds, split_folds, write_folds
from models.training.real_data import disc_slices, known_slices, tissue_slices
from models.training.slices import TrainingSlice
from processing.annotations import SUFFIXES, AnnotatedExam, AnnotatedFiles, check_annotated_files, find_annotated_files
from processing.volume import spacing_mm
from service.annotated_exams import AnnotatedDicom, AnnotatedSource, find_annotated_exams, read_annotated_exam
from service.training.publish import publish_folder, start_folder

Say = Callable[[str], None]

#: Neighbouring slices that lie closer than this show the same: of a thin stack only every second or third is taken.
_THINNEST_MM = 1.5


@dataclass(frozen=True, slots=True)
class DataSet:
    """The annotated exams of one folder."""

    name: str
    entries: tuple[AnnotatedSource, ...]


def prepare(data: Path, out: Path, *, settings: Settings, folds: int = 5, seed: int = 1, say: Say = print) -> Manifest:
    """Prepare the annotated exams of ``data``, or of its subfolders, into ``out``.

    ``settings``: tell the protocols that DICOM exams are read by.

    Every mask and the geometry of every image is checked before the first exam is prepared. What is in ``out`` already
    is kept where it was prepared from the same files, and replaced otherwise, at the very end.

    Raises:
        DataError: nothing annotated in ``data``, fewer subjects than folds, or names that look like one subject.
        AnnotationError: faults of the files, one a line.
    """
    sets = find_data_sets(data, settings)
    sources = {_place(entry): _sources(entry) for one in sets for entry in one.entries}
    held = _prepared_already(out, list(sources.values()), folds, seed)
    if held is not None:
        say(f"{out} was prepared from these files: {_summary(held)}")
        return held
    check_subjects(sets, folds)
    for one in sets:
        check_annotated_files([entry for entry in one.entries if isinstance(entry, AnnotatedFiles)])
        say(f"{one.name}: {len(one.entries)} annotated exams, in order")
    writing = start_folder(out, MANIFEST)
    exams = []
    for one in sets:
        # By file name, so that the order, and with it the training, does not depend on the reader.
        for entry in sorted(one.entries, key=lambda entry: _place(entry).name):
            exams.append(_prepare_exam(writing, one.name, entry, sources[_place(entry)]))
            say(f"  {_line(exams[-1])}")
    manifest = Manifest(tuple(exams))
    groups = split_folds(manifest.slice_counts, folds, seed, strata=manifest.strata)
    write_folds(writing / FOLDS, groups, seed, images_sha256=manifest.images_sha256)
    write_manifest(writing, manifest)
    publish_folder(writing, out)
    say(f"{out}: {_summary(manifest)}, {folds} folds")
    return manifest


def find_data_sets(data: Path, settings: Settings) -> tuple[DataSet, ...]:
    """The annotated exams of ``data``: volumes in it, or in each of its subfolders, or a subfolder of DICOM for each.

    Volumes are found by their names alone; of DICOM everything but the pixels is read and checked.

    Raises:
        DataError: there is no such folder, or nothing annotated in it.
        AnnotationError: an image without mask, a mask without image, two files for one exam, faulty DICOM.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder")
    name = data.resolve().name
    if _holds_volumes(data):
        return (DataSet(name, find_annotated_files(data)),)
    folders = sorted(one for one in data.iterdir() if one.is_dir() and not one.name.startswith("."))
    found = tuple(DataSet(folder.name, find_annotated_files(folder)) for folder in folders if _holds_volumes(folder))
    if found:
        return found
    if not folders:
        raise DataError(
            f"{data}: no annotated exams. Expected are pairs of an image and a mask (ID_image/ID_label.nii.gz, "
            "SUBJECT[_VISIT]_image/_mask.nii.gz or .mha, images/ and masks/ of SPIDER), in the folder or its "
            "subfolders, or a subfolder of DICOM with a mask for each exam"
        )
    return (DataSet(name, find_annotated_exams(data, settings)),)


def _holds_volumes(folder: Path) -> bool:
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return True
    return any(one.name.endswith(tuple(f"_image{suffix}" for suffix in SUFFIXES)) for one in folder.iterdir())


def check_subjects(sets: Sequence[DataSet], folds: int) -> None:
    """Refuse names that could put one person into two folds, and too few subjects.

    Raises:
        DataError: with all that is wrong.
    """
    places: dict[str, set[str]] = {}
    for one in sets:
        for entry in one.entries:
            places.setdefault(entry.subject, set()).add(one.name)
    faults = [f"{' and '.join(alike)} look like one subject; give each one name" for alike in look_alikes(places)]
    faults += [
        f"subject {name} is in {' and '.join(sorted(names))}: if this is one person, put the exams into one folder, "
        "else rename one"
        for name, names in sorted(places.items())
        if len(names) > 1
    ]
    if len(places) < folds:
        faults.append(f"{len(places)} subjects cannot fill {folds} folds; annotate more or choose --folds")
    if faults:
        raise DataError("\n".join(faults))


def training_slices(exam: AnnotatedExam) -> list[TrainingSlice]:
    """The slices of an exam that show a disc; what is known and what stays open depends on how it was annotated."""
    slice_mm, row_mm, column_mm = spacing_mm(exam.image.affine)
    step = max(1, int(np.ceil(_THINNEST_MM / slice_mm - 1e-6)))
    discs = exam.levels > 0 if exam.tissue is None else exam.tissue == DISC
    first = int(np.flatnonzero(discs.any(axis=(1, 2)))[0])
    chosen = slice(first % step, None, step)
    image, pixel_mm = exam.image.array[chosen], (row_mm, column_mm)
    if exam.tissue is None:
        return disc_slices(image, exam.levels[chosen], pixel_mm, exam.subject)
    if exam.paths and exam.paths[1].suffix == ".npz":  # simulated: every tissue is known, the sacrum too
        return known_slices(image, exam.tissue[chosen], pixel_mm, exam.subject)
    return tissue_slices(image, exam.tissue[chosen], pixel_mm, exam.subject)


def _prepare_exam(
    folder: Path, dataset: str, entry: AnnotatedSource, sources: tuple[tuple[str, str], ...]
) -> PreparedExam:
    exam = read_annotated_exam(entry)
    return write_exam(
        folder,
        training_slices(exam),
        visit=exam.visit,
        dataset=dataset,
        layout=exam.source,
        missing_levels=[level.name for level in exam.missing],
        sources=sources,
    )


def _place(entry: AnnotatedSource) -> Path:
    return entry.image if isinstance(entry, AnnotatedFiles) else entry.folder


def _sources(entry: AnnotatedSource) -> tuple[tuple[str, str], ...]:
    """Name and SHA-256 of an exam's files; of the many of a DICOM exam one digest over all of theirs."""
    mask = (entry.mask.name, file_sha256(entry.mask))
    if isinstance(entry, AnnotatedDicom):
        files = sorted(one for one in entry.folder.rglob("*") if one.is_file())
        digests = "".join(f"{file_sha256(one)}\n" for one in files)
        return (entry.folder.name, hashlib.sha256(digests.encode()).hexdigest()), mask
    return (entry.image.name, file_sha256(entry.image)), mask


def _prepared_already(
    out: Path, sources: Sequence[tuple[tuple[str, str], ...]], folds: int, seed: int
) -> Manifest | None:
    """The manifest of ``out`` if it came from exactly these files and is divided alike, else None."""
    if not (out / MANIFEST).is_file():
        return None
    manifest = read_manifest(out)
    if sorted(exam.sources for exam in manifest.exams) != sorted(sources):
        return None
    groups = split_folds(manifest.slice_counts, folds, seed, strata=manifest.strata)
    return manifest if groups == read_folds(out / FOLDS) else None


def _line(exam: PreparedExam) -> str:
    name = f"{exam.subject} {exam.visit}".strip()
    missing = f", not annotated: {', '.join(exam.missing_levels)}" if exam.missing_levels else ""
    return f"{name}: {exam.slices} slices{missing}"


def _summary(manifest: Manifest) -> str:
    slices = sum(exam.slices for exam in manifest.exams)
    return f"{len(manifest.subjects)} subjects, {len(manifest.exams)} exams, {slices} slices"
