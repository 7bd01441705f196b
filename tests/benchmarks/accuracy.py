"""How close the pipeline comes to a known truth: simulated MAPSS exams, one line each, then the figures.

Run with ``make bench`` (or ``python -m tests.benchmarks.accuracy --seeds 20``). The seconds depend on the machine, the
figures do not.
"""

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from config.protocol_cards import load_cards
from config.settings import Settings
from dicom_io.headers import read_facts
from dicom_io.series import assemble_exam
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import read_exam
from processing.phantom import simulate_exam
from processing.refusal import UnsuitableInput
from processing.results import LUMBAR_LEVELS, Alignment, ExamResult, Level, Quantity, Region
from service.pipeline import analyse


def measure_one(seed: int, folder: Path) -> tuple[ExamResult, dict[Level, dict[str, float]]]:
    """Analyse the exam of one seed; returns the result and, per level, Dice and errors against the truth."""
    exam = simulate_exam(seed)
    paths = write_exam(exam, folder)
    images = read_exam(assemble_exam([one for path in paths for one in read_facts(path)], load_cards()))
    result = analyse(images, Settings(), datetime(2026, 1, 1, tzinfo=UTC), progress=lambda step, share: None)
    assert result.mask is not None
    rows: dict[Level, dict[str, float]] = {}
    for level in LUMBAR_LEVELS:
        truth, found = exam.labels == level, result.mask.levels == level
        row = {"dice": 2.0 * float((truth & found).sum()) / max(1, int(truth.sum() + found.sum()))}
        for quantity, true_map in ((Quantity.T1RHO, exam.t1rho_ms), (Quantity.T2, exam.t2_ms)):
            fitted = result.maps[quantity].time_ms
            true_mean = float(np.nanmean(true_map[truth]))
            reported = [
                m.mean_ms
                for m in result.measurements
                if (m.level, m.region, m.quantity) == (level, Region.WHOLE_DISC, quantity)
            ]
            row[f"{quantity}_true"] = true_mean
            row[f"{quantity}_reported"] = reported[0] if reported else float("nan")
            row[f"{quantity}_under_true_mask"] = float(np.nanmean(fitted[truth & found]))
        rows[level] = row
    return result, rows


def main() -> int:
    """Print one line per exam and the summary; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1000)
    options = parser.parse_args()
    dice: list[float] = []
    errors: dict[Quantity, list[tuple[float, float]]] = {Quantity.T1RHO: [], Quantity.T2: []}
    all_named = within = 0
    alignments: list[Alignment] = []
    for seed in range(options.first, options.first + options.seeds):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                result, rows = measure_one(seed, Path(folder))
            except UnsuitableInput as refusal:
                print(f"seed {seed}: refused, {refusal}", flush=True)
                continue
        named = all(row["dice"] > 0.5 for row in rows.values())
        all_named += named
        dice += [row["dice"] for row in rows.values()]
        alignments += [disc.alignment for disc in result.registered]
        worst = 0.0
        for row in rows.values():
            for quantity, pairs in errors.items():
                true, reported = row[f"{quantity}_true"], row[f"{quantity}_reported"]
                pairs.append((true, reported))
                worst = max(worst, abs(reported - true) / max(3.0, 0.05 * true))
        within += worst <= 1.0
        found = [row["dice"] for row in rows.values()]
        lowest = min((disc.alignment.dice for disc in result.registered), default=0.0)
        print(
            f"seed {seed}: {result.verdict:12s} discs {sum(one > 0.5 for one in found)}/5"
            f"  Dice {min(found):.3f}..{max(found):.3f}  worst error {worst:.2f} of the limit"
            f"  registration Dice {lowest:.3f}  {time.monotonic() - start:.0f} s"
            f"  {'; '.join(f'{reason.code} {reason.detail}' for reason in result.reasons)}",
            flush=True,
        )
    print(f"\nall five discs found and rightly named: {all_named}/{options.seeds}")
    print(f"native-space Dice: mean {np.mean(dice):.3f}, min {np.min(dice):.3f}")
    for quantity, pairs in errors.items():
        true, reported = np.array(pairs).T
        difference = reported - true
        print(
            f"{quantity}: bias {np.nanmean(difference):+.2f} ms, largest {np.nanmax(np.abs(difference)):.2f} ms,"
            f" r {np.corrcoef(true, reported)[0, 1]:.4f}"
        )
    print(f"exams with every disc mean within 5 % or 3 ms: {within}/{options.seeds}")
    dices = np.array([disc.dice for disc in alignments])
    print(f"registration: {len(alignments)} discs, Dice mean {dices.mean():.3f}, min {dices.min():.3f},", end=" ")
    folded = sum(one.n_folded > 0 for one in alignments)
    cpu_s = np.mean([one.cpu_s for one in alignments])
    print(
        f"SD(J) mean {np.mean([one.sd_jacobian for one in alignments]):.3f}, folded {folded}, {cpu_s:.1f} CPU s a disc"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
