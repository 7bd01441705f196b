"""elastix and transformix, called in memory: images in, plain transform maps and arrays out.

itk takes seconds to load and may crash in native code: it is imported inside functions and belongs into a process of
its own (:mod:`processing.registration_pool`).
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.disc_frame import DiscFrame, grid_axes, plane_of
from processing.elastix_parameters import ParameterMap
from processing.results import Affine, FloatArray

TransformMap = Mapping[str, tuple[str, ...]]

_LOG_TAIL_CHARACTERS = 2000


class ElastixFailed(Exception):
    """elastix gave up. ``log`` is the end of its own log; there is nothing of the patient in it."""

    def __init__(self, detail: str, log: str) -> None:
        super().__init__(detail)
        self.detail, self.log = detail, log


def run_elastix(fixed: Any, moving: Any, stages: Sequence[ParameterMap]) -> tuple[TransformMap, ...]:
    """Register two itk images, one stage after the other; returns the fitted transforms, first applied first.

    Raises:
        ElastixFailed: with elastix' own last words.
    """
    itk = _itk()
    with tempfile.TemporaryDirectory(prefix="discnode-elastix-") as folder:
        method = itk.ElastixRegistrationMethod.New(fixed, moving)
        method.SetParameterObject(_parameter_object(stages))
        method.SetNumberOfThreads(1)
        method.SetLogToConsole(False)
        method.SetLogToFile(True)
        method.SetOutputDirectory(folder)
        method.SetLogFileName("elastix.log")
        try:
            method.UpdateLargestPossibleRegion()
        except RuntimeError as error:
            raise ElastixFailed(str(error).strip(), _log_tail(Path(folder, "elastix.log"))) from error
        return _plain_maps(method.GetTransformParameterObject())


def transform_image(moving: Any, maps: Sequence[TransformMap]) -> FloatArray:
    """An itk image carried through the transforms onto the grid that they name."""
    return _array(_transformix(moving, maps).GetOutput())


def jacobian_determinant(moving: Any, maps: Sequence[TransformMap]) -> FloatArray:
    """det J of the transforms together, at every voxel of the grid that they name."""
    filter_ = _transformix(moving, maps)  # crashes unless updated before the determinant is asked for
    try:
        return _array(filter_.ComputeSpatialJacobianDeterminantImage())
    except RuntimeError as error:
        raise ElastixFailed(f"det J: {str(error).strip()}", "") from error


def affine_determinant(fitted: TransformMap) -> float:
    """det A of a fitted affine transform."""
    numbers = np.array([float(number) for number in fitted["TransformParameters"]])
    dimension = 2 if len(numbers) == 6 else 3
    return float(np.linalg.det(numbers[: dimension**2].reshape(dimension, dimension)))


def itk_image(array: npt.NDArray[np.float32], affine: Affine, frame: DiscFrame | None = None) -> Any:
    """An itk image in LPS mm, or in the atlas' frame; a single slice becomes a 2-D image."""
    itk = _itk()
    dimension = 2 if array.shape[0] == 1 else 3
    plane = plane_of(affine, dimension)
    direction, origin = plane @ grid_axes(affine)[:, :dimension], plane @ affine[:3, 3]
    if frame is not None:
        direction = frame.rotation.T @ direction
        origin = frame.rotation.T @ (origin - frame.patient_centroid) + frame.atlas_centroid
    image = itk.image_from_array(np.ascontiguousarray(array[0] if dimension == 2 else array))
    image.SetSpacing(np.linalg.norm(affine[:3, 2::-1], axis=0)[:dimension].tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    return image


#: What a transform map says beside the transform itself: the output grid and how to resample onto it.
_GRID_NAMES = (
    "DefaultPixelValue",
    "Direction",
    "FixedImageDimension",
    "FixedInternalImagePixelType",
    "HowToCombineTransforms",
    "Index",
    "MovingImageDimension",
    "MovingInternalImagePixelType",
    "Origin",
    "Resampler",
    "ResultImageFormat",
    "ResultImagePixelType",
    "Size",
    "Spacing",
    "UseDirectionCosines",
)


def frame_map(frame: DiscFrame, fitted: TransformMap) -> TransformMap:
    """The change of frame as elastix writes an affine transform: y = A·x + t about the origin."""
    shift = frame.patient_centroid - frame.rotation @ frame.atlas_centroid
    numbers = [*frame.rotation.ravel().tolist(), *shift.tolist()]
    return {
        **{name: fitted[name] for name in _GRID_NAMES if name in fitted},
        **interpolator(1),
        "Transform": ("AffineTransform",),
        "NumberOfParameters": (str(len(numbers)),),
        "TransformParameters": tuple(repr(number) for number in numbers),
        "CenterOfRotationPoint": ("0",) * len(shift),
    }


def interpolator(order: int) -> ParameterMap:
    """How a transform map names an interpolation: 0 nearest, 1 linear, 3 cubic B-spline.

    Raises:
        ValueError: another order.
    """
    names = {0: "FinalNearestNeighborInterpolator", 1: "FinalLinearInterpolator", 3: "FinalBSplineInterpolator"}
    if order not in names:
        raise ValueError(f"order must be 0, 1 or 3, not {order}")
    return {"ResampleInterpolator": (names[order],), "FinalBSplineInterpolationOrder": (str(order),)}


def _itk() -> Any:
    """The itk package: seconds to import the first time."""
    import itk

    # the number of threads changes the answer, and one is the cheapest: discs run side by side in processes instead
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    return itk


def _log_tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:] if path.exists() else ""


def _transformix(moving: Any, maps: Sequence[TransformMap]) -> Any:
    """An updated transformix filter.

    Raises:
        ElastixFailed: it gave up.
    """
    filter_ = _itk().TransformixFilter.New(moving)
    filter_.SetTransformParameterObject(_parameter_object(maps))
    filter_.SetLogToConsole(False)
    filter_.SetOutputDirectory(os.devnull)  # nothing may be written into the working directory
    try:
        filter_.UpdateLargestPossibleRegion()
    except RuntimeError as error:
        raise ElastixFailed(f"transformix: {str(error).strip()}", "") from error
    return filter_


def _array(image: Any) -> FloatArray:
    return np.array(_itk().array_from_image(image), dtype=np.float32)


def _parameter_object(maps: Sequence[TransformMap]) -> Any:
    parameters = _itk().ParameterObject.New()
    for one in maps:
        parameters.AddParameterMap(dict(one))
    return parameters


def _plain_maps(parameters: Any) -> tuple[TransformMap, ...]:
    """Parameter maps as plain strings, without the names of temporary files: these would differ in every run."""
    count = range(parameters.GetNumberOfParameterMaps())
    maps = ({str(k): tuple(map(str, v)) for k, v in parameters.GetParameterMap(i).items()} for i in count)
    return tuple(one | {"InitialTransformParameterFileName": ("NoInitialTransform",)} for one in maps)
