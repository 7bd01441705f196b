"""From a map of t to what can be said of it: every kind of family-wise and false-discovery control side by side.

The family is the voxels of one disc that all subjects have; other voxels keep their uncorrected numbers, and are said
not to be in the family.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from processing.cohort.design import FloatArray
from processing.cohort.lattice import BoolArray, Cluster, clusters_above
from processing.cohort.multiplicity import adjusted
from processing.cohort.permutation import PermutationResult, height_of
from processing.cohort.random_fields import Smoothness, cluster_p, peak_p, peak_threshold, smoothness


class Control(StrEnum):
    """How many voxels at once are allowed for."""

    UNCORRECTED = "uncorrected"
    BONFERRONI = "bonferroni"
    FDR_BH = "fdr_bh"
    FDR_BY = "fdr_by"
    RANDOM_FIELD = "random_field"  # the smaller of random field theory and Bonferroni, two-sided
    RANDOM_FIELD_CLUSTER = "random_field_cluster"
    MAX_T = "max_t"
    CLUSTER_SIZE = "cluster_size"
    CLUSTER_MASS = "cluster_mass"
    THRESHOLD_FREE = "threshold_free"


#: In words, for tables and figures.
CONTROL_NAMES = {
    Control.UNCORRECTED: "uncorrected",
    Control.BONFERRONI: "Bonferroni",
    Control.FDR_BH: "false discovery rate (Benjamini–Hochberg)",
    Control.FDR_BY: "false discovery rate (Benjamini–Yekutieli)",
    Control.RANDOM_FIELD: "random field theory, peaks",
    Control.RANDOM_FIELD_CLUSTER: "random field theory, clusters",
    Control.MAX_T: "permutation, largest t",
    Control.CLUSTER_SIZE: "permutation, cluster size",
    Control.CLUSTER_MASS: "permutation, cluster mass",
    Control.THRESHOLD_FREE: "permutation, threshold-free clusters",
}


@dataclass(frozen=True, slots=True)
class InferenceRules:
    """What is asked of each map. ``forming_p``: two-sided P of a voxel from which clusters form."""

    alpha: float = 0.05
    forming_p: float = 0.001
    n_permutations: int = 5000
    seed: int = 1
    threshold_free: bool = False
    random_fields: bool = True


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster of one sign, for a table. ``peak_index``: (slice, row, column) of the level's grid."""

    sign: int
    size: int
    mass: float
    peak_t: float
    peak_index: tuple[int, ...]
    p: dict[Control, float]


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """P values of a map by each control, (voxels,), 1 or NaN where nothing can be said.

    ``in_family`` (voxels,): the voxels that were tested together. ``smoothness``: of the residuals; None where they are
    too few or too rough to tell. ``notes``: what a reader must know.
    """

    p: dict[Control, FloatArray]
    in_family: BoolArray
    clusters: tuple[ClusterRow, ...]
    smoothness: Smoothness | None
    smallest_p: float | None
    notes: tuple[str, ...] = ()
    thresholds: dict[Control, float] = field(
        default_factory=dict
    )  # |t| from which a voxel survives, where there is one

    def survives(self, control: Control, alpha: float = 0.05) -> BoolArray:
        """Where the P value of a control is at most ``alpha``."""
        with np.errstate(invalid="ignore"):
            kept: BoolArray = self.p[control] <= alpha
        return kept


Permute = Callable[[BoolArray, float], PermutationResult]


def infer(
    t: FloatArray,
    p: FloatArray,
    df: float,
    residuals: FloatArray | None,
    in_family: npt.NDArray[np.bool_],
    mask: BoolArray,
    rules: InferenceRules,
    permute: Permute | None,
) -> Inference:
    """All controls of one map.

    Args:
        t, p: of each voxel in ``mask``, NaN where there is none.
        df: of ``t`` of the voxels in the family, the same for all.
        residuals: (scans, voxels in the family) of the model; None where there are none to tell smoothness by.
        in_family: (voxels,): those that all subjects have.
        mask: of the level's grid.
        rules: what is asked.
        permute: (mask of the family on the grid, cluster-forming |t|) -> permutation P values of the family's voxels.
    """
    family = np.zeros(mask.shape, dtype=bool)
    family[mask] = in_family
    inside = np.where(in_family, p, np.nan)
    controls = {Control.UNCORRECTED: p}
    for control, method in ((Control.BONFERRONI, "bonferroni"), (Control.FDR_BH, "fdr_bh"), (Control.FDR_BY, "fdr_by")):
        controls[control] = adjusted(inside, method)  # type: ignore[arg-type]
    forming = float(stats.t.isf(rules.forming_p / 2, df)) if df > 0 else np.inf
    notes, thresholds = [], {}
    n = int(in_family.sum())
    if n:
        thresholds[Control.BONFERRONI] = float(stats.t.isf(rules.alpha / 2 / n, df))
    field_of, why = _smoothness(residuals, family, df) if rules.random_fields and n else (None, "")
    if why:
        notes.append(why)
    values = np.where(in_family, t, np.nan)
    found = [(sign, one) for sign in (1, -1) for one in clusters_above(sign * values, mask, forming)]
    if field_of is not None:
        controls[Control.RANDOM_FIELD] = np.minimum(1.0, 2 * peak_p(np.abs(values), field_of, df))
        thresholds[Control.RANDOM_FIELD] = peak_threshold(rules.alpha / 2, field_of, df)
        controls[Control.RANDOM_FIELD_CLUSTER] = _of_clusters(
            found,
            len(t),
            lambda one: float(min(1.0, 2 * cluster_p(np.array([one.size]), forming, field_of, df)[0])),
            in_family,
        )
    smallest = None
    if permute is not None and n:
        result = permute(family, forming)
        smallest = result.smallest_p
        notes.extend(_told(result, rules.alpha))
        thresholds[Control.MAX_T] = height_of(rules.alpha, result.largest)
        for control, values_of in (
            (Control.MAX_T, result.p),
            (Control.CLUSTER_SIZE, result.size_p),
            (Control.CLUSTER_MASS, result.mass_p),
            (Control.THRESHOLD_FREE, result.enhanced_p),
        ):
            if values_of is not None:
                controls[control] = np.full(len(t), np.nan)
                controls[control][in_family] = values_of
    rows = tuple(_row(sign, one, controls, mask) for sign, one in found)
    outside = int(np.isfinite(p).sum()) - n
    if outside:
        notes.append(f"{outside} voxels that not all subjects have are shown uncorrected and are in no correction")
    return Inference(controls, in_family, rows, field_of, smallest, tuple(notes), thresholds)


def _told(result: PermutationResult, alpha: float) -> list[str]:
    told = []
    if result.is_exact:
        made = result.n_permutations + 1
        told.append(f"only {made} permutations differ: all were made, the smallest P is {result.smallest_p:.3g}")
    if result.smallest_p > alpha:
        told.append(f"no permutation P can be as small as {alpha:g}")
    return told


def _smoothness(residuals: FloatArray | None, family: BoolArray, df: float) -> tuple[Smoothness | None, str]:
    if residuals is None or not residuals.shape[1]:
        return None, ""
    try:
        found = smoothness(residuals, family)
    except ValueError as error:
        return None, f"no random field theory: {error}"
    if df <= found.dimension:
        return None, f"no random field theory: {df:g} degrees of freedom are too few in {found.dimension} dimensions"
    return found, ""


def _of_clusters(
    found: list[tuple[int, Cluster]], n_voxels: int, p_of: Callable[[Cluster], float], in_family: BoolArray
) -> FloatArray:
    p = np.where(in_family, 1.0, np.nan)
    for _, cluster in found:
        p[cluster.voxels] = p_of(cluster)
    return p


_OF_CLUSTERS = (Control.RANDOM_FIELD_CLUSTER, Control.CLUSTER_SIZE, Control.CLUSTER_MASS)
_OF_PEAKS = (Control.RANDOM_FIELD, Control.MAX_T, Control.THRESHOLD_FREE)


def _row(sign: int, cluster: Cluster, controls: dict[Control, FloatArray], mask: BoolArray) -> ClusterRow:
    places = np.argwhere(mask)
    p = {one: float(controls[one][cluster.peak_voxel]) for one in _OF_CLUSTERS if one in controls}
    p |= {one: float(np.nanmin(controls[one][cluster.voxels])) for one in _OF_PEAKS if one in controls}
    return ClusterRow(
        sign=sign,
        size=cluster.size,
        mass=cluster.mass,
        peak_t=sign * cluster.peak,
        peak_index=tuple(int(one) for one in places[cluster.peak_voxel]),
        p=p,
    )
