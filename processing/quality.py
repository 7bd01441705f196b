"""Is this exam good enough to be believed without a look? Every doubt is a reason; one reason asks for review."""

from collections.abc import Iterator, Sequence

from processing.echoes import check_times_agree
from processing.fitting import FitStatus
from processing.measurements import measured_levels
from processing.refusal import Reason, ReasonCode
from processing.results import LUMBAR_LEVELS, Correction, DiscMask, DiscMeasurement, RegisteredDisc, Verdict

#: Share of a region's imaged voxels that may fail to fit before the exam needs review.
MAX_EXCLUDED = 0.2


def judge(
    mask: DiscMask,
    registered: Sequence[RegisteredDisc],
    measurements: Sequence[DiscMeasurement],
    *,
    doubts: Sequence[Reason] = (),
    min_dice: float,
    max_ring_entropy: float,
    min_member_dice: float,
    max_excluded: float = MAX_EXCLUDED,
    correction: Correction | None = None,
) -> tuple[Verdict, tuple[Reason, ...]]:
    """Verdict and reasons, in the order of the pipeline: segmentation, echoes, registration, measurement.

    Args:
        mask: the discs, with the network's own doubts.
        registered: the discs that were registered.
        measurements: of this exam.
        doubts: reasons already found, by the check of the echoes and by registrations that failed.
        min_dice: lowest Dice of a disc with its atlas disc (settings, registration).
        max_ring_entropy: highest mean entropy around a disc (settings, segmentation).
        min_member_dice: lowest agreement of an ensemble's members on a disc (settings, segmentation).
        max_excluded: highest share of voxels of a region that could not be fitted, of those that were imaged.
        correction: that the discs are a person's; what the networks were unsure of is then no reason.
    """
    reasons = dict.fromkeys(
        (
            *_doubtful_segmentation(mask, max_ring_entropy, min_member_dice, correction),
            *doubts,
            *_poor_registration(registered, min_dice),
            *check_times_agree(measurements),
            *_many_excluded(measurements, max_excluded),
        )
    )  # each once, in order
    return (Verdict.NEEDS_REVIEW if reasons else Verdict.OK), tuple(reasons)


def _doubtful_segmentation(
    mask: DiscMask, max_ring_entropy: float, min_member_dice: float, correction: Correction | None
) -> Iterator[Reason]:
    yield from mask.reasons
    missing = [level.name for level in LUMBAR_LEVELS if level not in measured_levels(mask)]
    if missing and correction is not None:
        text = f"not measured, for the corrected segmentation does not hold them: {', '.join(missing)}"
        yield Reason(ReasonCode.REVIEW_REQUIRED, text)
    elif missing:
        yield Reason(ReasonCode.SEGMENTATION_UNCERTAIN, f"not found: {', '.join(missing)}")
    for disc in mask.confidence:
        if disc.level not in LUMBAR_LEVELS:
            continue
        if not disc.ring_entropy <= max_ring_entropy:  # also when it is NaN
            yield Reason(
                ReasonCode.SEGMENTATION_UNCERTAIN,
                f"{disc.level.name}: entropy around the disc {disc.ring_entropy:.2f}, limit {max_ring_entropy:.2f}",
            )
        if disc.member_dice is not None and not disc.member_dice >= min_member_dice:
            yield Reason(
                ReasonCode.SEGMENTATION_UNCERTAIN,
                f"{disc.level.name}: the networks disagree on the disc, mean Dice {disc.member_dice:.2f} between them, "
                f"limit {min_member_dice:.2f}",
            )
        if disc.touches_border:
            yield Reason(ReasonCode.SEGMENTATION_UNCERTAIN, f"{disc.level.name}: cut by the edge of the image")


def _poor_registration(registered: Sequence[RegisteredDisc], min_dice: float) -> Iterator[Reason]:
    for alignment in (disc.alignment for disc in registered):
        name = alignment.level.name
        if not alignment.dice >= min_dice:
            yield Reason(
                ReasonCode.REGISTRATION_POOR,
                f"{name}: Dice with the atlas disc {alignment.dice:.2f}, limit {min_dice:.2f}",
            )
        if alignment.n_folded:
            yield Reason(ReasonCode.REGISTRATION_POOR, f"{name}: the deformation folds at {alignment.n_folded} voxels")


def _many_excluded(measurements: Sequence[DiscMeasurement], max_excluded: float) -> Iterator[Reason]:
    for one in measurements:
        name = f"{one.level.name} {one.region} {one.quantity}"
        failed = {reason: count for reason, count in one.excluded.items() if reason != FitStatus.OUTSIDE_IMAGE.name}
        share = sum(failed.values()) / max(1, one.n + sum(failed.values()))
        if one.n == 0:
            yield Reason(ReasonCode.REVIEW_REQUIRED, f"{name}: no voxel could be measured")
        elif share > max_excluded:
            why = ", ".join(f"{count} {reason}" for reason, count in failed.items())
            yield Reason(ReasonCode.REVIEW_REQUIRED, f"{name}: {share:.0%} of the voxels could not be fitted ({why})")
