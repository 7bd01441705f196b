"""Exams of trial subjects in a node's record, with real headers and results as small as can be."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from records import open_database, settings_in
from sqlalchemy import insert, select

from config.settings import Settings
from service import database as db
from service import jobs
from service.database import Database
from service.states import ExamState, InstanceState

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
NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


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


def open_site(folder: Path, **changes: Any) -> Site:
    """A node that follows one trial. ``changes``: of its plan."""
    plans = folder / "trials"
    plans.mkdir()
    settings = settings_in(folder, trials_dir=plans)
    site = Site(settings, open_database(settings))
    site.write_plan(**changes)
    return site


__all__ = ["DAY_ZERO", "NOW", "PLAN", "Scan", "Site", "open_site", "pydicom", "replace", "select"]
