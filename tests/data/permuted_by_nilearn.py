"""Made with nilearn 0.14.1 (numpy of its environment): python permuted_by_nilearn.py > permuted_by_nilearn.json

Family-wise P values of nilearn.mass_univariate.permuted_ols, 20,000 permutations, for data of this file: 24 subjects,
40 voxels on a line, a variable, with and without two covariates. nilearn regresses the covariates out of maps and
variable and permutes what is left (Freedman & Lane's residuals); -log10 P is what it returns.
"""

import json
import sys

import numpy as np
from nilearn.mass_univariate import permuted_ols

rng = np.random.default_rng(20)
n, voxels = 24, 40
covariates = rng.standard_normal((n, 2))
variable = rng.standard_normal(n) + 0.6 * covariates[:, 0]
noise = rng.standard_normal((n, voxels + 4))
maps = sum(noise[:, k : voxels + k] for k in range(5)) / np.sqrt(5)
maps += np.linspace(0, 0.9, voxels) * variable[:, None] + 0.5 * covariates[:, :1]
held = {
    "variable": variable.round(6).tolist(),
    "covariates": covariates.round(6).tolist(),
    "maps": maps.round(6).tolist(),
}
variable, covariates, maps = (np.array(held[name]) for name in ("variable", "covariates", "maps"))
for name, given in (("alone", None), ("adjusted", covariates)):
    found = permuted_ols(
        variable[:, None],
        maps,
        confounding_vars=given,
        model_intercept=True,
        two_sided_test=True,
        n_perm=20_000,
        random_state=1,
        n_jobs=1,
        verbose=0,
        output_type="dict",
    )
    held[name] = {
        "t": found["t"][0].tolist(),
        "p": (10.0 ** -found["logp_max_t"][0]).tolist(),
        "largest": sorted(found["h0_max_t"].ravel().tolist())[::200],
    }
json.dump(held, sys.stdout)
