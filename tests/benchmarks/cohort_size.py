"""A large cohort whole: 200 subjects, 5 discs, 2 maps, 2 visits, all four analyses, 5,000 permutations each.

Run with ``python -m tests.benchmarks.cohort_size [--subjects N] [--permutations N]``. The maps are smooth noise on the
discs of the 3-D atlas; the plan is run as ``discnode cohort run`` does, with everything that is found kept. Each number
of permutations has a process of its own; printed are wall and CPU seconds and the largest memory. It fails above 15
minutes or 8 GB, or where memory grows with the number of permutations by more than 5 %.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from config.cohort_plans import CohortPlan
from processing.atlas import load_atlas
from processing.cohort.level_maps import LevelMaps
from processing.results import Quantity
from service.cohort.maps import CohortMaps, key_of
from service.cohort.run import run_plan
from service.cohort.table import CohortTable, Scan

LIMIT_S, LIMIT_GB, GROWTH = 15 * 60.0, 8.0, 1.05
ANALYSES = (
    {"kind": "variable", "name": "odi", "variable": "odi", "covariates": ["age", "bmi"], "visit": "BL"},
    {"kind": "group", "name": "severe", "column": "odi", "above": 40, "visit": "BL"},
    {"kind": "between", "name": "t1rho-t2", "visit": "BL"},
    {"kind": "time", "name": "change", "baseline": "BL", "later": "M12"},
)


def cohort(subjects: int, seed: int = 1) -> tuple[CohortTable, CohortMaps]:
    """Scans of two visits and their maps: smooth noise of 8 ms, and what a subject's discs have in common."""
    rng = np.random.default_rng(seed)
    scans = []
    for index in range(subjects):
        values = {
            "odi": f"{rng.uniform(0, 80):.1f}",
            "age": f"{rng.uniform(20, 70):.1f}",
            "bmi": f"{rng.normal(26, 4):.1f}",
        }
        scans += [Scan(0, f"S{index:03d}", visit, Path(f"S{index:03d}-{visit}"), values) for visit in ("BL", "M12")]
    keys = tuple(key_of(one) for one in scans)
    maps = {}
    for level, disc in load_atlas(3).items():
        mask = disc.regions > 0
        for quantity, mean in ((Quantity.T1RHO, 80.0), (Quantity.T2, 60.0)):
            values = np.empty((len(keys), int(mask.sum())))
            for row in values:
                noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), (0.6, 1.3, 1.3))[mask]
                row[:] = mean + 8 * noise / noise.std() + rng.normal(0, 5)
            maps[level, quantity] = LevelMaps(level, quantity.value, disc.regions, (2.0, 0.78, 0.78), values, keys)
    return CohortTable(tuple(scans), ("odi", "age", "bmi")), CohortMaps(maps, (), {})


def plan_of(permutations: int) -> CohortPlan:
    """All four analyses at all levels."""
    content = {"name": "size", "table": "none.csv", "analyses": ANALYSES, "inference": {"permutations": permutations}}
    return CohortPlan.model_validate(content)


def measure(subjects: int, permutations: int) -> None:
    """In this process; one line of JSON."""
    table, maps = cohort(subjects)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    spent: dict[str, float] = {}
    findings, last_s = [], time.process_time()
    for one in run_plan(plan_of(permutations), table, maps):
        findings.append(one)
        now_s = time.process_time()
        spent[one.name] = spent.get(one.name, 0.0) + now_s - last_s
        last_s = now_s
    told = {
        "findings": len(findings),
        "wall_s": time.perf_counter() - start_s,
        "cpu_s": time.process_time() - start_cpu_s,
        "maps_gb": before_kb / 1024**2,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
        "cpu_s_of": spent,
    }
    print(json.dumps(told))


def main() -> int:
    """Print the figures; returns 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--here", action="store_true", help="measure one number of permutations in this process")
    options = parser.parse_args()
    if options.here:
        measure(options.subjects, options.permutations)
        return 0
    found = []
    for permutations in (options.permutations // 10, options.permutations):
        command = [sys.executable, "-m", "tests.benchmarks.cohort_size", "--here"]
        command += ["--subjects", str(options.subjects), "--permutations", str(permutations)]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        told = json.loads(made.stdout)
        found.append(told)
        by_kind = ", ".join(f"{name} {seconds:.0f}" for name, seconds in told["cpu_s_of"].items())
        print(
            f"{options.subjects} subjects, {permutations:,} permutations: {told['findings']} analyses,"
            f" {told['wall_s']:.0f} s wall, {told['cpu_s']:.0f} CPU s ({by_kind}), {told['peak_gb']:.2f} GB at most,"
            f" {told['maps_gb']:.2f} GB of it before the analyses",
            flush=True,
        )
    few, many = found
    is_kept = many["wall_s"] <= LIMIT_S and many["peak_gb"] <= LIMIT_GB and many["peak_gb"] <= GROWTH * few["peak_gb"]
    print(
        f"limits: {LIMIT_S:.0f} s, {LIMIT_GB:.0f} GB, no growth with permutations: {'kept' if is_kept else 'NOT KEPT'}"
    )
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
