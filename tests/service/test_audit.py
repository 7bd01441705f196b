"""The audit trail: a chain that shows what was changed, loses nothing at a kill, and says each thing once."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from audit_rules import check
from records import NOW, add_exam, add_job, later, open_database, settings_in
from sqlalchemy import delete, insert, select, update

from processing.refusal import Reason, ReasonCode
from service import audit, audit_chain, audit_trail, quarantine, reprocessing
from service import database as db
from service.audit import AuditEvent, AuditKind
from service.audit_chain import ChainBroken, Head, NewLine
from service.audit_trail import QUIET_S, AuditTrail, noted_head
from service.database import Database

MR, SEG = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.66.4"


def lines_of(folder: Path) -> list[audit_chain.Line]:
    return list(audit_chain.read_lines(folder))


def write(folder: Path, *texts: str, now: datetime = NOW) -> Head:
    return audit_chain.append(folder, [NewLine("alert", text) for text in texts], now)


def trail_file(folder: Path) -> Path:
    return next(iter(folder.glob("audit-*.jsonl")))


# --- the chain --------------------------------------------------------------------------------------------------------


def test_a_chain_that_nobody_touched_holds_over_months(tmp_path: Path) -> None:
    write(tmp_path, "one", "two")
    write(tmp_path, "three", now=NOW + timedelta(days=40))
    head = write(tmp_path, "four", now=NOW)  # the clock was set back
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["audit-2026-03.jsonl", "audit-2026-04.jsonl"]
    found = audit_chain.verify(tmp_path, head)
    assert (found.head, found.files, found.unfinished) == (head, 2, 0)
    assert [line.message for line in lines_of(tmp_path)] == ["one", "two", "three", "four"]
    assert trail_file(tmp_path).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [1, 5, 10])
def test_an_edited_line_is_named(tmp_path: Path, number: int) -> None:
    write(tmp_path, *(f"text {n}" for n in range(1, 11)))
    path = trail_file(tmp_path)
    path.write_text(path.read_text().replace(f"text {number}", f"lies {number}", 1))
    with pytest.raises(ChainBroken, match=rf"^line {number} "):
        audit_chain.verify(tmp_path)


@pytest.mark.parametrize("number", [1, 5, 10])
def test_a_removed_line_is_named(tmp_path: Path, number: int) -> None:
    write(tmp_path, *(f"text {n}" for n in range(1, 11)))
    path = trail_file(tmp_path)
    kept = path.read_text().splitlines(keepends=True)
    del kept[number - 1]
    path.write_text("".join(kept))
    with pytest.raises(ChainBroken, match=rf"^line {number}\b"):
        audit_chain.verify(tmp_path)


def test_a_line_put_in_between_is_named(tmp_path: Path) -> None:
    write(tmp_path, "one", "two", "three")
    path = trail_file(tmp_path)
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*kept[:2], kept[1].replace("two", "new"), kept[2]]))
    with pytest.raises(ChainBroken, match=r"^line 3 "):
        audit_chain.verify(tmp_path)


def test_a_trail_cut_short_is_seen_even_where_its_own_note_was_cut_too(tmp_path: Path) -> None:
    early = write(tmp_path, "one", "two")
    head = write(tmp_path, "three")
    path = trail_file(tmp_path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ChainBroken, match=r"^line 3: it is missing"):
        audit_chain.verify(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps({"n": early.number, "hash": early.hash}))
    assert audit_chain.verify(tmp_path).head == early
    with pytest.raises(ChainBroken, match=r"^line 3: it is missing"):
        audit_chain.verify(tmp_path, head)


def test_a_month_that_was_removed_is_seen(tmp_path: Path) -> None:
    write(tmp_path, "one")
    write(tmp_path, "two", now=NOW + timedelta(days=40))
    (tmp_path / "audit-2026-03.jsonl").unlink()
    with pytest.raises(ChainBroken, match=r"^line 1 "):
        audit_chain.verify(tmp_path)


def test_a_new_chain_in_place_of_the_old_is_seen(tmp_path: Path) -> None:
    head = write(tmp_path / "a", "one", "two")
    write(tmp_path / "b", "one", "two", now=later(1))
    with pytest.raises(ChainBroken, match=r"^line 2"):
        audit_chain.verify(tmp_path / "b", head)


def test_what_an_interrupted_write_left_is_removed_and_the_chain_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "one", "two" * 50_000)
    with trail_file(tmp_path).open("ab") as stream:
        stream.write(b'{"n":3,"at":"2026-')
    assert audit_chain.verify(tmp_path).unfinished == 18
    write(tmp_path, "three")
    assert audit_chain.verify(tmp_path).unfinished == 0
    assert [line.message[:5] for line in lines_of(tmp_path)] == ["one", "twotw", "three"]


def test_a_damaged_last_line_stops_nothing_and_stays_named(tmp_path: Path) -> None:
    write(tmp_path, "one", "two")
    path = trail_file(tmp_path)
    path.write_text(path.read_text().replace('{"n":2', "garbage", 1))
    write(tmp_path, "three")
    assert [line.number for line in lines_of(tmp_path)] == [1, 3]
    with pytest.raises(ChainBroken, match=r"^line 2 "):
        audit_chain.verify(tmp_path)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "one")
    before = trail_file(tmp_path).read_bytes()
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        if len(data) < 50:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:50])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, "two")
    monkeypatch.undo()
    assert trail_file(tmp_path).read_bytes() == before
    write(tmp_path, "three")
    assert audit_chain.verify(tmp_path).head.number == 2


def _write_many(folder: Path, name: str) -> None:
    for number in range(100_000):
        audit_chain.append(
            folder, [NewLine("alert", f"{name} {number} a"), NewLine("alert", f"{name} {number} b")], NOW
        )
        Path(folder.parent / name).write_text(str(number))


def test_two_writers_killed_again_and_again_keep_one_whole_chain(tmp_path: Path) -> None:
    """kill -9 at any moment: the chain holds, and what a writer knew to be written is there."""
    folder = tmp_path / "audit"
    context = multiprocessing.get_context("fork")
    for turn in range(6):
        names = [f"{turn}-a", f"{turn}-b"]
        writers = [context.Process(target=_write_many, args=(folder, name)) for name in names]
        for one in writers:
            one.start()
        time.sleep(0.15 + 0.03 * turn)
        for one in writers:
            assert one.pid is not None
            os.kill(one.pid, signal.SIGKILL)
            one.join()
        audit_chain.verify(folder)
        texts = {line.message for line in lines_of(folder)}
        for name in names:
            known = tmp_path / name
            if known.exists() and known.read_text():
                assert {f"{name} {n} b" for n in range(int(known.read_text()) + 1)} <= texts
    assert len(texts) > 20


# --- from the database to the chain -----------------------------------------------------------------------------------


def add_received(database: Database, study_uid: str, number: int, at: datetime, sop_class: str = MR) -> None:
    with database.write() as connection:
        connection.execute(
            insert(db.instance).values(
                sop_uid=f"{study_uid}.{number}",
                sop_class_uid=sop_class,
                study_uid=study_uid,
                series_uid=f"{study_uid}.0",
                transfer_syntax="1.2.840.10008.1.2.1",
                path=f"objects/{number}",
                sha256=f"{study_uid}.{number}",
                size_bytes=1000,
                calling_ae="SCANNER",
                received_at=at,
                state="received",
            )
        )


def kinds(trail: AuditTrail) -> list[str]:
    return [line.kind for line in lines_of(trail.folder)]


def test_a_reception_is_written_once_it_has_ended_and_only_once(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    database = open_database(settings)
    trail = AuditTrail(database, settings)
    for number in range(3):
        add_received(database, "1.2.3", number, later(number))
    add_received(database, "1.2.9", 1, later(1), SEG)
    assert trail.write_due(later(5)) == 0
    add_received(database, "1.2.3", 3, later(6))
    assert trail.write_due(later(19)) == 0
    assert trail.write_due(later(19 + QUIET_S)) == 4
    assert trail.write_due(later(60)) == 0
    assert AuditTrail(database, settings).write_due(later(90), is_last=True) == 0
    first = [check(line.message) for line in lines_of(trail.folder)][:2]
    assert [one.find(".//SOPClass").get("NumberOfInstances") for one in first] == ["4", "4"]
    assert first[1].find("EventIdentification").get("EventDateTime") == "2026-03-01T08:00:06.000Z"
    assert audit_chain.verify(trail.folder, noted_head(database)).head.number == 4
    database.close()


def test_a_sender_that_never_stops_is_written_in_parts(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    database = open_database(settings)
    trail = AuditTrail(database, settings)
    for number in range(60):
        add_received(database, "1.2.3", number, later(10 * number))
        trail.write_due(later(10 * number))
    assert 2 <= len(kinds(trail)) <= 8
    trail.write_due(later(700), is_last=True)
    messages = [check(line.message) for line in lines_of(trail.folder)]
    told = [int(one.find(".//SOPClass").get("NumberOfInstances")) for one in messages]
    assert sum(told) == 2 * 60
    database.close()


@pytest.mark.parametrize("dies_after", [0, 1, 2])
def test_a_long_backlog_is_written_in_lots_and_a_kill_between_them_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """Whole, the lines of a long outage took tens of megabytes. Each study comes in two lots here."""
    monkeypatch.setattr(audit_trail, "_MOST_ROWS", 10)
    settings = settings_in(tmp_path)
    database = open_database(settings)
    for number in range(24):
        add_received(database, f"1.2.{number % 12}", number, later(number))
        audit.record(database, AuditEvent(AuditKind.RELEASED, later(number), by=f"p{number}", studies=("1.2.3",)))
    real, lots = audit_chain.append, []

    def count(folder: Path, lines: list[NewLine], now: datetime) -> Head:
        head = real(folder, lines, now)
        lots.append(len(lines))
        if dies_after and len(lots) == 2 * dies_after:
            raise KeyboardInterrupt
        return head

    monkeypatch.setattr(audit_chain, "append", count)
    if dies_after:
        with pytest.raises(KeyboardInterrupt):
            AuditTrail(database, settings).write_due(later(999), is_last=True)
    trail = AuditTrail(database, settings)
    trail.write_due(later(999), is_last=True)
    assert max(lots) == 20  # ten receptions, each with its begin and end
    messages = [check(line.message) for line in lines_of(trail.folder)]
    people = [one.find("ActiveParticipant").get("UserID") for one in messages[:24]]
    assert people == [f"p{number}" for number in range(24)]
    told = [int(one.find(".//SOPClass").get("NumberOfInstances")) for one in messages[24:]]
    assert sum(told) == 2 * 24
    audit_chain.verify(trail.folder, noted_head(database))
    database.close()


def test_an_action_is_in_the_trail_if_and_only_if_it_was_done(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    database = open_database(settings)
    trail = AuditTrail(database, settings)
    event = AuditEvent(AuditKind.RELEASED, NOW, by="anna", studies=("1.2.3",))

    def fail() -> None:
        with database.write() as connection:
            audit.note(connection, event)
            raise RuntimeError("the action failed")

    with pytest.raises(RuntimeError):
        fail()
    audit.record(database, event)
    assert trail.write_due(NOW, is_last=True) == 1
    assert check(lines_of(trail.folder)[0].message).find("ActiveParticipant").get("UserID") == "anna"
    with database.read() as connection:
        assert connection.execute(select(db.audit_queue)).all() == []
    database.close()


@pytest.mark.parametrize("written", range(4))
def test_a_kill_between_trail_and_database_doubles_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The lines are there up to any point of a lot; the database has not heard of it."""
    settings = settings_in(tmp_path)
    database = open_database(settings)
    for name in ("anna", "bert", "carl", "dora"):
        audit.record(database, AuditEvent(AuditKind.RELEASED, NOW, by=name, studies=("1.2.3",)))
    real = audit_chain.append

    def half(folder: Path, lines: list[NewLine], now: datetime) -> Head:
        real(folder, lines[: written + 1], now)
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_chain, "append", half)
    with pytest.raises(KeyboardInterrupt):
        AuditTrail(database, settings).write_due(NOW, is_last=True)
    monkeypatch.undo()
    trail = AuditTrail(database, settings)
    trail.write_now(AuditEvent(AuditKind.STARTED, later(9)))
    audit.record(database, AuditEvent(AuditKind.RELEASED, later(10), by="emil", studies=("1.2.3",)))
    while trail.write_due(later(11), is_last=True):
        pass
    found = [check(line.message).find("ActiveParticipant").get("UserID") for line in lines_of(trail.folder)]
    assert [one for one in found if one != "DISCNODE"] == ["anna", "bert", "carl", "dora", "emil"]
    audit_chain.verify(trail.folder)
    database.close()


def test_patients_are_pseudonyms_that_another_node_does_not_share(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        settings = settings_in(tmp_path / name)
        database = open_database(settings)
        for study in ("1.2.3", "1.2.4"):
            add_exam(database, study)
            audit.record(database, AuditEvent(AuditKind.RELEASED, NOW, by="anna", studies=(study,)))
        with database.write() as connection:
            connection.execute(update(db.exam).values(patient_key="digest-of-the-id"))
        trail = AuditTrail(database, settings)
        trail.write_due(NOW, is_last=True)
        messages = [check(line.message) for line in lines_of(trail.folder)]
        patients = [one.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") for one in messages]
        assert len(set(patients)) == 1
        assert "digest-of-the-id" not in trail_file(trail.folder).read_text()
        assert (trail.folder / "patient.key").stat().st_mode & 0o077 == 0
        found.append(patients[0])
        database.close()
    assert found[0] != found[1]


@pytest.mark.parametrize("has_new_objects", [True, False])
def test_a_database_restored_from_before_loses_nothing_that_comes_then(tmp_path: Path, has_new_objects: bool) -> None:
    """Numbers of rows are given again; the trail says that they have been read."""
    settings = settings_in(tmp_path)
    database = open_database(settings)
    path = tmp_path / "node" / "discnode.sqlite"
    add_received(database, "1.2.3", 1, NOW)
    with sqlite3.connect(path) as source, sqlite3.connect(tmp_path / "old.sqlite") as backup:
        source.backup(backup)
    if has_new_objects:
        add_received(database, "1.2.3", 2, NOW)
    for _ in range(3):
        audit.record(database, AuditEvent(AuditKind.RELEASED, NOW, by="anna", studies=("1.2.3",)))
    AuditTrail(database, settings).write_due(NOW, is_last=True)
    database.close()
    for one in path.parent.glob("discnode.sqlite*"):
        one.unlink()
    shutil.copy(tmp_path / "old.sqlite", path)
    database = open_database(settings)
    audit.record(database, AuditEvent(AuditKind.RELEASED, later(5), by="bert", studies=("1.2.3",)))  # while it is off
    trail = AuditTrail(database, settings)
    trail.reconcile(later(10))
    audit.record(database, AuditEvent(AuditKind.RELEASED, later(12), by="carl", studies=("1.2.3",)))
    add_received(database, "1.2.4", 3, later(12))
    trail.write_due(later(12), is_last=True)
    AuditTrail(database, settings).reconcile(later(13))
    told = ["released"] * 3 + ["received"] * 2 + ["alert"] * has_new_objects + ["released"] * 2 + ["received"] * 2
    assert kinds(trail) == told
    people = [check(one.message).find("ActiveParticipant").get("UserID") for one in lines_of(trail.folder)]
    assert [one for one in people if one in ("anna", "bert", "carl")] == ["anna"] * 3 + ["bert", "carl"]
    audit_chain.verify(trail.folder)
    database.close()


def test_a_lot_whose_rows_are_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a lot, and then the database was replaced."""
    settings = settings_in(tmp_path)
    database = open_database(settings)
    for name in ("anna", "bert"):
        audit.record(database, AuditEvent(AuditKind.RELEASED, NOW, by=name, studies=("1.2.3",)))
    real = audit_chain.append
    monkeypatch.setattr(audit_chain, "append", lambda folder, lines, now: real(folder, lines[:1], now))
    AuditTrail(database, settings).write_due(NOW, is_last=True)
    monkeypatch.undo()
    with database.write() as connection:
        connection.execute(delete(db.audit_queue))
    trail = AuditTrail(database, settings)
    trail.reconcile(later(1))
    assert trail.write_due(later(1), is_last=True) == 1
    audit.record(database, AuditEvent(AuditKind.RELEASED, later(2), by="carl", studies=("1.2.3",)))
    assert trail.write_due(later(2), is_last=True) == 1
    assert kinds(trail) == ["released", "alert", "released"]
    database.close()


def test_the_time_of_writing_is_utc(tmp_path: Path) -> None:
    write(tmp_path, "one", now=datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))))
    assert trail_file(tmp_path).name == "audit-2026-02.jsonl"


def test_what_people_decide_is_in_the_trail_with_their_names(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    database = open_database(settings)
    job = add_job(database, add_exam(database, "1.2.3"))
    with database.write() as connection:
        connection.execute(update(db.job).values(state="failed"))
        connection.execute(update(db.exam).values(state="failed"))
        reason = Reason(ReasonCode.UNREADABLE, "of Doe^Jane")
        where = {"sop_uid": "1.2.3.4", "path": "objects/x", "sha256": "f00d", "calling_ae": "SCANNER"}
        quarantine.hold_bytes(connection, reason, NOW, **where)
        quarantine.hold_exam(connection, 1, Reason(ReasonCode.MOTION, "of Doe^Jane"), NOW)
    assert reprocessing.retry(database, job, by="anna")
    assert not reprocessing.retry(database, 99, by="nobody")
    assert quarantine.discard(database, 1, reason="a test by Doe^Jane", by="bert")
    assert quarantine.release(database, 2, by="carl")
    assert not quarantine.release(database, 2, by="nobody")
    trail = AuditTrail(database, settings)
    trail.write_due(later(9), is_last=True)
    told = {}
    for line in lines_of(trail.folder):
        root = check(line.message)
        study = root.find("ParticipantObjectIdentification").get("ParticipantObjectID")
        words = root.findtext(".//EventOutcomeDescription")
        told[line.kind] = (root.find("ActiveParticipant").get("UserID"), study, words)
    assert told == {
        "reprocessed": ("anna", "1.2.3", f"job {job}"),
        "discarded": ("bert", "unknown", "quarantined item 1 (UNREADABLE)"),
        "released": ("carl", "1.2.3", "quarantined item 2 (MOTION)"),
    }
    assert "Doe" not in trail_file(trail.folder).read_text()
    database.close()
