"""One disc onto its atlas disc, by masks alone: centroid, affine, B-spline with a rigidity penalty (Iriondo 2020).

The atlas is the fixed image. The patient's crop is first brought into the atlas' frame by a rigid change of frame: its
slice, row and column axes become the atlas' axes, its centroid the atlas' centroid, and the tilt of the disc in the
sagittal plane is taken out. elastix therefore never sees an oblique image. The change of frame is kept as the last of
``Alignment.transforms``, so that these map atlas points to the patient's LPS millimetres (in 2-D: to millimetres along
the patient's columns and rows).

itk takes seconds to load and may crash in native code: it is imported inside functions and belongs into a process of
its own (:mod:`processing.registration_pool`).
"""

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.elastix_parameters import ParameterMap, registration_parameters
from processing.fitting import relaxation_map
from processing.results import (
    Affine,
    Alignment,
    AtlasDisc,
    DiscMask,
    EchoStack,
    FloatArray,
    LabelArray,
    Level,
    Quantity,
    RegisteredDisc,
)

_Float64 = npt.NDArray[np.float64]
_LOG_TAIL_CHARACTERS = 2000

#: Of the echoes' interpolation: 3, a cubic B-spline. Linear mixes neighbouring slices: in simulated MAPSS exams of 4 mm
#: slices it changed the nucleus' mean by 2.7 % on average (5.4 % at most) and narrowed its distribution (overlap with
#: the native one 0.88, at least 0.85); cubic 1.2 % and 2.5 %, 0.95 and 0.93 (tests/benchmarks/atlases.py).
ECHO_INTERPOLATION_ORDER = 3


class RegistrationFailed(Exception):
    """elastix could not register a disc. ``log`` is the end of its own log; there is nothing of the patient in it."""

    def __init__(self, level: Level, detail: str, log: str = "") -> None:
        super().__init__(f"{level.name}: {detail}")
        self.level, self.detail, self.log = level, detail, log

    def __reduce__(self) -> tuple[type["RegistrationFailed"], tuple[Level, str, str]]:
        return type(self), (self.level, self.detail, self.log)  # so it survives a process boundary


@dataclass(frozen=True, slots=True, eq=False)
class DiscTask:
    """One disc to register: its ``mask`` (slices, rows, columns) and the echoes of the same crop."""

    mask: LabelArray
    affine: Affine
    stacks: tuple[EchoStack, ...]
    atlas: AtlasDisc
    preset: str = "fast"
    seed: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredSignal:
    """A disc's alignment and its echoes deformed onto the atlas grid, NaN outside the acquired image."""

    alignment: Alignment
    atlas: AtlasDisc
    stacks: Mapping[Quantity, EchoStack]


def disc_task(
    mask: DiscMask,
    level: Level,
    stacks: tuple[EchoStack, ...],
    atlas: AtlasDisc,
    *,
    preset: str = "fast",
    seed: int = 1,
    margin_mm: float = 10.0,
) -> DiscTask:
    """Crop one disc out of an exam, and the echoes with it.

    Raises:
        ValueError: the disc has no voxel, or the echoes are on another grid.
    """
    disc = (mask.levels == level.value).astype(np.uint8)
    if not disc.any():
        raise ValueError(f"{level.name} has no voxel")
    if any(stack.signal.shape[1:] != disc.shape for stack in stacks):
        raise ValueError("echoes and mask are on different grids")
    index = np.argwhere(disc)
    margin = np.ceil(margin_mm / np.linalg.norm(mask.affine[:3, :3], axis=0)).astype(int)
    first, last = np.maximum(index.min(axis=0) - margin, 0), index.max(axis=0) + margin + 1
    box = tuple(slice(int(low), int(high)) for low, high in zip(first, last, strict=True))
    affine = mask.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    crops = tuple(
        replace(stack, signal=np.ascontiguousarray(stack.signal[(slice(None), *box)]), affine=affine)
        for stack in stacks
    )
    return DiscTask(np.ascontiguousarray(disc[box]), affine, crops, atlas, preset, seed)


def align_disc(task: DiscTask) -> RegisteredSignal:
    """Register one disc and carry all its echoes along with the same transform; fitting comes after (paper).

    Raises:
        RegistrationFailed: elastix gave up.
    """
    alignment = register_disc(task.mask, task.affine, task.atlas, preset=task.preset, seed=task.seed)
    inside = _inside_image(alignment, task.mask.shape, task.affine, task.atlas)
    stacks = {}
    for stack in task.stacks:
        echoes = [
            deform(alignment, echo, task.affine, task.atlas, order=ECHO_INTERPOLATION_ORDER) for echo in stack.signal
        ]
        signal = np.where(inside, np.stack(echoes), np.float32(np.nan))
        stacks[stack.role] = replace(stack, signal=signal, affine=task.atlas.affine)
    return RegisteredSignal(alignment, task.atlas, stacks)


def fit_registered(signal: RegisteredSignal) -> RegisteredDisc:
    """Fit the deformed echoes under the atlas mask."""
    disc = signal.atlas.mask > 0
    maps = {quantity: relaxation_map(stack, disc) for quantity, stack in signal.stacks.items()}
    return RegisteredDisc(signal.alignment, signal.atlas, maps)


def register_disc(
    mask: npt.NDArray[Any], affine: Affine, atlas: AtlasDisc, *, preset: str = "fast", seed: int = 1
) -> Alignment:
    """Register the atlas disc (fixed) to the patient's disc (moving). The same input gives the same bits.

    Args:
        mask: (slices, rows, columns), one disc, nonzero inside; with a single slice the registration is 2-D.
        affine: (4, 4), index -> LPS mm.
        atlas: of the same level and dimension: a single-slice atlas for a single-slice mask.
        preset: ``fast`` or ``paper``, see ``config/elastix``.
        seed: of elastix' step size estimation.

    Raises:
        RegistrationFailed: elastix gave up.
        ValueError: empty mask, or mask and atlas differ in dimension.
    """
    started = time.process_time()
    if not mask.any():
        raise ValueError("the mask is empty")
    if (mask.shape[0] == 1) != (atlas.mask.shape[0] == 1):
        raise ValueError(f"mask {mask.shape} and atlas {atlas.mask.shape}: both must be single slices, or neither")
    frame = _frame(mask, affine, atlas)
    moving = _image((mask > 0).astype(np.float32), affine, frame)
    fixed = _image((atlas.mask > 0).astype(np.float32), atlas.affine)
    parameters = registration_parameters(_dimension(atlas), preset, seed)
    fitted = _run_elastix(fixed, moving, parameters, atlas.level)
    into_patient = _frame_map(frame, fitted[0])
    jacobian = _jacobian(fitted, moving, atlas)
    disc = atlas.mask > 0
    shift = (_centroid_mm(mask, affine) - _centroid_mm(atlas.mask, atlas.affine)).tolist()
    alignment = Alignment(
        level=atlas.level,
        centroid_shift_mm=(shift[0], shift[1], shift[2]),
        transforms=(*fitted, into_patient),
        jacobian=jacobian,
        dice=0.0,
        dice_after_centroid=0.0,
        sd_jacobian=float(jacobian[disc].std(dtype=np.float64)),
        min_jacobian=float(jacobian[disc].min()),
        n_folded=int((jacobian[disc] <= 0).sum()),
        preset=preset,
        seed=seed,
        cpu_s=0.0,
    )
    inside = _inside_image(alignment, mask.shape, affine, atlas)
    start = replace(alignment, transforms=(into_patient,))
    return replace(
        alignment,
        dice=_dice(alignment, mask, affine, atlas, inside),
        dice_after_centroid=_dice(start, mask, affine, atlas, inside),
        cpu_s=time.process_time() - started,
    )


def deform(
    alignment: Alignment, image: npt.NDArray[Any], affine: Affine, atlas: AtlasDisc, *, order: int
) -> FloatArray:
    """Carry an image (slices, rows, columns) of the patient onto the atlas grid (slices, rows, columns); 0 outside it.

    ``order`` of the interpolation: 0 nearest, 1 linear, 3 cubic B-spline. Linear smooths, across thick slices most;
    cubic keeps means and noise, but rings at edges: it turns a mask into values from -0.2 to 1.2.
    """
    maps = [*alignment.transforms[:-1], {**alignment.transforms[-1], **_interpolator(order)}]
    deformed = _array(_transformix(_image(image.astype(np.float32), affine), maps).GetOutput())
    return deformed.reshape(atlas.mask.shape)


def warm_up() -> float:
    """Register a small disc with itself, so that elastix is loaded; returns the CPU seconds that took."""
    started = time.process_time()
    rows, columns = np.mgrid[-12:13, -25:26]
    mask = (((columns / 20) ** 2 + (rows / 7) ** 2) <= 1).astype(np.uint8)[None]
    affine = np.array([[-4.0, 0, 0, 0], [0, 0, 0.8, 0], [0, -0.8, 0, 0], [0, 0, 0, 1]])
    atlas = AtlasDisc(Level.L5S1, mask, mask, affine)
    register_disc(np.roll(mask, 1, axis=1), affine, atlas)
    return time.process_time() - started


# -- the change of frame ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """patient = rotation @ (atlas - atlas_centroid) + patient_centroid, mm; in 3-D or in the plane of one slice."""

    rotation: _Float64
    patient_centroid: _Float64
    atlas_centroid: _Float64


def _frame(mask: npt.NDArray[Any], affine: Affine, atlas: AtlasDisc) -> _Frame:
    dimension = _dimension(atlas)
    own, target = _axes(affine)[:, :dimension], _axes(atlas.affine)[:, :dimension]
    similarity = target.T @ own
    # the best pairing of axes as a whole: at 45 degrees two atlas axes may be nearest to the same axis
    orders = permutations(range(dimension))
    nearest = np.array(max(orders, key=lambda order: sum(abs(similarity[i, axis]) for i, axis in enumerate(order))))
    if nearest[-1] != dimension - 1 and dimension == 3:
        raise ValueError("the slices of mask and atlas are not oriented alike")
    signs = np.sign(similarity[np.arange(dimension), nearest])
    axes = _plane(affine, dimension) @ (own[:, nearest] * signs)
    atlas_axes = _plane(atlas.affine, dimension) @ target
    tilt = _tilt(mask, affine, own[:, nearest] * signs) - _tilt(atlas.mask, atlas.affine, target)
    turn = np.eye(dimension)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return _Frame(
        rotation=axes @ turn @ atlas_axes.T,
        patient_centroid=_plane(affine, dimension) @ _centroid_mm(mask, affine),
        atlas_centroid=_plane(atlas.affine, dimension) @ _centroid_mm(atlas.mask, atlas.affine),
    )


def _tilt(mask: npt.NDArray[Any], affine: Affine, axes: _Float64) -> float:
    """Angle in radians of the disc's long axis, towards posterior, in the plane of the first two axes (columns, rows).

    Towards posterior: on a grid turned in its plane the axis alone would let a steep disc come out back to front.
    """
    points = np.argwhere(mask) @ affine[:3, :3].T @ axes[:, :2]
    (xx, xy), (_, yy) = np.cov(points, rowvar=False)
    angle = float(0.5 * np.arctan2(2 * xy, xx - yy))
    posterior = axes[1, :2] @ [np.cos(angle), np.sin(angle)]  # LPS: y
    return angle if posterior >= 0 else angle + np.pi


def _centroid_mm(mask: npt.NDArray[Any], affine: Affine) -> _Float64:
    centroid: _Float64 = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    return centroid


def _axes(affine: Affine) -> _Float64:
    """Unit vectors along columns, rows and slices, as itk orders them: the columns of a (3, 3)."""
    axes: _Float64 = affine[:3, 2::-1] / np.linalg.norm(affine[:3, 2::-1], axis=0)
    return axes


def _plane(affine: Affine, dimension: int) -> _Float64:
    """(dimension, 3): LPS mm to the coordinates elastix works in; in 2-D those along columns and rows."""
    return np.eye(3) if dimension == 3 else _axes(affine)[:, :2].T


def _dimension(atlas: AtlasDisc) -> int:
    return 2 if atlas.mask.shape[0] == 1 else 3


# -- elastix ----------------------------------------------------------------------------------------------------------


def _itk() -> Any:
    """The itk package: seconds to import the first time."""
    import itk

    # the number of threads changes the answer, and one is the cheapest: discs run side by side in processes instead
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    return itk


def _run_elastix(
    fixed: Any, moving: Any, parameters: tuple[ParameterMap, ...], level: Level
) -> tuple[Mapping[str, tuple[str, ...]], ...]:
    """The fitted transforms, first applied first."""
    itk = _itk()
    with tempfile.TemporaryDirectory(prefix="discnode-elastix-") as folder:
        method = itk.ElastixRegistrationMethod.New(fixed, moving)
        method.SetParameterObject(_parameter_object(parameters))
        method.SetNumberOfThreads(1)
        method.SetLogToConsole(False)
        method.SetLogToFile(True)
        method.SetOutputDirectory(folder)
        method.SetLogFileName("elastix.log")
        try:
            method.UpdateLargestPossibleRegion()
        except RuntimeError as error:
            raise RegistrationFailed(level, str(error).strip(), _log_tail(Path(folder, "elastix.log"))) from error
        return _plain_maps(method.GetTransformParameterObject())


def _log_tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:] if path.exists() else ""


def _transformix(moving: Any, maps: list[Mapping[str, tuple[str, ...]]]) -> Any:
    """An updated transformix filter."""
    itk = _itk()
    filter_ = itk.TransformixFilter.New(moving)
    filter_.SetTransformParameterObject(_parameter_object(maps))
    filter_.SetLogToConsole(False)
    filter_.SetOutputDirectory(os.devnull)  # nothing may be written into the working directory
    filter_.UpdateLargestPossibleRegion()
    return filter_


def _jacobian(fitted: tuple[Mapping[str, tuple[str, ...]], ...], moving: Any, atlas: AtlasDisc) -> FloatArray:
    """det J of affine then B-spline on the atlas grid. The change of frame is rigid and would not alter it."""
    filter_ = _transformix(moving, list(fitted))  # crashes unless updated before the determinant is asked for
    return _array(filter_.ComputeSpatialJacobianDeterminantImage()).reshape(atlas.mask.shape)


def _inside_image(
    alignment: Alignment, shape: tuple[int, ...], affine: Affine, atlas: AtlasDisc
) -> npt.NDArray[np.bool_]:
    """Atlas voxels whose place in the patient lies within the image."""
    return deform(alignment, np.ones(shape, dtype=np.float32), affine, atlas, order=0) > 0


def _dice(
    alignment: Alignment, mask: npt.NDArray[Any], affine: Affine, atlas: AtlasDisc, inside: npt.NDArray[np.bool_]
) -> float:
    """Dice of the deformed mask with the atlas, where the patient was imaged."""
    deformed = (deform(alignment, mask > 0, affine, atlas, order=1) >= 0.5) & inside
    disc = (atlas.mask > 0) & inside
    return float(2 * (deformed & disc).sum() / (deformed.sum() + disc.sum()))


def _image(array: npt.NDArray[np.float32], affine: Affine, frame: _Frame | None = None) -> Any:
    """An itk image in LPS mm, or in the atlas' frame; a single slice becomes a 2-D image."""
    itk = _itk()
    dimension = 2 if array.shape[0] == 1 else 3
    plane = _plane(affine, dimension)
    direction, origin = plane @ _axes(affine)[:, :dimension], plane @ affine[:3, 3]
    if frame is not None:
        direction = frame.rotation.T @ direction
        origin = frame.rotation.T @ (origin - frame.patient_centroid) + frame.atlas_centroid
    image = itk.image_from_array(np.ascontiguousarray(array[0] if dimension == 2 else array))
    image.SetSpacing(np.linalg.norm(affine[:3, 2::-1], axis=0)[:dimension].tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    return image


def _array(image: Any) -> FloatArray:
    itk = _itk()
    return np.array(itk.array_from_image(image), dtype=np.float32)


def _parameter_object(maps: Any) -> Any:
    itk = _itk()
    parameters = itk.ParameterObject.New()
    for one in maps:
        parameters.AddParameterMap(dict(one))
    return parameters


def _plain_maps(parameters: Any) -> tuple[Mapping[str, tuple[str, ...]], ...]:
    """Parameter maps as plain strings, without the names of temporary files: these would differ in every run."""
    count = range(parameters.GetNumberOfParameterMaps())
    maps = ({str(k): tuple(map(str, v)) for k, v in parameters.GetParameterMap(i).items()} for i in count)
    return tuple(one | {"InitialTransformParameterFileName": ("NoInitialTransform",)} for one in maps)


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


def _frame_map(frame: _Frame, fitted: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """The change of frame as elastix writes an affine transform: y = A·x + t about the origin."""
    shift = frame.patient_centroid - frame.rotation @ frame.atlas_centroid
    numbers = [*frame.rotation.ravel().tolist(), *shift.tolist()]
    return {
        **{name: fitted[name] for name in _GRID_NAMES if name in fitted},
        **_interpolator(1),
        "Transform": ("AffineTransform",),
        "NumberOfParameters": (str(len(numbers)),),
        "TransformParameters": tuple(repr(number) for number in numbers),
        "CenterOfRotationPoint": ("0",) * len(shift),
    }


def _interpolator(order: int) -> ParameterMap:
    names = {0: "FinalNearestNeighborInterpolator", 1: "FinalLinearInterpolator", 3: "FinalBSplineInterpolator"}
    if order not in names:
        raise ValueError(f"order must be 0, 1 or 3, not {order}")
    return {"ResampleInterpolator": (names[order],), "FinalBSplineInterpolationOrder": (str(order),)}
