"""Destinations that are down, break off, refuse, sleep or lie: nothing is lost, nothing is sent twice without need."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from archive_of_ones_choice import Archive
from outbox_desk import NOW, Outbox, scp_destination
from peers import Orthanc, Storescp
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from config.settings import Destination
from dicom_io.sender import SendOutcome
from service import database
from service.delivery import count_waiting, warn_of_strays

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")

UIDS = [f"1.2.3.{number}" for number in range(5)]
OpenOutbox = Callable[..., Outbox]


@pytest.fixture
def open_outbox(tmp_path: Path) -> Iterator[OpenOutbox]:
    opened: list[Outbox] = []

    def make(*destinations: Destination, **more: Any) -> Outbox:
        opened.append(Outbox(tmp_path, *destinations, **{"n_objects": 5, **more}))
        return opened[-1]

    yield make
    for one in opened:
        one.database.close()


def test_three_days_of_outage_and_twenty_restarts(open_outbox: OpenOutbox) -> None:
    """Results go on coming. Afterwards each is at both destinations, each sent once."""
    step_s, n_steps = 3600.0, 72
    down, up = Archive(ae_title="DOWN"), Archive(ae_title="UP")
    with up:
        outbox = open_outbox(scp_destination("down", down), scp_destination("up", up))
        n_restarts = 0
        for number in range(n_steps):
            if number % 3 == 2 and n_restarts < 20:
                outbox.restart()
                n_restarts += 1
            if number == 30:
                outbox.finish_job(5, "1.2.9")
            for name in ("down", "up"):
                outbox.deliver(name, number * step_s)
                outbox.confirm(name, number * step_s + 5)
        assert n_restarts == 20
        assert count_waiting(outbox.database) == {"down": 10}
        assert outbox.states("up") == ["confirmed"] * 10
        attempts = {one.attempts for one in outbox.rows("down")}
        assert min(attempts) == n_steps - 30
        assert max(attempts) == n_steps
        with down:
            for number in range(n_steps, n_steps + 3):
                outbox.deliver("down", number * step_s)
                outbox.confirm("down", number * step_s + 5)
    assert outbox.states("down") == ["confirmed"] * 10
    for archive in (down, up):
        assert sorted(archive.received) == sorted(archive.kept)
        assert len(archive.kept) == 10


# --- dcmtk's faults ---------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize(
    ("fault", "taken"),
    [("--ignore", 5), ("--abort-during", 0), ("--abort-after", 0), ("--refuse", 0), ("--sleep-during=20", 0)],
)
def test_a_faulty_peer_confirms_nothing_and_then_gets_what_is_missing(
    open_outbox: OpenOutbox, tmp_path: Path, fault: str, taken: int
) -> None:
    faulty = Storescp(tmp_path / "faulty", *fault.split("="))
    outbox = open_outbox(scp_destination("scp", faulty), delivery={"timeout_s": 0.7 if "sleep" in fault else 5.0})
    with faulty:
        assert outbox.deliver("scp") == taken
        outbox.confirm("scp", 500.0)
    assert outbox.states("scp") == (["sent"] if taken else ["waiting"]) * 5
    honest = Archive()
    outbox.settings = outbox.settings.model_copy(update={"destinations": (scp_destination("scp", honest),)})
    with honest:
        for day in range(1, 4):
            outbox.deliver("scp", day * 86_400.0)
            outbox.confirm("scp", day * 86_400.0 + 400.0)
    assert outbox.states("scp") == ["confirmed"] * 5
    assert sorted(honest.received) == UIDS  # each once


# --- one object that the peer cannot take -----------------------------------------------------------------------------


def test_an_object_over_which_the_peer_breaks_off_holds_up_no_other(open_outbox: OpenOutbox) -> None:
    """It was the first of each try, and the others were never reached."""

    class Fragile(Archive):
        def _on_store(self, event: Any) -> int:
            if str(event.request.AffectedSOPInstanceUID) == UIDS[0]:
                event.assoc.abort()
            return super()._on_store(event)

    with Fragile() as archive:
        outbox = open_outbox(scp_destination("a", archive))
        assert outbox.deliver("a") == 4
        assert outbox.states("a") == ["waiting", *["sent"] * 4]
        assert [one.attempts for one in outbox.rows("a")] == [1] * 5
        for seconds in (60.0, 120.0):
            assert outbox.deliver("a", seconds) == 0
        assert [archive.received.count(uid) for uid in UIDS] == [3, 1, 1, 1, 1]


def test_an_object_that_is_refused_holds_up_no_other(open_outbox: OpenOutbox) -> None:
    with Archive(store_status=lambda uid: 0xC000 if uid == UIDS[2] else 0) as archive:
        outbox = open_outbox(scp_destination("a", archive))
        assert outbox.deliver("a") == 4
        assert outbox.states("a").index("waiting") == 2
        assert outbox.rows("a")[2].last_status == 0xC000


@pytest.mark.peers
def test_a_file_that_cannot_be_read_holds_up_no_other(open_outbox: OpenOutbox, orthanc: Orthanc) -> None:
    """The first of them broke off each try."""
    outbox = open_outbox(scp_destination("scp", orthanc), Destination(name="web", dicomweb_url=orthanc.dicomweb_url))
    broken = (b"", b"no DICOM", b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\xff\0\0\0")
    for number, content in enumerate(broken):
        (outbox.settings.storage_dir / "results" / f"{number}.dcm").write_bytes(content)
    for name in ("scp", "web"):
        assert outbox.deliver(name) == 2
        assert outbox.states(name) == [*["waiting"] * 3, *["sent"] * 2]
        assert {one.last_error for one in outbox.rows(name)[:3]} == {"its file cannot be read"}


def test_a_peer_whose_disk_is_full_is_not_sent_everything(open_outbox: OpenOutbox) -> None:
    with Archive(store_status=lambda uid: 0xA700) as archive:
        outbox = open_outbox(scp_destination("a", archive))
        assert outbox.deliver("a") == 0
        assert len(archive.received) == 3
        assert [one.attempts for one in outbox.rows("a")] == [1, 1, 1, 0, 0]
        archive.store_status = lambda uid: 0
        assert outbox.deliver("a", 10.0) == 5


# --- the node dies, the settings change -------------------------------------------------------------------------------

DELIVER = """
import json, sys
from config.settings import Settings
from service.database import open_database
from service.delivery import deliver_due
settings = Settings.model_validate(json.loads(sys.stdin.read()))
deliver_due(open_database(settings), settings.destinations[0], settings)
"""


def test_a_kill_in_the_middle_sends_at_most_the_object_in_flight_twice(open_outbox: OpenOutbox) -> None:
    victim: list[subprocess.Popen[str]] = []

    class Murderous(Archive):
        def _on_store(self, event: Any) -> int:
            status = super()._on_store(event)
            if len(self.received) == 3:
                victim[0].kill()
            return status

    with Murderous() as archive:
        outbox = open_outbox(scp_destination("a", archive))
        victim.append(subprocess.Popen([sys.executable, "-c", DELIVER], stdin=subprocess.PIPE, text=True))
        victim[0].communicate(json.dumps(outbox.settings.model_dump(mode="json")), timeout=60)
        assert victim[0].returncode == -9
        outbox.deliver("a", (datetime.now(UTC) - NOW).total_seconds() + 60.0)
        assert outbox.states("a") == ["sent"] * 5
        assert [archive.received.count(uid) for uid in UIDS] == [1, 1, 2, 1, 1]


def test_what_waits_for_a_destination_that_is_no_longer_in_the_settings_is_kept_and_told(
    open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    with Archive() as archive:
        outbox = open_outbox(scp_destination("a", archive), scp_destination("gone", Archive()))
        settings = outbox.settings.model_copy(update={"destinations": outbox.settings.destinations[:1]})
        assert warn_of_strays(outbox.database, settings) == {"gone": 5}
        assert [one.getMessage() for one in caplog.records] == ["objects for an unknown destination"]
        assert warn_of_strays(outbox.database, outbox.settings) == {}
        assert outbox.states("gone") == ["waiting"] * 5


# --- what cannot be written down --------------------------------------------------------------------------------------


def test_nothing_is_sent_while_the_database_takes_nothing(
    open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first object was sent again every second, for that it was sent could not be written down."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    with Archive() as archive:
        outbox = open_outbox(scp_destination("a", archive))
        other = sqlite3.connect(outbox.settings.storage_dir / "discnode.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError):
            outbox.deliver("a")
        assert archive.received == []
        other.close()
        assert outbox.deliver("a") == 5


def test_what_was_sent_and_could_not_be_written_down_is_not_sent_again_at_once(
    open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    with Archive() as archive:
        outbox = open_outbox(scp_destination("a", archive))
        with monkeypatch.context() as broken:
            broken.setattr("service.delivery.note_sent", fail)
            outbox.deliver("a")
            outbox.deliver("a", 1.0)
            outbox.deliver("a", 3.0)
        assert archive.received == UIDS[:1]
        assert outbox.deliver("a", 60.0) == 5


def test_a_peer_that_ends_every_association_at_once_is_called_ever_more_rarely(
    open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was called every five seconds for ever, and never counted as failing."""

    def end_at_once(paths: Sequence[Path], *_: Any) -> Iterator[SendOutcome]:
        yield from (SendOutcome(path, False, None, "association lost", tried=False) for path in paths)

    outbox = open_outbox(scp_destination("a", Archive()))
    monkeypatch.setattr("service.delivery._sending", end_at_once)
    for number in range(10):
        outbox.deliver("a", number * 10.0)
    (attempts,) = {one.attempts for one in outbox.rows("a")}
    assert 3 <= attempts <= 6  # of ten looks; the waits are spread


def test_what_has_no_file_any_more_is_not_put_back_into_the_outbox(open_outbox: OpenOutbox) -> None:
    """It waited for ever, and so did everybody who looked at the health check."""
    with Archive() as archive:
        outbox = open_outbox(scp_destination("a", archive))
        outbox.deliver("a")
    (outbox.settings.storage_dir / outbox.rows("a")[0].path).unlink()
    with pytest.raises(FileNotFoundError):
        outbox.retry("a", UIDS[0])
    with outbox.database.write() as connection:
        connection.execute(update(database.job).values(files="deleting"))
    with pytest.raises(FileNotFoundError):
        outbox.retry("a", UIDS[1])
    assert outbox.states("a") == ["sent"] * 5
