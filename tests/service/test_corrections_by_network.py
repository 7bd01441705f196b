"""Corrected segmentations sent to a running node, by C-STORE: each is a new version of its exam."""

import json
from pathlib import Path

import pytest
from corrected_masks import EDITOR, VARIANTS, edited, write_automatic
from node_process import Node, destination
from peers import Storescp, need, storescu, wait_until
from pydicom import dcmread
from small_mr_exam import mapss_signal, write_mapss

from dicom_io.sender import Peer, send_files
from dicom_io.simulated_scanner import write_exam
from processing.phantom import simulate_exam

pytestmark = pytest.mark.peers


def test_six_variants_are_six_versions_and_one_of_another_frame_is_held(tmp_path: Path) -> None:
    need("storescu")
    folder = tmp_path / "scanner"
    folder.mkdir()
    images = write_mapss(folder, mapss_signal(5, 54, 40))
    automatic = write_automatic(images, tmp_path / "seg.dcm")
    with Node(tmp_path, "tiny_analysis:analyse_with_mask") as node:
        storescu(node.port, images)
        wait_until(lambda: [job.state for job in node.jobs] == ["done"], "the exam to be measured", 30)
        newest = node.settings.storage_dir / "results" / "exam-000001" / "result.json"
        for number, write in enumerate(VARIANTS.values()):
            mask = tmp_path / f"corrected{number}.dcm"
            write(automatic, images, mask)
            store(node, mask)
            uid = str(dcmread(mask, stop_before_pixels=True).SOPInstanceUID)
            wait_until(
                lambda uid=uid: json.loads(newest.read_text()).get("corrected") == uid, f"version {number + 2}", 30
            )
        stranger = edited(dcmread(automatic))
        stranger.FrameOfReferenceUID = "1.2.99"
        stranger.save_as(tmp_path / "stranger.dcm")
        store(node, tmp_path / "stranger.dcm")
        wait_until(lambda: node.cases == ["GEOMETRY_INCONSISTENT"], "the case", 20)
        assert [(job.version, job.predecessor) for job in node.jobs] == [(n, n - 1 or None) for n in range(1, 8)]
        assert node.stop() == 0
    assert EDITOR not in node.log
    assert "Traceback" not in node.log


@pytest.mark.slow
def test_a_correction_is_measured_by_the_real_analysis_and_delivered(storescp: Storescp, tmp_path: Path) -> None:
    """A simulated exam of one slice; the corrected discs come back and all results are made anew."""
    need("storescu", "storescp")
    folder = tmp_path / "scanner"
    images = write_exam(simulate_exam(20, n_slices=1, protocol="t1rho-fse"), folder)
    with Node(tmp_path, "service.pipeline:analyse_job", destinations=[destination("archive", storescp)]) as node:
        results = node.settings.storage_dir / "results" / "exam-000001"
        storescu(node.port, images)
        wait_until((results / "v1" / "result.json").is_file, "the first result", 400)
        first = json.loads((results / "v1" / "result.json").read_text())
        wait_until(lambda: len(storescp.files) == len(first["objects"]), "its objects at the archive", 60)
        automatic = results / "v1" / "dicom" / "seg.dcm"
        mask = tmp_path / "corrected.dcm"
        VARIANTS["label map"](automatic, images, mask)
        store(node, automatic)  # an archive that sends everything on
        store(node, mask)
        wait_until((results / "v2" / "result.json").is_file, "the second result", 400)
        second = json.loads((results / "v2" / "result.json").read_text())
        wait_until(lambda: len(storescp.files) == len(first["objects"]) + len(second["objects"]), "the new objects", 60)
        assert [job.state for job in node.jobs] == ["done", "done"]
        assert node.cases == []
    assert second["predecessor"]["version"] == 1
    assert second["correction"]["editor"] == EDITOR
    assert second["correction"]["sop_instance_uid"] == dcmread(mask).SOPInstanceUID
    assert all(0.8 < dice < 1 for dice in second["correction"]["automatic_dice"].values())
    for before, after in zip(first["discs"], second["discs"], strict=True):
        assert after["level"] == before["level"]
        assert after["volume_mm3"] < before["volume_mm3"]
        assert after["t1rho_ms"]["n"] < before["t1rho_ms"]["n"]
    assert EDITOR not in node.log
    assert "Traceback" not in node.log


def store(node: Node, path: Path) -> None:
    """With our own sender: dcmtk does not know label maps."""
    (outcome,) = send_files([path], Peer("127.0.0.1", node.port, "DISCNODE", "VIEWER"))
    assert outcome.status == 0
