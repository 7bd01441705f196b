"""A site's annotated exams, whatever their files: volumes with masks, or DICOM with a mask, a truth or a Segmentation.

DICOM: one subfolder for each exam, ``SUBJECT[_VISIT]/``, with the images anywhere below it and one mask: a DICOM
Segmentation, a volume file (``.nii.gz``, ``.nii``, ``.mha``) or a ``.npz`` truth of ``discnode simulate --truth``. A
volume or truth may also lie beside the subfolder as ``SUBJECT[_VISIT]_mask.nii.gz`` or ``SUBJECT[_VISIT]_truth.npz``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.protocol_cards import asked_elements, load_cards
from config.settings import Settings
from dicom_io.segmentation_reader import is_segmentation, read_segmentation
from dicom_io.series import ExamAssembly
from dicom_io.volume_reader import find_dicom_files, read_exam
from processing.annotations import (
    SITE,
    SUFFIXES,
    AnnotatedExam,
    AnnotatedFiles,
    Annotation,
    AnnotationError,
    check_annotated_files,
    check_lumbar,
    find_annotated_files,
    in_canonical_order,
    place_on_grid,
    read_annotated,
    read_annotation,
    subject_visit,
)
from processing.refusal import UnsuitableInput
from processing.results import Affine, EchoStack, ImageVolume
from service.exam_files import read_exam_files
from service.pipeline import assemble

DICOM = "dicom"

_MASK_SUFFIXES = (*SUFFIXES, ".npz")


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedDicom:
    """Where one annotated DICOM exam lies; its headers are read, its pixels not yet."""

    subject: str
    visit: str
    folder: Path
    mask: Path
    assembly: ExamAssembly


AnnotatedSource = AnnotatedFiles | AnnotatedDicom


def read_annotated_exams(folder: Path, settings: Settings) -> Iterator[AnnotatedExam]:
    """All annotated exams of a folder, checked before the first is given; see :func:`find_annotated_exams`."""
    return (read_annotated_exam(source) for source in find_annotated_exams(folder, settings))


def find_annotated_exams(folder: Path, settings: Settings) -> tuple[AnnotatedSource, ...]:
    """The annotated exams of a folder, ordered by subject and visit, each with mask and image on one grid.

    Raises:
        AnnotationError: one line for each fault, e.g. no exam, no mask or two, another geometry, an empty mask, DICOM
            that does not make up a known exam, one patient under two subjects' names.
    """
    sources: tuple[AnnotatedSource, ...]
    subfolders = _exam_folders(folder)
    if subfolders:
        sources = _find_dicom(folder, subfolders, settings)
    else:
        files = find_annotated_files(folder)
        check_annotated_files(files)
        sources = files
    if not sources:
        raise AnnotationError(f"{folder}: holds no annotated exam")
    return tuple(sorted(sources, key=lambda one: (one.subject, one.visit)))


def read_annotated_exam(source: AnnotatedSource) -> AnnotatedExam:
    """Image, truth and, of DICOM, the echoes.

    Raises:
        AnnotationError: as :func:`find_annotated_exams`.
        UnsuitableInput: pixels of a DICOM exam cannot be read.
    """
    if isinstance(source, AnnotatedFiles):
        return read_annotated(source)
    images = read_exam(source.assembly)
    array, affine = in_canonical_order(images.background.array, images.background.affine, source.folder.name)
    annotation = _annotation_on(source.folder, source.mask, array.shape, affine)
    stacks = tuple(
        EchoStack(one.role, in_canonical_order(one.signal, one.affine, source.folder.name)[0], one.times_ms, affine)
        for one in images.stacks
    )
    return AnnotatedExam(
        subject=source.subject,
        visit=source.visit,
        source=DICOM,
        image=ImageVolume(array, affine),
        levels=annotation.levels,
        stacks=stacks,
        has_levels=annotation.has_levels,
        tissue=annotation.tissue,
        paths=(source.folder, source.mask),
    )


def _exam_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such folder")
    subfolders = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    if [one.name for one in subfolders] == ["images", "masks"]:
        return []  # the public SPIDER release
    pictures = [one for one in folder.iterdir() if one.name.endswith(tuple(f"_image{end}" for end in SUFFIXES))]
    if subfolders and pictures:
        raise AnnotationError(f"{folder}: holds both volume files and subfolders of DICOM; use one folder for each")
    return subfolders


def _find_dicom(folder: Path, subfolders: list[Path], settings: Settings) -> tuple[AnnotatedDicom, ...]:
    faults, found = [], []
    for one in subfolders:
        try:
            found.append(_open_dicom(one, folder, settings))
        except AnnotationError as error:
            faults.append(str(error))
        except UnsuitableInput as error:
            faults.append(f"{one.name}: {error}")
    subjects: dict[str, set[str]] = {}
    for exam in found:
        subjects.setdefault(_patient_key(exam), set()).add(exam.subject)
    faults += [
        f"{', '.join(sorted(names))}: the images are of one patient; give all visits of a patient one subject name"
        for names in subjects.values()
        if len(names) > 1
    ]
    if faults:
        raise AnnotationError("\n".join(faults))
    return tuple(found)


def _open_dicom(folder: Path, site: Path, settings: Settings) -> AnnotatedDicom:
    subject, visit = subject_visit(folder.name)
    files = find_dicom_files([folder])
    volumes = [one for one in files if one.name.endswith(_MASK_SUFFIXES)]
    segmentations = [one for one in files if one not in volumes and is_segmentation(one)]
    beside = [
        site / f"{folder.name}{ending}"
        for ending in (*(f"_mask{suffix}" for suffix in SUFFIXES), "_truth.npz")
        if (site / f"{folder.name}{ending}").is_file()
    ]
    masks = [*volumes, *segmentations, *beside]
    if len(masks) != 1:
        raise AnnotationError(f"{folder.name}: {len(masks)} masks; one DICOM Segmentation, volume or truth is expected")
    images = [one for one in files if one not in masks]
    assembly = assemble(read_exam_files(images, asked_elements(load_cards(settings.protocols_dir))), settings)
    if not assembly.measured:
        raise AnnotationError(f"{folder.name}: there is no series to measure")
    series = assembly.measured[0]
    first = series.grid[0][0]
    placeholder = np.broadcast_to(np.uint8(0), (len(series.grid[0]), first.rows, first.columns))
    array, affine = in_canonical_order(placeholder, series.affine, folder.name)
    _annotation_on(folder, masks[0], array.shape, affine)
    return AnnotatedDicom(subject, visit, folder, masks[0], assembly)


def _annotation_on(folder: Path, mask: Path, shape: tuple[int, ...], affine: Affine) -> Annotation:
    """The mask of a DICOM exam on the grid of its images (canonical)."""
    name = f"{folder.name}: {mask.name}"
    if mask.name.endswith(_MASK_SUFFIXES):
        annotation = read_annotation(AnnotatedFiles(folder.name, "", SITE, mask, mask))
    else:
        labels, own = read_segmentation(mask)
        levels, canonical = in_canonical_order(labels, own, name)
        annotation = Annotation(levels, None, True, canonical)
        check_lumbar(annotation, name)
    return place_on_grid(annotation, shape, affine, name)


def _patient_key(exam: AnnotatedDicom) -> str:
    return exam.assembly.images[0].patient_key
