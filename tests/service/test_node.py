"""The whole node as a user runs it: real processes, real peers, real kills. Only the analysis is a small one."""

import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import pytest
from node_process import SERVE, TESTS, Node, destination
from peers import (
    PEER_ENVIRONMENT,
    Orthanc,
    Storescp,
    acknowledged,
    dcmsend,
    echoscu,
    free_port,
    is_listening,
    need,
    statuses,
    storescu,
    wait_until,
)
from small_mr_exam import mapss_signal, mr_dataset, write_mapss

from service.delivery import list_deliveries

pytestmark = pytest.mark.peers


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A whole MAPSS exam of 28 images."""
    folder = tmp_path / "scanner"
    folder.mkdir()
    return write_mapss(folder, mapss_signal())


@pytest.fixture(autouse=True)
def _peers() -> None:
    need("storescu", "dcmsend", "echoscu", "storescp")


def uids_of(files: Sequence[Path]) -> list[str]:
    return sorted(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files)


def test_an_exam_goes_in_and_its_results_come_back(
    images: list[Path], storescp: Storescp, orthanc: Orthanc, tmp_path: Path
) -> None:
    """Three associations at once, any order; results at two archives, once each; nothing of the patient logged."""
    random.Random(5).shuffle(images)
    with Node(tmp_path, destinations=[destination("dcmtk", storescp), destination("orthanc", orthanc)]) as node:
        senders = [threading.Thread(target=storescu, args=(node.port, images[start::3])) for start in range(3)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        wait_until(lambda: len(storescp.files) == 2 and len(orthanc.sop_instance_uids) == 2, "the results", 30)
        (job,) = node.jobs
        assert (job.verdict, len(job.inputs)) == ("ok", 28)
        assert uids_of(storescp.files) == orthanc.sop_instance_uids
        assert node.stop() == 0
    assert "Phantom" not in node.log
    assert "P-17" not in node.log
    assert "Traceback" not in node.log


def test_an_exam_in_two_halves_is_one_analysis(images: list[Path], storescp: Storescp, tmp_path: Path) -> None:
    with Node(tmp_path, destinations=[destination("dcmtk", storescp)]) as node:
        storescu(node.port, images[:11])
        wait_until(lambda: node.cases == ["SERIES_INCOMPLETE"], "the exam to be called incomplete", 30)
        refusal = json.loads((node.settings.storage_dir / "results" / "exam-000001" / "result.json").read_text())
        assert refusal["status"] == "refused"
        storescu(node.port, images[11:])
        wait_until(lambda: len(storescp.files) == 2, "the results", 30)
        assert len(node.jobs) == 1
    assert "SERIES_INCOMPLETE" in node.log


def test_what_cannot_be_measured_is_kept_with_a_reason(images: list[Path], tmp_path: Path) -> None:
    ct, empty = tmp_path / "ct.dcm", tmp_path / "empty.dcm"
    pixels = np.zeros((6, 5), dtype=np.uint16)
    mr_dataset(pixels, SOPClassUID=pydicom.uid.CTImageStorage, SOPInstanceUID="1.9.1", Modality="CT").save_as(ct)
    without = mr_dataset(pixels, SOPInstanceUID="1.9.2")
    del without.PixelData
    without.save_as(empty)
    dataset = pydicom.dcmread(ct)
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.save_as(ct)
    with Node(tmp_path) as node:
        assert statuses(storescu(node.port, [ct, empty, *images])) == ["Success"] * 30
        wait_until(lambda: sorted(node.cases) == ["UNSUPPORTED_OBJECT"] * 2, "both cases", 20)
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 20)
        assert len(node.instances) == 30
    assert node.log.count("code=UNSUPPORTED_OBJECT") >= 2


def test_every_acknowledged_image_survives_kill_9(tmp_path: Path) -> None:
    """Killed while dcmsend sends: after a restart every image with Success is on disk, whole and indexed."""
    folder = tmp_path / "scanner"
    folder.mkdir()
    files = write_mapss(folder, mapss_signal(60, 64, 64))
    sent = {str(pydicom.dcmread(path).SOPInstanceUID): pydicom.dcmread(path) for path in files}
    node = Node(tmp_path)
    node.start()
    report = tmp_path / "report.txt"
    sender = threading.Thread(target=dcmsend, args=(node.port, files, report))
    sender.start()
    wait_until(lambda: node.log.count(" stored ") > 40, "some images to arrive")
    node.kill()
    sender.join(60)
    acked = acknowledged(report)
    assert 40 <= len(acked) < len(files)

    node.start()
    stored = node.instances
    assert acked <= set(stored)
    for uid in acked:
        assert pydicom.dcmread(stored[uid]) == sent[uid]
    assert list((node.settings.storage_dir / "inbox" / "incoming").iterdir()) == []
    assert dcmsend(node.port, files, tmp_path / "second.txt").returncode == 0
    assert len(acknowledged(tmp_path / "second.txt")) == len(files)
    wait_until(lambda: [job.state for job in node.jobs] == ["done"], "one job", 40)
    node.stop()


def test_kill_9_of_the_worker_gives_exactly_one_result_set(
    images: list[Path], storescp: Storescp, tmp_path: Path
) -> None:
    with Node(tmp_path, "tiny_analysis:analyse_slowly", destinations=[destination("dcmtk", storescp)]) as node:
        storescu(node.port, images)
        wait_until(lambda: [job.state for job in node.jobs] == ["running"], "the job to run", 30)
        node.process("worker").kill()
        wait_until(lambda: "job lost its worker" in node.log, "the supervisor to notice", 10)
        assert echoscu(node.port)
        wait_until(lambda: len(storescp.files) == 2, "the results", 40)
        time.sleep(1.0)
        (job,) = node.jobs
        assert (job.state, job.attempts) == ("done", 2)
        assert len(list_deliveries_of(node)) == 2
        assert len(storescp.files) == 2
        results = node.settings.storage_dir / "results" / "exam-000001"
        assert sorted(path.name for path in results.iterdir()) == ["result.json", "v1"]


def list_deliveries_of(node: Node) -> list[Any]:
    found: list[Any] = node.ask(list_deliveries)
    return found


def test_kill_9_of_the_node_during_a_job_repeats_it_after_the_restart(
    images: list[Path], storescp: Storescp, tmp_path: Path
) -> None:
    node = Node(tmp_path, "tiny_analysis:analyse_slowly", destinations=[destination("dcmtk", storescp)])
    node.start()
    storescu(node.port, images)
    wait_until(lambda: [job.state for job in node.jobs] == ["running"], "the job to run", 30)
    node.kill()
    assert not is_listening(node.port)
    node.start()
    wait_until(lambda: len(storescp.files) == 2, "the results", 40)
    assert [job.state for job in node.jobs] == ["done"]
    node.stop()


def test_a_stop_during_a_job_is_quick_and_the_job_runs_later(images: list[Path], tmp_path: Path) -> None:
    node = Node(tmp_path, "tiny_analysis:analyse_slowly")
    node.start()
    storescu(node.port, images)
    wait_until(lambda: [job.state for job in node.jobs] == ["running"], "the job to run", 30)
    assert node.stop() == 0
    assert [(job.state, job.attempts) for job in node.jobs] == [("queued", 0)]
    with node:
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 40)
    assert node.jobs[0].attempts == 1


def test_a_killed_receiver_is_replaced(images: list[Path], tmp_path: Path) -> None:
    with Node(tmp_path) as node:
        node.process("reception").kill()
        wait_until(lambda: node.log.count(" ready ") == 2, "another receiver", 30)
        assert statuses(storescu(node.port, images)) == ["Success"] * 28


def test_a_worker_that_hangs_is_replaced_and_its_job_runs_elsewhere(images: list[Path], tmp_path: Path) -> None:
    with Node(tmp_path, "tiny_analysis:analyse_slowly") as node:
        storescu(node.port, images)
        wait_until(lambda: [job.state for job in node.jobs] == ["running"], "the job to run", 30)
        hanging = node.process("worker")
        hanging.suspend()
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 60)
        assert not hanging.is_running()
        assert node.jobs[0].attempts == 2


def test_the_nodes_own_echo_is_no_rejection_worth_a_line(images: list[Path], tmp_path: Path) -> None:
    web = free_port()
    with Node(tmp_path, peers=[{"ae_title": "SCANNER"}], web={"port": web}) as node:
        wait_until(lambda: is_ready(web), "an answered echo", 30)
        assert "association rejected" not in node.log
        assert statuses(storescu(node.port, images[:1], calling="STRANGER")) == []
        wait_until(lambda: "association rejected" in node.log, "the line about a stranger", 10)


def is_ready(web_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_destination_that_was_down_gets_the_results_when_it_is_up(
    images: list[Path], storescp: Storescp, tmp_path: Path
) -> None:
    late = Storescp(tmp_path / "late", ae_title="LATE")
    with Node(tmp_path, destinations=[destination("now", storescp), destination("late", late)]) as node:
        storescu(node.port, images)
        wait_until(lambda: len(storescp.files) == 2, "the results at the archive that is up", 30)
        wait_until(lambda: "not sent" in node.log, "a failed try", 20)
        node.stop()
        node.start()
        with late:
            wait_until(lambda: len(late.files) == 2, "the results at the other", 40)
            wait_until(lambda: all(one.state == "sent" for one in list_deliveries_of(node)), "the record of it", 10)
        assert len(storescp.files) == 2


def test_echo_is_answered_within_a_second_while_a_job_runs(images: list[Path], tmp_path: Path) -> None:
    with Node(tmp_path, "tiny_analysis:analyse_slowly") as node:
        storescu(node.port, images)
        wait_until(lambda: [job.state for job in node.jobs] == ["running"], "the job to run", 30)
        waits_s = []
        for _ in range(5):
            start_s = time.monotonic()
            assert echoscu(node.port)
            waits_s.append(time.monotonic() - start_s)
        assert sorted(waits_s)[2] < 1.0  # the median: the machine of the tests may be busy with something else


def test_the_node_without_workers_is_light(images: list[Path], tmp_path: Path) -> None:
    with Node(tmp_path, web={"port": free_port()}) as node:
        storescu(node.port, images)
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the job", 30)
        supervisor, receiver = psutil.Process(node.pid), node.process("reception")
        assert supervisor.memory_info().rss + receiver.memory_info().rss < 400e6
        for process in (supervisor, receiver):
            loaded = " ".join(one.path for one in process.memory_maps())
            for heavy in ("torch", "onnxruntime", "_elxElastixPython", "_ITKCommonPython", "matplotlib"):
                assert heavy not in loaded


def get_ready(port: int) -> tuple[int, dict[str, bool]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_health_tells_the_truth(tmp_path: Path) -> None:
    web = free_port()
    with Node(tmp_path, web={"port": web}) as node:
        wait_until(lambda: is_listening(web), "the HTTP server", 20)
        wait_until(lambda: get_ready(web)[0] == 200, "the node to be ready", 20)
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/health/live", timeout=5) as answer:
            assert answer.status == 200
        receiver = node.process("reception")
        receiver.suspend()  # it is there, and listens, but does not answer
        try:
            status, facts = wait_until(
                lambda: (found := get_ready(web))[0] == 503 and found, "the node to say that it is not ready", 40
            )
            assert (status, facts["receiver"], facts["database"]) == (503, False, True)
        finally:
            receiver.resume()
        wait_until(lambda: get_ready(web)[0] == 200, "the node to be ready again", 20)


def test_a_second_node_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Node(tmp_path) as node:
        command = [sys.executable, "-c", SERVE, str(node.config), node.analysis]
        second = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "another node uses the storage folder" in second.stderr
        assert echoscu(node.port)


def test_a_port_in_use_ends_the_node_with_a_message(tmp_path: Path, storescp: Storescp) -> None:
    node = Node(tmp_path, port=storescp.port)
    command = [sys.executable, "-c", SERVE, str(node.config), node.analysis]
    result = subprocess.run(
        command, cwd=TESTS.parent, env=PEER_ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "cannot listen" in result.stderr


@pytest.mark.peers
def test_results_are_confirmed_by_an_archive_that_calls_back(images: list[Path], tmp_path: Path) -> None:
    """Orthanc takes our commitment request and sends its result to our receiver, over an association of its own.

    Then it asks us, and our result goes to it.
    """
    need("Orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc", modalities={"DISCNODE": port}) as pacs:
        where = destination("pacs", pacs) | {"confirm": "commitment"}
        waits = {"first_retry_s": 0.5, "timeout_s": 5, "confirm_after_s": 0}
        with Node(tmp_path, port=port, destinations=[where], delivery=waits) as node:
            storescu(port, images)
            wait_until(lambda: len(pacs.sop_instance_uids) == 2, "the results at the archive", 60)
            wait_until(lambda: confirmed_by(node) == ["commitment"] * 2, "the archive's word", 30)
            sent = [(one.SOPClassUID, one.SOPInstanceUID) for one in map(pydicom.dcmread, images)]
            transaction = pacs.ask_commitment("DISCNODE", sent)  # and the other way round
            wait_until(lambda: pacs.commitment_status(transaction) == "Success", "our word", 30)


def confirmed_by(node: Node) -> list[str | None]:
    return [one.confirmed_by for one in list_deliveries_of(node)]
