"""A simulated scanner, the real node with the real network and elastix, and Orthanc at the other end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from peers import Orthanc, acknowledged, dcmsend, echoscu, free_port, need, wait_until

from dicom_io.simulated_scanner import write_exam
from processing.phantom import PhantomExam, simulate_exam
from service.demo import compare

SEED = 20
#: Beside a derived MR image for each slice: the segmented images, the two maps, the atlas.
EXPECTED_KINDS = {"seg": 1, "pmap": 12, "sr": 2, "pdf": 1, "overlay": 1, "deformation": 5}


def discnode(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *(str(one) for one in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(SEED)


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scanner")


@pytest.fixture(scope="module")
def images(exam: PhantomExam, scanner: Path) -> list[Path]:
    return write_exam(exam, scanner)


@pytest.fixture(scope="module")
def processed(images: list[Path], scanner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exam analysed by ``discnode process``."""
    out = tmp_path_factory.mktemp("processed")
    run = discnode("process", scanner, "--out", out)
    assert run.returncode == 0, run.stderr
    return out


def numbers(result: dict[str, Any]) -> list[Any]:
    """What was measured, without times and paths."""
    return result["discs"]


@pytest.mark.slow
def test_files_give_five_rightly_named_discs_close_to_the_truth(processed: Path, exam: PhantomExam) -> None:
    result = json.loads((processed / "result.json").read_text())
    rows = compare(exam, result)
    assert [row.level.name for row in rows] == ["L5S1", "L4L5", "L3L4", "L2L3", "L1L2"]
    assert all(row.is_close for row in rows), rows
    kinds = Counter(one["kind"] for one in result["objects"])
    assert kinds.pop("mr") > 3 * exam.labels.shape[0]
    assert kinds == EXPECTED_KINDS
    assert all((processed / one["path"]).is_file() for one in result["objects"])
    assert (processed / "qc.png").stat().st_size > 20_000
    for disc in result["discs"]:
        assert disc["registration"]["dice"] > 0.85
        assert disc["registration"]["min_jacobian"] > 0
        regions = disc["regions"]
        assert set(regions) == {"nucleus", "anterior_annulus", "posterior_annulus"}
        assert all(region["t2_ms"]["n"] > 0 for region in regions.values())


@pytest.mark.slow
@pytest.mark.peers
def test_exam_sent_by_dcmsend_is_found_at_orthanc_with_the_numbers_of_process(
    tmp_path: Path, images: list[Path], processed: Path
) -> None:
    need("dcmsend", "Orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc") as archive:
        config = tmp_path / "discnode.yaml"
        destination = {"name": "archive", "ae_title": archive.ae_title, "host": "127.0.0.1", "port": archive.port}
        settings = {"port": port, "storage_dir": "node", "completion": {"idle_s": 60}, "destinations": [destination]}
        config.write_text(yaml.safe_dump(settings))
        with (tmp_path / "node.log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve", "--config", str(config)], stdout=log, stderr=log
            )
        try:
            wait_until(lambda: echoscu(port), "the node to answer", 90)
            shuffled = [images[index] for index in np.random.default_rng(0).permutation(len(images))]
            half = len(shuffled) // 2
            for number, part in enumerate((shuffled[:half], shuffled[half:])):  # one exam, two associations
                report = tmp_path / f"report{number}.txt"
                dcmsend(port, part, report)
                assert len(acknowledged(report)) == len(part)

            slowest_echo_s = 0.0

            def result_file() -> Path | None:
                nonlocal slowest_echo_s
                start = time.monotonic()
                assert echoscu(port)
                slowest_echo_s = max(slowest_echo_s, time.monotonic() - start)
                time.sleep(0.5)
                return next(iter(sorted((tmp_path / "node" / "results").glob("*/*/result.json"))), None)

            found = wait_until(result_file, "the result", 300)
            has_the_machine_alone = os.environ.get("CI") != "true" and "PYTEST_XDIST_WORKER" not in os.environ
            assert slowest_echo_s < (1.0 if has_the_machine_alone else 3.0)
            objects = json.loads(found.read_text())["objects"]
            wanted = {one["sop_instance_uid"] for one in objects if one["kind"] != "deformation"}  # by default not sent
            wait_until(lambda: len(archive.sop_instance_uids) >= len(wanted), "the results at Orthanc", 120)
            (study,) = archive.qido("studies?includefield=0020000D")
            at_archive = archive.qido(f"studies/{study['0020000D']['Value'][0]}/instances")
        finally:
            node.send_signal(signal.SIGTERM)
            assert node.wait(timeout=60) == 0

        served, direct = json.loads(found.read_text()), json.loads((processed / "result.json").read_text())
        assert numbers(served) == numbers(direct)
        assert {one["00080018"]["Value"][0] for one in at_archive} == wanted
    listed = discnode("quarantine", "list", "--config", config)
    assert listed.returncode == 0
    assert listed.stdout == ""
