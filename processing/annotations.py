"""Annotated lumbar MR in files: image and mask pairs (NIfTI, MetaImage), checked and brought to one order and coding.

The layouts are those of :mod:`processing.annotated_files`, whose names are found here too.
"""

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from models.preprocessing import BACKGROUND, BODY, CANAL, DISC
from processing.annotated_files import (
    SITE,
    SPIDER,
    SPIDER_NIFTI,
    SUFFIXES,
    AnnotatedFiles,
    AnnotationError,
    find_annotated_files,
    subject_visit,
)
from processing.refusal import UnsuitableInput
from processing.results import Affine, EchoStack, ImageVolume, LabelArray, Level
from processing.volume import is_sagittal, spacing_mm, to_canonical

__all__ = [
    "SITE",
    "SPIDER",
    "SPIDER_NIFTI",
    "SUFFIXES",
    "AnnotatedExam",
    "AnnotatedFiles",
    "Annotation",
    "AnnotationError",
    "check_annotated_files",
    "check_lumbar",
    "check_same_grid",
    "find_annotated_files",
    "in_canonical_order",
    "name_from_below",
    "place_on_grid",
    "read_annotated",
    "read_annotated_folder",
    "read_annotation",
    "read_geometry",
    "read_truth",
    "read_volume",
    "subject_visit",
]

#: Patients of the NIfTI pairs whose lowest annotated disc is not L5/S1, as their images show: their discs stay unnamed.
TRANSITIONAL_SUBJECTS = frozenset({"241"})

#: How far, in pixels, a voxel of the mask may lie from the image's: writers round, a wrong convention is off by half.
_GRID_TOLERANCE_PIXELS = 0.25

_SAME_DISC_MM = 10.0  # fragments of one disc lie closer than this along the spine; two discs do not


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """What a mask says, in canonical order (slices, rows, columns) with ``affine`` LPS mm.

    ``levels``: :class:`Level` values or 0. ``tissue``: the network's classes 0..4 as far as the source knows them, or
    None where only discs are annotated. SPIDER has no sacrum (it is 0) and counts posterior elements as vertebra (2).
    ``has_levels``: False where discs are annotated but cannot be named; they are ``tissue == 1`` then.
    """

    levels: LabelArray
    tissue: LabelArray | None
    has_levels: bool
    affine: Affine


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedExam:
    """An exam with its truth; all arrays (slices, rows, columns) in canonical order on the grid of ``image``.

    ``source`` tells the layout and thereby what is open in ``tissue`` (see :class:`Annotation`). ``stacks`` is empty
    where only an image is there. ``paths``: the files it was read from, image first.
    """

    subject: str
    visit: str
    source: str
    image: ImageVolume
    levels: LabelArray
    stacks: tuple[EchoStack, ...]
    has_levels: bool
    tissue: LabelArray | None
    paths: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Subject and visit, as in the names of files."""
        return f"{self.subject}_{self.visit}" if self.visit else self.subject

    @property
    def missing(self) -> tuple[Level, ...]:
        """Levels L5S1 to L1L2 that are not annotated; empty where discs are not named at all."""
        present = set(np.unique(self.levels).tolist())
        return tuple(level for level in Level if level <= Level.L1L2 and level not in present and self.has_levels)


def read_annotated_folder(folder: Path) -> Iterator[AnnotatedExam]:
    """All annotated exams of a folder, ordered by subject and visit; every file is checked before the first is given.

    Raises:
        AnnotationError: naming every fault: no pair, an image without its mask or the reverse, two files for one
            subject and visit, mask and image of different geometry, an empty mask, unknown labels, unreadable files.
    """
    entries = find_annotated_files(folder)
    if not entries:
        raise AnnotationError(f"{folder}: holds no pair of an image and a mask")
    check_annotated_files(entries)
    return (read_annotated(entry) for entry in entries)


def check_annotated_files(entries: Iterable[AnnotatedFiles]) -> None:
    """Read every mask and the geometry of every image.

    Raises:
        AnnotationError: one line for each fault (see :func:`read_annotated_folder`).
    """
    faults = []
    for entry in entries:
        try:
            annotation = read_annotation(entry)
            shape, affine = read_geometry(entry.image)
            check_same_grid(annotation, shape, affine, entry.mask.name)
        except AnnotationError as error:
            faults.append(str(error))
    if faults:
        raise AnnotationError("\n".join(faults))


def read_annotated(entry: AnnotatedFiles) -> AnnotatedExam:
    """One pair, read and checked.

    Raises:
        AnnotationError: see :func:`read_annotated_folder`.
    """
    annotation = read_annotation(entry)
    array, affine = read_volume(entry.image)
    check_same_grid(annotation, array.shape, affine, entry.mask.name)
    if not np.isfinite(array).all():
        raise AnnotationError(f"{entry.image.name}: holds values that are not finite")
    return AnnotatedExam(
        subject=entry.subject,
        visit=entry.visit,
        source=entry.source,
        image=ImageVolume(array.astype(np.float32), affine),
        levels=annotation.levels,
        stacks=(),
        has_levels=annotation.has_levels,
        tissue=annotation.tissue,
        paths=(entry.image, entry.mask),
    )


def read_annotation(entry: AnnotatedFiles) -> Annotation:
    """The mask of a pair in canonical order and the node's coding.

    Raises:
        AnnotationError: unreadable, empty, or with labels that its layout does not have.
    """
    annotation = _read_mask(entry)
    check_lumbar(annotation, entry.mask.name)
    return annotation


def check_lumbar(annotation: Annotation, name: str) -> None:
    """Where discs are named, one of those that are measured must be there.

    Raises:
        AnnotationError: none is; ``name`` stands in the message.
    """
    named = (annotation.levels > 0) & (annotation.levels <= Level.L1L2)
    if annotation.has_levels and not named.any():
        raise AnnotationError(f"{name}: no disc from L5S1 to L1L2 is annotated")


def _read_mask(entry: AnnotatedFiles) -> Annotation:
    if entry.mask.suffix == ".npz":
        return read_truth(entry.mask)
    array, affine = read_volume(entry.mask)
    labels = array.astype(np.int64)
    if (labels != array).any():
        raise AnnotationError(
            f"{entry.mask.name}: holds values that are no whole numbers; a mask of labels is expected"
        )
    if entry.source == SPIDER_NIFTI:
        return _spider_nifti(labels, affine, entry)
    if entry.source == SPIDER or labels.max() > 100:
        return _spider_release(labels, affine, entry.mask.name)
    _check_labels(labels, range(len(Level) + 1), entry.mask.name)
    return Annotation(labels.astype(np.uint8), None, True, affine)


def read_truth(path: Path) -> Annotation:
    """The truth of a simulated exam (``discnode simulate --truth``).

    Raises:
        AnnotationError: not such a file, or no disc in it.
    """
    try:
        with np.load(path) as held:
            labels, upper, classes = held["labels"], held["upper_labels"], held["classes"]
            affine = np.asarray(held["affine"], np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AnnotationError(f"{path.name}: is no truth of a simulated exam ({error})") from error
    levels = np.where((labels == 0) & (upper == Level.T12L1), upper, labels).astype(np.uint8)
    (levels, tissue), canonical = in_canonical_order(np.stack([levels, classes.astype(np.uint8)]), affine, path.name)
    return Annotation(levels, tissue, True, canonical)


def read_volume(path: Path) -> tuple[npt.NDArray[Any], Affine]:
    """A volume file in canonical order (slices, rows, columns), whatever its axes, and its affine in LPS mm.

    Raises:
        AnnotationError: it cannot be read, is not three-dimensional or lies more than 30 degrees off a sagittal grid.
    """
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise AnnotationError(f"{path.name}: cannot be read ({_last_line(error)})") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise AnnotationError(f"{path.name}: three dimensions with one value for each voxel expected")
    affine = _affine(image.GetDirection(), image.GetSpacing(), image.GetOrigin())
    return in_canonical_order(SimpleITK.GetArrayFromImage(image), affine, path.name)


def read_geometry(path: Path) -> tuple[tuple[int, ...], Affine]:
    """Shape and affine of a volume file as :func:`read_volume` gives them, from its header alone."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise AnnotationError(f"{path.name}: cannot be read ({_last_line(error)})") from error
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise AnnotationError(f"{path.name}: three dimensions with one value for each voxel expected")
    affine = _affine(reader.GetDirection(), reader.GetSpacing(), reader.GetOrigin())
    placeholder = np.broadcast_to(np.uint8(0), tuple(reader.GetSize())[::-1])
    array, canonical = in_canonical_order(placeholder, affine, path.name)
    return array.shape, canonical


def in_canonical_order(array: npt.NDArray[Any], affine: Affine, name: str) -> tuple[npt.NDArray[Any], Affine]:
    """``array`` (..., 3 axes in any order) with its axes as (slices, rows, columns), and its new affine.

    Raises:
        AnnotationError: the grid lies more than 30 degrees off the body's axes; ``name`` stands in the message.
    """
    left_right = int(np.abs(affine[0, :3] / np.linalg.norm(affine[:3, :3], axis=0)).argmax())
    order = [left_right, *(axis for axis in range(3) if axis != left_right)]
    lead = array.ndim - 3
    moved = array.transpose(*range(lead), *(lead + axis for axis in order))
    moved_affine = affine.copy()
    moved_affine[:3, :3] = affine[:3, order]
    try:
        ordered, canonical, _ = to_canonical(moved, moved_affine)
    except UnsuitableInput as error:
        raise AnnotationError(f"{name}: {error.reason.detail}") from error
    if not is_sagittal(canonical):
        raise AnnotationError(f"{name}: the images are not sagittal")
    return np.ascontiguousarray(ordered), canonical


def check_same_grid(annotation: Annotation, shape: tuple[int, ...], affine: Affine, name: str) -> None:
    """Mask and image, both in canonical order, must have the same voxels.

    Raises:
        AnnotationError: other numbers of voxels, or corners that lie apart; ``name`` stands in the message.
    """
    if annotation.levels.shape != shape:
        raise AnnotationError(f"{name}: the mask has {annotation.levels.shape} voxels, its image {tuple(shape)}")
    corners = np.array([(k, i, j, 1) for k in (0, shape[0]) for i in (0, shape[1]) for j in (0, shape[2])], np.float64)
    apart_mm = float(np.linalg.norm((corners @ (annotation.affine - affine).T)[:, :3], axis=1).max())
    if apart_mm > _GRID_TOLERANCE_PIXELS * min(spacing_mm(affine)):
        raise AnnotationError(
            f"{name}: mask and image have different geometry; voxels lie up to {apart_mm:.2f} mm apart"
        )


def place_on_grid(annotation: Annotation, shape: tuple[int, ...], affine: Affine, name: str) -> Annotation:
    """An annotation of some slices of an image (both canonical) on all slices of it, empty where it says nothing.

    Raises:
        AnnotationError: its voxels are not voxels of the image; ``name`` stands in the message.
    """
    own = annotation.affine.copy()
    if len(annotation.levels) == 1:  # the distance of one slice to its neighbours is not known to it
        own[:3, 0] = affine[:3, 0]
    start = np.linalg.solve(affine[:3, :3], own[:3, 3] - affine[:3, 3])
    corner = np.round(start).astype(int)
    end = corner + annotation.levels.shape
    if (np.abs(start - corner) > _GRID_TOLERANCE_PIXELS).any() or (corner < 0).any() or (end > shape).any():
        raise AnnotationError(f"{name}: the mask does not lie on the voxels of its image")
    box = tuple(slice(int(first), int(last)) for first, last in zip(corner, end, strict=True))
    levels = np.zeros(shape, np.uint8)
    levels[box] = annotation.levels
    tissue = None
    if annotation.tissue is not None:
        tissue = np.zeros(shape, np.uint8)
        tissue[box] = annotation.tissue
    moved = own.copy()
    moved[:3, 3] = own[:3, 3] - own[:3, :3] @ corner
    placed = Annotation(levels, tissue, annotation.has_levels, moved)
    check_same_grid(placed, shape, affine, name)
    return placed


def name_from_below(discs: npt.NDArray[np.bool_], row_mm: float) -> LabelArray:
    """Levels of annotated discs (slices, rows, columns; canonical), the lowest as L5/S1; those above T12/L1 are 0.

    Fragments whose centres lie less than 10 mm apart along the spine are one disc.
    """
    found, count = ndimage.label(discs, np.ones((3, 3, 3)))
    numbers = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(discs, found, numbers)
    height_mm = np.array(ndimage.center_of_mass(discs, found, numbers)).reshape(count, 3)[:, 1] * row_mm
    chosen: list[int] = []  # components that are discs; the others are fragments
    for index in np.argsort(-sizes, kind="stable").tolist():
        if all(abs(height_mm[index] - height_mm[other]) >= _SAME_DISC_MM for other in chosen):
            chosen.append(index)
    from_below = sorted(chosen, key=lambda index: -height_mm[index])
    table = np.zeros(count + 1, np.uint8)
    for index in range(count):
        nearest = min(chosen, key=lambda other: abs(height_mm[index] - height_mm[other]))
        level = from_below.index(nearest) + 1
        table[index + 1] = level if level <= len(Level) else 0
    levels: LabelArray = table[found]
    return levels


def _spider_nifti(labels: npt.NDArray[np.int64], affine: Affine, entry: AnnotatedFiles) -> Annotation:
    _check_labels(labels, range(4), entry.mask.name)
    tissue = np.array([BACKGROUND, DISC, BODY, CANAL], np.uint8)[labels]
    if not (tissue == DISC).any():
        raise AnnotationError(f"{entry.mask.name}: no disc is annotated")
    if entry.subject in TRANSITIONAL_SUBJECTS:
        return Annotation(np.zeros(labels.shape, np.uint8), tissue, False, affine)
    return Annotation(name_from_below(tissue == DISC, spacing_mm(affine)[1]), tissue, True, affine)


def _spider_release(labels: npt.NDArray[np.int64], affine: Affine, name: str) -> Annotation:
    _check_labels(labels, {*range(26), *range(100, 126), *range(201, 226)}, name)
    tissue = np.full(labels.shape, BODY, np.uint8)
    tissue[labels == 0] = BACKGROUND
    tissue[labels == 100] = CANAL
    tissue[labels > 200] = DISC
    levels = np.where((labels > 200) & (labels <= 200 + len(Level)), labels - 200, 0).astype(np.uint8)
    return Annotation(levels, tissue, True, affine)


def _check_labels(labels: npt.NDArray[np.int64], known: Iterable[int], name: str) -> None:
    present = set(np.unique(labels).tolist())
    unknown = sorted(present - set(known))
    if unknown:
        raise AnnotationError(f"{name}: labels {', '.join(map(str, unknown[:8]))} are not known in this layout")
    if present <= {0}:
        raise AnnotationError(f"{name}: the mask is empty")


def _affine(direction: tuple[float, ...], spacing: tuple[float, ...], origin: tuple[float, ...]) -> Affine:
    """LPS affine of the array order (k, j, i) of a SimpleITK image, which counts (i, j, k)."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(direction).reshape(3, 3) * np.array(spacing))[:, ::-1]
    affine[:3, 3] = origin
    return affine


def _last_line(error: RuntimeError) -> str:
    """ITK's own sentence out of its many lines."""
    return str(error).strip().splitlines()[-1].strip()
