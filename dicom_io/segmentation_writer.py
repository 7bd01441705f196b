"""Discs as a DICOM Segmentation (PS3.3 A.51): one binary segment per level, on the grid of the source images."""

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription

from dicom_io.codes import ANATOMICAL_STRUCTURE, ARTIFICIAL_INTELLIGENCE, DISC_CODES, LUMBAR_SPINE
from dicom_io.functional_groups import pixel_measures, plane_orientation, plane_positions
from dicom_io.reference_images import reference_images
from dicom_io.source_attributes import complete, equipment, identity, mark_lumbar_spine
from dicom_io.source_references import name_source_images
from dicom_io.sources import SourceExam
from dicom_io.uids import tracking_uid
from processing.display import LEVEL_COLOURS, LEVEL_NAMES, RESEARCH_USE_ONLY
from processing.results import DiscMask, ExamResult, Level

SERIES_NUMBER = 9001


def segmentation_object(result: ExamResult, source: SourceExam) -> Segmentation:
    """The discs of a result as a Segmentation: BINARY, segment n is the nth level found, from below.

    It refers to a series with one image per slice (:mod:`dicom_io.reference_images`); the images it was made from are
    named as further sources. Every segment has a tracking UID that stays the same for this disc of this patient.

    Raises:
        ValueError: the result has no disc, or its mask does not lie on the source's grid.
    """
    mask = result.mask
    if mask is None or not mask.found:
        raise ValueError("a result without a disc has no segmentation")
    shown_on = reference_images(result, source)
    segments = tuple(_describe(result, level, number, source) for number, level in enumerate(mask.found, start=1))
    dataset = Segmentation(
        source_images=shown_on.grid_instances,
        pixel_array=_numbered(mask),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        pixel_measures=pixel_measures(shown_on),
        plane_orientation=plane_orientation(shown_on),
        plane_positions=plane_positions(shown_on),
        content_label="DISCS",
        content_description=f"Lumbar discs. {RESEARCH_USE_ONLY}",
        **identity(result, source, "seg", SERIES_NUMBER),
        **equipment(result),
    )
    complete(dataset, result, source, role="seg", description="Lumbar discs")
    name_source_images(dataset, source.grid_instances)
    mark_lumbar_spine(dataset)
    return dataset


def _numbered(mask: DiscMask) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Level labels as consecutive segment numbers (PS3.3 C.8.20.4: from 1, without gaps)."""
    table = np.zeros(256, np.uint8)
    for number, level in enumerate(mask.found, start=1):
        table[level.value] = number
    return table[mask.levels]


def _describe(result: ExamResult, level: Level, number: int, source: SourceExam) -> SegmentDescription:
    """A disc that a person has drawn or changed is semi-automatic (PS3.3 C.8.20.4); the networks are named with it."""
    mask = result.mask
    assert mask is not None
    kinds = SegmentAlgorithmTypeValues
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=mask.model_name,
        family=ARTIFICIAL_INTELLIGENCE,
        version=mask.model_sha256[:16],
        source="discnode",
        parameters={"weights_sha256": mask.model_sha256},
    )
    name = f"{LEVEL_NAMES[level]} disc"
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=ANATOMICAL_STRUCTURE,
        segmented_property_type=DISC_CODES[level],
        algorithm_type=kinds.AUTOMATIC if result.correction is None else kinds.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(source, level.name),
        tracking_id=name,
        anatomic_regions=[LUMBAR_SPINE],
        display_color=highdicom.color.CIELabColor.from_rgb(*LEVEL_COLOURS[level]),
    )
