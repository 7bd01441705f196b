"""A record with one finished job whose objects wait for destinations; time is given by the test."""

from pathlib import Path
from typing import Any

import numpy as np
from records import NOW, add_exam, add_job, later, open_database, settings_in
from small_mr_exam import mr_dataset

from config.settings import Destination
from processing.results import Verdict
from service import jobs
from service.confirmation import confirm_due
from service.database import Database
from service.deliveries import Delivery, send_again
from service.delivery import deliver_due, list_deliveries
from service.outbox import Parcel

STUDY, SERIES = "1.2.3", "1.2.3.1"


def scp_destination(name: str, scp: Any, **more: Any) -> Destination:
    """A destination that is a storage SCP with ``ae_title`` and ``port`` on this machine."""
    return Destination(name=name, ae_title=scp.ae_title, host="127.0.0.1", port=scp.port, **more)


class Outbox:
    """A record with one finished job of ``n_objects`` objects for each destination."""

    def __init__(self, folder: Path, *destinations: Destination, n_objects: int = 3, **settings: Any) -> None:
        content = {"destinations": [one.model_dump() for one in destinations], "delivery": {"timeout_s": 3.0}}
        self.settings = settings_in(folder, **{**content, **settings})
        self.database: Database = open_database(self.settings)
        self.finish_job(n_objects)

    def finish_job(self, n_objects: int, study: str = "1.2.3") -> None:
        """One more job is done: objects ``{study}.0``, ``{study}.1`` ... wait for each destination."""
        add_job(self.database, add_exam(self.database, study))
        job = jobs.claim(self.database, "w", NOW, 60.0)
        assert job is not None
        parcels = []
        for number in range(n_objects):
            uid = f"{study}.{number}"
            path = Path("results") / (f"{number}.dcm" if study == "1.2.3" else f"{uid}.dcm")
            (self.settings.storage_dir / path).parent.mkdir(exist_ok=True)
            attributes = {"SOPInstanceUID": uid, "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
            image = mr_dataset(np.full((6, 5), number, dtype=np.uint16), **attributes)
            image.save_as(self.settings.storage_dir / path, enforce_file_format=True)
            parcels += [Parcel(uid, "overlay", str(path), one.name) for one in self.settings.destinations]
        jobs.finish(self.database, job, Verdict.OK, (), parcels, NOW)

    def restart(self) -> None:
        """As after a restart of the node."""
        self.database.close()
        self.database = open_database(self.settings)

    def destination(self, name: str) -> Destination:
        (found,) = [one for one in self.settings.destinations if one.name == name]
        return found

    def deliver(self, name: str, seconds: float = 0.0) -> int:
        return deliver_due(self.database, self.destination(name), self.settings, now=lambda: later(seconds))

    def confirm(self, name: str, seconds: float) -> None:
        confirm_due(self.database, self.destination(name), self.settings, now=lambda: later(seconds))

    def retry(self, name: str, sop_uid: str) -> None:
        """As a person who wants an object sent again."""
        (number,) = [one.id for one in self.rows(name) if one.sop_uid == sop_uid]
        assert send_again(self.database, number, NOW)

    def rows(self, name: str) -> list[Delivery]:
        return list_deliveries(self.database, destination=name)

    def states(self, name: str) -> list[str]:
        return [str(one.state) for one in self.rows(name)]

    def sent(self, name: str) -> int:
        return self.states(name).count("sent")


__all__ = ["NOW", "SERIES", "STUDY", "Outbox", "later", "scp_destination"]
