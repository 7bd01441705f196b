"""A record whose results go to one storage SCP by a rule, for tests of release; time is given by the test."""

from pathlib import Path
from typing import Any

import numpy as np
from records import NOW, add_exam, add_job, later, open_database, settings_in
from small_mr_exam import mr_dataset
from sqlalchemy import select

from config.settings import Destination, Settings
from config.trial_plans import TrialPlan
from processing.results import Verdict
from service import database as db
from service import holds, jobs, release
from service.database import Database
from service.deliveries import list_deliveries
from service.delivery import deliver_due
from service.outbox import Parcel
from service.signatures import Signing
from tests.peers import Storescp

MEANING = "I reviewed the segmentation and approve release"
PLAN = TrialPlan.model_validate(
    {
        "protocol_id": "DISC-1",
        "sites": [{"id": "S1"}],
        "visits": [{"name": "BL", "day": 0, "baseline": True}, {"name": "M12", "day": 365}],
        "protocol": "ge-mapss",
        "release": "hold_on_warning",
        "destinations": ["pacs"],
    }
)


def signing(**changes: Any) -> Signing:
    values = {"by": "Dr Reader", "via": "test", "at": later(60), "meaning": MEANING, "reason": "as the charter says"}
    return Signing(**{**values, **changes})


class Node:
    """A record whose results go to one storage SCP, by a rule."""

    def __init__(self, folder: Path, scp: Storescp, rule: str, **settings: Any) -> None:
        self.scp = scp
        to_it = {"name": "pacs", "ae_title": scp.ae_title, "host": "127.0.0.1", "port": scp.port}
        routes = [{"send_to": ["pacs"], "release": rule}]
        self.settings: Settings = settings_in(
            folder, destinations=[{**to_it, "confirm": "none"}], routes=routes, delivery={"timeout_s": 5.0}, **settings
        )
        self.database: Database = open_database(self.settings)

    def restart(self) -> None:
        self.database.close()
        self.database = open_database(self.settings)

    @property
    def destination(self) -> Destination:
        return self.settings.destinations[0]

    def finish(self, verdict: Verdict = Verdict.OK, *, study: str = "1.2.3", trial: TrialPlan | None = None) -> int:
        """A job of the study's exam is done, with two objects and a result.json; its number."""
        with self.database.read() as connection:
            exam = connection.execute(select(db.exam.c.id).where(db.exam.c.study_uid == study)).scalar()
        exam = add_exam(self.database, study) if exam is None else exam
        job_id = add_job(self.database, exam, digest=f"d{len(jobs.list_jobs(self.database))}")
        job = jobs.claim(self.database, "w", NOW, 60.0)
        assert job is not None
        assert job.id == job_id
        folder = self.settings.storage_dir / job.result_folder
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(f'{{"version": {job.version}}}')
        facts = {"calling_ae": job.calling_ae, "protocol": job.protocol, "destination": "pacs"}
        rule = release.release_for(self.settings, **facts, trial=trial)
        held = release.holds_for(self.settings, **facts, trial=trial, verdict=verdict)
        held |= {} if trial is None else holds.awaits_visit(trial)
        parcels = []
        for number in range(2):
            uid = f"{study}.{job.version}.{number}"
            image = mr_dataset(
                np.full((6, 5), number, dtype=np.uint16),
                SOPInstanceUID=uid,
                StudyInstanceUID=study,
                SeriesInstanceUID=f"{study}.1",
            )
            image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
            parcels.append(Parcel(uid, "seg", str(job.result_folder / f"{number}.dcm"), "pacs", held, rule))
        jobs.finish(self.database, job, verdict, (), parcels, NOW)
        return job_id

    def deliver(self, seconds: float = 120.0) -> int:
        return deliver_due(self.database, self.destination, self.settings, now=lambda: later(seconds))

    def states(self, job_id: int) -> set[str]:
        return {str(one.state) for one in list_deliveries(self.database) if one.job_id == job_id}

    def take_for_visit(self, job_id: int, *warnings: str, plan: TrialPlan = PLAN) -> None:
        """As the desk of trials does when it knows whose exam it is."""
        with self.database.write() as connection:
            holds.settle(connection, job_id, warnings, plan)
