"""Are discs named rightly, and is what is no lumbar spine refused? One table over many kinds of pictures.

``python -m tests.benchmarks.naming --data ../shared/data/spider_t2space --model cfcm-lumbar --weights FOLDER``. Each
real patient is judged by the members that were not trained on it, where ``--folds`` tells which these are. Cases follow
from ``--first``; the limits in the code were set on seeds below 1000.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.inference import OnnxModel
from models.registry import load_model
from models.training.folds import read_folds
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import LUMBAR_LEVELS, DiscMask, ImageVolume
from processing.segmentation import find_discs
from tests.benchmarks.naming_cases import UNNAMEABLE, Case, other_pictures, phantoms, real_spines, spoiled

_MIN_VOXELS = 60  # of a true disc in the picture; less cannot be asked for


@dataclass(slots=True)
class Tally:
    """What became of the cases of one family."""

    cases: int = 0
    named: int = 0
    reviewed: int = 0  # named, with a doubt about the names
    refused: Counter[str] = field(default_factory=Counter)
    discs: int = 0
    wrong: int = 0
    wrong_cases: int = 0
    missed: int = 0  # discs in view that got no name although others did


def affine_of(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A sagittal affine of canonical order with a spacing."""
    slice_mm, row_mm, column_mm = spacing_mm
    return np.array([[-slice_mm, 0, 0, 0], [0, 0, column_mm, 0], [0, -row_mm, 0, 0], [0, 0, 0, 1]], dtype=float)


def judge(case: Case, mask: DiscMask, tally: Tally) -> str:
    """Compare the names with the truth; returns the wrong ones in words."""
    tally.named += 1
    tally.reviewed += any(reason.code is ReasonCode.LEVELS_AMBIGUOUS for reason in mask.reasons)
    if case.levels is None or case.subject in UNNAMEABLE:
        return ""
    faults = []
    for level in LUMBAR_LEVELS:
        ours, true = mask.levels == level, case.levels == level
        if not ours.any():
            tally.missed += int(true.sum() >= _MIN_VOXELS)
            continue
        tally.discs += 1
        counts = np.bincount(case.levels[ours], minlength=len(LUMBAR_LEVELS) + 1)
        likeliest = int(counts[1:].argmax()) + 1
        if counts[likeliest] < 0.1 * ours.sum() or likeliest != level:
            tally.wrong += 1
            faults.append(f"{level.name} is {f'the disc {likeliest}' if counts[likeliest] else 'no disc'}")
    tally.wrong_cases += bool(faults)
    return ", ".join(faults)


def all_cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every picture, the spoiled ones right after the one they are made from."""
    yield from other_pictures(options.first, options.others)
    for case in phantoms(options.first, options.phantoms):
        yield case
        if case.family == "phantom, full view" and int(case.name.split()[1]) < options.first + options.spoiled:
            yield from spoiled(case, options.first)
    if options.data is None:
        return
    made = 0
    for case in real_spines(options.data, options.first):
        yield case
        if case.family == "real, full view" and case.subject not in UNNAMEABLE:
            made += 1
            if made % 3 == options.first % 3:
                yield from spoiled(case, options.first)


def main() -> int:
    """Print each fault as it comes, then the table and the figures; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cfcm-lumbar")
    parser.add_argument("--weights", type=Path, help="folder of networks; default: the packaged one")
    parser.add_argument("--data", type=Path, help="folder of annotated real spines (NIfTI pairs)")
    parser.add_argument("--folds", type=Path, help="folds.json: member k was not trained on the k-th group")
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    parser.add_argument("--phantoms", type=int, default=20, help="simulated subjects of each kind")
    parser.add_argument("--others", type=int, default=8, help="pictures of each kind that shows no spine")
    parser.add_argument("--spoiled", type=int, default=5, help="simulated subjects that are turned, halved, ...")
    options = parser.parse_args()
    record = load_model(options.model, options.weights)
    whole = OnnxModel(record, device="cpu")
    fold_of: dict[str, OnnxModel] = {}
    if options.folds is not None:
        for index, group in enumerate(read_folds(options.folds)):
            member = OnnxModel(record.only(index), device="cpu")
            fold_of |= dict.fromkeys(group, member)
    tallies: dict[str, Tally] = defaultdict(Tally)
    expected: dict[str, str] = {}
    start = time.process_time()
    for case in all_cases(options):
        tally = tallies[case.family]
        tally.cases += 1
        if case.subject not in UNNAMEABLE:
            expected[case.family] = case.expected
        model = fold_of.get(case.subject or "", whole)
        try:
            mask = find_discs(ImageVolume(case.image, affine_of(case.spacing_mm)), model)
        except UnsuitableInput as refusal:
            tally.refused[refusal.reason.code.value] += 1
            if case.expected == "named":
                print(f"refused: {case.family}, {case.name}: {refusal.reason.detail}", flush=True)
            continue
        faults = judge(case, mask, tally)
        if faults or case.expected in ("ambiguous", "refused"):
            print(f"named: {case.family}, {case.name}: {faults or 'should not be'}", flush=True)
    _print_table(tallies, expected)
    print(f"{time.process_time() - start:.0f} CPU s")
    return 0


def _print_table(tallies: dict[str, Tally], expected: dict[str, str]) -> None:
    print(f"\n{'pictures':36s} {'n':>4s} named review ambiguous uncertain | {'discs':>5s} wrong missed")
    for family, one in sorted(tallies.items()):
        ambiguous, uncertain = (one.refused[code] for code in ("LEVELS_AMBIGUOUS", "SEGMENTATION_UNCERTAIN"))
        print(
            f"{family:36s} {one.cases:4d} {one.named:5d} {one.reviewed:6d} {ambiguous:9d} {uncertain:9d} |"
            f" {one.discs:5d} {one.wrong:5d} {one.missed:6d}"
        )
    for title, wanted in (
        ("full view", "named"),
        ("unusual spines and cut discs", "careful"),
        ("L5S1 out of view", "ambiguous"),
        ("no lumbar spine", "refused"),
    ):
        chosen = [tally for family, tally in tallies.items() if expected.get(family) == wanted]
        cases, named, discs = (sum(getattr(one, name) for one in chosen) for name in ("cases", "named", "discs"))
        wrong, wrong_cases = sum(one.wrong for one in chosen), sum(one.wrong_cases for one in chosen)
        if cases:
            print(
                f"{title}: {cases} pictures, {1 - named / cases:.1%} refused, wrong names {wrong}/{discs} discs in"
                f" {wrong_cases} pictures ({wrong_cases / cases:.1%})"
            )


if __name__ == "__main__":
    sys.exit(main())
