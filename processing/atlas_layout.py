"""The discs of an atlas on one grid, one above the other, so that what was measured in them fits into one image.

Every atlas disc lies on a small grid of its own, centred on its centroid. Here each level has a place of its own, the
same in all exams: a voxel of the layout is the same voxel of the atlas, whichever discs an exam has. Nothing is
interpolated: discs are moved by whole voxels, so that a disc's centroid lies within half a voxel of its level's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processing.results import Affine, AtlasDisc, LabelArray, Level

#: From the place of one level to that of the next, towards the head; no disc is nearly as high.
PITCH_MM = 48.0
_MARGIN = np.array((0, 4, 4))  # voxels around all discs: viewers write on the edges of a picture


@dataclass(frozen=True, slots=True, eq=False)
class AtlasLayout:
    """One grid for several discs: ``shape`` (slices, rows, columns); ``affine`` (4, 4), index -> mm, of the layout.

    ``first``: per disc the index of its own first voxel in the layout. The parts of a disc's grid that hold no disc may
    lie outside the layout.
    """

    discs: tuple[AtlasDisc, ...]
    shape: tuple[int, int, int]
    affine: Affine
    first: tuple[tuple[int, int, int], ...]

    def place(self, arrays: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        """Arrays (slices, rows, columns) on the grids of ``discs``, laid out; 0 outside the discs."""
        placed = np.zeros(self.shape, arrays[0].dtype)
        for disc, first, array in zip(self.discs, self.first, arrays, strict=True):
            within = np.argwhere(disc.mask)
            placed[tuple((within + first).T)] = array[tuple(within.T)]
        return placed

    def affine_of(self, level: Level) -> Affine:
        """(4, 4): index on the grid of one disc -> mm of the layout.

        Raises:
            ValueError: the layout does not have this disc.
        """
        first = self.first[[disc.level for disc in self.discs].index(level)]
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ first
        return affine

    @property
    def labels(self) -> LabelArray:
        """10 x level + region in every voxel of a disc: 21 is the nucleus of L4/L5; 0 elsewhere."""
        labelled = [(10 * disc.level + disc.regions).astype(np.uint8) for disc in self.discs]
        return self.place(labelled).astype(np.uint8)


def lay_out(discs: Sequence[AtlasDisc]) -> AtlasLayout:
    """Discs of one atlas, on grids of equal spacing and orientation, laid out.

    Raises:
        ValueError: no disc, a level twice, grids that differ, or a disc higher than :data:`PITCH_MM`.
    """
    if len({disc.level for disc in discs}) != len(discs) or not discs:
        raise ValueError("a layout has one disc or more, each level once")
    axes = discs[0].affine[:3, :3]
    if not all(np.allclose(disc.affine[:3, :3], axes, atol=1e-6) for disc in discs):
        raise ValueError("the discs of the atlas have different spacings or orientations")
    moved = [_moved(disc, axes) for disc in discs]
    boxes = [np.argwhere(disc.mask) + shift for disc, shift in zip(discs, moved, strict=True)]
    low = np.min([box.min(axis=0) for box in boxes], axis=0) - _MARGIN
    high = np.max([box.max(axis=0) for box in boxes], axis=0) + _MARGIN
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, axes @ low
    n_slices, n_rows, n_columns = (high - low + 1).tolist()
    n_columns += -n_columns % 4  # OHIF 3.13 opens a map only if its rows x columns are a multiple of 4
    first = [tuple((shift - low).tolist()) for shift in moved]
    return AtlasLayout(tuple(discs), (n_slices, n_rows, n_columns), affine, tuple(first))


def alike(discs: Sequence[AtlasDisc]) -> list[list[AtlasDisc]]:
    """Discs in groups of equal spacing and orientation, each of which can be laid out; one group as a rule."""
    groups: list[list[AtlasDisc]] = []
    for disc in discs:
        for group in groups:
            if np.allclose(group[0].affine[:3, :3], disc.affine[:3, :3], atol=1e-6):
                group.append(disc)
                break
        else:
            groups.append([disc])
    return groups


def _moved(disc: AtlasDisc, axes: npt.NDArray[np.float64]) -> npt.NDArray[np.int_]:
    """By how many voxels a disc's grid is moved, so that its centroid comes to its level's place."""
    index = np.argwhere(disc.mask)
    height_mm = float(np.ptp(index @ axes[2]))
    if height_mm >= PITCH_MM:
        raise ValueError(f"the atlas disc {disc.level.name} is {height_mm:.0f} mm high")
    place_mm = np.array([0.0, 0.0, PITCH_MM * (disc.level - Level.L3L4)])
    shift: npt.NDArray[np.int_] = np.rint(np.linalg.solve(axes, place_mm) - index.mean(axis=0)).astype(int)
    return shift
