"""The numbers of a subject over all visits as a measurement report (PS3.16 TID 1500), each with its time point."""

import math
from collections.abc import Iterator

from highdicom import sr
from pydicom.dataset import Dataset

from dicom_io import codes
from dicom_io.report_writer import observer
from dicom_io.source_attributes import ascii_text, copy_heading, equipment, sign
from dicom_io.subject_document import SR_SERIES_NUMBER, ReportedVisit, SubjectReport, subject_identity
from dicom_io.uids import tracking_uid_of
from processing.display import LEVEL_NAMES, REGION_NAMES, RESEARCH_USE_ONLY
from processing.results import LUMBAR_LEVELS, Level, Quantity, Region
from processing.visits import Cell, Change, Observation

#: What highdicom's writers read of evidence and later :func:`copy_heading` puts right.
_EVIDENCE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def subject_sr_object(report: SubjectReport) -> sr.Comprehensive3DSR:
    """One group (TID 1411) for each disc, part of it and measured visit: values, and change since the baseline.

    A group names its time point (TID 1502) and has the tracking UID of its place, which is the same at all visits and
    in the reports of the single exams. A visit without a scan and a disc without a value have no group; the comments
    say why.
    """
    header = report.newest
    evidence = [_evidence(one.segmentation) for one in report.visits if one.segmentation is not None]
    evidence.sort(
        key=lambda one: str(one.StudyInstanceUID) != str(header.StudyInstanceUID)
    )  # the first makes the study
    document = sr.MeasurementReport(
        observation_context=observer(report),
        procedure_reported=codes.MAGNETIC_RESONANCE_IMAGING,
        imaging_measurements=list(_groups(report)),
        title=codes.MRI_SPINE_REPORT,
    )
    texts = (f"{RESEARCH_USE_ONLY}. Not for diagnosis.", *report.comments)
    document[0].ContentSequence.extend(
        sr.TextContentItem(codes.COMMENT, ascii_text(text), relationship_type="CONTAINS") for text in texts
    )
    dataset = sr.Comprehensive3DSR(
        evidence=evidence,
        content=document[0],
        is_complete=True,
        is_final=False,
        coding_schemes=[codes.private_scheme()],
        **subject_identity(report, "sr", SR_SERIES_NUMBER),
        **equipment(report),
    )
    copy_heading(dataset, header)
    sign(dataset, report, header, description="Discs over time")
    return dataset


def _evidence(instance: Dataset) -> Dataset:
    """A reference as highdicom wants it; real headers hold values that it refuses."""
    header = Dataset()
    for keyword in _EVIDENCE:
        header[keyword] = instance[keyword]
    for keyword in _EMPTY:
        setattr(header, keyword, None)
    return header


def _groups(report: SubjectReport) -> Iterator[sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """Visits in order, discs from below."""
    changes = {(one.cell, one.visit): one for one in report.changes}
    values = {(cell, one.visit): one for cell, own in report.observations.items() for one in own}
    for visit in report.visits:
        if visit.segmentation is None:
            continue
        numbers = {
            str(one.get("TrackingUID", "")): int(one.SegmentNumber) for one in visit.segmentation.SegmentSequence
        }
        for level in LUMBAR_LEVELS:
            segment = numbers.get(str(tracking_uid_of(visit.segmentation, level.name)))
            if segment is None:
                continue
            for region in Region:
                cells = [Cell(level, region, quantity) for quantity in Quantity]
                found = {cell: values[cell, visit.name] for cell in cells if (cell, visit.name) in values}
                told = {cell: changes[cell, visit.name] for cell in cells if (cell, visit.name) in changes}
                if any(one.value_ms is not None for one in found.values()):
                    yield _group(report, visit, level, region, segment, found, told)


def _group(
    report: SubjectReport,
    visit: ReportedVisit,
    level: Level,
    region: Region,
    segment: int,
    values: dict[Cell, Observation],
    changes: dict[Cell, Change],
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    assert visit.segmentation is not None
    referenced = visit.segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=place_tracking(report.newest, level, region),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=visit.segmentation.SOPClassUID,
            sop_instance_uid=visit.segmentation.SOPInstanceUID,
            segment_number=segment,
            source_series=sr.SourceSeriesForSegmentation(referenced),
        ),
        time_point_context=_time_point(report, visit),
        finding_category=codes.ANATOMICAL_STRUCTURE,
        finding_type=codes.DISC_CODES[level],
        finding_sites=[sr.FindingSite(codes.DISC_CODES[level], topographical_modifier=codes.REGION_CODES.get(region))],
        algorithm_id=sr.AlgorithmIdentification(
            name="discnode",
            version=report.versions["discnode"],
            parameters=[f"{name}={report.versions[name]}" for name in sorted(report.versions) if name != "discnode"],
        ),
        measurements=[item for cell, one in values.items() for item in _numbers(cell, one, changes.get(cell))],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(codes.ASSESSMENT_CODES[cell.quantity], codes.VERDICT_CODES[one.verdict])
            for cell, one in changes.items()
        ],
    )


def place_tracking(header: Dataset, level: Level, region: Region) -> sr.TrackingIdentifier:
    """What is followed; as in the reports of exams (:func:`dicom_io.report_writer.disc_tracking`)."""
    name = f"{LEVEL_NAMES[level]} disc"
    if region is Region.WHOLE_DISC:
        return sr.TrackingIdentifier(tracking_uid_of(header, level.name), name)
    return sr.TrackingIdentifier(
        tracking_uid_of(header, f"{level.name}/{region.value}"), f"{name}, {REGION_NAMES[region]}"
    )


def _time_point(report: SubjectReport, visit: ReportedVisit) -> sr.TimePointContext:
    """TID 1502: name of the visit, its order, what the trial calls it, and days since the baseline."""
    first = next((one.day for one in report.visits if one.is_baseline and one.segmentation is not None), None)
    offset = None
    if visit.day is not None and first is not None:
        offset = sr.LongitudinalTemporalOffsetFromEvent(visit.day - first, codes.DAY, codes.BASELINE_EVENT)
    return sr.TimePointContext(
        time_point=ascii_text(visit.name),
        time_point_type=codes.BASELINE_TIME_POINT if visit.is_baseline else codes.POST_BASELINE_TIME_POINT,
        time_point_order=visit.order,
        subject_time_point_identifier=ascii_text(f"{report.subject_id} {visit.name}"),
        protocol_time_point_identifier=ascii_text(visit.name),
        temporal_offset_from_event=offset,
    )


def _numbers(cell: Cell, one: Observation, change: Change | None) -> Iterator[sr.Measurement]:
    if one.value_ms is None:
        return
    name = codes.QUANTITY_CODES[cell.quantity]
    yield sr.Measurement(name, _rounded(one.value_ms), codes.MILLISECOND, derivation=codes.MEAN)
    if one.sd_ms is not None and math.isfinite(one.sd_ms):
        yield sr.Measurement(name, _rounded(one.sd_ms), codes.MILLISECOND, derivation=codes.STANDARD_DEVIATION)
    yield sr.Measurement(codes.VOXELS_USED[cell.quantity], one.n, codes.COUNT)
    yield sr.Measurement(codes.VOXELS_EXCLUDED[cell.quantity], one.n_excluded, codes.COUNT)
    if change is None:
        return
    for code, value_ms in (
        (codes.CHANGE_CODES, change.delta_ms),
        (codes.LOWER_LIMIT_CODES, change.lower_limit_ms),
        (codes.UPPER_LIMIT_CODES, change.upper_limit_ms),
    ):
        if value_ms is not None:
            yield sr.Measurement(code[cell.quantity], _rounded(value_ms), codes.MILLISECOND)


def _rounded(value: float) -> float:
    """Six decimals, as in the reports of exams."""
    return round(value, 6)
