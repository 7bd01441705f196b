"""Delivered means confirmed: by storage commitment, else by a query; a liar's Success never counts."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from archive_of_ones_choice import Archive
from outbox_desk import Outbox, later, scp_destination
from peers import Orthanc, Storescp, free_port, need, wait_until
from sqlalchemy import func, select

from config.settings import Destination
from dicom_io.inbox import Inbox
from dicom_io.receiver import Receiver, open_receiver
from service import confirmation
from service import database as db
from service.arrivals import open_ledger
from service.asked_commitments import open_results
from service.checks import confirmation_check
from service.commitments import open_commitment_desk
from service.health import Health
from service.metrics import Metrics, Running

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a result over the same association, where none comes."""
    monkeypatch.setattr(confirmation, "REPORT_WAIT_S", 0.2)


UIDS = ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
OpenOutbox = Callable[..., Outbox]


@pytest.fixture
def open_outbox(tmp_path: Path) -> Iterator[OpenOutbox]:
    opened: list[Outbox] = []

    def make(*destinations: Destination, **more: Any) -> Outbox:
        opened.append(Outbox(tmp_path, *destinations, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.database.close()


@pytest.fixture
def open_node() -> Iterator[Callable[[Outbox], Receiver]]:
    """Our receiver, to which results of commitment requests come."""
    opened: list[Receiver] = []

    def make(outbox: Outbox) -> Receiver:
        desk = open_commitment_desk(outbox.database, outbox.settings)
        results = open_results(outbox.database, outbox.settings, lambda: later(50))
        inbox = Inbox(outbox.database.inbox_dir)
        opened.append(open_receiver(outbox.settings, inbox, open_ledger(outbox.database), desk, results))
        return opened[-1]

    yield make
    for one in opened:
        one.close(0.1)


# --- honest peers -----------------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_orthanc_commits_itself_over_an_association_of_its_own_after_a_restart(
    tmp_path: Path, open_outbox: OpenOutbox, open_node: Callable[[Outbox], Receiver]
) -> None:
    """Our receiver is down when the result is due; Orthanc's own is asked for anew. One object was deleted there."""
    need("Orthanc")
    port = free_port()
    with Orthanc(tmp_path / "orthanc", modalities={"DISCNODE": port}) as pacs:
        outbox = open_outbox(scp_destination("pacs", pacs, confirm="commitment"), port=port)
        assert outbox.deliver("pacs") == 3
        pacs.delete(UIDS[1])
        outbox.confirm("pacs", 1.0)
        assert outbox.states("pacs") == ["sent"] * 3  # not yet due
        outbox.confirm("pacs", 3.0)
        assert outbox.states("pacs") == ["sent"] * 3
        outbox.restart()
        open_node(outbox)
        outbox.confirm("pacs", 10.0)  # nothing is due before the result is overdue
        assert [one.asks for one in outbox.rows("pacs")] == [1] * 3
        outbox.confirm("pacs", 700.0)
        assert wait_until(lambda: outbox.sent("pacs") == 0, "Orthanc's report")
        assert outbox.states("pacs") == ["confirmed", "waiting", "confirmed"]
        assert [one.confirmed_by for one in outbox.rows("pacs")] == ["commitment", None, "commitment"]
        assert outbox.deliver("pacs", 3600.0) == 1  # only what was missing
        assert pacs.sop_instance_uids == UIDS
        outbox.confirm("pacs", 3610.0)
        assert wait_until(lambda: outbox.states("pacs") == ["confirmed"] * 3, "Orthanc's second report")


@pytest.mark.peers
def test_orthanc_that_does_not_know_us_is_queried(orthanc: Orthanc, open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(scp_destination("pacs", orthanc), Destination(name="web", dicomweb_url=orthanc.dicomweb_url))
    for name in ("pacs", "web"):
        assert outbox.deliver(name) == 3
        orthanc.delete(UIDS[1])
        outbox.confirm(name, 3.0)
        assert outbox.states(name) == ["confirmed", "sent", "confirmed"]
        assert [one.confirmed_by for one in outbox.rows(name)] == ["query", None, "query"]
        outbox.confirm(name, 400.0)
        assert outbox.states(name) == ["confirmed", "waiting", "confirmed"]
        assert outbox.deliver(name, 2000.0) == 1
        outbox.confirm(name, 2003.0)
        assert outbox.states(name) == ["confirmed"] * 3


def test_a_result_over_the_same_association(open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmation, "REPORT_WAIT_S", 20.0)
    with Archive(commits=lambda uid, uids: (uid, uids[:2], uids[2:])) as archive:
        outbox = open_outbox(scp_destination("a", archive))
        assert outbox.deliver("a") == 3
        outbox.confirm("a", 3.0)
        assert outbox.states("a") == ["confirmed", "confirmed", "waiting"]
        assert archive.answers == [0]


# --- liars ------------------------------------------------------------------------------------------------------------


def test_a_liar_is_never_believed_and_never_given_up(open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers Success and keeps nothing; its commitment says so. Waits grow to the cap; nothing is dropped."""
    monkeypatch.setattr(confirmation, "REPORT_WAIT_S", 20.0)
    with Archive(keeps=lambda uid: False, commits=lambda uid, uids: (uid, [], uids)) as liar:
        outbox = open_outbox(scp_destination("liar", liar))
        seconds, sent_at = 0.0, []
        while len(sent_at) < 18:
            if outbox.deliver("liar", seconds):
                sent_at.append(seconds)
            outbox.confirm("liar", seconds + 3.0)
            assert "confirmed" not in outbox.states("liar")
            waiting = [one for one in outbox.rows("liar") if one.state == "waiting"]
            assert len(waiting) == 3
            seconds = (max(one.not_before for one in waiting) - later(0)).total_seconds()
        waits = [after - before for before, after in pairwise(sent_at)]
        assert waits[0] < 12
        assert all(0.8 * 86_400 <= wait_s <= 1.2 * 86_400 + 3 for wait_s in waits[-2:])
        assert {one.denials for one in outbox.rows("liar")} == {18}


def test_what_a_query_never_shows_is_sent_again_ever_more_rarely(
    open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    with Archive(keeps=lambda uid: uid != UIDS[1]) as liar:
        outbox = open_outbox(scp_destination("liar", liar))
        for hour in range(8):
            for minute in range(0, 60, 10):
                seconds = 3600.0 * hour + 60.0 * minute
                outbox.deliver("liar", seconds)
                outbox.confirm("liar", seconds + 599)
        assert [state == "confirmed" for state in outbox.states("liar")] == [True, False, True]
        assert [liar.received.count(uid) for uid in UIDS] == [1, outbox.rows("liar")[1].attempts, 1]
        assert 8 < liar.received.count(UIDS[1]) < 20
    warnings = [one for one in caplog.records if one.levelname == "WARNING" and one.getMessage() == "queried"]
    assert len(warnings) == 1  # told once


def test_results_that_are_not_what_was_asked_for_confirm_nothing(
    open_outbox: OpenOutbox, open_node: Callable[[Outbox], Receiver]
) -> None:
    port = free_port()
    with Archive(commits=lambda uid, uids: None, report_to=port) as archive:
        outbox = open_outbox(scp_destination("a", archive, confirm="commitment"), port=port)
        open_node(outbox)
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        ((transaction, uids),) = archive.requests
        assert archive.report(("1.2.99", uids, [])) == 0x0115  # another transaction
        assert archive.report(("", uids, [])) == 0x0115
        assert archive.report((transaction, ["1.2.3.77"], [])) == 0  # other objects: none of ours is named
        assert outbox.states("a") == ["sent"] * 3
        outbox.confirm("a", 700.0)
        second = archive.requests[-1][0]
        assert second != transaction
        assert archive.report((second, uids, uids[:1])) == 0  # kept and failed: failed
        assert outbox.states("a") == ["waiting", "confirmed", "confirmed"]
        assert archive.report((second, uids, [])) == 0  # once more, and other: what was answered stands
        assert outbox.states("a") == ["waiting", "confirmed", "confirmed"]


@pytest.mark.parametrize("selects_role", [True, False])
def test_a_result_from_somebody_else_counts_nothing(
    open_outbox: OpenOutbox, open_node: Callable[[Outbox], Receiver], selects_role: bool
) -> None:
    port = free_port()
    with Archive(commits=lambda uid, uids: None, report_to=port) as archive:
        outbox = open_outbox(scp_destination("a", archive, reports_as="REPORTER"), port=port)
        open_node(outbox)
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        ((transaction, uids),) = archive.requests
        assert archive.report((transaction, uids, []), calling="STRANGER") == 0x0115
        assert outbox.states("a") == ["sent"] * 3
        assert archive.report((transaction, uids, []), calling="REPORTER", selects_role=selects_role) == 0
        assert outbox.states("a") == ["confirmed"] * 3


def test_a_late_result_counts_unless_the_object_was_sent_again(
    open_outbox: OpenOutbox, open_node: Callable[[Outbox], Receiver]
) -> None:
    port = free_port()
    archive = Archive(commits=lambda uid, uids: None, report_to=port)
    with archive:
        outbox = open_outbox(scp_destination("a", archive, confirm="commitment"), port=port)
        open_node(outbox)
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        outbox.confirm("a", 700.0)  # asked again; the wait is twice as long
        outbox.confirm("a", 1700.0)
        assert len(archive.requests) == 2
        outbox.confirm("a", 2000.0)
        (first, uids), (second, _), _ = archive.requests
        assert archive.report((first, uids[:1], uids[1:2])) == 0
        assert outbox.states("a") == ["confirmed", "waiting", "sent"]
        assert outbox.deliver("a", 4000.0) == 1
        assert archive.report((second, uids[2:], uids[1:2])) == 0  # of what was sent before
        assert outbox.states("a") == ["confirmed", "sent", "confirmed"]


def test_a_lost_result_is_followed_by_a_query(open_outbox: OpenOutbox) -> None:
    """As where the destination does not know our address: it takes the request, and its result never comes."""
    with Archive(commits=lambda uid, uids: None, keeps=lambda uid: uid != UIDS[0]) as archive:
        outbox = open_outbox(scp_destination("a", archive))
        outbox.deliver("a")
        outbox.confirm("a", 3.0)
        assert outbox.states("a") == ["sent"] * 3
        outbox.confirm("a", 700.0)
        assert outbox.states("a") == ["waiting", "confirmed", "confirmed"]
        assert len(archive.requests) == 1


def test_a_lost_result_of_a_destination_without_query_is_asked_for_again(open_outbox: OpenOutbox) -> None:
    with Archive(commits=lambda uid, uids: None, has_query=False) as archive:
        outbox = open_outbox(scp_destination("a", archive))
        outbox.deliver("a")
        for seconds in (3.0, 700.0, 1800.0, 2000.0):
            outbox.confirm("a", seconds)
        assert [len(uids) for _, uids in archive.requests] == [3, 3, 3]
        assert len({transaction for transaction, _ in archive.requests}) == 3
        assert outbox.states("a") == ["sent"] * 3


def test_a_request_that_is_refused_is_followed_by_a_query(open_outbox: OpenOutbox) -> None:
    with Archive(commits=lambda uid, uids: (uid, uids, []), action_status=0x0110) as archive:
        outbox = open_outbox(scp_destination("a", archive), scp_destination("strict", archive, confirm="commitment"))
        for name in ("a", "strict"):
            outbox.deliver(name)
            outbox.confirm(name, 3.0)
        assert [one.confirmed_by for one in outbox.rows("a")] == ["query"] * 3
        assert outbox.states("strict") == ["sent"] * 3
        assert {one.last_error for one in outbox.rows("strict")} == {"the peer answers N-ACTION with 0x0110"}


@pytest.mark.peers
def test_what_cannot_be_confirmed_stays_sent_and_says_so(
    storescp: Storescp, open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox(scp_destination("dcmtk", storescp), scp_destination("silent", storescp, confirm="none"))
    for name in ("dcmtk", "silent"):
        assert outbox.deliver(name) == 3
        for day in range(5):
            outbox.confirm(name, 3.0 + 86_400.0 * 2 * day)
        assert outbox.states(name) == ["sent"] * 3
    assert {one.last_error for one in outbox.rows("dcmtk")} == {"it offers no way to confirm"}
    assert [one.getMessage() for one in caplog.records].count("sent, and cannot be confirmed") == 1
    assert len(storescp.files) == 3
    check = confirmation_check(outbox.database, outbox.settings)
    assert check().startswith("dcmtk offers no way to confirm what it takes (")
    assert "silent" not in check()
    assert measured(outbox, "discnode_destination_unconfirmable") == {"dcmtk": 1.0}


@pytest.mark.peers
def test_who_offers_no_way_to_confirm_is_not_asked_about_every_new_object(
    storescp: Storescp, open_outbox: OpenOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = open_outbox(scp_destination("dcmtk", storescp))
    asked = []
    original = confirmation.find_present
    monkeypatch.setattr(confirmation, "find_present", lambda *given: asked.append(1) or original(*given))
    assert outbox.deliver("dcmtk") == 3
    outbox.confirm("dcmtk", 3600.0)  # an hour later: then after two
    for number in range(5):
        outbox.finish_job(3, f"1.2.4.{number}")
        assert outbox.deliver("dcmtk", 3600.0 + 60 * number) == 3
        outbox.confirm("dcmtk", 3610.0 + 60 * number)
    assert len(asked) == 1
    rows = outbox.rows("dcmtk")
    assert {one.last_error for one in rows} == {"it offers no way to confirm"}
    outbox.confirm("dcmtk", 3600.0 * 2.3)
    assert len(asked) == 2
    with outbox.database.read() as connection:  # what was never asked is not kept
        assert connection.execute(select(func.count()).select_from(db.asked_commitment)).scalar() == 0


def measured(outbox: Outbox, name: str) -> dict[str, float]:
    """A metric by destination."""
    metrics = Metrics(outbox.database, outbox.settings, lambda: Health(()), lambda: Running({}, {}, {}))
    lines = re.findall(rf'^{name}\{{destination="(\w+)"\}} (\S+)$', metrics.text().decode(), re.MULTILINE)
    return {destination: float(value) for destination, value in lines}


def test_a_destination_that_takes_and_has_not_is_told_until_it_has(open_outbox: OpenOutbox) -> None:
    hidden = {UIDS[1]}
    with Archive(keeps=lambda uid: uid not in hidden) as archive:
        outbox = open_outbox(scp_destination("pacs", archive))
        check = confirmation_check(outbox.database, outbox.settings)
        outbox.deliver("pacs")
        outbox.confirm("pacs", 3.0)
        assert (check(), measured(outbox, "discnode_destination_denied_objects")) == ("", {"pacs": 0.0})
        outbox.confirm("pacs", 700.0)
        assert check() == "1 objects that pacs took are not there"
        assert measured(outbox, "discnode_destination_denied_objects") == {"pacs": 1.0}
        hidden.clear()
        assert outbox.deliver("pacs", 7200.0) == 1
        assert check() != ""  # it says again that it has it
        outbox.confirm("pacs", 7210.0)
        assert outbox.states("pacs") == ["confirmed"] * 3
        assert check() == ""
