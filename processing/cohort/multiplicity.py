"""Many voxels, one question: which P values survive. Voxels without a value are no tests and are left out."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from statsmodels.stats.multitest import multipletests

from processing.cohort.design import FloatArray

Method = Literal["bonferroni", "holm", "fdr_bh", "fdr_by"]


def adjusted(p: FloatArray, method: Method) -> FloatArray:
    """Adjusted P values (any shape), NaN where ``p`` is: Bonferroni, Holm, Benjamini-Hochberg, Benjamini-Yekutieli."""
    out = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        out[known] = multipletests(p[known], method=method)[1]
    return out


def survives(p: FloatArray, method: Method, alpha: float = 0.05) -> npt.NDArray[np.bool_]:
    """Where the adjusted P value is at most ``alpha``."""
    with np.errstate(invalid="ignore"):
        kept: npt.NDArray[np.bool_] = adjusted(p, method) <= alpha
    return kept
