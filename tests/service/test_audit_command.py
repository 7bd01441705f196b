"""``discnode audit``: verify says ok with a count, or the first line that is wrong; show is for people."""

import json
import shutil
from pathlib import Path

import pytest
from audit_rules import check
from records import NOW, add_exam, later, open_database, settings_in

from service import audit, cli
from service.audit import AuditEvent, AuditKind
from service.audit_chain import read_lines
from service.audit_trail import AuditTrail
from service.quarantine_command import person

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node with a trail of four lines."""
    path = tmp_path / "node.yaml"
    path.write_text(json.dumps({"storage_dir": "node"}))
    settings = settings_in(tmp_path)
    database = open_database(settings)
    add_exam(database, "1.2.3")
    trail = AuditTrail(database, settings)
    trail.write_now(AuditEvent(AuditKind.STARTED, NOW))
    audit.record(database, AuditEvent(AuditKind.RELEASED, later(1), by="anna", studies=("1.2.3",), detail="item 7"))
    transfer = AuditEvent(AuditKind.SENT, later(2), later(3), peer="pacs", studies=("1.2.3",), sop_classes=((MR, 5),))
    audit.record(database, transfer)
    trail.write_due(later(9), is_last=True)
    database.close()
    return path


def trail_file(config: Path) -> Path:
    return config.parent / "node" / "audit" / "audit-2026-03.jsonl"


def test_a_trail_in_order_is_ok_with_its_count(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "verify", "--config", str(config)]) == 0
    assert "ok, 4 lines in 1 files; agrees with its own note and with the database" in capsys.readouterr().out
    copy = config.parent / "copy"
    shutil.copytree(trail_file(config).parent, copy)
    assert cli.main(["audit", "verify", str(copy)]) == 0
    assert "ok, 4 lines" in capsys.readouterr().out


def test_the_first_wrong_line_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trail_file(config)
    path.write_text(path.read_text().replace("anna", "bert"))
    assert cli.main(["audit", "verify", "--config", str(config)]) == 1
    assert "broken: line 2 (audit-2026-03.jsonl)" in capsys.readouterr().err


def test_a_trail_cut_together_with_its_note_disagrees_with_the_database(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trail_file(config)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    (path.parent / "head.json").unlink()
    assert cli.main(["audit", "verify", str(path.parent)]) == 0
    capsys.readouterr()
    assert cli.main(["audit", "verify", "--config", str(config)]) == 1
    assert "broken: line 3: it is missing; the trail had 4 lines and now has 2" in capsys.readouterr().err


def test_a_trail_that_was_removed_is_broken(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trail_file(config).unlink()
    assert cli.main(["audit", "verify", str(trail_file(config).parent)]) == 1
    assert "line 1: it is missing" in capsys.readouterr().err
    assert cli.main(["audit", "verify", str(config.parent / "nowhere")]) == 2


def test_events_are_shown_one_a_line_or_as_they_are(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "show", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "2026-03-01T08:00:01.000Z" in lines[1]
    assert "anna -> DISCNODE  1.2.3  item 7" in lines[1]
    assert "DICOM Instances Transferred  DISCNODE -> pacs  1.2.3  5 objects" in lines[3]
    settings = settings_in(config.parent)
    database = open_database(settings)
    trail = AuditTrail(database, settings)
    trail.write_due(later(20), is_last=True)
    database.close()
    read = list(read_lines(trail.folder))[-1]
    assert (read.kind, check(read.message).find("ActiveParticipant").get("UserID")) == ("trail_read", person())
    assert cli.main(["audit", "show", "--config", str(config), "--kind", "sent", "--last", "1", "--xml"]) == 0
    assert capsys.readouterr().out.startswith("<AuditMessage><EventIdentification")
