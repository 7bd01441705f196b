"""The pictures of one visit, read back from its result, as the panels of a subject's report need them."""

from collections.abc import Mapping
from dataclasses import dataclass

from processing.results import FloatArray, ImageVolume, LabelArray, Quantity


@dataclass(frozen=True, slots=True, eq=False)
class VisitImages:
    """What was segmented, and what was measured in it, on one native grid (slices, rows, columns).

    ``background``: the segmented image, arbitrary units. ``levels`` uint8: values of
    :class:`processing.results.Level`, 0 elsewhere. ``maps``: ms, NaN where there is no value.
    """

    background: ImageVolume
    levels: LabelArray
    maps: Mapping[Quantity, FloatArray]
