from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from models.preprocessing import BACKGROUND, BODY, CANAL, DISC, SACRUM, SPACING_MM  # noqa: E402
from models.training.real_data import load_folder  # noqa: E402

FILE_MM = 0.46875


def write_pair(folder: Path, subject: str) -> None:
    """A straight spine of three discs in the file's array order: rows, columns, slices; the last slice has no disc."""
    label = np.zeros((400, 200, 3), np.uint8)
    for row in (60, 140, 220):
        label[row : row + 20, 60:130, :2] = 1
        label[max(0, row - 60) : row, 60:130, :2] = 2
        label[row - 40 : row - 20, 130:180, :2] = 2  # posterior elements, joined to the body
    label[:, 140:160, :2] = 3
    image = np.where(label == 1, 200, 40).astype(np.uint8)
    affine = np.diag([FILE_MM, FILE_MM, 1.8, 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{subject}_image.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"{subject}_label.nii.gz")


def at(row: int, column: int) -> tuple[int, int]:
    return round(row * FILE_MM / SPACING_MM), round(column * FILE_MM / SPACING_MM)


def test_annotations_become_what_is_known_and_what_stays_open(tmp_path: Path) -> None:
    write_pair(tmp_path, "9")
    slices = load_folder(tmp_path)
    assert len(slices) == 2  # the slice without a disc is left out
    one = slices[0]
    assert one.image.shape == one.allowed.shape == (240, 120)
    assert one.subject == "9"
    assert one.is_real
    assert one.allowed[at(70, 90)] == 1 << DISC
    assert one.image[at(70, 90)] == pytest.approx(200, abs=1)
    assert one.allowed[at(110, 90)] == 1 << BODY
    assert one.allowed[at(50, 150)] == 1 << CANAL
    assert one.allowed[at(110, 175)] == 1 << BACKGROUND  # posterior element
    assert one.allowed[at(110, 134)] == 1 << BACKGROUND | 1 << BODY  # pedicle or body
    assert one.allowed[at(100, 20)] == 1 << BACKGROUND  # in front of the spine
    assert one.allowed[at(380, 95)] == 1 << BACKGROUND | 1 << SACRUM  # unlabelled below the lowest disc
    assert one.allowed[at(262, 95)] == 1 << SACRUM  # just below its middle


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*_image\.nii\.gz"):
        load_folder(tmp_path)
