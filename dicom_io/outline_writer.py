"""The report that viewers draw: outline and mean values of each disc (PS3.16 TID 1500 with TID 1410 groups).

OHIF 3.13 draws a group of an Imaging Measurement Report that has one region of an image, and labels it with its
numbers; derivations it does not tell apart, so there are means only. All numbers, with their segments, are in the other
report (:mod:`dicom_io.report_writer`), which OHIF lists and cannot draw.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from highdicom import sr
from skimage.measure import find_contours

from dicom_io import codes
from dicom_io.reference_images import reference_images
from dicom_io.report_writer import algorithm, comments, disc_tracking, mean_values, observer, volume
from dicom_io.source_attributes import complete, equipment, geometry_header, identity
from dicom_io.sources import SourceExam
from processing.results import DiscMask, ExamResult, Region

SERIES_NUMBER = 9006


def outline_object(result: ExamResult, source: SourceExam) -> sr.Comprehensive3DSR:
    """One group per disc: its outline on one slice, and volume and mean times of the whole disc.

    The slice is the one that shows most of the discs; a disc that it does not show is outlined where it is largest.

    Raises:
        ValueError: the result has no disc.
    """
    if result.mask is None or not result.mask.found:
        raise ValueError("a result without a disc has no outlines")
    shown_on = reference_images(result, source)
    report = sr.MeasurementReport(
        observation_context=observer(result),
        procedure_reported=codes.MAGNETIC_RESONANCE_IMAGING,
        imaging_measurements=list(_groups(result, result.mask, source, shown_on)),
        title=codes.IMAGING_MEASUREMENT_REPORT,
    )
    where = "Outlines show each disc on one slice; the values are those of the whole disc."
    report[0].ContentSequence.extend(comments(result, where))
    images = {one.SOPInstanceUID: one for one in shown_on.grid_instances}
    images |= {one.SOPInstanceUID: one for one in (geometry_header(each, source) for each in source.all_instances)}
    dataset = sr.Comprehensive3DSR(
        evidence=list(images.values()),
        content=report[0],
        is_complete=True,
        is_final=False,
        coding_schemes=[codes.private_scheme()],
        **identity(result, source, "sr-outlines", SERIES_NUMBER),
        **equipment(result),
    )
    complete(dataset, result, source, role="sr-outlines", description="Disc outlines")
    return dataset


def _groups(
    result: ExamResult, mask: DiscMask, source: SourceExam, shown_on: SourceExam
) -> Iterator[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """One measurement group (TID 1410) per disc, discs from below."""
    common = _common_slice(mask)
    for level in mask.found:
        area = (mask.levels == level).sum(axis=(1, 2))
        index = common if area[common] else int(area.argmax())
        image = shown_on.grid_instances[index]
        rows = [one for one in result.measurements if (one.level, one.region) == (level, Region.WHOLE_DISC)]
        yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=disc_tracking(source, level, Region.WHOLE_DISC),
            referenced_region=sr.ImageRegion(
                graphic_type=sr.GraphicTypeValues.POLYLINE,
                graphic_data=outline(mask.levels[index] == level),
                source_image=sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
            ),
            finding_category=codes.ANATOMICAL_STRUCTURE,
            finding_type=codes.DISC_CODES[level],
            finding_sites=[sr.FindingSite(codes.DISC_CODES[level])],
            algorithm_id=algorithm(result),
            measurements=[*(item for row in rows for item in mean_values(row)), *volume(result, level)],
        )


def _common_slice(mask: DiscMask) -> int:
    """The slice that shows the most discs; of several, the one that shows most of them."""
    areas = np.array([(mask.levels == level).sum(axis=(1, 2)) for level in mask.found])
    return max(range(areas.shape[1]), key=lambda index: ((areas[:, index] > 0).sum(), areas[:, index].sum()))


def outline(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The longest outline of the pixels of a slice, (points, 2) column and row, closed.

    In the image's own coordinates (PS3.3 C.10.5.1.2): the corner of the first pixel is 0\\0, its centre 0.5\\0.5.
    """
    contours = find_contours(np.pad(inside, 1).astype(np.float64), 0.5)
    longest = max(contours, key=len)
    points: npt.NDArray[np.float64] = np.round(longest[:, ::-1] - 0.5, 3)  # 1 of padding, 0.5 from centre to corner
    return points
