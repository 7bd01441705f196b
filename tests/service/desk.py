"""Intake, inbox and record of a node without network, for tests that give the time themselves."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from records import NOW, later, open_database, settings_in
from sqlalchemy import select

from config.settings import Settings
from dicom_io.inbox import Inbox
from dicom_io.receiver import ReceivedInstance, Recorded
from processing.results import Verdict
from service import database as db
from service import jobs, quarantine
from service.arrivals import open_ledger
from service.database import Database
from service.intake import Intake

IDLE_S = 30.0


@dataclass
class Desk:
    """Intake, inbox and record of a node without network; time is given by the test."""

    settings: Settings
    database: Database
    inbox: Inbox
    intake: Intake

    def arrive(self, path: Path, seconds: float = 0.0, *, calling_ae: str = "SCANNER") -> Recorded:
        """Store a file as the receiver does."""
        content = path.read_bytes()
        header = pydicom.dcmread(path, stop_before_pixels=True)
        stored = self.inbox.store((content,))
        received = ReceivedInstance(
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
            study_uid=header.StudyInstanceUID,
            series_uid=header.SeriesInstanceUID,
            transfer_syntax=header.file_meta.TransferSyntaxUID,
            name=stored.name,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            has_pixels=True,
            calling_ae=calling_ae,
            received_at=later(seconds),
        )
        return open_ledger(self.database).record(received)

    def arrive_all(self, paths: list[Path], seconds: float = 0.0, *, calling_ae: str = "SCANNER") -> None:
        for path in paths:
            self.arrive(path, seconds, calling_ae=calling_ae)

    def sweep(self, seconds: float = IDLE_S) -> None:
        self.intake.sweep(later(seconds))

    @property
    def exam(self) -> Any:
        with self.database.read() as connection:
            return connection.execute(select(db.exam)).one()

    @property
    def series_uids(self) -> list[str]:
        with self.database.read() as connection:
            return sorted(set(connection.execute(select(db.instance.c.series_uid)).scalars()))

    @property
    def jobs(self) -> list[jobs.Job]:
        return jobs.list_jobs(self.database)

    @property
    def cases(self) -> list[tuple[str, str]]:
        return [(item.code, item.state) for item in quarantine.list_items(self.database)]

    @property
    def refusal(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(
            (self.settings.storage_dir / "results" / "exam-000001" / "result.json").read_text()
        )
        return content

    def run_job(self, verdict: Verdict = Verdict.OK) -> None:
        job = jobs.claim(self.database, "w", NOW, 60.0)
        assert job is not None
        jobs.finish(self.database, job, verdict, (), (), NOW)


@contextmanager
def open_desk(folder: Path, **settings: Any) -> Iterator[Desk]:
    configured = settings_in(folder, **settings)
    database = open_database(configured)
    yield Desk(configured, database, Inbox(database.inbox_dir), Intake(database, configured))
    database.close()
