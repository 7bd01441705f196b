"""More than two visits: the course of each subject in one number, so that subjects stay the independent units.

A slope for each subject and voxel, then the usual one-sample, regression or group question of the slopes: the summary
measures of Matthews, Altman, Campbell & Royston (BMJ 1990;300:230). Subjects are not weighted by how often they came.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from processing.cohort.design import DesignError
from processing.cohort.level_maps import LevelMaps


def subject_slopes(maps: LevelMaps, subjects: Sequence[str], times: Sequence[float], per: str) -> LevelMaps:
    """Least-squares slope of each subject's scans, ms for each unit of time; NaN where fewer than two have a value.

    Args:
        maps: a row for each scan.
        subjects: whose scan a row is; the rows of the result are in the order of their first appearance.
        times: when it was.
        per: the unit of time, for titles.

    Raises:
        DesignError: a subject has no two scans at different times.
    """
    when = np.asarray(times, np.float64)
    units = tuple(dict.fromkeys(subjects))
    slopes = np.empty((len(units), maps.values.shape[1]))
    for place, unit in enumerate(units):
        rows = [index for index, subject in enumerate(subjects) if subject == unit]
        if len(set(when[rows])) < 2:
            raise DesignError(f"{unit}: has no two scans at different times")
        values = maps.values[rows]
        known = np.isfinite(values)
        t = np.where(known, when[rows][:, None], np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            n = known.sum(axis=0)
            off = np.where(known, t - np.nansum(t, axis=0) / n, 0.0)
            spread = (off**2).sum(axis=0)
            slope = (off * np.where(known, values, 0.0)).sum(axis=0) / spread
        slopes[place] = np.where((n >= 2) & (spread > 0), slope, np.nan)
    return replace(maps, quantity=f"{maps.quantity} slope per {per}", values=slopes, units=units)
