"""A made-up annotated site: straight spines whose five discs are bright stripes, as volume files of any layout."""

from pathlib import Path

import numpy as np
from volume_files import write_volume

#: Rows and columns of 1 mm, three slices of 4 mm from left to right.
SHAPE = (3, 192, 112)
AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])

#: First row of each disc, 1 = L5S1 upwards; each is 8 rows high.
FIRST_ROWS = {1: 150, 2: 122, 3: 94, 4: 66, 5: 38}
DISC_COLUMNS = slice(30, 62)


def striped_levels() -> np.ndarray:
    """Levels (slices, rows, columns); the first slice shows none."""
    levels = np.zeros(SHAPE, np.uint8)
    for level, row in FIRST_ROWS.items():
        levels[1:, row : row + 8, DISC_COLUMNS] = level
    return levels


def striped_tissue() -> np.ndarray:
    """0 nothing, 1 disc, 2 vertebra, 3 canal, as in SPIDER's NIfTI pairs."""
    levels = striped_levels()
    tissue = np.zeros(SHAPE, np.uint8)
    tissue[1:, 10:150, DISC_COLUMNS] = 2
    tissue[1:, :, 66:74] = 3
    tissue[levels > 0] = 1
    return tissue


def striped_image(seed: int) -> np.ndarray:
    """Discs far brighter than all else, a little noise."""
    grey = np.array([20.0, 200.0, 80.0, 110.0])[striped_tissue()]
    return (grey + np.random.default_rng(seed).normal(0, 4, SHAPE)).astype(np.float32)


def write_site(folder: Path, *names: str, levels: np.ndarray | None = None) -> Path:
    """``NAME_image.nii.gz`` with ``NAME_mask.nii.gz`` for each name; returns the folder."""
    for seed, name in enumerate(names):
        write_volume(striped_image(seed), folder / f"{name}_image.nii.gz", AFFINE)
        write_volume(striped_levels() if levels is None else levels, folder / f"{name}_mask.nii.gz", AFFINE)
    return folder


def write_pairs(folder: Path, *names: str) -> Path:
    """SPIDER's NIfTI pairs: ``NAME_image.nii.gz`` with ``NAME_label.nii.gz``; returns the folder."""
    for seed, name in enumerate(names):
        write_volume(striped_image(seed), folder / f"{name}_image.nii.gz", AFFINE)
        write_volume(striped_tissue(), folder / f"{name}_label.nii.gz", AFFINE)
    return folder


def write_release(folder: Path, *names: str) -> Path:
    """The layout of SPIDER's public release: ``images/ID_SERIES.mha`` and ``masks/`` of the same names."""
    coded = np.array([0, 0, 1, 100], np.int16)[striped_tissue()]
    levels = striped_levels()
    coded[levels > 0] = 200 + levels[levels > 0]
    for seed, name in enumerate(names):
        write_volume(striped_image(seed), folder / "images" / f"{name}.mha", AFFINE)
        write_volume(coded, folder / "masks" / f"{name}.mha", AFFINE)
    return folder
