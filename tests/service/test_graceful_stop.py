"""SIGTERM: what goes out is finished, jobs are given back, within a bound; a second SIGTERM ends the waiting."""

import signal
import time
from pathlib import Path

import psutil
import pytest
from node_process import Node, destination
from peers import Storescp, need, storescu, wait_until
from small_mr_exam import mapss_signal, write_mapss

from service.delivery import list_deliveries

pytestmark = pytest.mark.peers


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    need("storescu", "storescp")
    folder = tmp_path / "scanner"
    folder.mkdir()
    return write_mapss(folder, mapss_signal())


def sent(node: Node) -> list[str]:
    return [str(one.state) for one in node.ask(list_deliveries)]


def is_sending(node: Node, archive: Storescp) -> bool:
    return any(
        one.raddr and one.raddr.port == archive.port and one.status == psutil.CONN_ESTABLISHED
        for one in psutil.Process(node.pid).net_connections()
    )


def test_the_object_that_is_going_out_is_finished_and_no_other_is_begun(images: list[Path], tmp_path: Path) -> None:
    with (
        Storescp(tmp_path / "slow", "--sleep-during", "1") as archive,
        Node(tmp_path, destinations=[destination("slow", archive)], delivery={"timeout_s": 60}) as node,
    ):
        storescu(node.port, images)
        wait_until(lambda: len(sent(node)) == 2, "the result", 60)
        wait_until(lambda: is_sending(node, archive), "the first object to be on its way", 30)
        start_s = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - start_s < 20
        assert sorted(sent(node)) == ["sent", "waiting"]
    assert "in_order=True" in node.log


def test_a_second_signal_ends_the_waiting(images: list[Path], tmp_path: Path) -> None:
    with (
        Storescp(tmp_path / "slow", "--sleep-during", "60") as archive,
        Node(tmp_path, destinations=[destination("slow", archive)], delivery={"timeout_s": 90}) as node,
    ):
        storescu(node.port, images)
        wait_until(lambda: len(sent(node)) == 2, "the result", 60)
        wait_until(lambda: is_sending(node, archive), "the first object to be on its way", 30)
        node.signal(signal.SIGTERM)
        wait_until(lambda: " stopping" in node.log, "the node to hear it", 10)
        time.sleep(1.0)
        start_s = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - start_s < 13
        assert sent(node) == ["waiting", "waiting"]
    assert "hurried=True" in node.log
