"""What a real node writes into its audit trail, and tells people, while it is killed: all of it, once, no identity."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from audit_rules import check
from node_process import Node, destination
from peers import Storescp, free_port, need, storescu, wait_until
from small_mr_exam import mapss_signal, write_mapss
from test_health import Asked

from service import audit_chain
from service.delivery import list_deliveries

pytestmark = pytest.mark.peers

CANARIES = ("Canary^Jane", "CANARY-4711", "19470311", "Canary Hospital")


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook: its address and what it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_trail_of_a_node_that_is_killed_is_whole_and_says_each_thing_once(
    storescp: Storescp, tmp_path: Path, told: tuple[str, list[dict[str, Any]]]
) -> None:
    need("storescu")
    url, messages = told
    name, patient, born, place = CANARIES
    (tmp_path / "a").mkdir()
    identity = {"PatientName": name, "PatientID": patient, "PatientBirthDate": born, "InstitutionName": place}
    images = write_mapss(tmp_path / "a", mapss_signal(), **identity)
    port = free_port()
    node = Node(
        tmp_path,
        web={"port": port},
        destinations=[destination("archive", storescp)],
        notifications={"webhooks": [{"name": "chat", "url": url}], "group_s": 0, "link": "http://node.example/"},
    )
    with node:
        storescu(node.port, images[:10])
        node.kill()
        node.start()
        storescu(node.port, images[10:])
        storescu(node.port, images)  # again: known, and no second reception
        wait_until(lambda: len(storescp.files) == 2, "the results", 60)
        wait_until(lambda: all(one.state == "sent" for one in node.ask(list_deliveries)), "the record of it", 20)
        node.kill()
        node.start()
        wait_until(lambda: any("restarted" in json.dumps(one) for one in messages), "the restart to be told", 30)
        figures = Asked(port).metrics()
    folder = node.settings.storage_dir / "audit"
    audit_chain.verify(folder)
    lines = [(line.kind, check(line.message)) for line in audit_chain.read_lines(folder)]
    kinds = Counter(kind for kind, _ in lines)
    assert (kinds["started"], kinds["stopped"]) == (3, 1)
    moved: Counter[tuple[str, str]] = Counter()
    for kind, message in lines:
        if kind in ("received", "sent"):
            event = message.find(".//EventID").get("csd-code")
            moved[kind, event] += sum(int(one.get("NumberOfInstances")) for one in message.iter("SOPClass"))
    n = len(images)
    assert moved == {
        ("received", "110102"): n,
        ("received", "110104"): n,
        ("sent", "110102"): 2,
        ("sent", "110104"): 2,
    }
    said = "".join(path.read_text() for path in folder.glob("*.json*")) + json.dumps(messages) + json.dumps(figures)
    said += (node.settings.storage_dir / "notifications.json").read_text()
    assert [one for one in CANARIES if one in said] == []
    assert all(one["link"] == "http://node.example/" for one in messages)
