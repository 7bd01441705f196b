"""What the echo checks find, and what they raise without cause, on simulated exams with known faults.

``python -m tests.benchmarks.echoes --seeds 4``. Every part prints how often a fault of a known size is told, beside
the same exams at rest. The seconds are CPU seconds of one thread.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from processing.echoes import check_decay, check_stored, check_voxels_agree
from processing.fitting import relaxation_map
from processing.motion import correct_motion, estimate_motion, judge_motion
from processing.phantom import PhantomExam, simulate_exam
from processing.refusal import Reason, ReasonCode
from processing.results import EchoMotion, EchoStack, Quantity
from tests.moving_phantom import Move, fine_exam, measured, stacks

LAYOUTS = {
    "12 x 4 mm": {"n_slices": 12, "slice_spacing_mm": 4.0},
    "5 x 8 mm": {"n_slices": 5, "slice_spacing_mm": 8.0},
    "1 slice, FSE": {"n_slices": 1, "protocol": "t1rho-fse"},
}
SNRS = (15.0, 25.0, 40.0, 60.0)
MAX_MOTION_MM = 0.8  # the default of the settings


def reasons_of(exam: PhantomExam, *, correct: bool = False) -> list[Reason]:
    """All that the pipeline's checks say, with the true mask for the network's."""
    discs = exam.labels > 0
    decays = stacks(exam)
    found = [reason for one in decays for reason in check_stored(one, discs)]
    motion = estimate_motion(decays, discs)
    still, corrected = correct_motion(decays, motion, max_correction_mm=5.0)
    found += judge_motion(corrected if correct else motion, max_motion_mm=MAX_MOTION_MM)
    found += [reason for one in still for reason in check_decay(one, exam.labels, exam.classes)]
    fitted = {one.role: relaxation_map(one, discs) for one in (still if correct else decays)}
    return found + check_voxels_agree(fitted, exam.labels)


def at_rest(seeds: int) -> None:
    """False alarms, and the time."""
    alarms, exams = [], 0
    for name, layout in LAYOUTS.items():
        seconds = []
        for seed in range(seeds):
            for snr in SNRS:
                exam = simulate_exam(300 + seed, snr=snr, **layout)
                start = time.process_time()
                alarms += [f"{name}, SNR {snr:g}, seed {seed}: {one.code} {one.detail}" for one in reasons_of(exam)]
                seconds.append(time.process_time() - start)
                exams += 1
        print(f"at rest, {name}: {np.mean(seconds):.2f} CPU s an exam, {max(seconds):.2f} at most", flush=True)
    print(f"at rest: {len(alarms)} alarms in {exams} exams", *alarms, sep="\n  ", flush=True)


def worst_error_mm(found: EchoMotion, move: Move, discs: np.ndarray) -> float:
    """The largest distance, over the discs, of where a pixel is said to be from where it is."""
    y, x = ((np.argwhere(discs.any(axis=0)) - found.centre) * (200 / discs.shape[1])).T
    ends = []
    for degrees, down, right in (
        (found.rotation_deg, found.rows_mm, found.columns_mm),
        (move.degrees, move.rows_mm, move.columns_mm),
    ):
        angle = math.radians(degrees)
        ends.append(
            (math.cos(angle) * y + math.sin(angle) * x + down, math.cos(angle) * x - math.sin(angle) * y + right)
        )
    return float(np.hypot(ends[0][0] - ends[1][0], ends[0][1] - ends[1][1]).max())


def motion(seeds: int) -> None:
    """Errors of the estimate, and what correction does to T1rho and T2."""
    rng = np.random.default_rng(1)
    for snr in (15.0, 40.0):
        errors, turns, before, after, told = [], [], [], [], []
        for seed in range(seeds):
            fine = fine_exam(400 + seed, n_slices=5)
            rest = measured(fine, snr=snr, seed=seed)
            discs = rest.labels > 0
            for index in range(1, 7):
                move = Move(*rng.uniform(-3, 3, 2), rng.uniform(-2, 2))
                exam = measured(fine, snr=snr, seed=seed, moves={index: move})
                found = estimate_motion(stacks(exam), discs)
                (one,) = [m for m in found if m.time_ms == exam.times_ms[index]]
                errors.append(worst_error_mm(one, move, discs))
                turns.append(abs(one.rotation_deg - move.degrees))
                told.append([m.time_ms for m in found if m.displacement_mm > MAX_MOTION_MM] == [one.time_ms])
                still, _ = correct_motion(stacks(exam), found, max_correction_mm=8.0)
                before.append(bias_ms(stacks(exam), stacks(rest), one.role, discs))
                after.append(bias_ms(still, stacks(rest), one.role, discs))
        print(
            f"motion up to 3 mm and 2 degrees, SNR {snr:g}, {len(errors)} images: error {np.mean(errors):.3f} mm, "
            f"{max(errors):.3f} at most; {max(turns):.2f} degrees at most; this image alone told: {np.mean(told):.0%}; "
            f"change of a disc's mean {np.mean(before):.1f} ms (at most {max(before):.1f}) before, "
            f"{np.mean(after):.2f} ({max(after):.2f}) after correction",
            flush=True,
        )


def bias_ms(decays: tuple[EchoStack, ...], rest: tuple[EchoStack, ...], role: Quantity, discs: np.ndarray) -> float:
    """Change of the mean time of all discs against the exam at rest."""
    means = []
    for some in (decays, rest):
        (decay,) = [one for one in some if one.role is role]
        means.append(float(np.nanmean(relaxation_map(decay, discs).time_ms[discs])))
    return abs(means[0] - means[1])


def faults() -> Iterator[tuple[str, Callable[[PhantomExam], PhantomExam]]]:
    """Name and maker of each fault; images as in ``exam.times_ms``."""
    for gain in (0.92, 0.95, 1.05, 1.08):
        for index in range(7):
            yield f"image {index} x {gain}", lambda exam, i=index, g=gain: scaled(exam, i, g)
    for one, other in ((1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (1, 4)):
        yield f"images {one} and {other} swapped", lambda exam, i=one, j=other: swapped(exam, i, j)
    for index in (1, 3, 4, 6):
        yield f"image {index}: a slice of its neighbour", lambda exam, i=index: wrong_slice(exam, i)
    yield "all times of T1rho but 0 off by 5 ms", lambda exam: late(exam, 5.0)
    yield "all times of T1rho but 0 off by 2 ms", lambda exam: late(exam, 2.0)
    yield "roles swapped", roles_swapped


def scaled(exam: PhantomExam, index: int, gain: float) -> PhantomExam:
    """One image of another scale."""
    signal = exam.signal.copy()
    signal[index] *= gain
    return replace(exam, signal=signal)


def swapped(exam: PhantomExam, one: int, other: int) -> PhantomExam:
    """Two images in each other's place."""
    signal = exam.signal.copy()
    signal[[one, other]] = signal[[other, one]]
    return replace(exam, signal=signal)


def wrong_slice(exam: PhantomExam, index: int) -> PhantomExam:
    """In one image, the slice left of the middle is that right of it."""
    signal = exam.signal.copy()
    middle = signal.shape[1] // 2
    signal[index, middle - 1] = signal[index, middle]
    return replace(exam, signal=signal)


def late(exam: PhantomExam, ms: float) -> PhantomExam:
    """Images measured later than they say."""
    times = [t - ms if q is Quantity.T1RHO else t for t, q in zip(exam.times_ms, exam.quantities, strict=True)]
    return replace(exam, times_ms=tuple(times))


def roles_swapped(exam: PhantomExam) -> PhantomExam:
    """T1rho is called T2."""
    other = {None: None, Quantity.T1RHO: Quantity.T2, Quantity.T2: Quantity.T1RHO}
    return replace(exam, quantities=tuple(other[what] for what in exam.quantities))


def fault_table(seeds: int) -> None:
    """How often each fault is told."""
    print("share of exams in which a fault is told (columns: layout and SNR)")
    cases = [(name, snr) for name in ("12 x 4 mm", "5 x 8 mm") for snr in (15.0, 40.0)]
    exams = {
        case: [simulate_exam(500 + seed, snr=case[1], **LAYOUTS[case[0]]) for seed in range(seeds)] for case in cases
    }
    print("  ", *(f"{name} SNR {snr:g}" for name, snr in cases), sep=" | ")
    for fault, make in faults():
        shares = []
        for case in cases:
            told = [any(one.code == ReasonCode.DECAY_IMPLAUSIBLE for one in quick(make(exam))) for exam in exams[case]]
            shares.append(np.mean(told))
        print(f"  {fault}", *(f"{share:.0%}" for share in shares), sep=" | ", flush=True)


def quick(exam: PhantomExam) -> list[Reason]:
    """The checks without motion, which plays no part in these faults."""
    decays = stacks(exam)
    found = [reason for one in decays for reason in check_decay(one, exam.labels, exam.classes)]
    return found + check_voxels_agree({one.role: relaxation_map(one, exam.labels > 0) for one in decays}, exam.labels)


def through_plane(seeds: int) -> None:
    """Motion across the slices is not estimated: what tells it?"""
    for ahead, thick in ((1, 2), (1, 4), (2, 4)):
        told = dict.fromkeys((ReasonCode.MOTION, ReasonCode.DECAY_IMPLAUSIBLE), 0)
        for seed in range(seeds):
            thin = simulate_exam(600 + seed, n_slices=24 + ahead, slice_spacing_mm=2.0, snr=60.0)
            exam = replace(
                thin,
                signal=np.stack([grouped(one[ahead:] if i == 4 else one, thick) for i, one in enumerate(thin.signal)]),
                labels=thin.labels[thick // 2 : 24 : thick],
                classes=thin.classes[thick // 2 : 24 : thick],
            )
            codes = {one.code for one in reasons_of(exam)}
            for code in told:
                told[code] += code in codes
        text = ", ".join(f"{code} {count} of {seeds}" for code, count in told.items())
        print(f"T1rho at 40 ms {2 * ahead} mm across, slices of {2 * thick} mm: {text}", flush=True)


def grouped(volume: np.ndarray, thick: int) -> np.ndarray:
    """Thick slices from the first 24 thin ones."""
    return volume[:24].reshape(24 // thick, thick, *volume.shape[1:]).mean(axis=1)


def main() -> int:
    """Print all parts; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--part", choices=("rest", "motion", "faults", "through-plane"), action="append")
    options = parser.parse_args()
    parts = {"rest": at_rest, "motion": motion, "faults": fault_table, "through-plane": through_plane}
    for name, part in parts.items():
        if not options.part or name in options.part:
            part(options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
