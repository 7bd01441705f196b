"""The transform of one registered disc as an affine matrix and a grid of displacements, as others can apply it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processing.results import Affine, FloatArray, RegisteredDisc
from processing.transform_points import patient_index


@dataclass(frozen=True, slots=True, eq=False)
class DeformationField:
    """Where the atlas lies in the patient: patient = ``matrix`` · atlas + displacement, homogeneous LPS mm.

    ``displacements_mm`` (slices, rows, columns, 3) at the voxels of the grid ``affine`` (4, 4), index -> atlas mm.
    """

    matrix: npt.NDArray[np.float64]
    displacements_mm: FloatArray
    affine: Affine


def deformation_field(disc: RegisteredDisc, patient: Affine, atlas: Affine | None = None) -> DeformationField:
    """The field on the disc's own atlas grid; ``matrix`` is the affine map that leaves the least of it in the disc.

    Args:
        disc: its alignment maps atlas to patient.
        patient: (4, 4) of the patient's native grid.
        atlas: (4, 4) of the disc's grid if it is to lie elsewhere than in the atlas itself, as in a layout.
    """
    shape = disc.atlas.mask.shape
    affine = disc.atlas.affine if atlas is None else atlas
    index = np.indices(shape).reshape(3, -1).astype(np.float64)
    at_mm = affine[:3, :3] @ index + affine[:3, 3:]
    place = patient_index(disc.alignment, disc.atlas, patient, index)
    place_mm = patient[:3, :3] @ place + patient[:3, 3:]
    matrix = _closest_matrix(at_mm, place_mm, disc.atlas.mask.ravel() > 0, affine, patient)
    rest = place_mm - (matrix[:3, :3] @ at_mm + matrix[:3, 3:])
    return DeformationField(matrix, rest.T.reshape(*shape, 3).astype(np.float32), affine)


def _closest_matrix(
    at_mm: npt.NDArray[np.float64],
    place_mm: npt.NDArray[np.float64],
    inside: npt.NDArray[np.bool_],
    affine: Affine,
    patient: Affine,
) -> npt.NDArray[np.float64]:
    """Least squares over the voxels of the disc. Of one slice, a step across it is a step of equal length across it."""
    at, place = at_mm[:, inside], place_mm[:, inside]
    if np.ptp(np.linalg.solve(affine[:3, :3], at)[0]) < 0.5:
        step, patient_step = (one[:3, :1] / np.linalg.norm(one[:3, 0]) for one in (affine, patient))
        at, place = np.hstack([at - step, at + step]), np.hstack([place - patient_step, place + patient_step])
    homogeneous = np.vstack([at, np.ones(at.shape[1])])
    found, *_ = np.linalg.lstsq(homogeneous.T, place.T, rcond=None)
    matrix = np.eye(4)
    matrix[:3] = found.T
    return matrix
