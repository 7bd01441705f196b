"""`discnode atlas`: which atlases there are, and a site's own from one annotated subject."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import Settings

if TYPE_CHECKING:
    from processing.atlas import Atlas
    from processing.results import Affine, LabelArray

_OK, _USAGE, _REFUSED = 0, 2, 3
_MASK_SUFFIXES = (".nii.gz", ".nii", ".mha", ".npz")


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of the command. ``load`` reads a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="name, source, licence, levels and sizes of atlases")
    listing.add_argument("files", nargs="*", metavar="FILE", help="atlas files to list beside those that are shipped")
    listing.set_defaults(command=list_atlases)

    build = actions.add_parser("build", help="an atlas from one annotated subject")
    build.add_argument(
        "--from",
        dest="source_path",
        type=Path,
        required=True,
        metavar="EXAM_OR_MASK",
        help="a mask (.nii.gz, .mha, DICOM Segmentation or the .npz truth of discnode simulate), or a folder of"
        " annotated exams as discnode evaluate reads it; all of L5S1 to L1L2 must be annotated",
    )
    build.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="where the atlas is written")
    build.add_argument("--name", help="name that stands in every result; default: the name of the file")
    build.add_argument("--exam", help="SUBJECT or SUBJECT_VISIT, where a folder holds several exams")
    build.add_argument(
        "--complete-sides",
        action="store_true",
        help="where the first or last slice cuts a disc, model its side (an ellipse, as in the mean healthy anatomy)",
    )
    build.add_argument("--source", default="annotated exam of the site", help="where the anatomy comes from")
    build.add_argument("--licence", default="not stated", help="under which it may be used")
    build.add_argument("--attribution", default="", help="what the licence asks to be said")
    build.add_argument("--config", type=Path, help="settings file (YAML), for protocol cards of DICOM exams")
    build.set_defaults(command=lambda options: build_atlas(options, load(options.config)))


def list_atlases(options: argparse.Namespace) -> int:
    """Print what there is; returns the exit status."""
    from processing.atlas import AtlasError, read_atlas, shipped_atlases

    status = _OK
    for name in (*shipped_atlases(), *options.files):
        try:
            sys.stdout.write(_described(read_atlas(name)))
        except AtlasError as error:
            sys.stderr.write(f"{error}\n")
            status = _USAGE
    return status


def build_atlas(options: argparse.Namespace, settings: Settings) -> int:
    """Build an atlas, write it, and print what is in it; returns the exit status."""
    from processing.annotated_files import AnnotationError
    from processing.atlas import Atlas, AtlasError, read_atlas, write_atlas
    from processing.atlas_masks import discs_from_masks
    from processing.refusal import UnsuitableInput

    if options.out.suffix != ".npz":
        sys.stderr.write(f"{options.out}: the name of an atlas ends in .npz\n")
        return _USAGE
    try:
        levels, affine = _annotated(options.source_path, options.exam, settings)
        discs = discs_from_masks(levels, affine, complete_sides=options.complete_sides)
    except (AnnotationError, AtlasError) as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    except UnsuitableInput as error:
        sys.stderr.write(f"{options.source_path.name}: {error}\n")
        return _REFUSED
    sides = "; sides modelled beyond the first and last slice" if options.complete_sides else ""
    name = options.name or options.out.stem
    atlas = Atlas(name, f"{options.source}{sides}", options.licence, options.attribution, discs)
    writing = options.out.with_name(f".{options.out.stem}.writing.npz")
    try:
        write_atlas(atlas, writing)
        read_atlas(str(writing.resolve()))  # what cannot be read takes nobody's place
        os.replace(writing, options.out)
    except OSError as error:
        sys.stderr.write(f"{options.out}: cannot be written: {error.strerror}\n")
        return _USAGE
    except AtlasError as error:
        sys.stderr.write(f"the atlas could not be used: {error}\n")
        return _REFUSED
    finally:
        if writing.is_file():
            writing.unlink()
    sys.stdout.write(_described(read_atlas(str(options.out.resolve()))))
    return _OK


def _annotated(path: Path, exam: str | None, settings: Settings) -> "tuple[LabelArray, Affine]":
    """Named discs (slices, rows, columns) and their affine.

    Raises:
        AnnotationError: nothing there, or more than one exam and none chosen.
        UnsuitableInput: a DICOM file that is no Segmentation.
    """
    from processing.annotated_files import AnnotationError
    from service.annotated_exams import find_annotated_exams, read_annotated_exam

    if path.is_file():
        return _annotated_file(path)
    sources = find_annotated_exams(path, settings)
    names = {f"{one.subject}_{one.visit}" if one.visit else one.subject: one for one in sources}
    if exam is None and len(names) == 1:
        exam = next(iter(names))
    if exam not in names:
        said = f"there is no exam {exam}" if exam else "an atlas is of one exam; choose one with --exam"
        raise AnnotationError(f"{path}: {said}; there are {', '.join(names)}")
    annotated = read_annotated_exam(names[exam])
    if not annotated.has_levels:
        raise AnnotationError(f"{exam}: its discs are annotated, but not named")
    return annotated.levels, annotated.image.affine


def _annotated_file(path: Path) -> "tuple[LabelArray, Affine]":
    from dicom_io.segmentation_reader import read_segmentation
    from processing.annotations import (
        SITE,
        SPIDER_NIFTI,
        AnnotatedFiles,
        AnnotationError,
        in_canonical_order,
        read_annotation,
    )

    if not path.name.endswith(_MASK_SUFFIXES):
        labels, own = read_segmentation(path)
        return in_canonical_order(labels, own, path.name)
    subject, _, ending = path.name.partition("_")
    layout = SPIDER_NIFTI if ending.startswith("label.") else SITE
    annotation = read_annotation(AnnotatedFiles(subject, "", layout, path, path))
    if not annotation.has_levels:
        raise AnnotationError(f"{path.name}: its discs are annotated, but not named")
    return annotation.levels, annotation.affine


def _described(atlas: "Atlas") -> str:
    """A few lines about an atlas."""
    from processing.atlas import SPACING_MM

    lines = [f"{atlas.name}  (sha256 {atlas.sha256[:16]})", f"  source   {atlas.source}"]
    lines += [f"  licence  {atlas.licence}", *([f"  credit   {atlas.attribution}"] if atlas.attribution else [])]
    voxel_cm3 = SPACING_MM[0] * SPACING_MM[1] * SPACING_MM[2] / 1000
    for level, disc in atlas.discs[3].items():
        mid = atlas.discs[2][level].mask
        depth_mm = float(mid.any(axis=(0, 1)).sum() * SPACING_MM[2])
        shape = " x ".join(map(str, disc.mask.shape))
        nucleus = float((disc.regions == 1).sum() / (disc.mask > 0).sum())
        lines.append(
            f"  {level.name}  {shape} voxels, {disc.mask.sum() * voxel_cm3:.1f} cm3, {depth_mm:.0f} mm deep,"
            f" {mid.sum() * SPACING_MM[1] * SPACING_MM[2] / depth_mm:.1f} mm high, nucleus {nucleus:.0%}"
        )
    return "\n".join(lines) + "\n"
