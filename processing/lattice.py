"""Labels drawn on voxels of an exam, whatever their order, brought onto the exam's own grid: never resampled."""

from itertools import product

import numpy as np
import numpy.typing as npt

from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Affine, LabelArray
from processing.volume import spacing_mm

#: How far a voxel's centre may lie from its place in the grid, as a share of a voxel. Writers round positions to
#: about 0.001 mm; a mask drawn on other images is off by tens of percent.
TOLERANCE_VOXELS = 0.1

_Matrix = npt.NDArray[np.float64]


def place_on_lattice(
    labels: LabelArray, own: Affine, shape: tuple[int, ...], grid: Affine, *, slices_left_out: bool = False
) -> LabelArray:
    """The labels on the exam's grid; 0 where they say nothing.

    Slices may be reversed or left out at the ends or one by one, rows and columns transposed, as long as every labelled
    voxel is a voxel of the exam.

    Args:
        labels: (slices, rows, columns) uint8 on a grid of their own.
        own: its affine, LPS mm.
        shape: (slices, rows, columns) of the exam.
        grid: the exam's affine, LPS mm.
        slices_left_out: slices two or more apart are single slices with others between them that were left out; else
            they are as thick as they are apart, and no slices of the exam.

    Raises:
        UnsuitableInput: GEOMETRY_INCONSISTENT, saying what differs: direction, spacing, place or extent.
    """
    inverse = np.linalg.inv(grid[:3, :3])
    step = inverse @ own[:3, :3]
    if labels.shape[0] == 1:  # how far it is to the next slice is not known to a single one
        step[:, 0] = _third_axis(step)
    length = np.abs(step).max(axis=0)
    turn = np.round(step / length)
    if not (_is_one_each(np.abs(turn), 0) and _is_one_each(np.abs(turn), 1)):
        raise _refusal("it lies in other directions than the images do")
    multiple = np.ones(3)
    if slices_left_out:  # every other one, or more, was empty
        multiple[0] = max(1.0, np.round(length[0]))
    turn *= multiple
    if not np.allclose(length, multiple, atol=0.02):
        sizes = [" x ".join(f"{mm:.3f}" for mm in spacing_mm(one)) for one in (own, grid)]
        raise _refusal(f"its voxels are {sizes[0]} mm, those of the images {sizes[1]} mm")
    origin = inverse @ (own[:3, 3] - grid[:3, 3])
    start = np.round(origin)
    corners = np.array(list(product(*((0, n - 1) for n in labels.shape))), np.float64)
    apart = np.abs(corners @ (step - turn).T + origin - start).max()
    if not apart <= TOLERANCE_VOXELS:  # also when it is NaN
        raise _refusal(f"its voxels lie up to {apart:.2f} voxels beside those of the images")
    labelled = np.argwhere(labels)
    placed = labelled @ turn.T.astype(int) + start.astype(int)
    if (placed < 0).any() or (placed >= shape).any():
        raise _refusal("it has labels beyond the edge of the images")
    result = np.zeros(shape, np.uint8)
    result[tuple(placed.T)] = labels[tuple(labelled.T)]
    return result


def _third_axis(step: _Matrix) -> _Matrix:
    """The grid's axis that the rows and columns of a single slice leave over."""
    taken = np.abs(step[:, 1:]).max(axis=1)
    axis = np.zeros(3)
    axis[int(np.argmin(taken))] = 1.0
    return axis


def _is_one_each(turn: _Matrix, axis: int) -> bool:
    return bool((turn.sum(axis=axis) == 1).all())


def _refusal(text: str) -> UnsuitableInput:
    return UnsuitableInput(ReasonCode.GEOMETRY_INCONSISTENT, f"the segmentation does not lie on the images: {text}")
