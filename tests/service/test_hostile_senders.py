"""Senders as they are: several associations, long pauses, aborts; and exams that only others know to be whole."""

import json
import random
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from node_process import Node
from peers import PEER_ENVIRONMENT, Orthanc, need, storescu, wait_until
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import func, select

from service import database as db

pytestmark = [pytest.mark.peers, pytest.mark.slow]

AT_ONCE_S = 5.0


@pytest.fixture(autouse=True)
def _peers() -> None:
    need("storescu", "dcmsend", "Orthanc")


def scan(folder: Path, **attributes: Any) -> list[Path]:
    (folder / "scanner").mkdir()
    return write_mapss(folder / "scanner", mapss_signal(), **attributes)


def send(node: Node, parts: list[list[Path]]) -> None:
    """Several associations at once."""
    senders = [threading.Thread(target=storescu, args=(node.port, part)) for part in parts]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def waited_s(node: Node) -> float:
    """Seconds from the last image to the newest job."""

    def ask(database: Any) -> tuple[datetime, datetime]:
        with database.read() as connection:
            last = connection.execute(select(func.max(db.instance.c.received_at))).scalar_one()
            created = connection.execute(select(func.max(db.job.c.created_at))).scalar_one()
            return last, created

    last, created = node.ask(ask)
    return (created - last).total_seconds()


def test_random_order_on_four_associations_with_long_pauses_and_aborts_is_one_analysis(tmp_path: Path) -> None:
    """Each pause is three idle times; one sender aborts in the middle, one is killed, and both begin again."""
    images = scan(tmp_path)
    random.Random(4).shuffle(images)
    idle_s = 0.5
    with Node(tmp_path, completion={"idle_s": idle_s, "sweep_s": 0.2}) as node:
        storescu(node.port, images[:9], "--abort")
        time.sleep(3 * idle_s)
        command = ["dcmsend", "-aet", "SCANNER", "-aec", "DISCNODE", "127.0.0.1", str(node.port)]
        killed = subprocess.Popen([*command, *map(str, images)], env=PEER_ENVIRONMENT, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(node.instances) > 12, "some images to arrive")
        killed.kill()
        killed.wait()
        n_before = len(node.instances)
        time.sleep(3 * idle_s)
        if n_before < 28:
            assert node.jobs == []
        send(node, [images[start:20:4] for start in range(4)])
        time.sleep(3 * idle_s)
        send(node, [images[start::4] for start in range(4)])
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 30)
        time.sleep(3 * idle_s)
        (job,) = node.jobs
        assert (len(job.inputs), job.version) == (28, 1)
        assert waited_s(node) < AT_ONCE_S
    assert "Traceback" not in node.log


def test_the_count_of_a_source_starts_the_job_at_once(tmp_path: Path) -> None:
    """With the default settings, of which the timer is two minutes."""
    images = scan(tmp_path, ImagesInAcquisition=None)
    with Orthanc(tmp_path / "orthanc") as pacs:
        storescu(pacs.port, images, called="ORTHANC")
        source = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs.port}
        with Node(tmp_path, completion={}, sources=[source]) as node:
            send(node, [images[:14], images[14:]])
            wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 30)
            assert 2.0 < waited_s(node) < AT_ONCE_S


def test_a_commitment_request_starts_the_job_at_once_and_is_answered(tmp_path: Path) -> None:
    images = scan(tmp_path, ImagesInAcquisition=None)
    with Node(tmp_path, completion={}) as node:
        storescu(node.port, images)
        time.sleep(2.5)
        assert node.jobs == []
        asked_at = time.monotonic()
        _ask_for_commitment(node)
        wait_until(lambda: node.jobs, "the job", 30)
        assert time.monotonic() - asked_at < AT_ONCE_S
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job to be done", 30)


def _ask_for_commitment(node: Node) -> None:
    information = Dataset()
    information.TransactionUID = "1.2.77"
    information.ReferencedSOPSequence = []
    for uid in node.instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, uid
        information.ReferencedSOPSequence.append(item)
    ae = AE("SCANNER")
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate("127.0.0.1", node.port, ae_title="DISCNODE")
    status, _ = association.send_n_action(
        information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    assert status.Status == 0
    association.release()


def test_missing_images_heal_and_a_late_slice_makes_a_version_that_names_the_first(tmp_path: Path) -> None:
    """Two of 21 images did not come but lie in the PACS; later the whole fourth slice comes."""
    images = scan(tmp_path, ImagesInAcquisition=None)
    fourth = [path for path in images if path.name.endswith("-3")]
    first = [path for path in images if path not in fourth]
    with Orthanc(tmp_path / "orthanc") as pacs:
        storescu(pacs.port, first, called="ORTHANC")
        source = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs.port, "retrieve": ["c-get"]}
        with Node(tmp_path, completion={"idle_s": 1.0, "sweep_s": 0.2}, sources=[source]) as node:
            storescu(node.port, first[2:])
            wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 30)
            assert [len(job.inputs) for job in node.jobs] == [21]
            storescu(pacs.port, fourth, called="ORTHANC")
            storescu(node.port, fourth)
            wait_until(lambda: [job.state for job in node.jobs] == ["done"] * 2, "the second job", 30)
            assert [(job.version, job.predecessor, len(job.inputs)) for job in node.jobs] == [(1, None, 21), (2, 1, 28)]
            results = node.settings.storage_dir / "results" / "exam-000001"
            newest, earlier = (json.loads((results / name).read_text()) for name in ("result.json", "v1/result.json"))
            assert (earlier["version"], newest["version"], newest["predecessor"]["version"]) == (1, 2, 1)
            assert "predecessor" not in earlier
            made = {one["sop_instance_uid"] for one in earlier["objects"]}
            assert {one["sop_instance_uid"] for one in newest["predecessor"]["objects"]} == made
            storescu(node.port, images)
            time.sleep(2)
            assert len(node.jobs) == 2
