"""How well automatic discs agree with manual ones: overlap and surfaces (paper, Table 2), measured times (Table 3).

Differences read manual - automatic, as in the paper. Masks are (slices, rows, columns) or, of one slice, (rows,
columns).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from processing.fitting import FitStatus, relaxation_map
from processing.results import LUMBAR_LEVELS, EchoStack, LabelArray, Level, Quantity

#: A manual disc counts as found when one automatic disc, under whatever name, reaches this Dice coefficient with it.
FOUND_DICE = 0.5

_LIMITS_SD = 1.96  # Bland and Altman 1986: 95 % of normally distributed differences
_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DiscAgreement:
    """One manually annotated disc against the automatic disc of the same name.

    ``slice_index``: the slice, for a comparison in 2-D within a stack; None for a whole exam. ``dice``,
    ``sensitivity``, ``precision`` 0..1; ``volume_difference_percent`` 100 (manual - automatic) / manual; ``msd_mm``:
    mean distance of both surfaces to each other, and in in-plane pixels. ``named``: what the automatic mask calls the
    disc that is there, None where there is none. What is undefined is NaN: the precision of a missing disc, and the
    surface distance of two that do not overlap.
    """

    level: Level
    slice_index: int | None
    n_manual: int
    n_automatic: int
    dice: float
    msd_mm: float
    msd_px: float
    volume_difference_percent: float
    sensitivity: float
    precision: float
    named: Level | None

    @property
    def found(self) -> bool:
        """Whether an automatic disc lies there, whatever its name."""
        return self.named is not None

    @property
    def wrongly_named(self) -> bool:
        """Whether it was found under another name than the annotation gives."""
        return self.named is not None and self.named != self.level


@dataclass(frozen=True, slots=True)
class ExamAgreement:
    """All discs of one exam. ``voxels``: manual, automatic and common disc voxels, for a pooled Dice coefficient.

    ``discs``: in 3-D, or in 2-D for an exam of one slice; ``slices``: every disc in every slice that shows it.
    ``unannotated``: automatic discs that no annotation names; they may be right.
    """

    discs: tuple[DiscAgreement, ...]
    slices: tuple[DiscAgreement, ...]
    unannotated: tuple[Level, ...]
    voxels: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class DiscTimes:
    """Mean time of one disc under the manual and under the automatic mask, ms; NaN where nothing could be fitted."""

    level: Level
    quantity: Quantity
    manual_ms: float
    automatic_ms: float


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean with its t-based 95 % confidence interval, over ``n`` values; NaN where n is too small."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class TimesAgreement:
    """Manual against automatic times (paper, Table 3; Bland and Altman 1986). NaN where n is too small.

    ``r``: Pearson. ``p_paired_t``: of the paired t-test. ``bias_ms`` manual - automatic; limits bias ± 1.96 SD.
    """

    n: int
    r: float
    p_paired_t: float
    bias_ms: float
    lower_limit_ms: float
    upper_limit_ms: float


def compare_exam(manual: LabelArray, automatic: LabelArray, spacing_mm: tuple[float, float, float]) -> ExamAgreement:
    """Compare named discs (slices, rows, columns) of one exam, L5S1 to L1L2; ``spacing_mm`` in that order.

    Raises:
        ValueError: the shapes differ.
    """
    if manual.shape != automatic.shape:
        raise ValueError(f"manual {manual.shape} and automatic {automatic.shape} masks differ in shape")
    manual, automatic = (np.where(one <= Level.L1L2, one, 0).astype(np.uint8) for one in (manual, automatic))
    in_plane = spacing_mm[1:]
    slices = tuple(
        one
        for k in range(len(manual))
        if manual[k].any()
        for one in _compare_labels(manual[k], automatic[k], in_plane, slice_index=k)
    )
    whole = (
        _compare_labels(manual, automatic, spacing_mm)
        if len(manual) > 1
        else _compare_labels(manual[0], automatic[0], in_plane)
    )
    annotated = {one.level for one in whole}
    return ExamAgreement(
        discs=whole,
        slices=slices,
        unannotated=tuple(one for one in LUMBAR_LEVELS if one not in annotated and (automatic == one).any()),
        voxels=(int((manual > 0).sum()), int((automatic > 0).sum()), int(((manual > 0) & (automatic > 0)).sum())),
    )


def _compare_labels(
    manual: LabelArray, automatic: LabelArray, spacing_mm: tuple[float, ...], *, slice_index: int | None = None
) -> tuple[DiscAgreement, ...]:
    """Every disc of ``manual``, of two or three dimensions, against the automatic one of its name."""
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    # ITK's source is what is judged, its target the truth: the errors are relative to these
    overlap.Execute(SimpleITK.GetImageFromArray(automatic), SimpleITK.GetImageFromArray(manual))
    pixel_mm = float(np.sqrt(spacing_mm[-2] * spacing_mm[-1]))
    rows = []
    for level in LUMBAR_LEVELS:
        own = manual == level
        n_manual, n_automatic = int(own.sum()), int((automatic == level).sum())
        if n_manual == 0:
            continue
        common = bool((own & (automatic == level)).any())
        distance = mean_surface_distance(own, automatic == level, spacing_mm) if common else float("nan")
        rows.append(
            DiscAgreement(
                level=level,
                slice_index=slice_index,
                n_manual=n_manual,
                n_automatic=n_automatic,
                dice=float(overlap.GetDiceCoefficient(int(level))) if n_automatic else 0.0,
                msd_mm=distance,
                msd_px=distance / pixel_mm,
                volume_difference_percent=100.0 * (n_manual - n_automatic) / n_manual,
                sensitivity=1.0 - float(overlap.GetFalseNegativeError(int(level))) if n_automatic else 0.0,
                precision=1.0 - float(overlap.GetFalseDiscoveryRate(int(level))) if n_automatic else float("nan"),
                named=_name_there(own, automatic),
            )
        )
    return tuple(rows)


def _name_there(own: _BoolArray, automatic: LabelArray) -> Level | None:
    """What the automatic mask calls the disc ``own``: the level with the highest Dice, if that reaches FOUND_DICE."""
    covering = np.bincount(automatic[own], minlength=len(Level) + 1)
    sizes = np.bincount(automatic.ravel(), minlength=len(Level) + 1)
    dice = {level: 2.0 * covering[level] / (own.sum() + sizes[level]) for level in LUMBAR_LEVELS}
    best = max(dice, key=lambda level: float(dice[level]))
    return best if dice[best] >= FOUND_DICE else None


def mean_surface_distance(first: _BoolArray, second: _BoolArray, spacing_mm: tuple[float, ...]) -> float:
    """Symmetric mean surface distance in mm: over all surface voxels of both masks, how far the other surface is.

    Surface voxels are those of a mask that touch its outside, edges and corners included; the ends of the volume count
    as outside. In a stack of thick slices whole end faces coincide, which makes the value in 3-D smaller than in 2-D.

    Args:
        first: (..., rows, columns), two or three dimensions.
        second: the same shape.
        spacing_mm: distance of voxels along each axis of the arrays.

    Raises:
        ValueError: a mask is empty.
    """
    if not first.any() or not second.any():
        raise ValueError("an empty mask has no surface")
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(first | second))
    images = [_padded_image(one[box], spacing_mm) for one in (first, second)]
    distances = [
        SimpleITK.GetArrayFromImage(SimpleITK.Abs(SimpleITK.SignedMaurerDistanceMap(image, False, False, True)))
        for image in images
    ]
    surfaces = [SimpleITK.GetArrayFromImage(SimpleITK.BinaryContour(image, True)) > 0 for image in images]
    return float(np.concatenate([distances[1][surfaces[0]], distances[0][surfaces[1]]]).mean())


def _padded_image(mask: _BoolArray, spacing_mm: tuple[float, ...]) -> "SimpleITK.Image":
    image = SimpleITK.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing(spacing_mm[::-1])
    return image


def compare_times(stack: EchoStack, manual: LabelArray, automatic: LabelArray) -> tuple[DiscTimes, ...]:
    """Mean time of each disc that both masks (slices, rows, columns) name, fitted in the patient's space."""
    fitted = relaxation_map(stack, ((manual > 0) | (automatic > 0)) & (manual <= Level.L1L2))
    rows = []
    for level in LUMBAR_LEVELS:
        masks = (manual == level, automatic == level)
        if all(mask.any() for mask in masks):
            means = [_mean_or_nan(fitted.time_ms[mask & (fitted.status == FitStatus.FITTED)]) for mask in masks]
            rows.append(DiscTimes(level, stack.role, means[0], means[1]))
    return tuple(rows)


def _mean_or_nan(values: npt.NDArray[np.floating]) -> float:
    return float(values.astype(np.float64).mean()) if len(values) else float("nan")


def pooled_dice(exams: Iterable[ExamAgreement]) -> float:
    """Dice coefficient over the voxels of all exams together; NaN without any."""
    manual, automatic, common = np.array([one.voxels for one in exams], np.int64).reshape(-1, 3).sum(axis=0).tolist()
    return 2.0 * common / (manual + automatic) if manual + automatic else float("nan")


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Mean and t-based 95 % confidence interval of the values that are defined."""
    defined = np.array(values, np.float64)
    defined = defined[np.isfinite(defined)]
    n = len(defined)
    if n < 2:
        return MeanInterval(float(defined[0]) if n else float("nan"), float("nan"), float("nan"), n)
    low, high = DescrStatsW(defined).tconfint_mean(alpha=0.05)
    return MeanInterval(float(defined.mean()), float(low), float(high), n)


def times_agreement(times: Iterable[DiscTimes]) -> TimesAgreement:
    """Agreement of the times that are defined under both masks."""
    pairs = np.array([(one.manual_ms, one.automatic_ms) for one in times], np.float64).reshape(-1, 2)
    manual, automatic = pairs[np.isfinite(pairs).all(axis=1)].T
    difference = manual - automatic
    n = len(difference)
    bias = float(difference.mean()) if n else float("nan")
    spread = float(difference.std(ddof=1)) if n > 1 else float("nan")
    return TimesAgreement(
        n=n,
        r=_coefficient(stats.pearsonr, manual, automatic),
        p_paired_t=float(stats.ttest_rel(manual, automatic).pvalue)
        if n > 1 and np.ptp(difference) > 0
        else float("nan"),
        bias_ms=bias,
        lower_limit_ms=bias - _LIMITS_SD * spread,
        upper_limit_ms=bias + _LIMITS_SD * spread,
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, int]:
    """Spearman's coefficient of the pairs that are defined, and their number; NaN below three pairs."""
    pairs = np.array([first, second], np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    return _coefficient(stats.spearmanr, *pairs), pairs.shape[1]


def _coefficient(
    correlate: Callable[..., object], first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> float:
    """The statistic; NaN below three pairs or where one side does not vary, for it is undefined then."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(correlate(first, second).statistic)  # type: ignore[attr-defined]
