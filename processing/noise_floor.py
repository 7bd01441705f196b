"""S0 and R of a decay that ends in the noise floor of a magnitude image, by Levenberg-Marquardt in two parameters."""

import numpy as np
import numpy.typing as npt

from processing.decay import Decay, Float64Array, solve_decay
from processing.noise import expected_magnitude

_MAX_ITERATIONS = 300
_STEP_TOLERANCE = 1e-7  # relative change of both parameters at which a voxel is done
_FAINTEST = 0.1  # S0 in units of the noise: below it there is no signal, and no rate
_FASTEST_RATE = 1.1  # 1/ms: a rate beyond is left as it is, out of any range


def solve_decay_in_noise(signal: npt.NDArray[np.floating], times_ms: Float64Array, noise_sd: float) -> Decay:
    """Least squares of the expected magnitude of S0·exp(-R·t) in noise, starting from the plain fit.

    There is no closed form for S0, so both parameters are stepped, damped by Marquardt's scaling. Where no signal rises
    above the noise S0 is 0.

    Args:
        signal: (echoes, voxels), finite, at least two positive echoes in each voxel.
        times_ms: (echoes,), ascending.
        noise_sd: standard deviation in each channel, > 0, in units of the signal.
    """
    plain = solve_decay(signal, times_ms)
    numbers, converged = plain.numbers.copy(), np.zeros(signal.shape[1], dtype=np.bool_)
    active = np.flatnonzero(plain.converged)
    with np.errstate(all="ignore"):  # a trial too far is rejected by its cost
        y: Float64Array = signal[:, active].astype(np.float64) / noise_sd
        both = np.stack([plain.numbers[2, active] / noise_sd, plain.numbers[0, active]])
        damping = np.full(len(active), 1e-3)
        sums = _sums(y, times_ms, both)
        for _ in range(_MAX_ITERATIONS):
            step = _damped_step(sums, damping)
            trial = _sums(y, times_ms, both + step)
            accepted = trial[0] <= sums[0]  # False for a NaN
            both = np.where(accepted, both + step, both)
            sums = np.where(accepted, trial, sums)
            damping = np.where(accepted, damping * 0.1, damping * 10)
            # at the rounding limit no step lowers the cost any more: damping grows until the step is small
            done = (np.abs(step) <= _STEP_TOLERANCE * (np.abs(both) + 1e-6)).all(axis=0)
            done |= (both[0] < _FAINTEST) | (both[1] > _FASTEST_RATE)
            numbers[:, active] = _numbers(both, sums, noise_sd)
            converged[active] = done
            left = np.flatnonzero(~done)
            if len(left) == 0:
                break
            active, y, both = active[left], y[:, left], both[:, left]
            sums, damping = sums[:, left], damping[left]
    return Decay(numbers, converged)


def _sums(y: Float64Array, times: Float64Array, both: Float64Array) -> Float64Array:
    """Sum of squares, the three entries of JᵀJ and the two of Jᵀ·residual; (6, voxels)."""
    s0, rate = both
    decay = np.exp(-times[:, None] * rate)
    expected, slope = expected_magnitude(s0 * decay)
    residual = y - expected
    by_s0 = slope * decay
    by_rate = -times[:, None] * s0 * by_s0
    pairs = ((residual, residual), (by_s0, by_s0), (by_s0, by_rate), (by_rate, by_rate))
    return np.stack([(a * b).sum(axis=0) for a, b in (*pairs, (by_s0, residual), (by_rate, residual))])


def _damped_step(sums: Float64Array, damping: Float64Array) -> Float64Array:
    """Solve (JᵀJ + λ·diag(JᵀJ))·step = Jᵀ·residual, two by two, in closed form; (2, voxels)."""
    _, aa, ar, rr, ga, gr = sums
    aa, rr = aa * (1 + damping), rr * (1 + damping)
    step: Float64Array = np.stack([rr * ga - ar * gr, aa * gr - ar * ga]) / (aa * rr - ar * ar)
    return step


def _numbers(both: Float64Array, sums: Float64Array, noise_sd: float) -> Float64Array:
    """As in :class:`Decay`, in units of the signal."""
    residual_ss, aa, ar, rr = sums[:4]
    variance = aa / (aa * rr - ar * ar) / noise_sd**2
    s0 = np.where(both[0] < _FAINTEST, 0.0, both[0]) * noise_sd
    return np.stack([both[1], variance, s0, residual_ss * noise_sd**2])
