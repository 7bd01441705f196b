"""A relaxation map as a DICOM Parametric Map (PS3.3 A.75): float32, stored value = milliseconds."""

import copy

import numpy as np
from highdicom.content import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code

from dicom_io.codes import LUMBAR_SPINE, MILLISECOND, QUANTITY_CODES, private_scheme
from dicom_io.functional_groups import pixel_measures, plane_orientation, plane_positions
from dicom_io.source_attributes import complete, equipment, geometry_header, identity, mark_lumbar_spine
from dicom_io.source_references import other_studies
from dicom_io.sources import SourceExam
from processing.display import DISPLAY_RANGES_MS, RESEARCH_USE_ONLY
from processing.results import ExamResult, Quantity

SERIES_NUMBERS = {Quantity.T1RHO: 9002, Quantity.T2: 9003}


def map_role(quantity: Quantity) -> str:
    """The role of a map in derived UIDs and file names."""
    return f"pmap-{quantity.value.lower()}"


def map_object(result: ExamResult, source: SourceExam, quantity: Quantity) -> ParametricMap:
    """The native map of one quantity as a Parametric Map; 0 where there is no value (the object has no NaN).

    Frames ascend along row direction x column direction, as dcmqi and OHIF take for granted.

    Raises:
        KeyError: the result has no map of this quantity.
    """
    fitted = result.maps[quantity]
    values_ms = np.nan_to_num(fitted.time_ms, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    low_ms, high_ms = DISPLAY_RANGES_MS[quantity]
    mapping = RealWorldValueMapping(
        lut_label=f"{quantity.value}_MS"[:16],
        lut_explanation=f"{quantity.value} relaxation time, 0 = no value",
        unit=MILLISECOND,
        value_range=(0.0, float(max(values_ms.max(), 1.0))),
        slope=1.0,
        intercept=0.0,
        quantity_definition=QUANTITY_CODES[quantity],
    )
    on_grid = [geometry_header(instance, source) for instance in source.grid_instances]
    grid_uids = {header.SOPInstanceUID for header in on_grid}
    headers = {one.SOPInstanceUID: one for one in (geometry_header(each, source) for each in source.all_instances)}
    further = [
        header
        for uid, header in headers.items()
        if uid not in grid_uids and header.StudyInstanceUID == on_grid[0].StudyInstanceUID
    ]
    dataset = ParametricMap(
        source_images=on_grid,
        pixel_array=values_ms,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            VOILUTTransformation(window_center=(low_ms + high_ms) / 2, window_width=high_ms - low_ms)
        ],
        pixel_measures=pixel_measures(source),
        plane_orientation=plane_orientation(source),
        plane_positions=plane_positions(source),
        further_source_images=further,
        content_label=f"{quantity.value.upper()}_MAP",
        content_description=f"{quantity.value} map in ms, 0 = no value. {RESEARCH_USE_ONLY}",
        coding_schemes=[private_scheme()],
        **identity(result, source, map_role(quantity), SERIES_NUMBERS[quantity]),
        **equipment(result),
    )
    if others := other_studies(source):
        dataset.StudiesContainingOtherReferencedInstancesSequence = others
    dataset.Modality = "MR"  # what was measured; highdicom writes OT
    complete(dataset, result, source, role=map_role(quantity), description=f"{quantity.value} map (ms)")
    mark_lumbar_spine(dataset)
    _add_frame_anatomy(dataset)
    _sort_frames_along_normal(dataset)
    return dataset


def _add_frame_anatomy(dataset: Dataset) -> None:
    """Frame Anatomy (PS3.3 C.7.6.16.2.8). dcmqi 1.5 crashes on a map without it; the spine is unpaired."""
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = Sequence([_code_item(LUMBAR_SPINE)])
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = Sequence([anatomy])


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
    dataset.PerFrameFunctionalGroupsSequence = Sequence(ordered)


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
