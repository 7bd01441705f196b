"""Does the signal decay as tissue does? Coarse checks of whole discs that catch wrong times, scaling and order."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from processing.fitting import FitStatus, fit_monoexponential
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import DiscMeasurement, EchoStack, Quantity, Region

#: Share of disc voxels at the image's highest value from which an image counts as clipped. Else one voxel is highest.
MAX_CLIPPED = 0.005

#: Largest distance of an echo's mean from the mono-exponential through all echoes, as a share of S0. The mixture of
#: tissue in simulated discs reaches 0.007, also at SNR 15; one echo scaled by 1.25 gives 0.05 to 0.13.
MAX_MISFIT = 0.03

#: Physically T1rho is never shorter than T2; published healthy T2 of another sequence may exceed it a little.
MIN_T1RHO_OVER_T2 = 0.8


def check_decay(stack: EchoStack, mask: npt.NDArray[np.bool_]) -> list[Reason]:
    """Reasons to doubt the decay of the voxels in ``mask`` (slices, rows, columns); empty when it looks like tissue.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, the times are not finite and ascending: nothing could be fitted.
        ValueError: the mask is empty or on another grid.
    """
    times = np.asarray(stack.times_ms, dtype=np.float64)
    if len(times) != len(stack.signal) or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        raise UnsuitableInput(ReasonCode.ECHO_UNRESOLVED, f"{stack.role} times do not ascend: {_text(times)} ms")
    if mask.shape != stack.signal.shape[1:] or not mask.any():
        raise ValueError("the mask is empty or on another grid than the echoes")
    signal = stack.signal[:, mask].astype(np.float64)
    broken = int((~np.isfinite(signal).all(axis=0)).sum())
    if broken:
        return [_doubt(stack, f"{broken} disc voxels are not numbers")]
    return [*_clipping(stack, signal), *_shape(stack, signal.mean(axis=1))]


def check_times_agree(measurements: Sequence[DiscMeasurement]) -> list[Reason]:
    """A reason to doubt when T1rho of the discs lies clearly below their T2; empty when one of the two is missing."""
    mean_ms = {
        quantity: np.array(
            [
                one.mean_ms
                for one in measurements
                if one.region is Region.WHOLE_DISC and one.quantity is quantity and one.n > 0
            ]
        )
        for quantity in Quantity
    }
    if any(len(values) == 0 for values in mean_ms.values()):
        return []
    t1rho_ms, t2_ms = (float(mean_ms[quantity].mean()) for quantity in (Quantity.T1RHO, Quantity.T2))
    if t1rho_ms >= MIN_T1RHO_OVER_T2 * t2_ms:
        return []
    return [
        Reason(
            ReasonCode.DECAY_IMPLAUSIBLE,
            f"mean T1rho of the discs, {t1rho_ms:.1f} ms, lies below their T2, {t2_ms:.1f} ms: are the roles swapped?",
        )
    ]


def _clipping(stack: EchoStack, signal: npt.NDArray[np.float64]) -> list[Reason]:
    clipped = float((signal[0] >= stack.signal.max()).mean())
    if clipped <= MAX_CLIPPED:
        return []
    return [_doubt(stack, f"{clipped:.0%} of the disc voxels stand at the highest stored value: the signal is clipped")]


def _shape(stack: EchoStack, mean: npt.NDArray[np.float64]) -> list[Reason]:
    """Falls from echo to echo, and lies near one exponential."""
    curve = ", ".join(f"{value:.4g} at {time:g} ms" for value, time in zip(mean, stack.times_ms, strict=True))
    if not (np.diff(mean) < 0).all():
        return [_doubt(stack, f"the mean disc signal does not fall from echo to echo: {curve}")]
    fit = fit_monoexponential(mean[:, None], stack.times_ms)
    if fit.status[0] != FitStatus.FITTED:
        return [_doubt(stack, f"no exponential fits the mean disc signal ({FitStatus(fit.status[0]).name}): {curve}")]
    expected = fit.s0[0] * np.exp(-np.asarray(stack.times_ms) / fit.time_ms[0])
    misfit = np.abs(mean - expected) / fit.s0[0]
    if misfit.max() <= MAX_MISFIT:
        return []
    worst = int(misfit.argmax())
    return [
        _doubt(
            stack,
            f"the mean disc signal at {stack.times_ms[worst]:g} ms lies {misfit[worst]:.0%} of S0 off the exponential "
            f"through all echoes: {curve}; scaled differently, or a wrong time?",
        )
    ]


def _doubt(stack: EchoStack, detail: str) -> Reason:
    return Reason(ReasonCode.DECAY_IMPLAUSIBLE, f"{stack.role}: {detail}")


def _text(times: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{time:g}" for time in times)
