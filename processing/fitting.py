"""Mono-exponential relaxation, fitted to all voxels at once. A voxel that cannot be fitted is NaN with a reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from processing.decay import solve_decay
from processing.noise import estimate_noise
from processing.noise_floor import solve_decay_in_noise
from processing.refusal import Reason, ReasonCode
from processing.results import EchoStack, FloatArray, LabelArray, Quantity, RelaxationMap

_Float64 = npt.NDArray[np.float64]

#: Relaxation times a fit may return, ms. Far wider than tissue: a healthy nucleus has T2 up to about 210 ms.
SHORTEST_MS, LONGEST_MS = 1.0, 1000.0

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
    ABOVE_CEILING = 8  # a fit, but not below the ceiling that was asked for


@dataclass(frozen=True, slots=True)
class FitRules:
    """What a fit is told beside the signal. The default is the paper's plain fit, without its ceilings.

    ``noise_sd``: standard deviation of the noise in each channel, in units of the signal: the expected magnitude in
    this noise is fitted instead of the bare exponential. ``ceiling_ms``: times from here on are left out.
    """

    noise_sd: float | None = None
    ceiling_ms: float | None = None


PLAIN = FitRules()


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
    signal: npt.NDArray[np.floating],
    times_ms: tuple[float, ...],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    rules: FitRules = PLAIN,
) -> RelaxationFit:
    """Fit S = S0·exp(-t/T) in every voxel by Levenberg-Marquardt (Iriondo 2020, Methods), as :mod:`processing.decay`.

    The start is the log-linear fit weighted with the squared signal. Like every plain least-squares fit of magnitudes
    it overestimates T at low SNR: at S0/σ = 10 the median over voxels by 1 to 7 ms, depending on times and T. With
    ``rules.noise_sd`` the expected magnitude in noise is fitted (:func:`processing.noise.expected_magnitude`), and the
    median is right to 1 ms. The mean over voxels stays too long at low SNR, as T = 1/R is skewed whatever is fitted.

    Args:
        signal: (echoes, ...), any units.
        times_ms: one per echo, ascending.
        mask: (...), voxels to fit; all when None.
        rules: how.

    Raises:
        ValueError: fewer than three echoes, times that do not ascend, shapes that disagree, or a noise that is not
            positive.
    """
    times = np.asarray(times_ms, dtype=np.float64)
    shape = signal.shape[1:]
    ascending = np.isfinite(times).all() and (np.diff(times) > 0).all()
    if len(times) < 3 or len(times) != len(signal) or not ascending:
        raise ValueError(f"need at least three ascending times, one per echo; got {times_ms} for {len(signal)} echoes")
    if rules.noise_sd is not None and not 0 < rules.noise_sd < np.inf:
        raise ValueError(f"the noise must be positive, not {rules.noise_sd}")
    if mask is not None and mask.shape != shape:
        raise ValueError(f"mask {mask.shape} does not match the voxels {shape}")
    flat = signal.reshape(len(signal), -1)
    if mask is None:
        numbers, status = _fit_voxels(flat, times, rules)
    else:
        chosen = np.flatnonzero(mask)
        numbers = np.full((4, flat.shape[1]), np.nan)
        status = np.full(flat.shape[1], FitStatus.NOT_FITTED, dtype=np.uint8)
        numbers[:, chosen], status[chosen] = _fit_voxels(flat[:, chosen], times, rules)
    time_ms, standard_error_ms, s0, residual_rms = (array.reshape(shape) for array in numbers)
    return RelaxationFit(time_ms, standard_error_ms, s0, residual_rms, status.reshape(shape))


def fit_rules(
    stacks: Sequence[EchoStack], *, noise_floor: bool = False, paper_ceilings: bool = False
) -> tuple[dict[Quantity, FitRules], list[Reason]]:
    """Rules for each quantity of an exam, and a reason to review where they are not what was asked for.

    Args:
        stacks: T1rho, T2 or both, whole images.
        noise_floor: fit the expected magnitude in the noise estimated from the images' background. Where that cannot
            be estimated the plain fit is made, and that is the reason to review.
        paper_ceilings: leave out what the paper leaves out: T1rho from 250 ms on where it comes alone (its set A),
            T1rho from 200 and T2 from 150 ms on where they come together (set B).
    """
    both = len({stack.role for stack in stacks}) > 1
    rules, doubts = {}, []
    for stack in stacks:
        ceiling_ms = {Quantity.T1RHO: 200.0 if both else 250.0, Quantity.T2: 150.0}[stack.role]
        noise_sd = None
        if noise_floor:
            noise = estimate_noise(stack.signal)
            noise_sd = noise.sd if noise.doubt is None else None
            if noise.doubt is not None:
                text = f"{stack.role}: fitted without a noise floor, as it could not be estimated: {noise.doubt}"
                doubts.append(Reason(ReasonCode.REVIEW_REQUIRED, text))
        rules[stack.role] = FitRules(noise_sd, ceiling_ms if paper_ceilings else None)
    return rules, doubts


def rules_text(rules: Mapping[Quantity, FitRules]) -> str:
    """What was fitted, for the provenance: one line."""
    parts = []
    for quantity, one in rules.items():
        model = "plain" if one.noise_sd is None else f"in noise of SD {one.noise_sd:.4g}"
        parts.append(f"{quantity} {model}" + ("" if one.ceiling_ms is None else f", below {one.ceiling_ms:g} ms"))
    return "; ".join(parts)


def relaxation_map(stack: EchoStack, mask: npt.NDArray[np.bool_], rules: FitRules = PLAIN) -> RelaxationMap:
    """Fit an echo stack under ``mask`` (slices, rows, columns); the map is on the stack's grid."""
    fit = fit_monoexponential(stack.signal, stack.times_ms, mask=mask, rules=rules)
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


def _fit_voxels(signal: npt.NDArray[np.floating], times: _Float64, rules: FitRules) -> tuple[_Float64, LabelArray]:
    """Numbers (4, voxels) and status (voxels,) of signals (echoes, voxels)."""
    status = _usable(signal)
    usable = np.flatnonzero(status == FitStatus.FITTED)
    if len(usable) == len(status):
        return _fit_usable(signal, times, rules)
    numbers = np.full((4, len(status)), np.nan)
    numbers[:, usable], status[usable] = _fit_usable(signal[:, usable], times, rules)
    return numbers, status


def _usable(signal: npt.NDArray[np.floating]) -> LabelArray:
    """FITTED where a fit may be tried, else why not."""
    status = np.full(signal.shape[1], FitStatus.FITTED, dtype=np.uint8)
    if signal.size == 0 or (signal.min() > 0 and signal.max() < np.inf):  # the usual case, quick to see
        return status
    with np.errstate(invalid="ignore"):
        lowest, highest = signal.min(axis=0), signal.max(axis=0)  # NaN where there is one
        odd = np.flatnonzero(~((lowest > 0) & (highest < np.inf)))
        some = signal[:, odd]
        why = np.full(len(odd), FitStatus.FITTED, dtype=np.uint8)
        why[(some[0] <= 0) | ((some > 0).sum(axis=0) < 2)] = FitStatus.NO_SIGNAL
    why[~np.isfinite(some).all(axis=0)] = FitStatus.NON_FINITE_SIGNAL
    why[np.isnan(some).all(axis=0)] = FitStatus.OUTSIDE_IMAGE
    status[odd] = why
    return status


def _fit_usable(signal: npt.NDArray[np.floating], times: _Float64, rules: FitRules) -> tuple[_Float64, LabelArray]:
    """Numbers (4, voxels) and status (voxels,) of signals that may be fitted."""
    sd = rules.noise_sd
    fit = solve_decay(signal, times) if sd is None else solve_decay_in_noise(signal, times, sd)
    rate, variance, s0, residual_ss = fit.numbers
    status = np.full(len(rate), FitStatus.FITTED, dtype=np.uint8)
    # a rate below 1/LONGEST or above 1/SHORTEST is a fit, but not of a relaxation time
    status[(rate < 1 / LONGEST_MS) | (rate > 1 / SHORTEST_MS)] = FitStatus.OUT_OF_RANGE
    if rules.ceiling_ms is not None:
        status[(status == FitStatus.FITTED) & (rate * rules.ceiling_ms <= 1)] = FitStatus.ABOVE_CEILING
    status[rate < _SLOWEST_RATE] = FitStatus.NO_DECAY
    status[s0 <= 0] = FitStatus.NO_SIGNAL
    status[~fit.converged] = FitStatus.NOT_CONVERGED
    # the solver's numbers become ours in place: fresh arrays would take as long as a step of the fit
    with np.errstate(all="ignore"):  # where nothing was fitted
        time_ms = np.divide(1, rate, out=rate)
        variance *= residual_ss
        variance /= len(times) - 2
        standard_error_ms = np.sqrt(variance, out=variance)
        standard_error_ms *= time_ms  # dT = dR / R²
        standard_error_ms *= time_ms
        residual_ss /= len(times)
        np.sqrt(residual_ss, out=residual_ss)  # now its root mean square
    fit.numbers[:, np.flatnonzero(status != FitStatus.FITTED)] = np.nan
    return fit.numbers, status
