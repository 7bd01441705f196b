"""What in the values themselves makes P values too small: told beside every analysis, in words."""

import numpy as np
from scipy import stats

from processing.cohort.design import FloatArray

#: Ratio of SDs from which groups are told to differ: of 100 null fields of 5 and 11 subjects, the few with twice the SD
#: of the many, the largest Welch t was called significant in 31, a pooled one in 45.
_OTHER_SPREAD = 1.5

#: Skewness from which changes are told to be skewed: of 600 null fields of 16 log-normal changes 94 % had something.
_SKEWED = 1.0


def spread_notes(sds: FloatArray) -> list[str]:
    """Groups whose spread differs are not exchangeable, even if their means are the same; ``sds`` (2, voxels)."""
    if not sds.size:
        return []
    first, second = (float(np.median(one)) for one in sds)
    if max(first, second) <= _OTHER_SPREAD * min(first, second):
        return []
    return [f"the groups differ in spread (median SD {first:.3g} and {second:.3g}): permutation P may be too small"]


def skew_notes(complete: FloatArray) -> list[str]:
    """Of changes, (subjects, voxels): signs are exchangeable only where they are as often above as below their mean."""
    if complete.shape[0] < 5 or not complete.shape[1]:
        return []
    skewness = float(np.median(stats.skew(complete, axis=0)))
    if abs(skewness) <= _SKEWED:
        return []
    return [f"changes are skewed (median skewness {skewness:.2g}): no P of a mean change can be trusted"]
