"""A real node whose results a person releases: killed before and after the decision, nothing leaves without one."""

from pathlib import Path

import pytest
from node_process import Node, destination
from peers import Storescp, need, storescu, wait_until
from small_mr_exam import mapss_signal, write_mapss

from service.cli import main
from service.deliveries import list_deliveries

MEANING = "I reviewed the segmentation and approve release"


@pytest.mark.peers
def test_nothing_leaves_a_node_before_the_signature_and_all_of_it_after(tmp_path: Path) -> None:
    need("storescp", "storescu")
    (tmp_path / "scanner").mkdir()
    images = write_mapss(tmp_path / "scanner", mapss_signal())
    with Storescp(tmp_path / "archive") as archive:
        to_it = destination("archive", archive) | {"confirm": "none", "objects": ["seg", "overlay"]}
        routes = [{"send_to": [to_it["name"]], "release": "hold"}]
        node = Node(tmp_path, destinations=[to_it], routes=routes)

        def states() -> set[str]:
            return {str(one.state) for one in node.ask(list_deliveries)}

        node.start()
        assert storescu(node.port, images).returncode == 0
        wait_until(lambda: states() == {"held"}, "the held result")
        node.kill()
        archive.stop()  # so that the decision and the delivery lie apart
        node.start()
        said = ["--by", "Dr Ann", "--meaning", MEANING, "--config", str(node.config)]
        assert main(["release", "approve", "1", *said]) == 0
        node.kill()
        assert archive.files == []
        assert states() == {"waiting"}
        archive.start()
        node.start()
        wait_until(lambda: states() == {"sent"}, "the delivery")
        assert len(archive.files) == 2
        assert main(["release", "reject", "1", "--code", "MOTION", "--reason", "late", *said]) == 3
        node.kill()
