"""How well and how dearly discs are registered: seeded hard pairs against the atlas, each row beside its limit.

Run with ``make bench`` (or ``python -m tests.benchmarks.registration --pairs3d 6``). CPU seconds depend on the machine;
they also stand as a ratio to the paper preset of the same dimension, measured in the same run. ``--crashes N`` only
registers N small three-dimensional discs, one after the other, to see whether elastix dies.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from processing.atlas import NUCLEUS, load_atlas
from processing.deformation_quality import registration_loss
from processing.disc_pairs import DiscPair, hard_pairs
from processing.elastix_parameters import Stages, registration_parameters
from processing.registration import SEED, DiscTask, RegistrationFailed, register_disc, warm_up
from processing.registration_pool import RegistrationPool
from processing.results import Alignment


def register_all(pairs: Sequence[DiscPair], stages: Stages) -> list[Alignment]:
    """One after the other in this process, which is warm."""
    return [register_disc(one.mask, one.affine, one.atlas, stages=stages) for one in pairs]


def row(name: str, found: Sequence[Alignment], must: str, reference_s: float | None = None) -> float:
    """Print the figures of some alignments; returns their mean CPU seconds."""
    dice, sd = np.array([one.dice for one in found]), np.array([one.sd_jacobian for one in found])
    cpu_s = float(np.mean([one.cpu_s for one in found]))
    ratio = f" ({cpu_s / reference_s:.2f} of the paper preset)" if reference_s else ""
    print(
        f"{name:34s} n {len(found):2d}  Dice {dice.mean():.3f} (min {dice.min():.3f})  SD(J) {sd.mean():.3f}"
        f" (max {sd.max():.3f}; B-spline alone {np.mean([one.sd_jacobian_bspline for one in found]):.3f},"
        f" patient {np.mean([one.sd_jacobian_patient for one in found]):.3f})"
        f"  folded {sum(one.n_folded > 0 for one in found)}  L {registration_loss(found):.4f}"
        f"  {cpu_s:.2f} CPU s{ratio}   must: {must}",
        flush=True,
    )
    return cpu_s


def two_dimensions() -> None:
    """Ten pairs of the seed that was tuned on, and ten of another; without the penalty; on grey images."""
    atlas = load_atlas(2)
    pairs, others = hard_pairs(atlas, 10), hard_pairs(atlas, 10, seed=2)
    must = "Dice >= .96, min >= .94, SD(J) < .10, folded 0, L <= .07"
    reference_s = None
    for preset in ("paper", "fast"):
        stages = registration_parameters(2, preset, SEED)
        cpu_s = row(f"2-D {preset}", register_all(pairs, stages), must, reference_s)
        row(f"2-D {preset}, other pairs", register_all(others, stages), must, reference_s)
        reference_s = reference_s or cpu_s
    affine, bspline = registration_parameters(2, "paper", SEED)
    row("2-D paper, weight 0", register_all(pairs, (affine, bspline | {"Metric1Weight": ("0",)})), "folds")
    row("2-D paper, grey images (S2)", register_grey(pairs, (affine, bspline)), "worse: does not find the disc")


def register_grey(pairs: Sequence[DiscPair], stages: Stages) -> list[Alignment]:
    """The same chain driven by grey values, atlas bright in the nucleus as a healthy disc, patients dark and noisy."""
    rng = np.random.default_rng(1)
    found = []
    for one in pairs:
        healthy = np.where(one.atlas.regions == NUCLEUS, 1.0, np.where(one.atlas.mask > 0, 0.4, 0.6))
        patient = np.where(one.mask > 0, 0.35, 0.6) + rng.normal(0, 0.05, one.mask.shape)
        images = (healthy.astype(np.float32), patient.astype(np.float32))
        found.append(register_disc(one.mask, one.affine, one.atlas, stages=stages, images=images))
    return found


def three_dimensions(count: int) -> None:
    """Thin and thick slices."""
    atlas = load_atlas(3)
    must = "Dice >= .97, SD(J) <= .09, folded 0, <= 15 CPU s"
    for slices, slice_mm in ((8, 4.0), (5, 8.0)):
        pairs = hard_pairs(atlas, count, seed=3, slices=slices, slice_mm=slice_mm)
        reference_s = None
        for preset in ("paper", "fast"):
            found = register_all(pairs, registration_parameters(3, preset, SEED))
            name = f"3-D {slices} x {slice_mm:g} mm {preset}"
            cpu_s = row(name, found, must, reference_s)
            reference_s = reference_s or cpu_s


def crashes(count: int, processes: int) -> int:
    """Register many 3-D discs, few iterations each, in warm processes; returns how many did not come back."""
    atlas = load_atlas(3)
    affine, bspline = registration_parameters(3, "fast", SEED)
    stages = (affine, bspline | {"MaximumNumberOfIterations": ("5",)})
    lost = 0
    started_s = time.monotonic()
    with RegistrationPool(processes) as pool:
        for first in range(0, count, 10):
            size = min(10, count - first)
            pairs = [
                hard_pairs(atlas, 1, seed=100 + first + k, slices=3 + (first + k) % 8, slice_mm=(4.0, 8.0)[k % 2])[0]
                for k in range(size)
            ]
            outcomes = pool.outcomes([DiscTask(p.mask, p.affine, (), p.atlas, "crash", SEED, stages) for p in pairs])
            lost += sum(isinstance(one, RegistrationFailed) for one in outcomes)
            print(f"{first + size}/{count} registered, {lost} lost, {time.monotonic() - started_s:.0f} s", flush=True)
    print(f"registrations in 3-D without a crash: {count - lost}/{count}   must: all of 200")
    return lost


def repeat(pair: DiscPair) -> None:
    """The same disc here twice, and in a process of its own."""
    first, again = (register_disc(pair.mask, pair.affine, pair.atlas) for _ in range(2))
    with RegistrationPool(1) as pool:
        (fresh,) = pool.outcomes([DiscTask(pair.mask, pair.affine, (), pair.atlas)])
    if isinstance(fresh, RegistrationFailed):
        raise fresh
    same = all(
        one.transforms == first.transforms and bool((one.jacobian == first.jacobian).all())
        for one in (again, fresh.alignment)
    )
    print(f"the same disc in a warm and in a fresh process: {'identical' if same else 'DIFFERENT'}   must: identical")


def main() -> int:
    """Print the rows; returns 0, or 1 when a registration was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs3d", type=int, default=3, help="discs of each kind in 3-D (default: 3)")
    parser.add_argument("--crashes", type=int, help="only register so many 3-D discs")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.crashes:
        return 1 if crashes(options.crashes, options.processes) else 0
    print(f"loading elastix: {warm_up():.1f} CPU s, once in a process", flush=True)
    two_dimensions()
    repeat(hard_pairs(load_atlas(2), 1)[0])
    three_dimensions(options.pairs3d)
    return 0


if __name__ == "__main__":
    sys.exit(main())
