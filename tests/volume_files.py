"""Volume files (NIfTI, MetaImage) with the geometry of an exam."""

from pathlib import Path

import numpy as np
import SimpleITK


def write_volume(array: np.ndarray, path: Path, affine: np.ndarray) -> None:
    """An array (slices, rows, columns) with its LPS affine as a volume file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    matrix = affine[:3, :3][:, ::-1]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
