"""Corrected segmentations sent to a running node, by C-STORE: each is a new version of its exam."""

import json
from pathlib import Path

import pytest
from corrected_masks import EDITOR, VARIANTS, edited, write_automatic
from node_process import Node
from peers import need, storescu, wait_until
from pydicom import dcmread
from small_mr_exam import mapss_signal, write_mapss

from dicom_io.sender import Peer, send_files

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


def store(node: Node, path: Path) -> None:
    """With our own sender: dcmtk does not know label maps."""
    (outcome,) = send_files([path], Peer("127.0.0.1", node.port, "DISCNODE", "VIEWER"))
    assert outcome.status == 0
