"""The other order of the last two steps, for comparison: fit in the patient, then deform the map.

The paper deforms the echoes and fits them, and so does discnode. Interpolation then mixes signals, and the fit sees the
mixture; in the other order it mixes relaxation times, in which a dark voxel counts as much as a bright one. The two
differ where neighbours differ: at the edge of the disc and of the nucleus.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from processing.fitting import PLAIN, FitRules, FitStatus, relaxation_map
from processing.registration import DiscTask, RegisteredSignal, deform, fit_registered
from processing.results import FloatArray, Quantity


@dataclass(frozen=True, slots=True, eq=False)
class OrderComparison:
    """One quantity of one disc in both orders, on the atlas grid (slices, rows, columns), ms; NaN where not fitted.

    ``edge_ms``, ``inner_ms``: mean absolute difference in the outermost layer of the atlas disc's voxels (in the plane)
    and in all others.
    """

    deformed_then_fitted_ms: FloatArray
    fitted_then_deformed_ms: FloatArray
    edge_ms: float
    inner_ms: float


def compare_orders(
    task: DiscTask, signal: RegisteredSignal, rules: Mapping[Quantity, FitRules] | None = None
) -> dict[Quantity, OrderComparison]:
    """Both orders for each quantity of a disc: ``signal`` is ``task`` aligned (:func:`registration.align_disc`)."""
    disc = signal.atlas.mask > 0
    plane = ndimage.generate_binary_structure(3, 1)
    plane[[0, 2]] = False
    edge = disc & ~ndimage.binary_erosion(disc, plane)
    ours = fit_registered(signal, rules).maps
    compared = {}
    for stack in task.stacks:
        native = relaxation_map(stack, np.ones(task.mask.shape, dtype=bool), (rules or {}).get(stack.role, PLAIN))
        fitted = native.status == FitStatus.FITTED
        time_ms = np.where(fitted, native.time_ms, np.float32(0))
        carried, weight = (
            deform(signal.alignment, image, task.affine, signal.atlas, order=1) for image in (time_ms, fitted)
        )
        # where only some of the neighbours were fitted, the mean of these; where less than half of the weight, nothing
        with np.errstate(divide="ignore", invalid="ignore"):
            other = np.where(disc & (weight >= 0.5), carried / weight, np.float32(np.nan))
        difference = np.abs(ours[stack.role].time_ms - other)
        both = np.isfinite(difference)
        compared[stack.role] = OrderComparison(
            deformed_then_fitted_ms=ours[stack.role].time_ms,
            fitted_then_deformed_ms=other,
            edge_ms=_mean(difference[both & edge]),
            inner_ms=_mean(difference[both & disc & ~edge]),
        )
    return compared


def _mean(values: FloatArray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
