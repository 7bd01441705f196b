"""From sub-samples to voxels: which tissue, level and relaxation time a voxel of a simulated image truly has."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processing.phantom_tissue import CLASS_OF_TISSUE, TissueSlice
from processing.results import FloatArray, LabelArray

# Sub-samples of a voxel: offsets in (row, column), in voxels, one pair for each sub-slice through the thickness. Over
# the eight sub-slices they fill the plane too, which costs half of sampling every sub-slice twice in both directions.
SUBSAMPLES = np.array([[-3, -1], [1, 3], [-1, -3], [3, 1], [-1, 1], [3, -3], [-3, 3], [1, -1]], dtype=np.float64) / 8


@dataclass(frozen=True, slots=True, eq=False)
class VoxelTruth:
    """The truth of voxels, (rows, columns): see :class:`processing.phantom.PhantomExam`."""

    labels: LabelArray
    upper_labels: LabelArray
    classes: LabelArray
    t1rho_ms: FloatArray
    t2_ms: FloatArray
    nucleus: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """Sums over the sub-samples of each voxel; a class needs a plurality, a disc its own majority among discs."""

    of_class: npt.NDArray[np.uint8]  # (classes, rows, columns)
    of_level: npt.NDArray[np.uint8]  # (levels 0..9, rows, columns)
    t1rho_sum: FloatArray
    t2_sum: FloatArray
    nucleus_sum: FloatArray

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Votes":
        """No votes yet."""
        return cls(
            np.zeros((5, *shape), np.uint8),
            np.zeros((10, *shape), np.uint8),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )

    def add(self, tissue: TissueSlice) -> None:
        """Count one plane of sub-samples."""
        classes = CLASS_OF_TISSUE[tissue.tissue]
        for value in range(5):
            self.of_class[value] += classes == value
        for level in np.flatnonzero(np.bincount(tissue.level.ravel(), minlength=10)[1:]) + 1:
            self.of_level[level] += tissue.level == level
        self.t1rho_sum[...] += tissue.t1rho_ms
        self.t2_sum[...] += tissue.t2_ms
        self.nucleus_sum[...] += tissue.nucleus

    def elect(self) -> VoxelTruth:
        """The truth of each voxel."""
        classes = np.argmax(self.of_class, axis=0).astype(np.uint8)
        half = self.of_class.sum(axis=0)[0, 0] / 2
        disc = self.of_class[1] >= half
        classes[disc] = 1
        classes[(classes == 1) & ~disc] = 0
        level = np.where(disc, np.argmax(self.of_level, axis=0), 0).astype(np.uint8)
        count = np.maximum(self.of_class[1], 1)
        measured = (level >= 1) & (level <= 5)
        return VoxelTruth(
            labels=np.where(measured, level, 0).astype(np.uint8),
            upper_labels=np.where(level > 5, level, 0).astype(np.uint8),
            classes=classes,
            t1rho_ms=np.where(measured, self.t1rho_sum / count, np.nan).astype(np.float32),
            t2_ms=np.where(measured, self.t2_sum / count, np.nan).astype(np.float32),
            nucleus=np.where(measured, self.nucleus_sum / count, np.nan).astype(np.float32),
        )
