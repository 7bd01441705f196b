"""How well the shape of the discs tells one person's exam from another's: sensitivity and false alarms.

``python -m tests.benchmarks.spine_shape``. Simulated subjects, two visits each with another position, slices and
noise; the masks are disturbed as networks err (every outline moved by about half a voxel and made uneven), the discs of
the second visit are lower as in the evening, and one of them is changed as by a treatment. Every pair of two subjects
is a swap that must be seen. Fails where fewer than 90 % of swaps are asked about, or more than 1 % of true pairs.
"""

import argparse
import itertools
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.phantom import simulate_exam
from processing.results import Level
from processing.spine_shape import (
    MOST_DISTANCE,
    disc_shapes,
    shape_distance,
    shape_entry,
    shifted_levels,
)

_EVENING, _TREATED = 0.92, 1.15
Shapes = dict[str, dict[str, Any]]


def disturbed(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The same discs, each slice's outline moved in or out by about half a pixel and uneven by another 0.7."""
    out = np.zeros_like(labels)
    for level in np.unique(labels)[1:]:
        for index, inside in enumerate(labels == level):
            if inside.any():
                depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
                noise = ndimage.gaussian_filter(rng.standard_normal(inside.shape), 4)
                out[index][depth + rng.normal(0, 0.5) + 0.7 * noise / noise.std() > 0] = level
    return out


def visit(subject: str, number: int, n_slices: int, rng: np.random.Generator) -> Shapes:
    """The shape of a subject's discs at a visit, as result.json has it."""
    exam = simulate_exam(11, n_slices=n_slices, subject=subject, visit=number, snr=float("inf"), matrix=192)
    found = disc_shapes(disturbed(exam.labels, rng), exam.affine)
    return {level.name: {"shape": shape_entry(shape)} for level, shape in found.items()}


def in_the_evening(shapes: Shapes, treated: int) -> Shapes:
    """Lower discs, and one that a treatment has made higher."""
    changed = {}
    for index, (name, one) in enumerate(shapes.items()):
        factor = _EVENING * (_TREATED if index == treated else 1.0)
        changed[name] = {"shape": {**one["shape"], "height_mm": one["shape"]["height_mm"] * factor}}
    return changed


def renamed(shapes: Shapes) -> Shapes:
    """Every disc named one level too high."""
    return {Level(Level[name].value + 1).name: one for name, one in shapes.items() if Level[name].value < len(Level)}


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--subjects", type=int, default=30)
    n = parser.parse_args().subjects
    rng = np.random.default_rng(0)
    first = [visit(f"S{index}", 1, 5, rng) for index in range(n)]
    second = [in_the_evening(visit(f"S{index}", 2, 4, rng), index % 5) for index in range(n)]

    def distances(pairs: list[tuple[Shapes, Shapes]]) -> npt.NDArray[np.float64]:
        return np.array([value for pair in pairs if (value := shape_distance(*pair)) is not None])

    own = distances(list(zip(first, second, strict=True)))
    other = distances([(first[i], second[k]) for i, k in itertools.permutations(range(n), 2)])
    seen, alarms = float((other > MOST_DISTANCE).mean()), float((own > MOST_DISTANCE).mean())
    shifts = np.mean([shifted_levels(one, renamed(two)) == 1 for one, two in zip(first, second, strict=True)])
    false_shifts = np.mean([shifted_levels(one, two) != 0 for one, two in zip(first, second, strict=True)])
    sys.stdout.write(
        f"{n} simulated subjects, two visits; asked about above a distance of {MOST_DISTANCE}\n"
        f"  own visits       distance {np.median(own):.2f} (largest {own.max():.2f}), false alarms {alarms:.1%}\n"
        f"  another person's distance {np.median(other):.2f} (5 % below {np.percentile(other, 5):.2f}),"
        f" asked about {seen:.1%} of {len(other)}\n"
        f"  names one level too high: seen {shifts:.1%}; said of names that are right {false_shifts:.1%}\n"
    )
    return 0 if seen >= 0.9 and alarms <= 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
