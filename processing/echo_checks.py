"""All checks of an exam's echoes, in their order: what is stored, where it lies, how it falls."""

from collections.abc import Sequence
from dataclasses import dataclass

from processing.echoes import check_decay, check_stored
from processing.motion import correct_motion, estimate_motion, judge_motion
from processing.refusal import Reason
from processing.results import DiscMask, EchoMotion, EchoStack


@dataclass(frozen=True, slots=True, eq=False)
class CheckedEchoes:
    """``stacks``: what is to be fitted, moved back where that was asked for; ``motion`` of each image; ``doubts``."""

    stacks: tuple[EchoStack, ...]
    motion: tuple[EchoMotion, ...]
    doubts: tuple[Reason, ...]


def check_echoes(
    stacks: Sequence[EchoStack], mask: DiscMask, *, max_motion_mm: float, correct: bool, max_correction_mm: float
) -> CheckedEchoes:
    """Check the echoes of one exam at its discs.

    The decay is always judged on images moved back, so that a small motion is not taken for a wrong time as well.

    Args:
        stacks: T1rho, T2 or both, on the grid of ``mask``; none of an exam without echoes.
        mask: the named discs.
        max_motion_mm: an image that lies further off than this is a MOTION.
        correct: whether the images moved back are also what is fitted.
        max_correction_mm: an image that moved further stays where it is.

    Raises:
        UnsuitableInput: ECHO_UNRESOLVED, the times do not ascend.
    """
    discs = mask.levels > 0
    stored = [reason for stack in stacks for reason in check_stored(stack, discs)]
    motion = estimate_motion(stacks, discs)
    still, corrected = correct_motion(stacks, motion, max_correction_mm=max_correction_mm)
    decay = [reason for stack in still for reason in check_decay(stack, mask.levels, mask.tissue)]
    kept = corrected if correct else motion
    moved = judge_motion(kept, max_motion_mm=max_motion_mm)
    return CheckedEchoes(tuple(still if correct else stacks), kept, (*stored, *moved, *decay))
