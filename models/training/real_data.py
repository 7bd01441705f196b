"""Annotated lumbar MR, prepared for training: what an annotation says of each pixel, and what it leaves open.

The folder of SPIDER (van der Graaf et al., Sci Data 2024;11:264, CC BY 4.0) that :func:`load_folder` reads holds pairs
``ID_image.nii.gz`` / ``ID_label.nii.gz`` in array order (rows superior to inferior, columns anterior to posterior,
slices). Labels: 1 disc, 2 vertebra with its posterior elements, 3 canal. The sacrum is not annotated: below the lowest
disc a pixel may be background or sacrum, which still says that it is no disc; only a block just below that disc is
surely sacrum.

A site's own masks mark discs only, and of those mostly L5S1 to L1L2: the other tissues stay open everywhere, and beyond
the outermost annotated disc a pixel may be anything, further discs included.
"""

from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.preprocessing import BACKGROUND, BODY, CANAL, CLASS_NAMES, DISC, SACRUM, SPACING_MM, FloatArray
from models.training.slices import LabelArray, TrainingSlice, from_classes

_FILE_CANAL = 3  # disc and vertebra have the numbers of the network's classes

#: Patients whose lowest annotated disc is not L5/S1, as the images show: a sacrum below it would be wrong.
TRANSITIONAL_SUBJECTS = frozenset({"241"})

_SURE_BODY_MM = 1.5  # a vertebra pixel up to here behind the discs' posterior line is body
_MAYBE_BODY_MM = 8.0  # up to here pedicle or body; further back posterior element, which is background
_SURE_SACRUM_MM = (4.0, 18.0)  # depth of the block below the lowest disc
_NEXT_DISC_MM = 10.0  # nearer to a marked disc than this lies its vertebra, and no other disc
_ANYTHING = (1 << len(CLASS_NAMES)) - 1


def load_folder(folder: Path) -> list[TrainingSlice]:
    """All usable slices of a folder, ordered by subject and slice.

    Raises:
        FileNotFoundError: the folder holds no pair, or an image lacks its label.
    """
    images = sorted(folder.glob("*_image.nii.gz"))
    if not images:
        raise FileNotFoundError(f"{folder}: no *_image.nii.gz")
    slices: list[TrainingSlice] = []
    for path in images:
        subject = path.name.removesuffix("_image.nii.gz")
        slices += load_subject(path, path.with_name(f"{subject}_label.nii.gz"), subject)
    return slices


def load_subject(image_path: Path, label_path: Path, subject: str) -> list[TrainingSlice]:
    """The slices of one patient that show at least one disc, resampled to the network's pixel size."""
    image_file, label_file = nibabel.load(image_path), nibabel.load(label_path)
    image = np.asarray(image_file.dataobj, dtype=np.float32)
    labels = np.asarray(label_file.dataobj, dtype=np.uint8)
    labels = np.where(labels == _FILE_CANAL, CANAL, labels).astype(np.uint8)
    if image.shape != labels.shape:
        raise ValueError(f"{image_path.name}: image {image.shape} and label {labels.shape} differ")
    row_mm, column_mm = (float(one) for one in image_file.header.get_zooms()[:2])
    return tissue_slices(np.moveaxis(image, 2, 0), np.moveaxis(labels, 2, 0), (row_mm, column_mm), subject)


def tissue_slices(
    image: npt.NDArray[np.floating], labels: LabelArray, pixel_mm: tuple[float, float], subject: str
) -> list[TrainingSlice]:
    """Training slices of an exam whose discs, vertebrae and canal are annotated; slices without a disc are left out.

    Args:
        image: (slices, rows, columns), rows to inferior, columns to posterior, any units.
        labels: the same shape: 0 nothing, 1 disc, 2 vertebra with its posterior elements, 4 canal.
        pixel_mm: distance between rows and between columns.
        subject: whose exam it is.

    Raises:
        ValueError: no disc at all.
    """
    images, classes = _at_network_spacing(image, labels, pixel_mm)
    lowest = lowest_disc(classes == DISC)
    with_sacrum = subject not in TRANSITIONAL_SUBJECTS
    return [
        TrainingSlice(picture, allowed_classes(label, lowest, with_sacrum=with_sacrum), subject, True)
        for picture, label in zip(images, classes, strict=True)
        if (label == DISC).any()
    ]


def disc_slices(
    image: npt.NDArray[np.floating], levels: LabelArray, pixel_mm: tuple[float, float], subject: str
) -> list[TrainingSlice]:
    """Training slices of an exam whose annotation marks discs only; slices without a disc are left out.

    Args:
        image: (slices, rows, columns), rows to inferior, columns to posterior, any units.
        levels: the same shape: 0 or the number of the disc, 1 = L5S1 and counting up.
        pixel_mm: distance between rows and between columns.
        subject: whose exam it is.

    Raises:
        ValueError: no disc at all.
    """
    images, classes = _at_network_spacing(image, levels, pixel_mm)
    unknown = unknown_rows(classes)
    prepared = []
    for picture, level in zip(images, classes, strict=True):
        if not level.any():
            continue
        allowed = np.full(level.shape, _ANYTHING & ~(1 << DISC), np.uint8)
        allowed[unknown] = _ANYTHING
        allowed[level > 0] = 1 << DISC
        prepared.append(TrainingSlice(picture, allowed, subject, True))
    return prepared


def known_slices(
    image: npt.NDArray[np.floating], classes: LabelArray, pixel_mm: tuple[float, float], subject: str
) -> list[TrainingSlice]:
    """Training slices of an exam whose class (0..4) is known in every voxel; slices without a disc are left out.

    Args:
        image: (slices, rows, columns), rows to inferior, columns to posterior, any units.
        classes: the same shape.
        pixel_mm: distance between rows and between columns.
        subject: whose exam it is.

    Raises:
        ValueError: no disc at all, or a class that does not exist.
    """
    images, resampled = _at_network_spacing(image, classes, pixel_mm)
    pairs = zip(images, resampled, strict=True)
    return [from_classes(one, held, subject, is_real=True) for one, held in pairs if (held == DISC).any()]


def unknown_rows(levels: LabelArray) -> npt.NDArray[np.bool_]:
    """Rows of ``levels`` (slices, rows, columns; 1 = L5S1 and counting up) in which an unmarked disc may lie: (rows,).

    Those above the highest marked disc, below the lowest one unless that is L5S1, and between two whose numbers do not
    follow each other; always some way from the marked disc, where its vertebra is.
    """
    numbers = [int(number) for number in np.unique(levels) if number]
    margin = round(_NEXT_DISC_MM / SPACING_MM)
    extent = {number: np.flatnonzero((levels == number).any(axis=(0, 2)))[[0, -1]] for number in numbers}
    unknown = np.zeros(levels.shape[1], np.bool_)
    unknown[: max(0, min(first for first, _ in extent.values()) - margin)] = True
    if numbers[0] != 1:
        unknown[max(last for _, last in extent.values()) + margin + 1 :] = True
    for lower, upper in pairwise(numbers):
        if upper > lower + 1:
            unknown[extent[upper][1] + margin + 1 : max(0, extent[lower][0] - margin)] = True
    return unknown


def _at_network_spacing(
    image: npt.NDArray[np.floating], labels: LabelArray, pixel_mm: tuple[float, float]
) -> tuple[FloatArray, LabelArray]:
    if not labels.any():
        raise ValueError("the annotation is empty")
    if image.shape != labels.shape:
        raise ValueError(f"image {image.shape} and annotation {labels.shape} differ")
    factors = np.asarray(pixel_mm, dtype=np.float64) / SPACING_MM
    images = np.stack([_resample(plane.astype(np.float32), factors, smooth=True) for plane in image])
    return images, np.stack([_resample_labels(plane, factors) for plane in labels])


def lowest_disc(discs: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Centre and downward direction of the lowest of ``discs`` (slices, rows, columns): (2, 2) of (row, column) pixels.

    The direction is the disc's thin axis, turned away from the disc above.
    """
    flat = discs.sum(axis=0) > 0.25 * discs.sum(axis=0).max()
    found, count = ndimage.label(flat)
    sizes = ndimage.sum_labels(flat, found, np.arange(1, count + 1))
    kept = [index + 1 for index, size in enumerate(sizes) if size > 0.3 * np.median(sizes)]
    pixels = max((np.argwhere(found == index) for index in kept), key=lambda one: float(one[:, 0].mean()))
    centre = pixels.mean(axis=0)
    _, _, axes = np.linalg.svd(pixels - centre, full_matrices=False)
    normal = axes[1] if axes[1][0] > 0 else -axes[1]
    return np.stack([centre, normal])


def allowed_classes(labels: LabelArray, lowest: npt.NDArray[np.float64], *, with_sacrum: bool = True) -> LabelArray:
    """Bits of the classes each pixel of one slice may have; ``labels`` as for :func:`tissue_slices`."""
    rows, columns = np.indices(labels.shape)
    behind_mm = (columns - _posterior_line(labels == DISC)[:, None]) * SPACING_MM
    allowed = np.full(labels.shape, 1 << BACKGROUND, np.uint8)
    vertebra = labels == BODY
    allowed[vertebra & (behind_mm <= _MAYBE_BODY_MM)] = 1 << BACKGROUND | 1 << BODY
    allowed[vertebra & (behind_mm <= _SURE_BODY_MM)] = 1 << BODY
    centre, normal = lowest
    depth_mm = ((rows - centre[0]) * normal[0] + (columns - centre[1]) * normal[1]) * SPACING_MM
    along_mm = ((rows - centre[0]) * -normal[1] + (columns - centre[1]) * normal[0]) * SPACING_MM
    allowed[(labels == 0) & (depth_mm > 0)] = 1 << BACKGROUND | 1 << SACRUM
    if with_sacrum and (labels == DISC)[np.abs(depth_mm) < 6.0].sum() > 0:
        sure = (depth_mm > _SURE_SACRUM_MM[0]) & (depth_mm < _SURE_SACRUM_MM[1]) & (np.abs(along_mm) < 9.0)
        disc_here = (labels == DISC) & (depth_mm > -8.0) & (np.abs(along_mm) < 9.0)
        if disc_here.sum() * SPACING_MM**2 > 40.0:
            below_disc = rows > np.where(disc_here, rows, -1).max(axis=0)[None, :] + 3
            allowed[sure & below_disc & (labels == 0)] = 1 << SACRUM
    allowed[labels == DISC] = 1 << DISC
    allowed[labels == CANAL] = 1 << CANAL
    return allowed


def _posterior_line(discs: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Column of the line through the posterior ends of the discs, for every row."""
    found, count = ndimage.label(discs)
    ends = []
    for index in range(1, count + 1):
        pixels = np.argwhere(found == index)
        if len(pixels) < 20:
            continue
        last = pixels[pixels[:, 1] >= np.percentile(pixels[:, 1], 95)]
        ends.append(last.mean(axis=0))
    if not ends:
        return np.full(discs.shape[0], float(np.argwhere(discs)[:, 1].max()))
    points = np.array(sorted(ends, key=lambda end: float(end[0])))
    line: npt.NDArray[np.float64] = np.interp(np.arange(discs.shape[0]), points[:, 0], points[:, 1])
    return line


def _resample(plane: npt.NDArray[np.floating], factors: npt.NDArray[np.float64], *, smooth: bool) -> FloatArray:
    """Linear resampling by ``factors`` (rows, columns), outer edges kept; blurred first where pixels get larger."""
    shape = np.maximum(1, np.round(np.array(plane.shape) * factors)).astype(int)
    if smooth:
        plane = ndimage.gaussian_filter(plane, 0.5 * np.sqrt(np.maximum(factors**-2 - 1.0, 0.0)))
    step = 1.0 / factors
    moved: FloatArray = ndimage.affine_transform(
        plane, step, offset=0.5 * step - 0.5, output_shape=tuple(shape), order=1, mode="nearest"
    )
    return moved


def _resample_labels(plane: LabelArray, factors: npt.NDArray[np.float64]) -> LabelArray:
    """The label with the largest share in each new pixel; the lowest of equals."""
    held = np.unique(np.append(plane, 0))
    shares = np.stack([_resample((plane == label).astype(np.float32), factors, smooth=True) for label in held])
    labels: LabelArray = held[shares.argmax(axis=0)].astype(np.uint8)
    return labels
