"""The numbers of an exam as a measurement report (PS3.16 TID 1500 in a Comprehensive 3D SR, PS3.3 A.35.13)."""

import math
from collections.abc import Iterator

from highdicom import sr
from highdicom.seg import Segmentation
from highdicom.sr.coding import CodedConcept

from dicom_io import codes
from dicom_io.source_attributes import Made, ascii_text, complete, equipment, geometry_header, identity
from dicom_io.sources import SourceExam
from dicom_io.uids import derived_uid, tracking_uid
from processing.display import LEVEL_NAMES, REGION_NAMES, RESEARCH_USE_ONLY
from processing.results import DiscMeasurement, ExamResult, Level, Region

SERIES_NUMBER = 9004


def report_object(result: ExamResult, source: SourceExam, segmentation: Segmentation) -> sr.Comprehensive3DSR:
    """The measurements of a result; each group refers to its disc's segment in ``segmentation``.

    One group per disc and region: mean, SD and median in ms, voxels used and excluded, and the whole disc's volume in
    mm3. A statistic that does not exist (no voxel had a value) is left out; its count of 0 stands there.

    The title is MRI Spine Report: OHIF 3.13 crashes on volumetric groups under the title Imaging Measurement Report,
    and CID 7021 may be extended.
    """
    report = sr.MeasurementReport(
        observation_context=observer(result),
        procedure_reported=codes.MAGNETIC_RESONANCE_IMAGING,
        imaging_measurements=list(_groups(result, source, segmentation)),
        title=codes.MRI_SPINE_REPORT,
    )
    report[0].ContentSequence.extend(comments(result))  # TID 1500 is extensible
    dataset = sr.Comprehensive3DSR(
        evidence=[*(geometry_header(instance, source) for instance in source.all_instances), segmentation],
        content=report[0],
        is_complete=True,
        is_final=False,
        coding_schemes=[codes.private_scheme()],
        **identity(result, source, "sr", SERIES_NUMBER),
        **equipment(result),
    )
    complete(dataset, result, source, role="sr", description="Disc measurements")
    return dataset


def observer(made: Made) -> sr.ObservationContext:
    """The node, as the device that observed (TID 1004)."""
    made_by = equipment(made)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", made_by["device_serial_number"]),
        name="discnode",
        manufacturer_name=made_by["manufacturer"],
        model_name=made_by["manufacturer_model_name"],
        serial_number=made_by["device_serial_number"],
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(CodedConcept.from_code(codes.DEVICE_OBSERVER), device)
    )


def _groups(
    result: ExamResult, source: SourceExam, segmentation: Segmentation
) -> Iterator[sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """One measurement group (TID 1411) per disc and region, discs from below."""
    numbers = {str(segment.TrackingUID): int(segment.SegmentNumber) for segment in segmentation.SegmentSequence}
    for level in result.mask.found if result.mask else ():
        segment = sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=numbers[tracking_uid(source, level.name)],
            source_series=sr.SourceSeriesForSegmentation(source.grid_instances[0].SeriesInstanceUID),
        )
        for region in Region:
            rows = [one for one in result.measurements if (one.level, one.region) == (level, region)]
            numbers_of_region = [*volume(result, level, region), *(item for row in rows for item in _statistics(row))]
            if not numbers_of_region:
                continue
            yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=disc_tracking(source, level, region),
                referenced_segment=segment,
                finding_category=codes.ANATOMICAL_STRUCTURE,
                finding_type=codes.DISC_CODES[level],
                finding_sites=[
                    sr.FindingSite(codes.DISC_CODES[level], topographical_modifier=codes.REGION_CODES.get(region))
                ],
                algorithm_id=algorithm(result),
                measurements=numbers_of_region,
            )


def algorithm(result: ExamResult) -> sr.AlgorithmIdentification:
    """Software, protocol, settings, weights and times (TID 4019)."""
    return sr.AlgorithmIdentification(
        name="discnode",
        version=result.versions["discnode"],
        parameters=[f"{name}={result.versions[name]}" for name in ("protocol", "settings_digest", "model_sha256")]
        + [f"{quantity}_times_ms={list(times)}" for quantity, times in result.times_ms.items()],
    )


def disc_tracking(source: SourceExam, level: Level, region: Region) -> sr.TrackingIdentifier:
    """Names what is followed over time. The whole disc has the tracking UID of its segment, a region one of its own."""
    if region is Region.WHOLE_DISC:
        return sr.TrackingIdentifier(tracking_uid(source, level.name), f"{LEVEL_NAMES[level]} disc")
    uid = tracking_uid(source, f"{level.name}/{region.value}")
    return sr.TrackingIdentifier(uid, f"{LEVEL_NAMES[level]} disc, {REGION_NAMES[region]}")


def volume(result: ExamResult, level: Level, region: Region = Region.WHOLE_DISC) -> Iterator[sr.Measurement]:
    """The volume of a whole disc; nothing for a part of it."""
    if region is Region.WHOLE_DISC and level in result.volumes_mm3:
        volume_mm3 = _rounded(result.volumes_mm3[level])
        yield sr.Measurement(codes.VOLUME, volume_mm3, codes.CUBIC_MILLIMETRE, method=codes.SUM_OF_VOXELS)


def mean_values(row: DiscMeasurement) -> Iterator[sr.Measurement]:
    """The mean of one region and quantity, if any voxel had a value."""
    if math.isfinite(row.mean_ms):
        name = codes.QUANTITY_CODES[row.quantity]
        yield sr.Measurement(name, _rounded(row.mean_ms), codes.MILLISECOND, derivation=codes.MEAN)


def _statistics(row: DiscMeasurement) -> Iterator[sr.Measurement]:
    """Mean, SD and median of one region and quantity, and how many voxels they come from."""
    for derivation, value_ms in (
        (codes.MEAN, row.mean_ms),
        (codes.STANDARD_DEVIATION, row.sd_ms),
        (codes.MEDIAN, row.median_ms),
    ):
        if math.isfinite(value_ms):
            name = codes.QUANTITY_CODES[row.quantity]
            yield sr.Measurement(name, _rounded(value_ms), codes.MILLISECOND, derivation=derivation)
    yield sr.Measurement(codes.VOXELS_USED[row.quantity], row.n, codes.COUNT)
    yield sr.Measurement(codes.VOXELS_EXCLUDED[row.quantity], row.n_excluded, codes.COUNT)


def _rounded(value: float) -> float:
    """Six decimals: far below what can be measured, and short enough for a decimal string (PS3.5, VR DS: 16 bytes)."""
    return round(value, 6)


def comments(result: ExamResult, *further: str) -> list[sr.TextContentItem]:
    """Research use first, then what else is to be said, the verdict, and every reason for doubt."""
    texts = [f"{RESEARCH_USE_ONLY}. Not for diagnosis.", *further, f"Verdict: {result.verdict.value}"]
    texts += [f"{reason.code.value}: {reason.detail}" for reason in result.reasons]
    return [sr.TextContentItem(codes.COMMENT, ascii_text(text), relationship_type="CONTAINS") for text in texts]
