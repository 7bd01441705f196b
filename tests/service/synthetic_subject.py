"""A subject of a trial with everything that happens to subjects, in a node's record; results without the pipeline.

The baseline is one simulated exam with its true discs. Each later visit is that exam with the times of its discs
changed by known factors, so that every change is known exactly.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from phantom_result import measured_phantom
from sqlalchemy import Row, insert, select

from config.settings import ObjectKind, Settings
from config.trial_plans import TrialPlan, load_plan, plan_sha256
from dicom_io.atlas_images import atlas_layouts
from dicom_io.map_writer import MapKind, atlas_map_object, map_name, map_object
from dicom_io.mr_writer import atlas_series, reference_series
from dicom_io.reference_images import REFERENCE
from dicom_io.report_writer import report_object
from dicom_io.result_objects import WrittenObject
from dicom_io.segmentation_writer import segmentation_object
from dicom_io.sources import SourceExam
from dicom_io.volume_reader import ExamImages
from processing.phantom import PhantomExam
from processing.refusal import Reason, ReasonCode
from processing.results import DiscMeasurement, ExamResult, Level, Quantity, Region, RegisteredDisc, Verdict
from processing.visits import Acquisition
from service import database as db
from service import trial_tables as tables
from service.database import Database, open_database
from service.job_records import exam_folder
from service.result_files import result_document
from service.states import ExamState, JobState, SubjectState, VisitState
from service.trials.history import SubjectHistory, read_history

DAY_ZERO = date(2026, 1, 12)
ALL = tuple(Level)[:5]
#: Mean of the baseline's nuclei in ms, from below: what tests compare with.
NUCLEUS_MS = {
    Quantity.T1RHO: dict(zip(ALL, (74.0, 81.0, 96.0, 108.0, 112.0), strict=True)),
    Quantity.T2: dict(zip(ALL, (58.0, 66.0, 81.0, 92.0, 97.0), strict=True)),
}
#: Times of the other regions, of those of the nucleus.
_SHARES = {Region.WHOLE_DISC: 0.78, Region.NUCLEUS: 1.0, Region.ANTERIOR_ANNULUS: 0.55, Region.POSTERIOR_ANNULUS: 0.6}
_SCANNER = Acquisition(
    manufacturer="GE MEDICAL SYSTEMS",
    model="DISCOVERY MR750w",
    device_serial="0000301234",
    software_versions="DV26.0",
    receive_coil="PA Spine 1-4",
    protocol="ge-mapss",
    field_strength_t=3.0,
    spin_lock_hz=300.0,
    t1rho_times_ms=(0.0, 10.0, 40.0, 80.0),
    t2_times_ms=(0.0, 12.8, 25.7, 51.4),
    repetition_time_ms=5.2,
    pixel_bandwidth_hz=488.0,
    matrix=(256, 256),
    pixel_spacing_mm=(0.78125, 0.78125),
    slice_thickness_mm=4.0,
    slice_spacing_mm=4.0,
    n_slices=5,
    slice_normal=(-1.0, 0.0, 0.0),
)


@dataclass(frozen=True, slots=True)
class Scan:
    """One visit that came: ``factors`` on the times of whole levels, of the baseline's."""

    name: str
    day: int
    clock: str = "09:10"
    factors: Mapping[Level, float] = field(default_factory=dict)
    scanner: Mapping[str, Any] = field(default_factory=dict)  # fields of Acquisition that differ
    deviations: Sequence[Mapping[str, Any]] = ()
    state: VisitState = VisitState.MEASURED
    code: str = ""
    detail: str = ""
    reasons: tuple[Reason, ...] = ()


_OTHER_SCANNER = (
    {"what": "device_serial", "baseline": "0000301234", "visit": "0000309999", "hard": False, "widens": True}
    | {"text": "another scanner (serial number 0000309999, at the baseline 0000301234)"},
    {"what": "software_versions", "baseline": "DV26.0", "visit": "DV29.1", "hard": False, "widens": True}
    | {"text": "other software (DV29.1, at the baseline DV26.0)"},
)
_CLOCK = (
    {"what": "acquired_at", "baseline": "09:10", "visit": "14:25", "hard": False, "widens": False}
    | {"text": "scanned at 14:25, 5.2 h later in the day than at the baseline (09:10); up to 2 h are allowed"},
)
#: L4L5 (the treated one) rises and L2L3 hardly; a visit in the afternoon, none at M6, another scanner at M12.
USUAL = (
    Scan("BL", 0),
    Scan(
        "M3",
        94,
        "14:25",
        dict.fromkeys(ALL, 0.93) | {Level.L4L5: 1.12},
        deviations=_CLOCK,
        reasons=(Reason(ReasonCode.MOTION, "T2 image at 51.4 ms: the discs moved by 1.4 mm"),),
    ),
    Scan("unscheduled", 210, "09:40", {Level.L4L5: 1.22, Level.L2L3: 1.01}),
    Scan(
        *("M12", 361, "09:25", {Level.L4L5: 1.38, Level.L3L4: 1.04, Level.L1L2: 0.99}),
        scanner={"device_serial": "0000309999", "software_versions": "DV29.1"},
        deviations=_OTHER_SCANNER,
    ),
)


@dataclass(frozen=True, slots=True)
class Site:
    """A node's record with one subject in it."""

    settings: Settings
    database: Database
    plan: TrialPlan
    subject_id: int

    @property
    def subject_row(self) -> Row[Any]:
        with self.database.read() as connection:
            found = select(tables.subject).where(tables.subject.c.id == self.subject_id)
            return connection.execute(found).one()

    def history(self, **options: Any) -> SubjectHistory:
        return read_history(self.database, self.settings, self.plan, self.subject_row, **options)


def synthetic_site(
    folder: Path,
    scans: Sequence[Scan] = USUAL,
    *,
    blinding: Mapping[str, Any] | None = None,
    destinations: Sequence[Mapping[str, Any]] = (),
    not_evaluable: tuple[Level, str, str] | None = (Level.L5S1, "M12", "operated on: fusion L5/S1 in July"),
) -> Site:
    """A node's storage folder with the subject 01-007 of the trial EXAMPLE-01 in its record, and its results."""
    trials = folder / "trials"
    trials.mkdir(parents=True)
    plan_path = trials / "example.yaml"
    plan_path.write_text(yaml.safe_dump(_plan(blinding or {}, [one["name"] for one in destinations])))
    (trials / "treated.csv").write_text("subject,level\n01-007,L4L5\n")
    settings = Settings.model_validate(
        {"storage_dir": folder / "node", "trials_dir": trials, "destinations": list(destinations)}
    )
    plan = load_plan(plan_path)
    database = open_database(settings)
    now = datetime(2026, 1, 12, 15, 0, tzinfo=UTC)
    with database.write() as connection:
        subject_id = _add_subject(connection, plan_path, now)
        if not_evaluable is not None:
            level, visit, reason = not_evaluable
            values = {"level": level.name, "from_visit": visit, "reason": reason, "noted_by": "coordinator"}
            connection.execute(insert(tables.non_evaluable).values(subject_id=subject_id, noted_at=now, **values))
    exam = _baseline(folder / "source")
    for number, scan in enumerate(scans, start=1):
        made = now + timedelta(days=scan.day)
        with database.write() as connection:
            exam_id, job_id = _add_exam(connection, f"1.2.826.0.1.3680043.10.7.{number}", made)
            _add_visit(connection, subject_id, exam_id, job_id, scan, made)
        write_visit(exam, scan, number, made, settings.storage_dir / exam_folder(exam_id) / "v1")
    return Site(settings, database, plan, subject_id)


def _plan(blinding: Mapping[str, Any], destinations: Sequence[str]) -> dict[str, Any]:
    return {
        "protocol_id": "EXAMPLE-01",
        "name": "Cells for discs",
        "sites": [{"id": "01", "name": "University hospital", "time_zone": "Europe/Paris"}],
        "subject_pattern": "^01-[0-9]{3}$",
        "visits": [
            {"name": "BL", "day": 0, "before_days": 0, "after_days": 0, "baseline": True},
            {"name": "M3", "day": 91},
            {"name": "M6", "day": 182, "before_days": 21, "after_days": 21},
            {"name": "M12", "day": 365, "before_days": 30, "after_days": 30},
        ],
        "protocol": "ge-mapss",
        "treated_levels": "treated.csv",
        "primary": [{"quantity": "T2", "region": "nucleus", "level": "treated", "visits": ["M12"]}],
        "release": "automatic",
        "destinations": list(destinations),
        "blinding": dict(blinding),
    }


def _add_subject(connection: Any, plan_path: Path, now: datetime) -> int:
    trial = connection.execute(
        insert(tables.trial).values(
            protocol_id="EXAMPLE-01",
            plan=plan_path.read_text(),
            plan_sha256=plan_sha256(plan_path),
            file=str(plan_path.resolve()),
            registered_at=now,
        )
    )
    row = {
        "subject_id": "01-007",
        "site_id": "01",
        "state": str(SubjectState.ACTIVE),
        "birth_year": 1979,
        "sex": "F",
        "day_zero": DAY_ZERO,
        "lowest_disc": "L5S1",
        "levels_confirmed_by": "reader 2",
        "levels_confirmed_at": now,
        "created_at": now,
    }
    return int(
        connection.execute(
            insert(tables.subject).values(trial_id=trial.inserted_primary_key[0], **row)
        ).inserted_primary_key[0]
    )


def _add_exam(connection: Any, study_uid: str, now: datetime) -> tuple[int, int]:
    exam = connection.execute(
        insert(db.exam).values(
            study_uid=study_uid,
            state=str(ExamState.ANALYSED),
            has_news=False,
            version=1,
            first_arrival_at=now,
            last_arrival_at=now,
        )
    ).inserted_primary_key[0]
    job = connection.execute(
        insert(db.job).values(
            exam_id=exam,
            version=1,
            state=str(JobState.DONE),
            inputs=["objects/00/a.dcm"],
            inputs_digest=study_uid,
            calling_ae="SCANNER",
            protocol="ge-mapss",
            attempts=1,
            created_at=now,
            finished_at=now,
            verdict=str(Verdict.OK),
        )
    ).inserted_primary_key[0]
    return int(exam), int(job)


def _add_visit(connection: Any, subject_id: int, exam_id: int, job_id: int, scan: Scan, now: datetime) -> None:
    day = DAY_ZERO + timedelta(days=scan.day)
    connection.execute(
        insert(tables.visit).values(
            subject_id=subject_id,
            name=scan.name,
            exam_id=exam_id,
            job_id=job_id,
            state=str(scan.state),
            scanned_at=f"{day}T{scan.clock}:00",
            scan_date=day,
            assigned_by="date",
            code=scan.code or None,
            detail=scan.detail or None,
            deviations=[dict(one) for one in scan.deviations],
            changed_at=now,
        )
    )


@dataclass(frozen=True, slots=True)
class _Exam:
    phantom: PhantomExam
    images: ExamImages
    result: ExamResult


def _baseline(folder: Path) -> _Exam:
    folder.mkdir()
    phantom, images, result = measured_phantom(folder, n_slices=5)
    return _Exam(phantom, images, result)


def write_visit(exam: _Exam, scan: Scan, number: int, made: datetime, folder: Path) -> None:
    """The result of a visit: result.json, and of the DICOM objects those that a report reads."""
    images = replace(exam.images, source=_source(exam.images.source, scan, number))
    result = _changed(exam.result, scan, made)
    objects = _write_objects(result, images.source, folder)
    document = result_document(result, images, objects)
    day = DAY_ZERO + timedelta(days=scan.day)
    acquired = datetime.fromisoformat(f"{day}T{scan.clock}:00")
    document["acquisition"] = asdict(replace(_SCANNER, **scan.scanner)) | {"acquired_at": acquired.isoformat()}
    document["acquisition"]["n_slices"] = len(images.source.grid_instances)
    (folder / "result.json").write_text(json.dumps(document | {"version": 1}, indent=2))


def _source(source: SourceExam, scan: Scan, number: int) -> SourceExam:
    """Headers of another study of the same patient."""
    day = (DAY_ZERO + timedelta(days=scan.day)).strftime("%Y%m%d")
    changed = {}
    for image in (*source.grid_instances, *source.all_instances):
        if id(image) in changed:
            continue
        one = changed[id(image)] = copy.deepcopy(image)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(one, keyword, f"{getattr(image, keyword)[:60]}.{number}")
        one.StudyInstanceUID = f"1.2.826.0.1.3680043.10.7.{number}"
        one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = day
        one.PatientID, one.PatientName = "P-4711", "Canary^Bird"
        one.ClinicalTrialProtocolID, one.ClinicalTrialSiteID, one.ClinicalTrialSubjectID = "EXAMPLE-01", "01", "01-007"
        one.ClinicalTrialSponsorName, one.ClinicalTrialProtocolName = "Sponsor", "Cells for discs"
        one.ClinicalTrialSiteName, one.ClinicalTrialTimePointID = "", scan.name
    return replace(
        source,
        grid_instances=tuple(changed[id(one)] for one in source.grid_instances),
        all_instances=tuple(changed[id(one)] for one in source.all_instances),
    )


def _changed(result: ExamResult, scan: Scan, made: datetime) -> ExamResult:
    """The result with the times of its discs as the visit has them."""
    return replace(
        result,
        verdict=Verdict.NEEDS_REVIEW if scan.reasons else Verdict.OK,
        reasons=scan.reasons,
        produced_at=made,
        measurements=tuple(_measurement(one, scan) for one in result.measurements),
        registered=tuple(_registered(one, scan) for one in result.registered),
        maps={quantity: replace(one, time_ms=_native(one, result, scan)) for quantity, one in result.maps.items()},
    )


def mean_ms(level: Level, region: Region, quantity: Quantity, scan: Scan) -> float:
    """The true mean of a cell at a visit."""
    return NUCLEUS_MS[quantity][level] * _SHARES[region] * scan.factors.get(level, 1.0)


def _measurement(row: DiscMeasurement, scan: Scan) -> DiscMeasurement:
    value = mean_ms(row.level, row.region, row.quantity, scan)
    return replace(row, mean_ms=value, median_ms=value - 0.4, sd_ms=value / 8)


def _native(one: Any, result: ExamResult, scan: Scan) -> Any:
    assert result.mask is not None
    values = one.time_ms.copy()
    for level in result.mask.found:
        inside = result.mask.levels == level
        wanted = mean_ms(level, Region.WHOLE_DISC, one.quantity, scan)
        values[inside] *= wanted / float(np.nanmean(values[inside]))
    return values


def _registered(disc: RegisteredDisc, scan: Scan) -> RegisteredDisc:
    """Atlas-space maps whose mean over each region is the true one."""
    maps = {}
    for quantity, one in disc.maps.items():
        values = one.time_ms.copy()
        for value, region in enumerate(tuple(Region)[1:], start=1):
            inside = disc.atlas.regions == value
            wanted = mean_ms(disc.atlas.level, region, quantity, scan)
            values[inside] *= wanted / float(np.nanmean(values[inside]))
        maps[quantity] = replace(one, time_ms=values, standard_error_ms=values / 50)
    return replace(disc, maps=maps)


def _write_objects(result: ExamResult, source: SourceExam, folder: Path) -> list[WrittenObject]:
    (folder / "dicom").mkdir(parents=True)
    segmentation = segmentation_object(result, source)
    made = [("mr", f"{REFERENCE}-{one.InstanceNumber:03d}", one) for one in reference_series(result, source)]
    made += [("seg", "seg", segmentation), ("sr", "sr", report_object(result, source, segmentation))]
    made += [("pmap", map_name(quantity), map_object(result, source, quantity)) for quantity in result.maps]
    for role, layout, discs in atlas_layouts(result):
        made += [("mr", f"{role}-{one.InstanceNumber:03d}", one) for one in atlas_series(result, source, layout, role)]
        for quantity in result.maps:
            for kind in (MapKind.TIME, MapKind.STANDARD_ERROR):
                found = atlas_map_object(result, source, role, layout, discs, quantity, kind)
                made.append(("pmap", map_name(quantity, kind, role), found))
    written = []
    for kind, name, dataset in made:
        path = Path("dicom") / f"{name}.dcm"
        dataset.save_as(folder / path, enforce_file_format=True)
        written.append(WrittenObject(ObjectKind(kind), path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))
    return written
