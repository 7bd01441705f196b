"""A backup of a running node holds every file that its database names; a node restored from it goes on."""

import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from desk import Desk, open_desk
from node_process import TESTS, Node, destination
from peers import Storescp, acknowledged, dcmsend, need, storescu, wait_until
from records import NOW, later
from small_mr_exam import mapss_signal, write_mapss
from sqlalchemy import select

from service import audit_chain
from service import backup as module
from service import database as db
from service.audit import AuditEvent, AuditKind, record
from service.audit_trail import AuditTrail, audit_folder, noted_head
from service.backup import BackupError, files_named, make_backup, restore_backup
from service.cli import main
from service.database import open_database
from service.quarantine_command import person


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "scan"
    folder.mkdir()
    return write_mapss(folder, mapss_signal())


@pytest.fixture
def desk(tmp_path: Path, images: list[Path]) -> Iterator[Desk]:
    with open_desk(tmp_path) as opened:
        opened.arrive_all(images[:5])
        yield opened


def inventory(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in (folder / "inbox" / "objects").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_what_is_restored_is_what_was_there(desk: Desk, tmp_path: Path, name: str) -> None:
    (desk.settings.storage_dir / "audit.log").write_text("one line\n")
    made = make_backup(desk.settings, tmp_path / name)
    assert (made.n_files, made.missing) == (7, ())
    into = tmp_path / "elsewhere" / "node"
    assert restore_backup(tmp_path / name, into) == 7
    assert inventory(into) == inventory(desk.settings.storage_dir)
    assert (into / "audit.log").read_text() == "one line\n"
    restored = open_database(desk.settings.model_copy(update={"storage_dir": into}))
    with restored.read() as connection:
        assert len(connection.execute(select(db.instance.c.id)).all()) == 5
    restored.close()
    assert not list(desk.settings.storage_dir.glob(".backup-*"))
    for top in (tmp_path / name, into):
        files = [path for path in (top, *top.rglob("*")) if path.is_file()]
        assert top.stat().st_mode & 0o007 == 0  # for nobody else to read
        assert files


def test_a_file_that_comes_or_goes_meanwhile_fits_the_database(
    desk: Desk, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is copied before the files: what comes later is extra, what goes later makes it be copied anew."""
    copy, count = module.copy_sqlite, iter(range(9))

    def meanwhile(source: Path, target: Path) -> None:
        copy(source, target)
        if next(count) == 0:
            desk.arrive_all(images[5:8])
            with desk.database.write() as connection:
                row = connection.execute(select(db.instance.c.id, db.instance.c.path)).first()
                assert row is not None
                connection.execute(db.instance.delete().where(db.instance.c.id == row.id))
                (desk.database.inbox_dir / row.path).unlink()

    monkeypatch.setattr(module, "copy_sqlite", meanwhile)
    made = make_backup(desk.settings, tmp_path / "backup")
    assert made.missing == ()
    named = sorted(files_named(tmp_path / "backup" / "discnode.sqlite"))
    assert len(named) == 7
    assert all((tmp_path / "backup" / name).is_file() for name in named)


def test_an_audit_line_written_while_the_backup_is_made_does_not_look_like_tampering(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database noted an end of the trail that was not in the copy: the restored node said it was tampered with."""
    trail, copy = AuditTrail(desk.database, desk.settings), module.copy_sqlite
    trail.write_now(AuditEvent(AuditKind.STARTED, NOW))

    def meanwhile(source: Path, target: Path) -> None:
        trail.write_due(NOW, is_last=True)  # the images that came
        copy(source, target)
        trail.write_now(AuditEvent(AuditKind.ALERT, NOW))

    monkeypatch.setattr(module, "copy_sqlite", meanwhile)
    make_backup(desk.settings, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    settings = desk.settings.model_copy(update={"storage_dir": tmp_path / "restored"})
    restored = open_database(settings)
    head = noted_head(restored)
    assert head.number > 1
    assert audit_chain.verify(audit_folder(settings), head).head.number > head.number
    AuditTrail(restored, settings).reconcile(NOW)
    assert "older" not in "".join(line.message for line in audit_chain.read_lines(audit_folder(settings)))
    restored.close()


def test_a_backup_leaves_a_word_in_the_audit_trail(desk: Desk, tmp_path: Path) -> None:
    """All images of the node were copied by a person, and the trail said nothing of it."""
    (tmp_path / "node.yaml").write_text(json.dumps({"storage_dir": str(desk.settings.storage_dir)}))
    assert main(["backup", "--out", str(tmp_path / "made"), "--config", str(tmp_path / "node.yaml")]) == 0
    trail = AuditTrail(desk.database, desk.settings)
    trail.write_due(NOW, is_last=True)
    said = [line.message for line in audit_chain.read_lines(trail.folder) if line.kind == "alert"]
    assert len(said) == 1
    assert "a backup of 6 files was made" in said[0]
    assert person() in said[0]


def test_that_a_node_was_restored_stands_in_its_audit_trail(desk: Desk, tmp_path: Path) -> None:
    """The trail of the backup is longer than its database knows: the word of the restore is not lost over that."""
    trail = AuditTrail(desk.database, desk.settings)
    for number in range(3):
        record(desk.database, AuditEvent(AuditKind.RELEASED, later(number), by="anna", studies=("1.2.3",)))
    trail.write_due(later(9), is_last=True)
    make_backup(desk.settings, tmp_path / "made")
    into = tmp_path / "restored"
    assert main(["restore", str(tmp_path / "made"), "--into", str(into)]) == 0
    settings = desk.settings.model_copy(update={"storage_dir": into})
    restored = open_database(settings)
    of_it = AuditTrail(restored, settings)
    of_it.reconcile(datetime.now(UTC))
    of_it.write_due(datetime.now(UTC), is_last=True)
    (said,) = [line.message for line in audit_chain.read_lines(of_it.folder) if line.kind == "alert"]
    assert "restored from a backup of" in said
    assert person() in said
    audit_chain.verify(of_it.folder, noted_head(restored))
    restored.close()


def test_a_file_that_the_node_had_lost_is_named(desk: Desk, tmp_path: Path) -> None:
    lost = next(iter(inventory(desk.settings.storage_dir)))
    (desk.settings.storage_dir / lost).unlink()
    assert make_backup(desk.settings, tmp_path / "backup").missing == (lost,)
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["missing"] == [lost]


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_backup_that_is_not_whole_is_refused_and_leaves_nothing(desk: Desk, tmp_path: Path, name: str) -> None:
    made = tmp_path / name
    make_backup(desk.settings, made)
    if made.suffix == ".tar":
        content = bytearray(made.read_bytes())
        with tarfile.open(made) as archive:
            member = next(one for one in archive.getmembers() if one.name.endswith(".dcm"))
        content[member.offset_data + 200] ^= 1
        made.write_bytes(content)
    else:
        spoilt = next(path for path in made.rglob("*.dcm"))
        content = bytearray(spoilt.read_bytes())
        content[200] ^= 1
        spoilt.unlink()  # it is the node's own file by another name
        spoilt.write_bytes(content)
    with pytest.raises(BackupError, match="not as it was"):
        restore_backup(made, tmp_path / "into")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "node", "scan"]


def test_a_name_that_leads_outside_is_refused(desk: Desk, tmp_path: Path) -> None:
    make_backup(desk.settings, tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][0]["path"] = "../../outside"
    manifest.write_text(json.dumps(content))
    with pytest.raises(BackupError, match="outside"):
        restore_backup(tmp_path / "backup", tmp_path / "into")


def test_it_does_not_write_over_anything(desk: Desk, tmp_path: Path) -> None:
    make_backup(desk.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="exists already"):
        make_backup(desk.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="is not empty"):
        restore_backup(tmp_path / "backup", desk.settings.storage_dir)
    with pytest.raises(BackupError, match="no such backup"):
        restore_backup(tmp_path / "none", tmp_path / "into")
    with pytest.raises(BackupError, match="in the storage folder"):
        make_backup(desk.settings, desk.settings.storage_dir / "backups" / "monday.tar")
    postgres = desk.settings.model_copy(update={"database_url": "postgresql+psycopg://x/y"})
    with pytest.raises(BackupError, match="pg_dump"):
        make_backup(postgres, tmp_path / "other")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(line, cwd=TESTS.parent, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.peers
def test_a_node_restored_from_a_backup_of_a_busy_one_goes_on(
    images: list[Path], storescp: Storescp, tmp_path: Path
) -> None:
    """What was acknowledged before is all there; what was sent before is not sent again."""
    need("dcmsend", "storescu", "storescp")
    other = tmp_path / "other"
    other.mkdir()
    more = write_mapss(other, mapss_signal(20, 64, 64), StudyInstanceUID="1.2.3.77", SeriesInstanceUID="1.2.3.78")
    for path in more:
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.2"
        dataset.save_as(path)
    with Node(tmp_path, destinations=[destination("dcmtk", storescp)]) as node:
        storescu(node.port, images)
        wait_until(lambda: len(storescp.files) == 2, "the results of the first exam", 40)
        report = tmp_path / "report.txt"
        sender = threading.Thread(target=dcmsend, args=(node.port, more, report))
        sender.start()
        wait_until(lambda: len(node.instances) > 40, "some images of the second")
        before = set(node.instances)
        # in this process: while another one starts on a busy machine, the second exam may be measured and sent
        assert main(["backup", "--config", str(node.config), "--out", str(tmp_path / "backup.tar")]) == 0
        running = command("restore", tmp_path / "backup.tar", "--into", node.settings.storage_dir)
        assert (running.returncode, "stop it first" in running.stderr) == (1, True)
        sender.join()
    restored = command("restore", tmp_path / "backup.tar", "--into", tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    for path in storescp.files:
        path.unlink()
    elsewhere = tmp_path / "second"
    elsewhere.mkdir()
    with Node(elsewhere, storage_dir=str(tmp_path / "restored"), destinations=[destination("dcmtk", storescp)]) as node:
        kept = node.instances
        assert before <= set(kept)
        assert all(path.is_file() for path in kept.values())
        assert dcmsend(node.port, more, report).returncode == 0
        assert len(acknowledged(report)) == len(more)
        wait_until(lambda: [job.state for job in node.jobs] == ["done", "done"], "the second exam", 60)
        wait_until(lambda: len(storescp.files) == 2, "its results", 30)
    assert len(storescp.files) == 2
