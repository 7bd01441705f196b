"""Mono-exponential relaxation, fitted to all voxels at once. A voxel that cannot be fitted is NaN with a reason."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from processing.results import EchoStack, FloatArray, LabelArray, RelaxationMap

_Float64 = npt.NDArray[np.float64]

#: Relaxation times a fit may return, ms. Far wider than tissue: a healthy nucleus has T2 up to about 210 ms.
SHORTEST_MS, LONGEST_MS = 1.0, 1000.0

_CHUNK = 65_536  # voxels worked on together: the arrays of a chunk stay in the processor's cache
_MAX_ITERATIONS = 60
_STEP_TOLERANCE = 1e-9  # relative change of both parameters at which a voxel is done
_SLOWEST_RATE = 1e-7  # 1/ms, in a signal of 100 ms a change of 1e-5: flat within any image's resolution


class FitStatus(IntEnum):
    """What became of a voxel."""

    NOT_FITTED = 0  # outside the mask
    FITTED = 1
    NON_FINITE_SIGNAL = 2  # NaN or infinite in an echo
    NO_SIGNAL = 3  # first echo not positive, or fewer than two positive echoes
    NO_DECAY = 4  # best fit is flat or rising
    NOT_CONVERGED = 5
    OUT_OF_RANGE = 6  # best fit lies outside 1..1000 ms
    OUTSIDE_IMAGE = 7  # NaN in all echoes: an atlas voxel whose place in the patient was not imaged


@dataclass(frozen=True, slots=True, eq=False)
class RelaxationFit:
    """A fit of S0·exp(-t/T), one value per voxel, float64; NaN where ``status`` is not FITTED.

    ``standard_error_ms`` is the asymptotic one from the residual. With four echoes it has two degrees of freedom: its
    median lies about 17 % below the true standard deviation.
    """

    time_ms: _Float64
    standard_error_ms: _Float64
    s0: _Float64
    residual_rms: _Float64
    status: LabelArray


def fit_monoexponential(
    signal: npt.NDArray[np.floating], times_ms: tuple[float, ...], *, mask: npt.NDArray[np.bool_] | None = None
) -> RelaxationFit:
    """Fit S = S0·exp(-t/T) in every voxel by Levenberg-Marquardt (Iriondo 2020, Methods).

    The rate R = 1/T is the parameter, steps are damped by Marquardt's scaling, and the start is the log-linear fit
    weighted with the squared signal. Like every plain least-squares fit of magnitudes it overestimates T at low SNR.

    Args:
        signal: (echoes, ...), any units.
        times_ms: one per echo, ascending.
        mask: (...), voxels to fit; all when None.

    Raises:
        ValueError: fewer than three echoes, times that do not ascend, or shapes that disagree.
    """
    times = np.asarray(times_ms, dtype=np.float64)
    shape = signal.shape[1:]
    if len(times) < 3 or len(times) != len(signal) or not (np.diff(times) > 0).all():
        raise ValueError(f"need at least three ascending times, one per echo; got {times_ms} for {len(signal)} echoes")
    if mask is not None and mask.shape != shape:
        raise ValueError(f"mask {mask.shape} does not match the voxels {shape}")
    chosen = np.arange(np.prod(shape, dtype=np.intp)) if mask is None else np.flatnonzero(mask)
    flat = signal.reshape(len(signal), -1)
    numbers = np.full((4, flat.shape[1]), np.nan)
    status = np.full(flat.shape[1], FitStatus.NOT_FITTED, dtype=np.uint8)
    for start in range(0, len(chosen), _CHUNK):
        chunk = chosen[start : start + _CHUNK]
        numbers[:, chunk], status[chunk] = _fit_chunk(flat[:, chunk].astype(np.float64), times)
    time_ms, standard_error_ms, s0, residual_rms = (array.reshape(shape) for array in numbers)
    return RelaxationFit(time_ms, standard_error_ms, s0, residual_rms, status.reshape(shape))


def relaxation_map(stack: EchoStack, mask: npt.NDArray[np.bool_]) -> RelaxationMap:
    """Fit an echo stack under ``mask`` (slices, rows, columns); the map is on the stack's grid."""
    fit = fit_monoexponential(stack.signal, stack.times_ms, mask=mask)
    return RelaxationMap(
        quantity=stack.role,
        time_ms=_single(fit.time_ms),
        standard_error_ms=_single(fit.standard_error_ms),
        s0=_single(fit.s0),
        residual_rms=_single(fit.residual_rms),
        status=fit.status,
        affine=stack.affine,
    )


def within(one: RelaxationMap, mask: npt.NDArray[np.bool_]) -> RelaxationMap:
    """A map as if it had been fitted under ``mask`` (slices, rows, columns) alone."""
    return RelaxationMap(
        quantity=one.quantity,
        time_ms=np.where(mask, one.time_ms, np.float32(np.nan)),
        standard_error_ms=np.where(mask, one.standard_error_ms, np.float32(np.nan)),
        s0=np.where(mask, one.s0, np.float32(np.nan)),
        residual_rms=np.where(mask, one.residual_rms, np.float32(np.nan)),
        status=np.where(mask, one.status, np.uint8(FitStatus.NOT_FITTED)),
        affine=one.affine,
    )


def _single(values: _Float64) -> FloatArray:
    return values.astype(np.float32)


def _fit_chunk(signal: _Float64, times: _Float64) -> tuple[_Float64, LabelArray]:
    """Numbers (4, voxels) and status (voxels,) of one chunk (echoes, voxels)."""
    numbers = np.full((4, signal.shape[1]), np.nan)
    status = _usable(signal)
    fit = np.flatnonzero(status == FitStatus.FITTED)
    if len(fit) == 0:
        return numbers, status
    scale = signal[:, fit].max(axis=0)  # parameters near 1, whatever the units of the image
    scaled = signal[:, fit] / scale
    s0, rate, converged = _levenberg_marquardt(scaled, times, *_log_linear_start(scaled, times))

    outcome = np.full(len(fit), FitStatus.FITTED, dtype=np.uint8)
    # a rate below 1/LONGEST or above 1/SHORTEST is a fit, but not of a relaxation time
    outcome[(rate < 1 / LONGEST_MS) | (rate > 1 / SHORTEST_MS)] = FitStatus.OUT_OF_RANGE
    outcome[rate < _SLOWEST_RATE] = FitStatus.NO_DECAY
    outcome[~converged] = FitStatus.NOT_CONVERGED
    status[fit] = outcome

    good = outcome == FitStatus.FITTED
    where = fit[good]
    residual_rms, rate_error = _uncertainty(scaled[:, good], times, s0[good], rate[good])
    numbers[0, where] = 1 / rate[good]
    numbers[1, where] = rate_error / rate[good] ** 2  # dT = dR / R²
    numbers[2, where] = s0[good] * scale[good]
    numbers[3, where] = residual_rms * scale[good]
    return numbers, status


def _usable(signal: _Float64) -> LabelArray:
    """FITTED where a fit may be tried, else why not."""
    status = np.full(signal.shape[1], FitStatus.FITTED, dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        status[(signal[0] <= 0) | ((signal > 0).sum(axis=0) < 2)] = FitStatus.NO_SIGNAL
    status[~np.isfinite(signal).all(axis=0)] = FitStatus.NON_FINITE_SIGNAL
    status[np.isnan(signal).all(axis=0)] = FitStatus.OUTSIDE_IMAGE
    return status


def _log_linear_start(signal: _Float64, times: _Float64) -> tuple[_Float64, _Float64]:
    """S0 and R of the straight line through log(signal), weighted with signal² (its noise is constant)."""
    positive = signal > 0
    weight = np.where(positive, signal, 0.0) ** 2
    logarithm = np.log(np.where(positive, signal, 1.0))
    total = weight.sum(axis=0)
    mean_time = (weight * times[:, None]).sum(axis=0) / total
    mean_log = (weight * logarithm).sum(axis=0) / total
    offset = times[:, None] - mean_time
    rate = -(weight * offset * (logarithm - mean_log)).sum(axis=0) / (weight * offset**2).sum(axis=0)
    longest = times[-1] - times[0]
    rate = np.clip(rate, -5 / longest, 50 / longest)  # a start, not a result: keeps exp() in range
    return np.exp(mean_log + rate * mean_time), rate


def _levenberg_marquardt(
    signal: _Float64, times: _Float64, s0: _Float64, rate: _Float64
) -> tuple[_Float64, _Float64, npt.NDArray[np.bool_]]:
    """S0, R and convergence of every voxel. Voxels that are done leave the active set: few iterations are full."""
    s0, rate = s0.copy(), rate.copy()
    converged = np.zeros(len(s0), dtype=np.bool_)
    active = np.arange(len(s0))
    y, a, r = signal, s0.copy(), rate.copy()
    damping = np.full(len(s0), 1e-3)
    cost = _cost(y, times, a, r)
    for _ in range(_MAX_ITERATIONS):
        step_a, step_r = _damped_step(y, times, a, r, damping)
        new_cost = _cost(y, times, a + step_a, r + step_r)
        small = (np.abs(step_a) <= _STEP_TOLERANCE * np.abs(a)) & (
            np.abs(step_r) <= _STEP_TOLERANCE * (np.abs(r) + 1e-6)
        )
        accepted = new_cost <= cost  # False for a NaN
        a = np.where(accepted, a + step_a, a)
        r = np.where(accepted, r + step_r, r)
        cost = np.where(accepted, new_cost, cost)
        damping = np.where(accepted, damping * 0.1, damping * 10)
        # at the rounding limit no step lowers the cost any more: damping grows until the step is small
        s0[active], rate[active], converged[active] = a, r, small
        keep = ~small
        if not keep.any():
            break
        active, y, a, r = active[keep], y[:, keep], a[keep], r[keep]
        damping, cost = damping[keep], cost[keep]
    return s0, rate, converged


def _cost(signal: _Float64, times: _Float64, s0: _Float64, rate: _Float64) -> _Float64:
    with np.errstate(over="ignore", invalid="ignore"):  # a step too far is rejected by its cost
        cost: _Float64 = ((signal - s0 * np.exp(-times[:, None] * rate)) ** 2).sum(axis=0)
    return cost


def _damped_step(
    signal: _Float64, times: _Float64, s0: _Float64, rate: _Float64, damping: _Float64
) -> tuple[_Float64, _Float64]:
    """Solve (JᵀJ + λ·diag(JᵀJ))·step = Jᵀ·residual, two by two, in closed form."""
    decay = np.exp(-times[:, None] * rate)
    slope = -times[:, None] * s0 * decay
    residual = signal - s0 * decay
    aa, ar, rr = (decay**2).sum(axis=0), (decay * slope).sum(axis=0), (slope**2).sum(axis=0)
    ga, gr = (decay * residual).sum(axis=0), (slope * residual).sum(axis=0)
    daa, drr = aa * (1 + damping), rr * (1 + damping)
    determinant = daa * drr - ar**2
    with np.errstate(
        divide="ignore", invalid="ignore", over="ignore"
    ):  # a singular voxel gives a NaN step, never accepted
        return (drr * ga - ar * gr) / determinant, (daa * gr - ar * ga) / determinant


def _uncertainty(signal: _Float64, times: _Float64, s0: _Float64, rate: _Float64) -> tuple[_Float64, _Float64]:
    """RMS of the residual and the standard error of R: σ²·(JᵀJ)⁻¹ with σ² = RSS / (echoes - 2)."""
    decay = np.exp(-times[:, None] * rate)
    slope = -times[:, None] * s0 * decay
    rss = ((signal - s0 * decay) ** 2).sum(axis=0)
    aa, ar, rr = (decay**2).sum(axis=0), (decay * slope).sum(axis=0), (slope**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_variance = rss / (len(times) - 2) * aa / (aa * rr - ar**2)
    return np.sqrt(rss / len(times)), np.sqrt(rate_variance)
