"""Exams of trial subjects in a node's record, with real headers and results as small as can be."""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from records import open_database, settings_in
from sqlalchemy import insert, select

from config.settings import Settings
from processing.refusal import Reason, ReasonCode
from processing.results import Verdict
from service import database as db
from service import jobs
from service import trial_tables as trials
from service.database import Database
from service.states import ExamState, InstanceState
from service.trials.desk import TrialDesk

PLAN: dict[str, Any] = {
    "protocol_id": "DISC-1",
    "sites": [{"id": "01", "time_zone": "Europe/Paris"}, {"id": "02", "time_zone": "America/New_York"}],
    "subject_pattern": "^0[12]-[0-9]{3}$",
    "visits": [
        {"name": "BL", "day": 0, "before_days": 0, "after_days": 0, "baseline": True},
        {"name": "M3", "day": 91, "before_days": 14, "after_days": 14},
        {"name": "M6", "day": 182, "before_days": 21, "after_days": 21},
    ],
    "protocol": "ge-mapss",
}
DAY_ZERO = date(2026, 3, 2)
NOW = datetime(2027, 6, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Scan:
    """An exam as its headers tell it. ``day``: after day zero. Empty texts are not in the header."""

    subject: str = "01-001"
    visit: str = ""
    day: int = 0
    clock: str = "100000"
    patient_id: str = "HOSP-1"
    birth: str = "19700504"
    sex: str = "F"
    site: str = "01"
    protocol_id: str = "DISC-1"
    more: dict[str, str] = field(default_factory=dict)

    @property
    def date(self) -> date:
        return DAY_ZERO + timedelta(days=self.day)

    def header(self, study_uid: str) -> FileDataset:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        image = FileDataset(None, {}, preamble=b"\0" * 128, file_meta=meta)
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = study_uid, f"{study_uid[:60]}.1"
        image.PatientID, image.PatientName = self.patient_id, "Doe^Jane"
        image.PatientBirthDate, image.PatientSex = self.birth, self.sex
        told = {
            "ClinicalTrialProtocolID": self.protocol_id,
            "ClinicalTrialSiteID": self.site,
            "ClinicalTrialSubjectID": self.subject,
            "ClinicalTrialTimePointID": self.visit,
            "StudyDate": f"{self.date:%Y%m%d}",
            "AcquisitionDate": f"{self.date:%Y%m%d}",
            "AcquisitionTime": self.clock,
        }
        for keyword, value in (told | self.more).items():
            if value:
                setattr(image, keyword, value)
        return image


class VisitRow(NamedTuple):
    subject: str
    name: str
    state: str
    code: str
    detail: str
    job_id: int | None


VERSIONS = {"discnode": "0.2.0", "model_sha256": "ab" * 32}


def spine(person: int = 0, *, lowest: int = 0, n: int = 5) -> list[dict[str, Any]]:
    """The discs of a result, from below. ``person``: whose spine; ``lowest``: how far up the names begin."""
    names = ("L5S1", "L4L5", "L3L4", "L2L3", "L1L2", "T12L1")
    discs = []
    place = 0.0
    for index in range(n):
        factor = 1 + 0.08 * np.sin(1.7 * index + 2.3 * person) * (person > 0)
        shape = {"height_mm": 9 - index / 2, "depth_mm": 34 * factor, "centroid_mm": [0.0, 0.0, round(place, 2)]}
        discs.append({"level": names[index + lowest], "volume_mm3": 8000.0, "shape": shape})
        place += (36 + 1.1 * index) * factor
    return discs


@dataclass
class Site:
    """A record with exams, and the folder with one trial's plan."""

    settings: Settings
    database: Database

    @property
    def plan_file(self) -> Path:
        assert self.settings.trials_dir is not None
        return self.settings.trials_dir / "disc-1.yaml"

    def write_plan(self, **changes: Any) -> None:
        self.plan_file.write_text(json.dumps(PLAN | changes))  # YAML reads JSON

    def add(self, scan: Scan, state: ExamState = ExamState.QUEUED, detail: str = "") -> int:
        """An exam whose images came; returns its number."""
        study_uid = generate_uid()
        image = scan.header(study_uid)
        name = f"{image.SOPInstanceUID}.dcm"
        self.database.inbox_dir.mkdir(parents=True, exist_ok=True)
        image.save_as(self.database.inbox_dir / name, enforce_file_format=True)
        with self.database.write() as connection:
            result = connection.execute(
                insert(db.exam).values(
                    study_uid=study_uid,
                    state=str(state),
                    has_news=False,
                    detail=detail,
                    first_arrival_at=NOW,
                    last_arrival_at=NOW,
                )
            )
            assert result.inserted_primary_key is not None
            exam_id = int(result.inserted_primary_key[0])
            connection.execute(
                insert(db.instance).values(
                    sop_uid=image.SOPInstanceUID,
                    sop_class_uid=MRImageStorage,
                    study_uid=study_uid,
                    series_uid=image.SeriesInstanceUID,
                    transfer_syntax=ExplicitVRLittleEndian,
                    path=name,
                    sha256="ab" * 32,
                    size_bytes=1,
                    calling_ae="SCANNER",
                    received_at=NOW,
                    state=str(InstanceState.INDEXED),
                )
            )
            if state in (ExamState.QUEUED, ExamState.ANALYSED):
                jobs.enqueue(connection, jobs.JobRequest(exam_id, (name,), study_uid, "SCANNER", "ge-mapss"), NOW)
        return exam_id

    def measure(self, exam_id: int, verdict: str = "ok", **content: Any) -> int:
        """The exam's newest analysis is done, with this ``result.json``; returns the job's number."""
        job = next(one for one in reversed(jobs.list_jobs(self.database)) if one.exam_id == exam_id)
        claimed = jobs.claim(self.database, "w", NOW, 60.0)
        assert claimed is not None
        assert claimed.id == job.id
        folder = self.settings.storage_dir / claimed.result_folder
        folder.mkdir(parents=True)
        result = {"status": verdict, "reasons": [], "discs": spine(), "versions": VERSIONS} | content
        (folder / "result.json").write_text(json.dumps(result))
        reasons = [Reason(ReasonCode(one["code"]), one["detail"]) for one in result["reasons"]]
        jobs.finish(self.database, claimed, Verdict(verdict), reasons, (), NOW)
        return claimed.id

    def sweep(self, now: datetime = NOW) -> int:
        return TrialDesk(self.database, self.settings).sweep(now)

    def visits(self) -> dict[int, VisitRow]:
        """Exam -> what was decided of it."""
        table, subject = trials.visit, trials.subject
        query = select(table, subject.c.subject_id.label("subject")).join(subject, subject.c.id == table.c.subject_id)
        with self.database.read() as connection:
            return {
                row.exam_id: VisitRow(row.subject, row.name, row.state, row.code or "", row.detail or "", row.job_id)
                for row in connection.execute(query)
            }

    def at_the_door(self) -> dict[int, tuple[str, str]]:
        """Exam of a trial but of no subject -> code and detail."""
        table = trials.trial_exam
        query = select(table).where(table.c.trial_id.is_not(None), table.c.subject_id.is_(None))
        with self.database.read() as connection:
            return {row.exam_id: (row.code, row.detail) for row in connection.execute(query)}

    def rows(self, table: Any) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(select(table).order_by(*table.primary_key)).all())


def open_site(folder: Path, **changes: Any) -> Site:
    """A node that follows one trial. ``changes``: of its plan."""
    plans = folder / "trials"
    plans.mkdir()
    settings = settings_in(folder, trials_dir=plans)
    site = Site(settings, open_database(settings))
    site.write_plan(**changes)
    return site


__all__ = ["DAY_ZERO", "NOW", "PLAN", "VERSIONS", "Scan", "Site", "VisitRow", "open_site", "spine"]
