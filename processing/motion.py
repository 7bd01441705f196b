"""Did the patient move between the images of a decay? Rigid motion in the plane of the slices: estimated, corrected.

Each image is compared with the first of the exam. Its contrast differs, but where tissues meet both change: in a small
tile the later image is, up to noise, a linear function of the first. What such functions cannot explain is minimised
over shift and rotation by Gauss-Newton steps (Lucas and Kanade 1981; local linear intensity relation as in local
normalised cross-correlation). All slices share one motion: in a 3-D acquisition every slice is measured at the same
time.

On simulated exams (``tests/benchmarks/echoes.py``) the largest error at any disc voxel was 0.14 mm at SNR 15 and
0.08 mm at SNR 40. Motion across the slices is not estimated: the checks of the decay see it as a pattern.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from processing.refusal import Reason, ReasonCode
from processing.results import EchoMotion, EchoStack, FloatArray, Quantity
from processing.volume import spacing_mm

_Float = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

#: Around the discs: their end plates and the front and back of the bodies are the edges that motion is seen at.
_REGION_MM = 6.0
#: Size of a tile. In larger ones more than two tissues meet, and the relation of two images is no straight line:
#: tiles of 3, 6 and 9 mm gave errors of 0.07, 0.14 and 0.22 mm without noise.
_TILE_MM = 3.1
#: Smoothing of both images, coarse to fine: the coarse ones reach far, the fine ones see thin end plates.
_SMOOTHING_MM = (3.1, 1.6, 0.55)
_REACH_MM = 15.0  # how far a first look, by correlation of edges, searches
_MAX_STEPS = 15
_STEP_TOLERANCE_MM = 0.005
_LEVERS_MM = np.array([1.0, 1.0, 60.0])  # a rotation moves the outer discs on a lever of about 60 mm
_SAME_START_MM = 1.5
_TINY = 1e-30
_SINGULAR = 1e12  # condition (mm and radians mixed) from which no edge holds the images in place
#: Below this a correction would do no more than blur the image: about the error of the estimate at SNR 15.
MIN_CORRECTION_MM = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Points of small squares around the discs; all arrays but ``slices`` and ``step_mm`` are (tiles, points)."""

    slices: npt.NDArray[np.intp]  # (tiles,)
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    weight: _Float  # 1 inside the region, 0 outside
    y_mm: _Float  # along the rows' axis (downwards), from the middle of the discs
    x_mm: _Float  # along the columns' axis
    step_mm: _Float  # (2,), between rows and between columns


def estimate_motion(stacks: Sequence[EchoStack], discs: _Bool) -> tuple[EchoMotion, ...]:
    """How far each image lies from the first one of the exam, in which the discs were found, seen at the discs.

    Decays of one scan share their first image; those of two scans do not, and the patient may move between scans.

    Args:
        stacks: the decays of an exam, on one grid.
        discs: (slices, rows, columns), the discs in the first image of the first decay.

    Returns:
        One record for each image but that one, in the order of the stacks. Its numbers are NaN where an image shows no
        edges that could be compared (an empty image, or one that has nothing to do with the first).

    Raises:
        ValueError: the mask is empty or on another grid.
    """
    if any(discs.shape != stack.signal.shape[1:] for stack in stacks) or not discs.any():
        raise ValueError("the mask is empty or on another grid than the echoes")
    found = []
    for stack in stacks:
        begin = 1 if np.array_equal(stack.signal[0], stacks[0].signal[0], equal_nan=True) else 0
        step_mm = np.array(spacing_mm(stack.affine)[1:])
        pixels = np.argwhere(discs.any(axis=0))
        tiles, window = _tiles(discs, pixels.mean(axis=0), step_mm)
        reach_mm = (pixels - pixels.mean(axis=0)) * step_mm
        first = _finite(stacks[0].signal[0][window])
        motion = np.full(3, np.nan)
        for image, time_ms in zip(stack.signal[begin:], stack.times_ms[begin:], strict=True):
            motion = _register(first, _finite(image[window]), tiles, motion)
            found.append(_record(stack.role, time_ms, motion, pixels.mean(axis=0), reach_mm))
    return tuple(found)


def correct_motion(
    stacks: Sequence[EchoStack], motions: Sequence[EchoMotion], *, max_correction_mm: float
) -> tuple[tuple[EchoStack, ...], tuple[EchoMotion, ...]]:
    """The decays with moved images brought back onto the first, and which were.

    An image that moved less than :data:`MIN_CORRECTION_MM` stays as it is, one that moved more than
    ``max_correction_mm``, or by an unknown distance, too. Cubic splines in plane; slices are not mixed.
    """
    records = {
        (one.role, one.time_ms): replace(
            one, corrected=bool(MIN_CORRECTION_MM <= one.displacement_mm <= max_correction_mm)
        )
        for one in motions
    }
    still = []
    for stack in stacks:
        signal = stack.signal.copy()
        for index, time_ms in enumerate(stack.times_ms):
            record = records.get((stack.role, time_ms))
            if record is not None and record.corrected:
                signal[index] = _moved_back(stack.signal[index], record, spacing_mm(stack.affine)[1:])
        still.append(replace(stack, signal=signal))
    return tuple(still), tuple(records[one.role, one.time_ms] for one in motions)


def judge_motion(motions: Sequence[EchoMotion], *, max_motion_mm: float) -> list[Reason]:
    """MOTION for each image that lies further than ``max_motion_mm`` from the first one and was not brought back."""
    reasons = []
    for one in motions:
        image = f"{one.role}: the image at {one.time_ms:g} ms"
        if math.isnan(one.displacement_mm):
            reasons.append(Reason(ReasonCode.MOTION, f"{image} cannot be compared with the first image at the discs"))
        elif one.displacement_mm > max_motion_mm and not one.corrected:
            text = (
                f"{image} lies up to {one.displacement_mm:.1f} mm off the first image at the discs (shift "
                f"{math.hypot(one.rows_mm, one.columns_mm):.1f} mm, rotation {abs(one.rotation_deg):.1f} degrees), "
                f"limit {max_motion_mm:g} mm: the patient moved between the images"
            )
            reasons.append(Reason(ReasonCode.MOTION, text))
    return reasons


def _finite(image: npt.NDArray[np.float32]) -> _Float:
    return np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _tiles(discs: _Bool, centre: _Float, step_mm: _Float) -> tuple[_Tiles, tuple[slice, slice, slice]]:
    """Squares of which at least half lies within :data:`_REGION_MM` of a disc, and the window they are counted in.

    ``centre``: row and column of the middle of the discs, on the whole grid.
    """
    reach = np.round(_REGION_MM / step_mm).astype(int)
    down, right = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    near = np.hypot(down * step_mm[0], right * step_mm[1]) <= _REGION_MM
    region = np.stack([ndimage.binary_dilation(one, near) for one in discs])
    margin = np.round(_REACH_MM / step_mm).astype(int)
    used = np.argwhere(region.any(axis=0))
    start, stop = np.maximum(used.min(axis=0) - margin, 0), used.max(axis=0) + margin + 1
    window = (slice(None), slice(int(start[0]), int(stop[0])), slice(int(start[1]), int(stop[1])))

    height, width = (max(3, round(_TILE_MM / step)) for step in step_mm)
    n_slices, n_rows, n_columns = region[window].shape
    across, along = n_rows // height, n_columns // width
    blocks = region[window][:, : across * height, : along * width].reshape(n_slices, across, height, along, width)
    inside = blocks.transpose(0, 1, 3, 2, 4).reshape(n_slices, across, along, height * width)
    slices, top, left = np.nonzero(inside.mean(axis=-1) >= 0.5)
    below, beside = np.divmod(np.arange(height * width), width)
    rows, columns = top[:, None] * height + below, left[:, None] * width + beside
    return _Tiles(
        slices=slices,
        rows=rows,
        columns=columns,
        weight=inside[slices, top, left].astype(np.float64),
        y_mm=(rows + start[0] - centre[0]) * step_mm[0],
        x_mm=(columns + start[1] - centre[1]) * step_mm[1],
        step_mm=step_mm,
    ), window


def _register(first: _Float, image: _Float, tiles: _Tiles, earlier: _Float) -> _Float:
    """Shift along rows and columns in mm and rotation in radians of ``image`` against ``first``; NaN without edges.

    The descent starts from three places, of which that wins where the images agree best: no motion, the motion of the
    image before, and where the edges correlate best (a disc looks like the next one: far starts end in wrong places).
    """
    if len(tiles.slices) == 0 or not first.any() or not image.any():
        return np.full(3, np.nan)
    starts = [np.zeros(3), np.array([*_first_look(first, image, tiles.step_mm), 0.0]), earlier]
    for sigma_mm in _SMOOTHING_MM:
        sigma = (0.0, *(sigma_mm / tiles.step_mm))
        fixed, moving = (ndimage.gaussian_filter(one, sigma) for one in (first, image))
        ends = [_descend(fixed, moving, tiles, start) for start in _apart(starts)]
        starts = [min(ends, key=lambda end: end[1])[0]]
        if not np.isfinite(starts[0]).all():
            return np.full(3, np.nan)
    return starts[0]


def _apart(starts: Sequence[_Float]) -> list[_Float]:
    """The starts that are numbers and not within a coarse step of an earlier one."""
    kept: list[_Float] = []
    for start in starts:
        if np.isfinite(start).all() and all(np.abs((start - one) * _LEVERS_MM).max() > _SAME_START_MM for one in kept):
            kept.append(start)
    return kept


def _first_look(first: _Float, image: _Float, in_plane_mm: _Float) -> _Float:
    """The shift in mm, to the pixel, at which the edges of both images correlate best (all slices together)."""
    sigma = 1.6 / in_plane_mm
    edges = []
    for one in (first, image):
        strength = np.stack([ndimage.gaussian_gradient_magnitude(part, sigma) for part in one])
        edges.append(strength - strength.mean(axis=(1, 2), keepdims=True))
    shape = [fft.next_fast_len(2 * n, real=True) for n in first.shape[1:]]
    spectra = [fft.rfft2(one, s=shape) for one in edges]
    agreement = fft.irfft2((spectra[0].conj() * spectra[1]).sum(axis=0), s=shape)
    steps = [np.arange(-(reach := int(_REACH_MM / step)), reach + 1) for step in in_plane_mm]
    best = np.unravel_index(int(agreement[np.ix_(*steps)].argmax()), (len(steps[0]), len(steps[1])))
    return np.array([steps[axis][best[axis]] for axis in (0, 1)]) * in_plane_mm


def _descend(fixed: _Float, moving: _Float, tiles: _Tiles, motion: _Float) -> tuple[_Float, float]:
    """Gauss-Newton steps from ``motion`` on images of one smoothing; the unexplained share of the image at the end.

    NaN and infinity where nothing holds the images in place, or where the steps lead away.
    """
    wanted = fixed[tiles.slices[:, None], tiles.rows, tiles.columns]
    slopes = [np.gradient(moving, step, axis=axis + 1) for axis, step in enumerate(tiles.step_mm)]
    spline = np.stack([ndimage.spline_filter(one, order=3, mode="mirror") for one in moving])
    share = math.inf
    for _ in range(_MAX_STEPS):
        y, x = _turned(tiles.y_mm, tiles.x_mm, motion[2])
        at = (
            tiles.rows + (y - tiles.y_mm + motion[0]) / tiles.step_mm[0],
            tiles.columns + (x - tiles.x_mm + motion[1]) / tiles.step_mm[1],
        )
        value, down, right = (_sample(spline, tiles, at, 3), *(_sample(one, tiles, at, 1) for one in slopes))
        residual = _unexplained(value, wanted, tiles.weight)
        share = _power(residual, tiles.weight) / max(_power(_centred(value, tiles.weight), tiles.weight), _TINY)
        changes = np.stack([_unexplained(one, wanted, tiles.weight) for one in (down, right, down * x - right * y)])
        weight = tiles.weight * _trust(residual, tiles.weight)[:, None]
        normal = np.einsum("itp,jtp,tp->ij", changes, changes, weight)
        if not np.linalg.cond(normal) < _SINGULAR:
            return np.full(3, np.nan), math.inf
        step = np.linalg.solve(normal, np.einsum("itp,tp,tp->i", changes, residual, weight))
        motion = motion - step
        if np.abs(motion[:2]).max() > _REACH_MM:
            return np.full(3, np.nan), math.inf
        if np.abs(step * _LEVERS_MM).max() < _STEP_TOLERANCE_MM:
            break
    return motion, share


def _turned(y: _Float, x: _Float, angle: float) -> tuple[_Float, _Float]:
    """Points turned about the centre, from columns towards rows."""
    return math.cos(angle) * y + math.sin(angle) * x, math.cos(angle) * x - math.sin(angle) * y


def _sample(image: _Float, tiles: _Tiles, at: Sequence[_Float], order: Literal[1, 3]) -> _Float:
    """Values (tiles, points) of an image (slices, rows, columns) at pixels ``at`` (rows, columns) of its slices."""
    values = np.empty(tiles.weight.shape)
    for k in np.unique(tiles.slices):
        here = tiles.slices == k
        place = [at[0][here], at[1][here]]
        values[here] = ndimage.map_coordinates(image[k], place, order=order, prefilter=False, mode="mirror")
    return values


def _centred(value: _Float, weight: _Float) -> _Float:
    """Values less the mean of their tile."""
    mean: _Float = (weight * value).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
    return value - mean


def _power(value: _Float, weight: _Float) -> float:
    return float((weight * value**2).sum())


def _unexplained(value: _Float, wanted: _Float, weight: _Float) -> _Float:
    """What no linear function of ``wanted`` explains of ``value``, tile by tile."""
    rest, base = _centred(value, weight), _centred(wanted, weight)
    power: _Float = (weight * base**2).sum(axis=1, keepdims=True)
    common: _Float = (weight * base * rest).sum(axis=1, keepdims=True)
    slope: _Float = np.divide(common, power, out=np.zeros_like(power), where=power > 0)
    return rest - slope * base


def _trust(residual: _Float, weight: _Float) -> _Float:
    """Huber-like weight of each tile: one that fits badly (a vessel, bowel) shall not decide."""
    spread: _Float = np.sqrt((weight * residual**2).sum(axis=1) / weight.sum(axis=1))
    limit = 1.5 * float(np.median(spread))
    share: _Float = np.divide(limit, spread, out=np.ones_like(spread), where=spread > limit)
    return share**2


def _record(role: Quantity, time_ms: float, motion: _Float, centre: _Float, reach_mm: _Float) -> EchoMotion:
    """The motion, with the largest displacement of a disc's pixel (``reach_mm`` from the middle of the discs)."""
    y, x = reach_mm.T
    turned = _turned(y, x, motion[2])
    displacement = np.hypot(turned[0] - y + motion[0], turned[1] - x + motion[1])
    return EchoMotion(
        role=role,
        time_ms=time_ms,
        centre=(float(centre[0]), float(centre[1])),
        rows_mm=float(motion[0]),
        columns_mm=float(motion[1]),
        rotation_deg=math.degrees(motion[2]),
        displacement_mm=float(displacement.max()),
    )


def _moved_back(volume: FloatArray, one: EchoMotion, step_mm: Sequence[float]) -> FloatArray:
    """The volume (slices, rows, columns) with its tissue where the first image has it."""
    angle = math.radians(one.rotation_deg)
    scale = np.diag(step_mm)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])  # as in _turned
    matrix = np.linalg.inv(scale) @ turn @ scale
    shift = np.array([one.rows_mm, one.columns_mm]) / step_mm
    offset = np.array(one.centre) - matrix @ np.array(one.centre) + shift
    finite = np.nan_to_num(volume, posinf=0.0, neginf=0.0)  # one NaN would blank its whole slice
    back = [ndimage.affine_transform(part, matrix, offset, order=3, mode="nearest") for part in finite]
    return np.stack(back).astype(np.float32)
