"""The receive path as its processes have it: the spool, the recorder, and kills of each of them."""

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from desk import Desk, open_desk
from node_process import Node
from peers import echoscu, need, wait_until
from raw_client import MR, RJ, RawClient, associate_rq, store_message
from receive_campaign import Senders, image_bytes, lost, number_of, partial_files, with_uid
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from test_element_walk import encode
from test_receiver import image
from test_receiver_faults import UID, WHOLE

from dicom_io.element_walk import BrokenDataSet, ElementWalk
from dicom_io.inbox import Inbox, content_address
from dicom_io.receive_data import ObjectName, take_object
from dicom_io.received import Ledger, ReceivedInstance, Recorded
from dicom_io.spool import Spooled, list_spool, read_spooled, spool_name
from service import database as db
from service import quarantine, recorder
from service.pulse import Pulse
from service.recorder import Recorder, notices, open_spool_ledger

EXPLICIT = "1.2.840.10008.1.2.1"
DATA = image_bytes(8)


class SpooledDesk:
    """A record with a spool before it; recorded is what the test says, when it says so."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        reader, writer = notices()
        self.sockets = reader, writer
        self.ledger: Ledger = open_spool_ledger(desk.database, desk.inbox, writer)
        self.recorder = Recorder(desk.database, desk.inbox, reader, Pulse())

    def take(self, data: bytes, uid: str) -> int:
        return take_object(data, ObjectName(MR, uid, EXPLICIT), "SCANNER", self.desk.inbox, self.ledger).status

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        with self.desk.database.read() as connection:
            table = db.instance
            found = connection.execute(select(table.c.sop_uid, table.c.state, table.c.calling_ae).order_by(table.c.id))
            return [tuple(row) for row in found]


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[SpooledDesk]:
    with open_desk(tmp_path) as desk:
        opened = SpooledDesk(desk)
        yield opened
        for one in opened.sockets:
            one.close()


def test_what_is_acknowledged_lies_in_the_spool_until_it_is_recorded(spooled: SpooledDesk) -> None:
    uid, data = with_uid(DATA, 1)
    assert spooled.take(data, uid) == 0
    assert (spooled.rows, number_of(spooled.desk.inbox.folder)) == ([], 1)
    spooled.recorder.turn()
    assert spooled.rows == [(uid, "received", "SCANNER")]
    assert number_of(spooled.desk.inbox.folder) == 0
    assert partial_files(spooled.desk.database) == []


@pytest.mark.parametrize("is_recorded_between", [False, True])
def test_conflicts_are_known_before_the_answer(spooled: SpooledDesk, is_recorded_between: bool) -> None:
    other = encode(image(PatientID="P-18"))
    answers = []
    for data in (WHOLE, WHOLE, other, other):
        answers.append(spooled.take(data, UID))
        if is_recorded_between:
            spooled.recorder.turn()
    assert answers == [0, 0, 0xB000, 0]
    spooled.recorder.turn()
    assert [row[:2] for row in spooled.rows] == [(UID, "received"), (UID, "held")]
    assert [item.code for item in quarantine.list_items(spooled.desk.database)] == ["INSTANCE_CONFLICT"]
    assert len(list((spooled.desk.inbox.folder / "objects").rglob("*.dcm"))) == 2


def test_a_restart_records_what_was_acknowledged_and_removes_what_a_power_cut_tore(spooled: SpooledDesk) -> None:
    uids = []
    for number in range(1, 4):
        uid, data = with_uid(DATA, number)
        assert spooled.take(data, uid) == 0
        uids.append(uid)
    inbox = spooled.desk.inbox
    torn = inbox.path(spool_name("1.2.3", "0" * 64, "SCANNER", datetime.now(UTC)))
    torn.write_bytes(inbox.path(list_spool(inbox)[0].name).read_bytes()[:5000])
    with inbox.path(spool_name("1.2.4", "1" * 64, "SCANNER", datetime.now(UTC))).open("wb"):
        pass
    inbox.publish(list_spool(inbox)[0].name, list_spool(inbox)[0].sha256)  # killed between the two steps
    recorder = Recorder(spooled.desk.database, inbox, spooled.sockets[0], Pulse())
    assert recorder.replay() == 3
    assert sorted(row[0] for row in spooled.rows) == uids
    assert {row[2] for row in spooled.rows} == {"SCANNER"}
    assert number_of(inbox.folder) == 0
    recorder.turn()  # the notices of what is recorded already
    assert len(spooled.rows) == 3


def test_the_record_that_cannot_be_read_refuses_for_now_and_keeps_nothing(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, data = with_uid(DATA, 1)
    with spooled.desk.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE instance RENAME TO away")
    assert spooled.take(data, uid) == 0xA700
    assert number_of(spooled.desk.inbox.folder) == 0
    with spooled.desk.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO instance")
    assert spooled.take(data, uid) == 0


def test_a_lost_notice_is_made_good_also_while_ever_more_comes(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_LOOK_S", 0.0)
    lost_uid, data = with_uid(DATA, 1)
    assert spooled.take(data, lost_uid) == 0
    spooled.sockets[0].recv(4096)  # its notice
    uid, data = with_uid(DATA, 2)
    assert spooled.take(data, uid) == 0
    spooled.recorder.turn()
    assert sorted(row[0] for row in spooled.rows) == [lost_uid, uid]


def test_an_object_from_before_the_clock_was_set_back_does_not_wait_for_its_hour(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_WAIT_S", 0.01)
    uid, data = with_uid(DATA, 1)
    assert spooled.take(data, uid) == 0
    spooled.sockets[0].recv(4096)
    (one,) = list_spool(spooled.desk.inbox)
    folder = spooled.desk.inbox
    name = spool_name(uid, one.sha256, one.calling_ae, one.received_at + timedelta(hours=1))
    folder.path(one.name).rename(folder.path(name))
    spooled.recorder._looked_at_s -= 10.0
    spooled.recorder.turn()
    assert [row[0] for row in spooled.rows] == [uid]


def test_one_unreadable_file_in_the_spool_keeps_no_other_object_from_the_record(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [with_uid(DATA, number) for number in (1, 2, 3)]
    for uid, data in uids:
        assert spooled.take(data, uid) == 0
    bad = list_spool(spooled.desk.inbox)[0]

    def read(inbox: Inbox, one: Spooled) -> ReceivedInstance | None:
        if one.name == bad.name:
            raise OSError(errno.EIO, "Input/output error")
        return read_spooled(inbox, one)

    monkeypatch.setattr(recorder, "read_spooled", read)
    assert spooled.recorder.replay() == 2
    assert sorted(row[0] for row in spooled.rows) == [uid for uid, _ in uids[1:]]
    assert [one.name for one in list_spool(spooled.desk.inbox)] == [bad.name]
    monkeypatch.undo()
    assert spooled.recorder.replay() == 1  # the disk has come to its senses


def test_what_another_program_acknowledged_and_this_one_cannot_read_is_held_and_not_deleted(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, data = with_uid(DATA, 1)
    assert spooled.take(data, uid) == 0
    (one,) = list_spool(spooled.desk.inbox)
    content = spooled.desk.inbox.path(one.name).read_bytes()

    def feed(walk: ElementWalk, data: bytes) -> None:
        raise BrokenDataSet("another idea of what is whole")

    with monkeypatch.context() as patch:
        patch.setattr(ElementWalk, "feed", feed)
        assert spooled.recorder.replay() == 0
    (case,) = quarantine.list_items(spooled.desk.database)
    assert case.code == "UNREADABLE"
    assert list_spool(spooled.desk.inbox) == []
    (kept,) = (spooled.desk.inbox.folder / "objects").rglob("*.dcm")
    assert kept.read_bytes() == content


def test_a_kill_while_a_torn_file_is_replaced_does_not_take_the_object_with_it(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, data = with_uid(DATA, 1)
    assert spooled.take(data, uid) == 0
    (one,) = list_spool(spooled.desk.inbox)
    inbox = spooled.desk.inbox
    inbox.path(content_address(one.sha256)).write_bytes(b"torn")
    replace = os.replace

    def replace_and_die(source: Path, target: Path) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_and_die)
        with pytest.raises(KeyboardInterrupt):
            spooled.recorder.turn()
    assert spooled.recorder.replay() == 1
    assert [row[0] for row in spooled.rows] == [uid]


def test_an_object_is_not_held_because_another_writer_was_quicker_with_its_exam(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL has several writers at once: of two that make an exam, one meets an IntegrityError."""
    uid, data = with_uid(DATA, 1)
    assert spooled.take(data, uid) == 0
    write_down, tries = recorder.write_down, []

    def overtaken(*arguments: Any) -> Recorded:
        tries.append(arguments)
        if len(tries) == 1:
            raise IntegrityError("", {}, Exception())
        return write_down(*arguments)

    monkeypatch.setattr(recorder, "write_down", overtaken)
    spooled.recorder.turn()
    assert spooled.rows == [(uid, "received", "SCANNER")]
    assert quarantine.list_items(spooled.desk.database) == []


def test_large_objects_are_written_down_before_all_of_them_are_read(
    spooled: SpooledDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_BATCH_BYTES", 1)
    for number in (1, 2, 3):
        uid, data = with_uid(DATA, number)
        assert spooled.take(data, uid) == 0
    last = list_spool(spooled.desk.inbox)[-1]

    def read(inbox: Inbox, one: Spooled) -> ReceivedInstance | None:
        if one.name == last.name:  # killed, because all this took too long
            raise KeyboardInterrupt
        return read_spooled(inbox, one)

    monkeypatch.setattr(recorder, "read_spooled", read)
    with pytest.raises(KeyboardInterrupt):
        spooled.recorder.replay()
    assert len(spooled.rows) == 2


# --- with processes ---------------------------------------------------------------------------------------------------

peers = pytest.mark.peers


@peers
def test_kill_9_of_the_node_and_of_its_receivers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path, completion={})
    acknowledged: dict[str, str] = {}
    node.start()
    for number, victims in enumerate(("node", "receivers", "recorder")):
        senders = Senders(node.port, DATA, (number + 1) * 10_000_000)
        senders.start()
        wait_until(lambda senders=senders: len(senders.acknowledged) > 30, "some objects to be acknowledged", 60)
        if victims == "node":
            node.kill()
            node.start()
        else:
            children = sorted(node.process("reception").children(), key=lambda one: one.create_time())
            for one in children[:1] if victims == "recorder" else children[1:]:
                one.kill()
        if victims == "recorder":
            wait_until(lambda: "child=recorder" in node.log, "its death to be noticed")
        senders.stop()
        acknowledged |= senders.acknowledged
        folder = node.settings.storage_dir / "inbox"
        wait_until(lambda folder=folder: number_of(folder) == 0, "all to be recorded", 30)
        assert node.ask(lambda database, seen=dict(acknowledged): lost(database, seen)) == []
    assert node.ask(partial_files) == []
    assert node.stop() == 0
    assert "Traceback" not in node.log


@peers
def test_associations_are_counted_over_all_processes_and_a_killed_one_gives_its_back(tmp_path: Path) -> None:
    need("echoscu")

    def is_full(node: Node) -> bool:
        with RawClient(node.port) as client:
            kind, content = client.ask(associate_rq())
            return (kind, tuple(content[1:])) == (RJ, (2, 3, 2))

    with Node(tmp_path, max_associations=6) as node:
        wait_until(lambda: echoscu(node.port), "an answer")
        clients = [RawClient(node.port).associate() for _ in range(6)]
        assert is_full(node)
        receivers = sorted(node.process("reception").children(), key=lambda one: one.create_time())[1:]
        held = {one.pid: len(one.net_connections()) for one in receivers}
        psutil.Process(max(held, key=lambda pid: held[pid])).kill()
        wait_until(lambda: not is_full(node), "places to be given back", 15)
        for client in clients:
            client.close()
        wait_until(lambda: echoscu(node.port), "an answer")
        assert len(node.process("reception").children()) == 3


@peers
def test_a_stop_waits_for_the_object_under_way(tmp_path: Path) -> None:
    uid, data = with_uid(DATA, 5)
    node = Node(tmp_path)
    node.start()
    message = store_message(uid, data, step=50)
    with RawClient(node.port).associate() as client:
        client.socket.sendall(message[:-200])
        incoming = node.settings.storage_dir / "inbox" / "incoming"
        wait_until(lambda: os.listdir(incoming), "the object to begin")
        os.kill(node.pid, 15)
        wait_until(lambda: "stopping" in node.log, "the stop")
        assert client.status_of(client.ask(message[-200:])) == 0
    assert node.ended() == 0
    with node.ask(lambda database: database.read()) as connection:
        assert connection.execute(select(func.count()).select_from(db.instance)).scalar_one() == 1
