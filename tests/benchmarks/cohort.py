"""Permutations of a cohort's maps beside nilearn's, in one run: 20,000 voxels, 40 subjects, three covariates.

Run with ``python -m tests.benchmarks.cohort``. nilearn is no dependency: without it our own seconds alone are printed.
Medians of alternating rounds; one thread each (OMP_NUM_THREADS=1).
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from processing.cohort.design import make_design
from processing.cohort.permutation import Permuting, permute_association

SUBJECTS, VOXELS, COVARIATES, ROUNDS, COMPARED = 40, 20_000, 3, 3, 1_000
LIMIT_S = 60.0


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def main() -> int:
    """Print the figures; returns 1 where the limit is not kept."""
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((SUBJECTS, VOXELS))
    variable, covariates = rng.standard_normal(SUBJECTS), rng.standard_normal((SUBJECTS, COVARIATES))
    design = make_design(variable.tolist(), {f"c{i}": covariates[:, i].tolist() for i in range(COVARIATES)})
    whole_s = cpu_seconds(lambda: permute_association(maps, design, Permuting(10_000, 1)))
    print(f"10,000 permutations: {whole_s:.1f} CPU s (limit {LIMIT_S:.0f})")
    if importlib.util.find_spec("nilearn") is not None:
        from nilearn.mass_univariate import permuted_ols

        def theirs() -> object:
            given = {"confounding_vars": covariates, "model_intercept": True, "two_sided_test": True}
            return permuted_ols(variable[:, None], maps, n_perm=COMPARED, random_state=1, n_jobs=1, verbose=0, **given)

        ours_s, theirs_s = [], []
        for _ in range(ROUNDS):
            ours_s.append(cpu_seconds(lambda: permute_association(maps, design, Permuting(COMPARED, 1))))
            theirs_s.append(cpu_seconds(theirs))
        ours, other = statistics.median(ours_s), statistics.median(theirs_s)
        print(f"{COMPARED:,}: {ours:.2f} CPU s, nilearn {other:.2f}: {other / ours:.1f} times as fast")
    return 0 if whole_s <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
