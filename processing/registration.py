"""One disc onto its atlas disc, by masks alone: centroid, affine, B-spline with a rigidity penalty (Iriondo 2020).

The atlas is the fixed image. The patient's crop is first brought into the atlas' frame (:mod:`processing.disc_frame`).
This change of frame is kept as the last of ``Alignment.transforms``, so that these map atlas points to the patient's
LPS millimetres (in 2-D: to millimetres along the patient's columns and rows).

elastix belongs into a process of its own (:mod:`processing.registration_pool`).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from processing.deformation_quality import dice_coefficient, summarise_in_patient, summarise_jacobian
from processing.disc_frame import atlas_dimension, centroid_mm, disc_frame
from processing.elastix import (
    ElastixFailed,
    affine_determinant,
    frame_map,
    interpolator,
    itk_image,
    jacobian_determinant,
    run_elastix,
    transform_image,
)
from processing.elastix_parameters import Stages, registration_parameters
from processing.fitting import PLAIN, FitRules, relaxation_map
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

SEED = 1  #: of elastix' step size estimation

_SMALLEST_VOXEL_MM3 = 1e-6
_FEWEST_SLICES = 2  # of a disc in 3-D; a single slice has no extent that could be registered across
_FEWEST_PIXELS = 2  # of a disc along rows and columns

#: Of the echoes' interpolation: 3, a cubic B-spline. Linear mixes neighbouring slices: in simulated MAPSS exams of 4 mm
#: slices it changed the nucleus' mean by 2.7 % on average (5.4 % at most) and narrowed its distribution (overlap with
#: the native one 0.88, at least 0.85); cubic 1.2 % and 2.5 %, 0.95 and 0.93 (tests/benchmarks/atlases.py).
ECHO_INTERPOLATION_ORDER = 3


class RegistrationFailed(Exception):
    """A disc could not be registered. ``log``: the end of elastix' own log; there is nothing of the patient in it."""

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
    seed: int = SEED
    stages: Stages | None = None  # affine and B-spline parameters in place of the preset's
    images: tuple[FloatArray, FloatArray] | None = None  # only for comparison, see register_disc


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
    seed: int = SEED,
    parameters_dir: Path | None = None,
    margin_mm: float = 10.0,
) -> DiscTask:
    """Crop one disc out of an exam, and the echoes with it.

    ``parameters_dir``: a site's own parameter files, in place of those in ``config/elastix``.

    Raises:
        ValueError: the disc has no voxel, or the echoes are on another grid.
    """
    disc = (mask.levels == level.value).astype(np.uint8)
    if not disc.any():
        raise ValueError(f"{level.name} has no voxel")
    if any(stack.signal.shape[1:] != disc.shape for stack in stacks):
        raise ValueError("echoes and mask are on different grids")
    cropped, affine, box = crop_disc(disc, mask.affine, margin_mm=margin_mm)
    crops = tuple(
        replace(stack, signal=np.ascontiguousarray(stack.signal[(slice(None), *box)]), affine=affine)
        for stack in stacks
    )
    stages = registration_parameters(atlas_dimension(atlas), preset, seed, parameters_dir)
    return DiscTask(cropped, affine, crops, atlas, preset, seed, stages)


def crop_disc(
    disc: npt.NDArray[Any], affine: Affine, *, margin_mm: float = 10.0
) -> tuple[LabelArray, Affine, tuple[slice, ...]]:
    """The part of a mask (slices, rows, columns) within ``margin_mm`` of its nonzero voxels, its affine, and where."""
    index = np.argwhere(disc)
    margin = np.ceil(margin_mm / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    first, last = np.maximum(index.min(axis=0) - margin, 0), index.max(axis=0) + margin + 1
    box = tuple(slice(int(low), int(high)) for low, high in zip(first, last, strict=True))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first
    return np.ascontiguousarray(disc[box], dtype=np.uint8), moved, box


def disc_tasks(
    mask: DiscMask,
    stacks: tuple[EchoStack, ...],
    atlas: Mapping[Level, AtlasDisc],
    *,
    preset: str = "fast",
    parameters_dir: Path | None = None,
) -> list[DiscTask]:
    """A task for each disc of an exam that the atlas has; none without echoes, which leave nothing to carry along."""
    wanted = [level for level in mask.found if level in atlas] if stacks else []
    return [
        disc_task(mask, level, stacks, atlas[level], preset=preset, parameters_dir=parameters_dir) for level in wanted
    ]


@contextmanager
def _failure_of(level: Level) -> Iterator[None]:
    """What elastix gives up on is the failure of this disc."""
    try:
        yield
    except ElastixFailed as failure:
        raise RegistrationFailed(level, failure.detail, failure.log) from failure


def _carried(alignment: Alignment, echo: FloatArray, task: DiscTask) -> FloatArray:
    """An echo on the atlas grid; NaN where it was not a number. Cubic interpolation alone would spread that."""
    broken = ~np.isfinite(echo)
    carried = deform(alignment, np.where(broken, 0, echo), task.affine, task.atlas, order=ECHO_INTERPOLATION_ORDER)
    if broken.any():
        carried[deform(alignment, broken, task.affine, task.atlas, order=1) > 0] = np.nan
    return carried


def align_disc(task: DiscTask) -> RegisteredSignal:
    """Register one disc and carry all its echoes along with the same transform; fitting comes after (paper).

    Raises:
        RegistrationFailed: the mask cannot be registered, or elastix gave up.
    """
    alignment = register_disc(
        task.mask,
        task.affine,
        task.atlas,
        preset=task.preset,
        seed=task.seed,
        stages=task.stages,
        images=task.images,
    )
    with _failure_of(task.atlas.level):
        inside = _inside_image(alignment, task.mask.shape, task.affine, task.atlas)
        stacks = {}
        for stack in task.stacks:
            echoes = [_carried(alignment, echo, task) for echo in stack.signal]
            signal = np.where(inside, np.stack(echoes), np.float32(np.nan))
            stacks[stack.role] = replace(stack, signal=signal, affine=task.atlas.affine)
        return RegisteredSignal(alignment, task.atlas, stacks)


def fit_registered(signal: RegisteredSignal, rules: Mapping[Quantity, FitRules] | None = None) -> RegisteredDisc:
    """Fit the deformed echoes under the atlas mask, plainly where no rules are given.

    The noise of ``rules`` is that of the native images: interpolation leaves the mean of the magnitude as it is.
    """
    disc = signal.atlas.mask > 0
    rules = rules or {}
    maps = {role: relaxation_map(stack, disc, rules.get(role, PLAIN)) for role, stack in signal.stacks.items()}
    return RegisteredDisc(signal.alignment, signal.atlas, maps)


def register_disc(
    mask: npt.NDArray[Any],
    affine: Affine,
    atlas: AtlasDisc,
    *,
    preset: str = "fast",
    seed: int = SEED,
    stages: Stages | None = None,
    images: tuple[FloatArray, FloatArray] | None = None,
) -> Alignment:
    """Register the atlas disc (fixed) to the patient's disc (moving). The same input gives the same bits.

    Args:
        mask: (slices, rows, columns), one disc, nonzero inside; with a single slice the registration is 2-D.
        affine: (4, 4), index -> LPS mm.
        atlas: of the same level and dimension: a single-slice atlas for a single-slice mask.
        preset: ``fast`` or ``paper``, see ``config/elastix``.
        seed: of elastix' step size estimation.
        stages: affine and B-spline parameters to use in place of those of the preset.
        images: grey images on the grids of (atlas, patient) to register in place of the masks. Only for comparison:
            what is measured must not steer how it is deformed (paper, Fig S2).

    Raises:
        RegistrationFailed: the mask cannot be registered, or elastix gave up.
        ValueError: mask and atlas differ in dimension.
    """
    started = time.process_time()
    _check_disc(mask, affine, atlas)
    frame = disc_frame(mask, affine, atlas)
    of_atlas, of_patient = images or ((atlas.mask > 0).astype(np.float32), (mask > 0).astype(np.float32))
    fixed, moving = itk_image(of_atlas, atlas.affine), itk_image(of_patient, affine, frame)
    with _failure_of(atlas.level):
        fitted = run_elastix(fixed, moving, stages or registration_parameters(atlas_dimension(atlas), preset, seed))
        into_patient = frame_map(frame, fitted[0])
        # the change of frame is rigid and does not alter det J
        jacobian = jacobian_determinant(moving, fitted).reshape(atlas.mask.shape)
        shift = (centroid_mm(mask, affine) - centroid_mm(atlas.mask, atlas.affine)).tolist()
        alignment = Alignment(
            level=atlas.level,
            centroid_shift_mm=(shift[0], shift[1], shift[2]),
            transforms=(*fitted, into_patient),
            jacobian=jacobian,
            dice=0.0,
            dice_after_centroid=0.0,
            preset=preset,
            seed=seed,
            cpu_s=0.0,
            **_jacobian_fields(jacobian, affine_determinant(fitted[0]), atlas),
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
    maps = [*alignment.transforms[:-1], {**alignment.transforms[-1], **interpolator(order)}]
    return transform_image(itk_image(image.astype(np.float32), affine), maps).reshape(atlas.mask.shape)


def warm_up() -> float:
    """Register a small disc with itself, so that elastix is loaded; returns the CPU seconds that took."""
    started = time.process_time()
    rows, columns = np.mgrid[-12:13, -25:26]
    mask = (((columns / 20) ** 2 + (rows / 7) ** 2) <= 1).astype(np.uint8)[None]
    affine = np.array([[-4.0, 0, 0, 0], [0, 0, 0.8, 0], [0, -0.8, 0, 0], [0, 0, 0, 1]])
    atlas = AtlasDisc(Level.L5S1, mask, mask, affine)
    register_disc(np.roll(mask, 1, axis=1), affine, atlas)
    return time.process_time() - started


def _check_disc(mask: npt.NDArray[Any], affine: Affine, atlas: AtlasDisc) -> None:
    """A disc that has no shape to register is that disc's failure, not a mistake of the caller."""
    if (mask.shape[0] == 1) != (atlas.mask.shape[0] == 1):
        raise ValueError(f"mask {mask.shape} and atlas {atlas.mask.shape}: both must be single slices, or neither")
    if not mask.any():
        raise RegistrationFailed(atlas.level, "the mask is empty")
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > _SMALLEST_VOXEL_MM3):
        raise RegistrationFailed(atlas.level, "the geometry of the images is singular")
    n_slices, n_rows, n_columns = (np.ptp(np.argwhere(mask), axis=0) + 1).tolist()
    if mask.shape[0] > 1 and n_slices < _FEWEST_SLICES:
        raise RegistrationFailed(atlas.level, f"the mask covers {n_slices} of {mask.shape[0]} slices, too few for 3-D")
    if min(n_rows, n_columns) < _FEWEST_PIXELS:
        raise RegistrationFailed(atlas.level, f"the mask is only {n_rows} rows x {n_columns} columns large")


def _jacobian_fields(jacobian: FloatArray, affine_part: float, atlas: AtlasDisc) -> dict[str, Any]:
    """What an alignment says of det J: of the whole, of the B-spline alone, and of the inverse in the patient."""
    disc = atlas.mask > 0
    total, patient = summarise_jacobian(jacobian, disc), summarise_in_patient(jacobian, disc)
    bspline = summarise_jacobian(jacobian / np.float32(affine_part), disc)
    return {
        "sd_jacobian": total.sd,
        "min_jacobian": total.minimum,
        "n_folded": total.n_folded,
        "sd_jacobian_bspline": bspline.sd,
        "min_jacobian_bspline": bspline.minimum,
        "sd_jacobian_patient": patient.sd,
        "min_jacobian_patient": patient.minimum,
    }


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
    return dice_coefficient(deformed, (atlas.mask > 0) & inside)
