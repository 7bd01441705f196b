"""Node and destination are compared: what is gone is sent again, what is odd is told."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from archive_of_ones_choice import Archive
from outbox_desk import NOW, Outbox, later, scp_destination
from peers import Orthanc, free_port
from small_mr_exam import mr_dataset
from sqlalchemy import update
from test_quarantine import Client

from config.settings import Destination
from dicom_io.sender import Peer, send_files
from service import database as db
from service.cli import main
from service.health import Health
from service.reconciliation import Reconciliation, is_due, reconcile
from service.web import build_web
from service.web_api import build_api

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")

UIDS = [f"1.2.3.{number}" for number in range(6)]
NIGHT = 3600.0


def compare(outbox: Outbox, name: str, seconds: float = NIGHT, *, send_many: bool = False) -> Reconciliation:
    result = reconcile(
        outbox.database,
        outbox.destination(name),
        outbox.settings,
        now=lambda: later(seconds),
        send_many=send_many,
    )
    assert result is not None
    return result


@pytest.fixture
def closing() -> Iterator[list[Outbox]]:
    opened: list[Outbox] = []
    yield opened
    for one in opened:
        one.database.close()


@pytest.mark.peers
@pytest.mark.parametrize("way", ["c-find", "qido"])
def test_five_faults_are_found_and_what_can_be_is_repaired(
    orthanc: Orthanc, tmp_path: Path, closing: list[Outbox], way: str
) -> None:
    web = Destination(name="pacs", dicomweb_url=orthanc.dicomweb_url)
    outbox = Outbox(tmp_path, scp_destination("pacs", orthanc) if way == "c-find" else web, n_objects=6)
    closing.append(outbox)
    results = outbox.settings.storage_dir / "results"
    late = (results / "5.dcm").rename(tmp_path / "late")
    assert outbox.deliver("pacs") == 5  # fault 1: an object that still waits
    outbox.confirm("pacs", 3.0)
    outbox.retry("pacs", UIDS[2])
    outbox.deliver("pacs", 4.0)  # fault 2: sent and there, and never confirmed
    assert outbox.states("pacs") == ["confirmed", "confirmed", "sent", "confirmed", "confirmed", "waiting"]
    orthanc.delete(UIDS[1])  # fault 3
    stranger = mr_dataset(np.zeros((6, 5), dtype=np.uint16), SOPInstanceUID="1.2.3.99")
    stranger.save_as(tmp_path / "stranger", enforce_file_format=True)
    peer = Peer("127.0.0.1", orthanc.port, orthanc.ae_title, "OTHER")
    assert send_files([tmp_path / "stranger"], peer)[0].stored  # fault 4
    (results / "3.dcm").unlink()  # fault 5

    found = compare(outbox, "pacs")
    assert (found.n_compared, found.n_there, found.n_confirmed, found.error) == (5, 4, 1, None)
    assert (found.missing, found.strangers, found.without_file) == ((UIDS[1],), ("1.2.3.99",), (UIDS[3],))
    assert (found.n_waiting, found.agrees) == (2, False)

    late.rename(results / "5.dcm")
    assert outbox.deliver("pacs", 2 * NIGHT) == 2
    outbox.confirm("pacs", 2 * NIGHT + 3)
    assert outbox.states("pacs") == ["confirmed"] * 6
    assert orthanc.sop_instance_uids == sorted([*UIDS, "1.2.3.99"])


def test_a_destination_that_shows_almost_nothing_is_not_flooded(tmp_path: Path, closing: list[Outbox]) -> None:
    """Its query may have been closed for us: nothing is sent again without a person's word."""
    with Archive() as archive:
        outbox = Outbox(tmp_path, scp_destination("a", archive), n_objects=25)
        closing.append(outbox)
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        archive.kept.clear()
        found = compare(outbox, "a")
        assert (len(found.missing), found.is_held_back, found.agrees) == (25, True, False)
        assert set(outbox.states("a")) == {"confirmed"}
        assert not compare(outbox, "a", send_many=True).is_held_back
        assert set(outbox.states("a")) == {"waiting"}


def test_files_that_retention_removed_are_no_difference(tmp_path: Path, closing: list[Outbox]) -> None:
    """Each night named all results older than the retention, and the comparison never agreed."""
    with Archive() as archive:
        outbox = Outbox(tmp_path, scp_destination("a", archive))
        closing.append(outbox)
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        for one in outbox.rows("a"):
            (outbox.settings.storage_dir / one.path).unlink()
        assert compare(outbox, "a").without_file == tuple(UIDS[:3])
        with outbox.database.write() as connection:
            connection.execute(update(db.job).values(files="deleted"))
        assert compare(outbox, "a").agrees
        archive.kept.remove(UIDS[1])
        found = compare(outbox, "a")
        assert (found.missing, found.without_file) == ((UIDS[1],), (UIDS[1],))


def test_the_api_tells_of_deliveries_and_comparisons_without_paths(tmp_path: Path, closing: list[Outbox]) -> None:
    with Archive(keeps=lambda uid: uid != UIDS[1]) as archive:
        outbox = Outbox(tmp_path, scp_destination("a", archive))
        closing.append(outbox)
        outbox.deliver("a")
        compare(outbox, "a")
    web = Client(build_web(lambda: Health(True, True, True), build_api(outbox.database, [], outbox.settings)))
    shown = web.get("/api/deliveries", params={"state": "waiting", "destination": "a"}).json()
    assert [(one["sop_uid"], one["denials"], one["last_error"]) for one in shown] == [
        (UIDS[1], 1, "it is not there any more")
    ]
    assert not [one for one in shown if "path" in one]
    assert len(web.get("/api/deliveries", params={"limit": 2}).json()) == 2
    (found,) = web.get("/api/reconciliations").json()
    assert (found["destination"], found["compared"], found["missing"]) == ("a", 3, [UIDS[1]])


def test_it_is_made_once_a_night_and_made_up_for(tmp_path: Path, closing: list[Outbox]) -> None:
    archive = Archive()
    outbox = Outbox(tmp_path, scp_destination("a", archive), reconciliation={"at": "03:00"})
    closing.append(outbox)

    def due(when: datetime) -> bool:
        return is_due(outbox.database, outbox.destination("a"), outbox.settings, when)

    night = NOW.astimezone().replace(hour=3, minute=0) + timedelta(days=1)
    assert not due(night)  # nothing was sent
    with archive:
        outbox.deliver("a")
    assert not due(night - timedelta(minutes=1))
    assert due(night)
    seconds = (night - NOW).total_seconds()
    assert compare(outbox, "a", seconds).error is not None  # nobody there
    assert not due(night + timedelta(minutes=59))
    assert due(night + timedelta(minutes=61))
    with archive:
        assert compare(outbox, "a", seconds + 7200).agrees
    assert not due(night + timedelta(hours=23))
    assert due(night + timedelta(hours=60))  # the node was down in the next night


def test_the_commands_show_and_repair(
    tmp_path: Path, closing: list[Outbox], capsys: pytest.CaptureFixture[str]
) -> None:
    archive = Archive()
    outbox = Outbox(
        tmp_path, scp_destination("a", archive), Destination(name="b", dicomweb_url=f"http://127.0.0.1:{free_port()}/w")
    )
    closing.append(outbox)
    content = {"storage_dir": str(outbox.settings.storage_dir), "delivery": {"unseen_after_s": 0}}
    destinations = [one.model_dump(mode="json") for one in outbox.settings.destinations[:1]]
    (tmp_path / "node.yaml").write_text(json.dumps({**content, "destinations": destinations}))
    config = ["--config", str(tmp_path / "node.yaml")]
    with archive:
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        archive.kept.remove(UIDS[1])
        assert main(["reconcile", "--days", "36500", *config]) == 3
        assert f"{UIDS[1]}  not there, sent again" in capsys.readouterr().out
        assert main(["deliveries", "list", "--state", "waiting", *config]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [one in line for one, line in zip([UIDS[0], UIDS[1], UIDS[1], UIDS[2]], lines[1:], strict=True)] == [
            True
        ] * 4
        assert "b (not in the settings)" in lines[-1]
        assert main(["deliveries", "retry", *config]) == 2
        assert main(["deliveries", "retry", "999", *config]) == 2
        assert main(["deliveries", "retry", "--destination", "a", *config]) == 0
        now = (datetime.now(NOW.tzinfo) - NOW).total_seconds()
        assert outbox.deliver("a", now) == 1
        first = outbox.rows("a")[0]
        assert main(["deliveries", "retry", str(first.id), *config]) == 0
        assert outbox.deliver("a", now + 1) == 1
        capsys.readouterr()
        assert main(["reconcile", *config]) == 0
        assert main(["reconcile", "--destination", "nobody", *config]) == 2
    assert main(["reconcile", *config]) == 3
    assert "could not be compared" in capsys.readouterr().out
