"""What the choice of the atlas changes (the paper's Figs S10, S11), and what registration keeps of the values.

The same simulated exams, masks as their truth, registered to each atlas: Dice, SD of det J and the paper's
L = mean of (1 - Dice + SD det J); means of the parts, and their largest difference between atlases; and parts before
and after registration, with the echoes carried over by linear and by cubic interpolation from the same transforms.

Run with ``python -m tests.benchmarks.atlases``; one exam takes about 100 CPU s. Everything printed but the seconds is
the same on every machine.
"""

import argparse
import sys
import time
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from processing.atlas import load_atlas, shipped_atlases
from processing.fitting import relaxation_map
from processing.phantom import PhantomExam, simulate_exam
from processing.preservation import native_regions, overlap, values_in
from processing.registration import RegistrationFailed, align_disc, disc_task, fit_registered
from processing.results import (
    LUMBAR_LEVELS,
    DiscMask,
    EchoStack,
    Level,
    Quantity,
    RegisteredDisc,
    RelaxationMap,
)
from processing.transform_points import patient_index

PARTS = {"nucleus": (1,), "annulus": (2, 3)}
Registered = dict[tuple[str, Level], RegisteredDisc]


def truth_of(exam: PhantomExam) -> tuple[DiscMask, tuple[EchoStack, ...]]:
    """The true mask and the echoes of a simulated exam."""
    nothing = np.zeros(exam.labels.shape, np.float32)
    mask = DiscMask(exam.labels, nothing, exam.labels, exam.affine, (), "truth", "0" * 64)
    stacks = []
    for quantity in Quantity:
        if quantity in exam.quantities:
            times_ms, signal = exam.echoes(quantity)
            stacks.append(EchoStack(quantity, np.ascontiguousarray(signal), times_ms, exam.affine))
    return mask, tuple(stacks)


def register_all(mask: DiscMask, stacks: tuple[EchoStack, ...], atlases: tuple[str, ...]) -> Registered:
    """Every disc to every atlas; what fails is said and left out."""
    dimension = 2 if mask.levels.shape[0] == 1 else 3
    registered: Registered = {}
    for name in atlases:
        for level, atlas in load_atlas(dimension, name).items():
            try:
                signal = align_disc(disc_task(mask, level, stacks, atlas))
            except RegistrationFailed as failure:
                sys.stdout.write(f"{name} {failure}\n")
                continue
            registered[name, level] = fit_registered(signal)
    return registered


def part_mean(disc: RegisteredDisc, quantity: Quantity, part: str) -> float:
    """Mean of a part in atlas space, ms."""
    return float(values_in(disc.maps[quantity], np.isin(disc.atlas.regions, PARTS[part])).mean())


def print_atlases(registered: Registered, atlases: tuple[str, ...], quantities: tuple[Quantity, ...]) -> None:
    """One line for each atlas, then how far the parts' means lie apart."""
    sys.stdout.write("atlas          Dice mean   min   SD det J mean   max   folded      L\n")
    for name in atlases:
        found = [disc.alignment for (own, _), disc in registered.items() if own == name]
        dice, spread = np.array([one.dice for one in found]), np.array([one.sd_jacobian for one in found])
        folded = sum(one.n_folded for one in found)
        sys.stdout.write(
            f"{name:14s} {dice.mean():9.3f} {dice.min():5.3f} {spread.mean():15.3f} {spread.max():5.3f} {folded:8d}"
            f" {(1 - dice + spread).mean():6.3f}\n"
        )
    for quantity in quantities:
        for part in PARTS:
            sys.stdout.write(f"{quantity} {part}, mean in ms by level ({', '.join(atlases)}):")
            apart = []
            for level in LUMBAR_LEVELS:
                means = [
                    part_mean(registered[name, level], quantity, part)
                    for name in atlases
                    if (name, level) in registered
                ]
                apart.append(np.ptp(means) / np.mean(means))
                sys.stdout.write(f"  {level.name} {' '.join(f'{mean:.1f}' for mean in means)}")
            sys.stdout.write(f"  | apart: mean {100 * np.mean(apart):.1f} %, most {100 * np.max(apart):.1f} %\n")


def resampled(disc: RegisteredDisc, stack: EchoStack, order: int) -> RelaxationMap:
    """The map fitted to echoes carried into the atlas by interpolation of the given order."""
    index = np.indices(disc.atlas.mask.shape).reshape(3, -1).astype(np.float64)
    place = patient_index(disc.alignment, disc.atlas, stack.affine, index)
    echoes = [ndimage.map_coordinates(one, place, order=order, mode="mirror") for one in stack.signal]
    signal = np.stack(echoes).reshape(-1, *disc.atlas.mask.shape).astype(np.float32)
    carried = EchoStack(stack.role, signal, stack.times_ms, disc.atlas.affine)
    return relaxation_map(carried, disc.atlas.mask > 0)


def print_preserved(
    registered: Registered, atlases: tuple[str, ...], mask: DiscMask, stacks: tuple[EchoStack, ...]
) -> None:
    """Parts before and after, over the discs: mean and largest change of the mean, mean and smallest overlap."""
    native: Mapping[Quantity, RelaxationMap] = {one.role: relaxation_map(one, mask.levels > 0) for one in stacks}
    sys.stdout.write(
        "before and after registration       change of the mean: mean  largest   overlap: mean  smallest\n"
    )
    for name in atlases:
        discs = [disc for (own, _), disc in registered.items() if own == name]
        for order, word in ((1, "linear"), (3, "cubic")):
            for part, labels in PARTS.items():
                changes, overlaps = [], []
                for disc in discs:
                    where = np.isin(native_regions(disc, mask), labels)
                    for stack in stacks:
                        before = values_in(native[stack.role], where)
                        after = values_in(resampled(disc, stack, order), np.isin(disc.atlas.regions, labels))
                        changes.append(abs(after.mean() / before.mean() - 1))
                        overlaps.append(overlap(before, after))
                sys.stdout.write(
                    f"{name:14s} {word:7s} {part:10s} {100 * np.mean(changes):27.1f} % {100 * np.max(changes):6.1f} %"
                    f" {np.mean(overlaps):14.3f} {np.min(overlaps):9.3f}\n"
                )


def main() -> int:
    """Print the tables of each exam; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3], help="one simulated exam each")
    parser.add_argument("--protocol", choices=("mapss", "t1rho-fse"), default="mapss")
    options = parser.parse_args()
    atlases = shipped_atlases()
    for seed in options.seeds:
        started = time.process_time()
        slices = 12 if options.protocol == "mapss" else 1
        exam = simulate_exam(seed, n_slices=slices, protocol=options.protocol)
        sys.stdout.write(f"\nseed {seed}, {options.protocol}, Pfirrmann {exam.grades[:5]} (L5S1 to L1L2)\n")
        mask, stacks = truth_of(exam)
        registered = register_all(mask, stacks, atlases)
        print_atlases(registered, atlases, tuple(one.role for one in stacks))
        print_preserved(registered, atlases, mask, stacks)
        sys.stdout.write(f"{time.process_time() - started:.0f} CPU s\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
