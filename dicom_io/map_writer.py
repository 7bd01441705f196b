"""Maps of a fit as DICOM Parametric Maps (PS3.3 A.75): float32, stored value = real-world value, 0 = no value."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from highdicom.content import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_io import codes
from dicom_io.atlas_images import atlas_images
from dicom_io.functional_groups import pixel_measures, plane_orientation, plane_positions
from dicom_io.reference_images import reference_images
from dicom_io.source_attributes import complete, equipment, identity, mark_lumbar_spine
from dicom_io.source_references import name_source_images
from dicom_io.sources import SourceExam
from processing.atlas_layout import AtlasLayout
from processing.display import DISPLAY_RANGES_MS, RESEARCH_USE_ONLY
from processing.results import ExamResult, FloatArray, Quantity, RegisteredDisc, RelaxationMap


class MapKind(StrEnum):
    """What of a fit a map shows; the value stands in roles and file names."""

    TIME = "time"
    STANDARD_ERROR = "se"
    RESIDUAL = "residual"


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What tells one kind of map from another."""

    values: Callable[[RelaxationMap], FloatArray]
    concept: dict[Quantity, Code]
    unit: Code
    unit_text: str
    text: str
    series_numbers: tuple[int, int]  # of T1rho, native and in atlas space; T2 has the next


_LOOKS = {
    MapKind.TIME: _Look(lambda one: one.time_ms, codes.QUANTITY_CODES, codes.MILLISECOND, "ms", "map", (9002, 9035)),
    MapKind.STANDARD_ERROR: _Look(
        *(lambda one: one.standard_error_ms, codes.STANDARD_ERROR_CODES, codes.MILLISECOND),
        *("ms", "standard error", (9021, 9031)),
    ),
    # in the arbitrary units of the signal, as the scanner scales it
    MapKind.RESIDUAL: _Look(
        *(lambda one: one.residual_rms, codes.RESIDUAL_CODES, codes.ARBITRARY_UNIT),
        *("signal", "RMS residual", (9023, 9033)),
    ),
}
_LARGEST_ERROR_SHOWN_MS = 10.0


def map_name(quantity: Quantity, kind: MapKind = MapKind.TIME, where: str = "") -> str:
    """What a map is called in file names and, after ``pmap-``, in derived UIDs; ``where`` tells an atlas."""
    parts = (quantity.value.lower(), "" if kind is MapKind.TIME else kind.value, where)
    return "-".join(part for part in parts if part)


def map_object(
    result: ExamResult, source: SourceExam, quantity: Quantity, kind: MapKind = MapKind.TIME
) -> ParametricMap:
    """A native map of one quantity as a Parametric Map; 0 where there is no value (the object has no NaN).

    Times and standard errors are in ms, residuals in the arbitrary units of the signal. Frames ascend along row
    direction x column direction, as dcmqi and OHIF take for granted. The map refers to a series with one image per
    slice (:mod:`dicom_io.reference_images`); all images it was fitted to are named as further sources.

    Raises:
        KeyError: the result has no map of this quantity.
    """
    values = _LOOKS[kind].values(result.maps[quantity])
    dataset = _parametric_map(result, source, reference_images(result, source), values, quantity, kind, where="")
    name_source_images(dataset, source.all_instances)
    return dataset


def atlas_map_object(
    result: ExamResult,
    source: SourceExam,
    atlas_role: str,
    layout: AtlasLayout,
    discs: Sequence[RegisteredDisc],
    quantity: Quantity,
    kind: MapKind = MapKind.TIME,
) -> ParametricMap:
    """The maps of all discs in atlas space as one Parametric Map, in the frame of reference of the atlas.

    It refers to the atlas series of ``atlas_role`` (:mod:`dicom_io.atlas_images`), and names the patient's images as
    sources. ``discs``: those of ``layout``, in its order.

    Raises:
        KeyError: a disc has no map of this quantity.
    """
    values = layout.place([np.nan_to_num(_LOOKS[kind].values(one.maps[quantity])) for one in discs]).astype(np.float32)
    grid = atlas_images(result, source, layout, atlas_role)
    dataset = _parametric_map(result, source, grid, values, quantity, kind, where=atlas_role)
    name_source_images(dataset, source.all_instances)
    return dataset


def _parametric_map(
    result: ExamResult,
    source: SourceExam,
    grid: SourceExam,
    values: FloatArray,
    quantity: Quantity,
    kind: MapKind,
    *,
    where: str,
) -> ParametricMap:
    """``values`` (slices, rows, columns) on the grid of ``grid``'s images, to which the object refers."""
    look, role = _LOOKS[kind], f"pmap-{map_name(quantity, kind, where)}"
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    name, largest = f"{quantity.value} {look.text}", float(max(values.max(), 1.0))
    mapping = RealWorldValueMapping(
        lut_label=f"{quantity.value}_{look.unit_text}".upper()[:16],
        lut_explanation=f"{name}, 0 = no value",
        unit=look.unit,
        value_range=(0.0, largest),
        slope=1.0,
        intercept=0.0,
        quantity_definition=look.concept[quantity],
    )
    low, high = _window(quantity, kind, values)
    dataset = ParametricMap(
        source_images=grid.grid_instances,
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=(low + high) / 2, window_width=high - low)],
        pixel_measures=pixel_measures(grid),
        plane_orientation=plane_orientation(grid),
        plane_positions=plane_positions(grid),
        content_label=f"{quantity.value}_{kind.value}".upper().replace("TIME", "MAP"),
        content_description=f"{name} ({look.unit_text}), 0 = no value. {RESEARCH_USE_ONLY}",
        coding_schemes=[codes.private_scheme()],
        derivation=codes.SPATIAL_RESAMPLING if where else codes.RELAXOMETRY_FIT,
        **identity(result, source, role, look.series_numbers[bool(where)] + list(Quantity).index(quantity)),
        **equipment(result),
    )
    dataset.Modality = "MR"  # what was measured; highdicom writes OT
    place = ", atlas" if where else ""
    complete(dataset, result, source, role=role, description=f"{name} ({look.unit_text}{place})")
    mark_lumbar_spine(dataset)
    _add_frame_anatomy(dataset)
    _sort_frames_along_normal(dataset)
    return dataset


def _window(quantity: Quantity, kind: MapKind, values: FloatArray) -> tuple[float, float]:
    """The lowest and the highest value shown; of residuals, which have no scale of their own, the exam decides."""
    if kind is MapKind.TIME:
        return DISPLAY_RANGES_MS[quantity]
    if kind is MapKind.STANDARD_ERROR:
        return 0.0, _LARGEST_ERROR_SHOWN_MS
    some = values[values > 0]
    return 0.0, float(np.percentile(some, 98)) if some.size else 1.0


def _add_frame_anatomy(dataset: Dataset) -> None:
    """Frame Anatomy (PS3.3 C.7.6.16.2.8). dcmqi 1.5 crashes on a map without it; the spine is unpaired."""
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = [codes.code_item(codes.LUMBAR_SPINE)]
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]


def _sort_frames_along_normal(dataset: Dataset) -> None:
    """Put frames in ascending order along row x column direction; highdicom sorts them the other way.

    PS3.3 leaves the order free, but dcmqi 1.5 and OHIF 3.13 take frame k for slice k along the normal.
    """
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    orientation = np.array(
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float
    )
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
    order = np.argsort(positions @ normal, kind="stable")
    frames = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(len(groups), dataset.Rows, dataset.Columns)
    dataset.FloatPixelData = frames[order].tobytes()
    ordered = [copy.copy(groups[index]) for index in order]
    for place, group in enumerate(ordered, start=1):
        group.FrameContentSequence[0].DimensionIndexValues = [place]
    dataset.PerFrameFunctionalGroupsSequence = ordered
