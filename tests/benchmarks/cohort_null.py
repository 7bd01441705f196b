"""How often each control says yes where nothing is there: smooth null maps in the disc of 416 pixels and in 3-D.

Run with ``python -m tests.benchmarks.cohort_null [--fields N] [--permutations N] [--csv FILE]``. 16 subjects, FWHM 2 to
8 voxels, one question for each field: a regression with a covariate. A field counts where any voxel of it survives.
Printed is the share of fields with its exact (Clopper-Pearson) 95 % interval. The program fails where a share of these
is above 0.07, or where .05 is outside the interval of the largest t (95 % for all rows of the table together). Then the
same for groups of other sizes and variances and for skewed errors, and the share of false ones among what the false
discovery rate keeps where half of a disc has an effect.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, stats

from processing.cohort.analysis import MapAnalysis, by_group, by_variable, group_design, over_time
from processing.cohort.design import FloatArray, make_design
from processing.cohort.inference import Control, InferenceRules
from processing.cohort.lattice import BoolArray
from processing.cohort.level_maps import LevelMaps
from processing.results import Level

SUBJECTS, WIDTHS, ALPHA, LIMIT, PADDING = 16, (2.0, 3.0, 4.0, 6.0, 8.0), 0.05, 0.07, 3
FAMILY_WISE = tuple(one for one in Control if one not in (Control.UNCORRECTED, Control.FDR_BH, Control.FDR_BY))


def disc(slices: int = 1) -> BoolArray:
    """An ellipse of 416 pixels, or a flat ellipsoid of so many slices."""
    places = np.indices((slices, 20, 36))
    middle, half = ((slices - 1) / 2, 9.5, 17.5), (slices / 2 + 0.5, 8.0, 16.5)
    inside: BoolArray = sum(((p - m) / h) ** 2 for p, m, h in zip(places, middle, half, strict=True)) <= 1  # type: ignore[assignment]
    return inside


def null_fields(rng: np.random.Generator, mask: BoolArray, fwhm: float, n: int) -> FloatArray:
    """(n, voxels) of unit variance and zero mean, as smooth inside the mask as without an edge."""
    axes = [axis for axis in range(mask.ndim) if mask.shape[axis] > 1]
    pad = math.ceil(PADDING * fwhm / 2)
    sides = [side + 2 * pad if side > 1 else 1 for side in mask.shape]
    sigma = fwhm / math.sqrt(8 * math.log(2))
    noise = ndimage.gaussian_filter1d(rng.standard_normal((n, *sides)), sigma, axis=axes[0] + 1, mode="wrap")
    for axis in axes[1:]:
        noise = ndimage.gaussian_filter1d(noise, sigma, axis=axis + 1, mode="wrap")
    inner = tuple(slice(pad, -pad) if side > 1 else slice(None) for side in mask.shape)
    values: FloatArray = noise[(slice(None), *inner)][:, mask]
    return values / values.std()


def maps_of(values: FloatArray, mask: BoolArray) -> LevelMaps:
    """As the analyses take them."""
    units = tuple(f"S{index}" for index in range(len(values)))
    return LevelMaps(Level.L4L5, "T1rho", mask.astype(np.uint8), (1.0, 1.0, 1.0), values, units)


@dataclass(frozen=True, slots=True)
class Case:
    """Some rows of the table: which question, on what noise. ``is_enhanced``: threshold-free clusters, too."""

    name: str
    slices: int
    fwhm: float
    ask: Callable[[np.random.Generator, BoolArray, float, InferenceRules], MapAnalysis]
    holes: float = 0.0
    is_enhanced: bool = False


def regression(rng: np.random.Generator, mask: BoolArray, fwhm: float, rules: InferenceRules) -> MapAnalysis:
    """A variable beside a covariate."""
    values = null_fields(rng, mask, fwhm, SUBJECTS)
    variable, age = rng.standard_normal((2, SUBJECTS))
    return _asked(maps_of(values, mask), variable, {"age": age}, rules)


def _asked(
    maps: LevelMaps, variable: FloatArray, covariates: dict[str, FloatArray], rules: InferenceRules
) -> MapAnalysis:
    design = make_design(variable.tolist(), {k: v.tolist() for k, v in covariates.items()}, units=maps.units)
    return by_variable(maps, design, rules)


def ranks(rng: np.random.Generator, mask: BoolArray, fwhm: float, rules: InferenceRules) -> MapAnalysis:
    """Spearman's correlation with a skewed variable."""
    maps = maps_of(np.exp(null_fields(rng, mask, fwhm, SUBJECTS)), mask)
    design = make_design(np.exp(rng.standard_normal(SUBJECTS)).tolist(), units=maps.units)
    return by_variable(maps, design, rules, ranks=True)


def skewed(
    rng: np.random.Generator, mask: BoolArray, fwhm: float, rules: InferenceRules, *, variable_too: bool
) -> MapAnalysis:
    """Log-normal errors, and a log-normal variable where ``variable_too``."""
    maps = maps_of(np.exp(null_fields(rng, mask, fwhm, SUBJECTS)), mask)
    variable, age = rng.standard_normal((2, SUBJECTS))
    if variable_too:
        variable, age = np.exp(variable), np.exp(age)
    return _asked(maps, variable, {"age": age}, rules)


def groups(
    rng: np.random.Generator, mask: BoolArray, fwhm: float, rules: InferenceRules, *, spread: float, skew: bool
) -> MapAnalysis:
    """Five against eleven; the small group's spread is ``spread`` times the other's."""
    values = null_fields(rng, mask, fwhm, SUBJECTS)
    if skew:
        values = np.exp(values) - math.exp(0.5)
    small = np.arange(SUBJECTS) < 5
    values[small] *= spread
    maps = maps_of(values, mask)
    return by_group(maps, group_design(small, maps.units, "small"), rules)


def flips(rng: np.random.Generator, mask: BoolArray, fwhm: float, rules: InferenceRules, *, of: str) -> MapAnalysis:
    """A change of mean zero: normal, with ``heavy`` but even tails, or ``skewed`` (log-normal)."""
    before, after = null_fields(rng, mask, fwhm, SUBJECTS), null_fields(rng, mask, fwhm, SUBJECTS)
    if of == "heavy":
        before, after = before**3, after**3
    if of == "skewed":
        before, after = 0 * before + math.exp(0.5), np.exp(after)
    return over_time(maps_of(before, mask), maps_of(after, mask), rules)


CASES = (
    *(Case("regression", 1, fwhm, regression, is_enhanced=fwhm in (2.0, 4.0, 8.0)) for fwhm in WIDTHS),
    *(Case("regression", 5, fwhm, regression, is_enhanced=fwhm == 4.0) for fwhm in (2.0, 4.0, 8.0)),
    Case("holes", 1, 3.0, regression, holes=0.1),
    Case("holes", 1, 8.0, regression, holes=0.1),
    Case("skewed errors", 1, 4.0, partial(skewed, variable_too=False)),
    Case("skewed, variable too", 1, 4.0, partial(skewed, variable_too=True)),
    Case("ranks, skewed", 1, 4.0, ranks),
    Case("groups 5:11", 1, 4.0, partial(groups, spread=1.0, skew=False)),
    Case("groups 5:11, SD 2:1", 1, 4.0, partial(groups, spread=2.0, skew=False)),
    Case("groups 5:11, skewed", 1, 4.0, partial(groups, spread=1.0, skew=True)),
    Case("change", 1, 4.0, partial(flips, of="normal")),
    Case("change, heavy tails", 1, 4.0, partial(flips, of="heavy")),
    Case("change, skewed", 1, 4.0, partial(flips, of="skewed")),
)
#: 5 of 100 is .05 exactly, and enhancement is the costliest.
ENHANCED_PERMUTATIONS = 99


def said_of(case: Case, rules: InferenceRules) -> dict[Control, bool]:
    """Whether each control calls anything significant in the field of the rules' seed."""
    rng = np.random.default_rng([rules.seed, round(10 * case.fwhm), case.slices])
    mask = disc(case.slices)
    if case.holes:
        mask &= rng.random(mask.shape) >= case.holes
    found = case.ask(rng, mask, case.fwhm, rules).inference
    return {control: bool(found.survives(control, ALPHA).any()) for control in found.p}


def yeses(case: Case, n_permutations: int, seed: int) -> dict[Control, bool]:
    """The same, threshold-free clusters with permutations of their own."""
    said = said_of(case, InferenceRules(n_permutations=n_permutations, seed=seed))
    if case.is_enhanced:
        rules = InferenceRules(n_permutations=ENHANCED_PERMUTATIONS, seed=seed, threshold_free=True)
        said[Control.THRESHOLD_FREE] = said_of(case, rules)[Control.THRESHOLD_FREE]
    return said


def interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's."""
    found = stats.binomtest(count, total).proportion_ci(confidence, "exact")
    return float(found.low), float(found.high)


def false_share(seed: int, fwhm: float = 4.0) -> dict[Control, float]:
    """Among the voxels that are kept where a half of the disc has an effect: the share in the other half."""
    rng = np.random.default_rng([seed, 99])
    mask = disc()
    values = null_fields(rng, mask, fwhm, 30)
    variable = rng.standard_normal(30)
    true = np.argwhere(mask)[:, 2] < 14
    values[:, true] += variable[:, None]
    found = _asked(maps_of(values, mask), variable, {}, InferenceRules(n_permutations=0)).inference
    shares = {}
    for control in (Control.FDR_BH, Control.FDR_BY):
        kept = found.survives(control, ALPHA)
        shares[control] = float((kept & ~true).sum() / max(kept.sum(), 1))
    return shares


def rows_of(cases: tuple[Case, ...], fields: int, permutations: int, workers: int) -> Iterator[dict[str, Any]]:
    """A row for each case and control."""
    with ProcessPoolExecutor(workers) as pool:
        for case in cases:
            start = time.perf_counter()
            one = partial(yeses, case, permutations)
            counts: dict[Control, int] = {}
            for said in pool.map(one, range(1, fields + 1), chunksize=5):
                for control, yes in said.items():
                    counts[control] = counts.get(control, 0) + yes
            spent_s = time.perf_counter() - start
            for control, count in counts.items():
                low, high = interval(count, fields)
                yield {
                    "case": case.name,
                    "voxels": int(disc(case.slices).sum()),
                    "dimension": 2 if case.slices == 1 else 3,
                    "fwhm": case.fwhm,
                    "control": control.value,
                    "fields": fields,
                    "share": count / fields,
                    "low": low,
                    "high": high,
                    "seconds": round(spent_s, 1),
                }


def is_kept(row: dict[str, Any]) -> bool:
    """Whether a row of the regressions keeps its limit; the rows below them stand for themselves."""
    control = Control(row["control"])
    if control not in FAMILY_WISE or row["case"] != "regression":
        return True
    if control is Control.MAX_T:
        of_regressions = sum(case.name == "regression" for case in CASES)
        low, high = interval(round(row["share"] * row["fields"]), row["fields"], 1 - ALPHA / of_regressions)
        return low <= ALPHA <= high
    return bool(row["share"] <= LIMIT)


def main() -> int:
    """Print the table; returns 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=600)
    parser.add_argument("--permutations", type=int, default=499)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    cases = tuple(case for case in CASES if case.name.startswith(options.only))
    rows, broken = [], []
    print(f"{'case':22} {'voxels':>6} {'FWHM':>4} {'control':22} share (95 % interval)")
    for row in rows_of(cases, options.fields, options.permutations, options.workers):
        rows.append(row)
        said = "" if is_kept(row) else "  TOO MANY" if row["share"] > ALPHA else "  TOO FEW"
        if said:
            broken.append(row)
        numbers = f"{row['share']:.3f} ({row['low']:.3f}, {row['high']:.3f})"
        where = f"{row['case']:22} {row['voxels']:6} {row['fwhm']:4.0f}"
        print(f"{where} {row['control']:22} {numbers}{said}", flush=True)
    shares = [false_share(seed) for seed in range(options.fields)]
    for control in (Control.FDR_BH, Control.FDR_BY):
        mean = float(np.mean([one[control] for one in shares]))
        print(f"false discovery rate, half of a disc has an effect: {control.value} {mean:.4f}", flush=True)
        if mean > ALPHA:
            broken.append({"control": control.value, "share": mean})
    if options.csv and rows:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(f"{len(broken)} rows above their limit")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
