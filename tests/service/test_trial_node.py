"""A trial at a whole node: images by C-STORE become a visit, its priors come from Orthanc by C-MOVE, results go on."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from node_process import Node, destination
from peers import Orthanc, Storescp, free_port, need, storescu, wait_until
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import select
from trial_site import PLAN

from service import trial_tables as db
from service.deliveries import list_deliveries

pytestmark = pytest.mark.peers

BASELINE = date(2025, 3, 3)


def _scan(folder: Path, number: int, day: int, **told: Any) -> list[Path]:
    """A small MAPSS exam of the subject, so many days after the baseline."""
    folder.mkdir()
    study, on = f"1.2.7.{number}", f"{BASELINE + timedelta(days=day):%Y%m%d}"
    names = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "PatientID": "HOSP-1", "StudyDate": on}
    paths = write_mapss(folder, mapss_signal(3), **names, AcquisitionDate=on, AcquisitionTime="101500", **told)
    for path in paths:
        dataset = pydicom.dcmread(path)
        uid = dataset.SOPInstanceUID.replace("1.2.3", study)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.save_as(path)
    return paths


def _visits(node: Node) -> dict[str, str]:
    """Visit -> state."""

    def read(database: Any) -> dict[str, str]:
        with database.read() as connection:
            return {row.name: row.state for row in connection.execute(select(db.visit))}

    found: dict[str, str] = node.ask(read)
    return found


def test_a_visit_and_its_priors(storescp: Storescp, tmp_path: Path) -> None:
    need("Orthanc", "storescu", "storescp")
    port = free_port()
    plans = tmp_path / "trials"
    plans.mkdir()
    plan = PLAN | {"release": "automatic", "destinations": ["archive"]}
    (plans / "disc.yaml").write_text(json.dumps(plan))
    told = {"ClinicalTrialProtocolID": "DISC-1", "ClinicalTrialSiteID": "01", "ClinicalTrialSubjectID": "01-001"}
    with Orthanc(tmp_path / "orthanc", modalities={"DISCNODE": port}) as pacs:
        for number, day in ((2, 95), (3, 140), (4, -500)):  # in the window of M3, in none, years before
            files = _scan(tmp_path / f"prior-{number}", number, day)
            assert storescu(pacs.port, files, called="ORTHANC").returncode == 0
        source = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs.port}
        node = Node(
            tmp_path,
            port=port,
            trials_dir=str(plans),
            sources=[source | {"retrieve": ["c-move"]}],
            destinations=[destination("archive", storescp)],
        )
        node.port = port
        node.start()
        try:
            first = _scan(tmp_path / "baseline", 1, 0, ClinicalTrialTimePointID="BL", **told)
            assert storescu(port, first).returncode == 0
            wait_until(lambda: _visits(node) == {"BL": "measured", "M3": "measured"}, "both visits", 90)
            wait_until(lambda: len(storescp.files) == 4, "the results of both visits at the archive", 60)
            assert {one.state for one in node.ask(list_deliveries)} <= {"sent", "confirmed"}
        finally:
            node.stop()
    assert "HOSP-1" not in node.log
    assert len(node.jobs) == 2
