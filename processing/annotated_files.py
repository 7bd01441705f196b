"""Where the exams of an annotated folder lie: images and masks paired by their names, in the layouts that are known.

Layouts of a folder:

* ``spider-nifti``: ``ID_image.nii.gz`` and ``ID_label.nii.gz``, labels 1 disc, 2 vertebra, 3 canal. Discs are named
  here, upwards from the lowest, which is L5/S1 but for the patients known to be transitional.
* ``spider``: the public release (van der Graaf et al., Sci Data 2024;11:264), ``images/ID_SERIES.mha`` and the same
  names in ``masks/``; labels 1-25 vertebrae from L5 upwards, 101-125 vertebrae partly in view, 100 canal, 201-225 discs
  from L5/S1 upwards. The series is the visit, so that all series of an ID are one subject.
* ``site``: ``SUBJECT[_VISIT]_image`` and ``SUBJECT[_VISIT]_mask`` (``.nii.gz``, ``.nii``, ``.mha``), labels 1 = L5/S1
  to 5 = L1/L2, 6 = T12/L1, or the coding of SPIDER; or, in place of the mask, ``SUBJECT[_VISIT]_truth.npz`` as
  ``discnode simulate --truth`` writes it. Exams of the same SUBJECT are visits of one person.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".mha")

SPIDER_NIFTI, SPIDER, SITE = "spider-nifti", "spider", "site"


class AnnotationError(Exception):
    """Annotated data that cannot be used as they are; the message has one line for each fault."""


@dataclass(frozen=True, slots=True)
class AnnotatedFiles:
    """Where one annotated exam lies. ``mask`` is a volume of labels or a ``.npz`` truth."""

    subject: str
    visit: str
    source: str
    image: Path
    mask: Path


def find_annotated_files(folder: Path) -> tuple[AnnotatedFiles, ...]:
    """The pairs of a folder by their names alone, ordered by subject and visit.

    Raises:
        AnnotationError: as :func:`read_annotated_folder`, as far as names tell; several layouts in one folder.
    """
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such folder")
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return _pairs(SPIDER, _named(folder / "images", ""), {"mask": _named(folder / "masks", "")}, _spider_visit)
    images, labels = _named(folder, "_image"), _named(folder, "_label")
    masks = {"mask": _named(folder, "_mask"), "truth": _named(folder, "_truth", (".npz",))}
    if labels and (masks["mask"] or masks["truth"]):
        raise AnnotationError(f"{folder}: holds both *_label and *_mask files; use one folder for each layout")
    if labels:
        return _pairs(SPIDER_NIFTI, images, {"label": labels}, lambda stem: (stem, ""))
    return _pairs(SITE, images, masks, subject_visit)


def subject_visit(stem: str) -> tuple[str, str]:
    """``SUBJECT_VISIT`` or ``SUBJECT`` taken apart.

    Raises:
        AnnotationError: more than one underscore, so that it is not clear where the subject ends.
    """
    parts = stem.split("_")
    if len(parts) > 2 or not all(parts):
        raise AnnotationError(f"{stem}: SUBJECT or SUBJECT_VISIT expected, with no other underscore")
    return parts[0], parts[1] if len(parts) == 2 else ""


def _named(folder: Path, ending: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[str, Path]]:
    """(name without ``ending`` and suffix, path) of the volume files of a folder, sorted."""
    found = []
    for path in sorted(folder.iterdir()):
        suffix = next((one for one in suffixes if path.name.endswith(ending + one)), None)
        if suffix is not None and not path.name.startswith("."):
            found.append((path.name.removesuffix(suffix).removesuffix(ending), path))
    return found


def _spider_visit(stem: str) -> tuple[str, str]:
    subject, _, series = stem.partition("_")
    if not series:
        raise AnnotationError(f"{stem}: ID_SERIES expected, e.g. 12_t2")
    return subject, series


def _pairs(
    source: str,
    images: list[tuple[str, Path]],
    masks: dict[str, list[tuple[str, Path]]],
    take_apart: Callable[[str], tuple[str, str]],
) -> tuple[AnnotatedFiles, ...]:
    """Each image with its one mask, of any of the kinds of ``masks`` (name of the kind -> named files)."""
    faults = []
    counted = Counter(stem for stem, _ in images)
    faults += [f"{stem}: {n} images for one subject and visit" for stem, n in counted.items() if n > 1]
    named = [(stem, path) for kind in masks.values() for stem, path in kind]
    counted = Counter(stem for stem, _ in named)
    faults += [f"{stem}: {n} masks for one subject and visit" for stem, n in counted.items() if n > 1]
    mask_of, image_of = dict(named), dict(images)
    faults += [f"{path.name}: there is no {' or '.join(masks)} of it" for stem, path in images if stem not in mask_of]
    faults += [f"{path.name}: there is no image of it" for stem, path in named if stem not in image_of]
    entries = []
    for stem in sorted(image_of.keys() & mask_of.keys()):
        try:
            subject, visit = take_apart(stem)
        except AnnotationError as error:
            faults.append(str(error))
            continue
        entries.append(AnnotatedFiles(subject, visit, source, image_of[stem], mask_of[stem]))
    if faults:
        raise AnnotationError("\n".join(faults))
    return tuple(sorted(entries, key=lambda one: (one.subject, one.visit)))
