"""S0 and R of S = S0·exp(-R·t) by least squares, in many voxels at once.

For a given rate the best S0 is known in closed form, so the sum of squares is a function of the rate alone (variable
projection: Golub and Pereyra, SIAM J Numer Anal 1973;10:413-432). What is left of Levenberg-Marquardt is Newton's step
with the exact second derivative, shortened while it does not lower the sum of squares: in one dimension that is all
that Marquardt's damping does. The optimum is that of the two-parameter fit.

The arithmetic of a step takes about as long as the exponentials, and a fresh array of a chunk's length as long as
several operations on it. So everything is written into one workspace.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

_CHUNK = 16_384  # voxels whose arrays stay in the processor's cache
_MAX_EVALUATIONS = 60
_EVALUATIONS_OF_ALL = 3  # then nearly all voxels are done, and the others are gathered: as dear as half an evaluation
_STEP_TOLERANCE = 1e-7  # of the rate; steps shrink quadratically, so the error left is far smaller
_FLAT_RATE = 1e-6  # 1/ms, where the tolerance stops being relative
_ROUNDING = 1e-14  # of the explained sum of squares
_LONGEST_STEP = 10.0  # in units of 1 / (last time - first time)
_FASTEST_RATE = 1.1  # 1/ms: a rate beyond is left as it is, out of any range, and so is ...
_STEEPEST_RISE = 20.0  # ... a rise by a factor of e²⁰ over the echoes


@dataclass(frozen=True, slots=True, eq=False)
class Decay:
    """Least-squares optimum of every voxel; meaningless where not ``converged`` (voxels,).

    ``numbers`` (4, voxels) float64: the rate R in 1/ms; its variance per unit variance of the signal, from the inverse
    of JᵀJ at the optimum; S0 in units of the signal; the sum of squares of the residual.
    """

    numbers: Float64Array
    converged: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Workspace:
    """Memory in which chunk after chunk is solved; all arrays (..., voxels)."""

    signal: Float64Array  # one per echo, only read
    decay: Float64Array  # one per echo
    product: Float64Array  # one per echo
    sums: Float64Array  # (6, voxels)
    rows: Float64Array  # (8, voxels), the first three: rate, its step, the sum of squares explained

    @classmethod
    def of(cls, signal: Float64Array, voxels: int) -> "_Workspace":
        echoes = len(signal)
        return cls(signal, *(np.empty((rows, voxels)) for rows in (echoes, echoes, 6, 8)))

    def on(self, signal: Float64Array) -> "_Workspace":
        arrays = (self.decay, self.product, self.sums, self.rows)
        return _Workspace(signal, *(array[:, : signal.shape[1]] for array in arrays))


def solve_decay(signal: npt.NDArray[np.floating], times_ms: Float64Array) -> Decay:
    """The least-squares mono-exponential of every voxel.

    Args:
        signal: (echoes, voxels), finite, at least two positive echoes in each voxel.
        times_ms: (echoes,), ascending.
    """
    values: Float64Array = signal.astype(np.float64, copy=False)
    voxels = values.shape[1]
    # the clock starts at the first echo, whose exponential is then 1 and need not be made
    powers: Float64Array = (times_ms - times_ms[0]) ** np.arange(3)[:, None]
    result, converged = np.empty((4, voxels)), np.empty(voxels, dtype=np.bool_)
    whole = _Workspace.of(values, min(_CHUNK, voxels))
    pending = []
    with np.errstate(all="ignore"):  # a trial too far gives infinities, explains nothing and is taken back
        for start in range(0, voxels, _CHUNK):
            part = slice(start, min(start + _CHUNK, voxels))
            work = whole.on(values[:, part])
            _start(work, powers)
            for _ in range(_EVALUATIONS_OF_ALL):
                _advance(work, powers)
            converged[part] = _read(work, powers, result[:, part])
            left = np.flatnonzero(~converged[part])
            pending.append((start + left, work.signal[:, left], work.rows[:3, left]))
        if pending:
            _finish(pending, powers, result, converged)
    if times_ms[0] != 0:
        result[2] *= np.exp(result[0] * times_ms[0])
    return Decay(result, converged)


def _finish(
    pending: list[tuple[npt.NDArray[np.intp], Float64Array, Float64Array]],
    powers: Float64Array,
    result: Float64Array,
    converged: npt.NDArray[np.bool_],
) -> None:
    """Go on with the voxels of all chunks that are not done, fewer each time; writes into result and converged."""
    active, signal, state = (np.concatenate(parts, axis=-1) for parts in zip(*pending, strict=True))
    whole = _Workspace.of(signal, len(active))
    for _ in range(_MAX_EVALUATIONS - _EVALUATIONS_OF_ALL):
        if len(active) == 0:
            break
        work = whole.on(signal)
        work.rows[:3] = state
        _advance(work, powers)
        numbers = np.empty((4, len(active)))
        done = _read(work, powers, numbers)
        result[:, active], converged[active] = numbers, done
        left = np.flatnonzero(~done)
        active, signal, state = active[left], signal[:, left], work.rows[:3, left]


def _start(work: _Workspace, powers: Float64Array) -> None:
    rate, step, explained = work.rows[:3]
    _log_linear_rate(work, powers, out=rate)
    step.fill(0.0)
    explained.fill(-np.inf)


def _advance(work: _Workspace, powers: Float64Array) -> None:
    """Evaluate the trial that the rate is, take it back to a quarter of its step if it is worse, and step on."""
    rate, step, explained = work.rows[:3]
    _evaluate(work, powers)
    _, now_explained, next_step = _newton(work, _LONGEST_STEP / powers[1, -1])
    worse = np.flatnonzero(~(now_explained >= np.multiply(explained, 1 - _ROUNDING, out=work.rows[7])))
    if len(worse):
        rate[worse] -= step[worse]
        next_step[worse], now_explained[worse] = step[worse] / 4, explained[worse]
    rate += next_step
    step[:], explained[:] = next_step, now_explained


def _read(work: _Workspace, powers: Float64Array, out: Float64Array) -> npt.NDArray[np.bool_]:
    """Write the numbers of :class:`Decay` to ``out`` (4, voxels); is each voxel done?"""
    slowest = -_STEEPEST_RISE / powers[1, -1]
    rate, step, explained, s0 = work.rows[:4]
    ee, tee, ttee = work.sums[:3]
    out[0], out[2] = rate, s0
    # total less explained would be resolved to 1e-8 of the signal only
    expected, other = np.multiply(work.decay[1:], s0, out=work.decay[1:]), work.rows[6]
    residual = np.subtract(work.signal[1:], expected, out=expected)
    np.add.reduce(np.multiply(residual, residual, out=residual), axis=0, out=out[3])
    first = np.subtract(work.signal[0], s0, out=other)
    out[3] += np.multiply(first, first, out=first)
    # the rate's entry of the inverse of JᵀJ, for the derivatives e and -S0·t·e
    variance = out[1]
    np.multiply(ee, ttee, out=variance)
    variance -= np.multiply(tee, tee, out=other)
    variance *= np.multiply(s0, s0, out=other)
    np.divide(ee, variance, out=variance)
    size = np.abs(rate, out=work.rows[6])
    size += _FLAT_RATE
    size *= _STEP_TOLERANCE
    done: npt.NDArray[np.bool_] = np.abs(step, out=work.rows[7]) <= size
    done |= rate > _FASTEST_RATE
    done |= rate < slowest
    done &= explained > 0
    return done


def _log_linear_rate(work: _Workspace, powers: Float64Array, *, out: Float64Array) -> None:
    """Rate of the straight line through log(signal), weighted with signal² (its noise is constant); (voxels,), 1/ms.

    It lies in a range that leaves exp() room to move; where the signals allow none it is at the end of that range.
    """
    # an echo that is not positive has no logarithm, and no weight
    logarithm = np.maximum(work.signal, 1e-150, out=work.decay)
    weight = np.multiply(logarithm, logarithm, out=work.product)
    w0, w1, w2 = np.matmul(powers, weight, out=work.sums[:3])
    np.log(logarithm, out=logarithm)
    l0, l1 = np.matmul(powers[:2], np.multiply(logarithm, weight, out=logarithm), out=work.sums[3:5])
    spread = work.rows[7]
    np.multiply(w1, l0, out=out)
    np.subtract(out, np.multiply(w0, l1, out=spread), out=out)
    np.multiply(w0, w2, out=spread)
    np.subtract(spread, np.multiply(w1, w1, out=w1), out=spread)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(out, spread, out=out)
    np.fmin(out, 50 / powers[1, -1], out=out)  # passes a NaN by
    np.maximum(out, -5 / powers[1, -1], out=out)


def _evaluate(work: _Workspace, powers: Float64Array) -> None:
    """Sums over the echoes, with e = exp(-R·t): of e², t·e², t²·e², of y·e, t·y·e, t²·y·e."""
    later, decay, product = powers[:, 1:], work.decay[1:], work.product[1:]
    np.exp(np.multiply.outer(-later[1], work.rows[0], out=decay), out=decay)
    np.matmul(later, np.multiply(work.signal[1:], decay, out=product), out=work.sums[3:])
    np.matmul(later, np.multiply(decay, decay, out=product), out=work.sums[:3])
    work.sums[0] += 1.0  # the first echo: e = 1, t = 0
    work.sums[3] += work.signal[0]


def _newton(work: _Workspace, longest_step: float) -> Float64Array:
    """The best S0 at this rate, the sum of squares it explains, and the step of the rate to the maximum of that.

    With <f> a sum over echoes, S0 = <y·e> / <e²> and the explained sum is <y·e>² / <e²>. Its derivative is
    -2·S0·h with h = <t·y·e> - S0·<t·e²>; the step is -h / |dh/dR|, uphill also where the curvature is not yet that of a
    maximum.
    """
    ee, tee, ttee, ye, tye, ttye = work.sums
    s0, explained, step, minus_h, slope = work.rows[3:]
    np.divide(ye, ee, out=s0)
    np.multiply(s0, ye, out=explained)
    np.multiply(s0, tee, out=step)
    np.subtract(step, tye, out=minus_h)
    np.add(step, minus_h, out=step)
    np.divide(step, ee, out=step)  # dS0/dR
    np.multiply(step, tee, out=step)
    np.multiply(s0, ttee, out=slope)
    np.add(slope, slope, out=slope)
    np.subtract(slope, ttye, out=slope)
    np.subtract(slope, step, out=slope)  # dh/dR
    np.divide(minus_h, np.abs(slope, out=slope), out=step)
    np.clip(step, -longest_step, longest_step, out=step)
    return work.rows[3:6]
