"""A mask that a person gives for an exam: a DICOM Segmentation, or a volume file of level labels."""

import hashlib
from pathlib import Path

from dicom_io.corrected_segmentation import exam_grid, read_corrected
from dicom_io.series import ExamAssembly
from processing.annotated_files import SITE, SUFFIXES
from processing.annotations import AnnotatedFiles, AnnotationError, read_annotation
from processing.correction import check_discs
from processing.lattice import place_on_lattice
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import GivenMask, MaskOrigin


def read_given_mask(path: Path, assembly: ExamAssembly) -> GivenMask:
    """The discs of a mask on the grid of a complete exam.

    A volume file (``.nii.gz``, ``.nii``, ``.mha``) holds 1 = L5S1 to 5 = L1L2; whose it is, it cannot tell.

    Raises:
        UnsuitableInput: as :func:`dicom_io.corrected_segmentation.read_corrected`; UNREADABLE, a volume file is no
            mask of levels.
        OSError: a file cannot be read.
    """
    grid = exam_grid(assembly)
    if not path.name.endswith(SUFFIXES):
        return read_corrected(path, grid)
    try:
        annotation = read_annotation(AnnotatedFiles("", "", SITE, path, path))
    except AnnotationError as error:
        # Not by its name in what is kept: people name files after patients.
        text = f"the mask cannot be used: {str(error).replace(path.name, 'the file')}"
        raise UnsuitableInput(ReasonCode.UNREADABLE, text) from error
    levels = place_on_lattice(annotation.levels, annotation.affine, grid.shape, grid.affine)
    check_discs(levels, grid.affine)
    return GivenMask(levels, MaskOrigin(hashlib.sha256(path.read_bytes()).hexdigest()))
