from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outbox_desk import NOW, Outbox, scp_destination
from peers import Orthanc, Storescp, free_port
from records import open_database, settings_in

from config.settings import Delivery, Destination, Settings
from service.database import Database
from service.delivery import count_waiting, list_deliveries, retry_delay_s, send_now
from service.outbox import destinations_for

# pynetdicom 3.0 leaves the socket of a refused connection to the garbage collector.
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def closing() -> Iterator[list[Database]]:
    opened: list[Database] = []
    yield opened
    for one in opened:
        one.close()


def test_results_reach_two_real_archives(
    storescp: Storescp, orthanc: Orthanc, tmp_path: Path, closing: list[Database]
) -> None:
    outbox = Outbox(tmp_path, scp_destination("dcmtk", storescp), scp_destination("orthanc", orthanc))
    closing.append(outbox.database)
    assert (outbox.deliver("dcmtk"), outbox.deliver("orthanc")) == (3, 3)
    assert len(storescp.files) == 3
    assert orthanc.sop_instance_uids == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert (outbox.deliver("dcmtk"), count_waiting(outbox.database)) == (0, {})


def test_results_reach_a_dicomweb_service_once_its_door_is_opened(
    orthanc: Orthanc, tmp_path: Path, closing: list[Database]
) -> None:
    headers = tmp_path / "headers"
    web = Destination(name="web", dicomweb_url=orthanc.dicomweb_url, headers_file=headers)
    outbox = Outbox(tmp_path, web)
    closing.append(outbox.database)
    assert outbox.deliver("web") == 0
    assert {one.last_error for one in list_deliveries(outbox.database)} == {f"headers_file {headers}: cannot be read"}
    headers.touch(0o600)
    headers.write_text("Authorization: Bearer anything\n")
    orthanc.stop()
    assert outbox.deliver("web", 60.0) == 0
    orthanc.start()
    assert outbox.deliver("web", 60.1) == 0  # not yet due
    assert outbox.deliver("web", 120.0) == 3
    assert [orthanc.file_of(f"1.2.3.{number}") for number in range(3)] == [
        (outbox.settings.storage_dir / "results" / f"{number}.dcm").read_bytes() for number in range(3)
    ]
    assert {(one.state, one.attempts, one.last_status) for one in list_deliveries(outbox.database)} == {("sent", 3, 0)}
    assert (outbox.deliver("web", 180.0), count_waiting(outbox.database)) == (0, {})


def test_a_destination_that_is_down_gets_all_when_it_is_up_and_holds_up_nobody(
    storescp: Storescp, tmp_path: Path, closing: list[Database]
) -> None:
    down = Storescp(tmp_path / "down")
    outbox = Outbox(tmp_path, scp_destination("down", down), scp_destination("up", storescp))
    closing.append(outbox.database)
    assert outbox.deliver("down") == 0
    assert outbox.deliver("up") == 3
    assert outbox.deliver("down", 1.0) == 0  # not yet due: not even tried
    assert {one.attempts for one in list_deliveries(outbox.database) if one.destination == "down"} == {1}
    assert count_waiting(outbox.database) == {"down": 3}

    # the node is stopped and started meanwhile
    outbox.database.close()
    outbox.database = open_database(outbox.settings)
    closing.append(outbox.database)
    with down:
        assert outbox.deliver("down", 60.0) == 3
        assert len(down.files) == 3
    assert outbox.deliver("up", 60.0) == 0
    assert len(storescp.files) == 3


def test_only_what_is_missing_is_sent_again(tmp_path: Path, closing: list[Database]) -> None:
    stingy = Storescp(tmp_path / "stingy", "--abort-after")  # stores an object, then aborts without an answer
    outbox = Outbox(tmp_path, scp_destination("stingy", stingy))
    closing.append(outbox.database)
    with stingy:
        assert outbox.deliver("stingy") == 0
    assert outbox.sent("stingy") == 0
    honest = Storescp(tmp_path / "honest")
    honest.port = stingy.port
    with honest:
        assert outbox.deliver("stingy", 60.0) == 3
        assert outbox.deliver("stingy", 120.0) == 0


def test_a_lost_file_does_not_hold_up_the_others(storescp: Storescp, tmp_path: Path, closing: list[Database]) -> None:
    outbox = Outbox(tmp_path, scp_destination("up", storescp))
    closing.append(outbox.database)
    (outbox.settings.storage_dir / "results" / "1.dcm").unlink()
    assert outbox.deliver("up") == 2
    assert [one.last_error for one in list_deliveries(outbox.database)] == [None, "its file is missing", None]


def test_send_now_ends_the_waiting(storescp: Storescp, tmp_path: Path, closing: list[Database]) -> None:
    outbox = Outbox(tmp_path, Destination(name="up", ae_title="ARCHIVE", host="127.0.0.1", port=free_port()))
    closing.append(outbox.database)
    assert outbox.deliver("up") == 0
    send_now(outbox.database, "up", NOW)
    outbox.settings = settings_in(tmp_path, destinations=[scp_destination("up", storescp).model_dump()])
    assert outbox.deliver("up", 0.1) == 3


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_waits_double_up_to_the_longest(attempts: int, chance: float) -> None:
    settings = Delivery(first_retry_s=5.0, longest_retry_s=900.0)
    delay_s = retry_delay_s(attempts, settings, chance)
    assert 0.8 * min(5.0 * 2.0 ** min(attempts - 1, 20), 900.0) <= delay_s <= 1.2 * 900.0 * (1 + 1e-12)
    assert timedelta(seconds=delay_s) > timedelta(0)
    assert retry_delay_s(attempts + 1, settings, chance) >= retry_delay_s(attempts, settings, chance)


def test_routes_choose_destinations() -> None:
    def place(name: str) -> Destination:
        return Destination(name=name, ae_title=name, host="h", port=104)

    everything = Settings(destinations=(place("a"), place("b")))
    assert [one.name for one in destinations_for(everything, calling_ae="MR1", protocol="p")] == ["a", "b"]
    routed = Settings.model_validate(
        {
            "destinations": [place(name).model_dump() for name in "abc"],
            "routes": [
                {"when": {"calling_ae_title": "MR1"}, "send_to": ["b"]},
                {"when": {"calling_ae_title": "MR1", "protocol": "t2-fse"}, "send_to": ["c"]},
                {"send_to": ["b"], "when": {"protocol": "ge-mapss"}},
            ],
        }
    )
    assert [one.name for one in destinations_for(routed, calling_ae="MR1", protocol="t2-fse")] == ["b", "c"]
    assert [one.name for one in destinations_for(routed, calling_ae="MR1", protocol="x")] == ["b"]
    assert destinations_for(routed, calling_ae="MR2", protocol="x") == ()
    two_scans = "ge-mapss + philips-mapss-t2"
    assert [one.name for one in destinations_for(routed, calling_ae="MR2", protocol=two_scans)] == ["b"]
