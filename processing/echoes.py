"""Does the signal decay as tissue does? Checks that catch wrong times, scaling, order, slices and ghosts.

A high R^2 proves none of this: four points of a decay are easily fitted. What is asked is whether that which one
exponential leaves over is noise, or something that whole discs, other tissue or neighbouring places have in common.

Not told (``tests/benchmarks/echoes.py``): all times of a decay late by the same 2 ms (by 5 ms is told), one slice that
is an image of a neighbour 4 mm away (8 mm is told, at SNR 15 not in every echo), a gain below 4 %, and a gain that
follows exp(-t c): that is another relaxation time. The thresholds come from simulated exams alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processing.echo_residuals import TileResiduals, echo_gains, neighbour_residual, noise_sd, tile_residuals
from processing.fitting import FitStatus, fit_monoexponential
from processing.refusal import Reason, ReasonCode, UnsuitableInput
from processing.results import (
    LUMBAR_LEVELS,
    DiscMeasurement,
    EchoStack,
    LabelArray,
    Level,
    Quantity,
    Region,
    RelaxationMap,
)

#: Share of disc voxels at the image's highest value from which an image counts as clipped. Else one voxel is highest.
MAX_CLIPPED = 0.005

#: Share of disc voxels without signal (0 or less) from which an image is doubted: magnitudes with noise are above 0.
MAX_EMPTY = 0.05

#: Largest distance of an echo's mean in a disc from the mono-exponential through all echoes, as a share of S0. The
#: mixture of tissue in simulated discs reaches 0.007, also at SNR 15; one echo scaled by 1.25 gives 0.05 to 0.13.
MAX_MISFIT = 0.03

#: Largest gain of one echo against the others on which discs and bone agree. Simulated exams at rest, SNR 15 to 60,
#: reach 0.007; an echo scaled by 5 % gives at least 0.042 with three slices or more, one by 8 % 0.06 with a single
#: slice (tests/benchmarks/echoes.py). Discs alone do not count: a disc may be a mixture of long and short times.
MAX_GAIN = 0.04

#: Tiles of discs and of bone from which their gains are compared: a single slice of a small spine has about 100.
MIN_GAIN_TILES = 30

#: Largest residual that neighbouring places of a disc, or of the discs of a slice, have in common, as a share of S0.
#: Simulated exams at rest stay below 0.01 but for noise; an image of the next slice, 8 mm away, gives 0.024 to 0.09,
#: a ghost of a tenth 0.01 to 0.04, a motion of 1 mm that is not corrected 0.04 to 0.15.
MAX_PATTERN = 0.025
#: What noise adds to the square of it, times noise^2 / sqrt(pairs): 1.2 at most in simulated exams at SNR 15 to 25.
_PATTERN_NOISE = 2.0
_MIN_PAIRS = 12

#: Largest distance of single voxels from their exponential, as a share of the discs' mean signal. An exam at SNR 15 has
#: 0.067; stripes of a spike or a strong ghost have more, and would pass for noise in the checks above.
MAX_NOISE = 0.12

#: Physically T1rho is never shorter than T2; published healthy T2 of another sequence may exceed it a little.
MIN_T1RHO_OVER_T2 = 0.8

#: Share of a disc's voxels with T1rho clearly below T2 from which the disc is doubted. Noise at SNR 15 makes up to
#: 0.1 of them.
MAX_BELOW_T2 = 0.3

_BONE = 100  # label beside the discs' levels: vertebral bodies and sacrum
_BONE_CLASSES = (2, 3)  # of the network


def check_stored(stack: EchoStack, discs: npt.NDArray[np.bool_]) -> list[Reason]:
    """Reasons to doubt the stored values of the disc voxels (slices, rows, columns): broken, empty or clipped.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, the times are not finite and ascending: nothing could be fitted.
        ValueError: the mask is empty or on another grid.
    """
    times = np.asarray(stack.times_ms, dtype=np.float64)
    if len(times) != len(stack.signal) or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        raise UnsuitableInput(ReasonCode.ECHO_UNRESOLVED, f"{stack.role} times do not ascend: {_text(times)} ms")
    if discs.shape != stack.signal.shape[1:] or not discs.any():
        raise ValueError("the mask is empty or on another grid than the echoes")
    signal = stack.signal[:, discs]
    reasons = []
    broken = int((~np.isfinite(signal).all(axis=0)).sum())
    if broken:
        reasons.append(_doubt(stack, f"{broken} disc voxels are not numbers"))
    for echo, voxels, time_ms in zip(stack.signal, signal, stack.times_ms, strict=True):
        empty = float((voxels <= 0).mean())
        highest = np.max(echo, where=np.isfinite(echo), initial=-np.inf)
        clipped = float((voxels >= highest).mean())
        if empty > MAX_EMPTY:
            reasons.append(_doubt(stack, f"{empty:.0%} of the disc voxels have no signal at {time_ms:g} ms"))
        elif clipped > MAX_CLIPPED:
            text = f"{clipped:.0%} of the disc voxels stand at the highest value of the image at {time_ms:g} ms"
            reasons.append(_doubt(stack, f"{text}: the signal is clipped"))
    return reasons


def check_decay(stack: EchoStack, levels: LabelArray, tissue: LabelArray) -> list[Reason]:
    """Reasons to doubt that the discs decay as tissue does; of several with one cause only the plainest.

    Args:
        stack: the decay, after :func:`check_stored`; moved images best brought back onto the first, else small
            motions are told here, too.
        levels: (slices, rows, columns) uint8, the named discs.
        tissue: the same shape, class of the network: the scale of an echo is judged by bone as well as by discs.
    """
    means = {}
    for level in LUMBAR_LEVELS:
        signal = stack.signal[:, levels == level].astype(np.float64)
        signal = signal[:, np.isfinite(signal).all(axis=0)]
        if signal.shape[1]:
            means[level] = signal.mean(axis=1)
    if not means:
        lumbar = bool(np.isin(levels, LUMBAR_LEVELS).any())
        return [_doubt(stack, "no disc voxel is a number in every image")] if lumbar else []
    if rising := _rising(stack, means):
        return rising
    noise = noise_sd(stack, levels > 0)
    if not np.isfinite(noise):
        return [_doubt(stack, "no disc voxel decays like an exponential")]
    share = noise / float(np.mean([mean[0] for mean in means.values()]))
    if share > MAX_NOISE:
        text = f"single voxels of the discs leave their exponential by {share:.0%} of the signal"
        return [_doubt(stack, f"{text}: too much noise, a spike or a ghost?")]
    return _scale(stack, levels, tissue, noise) or _misfit(stack, means) or list(_pattern(stack, levels, noise))


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


def check_voxels_agree(maps: Mapping[Quantity, RelaxationMap], levels: LabelArray) -> list[Reason]:
    """A reason that names the discs in which T1rho lies clearly below T2 in many voxels, whatever the means are."""
    if not set(maps) >= set(Quantity):
        return []
    t1rho_ms, t2_ms = (maps[quantity].time_ms for quantity in (Quantity.T1RHO, Quantity.T2))
    both = np.isfinite(t1rho_ms) & np.isfinite(t2_ms)
    shares = {}
    for level in LUMBAR_LEVELS:
        voxels = (levels == level) & both
        if voxels.any():
            shares[level] = float((t1rho_ms[voxels] < MIN_T1RHO_OVER_T2 * t2_ms[voxels]).mean())
    doubted = {level: share for level, share in shares.items() if share > MAX_BELOW_T2}
    if not doubted:
        return []
    text = ", ".join(f"{level.name} {share:.0%}" for level, share in doubted.items())
    return [Reason(ReasonCode.DECAY_IMPLAUSIBLE, f"T1rho lies below T2 in many voxels of a disc: {text}")]


def _rising(stack: EchoStack, means: Mapping[Level, npt.NDArray[np.float64]]) -> list[Reason]:
    rising = {level: mean for level, mean in means.items() if not (np.diff(mean) < 0).all()}
    if not rising:
        return []
    first = next(iter(rising))
    text = f"the mean signal of {_names(rising)} does not fall from echo to echo"
    return [_doubt(stack, f"{text} ({first.name}: {_curve(stack, rising[first])}): echoes in the wrong order?")]


def _scale(stack: EchoStack, levels: LabelArray, tissue: LabelArray, noise: float) -> list[Reason]:
    """An echo whose gain discs and bone agree on. The echo is the one that explains most of both residuals.

    Of three echoes less two parameters one residual is left: which image it comes from, and which way, cannot be told.
    """
    labels = np.where(np.isin(tissue, _BONE_CLASSES) & (levels == 0), _BONE, levels).astype(np.uint8)
    tiles = tile_residuals(stack, labels, noise=noise, filled=1.0)
    discs, bone = echo_gains(tiles, LUMBAR_LEVELS), echo_gains(tiles, [_BONE])
    if min(discs.n_tiles, bone.n_tiles) < MIN_GAIN_TILES:
        return []
    if len(stack.times_ms) == 3:
        least = int(np.abs(discs.gain).argmin())
        if min(abs(discs.gain[least]), abs(bone.gain[least])) <= MAX_GAIN or discs.gain[least] * bone.gain[least] < 0:
            return []
        text = "the three images do not lie on one exponential, in discs and bone alike"
        return [_doubt(stack, f"{text}: another scale of one of them, or a wrong time?")]
    worst = int((discs.explained + bone.explained).argmax())
    gains = discs.gain[worst], bone.gain[worst]
    if min(gains) < -MAX_GAIN and max(gains) < -MAX_GAIN:
        gain = max(gains)
    elif min(gains) > MAX_GAIN:
        gain = min(gains)
    else:
        return []
    text = f"the image at {stack.times_ms[worst]:g} ms is {abs(gain):.0%} {'brighter' if gain > 0 else 'darker'}"
    return [_doubt(stack, f"{text} than the others tell, in discs and bone alike: another scale, or a wrong time?")]


def _misfit(stack: EchoStack, means: Mapping[Level, npt.NDArray[np.float64]]) -> list[Reason]:
    """Discs whose mean signal lies far from one exponential."""
    fit = fit_monoexponential(np.stack(list(means.values()), axis=1), stack.times_ms)
    reasons, far = [], {}
    for index, (level, mean) in enumerate(means.items()):
        if fit.status[index] != FitStatus.FITTED:
            text = f"no exponential fits the mean signal of {level.name} ({FitStatus(fit.status[index]).name}): "
            reasons.append(_doubt(stack, text + _curve(stack, mean)))
            continue
        expected = fit.s0[index] * np.exp(-np.asarray(stack.times_ms) / fit.time_ms[index])
        misfit = np.abs(mean - expected) / fit.s0[index]
        if misfit.max() > MAX_MISFIT:
            far[level] = misfit
    if far:
        first, misfit = next(iter(far.items()))
        worst = int(misfit.argmax())
        text = (
            f"the mean signal of {_names(far)} lies off one exponential ({first.name} at {stack.times_ms[worst]:g} ms "
            f"by {misfit[worst]:.0%} of S0: {_curve(stack, means[first])}): scaled differently, or a wrong time?"
        )
        reasons.append(_doubt(stack, text))
    return reasons


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A part of the discs whose residuals form a pattern."""

    name: str
    share: float
    time_ms: float


def _pattern(stack: EchoStack, levels: LabelArray, noise: float) -> Iterator[Reason]:
    """Discs and slices in which neighbouring places leave the exponential together."""
    tiles = tile_residuals(stack, levels, noise=noise, filled=0.55)
    discs = [_pattern_in(tiles, tiles.label == level, level.name) for level in LUMBAR_LEVELS]
    slices = [_pattern_in(tiles, tiles.place[:, 0] == k, f"slice {k + 1}") for k in range(len(levels))]
    in_slices = [one for one in slices if one]
    if in_slices and 2 * len(in_slices) <= len(levels):
        yield _pattern_doubt(stack, in_slices, "an image of another place?")
    elif in_discs := [one for one in discs if one]:
        yield _pattern_doubt(stack, in_discs, "a ghost, or motion?")


def _pattern_in(tiles: TileResiduals, chosen: npt.NDArray[np.bool_], name: str) -> _Pattern | None:
    share, pairs = neighbour_residual(tiles, chosen)
    if pairs < _MIN_PAIRS:
        return None
    limit = np.sqrt(MAX_PATTERN**2 + _PATTERN_NOISE * tiles.noise**2 / np.sqrt(pairs))
    worst = int(share.argmax())
    return _Pattern(name, float(share[worst]), tiles.times_ms[worst]) if share[worst] > limit else None


def _pattern_doubt(stack: EchoStack, found: Sequence[_Pattern], question: str) -> Reason:
    text = ", ".join(f"{one.name} {one.share:.0%} of S0, seen most at {one.time_ms:g} ms" for one in found)
    return _doubt(stack, f"neighbouring places of a disc leave the exponential together ({text}): {question}")


def _curve(stack: EchoStack, mean: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g} at {time:g} ms" for value, time in zip(mean, stack.times_ms, strict=True))


def _names(levels: Mapping[Level, object]) -> str:
    return ", ".join(level.name for level in levels)


def _doubt(stack: EchoStack, detail: str) -> Reason:
    return Reason(ReasonCode.DECAY_IMPLAUSIBLE, f"{stack.role}: {detail}")


def _text(times: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{time:g}" for time in times)
